package monitoring

import (
	"context"
	"encoding/binary"
	"hash/maphash"

	"falaj/internal/serving"
)

// rememberRows is how many of the latest predictions a repeated request is recognised among; twice as many at most.
const rememberRows = 100000

// again knows the latest predictions by what they answered: key, request, unit, event time, release and the place among
// equals in their request. A client that sends a request again under its id, because the answer got lost, is answered
// again and logged once. It is guarded by Log.mu.
type again struct {
	seed     maphash.Seed
	now, old map[uint64]struct{} // old is forgotten when now is full
}

func newAgain() again {
	return again{maphash.MakeSeed(), map[uint64]struct{}{}, map[uint64]struct{}{}}
}

// identities of the rows of one call. Equal rows within a call are different rows.
func (a *again) identities(rows []serving.Prediction) []uint64 {
	out, times := make([]uint64, len(rows)), map[uint64]uint64{}
	var h maphash.Hash
	h.SetSeed(a.seed)
	var tail [17]byte
	for i := range rows {
		p := &rows[i]
		h.Reset()
		for _, s := range [...]string{p.Project, p.Model, p.Environment, p.RequestID, p.Unit, p.Release} {
			h.WriteString(s)
			h.WriteByte(0)
		}
		binary.LittleEndian.PutUint64(tail[:], uint64(p.At.UnixMicro()))
		tail[16] = byte(boolInt(p.Shadow))
		h.Write(tail[:])
		id := h.Sum64()
		n := times[id]
		times[id]++
		out[i] = id + n*0x9e3779b97f4a7c15
	}
	return out
}

// fresh keeps the rows that were not seen and remembers them; undo forgets them again.
func (a *again) fresh(rows []serving.Prediction) (kept []serving.Prediction, undo func()) {
	var added []uint64
	for i, id := range a.identities(rows) {
		_, now := a.now[id]
		_, old := a.old[id]
		if now || old {
			continue
		}
		if len(a.now) >= rememberRows {
			a.now, a.old = map[uint64]struct{}{}, a.now
		}
		a.now[id] = struct{}{}
		added = append(added, id)
		kept = append(kept, rows[i])
	}
	return kept, func() {
		for _, id := range added {
			delete(a.now, id)
			delete(a.old, id)
		}
	}
}

// remember reads back the newest sealed predictions, as many as may have been sealed while a client waited for its answer.
func (l *Log) remember(ctx context.Context) error {
	segments, err := l.newestSegments(ctx, 2*l.cfg.SegmentRows)
	if err != nil {
		return err
	}
	for _, sg := range segments {
		rows, err := l.read(ctx, sg)
		if err != nil {
			l.log.Error("a segment of predictions does not read; repeated requests among them are not recognised", "segment", sg.ID, "err", err)
			continue
		}
		l.again.fresh(rows)
	}
	for _, g := range l.waiting {
		for _, gr := range g.groups {
			l.again.fresh(gr.rows)
		}
	}
	return nil
}

// newestSegments are the last sealed ones that hold about n rows.
func (l *Log) newestSegments(ctx context.Context, n int) (out []segmentRow, err error) {
	all, err := l.lastSegments(ctx, 64)
	for _, sg := range all {
		if n <= 0 {
			break
		}
		out = append(out, sg)
		n -= sg.Rows
	}
	return out, err
}

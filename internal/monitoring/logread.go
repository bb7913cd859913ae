package monitoring

import (
	"context"
	"io"
	"math"

	"falaj/internal/kernel/fault"
	"falaj/internal/serving"
)

// Dropped counts predictions that were answered and not logged.
func (l *Log) Dropped() int64 { return l.dropped.Load() }

// Repeated counts predictions that were logged before, for requests sent again.
func (l *Log) Repeated() int64 { return l.repeated.Load() }

// Snapshot copies the counters of every release seen since the start.
func (l *Log) Snapshot() []ReleaseStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]ReleaseStats, 0, len(l.stats))
	for _, st := range l.stats {
		c := *st
		c.Latency = Latency{}
		c.Latency.Merge(&st.Latency)
		out = append(out, c)
	}
	return out
}

// unsealed gives the rows of a key that are in no segment yet, with the spools they are in: a reader that looks at
// segments afterwards leaves out those of these spools, so that nothing is seen twice or missed.
func (l *Log) unsealed(k Key, from, to int64) (rows []serving.Prediction, spools map[string]bool) {
	l.mu.Lock()
	var found [][]serving.Prediction
	spools = map[string]bool{}
	for i := range len(l.waiting) + 1 {
		g := l.current
		if i < len(l.waiting) {
			g = l.waiting[i]
		}
		spools[g.id] = true
		if gr := g.groups[k]; gr != nil && gr.from < to && gr.to >= from {
			found = append(found, gr.rows)
		}
	}
	l.mu.Unlock()
	for _, part := range found {
		for _, p := range part {
			if at := p.At.UnixMicro(); at >= from && at < to {
				rows = append(rows, p)
			}
		}
	}
	return rows, spools
}

// Rows gives the predictions of a key with From <= at < To: those of segments in order, then the unsealed.
func (l *Log) Rows(ctx context.Context, k Key, w Window) ([]serving.Prediction, error) {
	from, to := w.From.UnixMicro(), w.To.UnixMicro()
	fresh, spools := l.unsealed(k, from, to)
	segments, err := l.segments(ctx, k, from, to)
	if err != nil {
		return nil, err
	}
	var out []serving.Prediction
	for _, sg := range segments {
		if spools[sg.spool] {
			continue
		}
		rows, err := l.read(ctx, sg)
		if err != nil {
			return nil, err
		}
		for _, p := range rows {
			if at := p.At.UnixMicro(); at >= from && at < to {
				out = append(out, p)
			}
		}
	}
	return append(out, fresh...), nil
}

func (l *Log) read(ctx context.Context, sg segmentRow) ([]serving.Prediction, error) {
	o, err := l.blobs.Open(ctx, sg.Project, sg.Digest)
	if err != nil {
		return nil, err
	}
	defer o.Close()
	b := make([]byte, o.Size())
	if _, err := io.ReadFull(o, b); err != nil {
		return nil, err
	}
	rows, err := decodeSegment(sg.Key, b)
	if err != nil {
		return nil, fault.Wrap(err, fault.Internal, "A segment of the prediction log does not read: "+sg.ID+".", "Run `falaj audit verify` to find what is damaged.")
	}
	return rows, nil
}

// Find gives the predictions with an id or a request id, newest segments first; none is no error.
func (l *Log) Find(ctx context.Context, project, id string) ([]serving.Prediction, error) {
	var out []serving.Prediction
	l.mu.Lock()
	spools := map[string]bool{}
	for i := range len(l.waiting) + 1 {
		g := l.current
		if i < len(l.waiting) {
			g = l.waiting[i]
		}
		spools[g.id] = true
		for k, gr := range g.groups {
			for _, p := range gr.rows {
				if k.Project == project && (p.ID == id || p.RequestID == id) {
					out = append(out, p)
				}
			}
		}
	}
	l.mu.Unlock()
	segments, err := l.segments(ctx, Key{Project: project}, math.MinInt64, math.MaxInt64)
	if err != nil {
		return nil, err
	}
	for i := len(segments) - 1; i >= 0; i-- {
		if spools[segments[i].spool] || !segments[i].bloom.may(id) {
			continue
		}
		rows, err := l.read(ctx, segments[i])
		if err != nil {
			return nil, err
		}
		for _, p := range rows {
			if p.ID == id || p.RequestID == id {
				out = append(out, p)
			}
		}
	}
	return out, nil
}

package monitoring

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/id"
	"falaj/internal/kernel/policy"
	"falaj/internal/serving"
	"falaj/internal/store"
)

// labelsPerRow bounds one row of label_batches to some hundred kilobytes.
const labelsPerRow = 10000

// PushLabels keeps what turned out to be true, durable and all or nothing when it returns. A label pushed twice counts
// once; of two that differ the one known later counts. Labels may come in any order and before their predictions.
func (s *Service) PushLabels(ctx context.Context, project, model string, labels []Label) error {
	res := policy.Resource{Kind: "model", ID: model, Project: project}
	if err := s.may(ctx, "label.push", res); err != nil {
		return err
	}
	now, replay := time.Now(), false
	for i := range labels {
		if err := labels[i].check(i); err != nil {
			return err
		}
		replay = replay || !labels[i].KnownAt.IsZero()
	}
	if replay {
		if err := s.may(ctx, "time.replay", res); err != nil {
			return err
		}
	}
	box, err := s.blobs.Box(ctx, project)
	if err != nil {
		return err
	}
	var batches []labelBatch
	mark := int64(math.MinInt64)
	for rest := labels; len(rest) > 0; {
		part := rest[:min(len(rest), labelsPerRow)]
		rest = rest[len(part):]
		b := labelBatch{id: id.New("lbl"), rows: len(part), from: math.MaxInt64, to: math.MinInt64}
		var plain []byte
		for _, l := range part {
			if l.KnownAt.IsZero() {
				l.KnownAt = now
			}
			known := l.KnownAt.UnixMicro()
			b.from, b.to, mark = min(b.from, known), max(b.to, known), max(mark, known)
			plain = l.append(plain)
		}
		sum := sha256.Sum256(plain)
		b.digest = "sha256:" + hex.EncodeToString(sum[:])
		if b.sealed, err = box.Seal(plain, labelAAD(project, model, b.id)); err != nil {
			return err
		}
		batches = append(batches, b)
	}
	if len(batches) == 0 {
		return nil
	}
	err = s.db.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		for _, b := range batches {
			if err := insertLabels(ctx, tx, project, model, b); err != nil {
				return err
			}
		}
		return raiseWatermark(ctx, tx, project, model, markLabel, mark)
	})
	if err == nil {
		poke(s.wake)
	}
	return err
}

func labelAAD(project, model, batch string) []byte {
	return []byte("labels\x00" + project + "\x00" + model + "\x00" + batch)
}

func (l *Label) check(i int) error {
	switch {
	case l.ID == "" && l.RequestID == "" && (l.Unit == "" || l.At.IsZero()):
		return fault.New(fault.Invalid, fmt.Sprintf("Label %d names no prediction.", i+1), "Give the prediction's id, the request id, or unit and at.").At("id")
	case l.Value != 0 && l.Value != 1:
		return fault.New(fault.Invalid, fmt.Sprintf("Label %d is %v; a label is 0 or 1.", i+1, l.Value), "Send 1 where the event happened, 0 where it did not; leave out what is not known yet.").At("value")
	}
	return nil
}

func (l *Label) append(b []byte) []byte {
	b = appendText(appendText(appendText(b, l.ID), l.RequestID), l.Unit)
	at := int64(math.MinInt64)
	if !l.At.IsZero() {
		at = l.At.UnixMicro()
	}
	b = binary.AppendVarint(binary.AppendVarint(b, at), l.KnownAt.UnixMicro())
	return append(b, byte(l.Value))
}

func decodeLabels(b []byte, n int) ([]Label, error) {
	r := &reader{b: b}
	out := make([]Label, 0, min(n, len(b)))
	for range n {
		l := Label{ID: r.text(), RequestID: r.text(), Unit: r.text()}
		if at := r.varint(); at != math.MinInt64 {
			l.At = time.UnixMicro(at).UTC()
		}
		l.KnownAt = time.UnixMicro(r.varint()).UTC()
		if v := r.bytes(1); !r.bad {
			l.Value = float64(v[0])
		}
		if r.bad {
			return nil, errDamagedLabels
		}
		out = append(out, l)
	}
	if len(r.b) != 0 {
		return nil, errDamagedLabels
	}
	return out, nil
}

// labels reads those known in [from, until], in the order they were pushed.
func (s *Service) labels(ctx context.Context, project, model string, from, until time.Time) ([]Label, error) {
	var batches []labelBatch
	err := s.db.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		batches, err = selectLabels(ctx, q, project, model, from.UnixMicro(), until.UnixMicro()+1)
		return err
	})
	if err != nil || len(batches) == 0 {
		return nil, err
	}
	box, err := s.blobs.Box(ctx, project)
	if err != nil {
		return nil, err
	}
	var out []Label
	for _, b := range batches {
		plain, err := box.Open(b.sealed, labelAAD(project, model, b.id))
		if err != nil {
			return nil, err
		}
		part, err := decodeLabels(plain, b.rows)
		if err != nil {
			return nil, fault.Wrap(err, fault.Internal, "Batch "+b.id+" of labels is damaged.", "Restore the database from a backup, or push the labels again.")
		}
		for _, l := range part {
			if !l.KnownAt.Before(from) && !l.KnownAt.After(until) {
				out = append(out, l)
			}
		}
	}
	return out, nil
}

// asked is one row that was asked, with everything that answered it and its truth.
type asked struct {
	row      *serving.Prediction // what the caller was given; nil when only a shadow is known
	scores   map[string]float64  // by release
	labelled bool
	label    float64
	known    time.Time
}

type askedKey struct {
	request, unit string
	at            int64
	n             int // of rows with equal request, unit and time
}

type answerKey struct {
	askedKey
	release string
	shadow  bool
}

// join brings together what different releases said about the same row, and its label. unmatched counts labels of the
// window's time that name no row, and those that name a request of several rows without saying which.
func join(w Window, rows []serving.Prediction, labels []Label) (out []*asked, unmatched int) {
	index := map[askedKey]*asked{}
	times := map[answerKey]int{}
	byID, byRequest := map[string]*asked{}, map[string][]*asked{}
	type unitAt struct {
		unit string
		at   int64
	}
	byUnit := map[unitAt][]*asked{}
	for i := range rows {
		p := &rows[i]
		k := askedKey{p.RequestID, p.Unit, p.At.UnixMicro(), 0}
		seen := answerKey{k, p.Release, p.Shadow}
		k.n = times[seen]
		times[seen]++
		a := index[k]
		if a == nil {
			a = &asked{scores: map[string]float64{}}
			index[k] = a
			out = append(out, a)
			byRequest[k.request] = append(byRequest[k.request], a)
			byUnit[unitAt{k.unit, k.at}] = append(byUnit[unitAt{k.unit, k.at}], a)
		}
		if !p.Shadow {
			a.row = p
		}
		a.scores[p.Release] = score(p)
		byID[p.ID] = a
	}
	for _, l := range labels {
		var found []*asked
		switch {
		case l.ID != "":
			if a := byID[l.ID]; a != nil {
				found = []*asked{a}
			}
		case l.RequestID != "":
			for _, a := range byRequest[l.RequestID] {
				if l.Unit == "" || a.row != nil && a.row.Unit == l.Unit {
					found = append(found, a)
				}
			}
			if len(found) > 1 {
				unmatched++
				continue
			}
		default:
			found = byUnit[unitAt{l.Unit, l.At.UnixMicro()}]
		}
		if len(found) == 0 && !l.At.IsZero() && !l.At.Before(w.From) && l.At.Before(w.To) {
			unmatched++
		}
		for _, a := range found {
			if !a.labelled || !l.KnownAt.Before(a.known) {
				a.labelled, a.label, a.known = true, l.Value, l.KnownAt
			}
		}
	}
	return out, unmatched
}

// score is the chance of class 1: the only output, or the second of two. Other models have no such score.
func score(p *serving.Prediction) float64 {
	switch len(p.Output) {
	case 1:
		return p.Output[0]
	case 2:
		return p.Output[1]
	}
	return math.NaN()
}

package monitoring

import (
	"context"
	"math"
	"slices"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/store"
)

// Telemetry is traffic and latency of a key over event time, in slots of equal width.
type Telemetry struct {
	Key
	Window
	Step      time.Duration    `json:"step"`
	Slots     []TelemetrySlot  `json:"slots"` // every slot of the window, empty ones too
	ByRelease []ReleaseTraffic `json:"by_release"`
}

// TelemetrySlot counts what callers were given; shadows stand apart. The quantiles are of wall-clock latency, absent in
// an empty slot.
type TelemetrySlot struct {
	At       time.Time      `json:"at"`
	Count    uint64         `json:"count"`
	Shadow   uint64         `json:"shadow"`
	NullRows uint64         `json:"null_rows"`
	P50      *time.Duration `json:"p50"`
	P95      *time.Duration `json:"p95"`
	P99      *time.Duration `json:"p99"`
}

// ReleaseTraffic is one release over the whole window; Counts has one entry for each slot.
type ReleaseTraffic struct {
	Release string   `json:"release"`
	Shadow  bool     `json:"shadow"`
	Total   uint64   `json:"total"`
	Counts  []uint64 `json:"counts"`
	P99     Figure   `json:"p99_ms"`
}

// Telemetry draws a key's whole logged history, or the part within w when it is not zero, in at most points slots of
// whole hours. Without predictions Slots is empty.
func (s *Service) Telemetry(ctx context.Context, k Key, w Window, points int) (*Telemetry, error) {
	if points < 1 || points > 10000 {
		return nil, fault.Newf(fault.Invalid, "points is %d; it is a number between 1 and 10,000.", points).At("points")
	}
	from, to := int64(math.MinInt64), int64(math.MaxInt64)
	if !w.From.IsZero() {
		from = w.From.UnixMicro()
	}
	if !w.To.IsZero() {
		to = w.To.UnixMicro()
	}
	hours, err := s.log.hours(ctx, k, from, to)
	if err != nil {
		return nil, err
	}
	out := &Telemetry{Key: k, Slots: []TelemetrySlot{}, ByRelease: []ReleaseTraffic{}}
	if len(hours) == 0 {
		out.Window = w
		return out, nil
	}
	first, last := hours[0].hour, hours[0].hour
	for _, h := range hours {
		first, last = min(first, h.hour), max(last, h.hour)
	}
	step := hourMicros * max(1, int64(math.Ceil(float64((last-first)/hourMicros+1)/float64(points))))
	n := int((last-first)/step) + 1
	out.Step, out.Window = time.Duration(step)*time.Microsecond, Window{store.Time(first), store.Time(first + int64(n)*step)}
	out.Slots = make([]TelemetrySlot, n)
	latency := make([]Latency, n)
	type side struct {
		release string
		shadow  bool
	}
	by, whole := map[side]*ReleaseTraffic{}, map[side]*Latency{}
	for i := range hours {
		h := &hours[i]
		at := int((h.hour - first) / step)
		sd := side{h.release, h.shadow}
		r := by[sd]
		if r == nil {
			r = &ReleaseTraffic{Release: h.release, Shadow: h.shadow, Counts: make([]uint64, n)}
			by[sd], whole[sd] = r, &Latency{}
		}
		r.Total += h.count
		r.Counts[at] += h.count
		whole[sd].Merge(&h.latency)
		if h.shadow {
			out.Slots[at].Shadow += h.count
			continue
		}
		out.Slots[at].Count += h.count
		out.Slots[at].NullRows += h.nullRows
		latency[at].Merge(&h.latency)
	}
	for i := range out.Slots {
		sl := &out.Slots[i]
		sl.At = store.Time(first + int64(i)*step)
		if l := &latency[i]; l.Count() > 0 {
			p50, p95, p99 := l.Quantile(0.5), l.Quantile(0.95), l.Quantile(0.99)
			sl.P50, sl.P95, sl.P99 = &p50, &p95, &p99
		}
	}
	for sd, r := range by {
		r.P99 = Number(whole[sd].Quantile(0.99).Seconds() * 1000)
		out.ByRelease = append(out.ByRelease, *r)
	}
	slices.SortFunc(out.ByRelease, func(a, b ReleaseTraffic) int {
		if a.Release != b.Release {
			return compareText(a.Release, b.Release)
		}
		return boolInt(a.Shadow) - boolInt(b.Shadow)
	})
	return out, nil
}

// hours gives the rollup of a key from segments and the unsealed rows, for whole hours that start in [from, to).
func (l *Log) hours(ctx context.Context, k Key, from, to int64) ([]hourly, error) {
	rows, spools := l.unsealed(k, from, to)
	fresh := rollup{}
	for i := range rows {
		fresh.add(&rows[i])
	}
	segments, err := l.segments(ctx, k, from, to)
	if err != nil {
		return nil, err
	}
	var out []hourly
	for _, sg := range segments {
		if spools[sg.spool] {
			continue
		}
		part, ok := readRollup(sg.rollup)
		if !ok {
			return nil, fault.New(fault.Internal, "The rollup of segment "+sg.ID+" is damaged.", "Restore the database from a backup.")
		}
		for _, h := range part {
			if h.hour >= from && h.hour < to {
				out = append(out, h)
			}
		}
	}
	for _, h := range fresh {
		out = append(out, *h)
	}
	return out, nil
}

// first is the earliest event time of a key at or after from, as far as the index tells: a segment that spans from
// counts as having a row there.
func (l *Log) first(ctx context.Context, k Key, from time.Time) (time.Time, bool, error) {
	start := from.UnixMicro()
	best, ok := l.firstUnsealed(k, start)
	err := l.db.View(ctx, func(ctx context.Context, q store.Querier) error {
		at, found, err := firstSegment(ctx, q, k, start)
		if found {
			best, ok = min(best, at), true
		}
		return err
	})
	return time.UnixMicro(best).UTC(), ok, err
}

func (l *Log) firstUnsealed(k Key, start int64) (best int64, ok bool) {
	best = math.MaxInt64
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, g := range append(slices.Clone(l.waiting), l.current) {
		gr := g.groups[k]
		switch {
		case gr == nil || gr.to < start:
		case gr.from >= start:
			best, ok = min(best, gr.from), true
		default:
			for i := range gr.rows {
				if at := gr.rows[i].At.UnixMicro(); at >= start {
					best, ok = min(best, at), true
				}
			}
		}
	}
	return best, ok
}

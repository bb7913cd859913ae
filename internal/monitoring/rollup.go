package monitoring

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"slices"
	"time"

	"falaj/internal/serving"
)

// hourly is one hour of event time of one release: what charts are drawn from without reading predictions.
type hourly struct {
	hour     int64 // microseconds UTC, start of the hour
	release  string
	variant  string
	shadow   bool
	count    uint64
	nullRows uint64
	latency  Latency
}

const hourMicros = int64(time.Hour / time.Microsecond)

func hourOf(at time.Time) int64 {
	us := at.UnixMicro()
	return us - ((us%hourMicros)+hourMicros)%hourMicros
}

type hourKey struct {
	hour             int64
	release, variant string
	shadow           bool
}

// rollup gathers predictions by hour, release, variant and shadow. It is not safe for concurrent use.
type rollup map[hourKey]*hourly

func (r rollup) add(p *serving.Prediction) {
	k := hourKey{hourOf(p.At), p.Release, p.Variant, p.Shadow}
	h := r[k]
	if h == nil {
		h = &hourly{hour: k.hour, release: k.release, variant: k.variant, shadow: k.shadow}
		r[k] = h
	}
	h.count++
	if hasNull(p.Features) {
		h.nullRows++
	}
	h.latency.Add(p.Latency)
}

func hasNull(v []float64) bool { return slices.ContainsFunc(v, math.IsNaN) }

// appendBinary writes the rollup in the order of its hours.
func (r rollup) appendBinary(b []byte) []byte {
	all := make([]*hourly, 0, len(r))
	for _, h := range r {
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b *hourly) int {
		switch {
		case a.hour != b.hour:
			return int((a.hour - b.hour) / hourMicros)
		case a.release != b.release:
			return compareText(a.release, b.release)
		case a.variant != b.variant:
			return compareText(a.variant, b.variant)
		}
		return boolInt(a.shadow) - boolInt(b.shadow)
	})
	b = binary.AppendUvarint(b, uint64(len(all)))
	for _, h := range all {
		b = binary.AppendVarint(b, h.hour/hourMicros)
		b = appendText(appendText(b, h.release), h.variant)
		b = append(b, byte(boolInt(h.shadow)))
		b = binary.AppendUvarint(b, h.nullRows)
		b = h.latency.AppendBinary(b)
	}
	return b
}

func compareText(a, b string) int {
	if a < b {
		return -1
	}
	return 1
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// readRollup reads what appendBinary wrote; ok is false when it is damaged.
func readRollup(b []byte) (out []hourly, ok bool) {
	r := &reader{b: b}
	for range r.uvarint() {
		h := hourly{hour: r.varint() * hourMicros, release: r.text(), variant: r.text()}
		if s := r.bytes(1); !r.bad {
			h.shadow = s[0] == 1
		}
		h.nullRows = r.uvarint()
		if r.bad {
			return nil, false
		}
		if h.latency, r.b, ok = readLatency(r.b); !ok {
			return nil, false
		}
		h.count = h.latency.Count()
		out = append(out, h)
	}
	return out, !r.bad && len(r.b) == 0
}

// bloom says "not here" for almost every id that a segment does not hold: 10 bits an id and 7 probes, 1 % false alarms.
type bloom []byte

const (
	bloomBits   = 10
	bloomProbes = 7
)

func newBloom(ids int) bloom { return make(bloom, max(ids*bloomBits/8, 8)) }

func (b bloom) probe(id string, f func(bit uint64) bool) bool {
	h := fnv.New64a()
	h.Write([]byte(id))
	v := h.Sum64()
	// A second, independent-enough hash by mixing (the finalizer of splitmix64).
	w := (v ^ v>>30) * 0xbf58476d1ce4e5b9
	w = (w ^ w>>27) * 0x94d049bb133111eb
	w ^= w >> 31
	for i := range uint64(bloomProbes) {
		if !f((v + i*(w|1)) % uint64(len(b)*8)) {
			return false
		}
	}
	return true
}

func (b bloom) add(id string) {
	b.probe(id, func(bit uint64) bool { b[bit/8] |= 1 << (bit % 8); return true })
}

func (b bloom) may(id string) bool {
	return len(b) > 0 && b.probe(id, func(bit uint64) bool { return b[bit/8]&(1<<(bit%8)) != 0 })
}

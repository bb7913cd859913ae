package tracking

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// A chunk is a format byte and points. Format 1: 24 bytes a point, little endian: step, timestamp in ms, value as IEEE 754
// bits, so NaN and the infinities keep themselves. Later formats may compress; readers must know all older ones.
const chunkPlain = 1

const pointSize = 24

type point struct {
	step, tsMs int64
	value      float64
}

func appendPoint(b []byte, p point) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(p.step))
	b = binary.LittleEndian.AppendUint64(b, uint64(p.tsMs))
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(p.value))
}

func packPoints(points []point) []byte {
	b := make([]byte, 1, 1+pointSize*len(points))
	b[0] = chunkPlain
	for _, p := range points {
		b = appendPoint(b, p)
	}
	return b
}

func unpackPoints(out []point, data []byte) ([]point, error) {
	if len(data) == 0 || data[0] != chunkPlain || (len(data)-1)%pointSize != 0 {
		return out, fmt.Errorf("metric chunk of %d bytes is damaged or of a newer format", len(data))
	}
	for data = data[1:]; len(data) > 0; data = data[pointSize:] {
		out = append(out, point{
			step:  int64(binary.LittleEndian.Uint64(data)),
			tsMs:  int64(binary.LittleEndian.Uint64(data[8:])),
			value: math.Float64frombits(binary.LittleEndian.Uint64(data[16:])),
		})
	}
	return out, nil
}

// Flags of metric_latest: what the finite stored number stands for.
const (
	flagNumber = 0
	flagNaN    = 1
	flagPlus   = 2
	flagMinus  = 3
)

// sqlNumber is the value as a column can hold it: NaN becomes NULL in SQLite but stays NaN in PostgreSQL, so neither is used.
// The infinities become the largest numbers, which keeps comparing and ordering right.
func sqlNumber(f float64) (float64, int64) {
	switch {
	case math.IsNaN(f):
		return 0, flagNaN
	case math.IsInf(f, 1):
		return math.MaxFloat64, flagPlus
	case math.IsInf(f, -1):
		return -math.MaxFloat64, flagMinus
	}
	return f, flagNumber
}

func fromSQL(f float64, flag int64) float64 {
	switch flag {
	case flagNaN:
		return math.NaN()
	case flagPlus:
		return math.Inf(1)
	case flagMinus:
		return math.Inf(-1)
	}
	return f
}

// newer says whether a is more recent than b: by step, then time, then value. NaN counts as 0 there, as in MLflow.
func newer(a, b point) bool {
	av, _ := sqlNumber(a.value)
	bv, _ := sqlNumber(b.value)
	if a.step != b.step {
		return a.step > b.step
	}
	if a.tsMs != b.tsMs {
		return a.tsMs > b.tsMs
	}
	return av > bv
}

func byTime(a, b point) int {
	return cmp.Or(cmp.Compare(a.tsMs, b.tsMs), cmp.Compare(a.step, b.step), compareValue(a.value, b.value))
}

func byStep(a, b point) int {
	return cmp.Or(cmp.Compare(a.step, b.step), cmp.Compare(a.tsMs, b.tsMs), compareValue(a.value, b.value))
}

// compareValue orders numbers; NaN stands where 0 does, behind it.
func compareValue(a, b float64) int {
	av, af := sqlNumber(a)
	bv, bf := sqlNumber(b)
	return cmp.Or(cmp.Compare(av, bv), cmp.Compare(af, bf))
}

// sortDistinct orders the points and drops repeats: a retried log call stores a point twice, a reader sees it once.
func sortDistinct(points []point, order func(a, b point) int) []point {
	if !slices.IsSortedFunc(points, order) {
		slices.SortFunc(points, order)
	}
	return slices.CompactFunc(points, func(a, b point) bool { return order(a, b) == 0 })
}

// sample keeps at most n points, evenly by rank, with the first and the last: n buckets of nearly equal size, the first of
// each, as SQL's NTILE cuts them (larger buckets first).
func sample(points []point, n int) []point {
	if len(points) <= n {
		return points
	}
	out := make([]point, 0, n)
	size, larger := len(points)/n, len(points)%n
	for i, at := 0, 0; i < n; i++ {
		out = append(out, points[at])
		at += size
		if i < larger {
			at++
		}
	}
	out[n-1] = points[len(points)-1]
	return out
}

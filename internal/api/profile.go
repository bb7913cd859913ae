package api

import (
	"slices"
	"strconv"
	"time"

	"falaj/internal/data"
	"falaj/internal/monitoring"
)

// ColumnProfile describes one column. PSI compares with the version before: numbers over its bins (where the bins
// differ, by interpolation within them), texts over its frequent values.
type ColumnProfile struct {
	Column    string     `json:"column"`
	Type      string     `json:"type"`
	Count     int64      `json:"count"`
	Nulls     int64      `json:"nulls"`
	Distinct  int64      `json:"distinct"`
	Min       *string    `json:"min"`
	Max       *string    `json:"max"`
	Mean      *float64   `json:"mean"`
	Stddev    *float64   `json:"stddev"`
	Quantiles []Quantile `json:"quantiles"`
	Histogram *Histogram `json:"histogram"`
	Top       []TopValue `json:"top"`
	PSI       *float64   `json:"psi"`
}

// Quantile is the value below which the share Q lies.
type Quantile struct {
	Q     float64 `json:"q"`
	Value float64 `json:"value"`
}

// Histogram has one edge more than counts.
type Histogram struct {
	Edges  []float64 `json:"edges"`
	Counts []int64   `json:"counts"`
}

// TopValue is a frequent value.
type TopValue struct {
	Value string `json:"value"`
	Count int64  `json:"count"`
}

const shownTop = 10

// profileView shows masked, compared by exact and past, which are unmasked and stay inside.
func profileView(masked, exact, past *data.Profile) []ColumnProfile {
	out := []ColumnProfile{}
	if masked == nil {
		return out
	}
	for _, c := range masked.Columns {
		v := ColumnProfile{Column: c.Name, Type: c.Type, Count: masked.Rows, Nulls: c.Nulls + c.NaNs, Distinct: c.Distinct, Min: extreme(c, c.Min), Max: extreme(c, c.Max), Quantiles: []Quantile{}, Top: []TopValue{}}
		if c.Kind == data.KindNumber {
			v.Mean, v.Stddev = finiteOrNil(c.Mean), finiteOrNil(c.SD)
			if len(c.Grid) == data.GridSize+1 {
				for _, q := range []int{1, 5, 10, 15, 20, 25, 30, 35, 40, 45, 49} {
					v.Quantiles = append(v.Quantiles, Quantile{float64(q) / data.GridSize, c.Grid[q]})
				}
			}
			v.Histogram = histogram(c)
		}
		for _, t := range c.Top[:min(len(c.Top), shownTop)] {
			v.Top = append(v.Top, TopValue{t.Value, t.Rows})
		}
		if now, then := exact.Column(c.Name), past.Column(c.Name); now != nil && then != nil {
			v.PSI = columnPSI(*then, *now)
		}
		out = append(out, v)
	}
	return out
}

func finiteOrNil(f *float64) *float64 {
	if f == nil {
		return nil
	}
	return finite(*f)
}

// extreme writes a least or greatest value in the column's own type.
func extreme(c data.ColumnProfile, f *float64) *string {
	if f == nil || finite(*f) == nil {
		return nil
	}
	var s string
	switch {
	case c.Kind == data.KindTime && c.Type == "DATE":
		s = time.UnixMicro(int64(*f)).UTC().Format(time.DateOnly)
	case c.Kind == data.KindTime:
		s = time.UnixMicro(int64(*f)).UTC().Format(time.DateTime)
	case c.Kind == data.KindNumber:
		s = strconv.FormatFloat(*f, 'f', -1, 64)
	default:
		return nil
	}
	return &s
}

// histogram closes the two open bins with the extremes and drops a bin that has no width.
func histogram(c data.ColumnProfile) *Histogram {
	if c.Min == nil || c.Max == nil || len(c.Counts) != len(c.Edges)+1 || finite(*c.Min) == nil || finite(*c.Max) == nil {
		return nil
	}
	h := &Histogram{Edges: append(append([]float64{*c.Min}, c.Edges...), *c.Max), Counts: slices.Clone(c.Counts)}
	if n := len(h.Counts); n > 1 && h.Edges[n] <= h.Edges[n-1] { // nothing lies above the last edge
		h.Counts[n-2] += h.Counts[n-1]
		h.Edges, h.Counts = slices.Delete(h.Edges, n, n+1), h.Counts[:n-1]
	}
	if n := len(h.Counts); n > 1 && h.Edges[1] <= h.Edges[0] { // the least value alone
		h.Counts[1] += h.Counts[0]
		h.Edges, h.Counts = h.Edges[1:], h.Counts[1:]
	}
	return h
}

// columnPSI is nil for columns that cannot be compared: of another kind, times, or without any value.
func columnPSI(then, now data.ColumnProfile) *float64 {
	if then.Kind != now.Kind {
		return nil
	}
	var a, b []int64
	switch then.Kind {
	case data.KindNumber:
		a, b = numberBins(then, now)
	case data.KindText, data.KindBool:
		a, b = valueBins(then, now)
	}
	if a == nil {
		return nil
	}
	return figure(monitoring.PSI(append(a, then.Nulls+then.NaNs), append(b, now.Nulls+now.NaNs)))
}

// numberBins counts both over about ten bins of the older one.
func numberBins(then, now data.ColumnProfile) (a, b []int64) {
	if len(then.Edges) == 0 || len(then.Counts) != len(then.Edges)+1 || histogram(now) == nil {
		return nil, nil
	}
	step := (len(then.Edges) + 9) / 10
	var acc int64
	last := 0.0
	below := cumulative(now)
	for i, n := range then.Counts {
		acc += n
		switch {
		case i == len(then.Edges):
			a, b = append(a, acc), append(b, int64(below(*now.Max)-last+0.5))
		case (i+1)%step == 0:
			at := below(then.Edges[i])
			a, b, acc = append(a, acc), append(b, int64(at-last+0.5)), 0
			last = at
		}
	}
	return a, b
}

// cumulative gives the rows at or below a value, straight between the edges.
func cumulative(c data.ColumnProfile) func(float64) float64 {
	edges := append(append([]float64{*c.Min}, c.Edges...), *c.Max)
	return func(x float64) float64 {
		sum := 0.0
		for i, n := range c.Counts {
			lo, hi := edges[i], edges[i+1]
			switch {
			case x >= hi:
				sum += float64(n)
			case x > lo:
				return sum + float64(n)*(x-lo)/(hi-lo)
			default:
				return sum
			}
		}
		return sum
	}
}

// valueBins counts both over the older one's ten most frequent values and all others.
func valueBins(then, now data.ColumnProfile) (a, b []int64) {
	if len(then.Top) == 0 || len(now.Top) == 0 {
		return nil, nil
	}
	rows := map[string]int64{}
	var left int64
	for _, t := range now.Top {
		rows[t.Value] = t.Rows
		left += t.Rows
	}
	var others int64
	for i, t := range then.Top {
		if i >= shownTop {
			others += t.Rows
			continue
		}
		a, b = append(a, t.Rows), append(b, rows[t.Value])
		left -= rows[t.Value]
	}
	return append(a, others+then.Other), append(b, left+now.Other)
}

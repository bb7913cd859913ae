package data

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// Bounds of the volume check: a month is unusual when it lies more than volumeZ robust standard deviations (median and
// MAD) from the accepted months and differs from their median by more than volumeShare of it. Fewer than volumeMonths
// accepted months are no basis. The first and the last month of a file count only with volumeEdge of its fullest one:
// a file of local days spills some rows into the next UTC month, and a file may begin in the middle of one.
const (
	volumeZ      = 6
	volumeShare  = 0.5
	volumeMonths = 3
	volumeEdge   = 0.25
)

// fullMonths lists the months of a file that can be compared, in order.
func fullMonths(periods map[string]int64) []string {
	months := slices.Sorted(maps.Keys(periods))
	var most int64
	for _, n := range periods {
		most = max(most, n)
	}
	thin := func(m string) bool { return float64(periods[m]) < volumeEdge*float64(most) }
	if len(months) > 1 && thin(months[0]) {
		months = months[1:]
	}
	if len(months) > 1 && thin(months[len(months)-1]) {
		months = months[:len(months)-1]
	}
	return months
}

// volume compares the months of a file with those of the accepted files. Rows is the number of rows in the unusual
// months and Example says which.
func (w *work) volume(res *IngestResult) CheckResult {
	out := CheckResult{Check: "volume", Rule: "about as many rows a month as before"}
	accepted := w.added
	if w.base != nil {
		accepted = append(slices.Clone(w.base.Sources), w.added...)
	}
	known := map[string]bool{}
	for _, f := range accepted {
		for _, m := range fullMonths(f.Period) {
			known[m] = true
		}
	}
	if len(known) < volumeMonths {
		return out
	}
	var before []float64
	for m := range known {
		before = append(before, float64(w.periods[m]))
	}
	mid := median(before)
	off := make([]float64, len(before))
	for i, n := range before {
		off[i] = math.Abs(n - mid)
	}
	spread := 1.4826 * median(off)
	for _, m := range fullMonths(res.Periods) {
		n := float64(res.Periods[m] + w.periods[m])
		if d := math.Abs(n - mid); d > volumeZ*spread && d > volumeShare*mid {
			out.Rows += res.Periods[m]
			if out.Example == "" {
				out.Example = fmt.Sprintf("%s has %.0f rows, and the months before have about %.0f", m, n, mid)
			}
		}
	}
	return out
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

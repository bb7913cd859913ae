package data

import (
	"fmt"
	"math"
	"slices"
	"sort"
)

// Bounds of the volume check: a month is unusual when it lies more than volumeZ robust standard deviations (median and
// MAD) from the accepted months and differs from their median by more than volumeShare of it. Fewer than volumeMonths
// accepted months are no basis.
const (
	volumeZ      = 6
	volumeShare  = 0.5
	volumeMonths = 3
)

// volume compares the months of a file with the accepted ones. Rows is the number of rows in the unusual months and
// Example says which.
func (w *work) volume(res *IngestResult) CheckResult {
	out := CheckResult{Check: "volume", Rule: "about as many rows a month as before"}
	var before []float64
	for _, n := range w.periods {
		before = append(before, float64(n))
	}
	if len(before) < volumeMonths {
		return out
	}
	mid := median(before)
	off := make([]float64, len(before))
	for i, n := range before {
		off[i] = math.Abs(n - mid)
	}
	spread := 1.4826 * median(off)
	months := make([]string, 0, len(res.Periods))
	for m := range res.Periods {
		months = append(months, m)
	}
	sort.Strings(months)
	for _, m := range months {
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

package monitoring

import (
	"math"
	"slices"
	"sort"
	"strconv"
)

// The kinds of a feature in a profile.
const (
	Numeric     = "numeric"     // cut by edges
	Categorical = "categorical" // counted by value; a served code such as 3 is the value "3"
)

// FeatureProfile is how one feature was distributed in a reference. It is immutable: every drift figure names it.
// Numeric: Counts[i] holds rows in (Edges[i-1], Edges[i]], the first bin open below and the last open above,
// so len(Counts) = len(Edges)+1. Categorical: Counts[i] holds rows of Values[i] and the last entry all others,
// so len(Counts) = len(Values)+1. Nulls (NaN when served) are a bin of their own.
type FeatureProfile struct {
	Name   string    `json:"name"`
	Kind   string    `json:"kind"`
	Edges  []float64 `json:"edges,omitempty"`
	Values []string  `json:"values,omitempty"`
	Counts []int64   `json:"counts"`
	Nulls  int64     `json:"nulls"`
}

// Profile is the reference of a model: the distributions of its training rows, features in served order.
type Profile struct {
	Rows     int64            `json:"rows"`
	Features []FeatureProfile `json:"features"`
}

// The default binning: deciles, and the 20 most frequent values.
const (
	numericBins = 10
	topValues   = 20
)

// ProfileNumeric makes the profile of a numeric column: edges at the deciles of its finite values (equal edges
// merged), NaN counted as null. Infinite values fall into the outer bins.
func ProfileNumeric(name string, column []float64) FeatureProfile {
	sorted := make([]float64, 0, len(column))
	for _, v := range column {
		if finite(v) {
			sorted = append(sorted, v)
		}
	}
	slices.Sort(sorted)
	p := FeatureProfile{Name: name, Kind: Numeric, Edges: []float64{}}
	for i := 1; i < numericBins && len(sorted) > 0; i++ {
		// The last value is no edge: nothing of the reference would lie above it.
		e := sorted[(len(sorted)-1)*i/numericBins]
		if e < sorted[len(sorted)-1] && (len(p.Edges) == 0 || e > p.Edges[len(p.Edges)-1]) {
			p.Edges = append(p.Edges, e)
		}
	}
	p.Counts, p.Nulls = p.count(column)
	return p
}

// ProfileCategorical makes the profile of a column of codes: the 20 most frequent values, ties by value, and other.
func ProfileCategorical(name string, column []float64) FeatureProfile {
	freq := map[string]int64{}
	for _, v := range column {
		if !math.IsNaN(v) {
			freq[code(v)]++
		}
	}
	values := make([]string, 0, len(freq))
	for v := range freq {
		values = append(values, v)
	}
	slices.SortFunc(values, func(a, b string) int {
		if freq[a] != freq[b] {
			return int(freq[b] - freq[a])
		}
		if a < b {
			return -1
		}
		return 1
	})
	p := FeatureProfile{Name: name, Kind: Categorical, Values: values[:min(len(values), topValues)]}
	p.Counts, p.Nulls = p.count(column)
	return p
}

// code spells a served number as a categorical value: 3 is "3", 0.5 is "0.5".
func code(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// count puts a column into the bins of p.
func (p FeatureProfile) count(column []float64) (counts []int64, nulls int64) {
	if p.Kind == Categorical {
		index := make(map[string]int, len(p.Values))
		for i, v := range p.Values {
			index[v] = i
		}
		counts = make([]int64, len(p.Values)+1)
		for _, v := range column {
			if math.IsNaN(v) {
				nulls++
				continue
			}
			i, ok := index[code(v)]
			if !ok {
				i = len(p.Values)
			}
			counts[i]++
		}
		return counts, nulls
	}
	counts = make([]int64, len(p.Edges)+1)
	for _, v := range column {
		if math.IsNaN(v) {
			nulls++
			continue
		}
		counts[sort.SearchFloat64s(p.Edges, v)]++ // first edge >= v: the bin (edge before, edge]
	}
	return counts, nulls
}

package monitoring

import (
	"math"
)

// The methods of a drift figure. The word carries all that the number depends on besides edges: thresholds
// are tied to it.
const (
	MethodPSI = "psi"            // sum of (q-p)ln(q/p) over bins incl. nulls, shares floored at 0.0001
	MethodJS  = "jensen_shannon" // distance: square root of the divergence in bits, 0 to 1
)

// psiFloor stands for an empty bin in PSI: without it one empty bin makes the figure infinite.
const psiFloor = 0.0001

// FeatureDrift is how far one feature of a window lies from the reference. Edges or Values are those of the
// reference: the figures mean nothing without them.
type FeatureDrift struct {
	Name          string    `json:"name"`
	Kind          string    `json:"kind"`
	PSI           Figure    `json:"psi"`
	JS            Figure    `json:"jensen_shannon"`
	Weight        float64   `json:"weight"` // share of the importance, all features sum to 1
	Edges         []float64 `json:"edges,omitempty"`
	Values        []string  `json:"values,omitempty"`
	Reference     []int64   `json:"reference"` // counts, the last one nulls
	Window        []int64   `json:"window"`    // counts, the last one nulls
	ReferenceNull Figure    `json:"reference_null_share"`
	WindowNull    Figure    `json:"window_null_share"`
}

// DriftFigures are the drift of one window: each feature, and the mean weighed by importance, so that a season
// in a feature that the model hardly uses raises nothing.
type DriftFigures struct {
	Method   string         `json:"method"` // of Score
	Rows     int            `json:"rows"`
	Score    Figure         `json:"score"`
	Features []FeatureDrift `json:"features"`
}

// MeasureDrift compares the columns of a window (columns[i] belongs to ref.Features[i]; NaN is null) with the reference.
// importance[i] >= 0 weighs feature i; nil or all zero weighs all alike. A window without rows has undefined figures.
func MeasureDrift(method string, ref Profile, columns [][]float64, importance []float64) DriftFigures {
	d := DriftFigures{Method: method, Features: make([]FeatureDrift, len(ref.Features))}
	weights := shares(importance, len(ref.Features))
	score, undefined := 0.0, ""
	for i, p := range ref.Features {
		var column []float64
		if i < len(columns) {
			column = columns[i]
		}
		d.Rows = max(d.Rows, len(column))
		counts, nulls := p.count(column)
		f := FeatureDrift{
			Name: p.Name, Kind: p.Kind, Edges: p.Edges, Values: p.Values, Weight: weights[i],
			Reference: append(append([]int64{}, p.Counts...), p.Nulls), Window: append(counts, nulls),
		}
		f.PSI, f.JS = PSI(f.Reference, f.Window), JS(f.Reference, f.Window)
		f.ReferenceNull, f.WindowNull = lastShare(f.Reference), lastShare(f.Window)
		d.Features[i] = f
		figure := f.JS
		if method == MethodPSI {
			figure = f.PSI
		}
		if !figure.Defined() && weights[i] > 0 {
			undefined = figure.Undefined
		}
		score += weights[i] * figure.Value
	}
	switch {
	case method != MethodPSI && method != MethodJS:
		d.Score = Undefined("drift method '" + method + "' is not known")
	case len(ref.Features) == 0:
		d.Score = Undefined("the reference has no features")
	case undefined != "":
		d.Score = Undefined(undefined)
	default:
		d.Score = Number(score)
	}
	return d
}

// shares scales importance to sum 1. Negative and non-finite entries count 0.
func shares(importance []float64, n int) []float64 {
	out, sum := make([]float64, n), 0.0
	for i := range out {
		if i < len(importance) && importance[i] > 0 && finite(importance[i]) {
			out[i] = importance[i]
			sum += out[i]
		}
	}
	for i := range out {
		if sum > 0 {
			out[i] /= sum
		} else {
			out[i] = 1 / float64(n)
		}
	}
	return out
}

// PSI is the population stability index of two histograms over the same bins.
func PSI(reference, window []int64) Figure {
	p, q, why := distributions(reference, window)
	if why != "" {
		return Undefined(why)
	}
	sum := 0.0
	for i := range p {
		if p[i] == 0 && q[i] == 0 {
			continue
		}
		a, b := max(p[i], psiFloor), max(q[i], psiFloor)
		sum += (b - a) * math.Log(b/a)
	}
	return Number(sum)
}

// JS is the Jensen-Shannon distance of two histograms over the same bins: 0 equal, 1 nothing in common.
func JS(reference, window []int64) Figure {
	p, q, why := distributions(reference, window)
	if why != "" {
		return Undefined(why)
	}
	sum := 0.0
	for i := range p {
		m := (p[i] + q[i]) / 2
		if p[i] > 0 {
			sum += p[i] * math.Log2(p[i]/m) / 2
		}
		if q[i] > 0 {
			sum += q[i] * math.Log2(q[i]/m) / 2
		}
	}
	return Number(math.Sqrt(min(max(sum, 0), 1)))
}

func distributions(reference, window []int64) (p, q []float64, why string) {
	if len(reference) != len(window) {
		return nil, nil, "the histograms have different bins"
	}
	var a, b int64
	for i := range reference {
		a, b = a+reference[i], b+window[i]
	}
	switch {
	case a == 0:
		return nil, nil, "the reference has no rows"
	case b == 0:
		return nil, nil, "the window has no rows"
	}
	p, q = make([]float64, len(reference)), make([]float64, len(window))
	for i := range reference {
		p[i], q[i] = float64(reference[i])/float64(a), float64(window[i])/float64(b)
	}
	return p, q, ""
}

func lastShare(counts []int64) Figure {
	var sum int64
	for _, c := range counts {
		sum += c
	}
	if sum == 0 {
		return Undefined("no rows")
	}
	return Number(float64(counts[len(counts)-1]) / float64(sum))
}

package monitoring

import "math"

// z95 is the 97.5 % point of the standard normal distribution: two-sided 95 % bounds.
const z95 = 1.959963984540054

// Pair is one labelled row that two models scored.
type Pair struct {
	A, B  float64 // scores of the two models; Gap reports B minus A
	Label float64 // 0 or 1
}

// Gap is how much better B is than A on the same rows, with 95 % bounds. Positive always means B is better,
// for losses too. Lower and Upper equal Diff when the variance is 0 (equal scores).
type Gap struct {
	Metric    string  `json:"metric"`
	Method    string  `json:"method"` // how the variance was found
	Rows      int     `json:"rows"`
	Positives int     `json:"positives"`
	Skipped   Skipped `json:"skipped"`
	A         Figure  `json:"a"`
	B         Figure  `json:"b"`
	Diff      Figure  `json:"diff"`
	Variance  Figure  `json:"variance"` // of Diff
	Lower     Figure  `json:"lower"`
	Upper     Figure  `json:"upper"`
}

// The metrics that windows are judged by.
const (
	MetricAUC     = "auc"
	MetricBrier   = "brier"
	MetricLogLoss = "log_loss"
)

// Compare measures the paired gap of B over A. The metric is auc (DeLong's test for two correlated curves),
// brier or log_loss (mean difference of the losses row by row, normal bounds).
func Compare(metric string, pairs []Pair) Gap {
	g := Gap{Metric: metric, Method: "paired mean of losses, normal bounds"}
	if metric == MetricAUC {
		g.Method = "DeLong, correlated, normal bounds"
	}
	kept := make([]Pair, 0, len(pairs))
	for _, p := range pairs {
		switch {
		case p.Label != 0 && p.Label != 1:
			g.Skipped.Labels++
		case !finite(p.A) || !finite(p.B):
			g.Skipped.Scores++
		default:
			kept = append(kept, p)
			g.Positives += int(p.Label)
		}
	}
	g.Rows = len(kept)
	why := ""
	switch {
	case metric != MetricAUC && metric != MetricBrier && metric != MetricLogLoss:
		why = "metric '" + metric + "' is not known"
	case g.Rows == 0:
		why = whyEmpty
	case metric == MetricAUC && (g.Positives == 0 || g.Positives == g.Rows):
		why = whyOneClass
	}
	if why != "" {
		u := Undefined(why)
		g.A, g.B, g.Diff, g.Variance, g.Lower, g.Upper = u, u, u, u, u, u
		return g
	}
	var a, b, diff, variance float64
	if metric == MetricAUC {
		a, b, variance = delong(kept)
		diff = b - a
	} else {
		a, b, variance = pairedLoss(metric, kept)
		diff = a - b
	}
	g.A, g.B, g.Diff = Number(a), Number(b), Number(diff)
	if math.IsNaN(variance) {
		u := Undefined("too few rows of a class for a variance")
		g.Variance, g.Lower, g.Upper = u, u, u
		return g
	}
	half := z95 * math.Sqrt(max(variance, 0))
	g.Variance, g.Lower, g.Upper = Number(max(variance, 0)), Number(diff-half), Number(diff+half)
	return g
}

// delong gives both AUCs and the variance of their difference (DeLong, DeLong, Clarke-Pearson 1988).
// The variance is NaN when a class has a single row.
func delong(pairs []Pair) (aucA, aucB, variance float64) {
	var posA, posB, negA, negB []float64
	for _, p := range pairs {
		if p.Label == 1 {
			posA, posB = append(posA, p.A), append(posB, p.B)
		} else {
			negA, negB = append(negA, p.A), append(negB, p.B)
		}
	}
	aucA, a10, a01 := placements(posA, negA)
	aucB, b10, b01 := placements(posB, negB)
	for i := range a10 {
		a10[i] = b10[i] - a10[i]
	}
	for j := range a01 {
		a01[j] = b01[j] - a01[j]
	}
	return aucA, aucB, sampleVariance(a10)/float64(len(a10)) + sampleVariance(a01)/float64(len(a01))
}

func pairedLoss(metric string, pairs []Pair) (a, b, variance float64) {
	diff := make([]float64, len(pairs))
	for i, p := range pairs {
		la, lb := rowLoss(metric, p.A, p.Label), rowLoss(metric, p.B, p.Label)
		a, b, diff[i] = a+la, b+lb, lb-la
	}
	n := float64(len(pairs))
	return a / n, b / n, sampleVariance(diff) / n
}

// sampleVariance divides by n-1; NaN for fewer than two values.
func sampleVariance(v []float64) float64 {
	if len(v) < 2 {
		return math.NaN()
	}
	mean := 0.0
	for _, x := range v {
		mean += x
	}
	mean /= float64(len(v))
	sum := 0.0
	for _, x := range v {
		sum += (x - mean) * (x - mean)
	}
	return sum / float64(len(v)-1)
}

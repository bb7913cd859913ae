package monitoring

import (
	"math"
	"slices"
)

// Scored is one prediction whose truth is known: Score as the model gave it, Label 0 or 1.
type Scored struct {
	Score float64
	Label float64
}

// Skipped counts the rows that a measure could not use.
type Skipped struct {
	Labels int `json:"labels"` // label is NaN or neither 0 nor 1
	Scores int `json:"scores"` // score is NaN or infinite
}

// usable keeps the rows whose label is 0 or 1 and whose score is finite. The input is left as it is.
func usable(rows []Scored) ([]Scored, Skipped) {
	var skip Skipped
	out := make([]Scored, 0, len(rows))
	for _, r := range rows {
		switch {
		case r.Label != 0 && r.Label != 1:
			skip.Labels++
		case !finite(r.Score):
			skip.Scores++
		default:
			out = append(out, r)
		}
	}
	return out, skip
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// AUC is the area under the ROC curve: the chance that a row of class 1 scores above a row of class 0,
// a tie counting one half. Rows with unusable labels or scores are left out.
func AUC(rows []Scored) Figure {
	rows, _ = usable(rows)
	if len(rows) == 0 {
		return Undefined(whyEmpty)
	}
	pos, neg := split(rows)
	if len(pos) == 0 || len(neg) == 0 {
		return Undefined(whyOneClass)
	}
	theta, _, _ := placements(pos, neg)
	return Number(theta)
}

// split gives the scores of class 1 and of class 0.
func split(rows []Scored) (pos, neg []float64) {
	for _, r := range rows {
		if r.Label == 1 {
			pos = append(pos, r.Score)
		} else {
			neg = append(neg, r.Score)
		}
	}
	return pos, neg
}

// placements gives the AUC and, for each row of class 1, the share of class 0 below it (ties one half), and for each
// row of class 0 the share of class 1 above it. These are DeLong's structural components V10 and V01, found by
// midranks in O(n log n) as Sun and Xu showed in 2014 (IEEE Signal Processing Letters 21(11)).
func placements(pos, neg []float64) (theta float64, v10, v01 []float64) {
	m, n := float64(len(pos)), float64(len(neg))
	all := make([]float64, 0, len(pos)+len(neg))
	all = append(append(all, pos...), neg...)
	rankAll, rankPos, rankNeg := midranks(all), midranks(pos), midranks(neg)
	v10, v01 = make([]float64, len(pos)), make([]float64, len(neg))
	sum := 0.0
	for i := range pos {
		v10[i] = (rankAll[i] - rankPos[i]) / n
		sum += rankAll[i] - rankPos[i]
	}
	for j := range neg {
		v01[j] = 1 - (rankAll[len(pos)+j]-rankNeg[j])/m
	}
	return sum / (m * n), v10, v01
}

// midranks gives each value its rank from 1; equal values share the mean of their ranks.
func midranks(v []float64) []float64 {
	order := make([]int, len(v))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case v[a] < v[b]:
			return -1
		case v[a] > v[b]:
			return 1
		}
		return 0
	})
	ranks := make([]float64, len(v))
	for i := 0; i < len(order); {
		j := i
		for j < len(order) && v[order[j]] == v[order[i]] {
			j++
		}
		mean := float64(i+j+1) / 2 // ranks i+1 .. j
		for ; i < j; i++ {
			ranks[order[i]] = mean
		}
	}
	return ranks
}

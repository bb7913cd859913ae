package monitoring

import (
	"math"
)

// clip keeps log loss finite for scores of exactly 0 and 1, as scikit-learn does for float64 scores.
const clip = 2.220446049250313e-16

func rowLoss(metric string, score, label float64) float64 {
	if metric == MetricBrier {
		return (score - label) * (score - label)
	}
	p := min(max(score, clip), 1-clip)
	if label == 1 {
		return -math.Log(p)
	}
	return -math.Log(1 - p)
}

// Brier is the mean squared distance of score and label, 0 best.
func Brier(rows []Scored) Figure { return meanLoss(MetricBrier, rows) }

// LogLoss is the mean negative log likelihood in nats; scores are clipped to [2.2e-16, 1-2.2e-16].
func LogLoss(rows []Scored) Figure { return meanLoss(MetricLogLoss, rows) }

func meanLoss(metric string, rows []Scored) Figure {
	rows, _ = usable(rows)
	if len(rows) == 0 {
		return Undefined(whyEmpty)
	}
	sum := 0.0
	for _, r := range rows {
		sum += rowLoss(metric, r.Score, r.Label)
	}
	return Number(sum / float64(len(rows)))
}

// CalibrationBin compares what was said and what happened for scores in (From, To], the first bin with From included.
type CalibrationBin struct {
	From      float64 `json:"from"`
	To        float64 `json:"to"`
	Rows      int     `json:"rows"`
	MeanScore Figure  `json:"mean_score"`
	Rate      Figure  `json:"rate"` // share of label 1
}

// Calibration cuts [0, 1] into bins of equal width. Empty bins are kept, with undefined figures.
func Calibration(rows []Scored, bins int) []CalibrationBin {
	bins = max(bins, 1)
	rows, _ = usable(rows)
	sums, hits, out := make([]float64, bins), make([]float64, bins), make([]CalibrationBin, bins)
	for _, r := range rows {
		i := min(max(int(math.Ceil(r.Score*float64(bins)))-1, 0), bins-1)
		sums[i] += r.Score
		hits[i] += r.Label
		out[i].Rows++
	}
	for i := range out {
		b := &out[i]
		b.From, b.To = float64(i)/float64(bins), float64(i+1)/float64(bins)
		if b.Rows == 0 {
			b.MeanScore, b.Rate = Undefined("no rows in this bin"), Undefined("no rows in this bin")
			continue
		}
		b.MeanScore, b.Rate = Number(sums[i]/float64(b.Rows)), Number(hits[i]/float64(b.Rows))
	}
	return out
}

// QualityFigures are the measures of one model on one set of labelled rows.
type QualityFigures struct {
	Rows        int              `json:"rows"`      // usable rows
	Positives   int              `json:"positives"` // with label 1
	Skipped     Skipped          `json:"skipped"`
	AUC         Figure           `json:"auc"`
	Brier       Figure           `json:"brier"`
	LogLoss     Figure           `json:"log_loss"`
	Variance    Variances        `json:"variance"` // of the three measures over samples of this size
	BaseRate    Figure           `json:"base_rate"`
	MeanScore   Figure           `json:"mean_score"`
	Calibration []CalibrationBin `json:"calibration"`
}

// Variances of the measures: DeLong's for AUC, the sample's for the mean losses.
type Variances struct {
	AUC     Figure `json:"auc"`
	Brier   Figure `json:"brier"`
	LogLoss Figure `json:"log_loss"`
}

// Interval gives the 95 % bounds of a measure.
func (q QualityFigures) Interval(metric string) (low, high Figure) {
	v := map[string]Figure{MetricAUC: q.Variance.AUC, MetricBrier: q.Variance.Brier, MetricLogLoss: q.Variance.LogLoss}[metric]
	value := q.Metric(metric)
	switch {
	case !value.Defined():
		return value, value
	case !v.Defined():
		return v, v
	}
	half := z95 * math.Sqrt(v.Value)
	return Number(value.Value - half), Number(value.Value + half)
}

// variances needs usable rows.
func variances(rows []Scored) Variances {
	few := Undefined("too few rows for a variance")
	out := Variances{AUC: few, Brier: few, LogLoss: few}
	n := float64(len(rows))
	for metric, at := range map[string]*Figure{MetricBrier: &out.Brier, MetricLogLoss: &out.LogLoss} {
		losses := make([]float64, len(rows))
		for i, r := range rows {
			losses[i] = rowLoss(metric, r.Score, r.Label)
		}
		if v := sampleVariance(losses) / n; finite(v) {
			*at = Number(v)
		}
	}
	if pos, neg := split(rows); len(pos) > 1 && len(neg) > 1 {
		_, v10, v01 := placements(pos, neg)
		out.AUC = Number(sampleVariance(v10)/float64(len(pos)) + sampleVariance(v01)/float64(len(neg)))
	}
	return out
}

// Measure gives all measures of the rows.
func Measure(rows []Scored) QualityFigures {
	kept, skip := usable(rows)
	q := QualityFigures{Rows: len(kept), Skipped: skip, AUC: AUC(kept), Brier: Brier(kept), LogLoss: LogLoss(kept), Variance: variances(kept), Calibration: Calibration(kept, 10)}
	if len(kept) == 0 {
		q.BaseRate, q.MeanScore = Undefined(whyEmpty), Undefined(whyEmpty)
		return q
	}
	score := 0.0
	for _, r := range kept {
		q.Positives += int(r.Label)
		score += r.Score
	}
	q.BaseRate, q.MeanScore = Number(float64(q.Positives)/float64(len(kept))), Number(score/float64(len(kept)))
	return q
}

// Metric picks the figure that a monitor judges by.
func (q QualityFigures) Metric(name string) Figure {
	switch name {
	case MetricAUC:
		return q.AUC
	case MetricBrier:
		return q.Brier
	case MetricLogLoss:
		return q.LogLoss
	}
	return Undefined("metric '" + name + "' is not known")
}

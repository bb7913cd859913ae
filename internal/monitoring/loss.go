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
	BaseRate    Figure           `json:"base_rate"`
	MeanScore   Figure           `json:"mean_score"`
	Calibration []CalibrationBin `json:"calibration"`
}

// Measure gives all measures of the rows.
func Measure(rows []Scored) QualityFigures {
	kept, skip := usable(rows)
	q := QualityFigures{Rows: len(kept), Skipped: skip, AUC: AUC(kept), Brier: Brier(kept), LogLoss: LogLoss(kept), Calibration: Calibration(kept, 10)}
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

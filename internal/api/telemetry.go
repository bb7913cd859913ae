package api

import (
	"context"
	"fmt"
	"slices"

	"falaj/internal/kernel/fault"
	"falaj/internal/monitoring"
)

// Telemetry is a model in one environment over event time.
type Telemetry struct {
	Environment string        `json:"environment"`
	From        int64         `json:"from"`
	To          int64         `json:"to"`
	Traffic     TrafficSeries `json:"traffic"`
	Quality     QualitySeries `json:"quality"`
	Drift       *DriftReport  `json:"drift"`
	Alerts      []Alert       `json:"alerts"`
}

// TrafficSeries are columns of equal length; a slot begins at T and is StepUS wide.
type TrafficSeries struct {
	T         []int64          `json:"t"`
	StepUS    int64            `json:"step_us"`
	Requests  []uint64         `json:"requests"`
	Errors    []uint64         `json:"errors" doc:"failed predictions; they are refused before they are logged, so this version counts none"`
	P50       []*float64       `json:"p50_ms"`
	P95       []*float64       `json:"p95_ms"`
	P99       []*float64       `json:"p99_ms"`
	ByVersion []VersionTraffic `json:"by_version"`
}

// VersionTraffic is one version's part of the requests.
type VersionTraffic struct {
	Version  int64    `json:"version"`
	Requests []uint64 `json:"requests"`
}

// QualitySeries are the judged windows, oldest first.
type QualitySeries struct {
	Metric         string          `json:"metric"`
	HigherIsBetter bool            `json:"higher_is_better"`
	MinGap         *float64        `json:"min_gap"`
	Windows        []QualityWindow `json:"windows"`
}

// QualityWindow is one judged window; versions are 0 when the registry does not know the release any more.
type QualityWindow struct {
	From            int64    `json:"from"`
	To              int64    `json:"to"`
	Labels          int      `json:"labels"`
	Unlabelled      int      `json:"unlabelled"`
	Champion        int64    `json:"champion"`
	Value           *float64 `json:"value"`
	Low             *float64 `json:"low"`
	High            *float64 `json:"high"`
	Challenger      *int64   `json:"challenger"`
	ChallengerValue *float64 `json:"challenger_value"`
	Gap             *float64 `json:"gap"`
	GapLow          *float64 `json:"gap_low"`
	GapHigh         *float64 `json:"gap_high"`
	Verdict         string   `json:"verdict" enum:"ok,degraded,too_few_labels,no_challenger"`
}

// DriftReport is the newest compared window. Weighted is the figure that is compared with Threshold.
type DriftReport struct {
	From      int64          `json:"from"`
	To        int64          `json:"to"`
	Rows      int            `json:"rows"`
	Weighted  float64        `json:"weighted"`
	Threshold *float64       `json:"threshold"`
	Verdict   string         `json:"verdict" enum:"ok,drifted,too_few_rows"`
	Features  []DriftFeature `json:"features"`
}

// DriftFeature is one feature: JS is the divergence in bits; Weighted is the monitor's figure (PSI, or the
// Jensen-Shannon distance) times the feature's importance, so that the features sum up to the report's.
type DriftFeature struct {
	Feature    string     `json:"feature"`
	PSI        float64    `json:"psi"`
	JS         float64    `json:"js"`
	Importance float64    `json:"importance"`
	Weighted   float64    `json:"weighted"`
	History    []*float64 `json:"history"`
}

type telemetryIn struct {
	InModel
	Environment string `query:"environment" doc:"default: the last one"`
	Points      int    `query:"points" default:"400" minimum:"50" maximum:"2000"`
}

// watchedKey checks model and environment; "" is the last environment.
func (a *API) watchedKey(ctx context.Context, project, model, environment string) (monitoring.Key, error) {
	k := monitoring.Key{Project: project, Model: model, Environment: environment}
	if _, err := a.Registry.Model(ctx, project, model); err != nil {
		return k, err
	}
	envs, err := a.environments(ctx, project, model)
	if err != nil {
		return k, err
	}
	if environment == "" {
		k.Environment = envs[len(envs)-1]
	} else if !slices.Contains(envs, environment) {
		return k, fault.New(fault.Invalid, fmt.Sprintf("Model '%s' has no environment '%s'.", model, environment), fmt.Sprintf("Its environments are %v.", envs)).At("environment")
	}
	return k, nil
}

func (a *API) judgedWindows(ctx context.Context, k monitoring.Key) (j judged, err error) {
	m, err := a.Monitoring.Monitor(ctx, k)
	if err == nil {
		j.monitor = &m
	} else if !fault.Is(err, fault.NotFound) {
		return j, err
	}
	if j.quality, err = a.Monitoring.Quality(ctx, k, 500); err != nil {
		return j, err
	}
	j.drift, err = a.Monitoring.Drift(ctx, k, sparkSize)
	return j, err
}

func (a *API) telemetry(ctx context.Context, in *telemetryIn) (*Out[Telemetry], error) {
	k, err := a.watchedKey(ctx, in.Project, in.Model, in.Environment)
	if err != nil {
		return nil, err
	}
	f, err := a.fleet(ctx, in.Project, in.Model)
	if err != nil {
		return nil, err
	}
	j, err := a.judgedWindows(ctx, k)
	if err != nil {
		return nil, err
	}
	traffic, err := a.Monitoring.Telemetry(ctx, k, monitoring.Window{}, in.Points)
	if err != nil {
		return nil, err
	}
	runs, err := a.modelRuns(ctx, in.Project, in.Model)
	if err != nil {
		return nil, err
	}
	out := Telemetry{Environment: k.Environment, Traffic: trafficSeries(f, traffic), Quality: qualitySeries(f, j), Drift: driftReport(j)}
	out.From, out.To = span(out, traffic)
	out.Alerts, err = a.alertList(ctx, f, k, j, runs)
	return answer(out), err
}

// span covers traffic and judged windows.
func span(t Telemetry, traffic *monitoring.Telemetry) (from, to int64) {
	if len(traffic.Slots) > 0 {
		from, to = microsOf(traffic.From), microsOf(traffic.To)
	}
	if w := t.Quality.Windows; len(w) > 0 {
		if from == 0 || w[0].From < from {
			from = w[0].From
		}
		to = max(to, w[len(w)-1].To)
	}
	return from, to
}

func trafficSeries(f *fleet, t *monitoring.Telemetry) TrafficSeries {
	out := TrafficSeries{T: []int64{}, StepUS: t.Step.Microseconds(), Requests: []uint64{}, Errors: []uint64{}, P50: []*float64{}, P95: []*float64{}, P99: []*float64{}, ByVersion: []VersionTraffic{}}
	for i := range t.Slots {
		s := &t.Slots[i]
		out.T, out.Requests, out.Errors = append(out.T, microsOf(s.At)), append(out.Requests, s.Count), append(out.Errors, 0)
		out.P50, out.P95, out.P99 = append(out.P50, milliseconds(s.P50)), append(out.P95, milliseconds(s.P95)), append(out.P99, milliseconds(s.P99))
	}
	by := map[int64][]uint64{}
	for _, r := range t.ByRelease {
		n := f.number(r.Release)
		if r.Shadow || n == 0 {
			continue
		}
		if by[n] == nil {
			by[n] = make([]uint64, len(t.Slots))
		}
		for i, c := range r.Counts {
			by[n][i] += c
		}
	}
	for n, counts := range by {
		out.ByVersion = append(out.ByVersion, VersionTraffic{n, counts})
	}
	slices.SortFunc(out.ByVersion, func(a, b VersionTraffic) int { return int(a.Version - b.Version) })
	return out
}

func qualitySeries(f *fleet, j judged) QualitySeries {
	out := QualitySeries{HigherIsBetter: true, Windows: []QualityWindow{}}
	if j.monitor != nil && !j.monitor.Quality.Off {
		out.Metric, out.MinGap = j.monitor.Quality.Metric, finite(j.monitor.Quality.MinGap)
	} else if n := len(j.quality); n > 0 {
		out.Metric = j.quality[n-1].Metric
	}
	out.HigherIsBetter = out.Metric == "" || out.Metric == monitoring.MetricAUC
	for _, w := range j.quality {
		low, high := w.ChampionFacts.Interval(w.Metric)
		v := QualityWindow{From: microsOf(w.From), To: microsOf(w.To), Labels: w.Labels, Unlabelled: w.Unlabelled, Champion: f.number(w.Champion), Verdict: w.Verdict, Value: qualityValue(w)}
		if v.Value != nil {
			v.Low, v.High = figure(low), figure(high)
		}
		if w.Challenger != "" {
			v.Challenger = numberOrNil(f.number(w.Challenger))
		}
		if w.Gap != nil && w.Verdict != monitoring.VerdictFewLabels {
			v.ChallengerValue, v.Gap, v.GapLow, v.GapHigh = figure(w.Gap.B), figure(w.Gap.Diff), figure(w.Gap.Lower), figure(w.Gap.Upper)
		}
		out.Windows = append(out.Windows, v)
	}
	return out
}

// driftReport is the newest window that could be compared with a training profile; nil when there is none.
func driftReport(j judged) *DriftReport {
	newest := -1
	for i, w := range j.drift {
		if w.Verdict != monitoring.VerdictNoReference {
			newest = i
		}
	}
	if newest < 0 {
		return nil
	}
	w := j.drift[newest]
	out := &DriftReport{From: microsOf(w.From), To: microsOf(w.To), Rows: w.Rows, Verdict: w.Verdict, Features: []DriftFeature{}}
	if v := figure(w.Figures.Score); v != nil {
		out.Weighted = *v
	}
	if j.monitor != nil && !j.monitor.Drift.Off {
		out.Threshold = finite(w.Threshold)
	}
	history := map[string][]*float64{}
	for i, old := range j.drift[:newest+1] {
		for _, f := range old.Figures.Features {
			h := history[f.Name]
			for len(h) < i {
				h = append(h, nil)
			}
			history[f.Name] = append(h, weighted(old.Figures.Method, f))
		}
	}
	for _, f := range w.Figures.Features {
		psi, js, x := figure(f.PSI), figure(f.JS), weighted(w.Figures.Method, f)
		if psi == nil || js == nil || x == nil {
			continue // nothing was compared: an empty window
		}
		out.Features = append(out.Features, DriftFeature{f.Name, *psi, *js * *js, f.Weight, *x, history[f.Name]})
	}
	slices.SortStableFunc(out.Features, func(a, b DriftFeature) int {
		switch {
		case a.Weighted > b.Weighted:
			return -1
		case a.Weighted < b.Weighted:
			return 1
		}
		return 0
	})
	return out
}

func weighted(method string, f monitoring.FeatureDrift) *float64 {
	v := f.JS
	if method == monitoring.MethodPSI {
		v = f.PSI
	}
	if !v.Defined() {
		return nil
	}
	return finite(v.Value * f.Weight)
}

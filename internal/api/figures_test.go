package api

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/data"
	"falaj/internal/kernel/note"
	"falaj/internal/monitoring"
	"falaj/internal/plan/pipeline"
)

func numbers(lo, hi float64, edges []float64, counts ...int64) data.ColumnProfile {
	return data.ColumnProfile{Name: "x", Type: "DOUBLE", Kind: data.KindNumber, Min: &lo, Max: &hi, Edges: edges, Counts: counts}
}

func TestHistogramHasNoEmptyBins(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		c    data.ColumnProfile
		want *Histogram
	}{
		{numbers(0, 9, []float64{3, 6}, 4, 5, 6), &Histogram{[]float64{0, 3, 6, 9}, []int64{4, 5, 6}}},
		{numbers(0, 6, []float64{3, 6}, 4, 5, 0), &Histogram{[]float64{0, 3, 6}, []int64{4, 5}}},
		{numbers(3, 9, []float64{3, 6}, 4, 5, 6), &Histogram{[]float64{3, 6, 9}, []int64{9, 6}}},
		{numbers(3, 3, []float64{3}, 7, 0), &Histogram{[]float64{3, 3}, []int64{7}}},
		{numbers(3, 3, nil, 7), &Histogram{[]float64{3, 3}, []int64{7}}},
		{numbers(0, math.Inf(1), []float64{3}, 7, 1), nil},
		{data.ColumnProfile{Kind: data.KindText}, nil},
	} {
		if d := cmp.Diff(x.want, histogram(x.c)); d != "" {
			t.Errorf("%v %v: %s", x.c.Edges, x.c.Counts, d)
		}
	}
}

func TestPSIAgainstTheVersionBefore(t *testing.T) {
	t.Parallel()
	even := numbers(0, 100, []float64{20, 40, 60, 80}, 200, 200, 200, 200, 200)
	text := func(a, b, other int64) data.ColumnProfile {
		return data.ColumnProfile{Kind: data.KindText, Top: []data.Top{{Value: "a", Rows: a}, {Value: "b", Rows: b}}, Other: other}
	}
	for name, x := range map[string]struct {
		then, now data.ColumnProfile
		low, high float64
	}{
		"the same":             {even, even, 0, 0},
		"the same, other bins": {even, numbers(0, 100, []float64{25, 50, 75}, 250, 250, 250, 250), 0, 0.001},
		"moved":                {even, numbers(50, 150, []float64{70, 90, 110, 130}, 200, 200, 200, 200, 200), 1, 10},
		"texts":                {text(50, 50, 10), text(50, 50, 10), 0, 0},
		"texts moved":          {text(90, 10, 0), text(10, 90, 0), 1, 10},
	} {
		got := columnPSI(x.then, x.now)
		if got == nil || *got < x.low || *got > x.high {
			t.Errorf("%s: %v, want %v to %v", name, got, x.low, x.high)
		}
	}
	for name, pair := range map[string][2]data.ColumnProfile{"another kind": {even, text(1, 1, 1)}, "no values": {even, {Kind: data.KindNumber}}, "times": {{Kind: data.KindTime}, {Kind: data.KindTime}}} {
		if got := columnPSI(pair[0], pair[1]); got != nil {
			t.Errorf("%s: %v", name, *got)
		}
	}
}

func TestAlertsAreResolvedByTheNextGoodWindow(t *testing.T) {
	t.Parallel()
	day := func(n int) time.Time { return time.Date(2013, 4, n, 0, 0, 0, 0, time.UTC) }
	window := func(n int) monitoring.Window { return monitoring.Window{From: day(n), To: day(n + 1)} }
	j := judged{
		monitor: &monitoring.Monitor{Quality: monitoring.QualityMonitor{LabelsAfter: 24 * time.Hour}},
		quality: []monitoring.QualityWindow{{Window: window(1), Verdict: monitoring.VerdictOK}, {Window: window(2), Verdict: monitoring.VerdictDegraded}, {Window: window(3), Verdict: monitoring.VerdictFewLabels}, {Window: window(4), Verdict: monitoring.VerdictOK}},
		drift:   []monitoring.DriftWindow{{Window: window(2), Verdict: monitoring.VerdictDrifted, Missing: []string{"x"}}, {Window: window(3), Verdict: monitoring.VerdictDrifted}, {Window: window(4), Verdict: monitoring.VerdictOK}},
	}
	for kind, want := range map[string]time.Time{monitoring.QualityDegraded: day(6), monitoring.DriftDetected: day(5), monitoring.FeaturesMissing: day(4)} {
		if got := j.resolvedAt(monitoring.Alert{Kind: kind, Window: window(2)}); got != microsOf(want) {
			t.Errorf("%s is resolved at %v, want %v", kind, fromMicros(got), want)
		}
	}
}

func TestAlertsNameTheRetrainingTheySetOff(t *testing.T) {
	t.Parallel()
	at := func(minute int) time.Time { return time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC) }
	alert := func(id, kind string, minute int, gap float64) monitoring.Alert {
		return monitoring.Alert{ID: id, Kind: kind, Key: monitoring.Key{Model: "delay"}, Created: at(minute), Args: map[string]any{"gap": gap}}
	}
	run := func(id, model, code string, minute int, gap float64) pipeline.Run {
		return pipeline.Run{ID: id, Model: model, Pipeline: pipeline.RetrainPipeline, Created: at(minute), Request: pipeline.Request{Reason: note.Note{Code: code, Args: map[string]any{"gap": gap}}}}
	}
	all := []monitoring.Alert{alert("a", monitoring.QualityDegraded, 10, 0.1), alert("b", monitoring.QualityDegraded, 20, 0.2), alert("c", monitoring.DriftDetected, 5, 0), alert("d", monitoring.DriftDetected, 30, 0), alert("e", monitoring.FeaturesMissing, 1, 0)}
	runs := []pipeline.Run{run("other", "late", "retrain.drift", 31, 0), run("two", "delay", "retrain.quality", 21, 0.2), run("drift", "delay", "retrain.drift", 6, 0), run("old", "delay", "retrain.quality", 1, 0.1)}
	for i, want := range []string{"", "two", "drift", "", ""} {
		if got := startedBy(all[i], all, runs); got != want {
			t.Errorf("alert %s set off %q, want %q", all[i].ID, got, want)
		}
	}
}

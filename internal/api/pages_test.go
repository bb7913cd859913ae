package api_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/api"
	"falaj/internal/delivery"
	"falaj/internal/registry"
	"falaj/internal/serving"
	"falaj/internal/store"
	"falaj/internal/store/storetest"
	"falaj/internal/tracking"
)

// TestEmptyProject holds every list to its type before anything was made: arrays are there and empty.
func TestEmptyProject(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.get("/models", "Page<ModelSummary>", nil)
	w.get("/experiments", "Page<Experiment>", nil)
	w.get("/datasets", "Page<DatasetSummary>", nil)
	w.get("/lineage", "Lineage", nil)
	for path, what := range map[string]string{"/models/delay": "delay", "/models/delay/telemetry": "delay", "/datasets/flights": "flights", "/datasets/flights/quarantine": "flights", "/experiments/77/runs": "77",
		"/runs/" + strings.Repeat("0", 32): "00000", "/lineage?focus=run:1": "run:1", "/lineage?focus=change:chg_1": "chg_1"} {
		status, body := w.call("vera", "GET", "/projects/flights"+path, nil)
		problem, _ := body.(map[string]any)
		if status != http.StatusNotFound || !strings.Contains(fmt.Sprint(problem["detail"]), what) {
			t.Errorf("GET %s: %d %v", path, status, body)
		}
		for _, bad := range w.contract.check(body, "Problem") {
			t.Errorf("GET %s: %s", path, bad)
		}
	}
	if status, _ := w.call("nobody", "GET", "/projects/flights/models", nil); status != http.StatusForbidden {
		t.Errorf("a stranger reads models: %d", status)
	}
}

func TestDatasetPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.datasets()
	w.train("delay")
	var list api.Page[api.DatasetSummary]
	w.get("/datasets", "Page<DatasetSummary>", &list)
	if len(list.Items) != 2 || list.Items[0].Name != "departures" || list.Items[0].Kind != "derived" || *list.Total != 2 {
		t.Fatalf("datasets: %+v", list)
	}
	f := list.Items[1]
	if f.Versions != 2 || f.Latest == nil || f.Latest.Rows != 1197 || f.Latest.Contract != "warned" || f.Latest.Bytes == 0 || !strings.HasPrefix(f.Latest.Digest, "sha256:") || len(f.Latest.Digest) != 71 {
		t.Errorf("flights: %+v %+v", f, f.Latest)
	}
	if f.Quarantined != 203 || !slices.Equal(f.Classes, []string{"identifier"}) || len(f.RowsSpark) != 2 || *f.RowsSpark[1] != 597 {
		t.Errorf("flights: %d set aside, classes %v, spark %v", f.Quarantined, f.Classes, f.RowsSpark)
	}
	var first api.Page[api.DatasetSummary]
	w.get("/datasets?limit=1", "Page<DatasetSummary>", &first)
	w.get("/datasets?limit=1&page_token="+first.NextPageToken, "Page<DatasetSummary>", &list)
	if first.NextPageToken == "" || len(list.Items) != 1 || list.Items[0].Name != "flights" || list.NextPageToken != "" {
		t.Errorf("second page: %+v", list)
	}
	w.refused("vera", "GET", "/datasets?page_token=x", nil, http.StatusBadRequest, "page_token", "not one of ours")

	var d api.DatasetDetail
	w.get("/datasets/flights", "DatasetDetail", &d)
	if d.Source != "csv data/2013-*.csv" || d.EventTime != "sched_at" || d.OnViolation != "quarantine" || !slices.Equal(d.Residency, []string{"ae"}) || !slices.Equal(d.Key, []string{"flight"}) || len(d.VersionList) != 2 || d.VersionList[0].Version != 2 {
		t.Errorf("flights: %+v", d)
	}
	if diff := cmp.Diff([]api.RunModel{{Name: "delay", Version: 1}}, d.VersionList[0].Models); diff != "" || len(d.VersionList[1].Models) != 0 || d.VersionList[0].Quarantined != 3 {
		t.Errorf("models of flights@2: %s, of flights@1: %v", diff, d.VersionList[1].Models)
	}
	w.get("/datasets/departures", "DatasetDetail", &d)
	if !strings.HasPrefix(d.SQL, "SELECT flight") || d.Source != "" || d.VersionList[0].Rows == 0 {
		t.Errorf("departures: %+v", d)
	}
}

func TestDatasetVersionPage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.datasets()
	w.train("delay")
	var v api.DatasetVersion
	w.get("/datasets/flights/versions/2", "DatasetVersion", &v)
	if v.Dataset != "flights" || v.Snapshot == "" || len(v.Sources) != 2 || v.Sources[1].Rows != 600 || v.Sources[1].Bytes == 0 || len(v.Files) != 2 || v.PipelineRun != nil {
		t.Errorf("flights@2: %+v", v)
	}
	columns := map[string]api.Column{}
	for _, c := range v.Schema {
		columns[c.Name] = c
	}
	if c := columns["tailnum"]; c.Class != "identifier" || c.Mask != "pseudonym" || !c.Nullable {
		t.Errorf("tailnum: %+v", c)
	}
	if columns["flight"].Role != "key" || columns["flight"].Nullable || columns["sched_at"].Role != "event_time" || columns["distance"].Nullable {
		t.Errorf("columns: %+v", columns)
	}
	i := slices.IndexFunc(v.Checks, func(c api.ContractCheck) bool { return c.Column == "distance" && c.Check.Code == "check.min" })
	if i < 0 || v.Checks[i].Violations != 3 || v.Checks[i].Verdict != "failed" || v.Checks[i].Checked != 600 || !slices.Equal(v.Checks[i].Samples, []string{"-5"}) || v.Checks[i].Quarantine == nil || v.Checks[i].Check.Args["min"] != 1.0 {
		t.Fatalf("checks: %+v", v.Checks)
	}
	profile := map[string]api.ColumnProfile{}
	for _, c := range v.Profile {
		profile[c.Column] = c
	}
	p := profile["distance"]
	if p.Count != 1197 || *p.Min != "100" || p.Mean == nil || p.Histogram == nil || len(p.Histogram.Edges) != len(p.Histogram.Counts)+1 || p.PSI == nil || *p.PSI > 0.1 {
		t.Errorf("distance: %+v psi %v", p, p.PSI)
	}
	var sum int64
	for _, n := range p.Histogram.Counts {
		sum += n
	}
	if sum != 1197 {
		t.Errorf("the histogram of distance holds %d rows", sum)
	}
	if q := p.Quantiles; len(q) == 0 || !slices.IsSortedFunc(q, func(a, b api.Quantile) int { return int(min(max(a.Q-b.Q, -1), 1)) }) {
		t.Errorf("quantiles: %+v", q)
	}
	if p := profile["tailnum"]; p.Min != nil || len(p.Top) != 10 || !strings.HasPrefix(p.Top[0].Value, "p_") {
		t.Errorf("tailnum is shown in clear: %+v", p)
	}
	if p := profile["sched_at"]; p.Min == nil || *p.Min != "2013-01-01 00:00:00" || p.Mean != nil || p.Histogram != nil {
		t.Errorf("sched_at: %+v", p)
	}
	kinds := map[string]bool{}
	for _, c := range v.Children {
		kinds[c.Ref.Kind] = true
	}
	if !kinds["run"] || !kinds["dataset_version"] || kinds["training_set"] || len(v.Parents) != 2 || v.Parents[0].Ref.ID != "flights/2013-01.csv" {
		t.Errorf("children %+v, parents %+v", v.Children, v.Parents)
	}
	w.get("/datasets/flights/versions/1", "DatasetVersion", &v)
	if profile := v.Profile[0]; profile.PSI != nil {
		t.Errorf("the first version has a PSI: %v", *profile.PSI)
	}
	w.get("/datasets/departures/versions/1", "DatasetVersion", &v)
	if len(v.Parents) != 1 || v.Parents[0].Ref.ID != "flights" || *v.Parents[0].Ref.Version != 2 || len(v.Sources) != 0 {
		t.Errorf("parents of departures@1: %+v", v.Parents)
	}
	w.refused("vera", "GET", "/datasets/flights/versions/9", nil, http.StatusNotFound, "", "flights")
}

func TestQuarantinePages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.datasets()
	var list api.Page[api.QuarantineBatch]
	w.get("/datasets/flights/quarantine", "Page<QuarantineBatch>", &list)
	if len(list.Items) != 2 || list.Items[0].Scope != "refused" || list.Items[0].Rows != 200 || list.Items[0].TotalRows != 600 || list.Items[1].Scope != "rows" || list.Items[1].Rows != 3 {
		t.Fatalf("quarantine: %+v", list.Items)
	}
	if n := list.Items[0].Note; n.Code != "quarantine.refused" || n.Args["violations"] != 200.0 || !strings.Contains(n.Text, "200 of 600 rows") {
		t.Errorf("note: %+v", n)
	}
	path := "/datasets/flights/quarantine/" + list.Items[0].ID + "/rows"
	var rows api.QuarantineRows
	w.get(path, "QuarantineRows", &rows)
	if len(rows.Items) != 100 || rows.NextPageToken != "100" || *rows.Total != 200 || !slices.Equal(rows.Columns, []string{"origin", "flight", "tailnum", "distance", "sched_at"}) {
		t.Fatalf("rows: %d, next %q, columns %v", len(rows.Items), rows.NextPageToken, rows.Columns)
	}
	r := rows.Items[0]
	if r.Line != 4 || *r.Values[0] != "LGA" || *r.Values[3] != "-5" || !strings.HasPrefix(*r.Values[2], "p_") {
		t.Errorf("the first row is line %d: %s %s %s", r.Line, *r.Values[0], *r.Values[2], *r.Values[3])
	}
	if v := r.Violations; len(v) != 1 || v[0].Column != "distance" || v[0].Check.Code != "check.min" || v[0].Check.Args["min"] != 1.0 {
		t.Errorf("violations: %+v", r.Violations)
	}
	w.get(path+"?page_token=100", "QuarantineRows", &rows)
	if len(rows.Items) != 100 || rows.NextPageToken != "" || rows.Items[99].Line != 601 {
		t.Errorf("second page: %d rows, next %q, last line %d", len(rows.Items), rows.NextPageToken, rows.Items[99].Line)
	}
	w.refused("vera", "GET", "/datasets/departures/quarantine/"+list.Items[0].ID+"/rows", nil, http.StatusNotFound, "", "departures")
}

func TestRunPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.datasets()
	a, b := w.train("delay"), w.train("delay")
	var list api.Page[api.Experiment]
	w.get("/experiments", "Page<Experiment>", &list)
	i := slices.IndexFunc(list.Items, func(e api.Experiment) bool { return e.Name == "delay" })
	if i < 0 || list.Items[i].Runs != 2 || *list.Items[i].LastRun != 1_370_000_000_000_000 {
		t.Fatalf("experiments: %+v", list.Items)
	}
	runs := "/experiments/" + list.Items[i].ID + "/runs"
	var page api.RunPage
	w.get(runs, "RunPage", &page)
	if len(page.Items) != 2 || *page.Total != 2 || !slices.Equal(page.ParamKeys, []string{"trees"}) || !slices.Equal(page.MetricKeys, []string{"auc", "odd"}) {
		t.Errorf("runs: %+v", page)
	}
	w.get(runs+"?filter=metrics.auc+%3E+0.9", "RunPage", &page)
	if len(page.Items) != 0 || page.Total != nil || len(page.MetricKeys) != 2 {
		t.Errorf("filtered runs: %+v", page)
	}
	w.get(runs+"?limit=1&order=metrics.auc+DESC", "RunPage", &page)
	if len(page.Items) != 1 || page.NextPageToken == "" {
		t.Errorf("first page: %+v", page)
	}
	w.refused("vera", "GET", runs+"?filter=metrics.auc+%3E", nil, http.StatusBadRequest, "filter", "")
	w.refused("vera", "GET", runs+"?order=speed", nil, http.StatusBadRequest, "order", "")

	var r api.RunDetail
	w.get("/runs/"+b.Run, "RunDetail", &r)
	if r.Status != "finished" || r.Actor != (api.ActorRef{Kind: "user", Name: "amal"}) || *r.EndedAt != 1_370_000_009_000_000 || r.GitCommit != "0123456789abcdef" || !r.GitDirty || *r.Model != (api.RunModel{Name: "delay", Version: 2}) || *r.PipelineRun != "pr_test" {
		t.Errorf("run: %+v", r)
	}
	if v, there := r.Metrics["odd"]; v != nil || !there || *r.Metrics["auc"] != 0.69 || len(r.Series) != 2 || len(r.Series[0].Step) != 20 || r.Series[1].Value[0] != nil {
		t.Errorf("metrics %v, series %+v", r.Metrics, r.Series)
	}
	if len(r.Inputs) != 1 || r.Inputs[0].Context != "training" || *r.Inputs[0].Ref.Version != 2 || len(r.Artifacts) != 1 || r.Artifacts[0].Path != "plots/roc.txt" || r.Artifacts[0].Bytes != 7 {
		t.Errorf("inputs %+v, artifacts %+v", r.Inputs, r.Artifacts)
	}
	var c api.Comparison
	w.get("/runs/compare?ids="+b.Run+","+a.Run, "Comparison", &c)
	if len(c.Runs) != 2 || c.Runs[0].ID != b.Run || len(c.Series) != 2 || c.Series[0].Runs[1].RunID != a.Run || len(c.Series[0].Runs[1].Value) != 20 {
		t.Errorf("comparison: %+v", c)
	}
	w.refused("vera", "GET", "/runs/compare?ids="+a.Run, nil, http.StatusBadRequest, "ids", "2 to 100")
	w.refused("vera", "GET", "/runs/compare?ids="+a.Run+","+strings.Repeat("0", 32), nil, http.StatusNotFound, "", "0000")
}

// TestModelPages follows a model from serving to the alert that its late labels raise.
func TestModelPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.datasets()
	v := w.serve()
	var list api.Page[api.ModelSummary]
	w.get("/models", "Page<ModelSummary>", &list)
	if len(list.Items) != 1 || list.Items[0].Health != "healthy" || list.Items[0].HealthReason != nil || *list.Items[0].Tier != 2 || list.Items[0].Versions != 3 || list.Items[0].Quality != nil {
		t.Fatalf("models: %+v", list.Items)
	}
	envs := list.Items[0].Environments
	if len(envs) != 3 || envs[0].Environment != "dev" || envs[0].State != "empty" || envs[0].Version != nil || envs[2].State != "serving" || *envs[2].Version != 1 || *envs[2].Release != v[0].Release {
		t.Errorf("environments: %+v", envs)
	}
	if d := cmp.Diff([]api.Variant{{Version: 1, Role: "champion", Weight: 1}, {Version: 2, Role: "shadow"}}, envs[2].Variants); d != "" {
		t.Errorf("variants: %s", d)
	}
	labels := w.fortnight(v[0].Release, v[1].Release, 2)
	to := map[string]any{"to": store.Micros(april(20 * 24 * time.Hour))}
	push := map[string]any{"labels": labels}
	w.refused("vera", "POST", "/models/delay/labels", push, http.StatusForbidden, "", "label.push")
	w.refused("amal", "POST", "/models/delay/labels", push, http.StatusForbidden, "", "time.replay") // known_at is set
	w.refused("amal", "POST", "/clock", to, http.StatusForbidden, "", "time.replay")
	w.refused("replay", "POST", "/models/delay/labels", map[string]any{"labels": []any{map[string]any{"id": "a", "value": 2}}}, http.StatusBadRequest, "value", "0 or 1")
	w.refused("replay", "POST", "/models/late/labels", push, http.StatusNotFound, "", "late")
	if status, body := w.call("replay", "POST", "/projects/flights/models/delay/labels", push); status != http.StatusOK || body.(map[string]any)["labels"] != float64(len(labels)) {
		t.Fatalf("labels: %d %v", status, body)
	}
	if status, body := w.call("replay", "POST", "/projects/flights/clock", to); status != http.StatusOK {
		t.Fatalf("clock: %d %v", status, body)
	}
	w.get("/models", "Page<ModelSummary>", &list)
	m := list.Items[0]
	if m.Health != "degraded" || m.HealthReason.Code != "quality.degraded" || m.OpenAlerts != 2 || m.Quality == nil || m.Quality.Metric != "auc" || m.Quality.Low == nil || len(m.QualitySpark) != 1 {
		t.Errorf("after the labels: %+v, reason %+v, quality %+v", m, m.HealthReason, m.Quality)
	}
	sum := 0.0
	for _, n := range m.TrafficSpark {
		sum += *n
	}
	if len(m.TrafficSpark) > 60 || sum != 1200 {
		t.Errorf("traffic: %v predictions in %d slots", sum, len(m.TrafficSpark))
	}
	w.modelPage(v)
	w.telemetryPage()
}

func (w *world) modelPage(v [3]registry.Version) {
	t := w.t
	var d api.ModelDetail
	w.get("/models/delay", "ModelDetail", &d)
	if !slices.Equal(d.Owners, []string{"ml-team", "ops"}) || len(d.VersionList) != 3 || d.LastPipeline != nil {
		t.Fatalf("model: %+v", d)
	}
	stages := ""
	for _, x := range d.VersionList {
		stages += fmt.Sprintf("%d %s %s; ", x.Version, x.Stage, x.Health)
	}
	if stages != "3 refused unknown; 2 shadow unknown; 1 deployed degraded; " {
		t.Errorf("stages: %s", stages)
	}
	one := d.VersionList[2]
	kinds := ""
	for _, e := range one.Manifest {
		kinds += e.Kind + " "
	}
	if kinds != "data features code runtime params metrics model tests " || one.Manifest[0].Value != "flights@2, 1,197 rows" || *one.Manifest[0].Ref.Version != 2 || one.Params["trees"] != "200" || one.Metrics["odd"] != nil || *one.RunID != v[0].Run {
		t.Errorf("manifest of 1: %s %+v", kinds, one)
	}
	if n := d.VersionList[0].Note; n == nil || n.Code != "tests.summary" || n.Args["failed"] != 1.0 {
		t.Errorf("why 3 was refused: %+v", n)
	}
	moves := ""
	for _, m := range d.Timeline {
		moves += fmt.Sprintf("%s %d; ", m.Kind, *m.To)
	}
	if last := d.Timeline[len(d.Timeline)-1]; moves != "refused 3; retrain 2; promote 1; " || len(last.Approvers) != 1 || last.Approvers[0].Name != "badr" || *last.EventAt != store.Micros(april(0)) || last.From != nil {
		t.Errorf("timeline: %s %+v", moves, last)
	}
	if len(d.Alerts) != 2 || d.Alerts[0].ResolvedAt != nil || d.Alerts[0].Observed == nil || *d.Alerts[0].Version != 1 || d.Alerts[0].Caused != nil {
		t.Errorf("alerts: %+v", d.Alerts)
	}
}

func (w *world) telemetryPage() {
	t := w.t
	var x api.Telemetry
	w.get("/models/delay/telemetry?points=50", "Telemetry", &x)
	n := len(x.Traffic.T)
	if x.Environment != "production" || n == 0 || n > 50 || len(x.Traffic.Requests) != n || len(x.Traffic.P99) != n || len(x.Traffic.ByVersion) != 1 || x.From != store.Micros(april(0)) || x.To != store.Micros(april(14*24*time.Hour)) {
		t.Errorf("telemetry: %d slots, %+v", n, x)
	}
	q := x.Quality
	if q.Metric != "auc" || !q.HigherIsBetter || *q.MinGap != 0.01 || len(q.Windows) != 1 || q.Windows[0].Champion != 1 || *q.Windows[0].Challenger != 2 || q.Windows[0].Verdict != "degraded" || *q.Windows[0].GapLow < 0.01 || q.Windows[0].Unlabelled != 60 {
		t.Errorf("quality: %+v", q)
	}
	d := x.Drift
	if d == nil || d.Verdict != "drifted" || d.Rows != 1200 || len(d.Features) != 2 || d.Features[0].Feature != "temp" || d.Features[0].Importance != 0.75 || len(d.Features[0].History) != 1 || *d.Threshold != 0.2 {
		t.Fatalf("drift: %+v", d)
	}
	if s := d.Features[0].Weighted + d.Features[1].Weighted - d.Weighted; s > 1e-9 || s < -1e-9 {
		t.Errorf("the features' weighted figures do not sum up to %v", d.Weighted)
	}
	if len(x.Alerts) != 2 {
		t.Errorf("alerts: %+v", x.Alerts)
	}
	w.get("/models/delay/telemetry?environment=staging", "Telemetry", &x)
	if len(x.Traffic.T) != 0 || x.Drift != nil || len(x.Quality.Windows) != 0 {
		t.Errorf("staging: %+v", x)
	}
	w.refused("vera", "GET", "/models/delay/telemetry?environment=mars", nil, http.StatusBadRequest, "environment", "mars")
	status, body := w.call("vera", "GET", "/projects/flights/models/delay/traffic", nil)
	items := body.(map[string]any)["items"].([]any)
	if status != http.StatusOK || len(items) != 2 {
		t.Fatalf("traffic: %d %v", status, body)
	}
	for _, i := range items {
		r := i.(map[string]any)
		if r["predictions"] != 1200.0 || r["labels"] != 1140.0 {
			t.Errorf("traffic: %v", r)
		}
	}
}

func TestLineagePage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.datasets()
	w.serve()
	keys := func(focus string, depth int) string {
		t.Helper()
		var g api.Lineage
		w.get(fmt.Sprintf("/lineage?focus=%s&depth=%d", focus, depth), "Lineage", &g)
		var out []string
		at := map[string]api.LineageNode{}
		for _, n := range g.Nodes {
			at[n.Key] = n
			key := n.Key
			if n.Kind == "run" || n.Kind == "change" {
				key = n.Kind
			}
			out = append(out, key)
			if n.X < 0 || n.Y < 0 || n.X+n.W > g.Width || n.Y+n.H > g.Height {
				t.Errorf("%s lies outside the drawing: %+v", n.Key, n)
			}
		}
		for _, e := range g.Edges {
			from, to := at[e.From], at[e.To]
			if from.Key == "" || to.Key == "" || len(e.Points) < 2 || from.X >= to.X {
				t.Errorf("edge %+v", e)
			}
		}
		if focus != "" && at[g.Focus].Key == "" {
			t.Errorf("the focus %s is not in the drawing", g.Focus)
		}
		slices.Sort(out)
		if g.Truncated {
			out = append(out, "...")
		}
		return strings.Join(out, " ")
	}
	whole := "change dataset_version:flights@2 deployment:delay@production model_version:delay@1 run source:flights/2013-01.csv source:flights/2013-02.csv"
	for _, x := range []struct {
		focus string
		depth int
		want  string
	}{
		{"", 4, whole},
		{"model_version:delay@1", 4, whole},
		{"deployment:delay@production", 4, whole},
		{"model:delay", 4, whole},
		{"model_version:delay@1", 1, "change deployment:delay@production model_version:delay@1 run ..."},
		{"model_version:delay@3", 2, "dataset_version:flights@2 model_version:delay@3 run ..."},
		{"dataset:departures", 1, "dataset_version:departures@1 dataset_version:flights@2 ..."},
		{"source:flights/2013-02.csv", 3, "change dataset_version:departures@1 dataset_version:flights@2 deployment:delay@production model_version:delay@1 model_version:delay@2 model_version:delay@3 run run run source:flights/2013-02.csv"},
	} {
		if got := keys(x.focus, x.depth); got != x.want {
			t.Errorf("focus %q, depth %d:\ngot  %s\nwant %s", x.focus, x.depth, got, x.want)
		}
	}
	var g api.Lineage
	w.get("/lineage", "Lineage", &g)
	for _, n := range g.Nodes {
		if want, ok := map[string]string{"dataset_version": "warn", "model_version": "ok", "deployment": "ok", "run": "ok", "change": "ok"}[n.Kind]; ok && n.State != want {
			t.Errorf("%s is %q", n.Key, n.State)
		}
		if n.Kind == "dataset_version" && (n.Sub == nil || n.Sub.Args["rows"] != 1197.0) {
			t.Errorf("%s: %+v", n.Key, n.Sub)
		}
	}
}

// TestHomeOfFifty turns the pages of a long list of models.
func TestHomeOfFifty(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 50 {
		must[registry.Model](t)(w.registry.CreateModel(storetest.As("amal"), project, registry.NewModel{Name: fmt.Sprintf("m%02d", i), Tags: []tracking.Pair{{Key: "tier", Value: "1"}}}))
	}
	var all, part api.Page[api.ModelSummary]
	w.get("/models", "Page<ModelSummary>", &all)
	if len(all.Items) != 50 || *all.Total != 50 || all.NextPageToken != "" || all.Items[49].Name != "m49" {
		t.Errorf("%d models, next %q", len(all.Items), all.NextPageToken)
	}
	w.get("/models?limit=20", "Page<ModelSummary>", &part)
	w.get("/models?limit=40&page_token="+part.NextPageToken, "Page<ModelSummary>", &part)
	if len(part.Items) != 30 || part.Items[0].Name != "m20" || part.Total != nil {
		t.Errorf("second page: %d models, total %v", len(part.Items), part.Total)
	}
}

// BenchmarkHomeOfFifty reads the home page of 50 models with a year of hourly traffic each.
func BenchmarkHomeOfFifty(b *testing.B) {
	w := newWorld(b)
	const models, hours = 50, 365 * 24
	for i := range models {
		must[registry.Model](b)(w.registry.CreateModel(storetest.As("amal"), project, registry.NewModel{Name: fmt.Sprintf("m%02d", i)}))
		var rows []serving.Prediction
		for h := range hours {
			id := fmt.Sprintf("prd_%d_%d", i, h)
			rows = append(rows, serving.Prediction{ID: id, RequestID: id, Project: project, Model: fmt.Sprintf("m%02d", i), Environment: "production", Variant: "champion", Release: "sha256:x", At: april(time.Duration(h) * time.Hour),
				Features: []float64{1}, Output: []float64{0.5}, Latency: time.Millisecond})
		}
		ok(b, w.monitor.Record(b.Context(), rows))
	}
	ok(b, w.monitor.Flush(b.Context()))
	b.ResetTimer()
	for b.Loop() {
		if status, body := w.call("vera", "GET", "/projects/flights/models", nil); status != http.StatusOK {
			b.Fatal(status, body)
		}
	}
}

// TestChangePages holds the pages of changes, pipelines and audit to their types.
func TestChangePages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.datasets()
	w.serve()
	var list api.Page[api.ChangeSummary]
	w.get("/changes", "Page<ChangeSummary>", &list)
	if len(list.Items) != 2 {
		t.Fatalf("changes: %+v", list)
	}
	for _, c := range list.Items {
		w.get("/changes/"+c.ID, "ChangeDetail", nil)
	}
	w.get("/pipelines/runs", "Page<PipelineRunSummary>", nil)
	for path, typ := range map[string]string{"/audit?limit=100": "AuditPage"} {
		status, body := w.call("badr", "GET", "/projects/flights"+path, nil)
		if status != http.StatusOK {
			t.Errorf("GET %s: %d %v", path, status, body)
			continue
		}
		for _, bad := range w.contract.check(body, typ) {
			t.Errorf("GET %s: %s", path, bad)
		}
	}
	c := w.promote("delay", 2)
	w.until(c, delivery.PendingApproval)
	w.refused("amal", "POST", "/changes/"+c+"/approve", map[string]any{"comment": ""}, http.StatusForbidden, "", "")
	status, body := w.call("badr", "POST", "/projects/flights/changes/"+c+"/approve", map[string]any{"comment": "seen"})
	if status != http.StatusOK {
		t.Fatalf("approve: %d %v", status, body)
	}
	for _, bad := range w.contract.check(body, "ChangeDetail") {
		t.Errorf("approve: %s", bad)
	}
	w.until(c, delivery.Closed)
}

package pipeline

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"

	"falaj/internal/delivery"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/note"
	"falaj/internal/monitoring"
	"falaj/internal/serving"
)

// Evaluate gathers the evidence of one gate for delivery. It is the answer of the stages that know.
func (s *Service) Evaluate(ctx context.Context, c delivery.Change, g delivery.Gate) (delivery.Evidence, error) {
	switch g.Kind {
	case delivery.GateTests:
		return s.testsGate(ctx, c)
	case delivery.GateMetric:
		return s.metricGate(ctx, c, g)
	case delivery.GateBeats:
		return s.beatsGate(ctx, c, g)
	case delivery.GateParity:
		return s.parityGate(ctx, c)
	case delivery.GateScan:
		return s.scanGate(ctx, c)
	case delivery.GateLatency:
		return s.latencyGate(ctx, c, g)
	}
	return delivery.Evidence{}, fault.New(fault.Unsupported, "There is no gate '"+g.Kind+"'.", "")
}

// EventTime is the project's watermark, or now when nothing was predicted yet.
func (s *Service) EventTime(ctx context.Context, project string) time.Time {
	if t, err := s.Watermark(ctx, project); err == nil && !t.IsZero() {
		return t
	}
	return time.Now().UTC()
}

// Watermark is how far event time has come in the project, over all its models; zero when nothing came.
func (s *Service) Watermark(ctx context.Context, project string) (time.Time, error) {
	keys, err := s.Monitoring.Monitors(ctx, project)
	if err != nil {
		return time.Time{}, err
	}
	var at time.Time
	for _, k := range keys {
		events, _, err := s.Monitoring.Watermarks(ctx, project, k.Model)
		if err != nil {
			return at, err
		}
		if events.After(at) {
			at = events
		}
	}
	return at, nil
}

func verdict(ok bool) delivery.Verdict {
	if ok {
		return delivery.Passed
	}
	return delivery.Failed
}

func says(code, text string, args ...any) *note.Note {
	n := note.New(code, text, args...)
	return &n
}

func modelRef(model string) *delivery.Ref { return &delivery.Ref{Kind: "model", ID: model} }

func (s *Service) metricGate(ctx context.Context, c delivery.Change, g delivery.Gate) (delivery.Evidence, error) {
	rel, err := s.Registry.Release(ctx, c.Project, c.ToRelease)
	if err != nil {
		return delivery.Evidence{}, err
	}
	ev := delivery.Evidence{Unit: g.Metric, Ref: &delivery.Ref{Kind: "run", ID: rel.Manifest.Run}}
	v, ok := rel.Manifest.Metrics[g.Metric]
	if !ok {
		ev.Verdict = delivery.Failed
		ev.Note = says("gate.metric_missing", "the training logged no metric {metric}", "metric", g.Metric)
		return ev, nil
	}
	x := float64(v)
	if x == x { // NaN stays unknown
		ev.Observed = &x
	}
	good := x == x
	if g.Min != nil {
		ev.Threshold, ev.Direction = g.Min, "min"
		good = good && x >= *g.Min
	}
	if g.Max != nil {
		ev.Threshold, ev.Direction = g.Max, "max"
		good = good && x <= *g.Max
	}
	ev.Verdict = verdict(good)
	ev.Note = says("gate.metric_value", "{metric} is {value}", "metric", g.Metric, "value", x)
	return ev, nil
}

// scanGate accepts only formats that cannot carry code: LightGBM's text, and plain texts beside it that nothing is told to
// load.
func (s *Service) scanGate(ctx context.Context, c delivery.Change) (delivery.Evidence, error) {
	rel, err := s.Registry.Release(ctx, c.Project, c.ToRelease)
	if err != nil {
		return delivery.Evidence{}, err
	}
	for _, f := range rel.Manifest.Files {
		o, err := s.Registry.OpenFile(ctx, c.Project, c.ToRelease, f.Path)
		if err != nil {
			return delivery.Evidence{}, err
		}
		limit := int64(64 << 10)
		if f.Path == "MLmodel" {
			limit = maxMLmodel
		}
		head, err := io.ReadAll(io.LimitReader(o, limit))
		o.Close()
		if err != nil {
			return delivery.Evidence{}, err
		}
		why := suspicious(f.Path, head, f.Size)
		if why == "" && f.Path == "MLmodel" {
			why = loads(head)
		}
		if why != "" {
			return delivery.Evidence{Verdict: delivery.Failed, Note: says("scan.refused", "{file}: {why}", "file", f.Path, "why", why)}, nil
		}
	}
	return delivery.Evidence{Verdict: delivery.Passed, Note: says("scan.clean", "{files} files, all of known, safe formats", "files", len(rel.Manifest.Files))}, nil
}

// suspicious says why a file may not be part of a released model: everything that is not plain text is refused, by content
// and not by name (an allowlist: a denylist of pickle tricks cannot win, security.md section 8).
func suspicious(name string, head []byte, size int64) string {
	text := head
	if int64(len(head)) < size { // the last rune may be cut
		for len(text) > 0 && !utf8.Valid(text) && len(head)-len(text) < utf8.UTFMax {
			text = text[:len(text)-1]
		}
	}
	if !utf8.Valid(text) || slices.Contains(text, 0) {
		return "it is not plain text; pickles, archives and native formats are not released"
	}
	ext := name[strings.LastIndexByte(name, '.')+1:]
	switch {
	case strings.HasPrefix(string(text), "tree\n"): // LightGBM's text model
		return ""
	case name == "MLmodel", slices.Contains([]string{"yaml", "yml", "json", "txt", "md"}, ext):
		return ""
	}
	return "files of this kind are not known as safe"
}

// maxMLmodel bounds the file that is read whole; serving takes no larger one either.
const maxMLmodel = 4 << 20

// loads says why what an MLmodel file tells to load may carry code. A pickle of protocol 0 is plain text and may have any
// name, and a loader can be any module: only LightGBM's loader, told that the file is a Booster's text, is known to run none.
func loads(text []byte) string {
	var m struct {
		Flavors struct {
			Function *struct {
				Loader string `yaml:"loader_module"`
				Data   string `yaml:"data"`
			} `yaml:"python_function"`
			LightGBM *struct {
				Data  string `yaml:"data"`
				Class string `yaml:"model_class"`
			} `yaml:"lightgbm"`
		} `yaml:"flavors"`
	}
	if err := yaml.Unmarshal(text, &m); err != nil {
		return "it is not YAML as MLflow writes it"
	}
	f, l := m.Flavors.Function, m.Flavors.LightGBM
	switch {
	case l == nil || l.Class != "lightgbm.basic.Booster" || !strings.HasSuffix(l.Data, ".lgb"):
		return "it names no model in LightGBM's own text, and other formats can carry code"
	case f != nil && (f.Loader != "mlflow.lightgbm" || f.Data != l.Data):
		return "it has its model loaded by " + f.Loader + ", which can run code"
	}
	return ""
}

func (s *Service) parityGate(ctx context.Context, c delivery.Change) (delivery.Evidence, error) {
	t, err := s.Trained(ctx, c.Project, c.ToRelease)
	if err != nil {
		return delivery.Evidence{}, err
	}
	p, err := s.Features.ParityOfSpine(ctx, c.Project, t.Spine, t.Service, t.rows(), 500)
	if err != nil {
		return delivery.Evidence{}, err
	}
	x, zero := float64(p.Different), 0.0
	ev := delivery.Evidence{Verdict: verdict(p.Passed), Observed: &x, Threshold: &zero, Direction: "max", Unit: "values",
		Note: says("parity.summary", "{rows} rows: {differ} of {values} values differ", "rows", p.Rows, "differ", p.Different, "values", p.Values)}
	return ev, nil
}

// latencyGate measures the release itself on a throw-away endpoint with rows it was trained on, one row a request: keys and
// request features come in, the online store is asked, the model scores, the log takes the row. HTTP is not in it.
func (s *Service) latencyGate(ctx context.Context, c delivery.Change, g delivery.Gate) (delivery.Evidence, error) {
	t, err := s.Trained(ctx, c.Project, c.ToRelease)
	if err != nil {
		return delivery.Evidence{}, err
	}
	const calls, warm = 400, 50
	sample, err := s.Features.SpineSample(ctx, c.Project, t.Spine, t.Service, t.rows(), calls+warm)
	if err != nil {
		return delivery.Evidence{}, err
	}
	if len(sample) == 0 {
		return delivery.Evidence{Verdict: delivery.Failed, Unit: "ms", Note: says("latency.no_rows", "there is no row left of what it was trained on: nothing to ask it")}, nil
	}
	in, err := s.Features.Describe(ctx, c.Project, t.Service)
	if err != nil {
		return delivery.Evidence{}, err
	}
	e, closeIt, err := s.Serving.Ephemeral(ctx, c.Project, c.ToRelease)
	if err != nil {
		return delivery.Evidence{}, err
	}
	defer closeIt()
	times := make([]float64, 0, calls)
	for i := range calls + warm {
		r := sample[i%len(sample)]
		q := serving.Request{Key: e.Key, Entities: []map[string]any{{}}, Features: []map[string]any{{}}, At: []time.Time{r.At}, Replay: true}
		for name, v := range r.Row {
			if slices.Contains(in.Entity, name) {
				q.Entities[0][name] = v
			} else {
				q.Features[0][name] = v
			}
		}
		start := time.Now()
		if _, err := s.Serving.Predict(ctx, q); err != nil {
			return delivery.Evidence{}, err
		}
		if i >= warm {
			times = append(times, float64(time.Since(start).Microseconds())/1000)
		}
	}
	slices.Sort(times)
	p99 := times[len(times)*99/100]
	return delivery.Evidence{Verdict: verdict(g.Max == nil || p99 <= *g.Max), Observed: &p99, Threshold: g.Max, Direction: "max", Unit: "ms",
		Note: says("latency.summary", "{calls} of its own rows asked one by one, features looked up online: 99 of 100 within {ms} ms", "calls", calls, "rows", len(sample), "ms", p99)}, nil
}

func (s *Service) newestWindow(ctx context.Context, project, model string) (monitoring.Window, bool, error) {
	k, err := s.monitored(ctx, project, model)
	if err != nil {
		return monitoring.Window{}, false, err
	}
	w, err := s.Monitoring.NewestLabelledWindow(ctx, k)
	if fault.Is(err, fault.NotFound) {
		return w, false, nil
	}
	return w, err == nil, err
}

// monitored is the key under which a model is watched.
func (s *Service) monitored(ctx context.Context, project, model string) (monitoring.Key, error) {
	pol, err := s.Delivery().Policy(ctx, project, model)
	if err != nil {
		return monitoring.Key{}, err
	}
	return monitoring.Key{Project: project, Model: model, Environment: pol.Environments[len(pol.Environments)-1]}, nil
}

// beatsGate compares the candidate with the champion on the newest window whose labels have come. The candidate scores
// the very rows that were served, so both are judged on the same flights; it must not have learned from the window.
func (s *Service) beatsGate(ctx context.Context, c delivery.Change, g delivery.Gate) (delivery.Evidence, error) {
	if c.FromVersion == 0 {
		return delivery.Evidence{Verdict: delivery.Passed, Unit: g.Metric, Ref: modelRef(c.Model), Note: says("beats.no_champion", "nothing serves in {environment} yet: there is nobody to beat", "environment", c.Environment)}, nil
	}
	w, ok, err := s.newestWindow(ctx, c.Project, c.Model)
	if err != nil {
		return delivery.Evidence{}, err
	}
	if !ok {
		return delivery.Evidence{Verdict: delivery.Failed, Unit: g.Metric, Ref: modelRef(c.Model), Note: says("beats.no_labels", "no window has enough labels yet to compare with {model}@{version}", "model", c.Model, "version", c.FromVersion)}, nil
	}
	t, err := s.Trained(ctx, c.Project, c.ToRelease)
	if err != nil {
		return delivery.Evidence{}, err
	}
	if t.Until.IsZero() || t.Until.After(w.From) {
		return delivery.Evidence{Verdict: delivery.Failed, Unit: g.Metric, Ref: modelRef(c.Model), Note: says("beats.saw_window", "it may have learned from the window {from} to {to} itself", "from", day(w.From), "to", day(w.To))}, nil
	}
	k, err := s.monitored(ctx, c.Project, c.Model)
	if err != nil {
		return delivery.Evidence{}, err
	}
	byID, err := s.scoreWindow(ctx, c, k, w)
	if err != nil {
		return delivery.Evidence{}, err
	}
	cmp, err := s.Monitoring.CompareOnWindow(ctx, k, w, g.Metric, monitoring.Scores{Release: c.FromRelease}, monitoring.Scores{Release: c.ToRelease, ByID: byID})
	if err != nil {
		return delivery.Evidence{}, err
	}
	return beatsEvidence(c, g, cmp), nil
}

// beatsEvidence passes when the lower 95 % bound of the lead is above zero.
func beatsEvidence(c delivery.Change, g delivery.Gate, cmp *monitoring.Comparison) delivery.Evidence {
	ev := delivery.Evidence{Unit: g.Metric, Direction: "min", Ref: modelRef(c.Model), Verdict: delivery.Failed}
	gap := cmp.Gap
	if !gap.Lower.Defined() || !gap.Diff.Defined() {
		ev.Note = says("beats.undecided", "the two cannot be compared on {from} to {to}: {why}", "from", day(cmp.From), "to", day(cmp.To), "why", gap.Diff.Undefined+gap.Lower.Undefined)
		return ev
	}
	zero := 0.0
	ev.Threshold, ev.Observed, ev.Low, ev.High, ev.Champion = &zero, &gap.Diff.Value, &gap.Lower.Value, &gap.Upper.Value, &gap.A.Value
	code, text := "change.beats_champion", "better than {model}@{champion_version} by {gap} {metric} [{low}, {high}] on {labels} labelled rows of {from} to {to}"
	if gap.Lower.Value > 0 {
		ev.Verdict = delivery.Passed
	} else {
		code, text = "change.loses_to_champion", "not better than {model}@{champion_version}: {gap} {metric} [{low}, {high}] on {labels} labelled rows of {from} to {to}"
	}
	ev.Note = says(code, text, "model", c.Model, "champion_version", c.FromVersion, "gap", gap.Diff.Value, "metric", g.Metric, "low", gap.Lower.Value, "high", gap.Upper.Value,
		"labels", gap.Rows, "from", day(cmp.From), "to", day(cmp.To), "value", gap.B.Value, "champion", gap.A.Value)
	return ev
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02") }

// scoreWindow lets the candidate score the features that were logged for the window's labelled rows.
func (s *Service) scoreWindow(ctx context.Context, c delivery.Change, k monitoring.Key, w monitoring.Window) (map[string]float64, error) {
	rows, err := s.Monitoring.LabelledRows(ctx, k, w)
	if err != nil {
		return nil, err
	}
	e, closeIt, err := s.Serving.Ephemeral(ctx, c.Project, c.ToRelease)
	if err != nil {
		return nil, err
	}
	defer closeIt()
	out := make(map[string]float64, len(rows))
	const batch = 512
	for len(rows) > 0 {
		n := min(batch, len(rows))
		var matrix []float64
		for _, r := range rows[:n] {
			matrix = append(matrix, r.Features...)
		}
		res, err := s.Serving.Predict(ctx, serving.Request{Key: e.Key, Matrix: matrix, Rows: n})
		if err != nil {
			return nil, err
		}
		for i, r := range rows[:n] {
			out[r.ID] = res.Results[i].Output[0]
		}
		rows = rows[n:]
	}
	return out, nil
}

// Canary judges a canary while it takes part of the traffic: each weight wants enough answers of its own, hardly any of
// them failed, none blind, and not much slower than the champion's. Counts begin anew with the process, which only waits longer.
func (s *Service) Canary(ctx context.Context, c delivery.Change) (delivery.Evidence, error) {
	pointers, err := s.Delivery().Pointers(ctx, c.Project, c.Model)
	if err != nil {
		return delivery.Evidence{}, err
	}
	step := 0
	for _, p := range pointers {
		if p.Environment == c.Environment && p.Role == delivery.Canary {
			step = slices.Index(c.Rollout, int(p.Weight))
		}
	}
	var canary, champion monitoring.ReleaseStats
	for _, r := range s.Monitoring.Snapshot() {
		if r.Project != c.Project || r.Model != c.Model || r.Environment != c.Environment || r.Shadow {
			continue
		}
		switch {
		case r.Release == c.ToRelease && r.Variant == string(serving.Canary):
			canary = r
		case r.Release == c.FromRelease && r.Variant == string(serving.Champion):
			champion = r
		}
	}
	return judge(canary, champion, s.Serving.Failures(serving.Key{Project: c.Project, Model: c.Model, Environment: c.Environment}, c.ToRelease), step), nil
}

// What a canary must show at each weight.
const (
	canaryAnswers  = 200  // of its own
	canaryFailures = 0.01 // share of failed rows
	canarySlower   = 3.0  // times the champion's p99 ...
	canarySlack    = 5.0  // ... and by more than so many ms
)

func judge(canary, champion monitoring.ReleaseStats, failures int64, step int) delivery.Evidence {
	n, want := float64(canary.Count), canaryAnswers*float64(step+1)
	ev := delivery.Evidence{Observed: &n, Threshold: &want, Direction: "min", Unit: "predictions", Verdict: delivery.Failed}
	failed := float64(failures)
	own, other := milliseconds(canary, 0.99), milliseconds(champion, 0.99)
	switch {
	case failed > canaryFailures*(n+failed) && failed >= 3:
		ev.Note = says("canary.fails", "{failed} of {all} rows failed", "failed", failures, "all", int64(n+failed))
	case n < want:
		ev.Verdict, ev.Note = delivery.Waiting, says("canary.waiting", "{n} of {enough} predictions seen", "n", canary.Count, "enough", want)
	case canary.NullRows == canary.Count:
		ev.Note = says("canary.blind", "every row it was given lacked features")
	case champion.Count > 0 && own > canarySlower*other && own > other+canarySlack:
		ev.Note = says("canary.slow", "99 of 100 within {ms} ms, the champion within {champion} ms", "ms", own, "champion", other)
	default:
		ev.Verdict, ev.Note = delivery.Passed, says("canary.passed", "{n} predictions answered, 99 of 100 within {ms} ms", "n", canary.Count, "ms", own)
	}
	return ev
}

func milliseconds(r monitoring.ReleaseStats, q float64) float64 {
	return float64(r.Latency.Quantile(q).Microseconds()) / 1000
}

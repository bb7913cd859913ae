package tracking_test

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"falaj/internal/blob"
	"falaj/internal/blob/dir"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
	"falaj/internal/store/storetest"
	"falaj/internal/tracking"
)

// build makes tracking on a real database and a real folder of bytes.
func build(t testing.TB, db *store.Store) *tracking.Service {
	t.Helper()
	keys, err := seal.Open(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := dir.Open(filepath.Join(t.TempDir(), "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return tracking.New(db, blob.New(db, keys, d))
}

func each(t *testing.T, fn func(t *testing.T, ctx context.Context, s *tracking.Service)) {
	t.Helper()
	t.Parallel()
	storetest.Each(t, func(t *testing.T, db *store.Store) { fn(t, storetest.As("amal"), build(t, db)) })
}

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func refused(t *testing.T, err error, kind fault.Kind, text string) {
	t.Helper()
	if fault.KindOf(err) != kind || !strings.Contains(fault.From(err).Public, text) {
		t.Errorf("got %v (%s), want %s: %s", err, fault.KindOf(err), kind, text)
	}
}

func run(t testing.TB, ctx context.Context, s *tracking.Service, experiment int64, name string, startMs int64) tracking.Run {
	t.Helper()
	return mustOne[tracking.Run](t)(s.CreateRun(ctx, "flights", tracking.NewRun{Experiment: experiment, Name: name, StartMs: startMs}))
}

func TestExperiments(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, s *tracking.Service) {
		e := mustOne[tracking.Experiment](t)(s.CreateExperiment(ctx, "flights", tracking.NewExperiment{Name: "delay", Tags: []tracking.Pair{{Key: "team", Value: "ops"}}}))
		if e.ID < 1 || e.ArtifactLocation != fmt.Sprintf("mlflow-artifacts:/%d", e.ID) {
			t.Errorf("made %+v", e)
		}
		_, err := s.CreateExperiment(ctx, "flights", tracking.NewExperiment{Name: "delay"})
		refused(t, err, fault.Exists, "Experiment(name=delay) already exists.")
		if _, err := s.CreateExperiment(ctx, "other", tracking.NewExperiment{Name: "delay"}); err != nil {
			t.Errorf("the same name in another project: %v", err)
		}
		_, err = s.Experiment(ctx, "other", e.ID)
		refused(t, err, fault.NotFound, fmt.Sprintf("No Experiment with id=%d exists", e.ID))
		got, err := s.Experiment(ctx, "flights", e.ID)
		if d := cmp.Diff(e, got); err != nil || d != "" {
			t.Error(err, d)
		}
		for _, bad := range []string{"file:///tmp", "/tmp/x", "runs:/x", "mlflow-artifacts:/a/../b", "s3://b/../c", "http://x/y"} {
			_, err := s.CreateExperiment(ctx, "flights", tracking.NewExperiment{Name: "x" + bad, ArtifactLocation: bad})
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%s was accepted: %v", bad, err)
			}
		}

		if err := s.SetExperimentTag(ctx, "flights", e.ID, tracking.Pair{Key: "team", Value: "risk"}); err != nil {
			t.Fatal(err)
		}
		if err := s.RenameExperiment(ctx, "flights", e.ID, "late"); err != nil {
			t.Fatal(err)
		}
		page, err := s.SearchExperiments(ctx, "flights", tracking.Search{Filter: "tags.team = 'risk' AND name LIKE 'la%'", View: tracking.ActiveOnly})
		if err != nil || len(page.Items) != 1 || page.Items[0].Name != "late" {
			t.Errorf("search: %v %+v", err, page)
		}
		page, err = s.SearchExperiments(ctx, "flights", tracking.Search{Filter: "name LIKE 'LA%'", View: tracking.ActiveOnly})
		if err != nil || len(page.Items) != 0 {
			t.Errorf("LIKE must respect case: %v %+v", err, page)
		}
		page, err = s.SearchExperiments(ctx, "flights", tracking.Search{Filter: "name ILIKE 'LA%' AND creation_time > 1.5 AND experiment_id IN ('" + fmt.Sprint(e.ID) + "')", View: tracking.ActiveOnly})
		if err != nil || len(page.Items) != 1 {
			t.Errorf("ILIKE must not: %v %+v", err, page)
		}

		r := run(t, ctx, s, e.ID, "r", 1)
		if err := s.DeleteExperiment(ctx, "flights", e.ID); err != nil {
			t.Fatal(err)
		}
		refused(t, s.DeleteExperiment(ctx, "flights", e.ID), fault.NotFound, "No Experiment with id=")
		refused(t, s.RenameExperiment(ctx, "flights", e.ID, "x"), fault.Conflict, "Cannot rename a non-active experiment.")
		if got := mustOne[tracking.Run](t)(s.Run(ctx, "flights", r.ID)); got.Stage != tracking.Deleted {
			t.Errorf("the run of a deleted experiment is %s", got.Stage)
		}
		_, err = s.CreateRun(ctx, "flights", tracking.NewRun{Experiment: e.ID})
		refused(t, err, fault.Invalid, "must be in the 'active' state. Current state is deleted.")
		if err := s.RestoreExperiment(ctx, "flights", e.ID); err != nil {
			t.Fatal(err)
		}
		if got := mustOne[tracking.Run](t)(s.Run(ctx, "flights", r.ID)); got.Stage != tracking.Active {
			t.Errorf("the run of a restored experiment is %s", got.Stage)
		}
	})
}

// mustOne is must for call results: mustOne(t)(f()).
func mustOne[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T { t.Helper(); return must(t, v, err) }
}

func TestDefaultExperimentOfEachProject(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, s *tracking.Service) {
		e, err := s.Experiment(ctx, "default", 0)
		if err != nil || e.Name != tracking.DefaultExperiment {
			t.Fatalf("experiment 0: %+v %v", e, err)
		}
		_, err = s.Experiment(ctx, "flights", 0)
		refused(t, err, fault.NotFound, "No Experiment with id=0 exists")
		r := run(t, ctx, s, 0, "", 5)
		if r.Experiment == 0 || r.Name == "" {
			t.Errorf("run without experiment: %+v", r.RunInfo)
		}
		if again := run(t, ctx, s, 0, "", 6); again.Experiment != r.Experiment {
			t.Errorf("two defaults: %d and %d", r.Experiment, again.Experiment)
		}
		page, err := s.SearchRuns(ctx, "flights", tracking.Search{Experiments: []int64{0}, View: tracking.ActiveOnly})
		if err != nil || len(page.Items) != 2 {
			t.Errorf("search in 0: %v, %d runs", err, len(page.Items))
		}
		if page, err := s.SearchRuns(ctx, "default", tracking.Search{Experiments: []int64{0, r.Experiment}, View: tracking.All}); err != nil || len(page.Items) != 0 {
			t.Errorf("another project sees %d runs (%v)", len(page.Items), err)
		}
	})
}

func TestRunLife(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, s *tracking.Service) {
		r := mustOne[tracking.Run](t)(s.CreateRun(ctx, "flights", tracking.NewRun{Name: "first", User: "amal", StartMs: 1700000000123,
			Tags: []tracking.Pair{{Key: "a", Value: "1"}, {Key: tracking.TagParentRun, Value: strings.Repeat("0", 32)}}}))
		if len(r.ID) != 32 || r.Parent != strings.Repeat("0", 32) || r.Status != tracking.Running || !strings.HasSuffix(r.ArtifactURI, "/"+r.ID+"/artifacts") {
			t.Errorf("made %+v", r)
		}
		status, end, name := tracking.Finished, int64(1700000001000), "second"
		if _, err := s.UpdateRun(ctx, "flights", r.ID, tracking.RunUpdate{Status: &status, EndMs: &end, Name: &name}); err != nil {
			t.Fatal(err)
		}
		got := mustOne[tracking.Run](t)(s.Run(ctx, "flights", r.ID))
		want := r
		want.Status, want.EndMs, want.Name = status, &end, name
		want.Tags = []tracking.Pair{{Key: "a", Value: "1"}, {Key: tracking.TagParentRun, Value: strings.Repeat("0", 32)}, {Key: tracking.TagRunName, Value: name}}
		if d := cmp.Diff(want, got, cmpopts.IgnoreUnexported(tracking.RunInfo{})); d != "" {
			t.Error(d)
		}
		_, err := s.CreateRun(ctx, "flights", tracking.NewRun{ID: r.ID})
		refused(t, err, fault.Exists, "already exists")
		_, err = s.CreateRun(ctx, "flights", tracking.NewRun{Name: "x", Tags: []tracking.Pair{{Key: tracking.TagRunName, Value: "y"}}})
		refused(t, err, fault.Invalid, "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values (run_name='x', mlflow.runName='y').")
		bad := "DONE"
		_, err = s.UpdateRun(ctx, "flights", r.ID, tracking.RunUpdate{Status: &bad})
		refused(t, err, fault.Invalid, "Invalid value \"DONE\" for parameter 'status' supplied.")

		if err := s.DeleteRun(ctx, "flights", r.ID); err != nil {
			t.Fatal(err)
		}
		refused(t, s.LogMetric(ctx, "flights", r.ID, tracking.Metric{Key: "a"}), fault.Invalid, "The run "+r.ID+" must be in the 'active' state. Current state is deleted.")
		if err := s.RestoreRun(ctx, "flights", r.ID); err != nil {
			t.Fatal(err)
		}
		_, err = s.Run(ctx, "other", r.ID)
		refused(t, err, fault.NotFound, "Run with id="+r.ID+" not found")
		refused(t, s.DeleteRun(storetest.As("vera"), "flights", r.ID), fault.Denied, "vera may not run.delete")
	})
}

func TestMetricsKeepEveryValue(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, s *tracking.Service) {
		r := run(t, ctx, s, 0, "m", 1)
		nan, inf := math.NaN(), math.Inf(1)
		points := []tracking.Metric{
			{Key: "loss", Value: 0.5, TimestampMs: 10, Step: 1}, {Key: "loss", Value: nan, TimestampMs: 11, Step: 2}, {Key: "loss", Value: inf, TimestampMs: 12, Step: 3},
			{Key: "loss", Value: -inf, TimestampMs: 13, Step: 4}, {Key: "loss", Value: 0.1, TimestampMs: 9, Step: 0}, {Key: "loss", Value: 0.5, TimestampMs: 10, Step: 1},
			{Key: "nan", Value: nan, TimestampMs: 1, Step: 0}, {Key: "big", Value: 1e300, TimestampMs: math.MaxInt64, Step: -5},
		}
		for range 2 { // a retried batch changes nothing
			if err := s.LogBatch(ctx, "flights", r.ID, tracking.Batch{Metrics: points}); err != nil {
				t.Fatal(err)
			}
		}
		got := mustOne[tracking.Run](t)(s.Run(ctx, "flights", r.ID))
		want := []tracking.Metric{{Key: "big", Value: 1e300, TimestampMs: math.MaxInt64, Step: -5, Run: r.ID}, {Key: "loss", Value: -inf, TimestampMs: 13, Step: 4, Run: r.ID}, {Key: "nan", Value: nan, TimestampMs: 1, Run: r.ID}}
		if d := cmp.Diff(want, got.Metrics, cmpopts.EquateNaNs()); d != "" {
			t.Error(d)
		}
		h := mustOne[tracking.Page[tracking.Metric]](t)(s.MetricHistory(ctx, "flights", r.ID, "loss", 0, ""))
		var values []float64
		for _, m := range h.Items {
			values = append(values, m.Value)
		}
		if d := cmp.Diff([]float64{0.1, 0.5, nan, inf, -inf}, values, cmpopts.EquateNaNs()); d != "" {
			t.Error(d)
		}
		// Pages of two.
		var paged []float64
		for token := ""; ; {
			p := mustOne[tracking.Page[tracking.Metric]](t)(s.MetricHistory(ctx, "flights", r.ID, "loss", 2, token))
			for _, m := range p.Items {
				paged = append(paged, m.Value)
			}
			if token = p.Next; token == "" {
				break
			}
		}
		if d := cmp.Diff(values, paged, cmpopts.EquateNaNs()); d != "" {
			t.Error(d)
		}
		if empty := mustOne[tracking.Page[tracking.Metric]](t)(s.MetricHistory(ctx, "flights", r.ID, "never", 0, "")); len(empty.Items) != 0 {
			t.Error("history of a metric that nobody logged")
		}
	})
}

func TestSingleMetricsFoldAndStayWhole(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, s *tracking.Service) {
		r := run(t, ctx, s, 0, "m", 1)
		const n = 600 // crosses two folds
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := w; i < n; i += 4 {
					if err := s.LogMetric(ctx, "flights", r.ID, tracking.Metric{Key: "loss", Value: float64(i) / 7, TimestampMs: int64(1000 + i), Step: int64(i)}); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		h := mustOne[tracking.Page[tracking.Metric]](t)(s.MetricHistory(ctx, "flights", r.ID, "loss", 0, ""))
		if len(h.Items) != n {
			t.Fatalf("%d of %d points", len(h.Items), n)
		}
		for i, m := range h.Items {
			if m.Step != int64(i) || m.Value != float64(i)/7 || m.TimestampMs != int64(1000+i) {
				t.Fatalf("point %d is %+v", i, m)
			}
		}
		got := mustOne[[]tracking.Metric](t)(s.MetricSample(ctx, "flights", []string{r.ID}, "loss", 10, nil))
		if len(got) != 10 || got[0].Step != 0 || got[9].Step != n-1 {
			t.Errorf("sample: %+v", got)
		}
		got = mustOne[[]tracking.Metric](t)(s.MetricSample(ctx, "flights", []string{r.ID}, "loss", 100, &[2]int64{5, 7}))
		if len(got) != 3 || got[0].Step != 5 || got[2].Step != 7 {
			t.Errorf("interval: %+v", got)
		}
		if latest := mustOne[tracking.Run](t)(s.Run(ctx, "flights", r.ID)).Metrics; len(latest) != 1 || latest[0].Step != n-1 {
			t.Errorf("latest: %+v", latest)
		}
	})
}

func TestParamsAndTags(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, s *tracking.Service) {
		r := run(t, ctx, s, 0, "p", 1)
		if err := s.LogBatch(ctx, "flights", r.ID, tracking.Batch{
			Params: []tracking.Pair{{Key: "lr", Value: "0.1"}, {Key: "läng e/x:y", Value: ""}},
			Tags:   []tracking.Pair{{Key: "t", Value: "1"}, {Key: "t", Value: "2"}, {Key: tracking.TagRunName, Value: "renamed"}},
		}); err != nil {
			t.Fatal(err)
		}
		if err := s.LogParam(ctx, "flights", r.ID, tracking.Pair{Key: "lr", Value: "0.1"}); err != nil {
			t.Errorf("the same value again: %v", err)
		}
		refused(t, s.LogParam(ctx, "flights", r.ID, tracking.Pair{Key: "lr", Value: "0.2"}), fault.Invalid,
			"Changing param values is not allowed. Param with key='lr' was already logged with value='0.1' for run ID='"+r.ID+"'. Attempted logging new value '0.2'.")
		// A batch is all or nothing.
		refused(t, s.LogBatch(ctx, "flights", r.ID, tracking.Batch{Params: []tracking.Pair{{Key: "new", Value: "1"}, {Key: "lr", Value: "9"}}, Metrics: []tracking.Metric{{Key: "m"}}}), fault.Invalid,
			"Changing param values is not allowed. Params were already logged='[{'key': 'lr', 'old_value': '0.1', 'new_value': '9'}]' for run ID='"+r.ID+"'.")
		refused(t, s.LogBatch(ctx, "flights", r.ID, tracking.Batch{Params: []tracking.Pair{{Key: "a", Value: "1"}, {Key: "a", Value: "1"}}}), fault.Invalid,
			"Duplicate parameter keys have been submitted: ['a']. Please ensure the request contains only one param value per param key.")
		if err := s.DeleteTag(ctx, "flights", r.ID, "t"); err != nil {
			t.Fatal(err)
		}
		refused(t, s.DeleteTag(ctx, "flights", r.ID, "t"), fault.NotFound, "No tag with name: t in run with id "+r.ID)
		got := mustOne[tracking.Run](t)(s.Run(ctx, "flights", r.ID))
		if d := cmp.Diff([]tracking.Pair{{Key: "lr", Value: "0.1"}, {Key: "läng e/x:y", Value: ""}}, got.Params); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff([]tracking.Pair{{Key: tracking.TagRunName, Value: "renamed"}}, got.Tags); d != "" || got.Name != "renamed" || len(got.Metrics) != 0 {
			t.Error(d, got.Name, got.Metrics)
		}
		for _, c := range []struct{ key, text string }{
			{"a\x7f", `Invalid value "a` + "\x7f" + `" for parameter 'key' supplied: Names may only contain`},
			{"../x", `Invalid value "../x" for parameter 'key' supplied: Names may be treated as files in certain cases, and must not resolve to other names when treated as such. This name would resolve to '../x'`},
			{"a//b", `This name would resolve to 'a/b'`}, {"/a", "would resolve to '/a'"}, {".", "would resolve to '.'"},
			{strings.Repeat("k", 251), "'Param key' exceeds the maximum length of 250 characters"},
		} {
			refused(t, s.LogParam(ctx, "flights", r.ID, tracking.Pair{Key: c.key, Value: "1"}), fault.Invalid, c.text)
		}
		long := strings.Repeat("ü", 7000)
		if err := s.LogParam(ctx, "flights", r.ID, tracking.Pair{Key: "long", Value: long}); err != nil {
			t.Fatal(err)
		}
		got = mustOne[tracking.Run](t)(s.Run(ctx, "flights", r.ID))
		if v := got.Params[0]; v.Key != "long" || v.Value != long[:12000] {
			t.Errorf("a long value is cut to %d characters", len([]rune(v.Value)))
		}
		refused(t, s.LogBatch(ctx, "flights", r.ID, tracking.Batch{Metrics: make([]tracking.Metric, 1001)}), fault.Invalid, "")
		many := make([]tracking.Metric, 1001)
		for i := range many {
			many[i].Key = "m"
		}
		refused(t, s.LogBatch(ctx, "flights", r.ID, tracking.Batch{Metrics: many}), fault.Invalid, "A batch logging request can contain at most 1000 metrics. Got 1001 metrics. Please split up metrics across multiple requests and try again.")
	})
}

// Two writers with different values for one parameter: exactly one wins, nobody is told otherwise.
func TestParamRace(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, s *tracking.Service) {
		r := run(t, ctx, s, 0, "p", 1)
		errs := make([]error, 16)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				errs[i] = s.LogParam(ctx, "flights", r.ID, tracking.Pair{Key: "k", Value: fmt.Sprint(i)})
			})
		}
		wg.Wait()
		won := ""
		for i, err := range errs {
			switch {
			case err == nil && won == "":
				won = fmt.Sprint(i)
			case err == nil:
				t.Errorf("both %s and %d won", won, i)
			default:
				refused(t, err, fault.Invalid, "Changing param values is not allowed.")
			}
		}
		if got := mustOne[tracking.Run](t)(s.Run(ctx, "flights", r.ID)).Params; len(got) != 1 || got[0].Value != won {
			t.Errorf("%+v, but %s won", got, won)
		}
	})
}

// A token that is bound to a run writes to that run and its children, to no other.
func TestRunTokenIsHeldToItsRun(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, s *tracking.Service) {
		own, other := run(t, ctx, s, 0, "own", 1), run(t, ctx, s, 0, "other", 1)
		child := mustOne[tracking.Run](t)(s.CreateRun(ctx, "flights", tracking.NewRun{Experiment: own.Experiment, Tags: []tracking.Pair{{Key: tracking.TagParentRun, Value: own.ID}}}))
		as := who.With(context.Background(), who.Actor{Kind: who.Run, Name: own.ID, Via: "run-token", Scope: who.Scope{Project: "flights", Run: own.ID}})
		m := tracking.Metric{Key: "a", Value: 1}
		for _, id := range []string{own.ID, child.ID} {
			if err := s.LogMetric(as, "flights", id, m); err != nil {
				t.Error(err)
			}
		}
		refused(t, s.LogMetric(as, "flights", other.ID, m), fault.Denied, "A training run's token writes to no other run.")
		put := func(r tracking.Run) error {
			_, err := s.PutArtifact(as, "flights", "1/"+r.ID+"/artifacts/a.txt", strings.NewReader("x"))
			return err
		}
		if err := put(own); err != nil {
			t.Error(err)
		}
		refused(t, put(other), fault.Denied, "A training run's token writes to no other run.")
		_, err := s.PutArtifact(as, "flights", "free/a.txt", strings.NewReader("x"))
		refused(t, err, fault.Denied, "A training run's token writes to no other run.")
		name := "x"
		_, err = s.UpdateRun(as, "flights", other.ID, tracking.RunUpdate{Name: &name})
		refused(t, err, fault.Denied, "A training run's token writes to no other run.")
	})
}

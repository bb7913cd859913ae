package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"falaj/internal/access"
	"falaj/internal/api"
	"falaj/internal/audit"
	"falaj/internal/blob"
	"falaj/internal/blob/dir"
	"falaj/internal/data"
	"falaj/internal/data/duckdb"
	"falaj/internal/data/duckdb/worker"
	"falaj/internal/data/iceberg"
	"falaj/internal/delivery"
	"falaj/internal/door"
	"falaj/internal/features"
	onlinesqlite "falaj/internal/features/sqlite"
	"falaj/internal/flow"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/note"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/seal"
	"falaj/internal/kernel/who"
	"falaj/internal/lineage"
	"falaj/internal/monitoring"
	"falaj/internal/plan/pipeline"
	"falaj/internal/registry"
	"falaj/internal/serving"
	"falaj/internal/serving/trees"
	"falaj/internal/store"
	"falaj/internal/store/storetest"
	"falaj/internal/tracking"
)

func TestMain(m *testing.M) {
	if slices.Equal(os.Args[1:], []string{"worker", "duckdb"}) {
		os.Exit(worker.Main())
	}
	os.Exit(m.Run())
}

// world is the server without processes: every stage is real, on SQLite, behind the real door.
type world struct {
	t        testing.TB
	db       *store.Store
	access   *access.Service
	blobs    *blob.Store
	data     *data.Service
	tracking *tracking.Service
	registry *registry.Service
	delivery *delivery.Service
	monitor  *monitoring.Service
	lineage  *lineage.Service
	serving  *serving.Service
	server   *httptest.Server
	contract *contract
	refuse   int64 // version whose tests do not pass
}

// actors are who a bearer token speaks for: the credentials of the door, which belong to another package's tests.
type actors struct{}

func (actors) Token(_ context.Context, secret string) (who.Actor, error) {
	return who.From(storetest.As(strings.TrimPrefix(secret, "flj_"))), nil
}

func (actors) Session(context.Context, string) (who.Actor, error) {
	return who.Actor{}, fault.New(fault.Unauthenticated, "There is no session here.", "")
}

// Open implements serving.ModelSource for LightGBM models whose file is model.txt.
func (w *world) Open(ctx context.Context, project, digest string) (serving.Release, error) {
	rel, err := w.registry.Release(ctx, project, digest)
	if err != nil {
		return serving.Release{}, err
	}
	out := serving.Release{Digest: digest, Version: strconv.FormatInt(rel.Version, 10), Flavor: "lightgbm", Model: "model.txt"}
	for _, f := range rel.Manifest.Files {
		out.Files = append(out.Files, serving.File{Path: f.Path, SHA256: strings.TrimPrefix(f.Digest, "sha256:"), Size: f.Size})
	}
	out.Open = func(ctx context.Context, path string) (io.ReadCloser, error) {
		return w.registry.OpenFile(ctx, project, digest, path)
	}
	return out, nil
}

// Candidate implements delivery.Catalog.
func (w *world) Candidate(ctx context.Context, project, model string, version int64) (delivery.Candidate, error) {
	v, err := w.registry.Version(ctx, project, model, version)
	return delivery.Candidate{Version: v.Number, Release: v.Release, Run: v.Run, Author: v.Author}, err
}

// Evaluate implements delivery.Evaluator: all gates pass but the tests of one version.
func (w *world) Evaluate(_ context.Context, c delivery.Change, g delivery.Gate) (delivery.Evidence, error) {
	ev := delivery.Evidence{Verdict: delivery.Passed}
	if g.Kind == delivery.GateTests {
		failed := 0
		if c.ToVersion == w.refuse {
			ev.Verdict, failed = delivery.Failed, 1
		}
		n := note.New("tests.summary", "{passed} passed, {failed} failed", "passed", 3, "failed", failed)
		ev.Note, ev.Tests = &n, []delivery.TestResult{{Suite: "unit", Name: "adds", Verdict: delivery.Passed, DurationMS: 1}}
	}
	return ev, nil
}

func (w *world) Canary(context.Context, delivery.Change) (delivery.Evidence, error) {
	return delivery.Evidence{Verdict: delivery.Passed}, nil
}

func (w *world) EventTime(context.Context, string) time.Time { return april(0) }

func april(d time.Duration) time.Time { return time.Date(2013, 4, 1, 0, 0, 0, 0, time.UTC).Add(d) }

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatalf("%v\n%s", err, fault.From(err).Public)
		}
		return v
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newWorld(t testing.TB) *world {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	tmp := func(name string) string { return filepath.Join(t.TempDir(), name) }
	w := &world{t: t, db: storetest.SQLite(t), contract: readContract(t), refuse: 3}
	keys := must[*seal.Keys](t)(seal.Open(tmp("keys")))
	folder := must[*dir.Dir](t)(dir.Open(tmp("blobs")))
	t.Cleanup(func() { folder.Close() })
	w.blobs = blob.New(w.db, keys, folder)
	engine := must[*policy.Engine](t)(policy.New())
	w.access = access.New(w.db, access.NewAuthorizer(engine, "ae", false), keys.MAC)
	duck := must[*duckdb.Engine](t)(duckdb.New(duckdb.Config{Scratch: tmp("scratch")}))
	t.Cleanup(func() { duck.Close() })
	cat := must[*iceberg.Catalog](t)(iceberg.OpenSQLite(t.Context(), tmp("catalog.db"), data.NewWarehouse(w.db, w.blobs)))
	t.Cleanup(func() { cat.Close() })
	w.data = data.New(w.db, w.blobs, duck, cat, keys.MAC, data.Limits{})
	online := must[*onlinesqlite.Store](t)(onlinesqlite.Open(t.Context(), tmp("online.db")))
	t.Cleanup(func() { online.Close() })
	feats := features.New(w.db, w.blobs, nil, duck, online)
	w.lineage = lineage.New(w.db)
	w.tracking = tracking.New(w.db, w.blobs)
	w.registry = registry.New(w.db, w.tracking, w.blobs, func(context.Context, string) ([]string, error) { return delivery.DefaultEnvironments(), nil })
	w.monitor = must[*monitoring.Service](t)(monitoring.New(context.Background(), monitoring.Config{Store: w.db, Blobs: w.blobs, Slog: log, Log: monitoring.LogConfig{Dir: tmp("predictions")}}))
	w.serving = serving.New(serving.Config{Store: w.db, Models: w, Sink: w.monitor, Log: log, Loaders: map[string][]serving.Loader{"lightgbm": {trees.Loader{}}}})
	fl := must[*flow.Engine](t)(flow.Open(context.Background(), flow.Config{Path: tmp("flow.db"), Executor: "test", SchemaVersion: "1", Log: log}))
	pipes := pipeline.New(pipeline.Config{Store: w.db, Flow: fl, Blobs: w.blobs, Access: w.access, Data: w.data, Features: feats, Tracking: w.tracking, Registry: w.registry,
		Delivery: func() *delivery.Service { return w.delivery }, Serving: w.serving, Monitoring: w.monitor, Lineage: w.lineage, Log: log})
	w.delivery = delivery.New(w.db, fl, w, w)
	ok(t, fl.Launch(context.Background()))
	relay := flow.NewRelay(w.db, flow.RelayConfig{Log: log})
	relay.Subscribe("delivery", []string{"change.*", "serving.*"}, w.delivery.OnEvent)
	relay.Subscribe("serving", serving.Moved(), w.serving.Follow)
	ok(t, relay.Start(context.Background()))
	t.Cleanup(func() { relay.Close(); fl.Close(); w.serving.Close(); w.monitor.Close() })
	d := door.New(w.db, actors{}, door.Config{Known: engine.Known, Log: log})
	ok(t, d.Handle(api.New(api.Deps{Store: w.db, Access: w.access, Audit: audit.New(w.db, nil), Blobs: w.blobs, Delivery: w.delivery, Pipelines: pipes, Monitoring: w.monitor, Data: w.data, Features: feats,
		Tracking: w.tracking, Registry: w.registry, Serving: w.serving, Lineage: w.lineage, Relay: relay, Log: log, Version: "test"}).Routes()...))
	w.server = httptest.NewServer(d)
	t.Cleanup(w.server.Close)
	must[access.Project](t)(w.access.CreateProject(storetest.As("root"), "flights", "", []string{"ae"}))
	return w
}

// call asks as an actor and gives status and decoded body.
func (w *world) call(actor, method, path string, body any) (int, any) {
	w.t.Helper()
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		ok(w.t, err)
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, w.server.URL+api.Base+path, r)
	ok(w.t, err)
	req.Header.Set("Authorization", "Bearer flj_"+actor)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	ok(w.t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	ok(w.t, err)
	var v any
	if len(text) > 0 {
		if err := json.Unmarshal(text, &v); err != nil {
			w.t.Fatalf("%s %s: %d, not JSON: %s", method, path, res.StatusCode, text)
		}
	}
	return res.StatusCode, v
}

// get reads a page as a viewer, holds it to a type of types.ts, and decodes it into v.
func (w *world) get(path, typ string, v any) {
	w.t.Helper()
	status, body := w.call("vera", "GET", "/projects/flights"+path, nil)
	if status != http.StatusOK {
		w.t.Fatalf("GET %s: %d %v", path, status, body)
	}
	for _, bad := range w.contract.check(body, typ) {
		w.t.Errorf("GET %s: %s", path, bad)
	}
	if v == nil {
		return
	}
	b, err := json.Marshal(body)
	ok(w.t, err)
	ok(w.t, json.Unmarshal(b, v))
}

// refused asks as an actor for something that must not be given.
func (w *world) refused(actor, method, path string, body any, status int, field, words string) {
	w.t.Helper()
	got, v := w.call(actor, method, "/projects/flights"+path, body)
	if got != status {
		w.t.Errorf("%s %s as %s: %d %v, want %d", method, path, actor, got, v, status)
		return
	}
	for _, bad := range w.contract.check(v, "Problem") {
		w.t.Errorf("%s %s: %s", method, path, bad)
	}
	p, _ := v.(map[string]any)
	if p["field"] != field || !strings.Contains(fmt.Sprint(p["detail"]), words) {
		w.t.Errorf("%s %s: field %v, detail %v; want %q, %q", method, path, p["field"], p["detail"], field, words)
	}
}

const (
	header  = "origin,flight,tailnum,distance,sched_at\n"
	project = "flights"
)

// month is a CSV of flights; every bad-th row has a distance that the contract refuses.
func month(m, rows, bad int) string {
	var b strings.Builder
	b.WriteString(header)
	for i := range rows {
		distance := 100 + i%900
		if bad > 0 && i%bad == bad-1 {
			distance = -5
		}
		at := time.Date(2013, time.Month(m), 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(i) * 40 * time.Minute)
		fmt.Fprintf(&b, "%s,%d,N%03d,%d,%s\n", []string{"EWR", "JFK", "LGA"}[i%3], m*10000+i, i%50, distance, at.Format(time.RFC3339))
	}
	return b.String()
}

func (w *world) ingest(name, text string) *data.Report {
	w.t.Helper()
	ctx := storetest.As("amal")
	ref, err := w.blobs.Put(ctx, project, strings.NewReader(text))
	ok(w.t, err)
	must[data.SourceFile](w.t)(w.data.AddSource(ctx, project, "flights", name, ref.Digest))
	rep, err := w.data.Ingest(ctx, project, "flights", data.IngestRequest{})
	if err != nil && !fault.Is(err, fault.Refused) {
		w.t.Fatal(err)
	}
	return rep
}

// datasets makes flights@1, flights@2 with three rows set aside, a file that is refused, and departures@1 of flights@2.
func (w *world) datasets() {
	w.t.Helper()
	ctx := storetest.As("amal")
	least := 1.0
	must[data.Dataset](w.t)(w.data.Define(ctx, project, data.Spec{Name: "flights", Source: &data.Source{Format: data.CSV, Patterns: []string{"data/2013-*.csv"}}, Key: []string{"flight"}, Time: data.Time{Event: "sched_at"},
		Contract: data.Contract{Columns: map[string]data.Rule{
			"origin": {In: []string{"EWR", "JFK", "LGA"}}, "distance": {Type: "integer", Min: &least, NotNull: true}, "tailnum": {Class: "identifier", Mask: data.MaskPseudonym}, "sched_at": {Type: "timestamp"}}}}))
	w.ingest("2013-01.csv", month(1, 600, 0))
	w.ingest("2013-02.csv", month(2, 600, 200))
	w.ingest("2013-03.csv", month(3, 600, 3))
	must[data.Dataset](w.t)(w.data.Define(ctx, project, data.Spec{Name: "departures", SQL: "SELECT flight, sched_at, distance FROM flights WHERE distance > 200"}))
	must[*data.Report](w.t)(w.data.Derive(ctx, project, "departures", data.DeriveRequest{}))
	w.record([]lineage.Node{
		{ID: "source:flights/2013-01.csv", Kind: lineage.Source, Label: "2013-01.csv"}, {ID: "source:flights/2013-02.csv", Kind: lineage.Source, Label: "2013-02.csv"},
		{ID: "dataset_version:flights@1", Kind: lineage.Dataset, Label: "flights@1"}, {ID: "dataset_version:flights@2", Kind: lineage.Dataset, Label: "flights@2"},
		{ID: "dataset_version:departures@1", Kind: lineage.Dataset, Label: "departures@1"},
	}, []lineage.Edge{
		{From: "source:flights/2013-01.csv", To: "dataset_version:flights@1", Role: "read"}, {From: "source:flights/2013-01.csv", To: "dataset_version:flights@2", Role: "read"},
		{From: "source:flights/2013-02.csv", To: "dataset_version:flights@2", Role: "read"}, {From: "dataset_version:flights@2", To: "dataset_version:departures@1", Role: "derived"},
	})
}

func (w *world) record(nodes []lineage.Node, edges []lineage.Edge) {
	w.t.Helper()
	for i := range nodes {
		nodes[i].At = april(0)
	}
	ok(w.t, w.db.Change(storetest.As("system:plan"), "lineage.record", policy.Resource{Kind: "PipelineRun", ID: "pr_test", Project: project}, func(ctx context.Context, _ *store.Tx) (event.Draft, error) {
		return event.Draft{}, w.lineage.Record(ctx, project, nodes, edges)
	}))
}

// train logs a run with a LightGBM model, registers it and makes its release of flights@2, as a pipeline does.
func (w *world) train(model string) registry.Version {
	w.t.Helper()
	ctx, t := storetest.As("amal"), w.t
	exp, err := w.tracking.ExperimentByName(ctx, project, model)
	if fault.Is(err, fault.NotFound) {
		exp, err = w.tracking.CreateExperiment(ctx, project, tracking.NewExperiment{Name: model})
	}
	ok(t, err)
	run := must[tracking.Run](t)(w.tracking.CreateRun(ctx, project, tracking.NewRun{Experiment: exp.ID, StartMs: 1_370_000_000_000, User: "user:amal", Tags: []tracking.Pair{
		{Key: "falaj.pipeline_run", Value: "pr_test"}, {Key: "mlflow.source.git.commit", Value: "0123456789abcdef"}, {Key: "mlflow.source.git.dirty", Value: "true"}}}))
	batch := tracking.Batch{Params: []tracking.Pair{{Key: "trees", Value: "200"}}, Metrics: []tracking.Metric{{Key: "odd", Value: math.NaN(), TimestampMs: 1}}}
	for i := range 20 {
		batch.Metrics = append(batch.Metrics, tracking.Metric{Key: "auc", Value: 0.5 + float64(i)/100, TimestampMs: int64(i + 1), Step: int64(i)})
	}
	ok(t, w.tracking.LogBatch(ctx, project, run.ID, batch))
	ok(t, w.tracking.LogInputs(ctx, project, run.ID, []tracking.DatasetInput{{Dataset: tracking.Dataset{Name: "flights@2", Digest: "d1", SourceType: "local", Source: "{}"}, Tags: []tracking.Pair{{Key: tracking.TagContext, Value: "training"}}}}, nil))
	logged := must[tracking.LoggedModel](t)(w.tracking.CreateModel(ctx, project, tracking.NewLoggedModel{Name: "model", SourceRun: run.ID, Experiment: exp.ID}))
	at := must[string](t)(tracking.ProxyPath(logged.ArtifactURI))
	text := must[[]byte](t)(os.ReadFile("../serving/trees/testdata/binary.txt"))
	must[tracking.Artifact](t)(w.tracking.PutArtifact(ctx, project, at+"/model.txt", bytes.NewReader(text)))
	mine := must[string](t)(tracking.ProxyPath(run.ArtifactURI))
	must[tracking.Artifact](t)(w.tracking.PutArtifact(ctx, project, mine+"/plots/roc.txt", strings.NewReader("a curve")))
	ended, done := int64(1_370_000_009_000), tracking.Finished
	must[tracking.RunInfo](t)(w.tracking.UpdateRun(ctx, project, run.ID, tracking.RunUpdate{Status: &done, EndMs: &ended}))
	if _, err := w.registry.Model(ctx, project, model); fault.Is(err, fault.NotFound) {
		must[registry.Model](t)(w.registry.CreateModel(ctx, project, registry.NewModel{Name: model, Description: "will it be late", Tags: []tracking.Pair{{Key: "tier", Value: "2"}, {Key: "owners", Value: "ml-team, ops"}}}))
	}
	v := must[registry.Version](t)(w.registry.CreateVersion(ctx, project, registry.NewVersion{Model: model, Source: "models:/" + logged.ID, LoggedModel: logged.ID, Run: run.ID, HasRun: true}))
	digest := "sha256:" + strings.Repeat("ab", 32)
	must[registry.Release](t)(w.registry.CreateRelease(ctx, project, registry.ReleaseRequest{Model: model, Version: v.Number, Run: run.ID, Data: []registry.Ref{{Name: "flights", Version: "2", Digest: digest}},
		Features: []registry.Ref{{Name: "delay_v1", Digest: digest}}, Code: registry.Code{Digest: digest, Commit: "0123456789abcdef", Dirty: true}, Runtime: digest, Command: "python train.py"}))
	key := fmt.Sprintf("model_version:%s@%d", model, v.Number)
	set := "training_set:sha256:" + strconv.FormatInt(v.Number, 10) + model
	w.record([]lineage.Node{{ID: set, Kind: lineage.TrainingSet, Label: "1197 rows"}, {ID: "run:" + run.ID, Kind: lineage.Run, Label: "run " + run.ID[:8]}, {ID: key, Kind: lineage.Release, Label: key[len("model_version:"):]}},
		[]lineage.Edge{{From: "dataset_version:flights@2", To: set, Role: "joined"}, {From: set, To: "run:" + run.ID, Role: "trained"}, {From: "run:" + run.ID, To: key, Role: "packaged"}})
	return must[registry.Version](t)(w.registry.Version(ctx, project, model, v.Number))
}

// until waits for a change to reach a state; each step of it is an event.
func (w *world) until(id string, want delivery.State) {
	w.t.Helper()
	for deadline := time.After(60 * time.Second); ; {
		wake := w.db.Wake()
		d := must[delivery.Detail](w.t)(w.delivery.Change(context.Background(), project, id))
		if d.State == want {
			return
		}
		if d.State.Final() {
			w.t.Fatalf("change is %s (%v), want %s", d.State, d.Note, want)
		}
		select {
		case <-wake:
		case <-deadline:
			w.t.Fatalf("change is %s, want %s", d.State, want)
		}
	}
}

func (w *world) promote(model string, version int64) string {
	w.t.Helper()
	return must[delivery.Change](w.t)(w.delivery.Request(storetest.As("amal"), project, delivery.PromoteRequest{Model: model, Version: version, Environment: "production"})).ID
}

// serve brings version 1 into production by an approval, sets version 2 beside it as a shadow, and lets 3 be refused.
func (w *world) serve() (v [3]registry.Version) {
	w.t.Helper()
	for i := range v {
		v[i] = w.train("delay")
	}
	ok(w.t, w.delivery.Define(storetest.As("amal"), project, "delay", delivery.Policy{Gates: map[string][]delivery.Gate{"production": {{Kind: delivery.GateTests}, {Kind: delivery.GateApproval, Group: "ml-risk", NotAuthor: true}}}}))
	c := w.promote("delay", 1)
	w.until(c, delivery.PendingApproval)
	must[delivery.Detail](w.t)(w.delivery.Approve(storetest.As("badr"), project, c, "seen"))
	w.until(c, delivery.Closed)
	ok(w.t, w.delivery.SetChallenger(storetest.As("system:plan"), project, "delay", "production", 2, note.New("challenger.set", "in the shadow")))
	w.until(w.promote("delay", 3), delivery.Refused)
	return v
}

// fortnight logs two weeks of predictions in which the shadow sees far more than the champion, and gives the labels.
func (w *world) fortnight(champion, shadow string, shift float64) []map[string]any {
	w.t.Helper()
	k := monitoring.Key{Project: project, Model: "delay", Environment: "production"}
	must[monitoring.Monitor](w.t)(w.monitor.SetMonitor(storetest.As("system:plan"), k, monitoring.Monitor{}))
	rng := rand.New(rand.NewPCG(7, 7))
	columns := [][]float64{{}, {}}
	for range 3000 {
		columns[0], columns[1] = append(columns[0], rng.NormFloat64()), append(columns[1], rng.NormFloat64())
	}
	ok(w.t, w.monitor.SetReference(storetest.As("system:plan"), project, champion, monitoring.Reference{Importance: []float64{3, 1},
		Profile: monitoring.Profile{Rows: 3000, Features: []monitoring.FeatureProfile{monitoring.ProfileNumeric("temp", columns[0]), monitoring.ProfileNumeric("wind", columns[1])}}}))
	sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	var rows []serving.Prediction
	var labels []map[string]any
	const n = 1200
	for i := range n {
		at := april(14 * 24 * time.Hour * time.Duration(i) / n).Truncate(time.Microsecond)
		signal, y := rng.NormFloat64(), 0
		if rng.Float64() < sigmoid(3*signal) {
			y = 1
		}
		p := serving.Prediction{ID: fmt.Sprintf("prd_a%d", i), RequestID: fmt.Sprintf("req_%d", i), Project: project, Model: "delay", Environment: "production", Variant: "champion", Release: champion, Unit: fmt.Sprint("UA", i), At: at,
			FeaturesDigest: "d", Features: []float64{rng.NormFloat64() + shift, signal}, Output: []float64{sigmoid(0.3*signal + rng.NormFloat64())}, Latency: time.Duration(200+rng.IntN(300)) * time.Microsecond}
		s := p
		s.ID, s.Variant, s.Release, s.Shadow, s.Output = fmt.Sprintf("prd_b%d", i), "shadow", shadow, true, []float64{sigmoid(3*signal + rng.NormFloat64()/4)}
		rows = append(rows, p, s)
		if i%20 > 0 {
			labels = append(labels, map[string]any{"unit": p.Unit, "at": store.Micros(at), "value": y, "known_at": store.Micros(at.Add(3 * time.Hour))})
		}
	}
	for part := range slices.Chunk(rows, 100) {
		ok(w.t, w.monitor.Record(w.t.Context(), part))
	}
	return labels
}

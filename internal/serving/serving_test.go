package serving_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/serving"
	"falaj/internal/serving/trees"
	"falaj/internal/store"
	"falaj/internal/store/storetest"
)

// shelf is a registry of models on disk: LightGBM's own golden models of the trees package, under digests.
type shelf struct {
	mu       sync.Mutex
	releases map[string]serving.Release
	bytes    map[string][]byte // digest -> model text
	opened   map[string]int
}

func (s *shelf) add(t testing.TB, golden, service string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("trees", "testdata", golden+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.releases == nil {
		s.releases, s.bytes, s.opened = map[string]serving.Release{}, map[string][]byte{}, map[string]int{}
	}
	s.bytes[digest] = b
	s.releases[digest] = serving.Release{
		Digest: digest, Version: fmt.Sprint(len(s.releases) + 1), Flavor: "lightgbm", Model: "model/model.lgb", Service: service,
		Files: []serving.File{{Path: "model/model.lgb", SHA256: hex.EncodeToString(sum[:]), Size: int64(len(b))}},
		Open: func(context.Context, string) (io.ReadCloser, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return io.NopCloser(bytes.NewReader(s.bytes[digest])), nil
		},
	}
	return digest
}

func (s *shelf) Open(_ context.Context, project, digest string) (serving.Release, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.releases[digest]
	if !ok || project != "flights" {
		return r, fault.Newf(fault.NotFound, "There is no release %q.", digest)
	}
	s.opened[digest]++
	return r, nil
}

// table is a feature service: entity "id" has the features id, id+1, ... as of any time after its birth, else NaN; request features are taken as they are.
type table struct {
	names []string
	birth time.Time
	calls int
}

func (f *table) Inputs(context.Context, string, string) (serving.Inputs, error) {
	return serving.Inputs{Entity: []serving.Input{{Name: "id", Type: "number"}}}, nil
}

func (f *table) Lookup(_ context.Context, project, service string, entities []map[string]any, at []time.Time, request []map[string]any) (serving.Features, error) {
	if project != "flights" || service != "delay_v1" {
		return serving.Features{}, fault.Newf(fault.NotFound, "There is no feature service %q.", service)
	}
	f.calls++
	out := serving.Features{Names: f.names}
	for i, e := range entities {
		id, ok := e["id"].(float64)
		if !ok {
			return out, fault.New(fault.Invalid, "Entity key id is not a number.", "").At("id")
		}
		for j, n := range f.names {
			v := id + float64(j)
			if at[i].Before(f.birth) {
				v = math.NaN()
			}
			if request != nil && request[i][n] != nil {
				v = request[i][n].(float64)
			}
			out.Values = append(out.Values, v)
		}
		out.Digests = append(out.Digests, fmt.Sprintf("row-%v-%d", id, at[i].Unix()))
	}
	return out, nil
}

type sink struct {
	mu   sync.Mutex
	all  []serving.Prediction
	fail error
}

func (s *sink) Record(_ context.Context, p []serving.Prediction) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	s.all = append(s.all, p...)
	return nil
}

func (s *sink) take() []serving.Prediction {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.all
	s.all = nil
	return out
}

type room struct {
	*serving.Service
	store  *store.Store
	shelf  *shelf
	table  *table
	sink   *sink
	config serving.Config
}

func newRoom(t testing.TB, st *store.Store, change ...func(*serving.Config)) *room {
	t.Helper()
	r := &room{store: st, shelf: &shelf{}, table: &table{birth: time.Date(2013, 1, 1, 0, 0, 0, 0, time.UTC)}, sink: &sink{}}
	r.config = serving.Config{Store: st, Features: r.table, Models: r.shelf, Sink: r.sink, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Loaders: map[string][]serving.Loader{"lightgbm": {trees.Loader{}}}}
	for _, f := range change {
		f(&r.config)
	}
	r.Service = serving.New(r.config)
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *room) events(t testing.TB, kind string) []serving.Activated {
	t.Helper()
	all, err := r.store.Events(context.Background(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var out []serving.Activated
	for _, e := range all {
		if e.Type == kind {
			var a serving.Activated
			if err := json.Unmarshal(e.Data, &a); err != nil {
				t.Fatal(err)
			}
			out = append(out, a)
		}
	}
	return out
}

// direct is what the tree engine says itself.
func (r *room) direct(t testing.TB, digest string, x []float64) []float64 {
	t.Helper()
	m, err := trees.Parse(bytes.NewReader(r.shelf.bytes[digest]))
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float64, m.NumOutputs())
	m.Predict(x, out)
	return out
}

func (r *room) width(t testing.TB, digest string) (int, []string) {
	t.Helper()
	m, err := trees.Parse(bytes.NewReader(r.shelf.bytes[digest]))
	if err != nil {
		t.Fatal(err)
	}
	return m.NumFeatures(), m.FeatureNames()
}

func system() context.Context { return storetest.As("system:delivery") }

func champion(digest string) []serving.Variant {
	return []serving.Variant{{Name: "champion", Role: serving.Champion, Weight: 100, Release: digest}}
}

func key(environment string) serving.Key {
	return serving.Key{Project: "flights", Model: "delay", Environment: environment}
}

func ramp(n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = float64(i) - 1.5
	}
	return x
}

func TestConfigure(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		r := newRoom(t, st)
		a, b := r.shelf.add(t, "binary", ""), r.shelf.add(t, "multiclass", "")
		prod := key("production")

		if _, err := r.Predict(t.Context(), serving.Request{Key: prod, Matrix: ramp(3), Rows: 1}); !fault.Is(err, fault.NotFound) {
			t.Fatalf("an endpoint that is not there: %v", err)
		}
		if _, err := r.Configure(storetest.As("amal"), prod, champion(a)); !fault.Is(err, fault.Denied) {
			t.Fatalf("an engineer moved traffic: %v", err)
		}
		if all, err := r.Endpoints(t.Context(), ""); err != nil || len(all) != 0 {
			t.Fatalf("after a refusal: %v, %v", all, err)
		}

		e, err := r.Configure(system(), prod, champion(a))
		if err != nil || !e.Ready || e.Generation != 1 {
			t.Fatalf("%+v, %v", e, err)
		}
		w, names := r.width(t, a)
		x := ramp(w)
		got, err := r.Predict(t.Context(), serving.Request{Key: prod, ID: "r1", Matrix: x, Rows: 1})
		if err != nil || got.ID != "r1" || len(got.Results) != 1 || !slices.Equal(got.Results[0].Output, r.direct(t, a, x)) || got.Results[0].Release != a {
			t.Fatalf("%+v, %v", got, err)
		}
		p := r.sink.take()
		if len(p) != 1 || p[0].ID != got.Results[0].ID || p[0].RequestID != "r1" || p[0].Model != "delay" || p[0].Environment != "production" || p[0].Variant != "champion" ||
			p[0].Unit != "r1" || !slices.Equal(p[0].Features, x) || !slices.Equal(p[0].Output, got.Results[0].Output) || p[0].Latency <= 0 || len(p[0].FeaturesDigest) != 64 || p[0].At.IsZero() {
			t.Fatalf("recorded %+v", p)
		}

		// The same again changes nothing; each configuration is announced once.
		if again, err := r.Configure(system(), prod, champion(a)); err != nil || again.Generation != 1 {
			t.Fatalf("%+v, %v", again, err)
		}
		both := []serving.Variant{{"champion", serving.Champion, 75, a}, {"canary", serving.Canary, 25, b}}
		if e, err = r.Configure(system(), prod, both); err != nil || e.Generation != 2 {
			t.Fatalf("%+v, %v", e, err)
		}
		both[0].Weight, both[1].Weight = 50, 50
		if e, err = r.Configure(system(), prod, both); err != nil || e.Generation != 3 {
			t.Fatalf("%+v, %v", e, err)
		}
		got3 := r.events(t, "serving.activated")
		if len(got3) != 3 || got3[2].Generation != 3 || got3[2].Change != "" || got3[2].Model != "delay" || got3[2].Environment != "production" || got3[2].Variants[0].Name != "canary" || got3[2].Variants[0].Weight != 50 {
			t.Fatalf("serving.activated: %+v", got3)
		}
		if n := len(r.events(t, "endpoint.configured")); n != 3 {
			t.Fatalf("%d times endpoint.configured", n)
		}
		if r.shelf.opened[a] != 1 {
			t.Fatalf("release loaded %d times", r.shelf.opened[a])
		}
		d, err := r.Describe(prod, "")
		if err != nil || d.Release != a || !slices.Equal(d.Features, names) || d.Outputs != 1 || !slices.Equal(d.Versions, []string{"1", "2"}) {
			t.Fatalf("%+v, %v", d, err)
		}
		if d, err = r.Describe(prod, "2"); err != nil || d.Release != b || d.Outputs != 4 {
			t.Fatalf("%+v, %v", d, err)
		}

		// What does not load or is not well formed leaves everything as it was.
		for name, c := range map[string]struct {
			variants []serving.Variant
			kind     fault.Kind
		}{
			"unknown release": {champion("sha256:none"), fault.NotFound},
			"no champion":     {[]serving.Variant{{"c", serving.Canary, 100, a}}, fault.Invalid},
			"two champions":   {[]serving.Variant{{"c", serving.Champion, 50, a}, {"d", serving.Champion, 50, b}}, fault.Invalid},
			"weights":         {[]serving.Variant{{"c", serving.Champion, 90, a}}, fault.Invalid},
			"negative":        {[]serving.Variant{{"c", serving.Champion, 110, a}, {"d", serving.Canary, -10, b}}, fault.Invalid},
			"shadow weight":   {[]serving.Variant{{"c", serving.Champion, 90, a}, {"s", serving.Shadow, 10, b}}, fault.Invalid},
			"name twice":      {[]serving.Variant{{"c", serving.Champion, 90, a}, {"c", serving.Canary, 10, b}}, fault.Invalid},
			"no release":      {champion(""), fault.Invalid},
			"role":            {[]serving.Variant{{"c", "king", 100, a}}, fault.Invalid},
		} {
			if _, err := r.Configure(system(), prod, c.variants); !fault.Is(err, c.kind) {
				t.Errorf("%s: %v, want %s", name, err, c.kind)
			}
		}
		all, err := r.Endpoints(t.Context(), "flights")
		if err != nil || len(all) != 1 || all[0].Generation != 3 || !all[0].Ready {
			t.Fatalf("%+v, %v", all, err)
		}

		if err := r.Reconcile(system(), []serving.Desired{{prod, nil}, {key("staging"), champion(b)}}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Predict(t.Context(), serving.Request{Key: prod, Matrix: x, Rows: 1}); !fault.Is(err, fault.NotFound) {
			t.Fatalf("after removal: %v", err)
		}
		if all, err = r.Endpoints(t.Context(), "flights"); err != nil || len(all) != 1 || all[0].Environment != "staging" {
			t.Fatalf("%+v, %v", all, err)
		}
	})
}

// TestRestart: a second process on the same database serves what was configured, and announces what a crash had kept from being announced.
func TestRestart(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		r := newRoom(t, st)
		a := r.shelf.add(t, "binary", "")
		w, _ := r.width(t, a)
		if _, err := r.Configure(system(), key("production"), champion(a)); err != nil {
			t.Fatal(err)
		}
		// As if killed between the configuration and its announcement.
		if err := st.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.Exec(ctx, `UPDATE endpoints SET announced = ''`)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		before := len(r.events(t, "serving.activated"))

		next := serving.New(r.config)
		defer next.Close()
		for range 2 {
			if err := next.Load(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(r.events(t, "serving.activated")) - before; n != 1 {
			t.Fatalf("announced %d times", n)
		}
		got, err := next.Predict(t.Context(), serving.Request{Key: key("production"), Matrix: ramp(w), Rows: 1})
		if err != nil || !slices.Equal(got.Results[0].Output, r.direct(t, a, ramp(w))) {
			t.Fatalf("%+v, %v", got, err)
		}

		// A damaged model file: the endpoint says why it does not serve, and serves once the file is restored.
		good := r.shelf.bytes[a]
		r.shelf.bytes[a] = slices.Clone(good)
		r.shelf.bytes[a][len(good)/2] ^= 1
		third := serving.New(r.config)
		defer third.Close()
		if err := third.Load(t.Context()); !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), "model/model.lgb") {
			t.Fatalf("a flipped byte: %v", err)
		}
		if _, err := third.Predict(t.Context(), serving.Request{Key: key("production"), Matrix: ramp(w), Rows: 1}); !fault.Is(err, fault.Unavailable) {
			t.Fatalf("a flipped byte: %v", err)
		}
		if all, err := third.Endpoints(t.Context(), ""); err != nil || all[0].Ready || !strings.Contains(all[0].Problem, "model/model.lgb") {
			t.Fatalf("%+v, %v", all, err)
		}
		r.shelf.bytes[a] = good
		if err := third.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := third.Predict(t.Context(), serving.Request{Key: key("production"), Matrix: ramp(w), Rows: 1}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSinkFailureIsNoAnswer(t *testing.T) {
	t.Parallel()
	r := newRoom(t, storetest.SQLite(t))
	a := r.shelf.add(t, "binary", "")
	w, _ := r.width(t, a)
	if _, err := r.Configure(system(), key("production"), champion(a)); err != nil {
		t.Fatal(err)
	}
	r.sink.fail = errors.New("disk full")
	got, err := r.Predict(t.Context(), serving.Request{Key: key("production"), Matrix: ramp(w), Rows: 1})
	if !fault.Is(err, fault.Unavailable) || got.Results != nil {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestEphemeral(t *testing.T) {
	t.Parallel()
	r := newRoom(t, storetest.SQLite(t))
	a := r.shelf.add(t, "binary", "")
	w, _ := r.width(t, a)
	e, end, err := r.Ephemeral(system(), "flights", a)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Predict(t.Context(), serving.Request{Key: e.Key, Matrix: ramp(w), Rows: 1}); err != nil {
		t.Fatal(err)
	}
	if p := r.sink.take(); len(p) != 1 || p[0].Environment != serving.EphemeralEnvironment {
		t.Fatalf("%+v", p)
	}
	if all, err := r.Endpoints(t.Context(), ""); err != nil || len(all) != 0 {
		t.Fatalf("a throw-away endpoint was kept: %v, %v", all, err)
	}
	if err := errors.Join(end(), end()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Predict(t.Context(), serving.Request{Key: e.Key, Matrix: ramp(w), Rows: 1}); !fault.Is(err, fault.NotFound) {
		t.Fatalf("after its end: %v", err)
	}
	if _, _, err := r.Ephemeral(system(), "flights", "sha256:none"); !fault.Is(err, fault.NotFound) {
		t.Fatalf("an unknown release: %v", err)
	}
}

package serving_test

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"falaj/internal/blob"
	"falaj/internal/features"
	"falaj/internal/features/sqlite"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
	"falaj/internal/serving"
	"falaj/internal/store/storetest"
)

// TestFromFeatures serves by entity from the real features stage: a pushed view as of event time, and request features.
func TestFromFeatures(t *testing.T) {
	t.Parallel()
	st := storetest.SQLite(t)
	keys, err := seal.Open(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	online, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "online.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { online.Close() })
	stage := features.New(st, blob.New(st, keys, nil), nil, nil, online)
	r := newRoom(t, st, func(c *serving.Config) { c.Features = serving.FromFeatures(stage) })
	a := r.shelf.add(t, "binary", "")
	w, names := r.width(t, a)

	// The model's first column is looked up, the others come with the request.
	facts := features.View{Name: "facts", Entity: []string{"origin"}, SQL: "SELECT 1", Event: "at", Columns: names[:1]}
	given := features.View{Name: "given"}
	for i, n := range names[1:] {
		given.Request = append(given.Request, features.Computed{Name: n, Expr: fmt.Sprintf("hour + %d", i)})
	}
	ctx := storetest.As("replay")
	defined, err := stage.Define(ctx, "flights", []features.View{facts, given}, []features.ServiceDef{{Name: "delay_v1", Views: []string{"facts", "given"}}})
	if err != nil {
		t.Fatal(err)
	}
	noon := time.Date(2013, 5, 1, 12, 0, 0, 0, time.UTC)
	for i, v := range []float64{1.25, -3} {
		if err := stage.Push(ctx, "flights", "facts", []features.PushRow{{Entity: map[string]any{"origin": "JFK"}, Event: noon.Add(time.Duration(i) * time.Hour), Known: noon.Add(time.Duration(i) * time.Hour), Values: map[string]any{names[0]: v}}}); err != nil {
			t.Fatal(err)
		}
	}
	release := r.shelf.releases[a]
	release.Service = "delay_v1@" + defined[len(defined)-1].Digest
	r.shelf.releases[a] = release
	if _, err := r.Configure(system(), key("production"), champion(a)); err != nil {
		t.Fatal(err)
	}
	d, err := r.Describe(key("production"), "")
	if err != nil || len(d.Inputs.Entity) != 1 || d.Inputs.Entity[0].Name != "origin" || !slices.Equal(d.Inputs.Request, []serving.Input{{Name: "hour", Type: "number"}}) {
		t.Fatalf("%+v, %v", d, err)
	}
	for at, looked := range map[time.Time]float64{noon.Add(time.Minute): 1.25, noon.Add(2 * time.Hour): -3, noon.Add(-time.Minute): math.NaN()} {
		got, err := r.Predict(context.Background(), serving.Request{Key: key("production"), Entities: []map[string]any{{"origin": "JFK"}}, Features: []map[string]any{{"hour": int64(5)}}, At: []time.Time{at}, Replay: true})
		if err != nil {
			t.Fatal(err)
		}
		x := make([]float64, w)
		x[0] = looked
		for i := range w - 1 {
			x[i+1] = 5 + float64(i)
		}
		if !slices.Equal(got.Results[0].Output, r.direct(t, a, x)) {
			t.Errorf("at %v: %v, want %v", at, got.Results[0].Output, r.direct(t, a, x))
		}
		if p := r.sink.take(); len(p[0].FeaturesDigest) != 32 || p[0].Unit != "JFK" {
			t.Errorf("%+v", p)
		}
	}
	if _, err := r.Predict(context.Background(), serving.Request{Key: key("production"), Entities: []map[string]any{{"carrier": "UA"}}}); !fault.Is(err, fault.Invalid) {
		t.Errorf("no key: %v", err)
	}
}

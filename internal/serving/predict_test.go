package serving_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/serving"
	"falaj/internal/serving/trees"
	"falaj/internal/store/storetest"
)

func TestSplit(t *testing.T) {
	t.Parallel()
	r := newRoom(t, storetest.SQLite(t))
	a, b, c := r.shelf.add(t, "binary", ""), r.shelf.add(t, "rf", ""), r.shelf.add(t, "tweedie", "")
	wide := 0
	for _, d := range []string{a, b, c} {
		w, _ := r.width(t, d)
		wide = max(wide, w)
	}
	columns := make([]string, wide)
	for i := range columns {
		columns[i] = fmt.Sprintf("Column_%d", i)
	}
	const units = 10000
	x, names := slices.Repeat(ramp(wide), units), make([]string, units)
	for i := range names {
		names[i] = fmt.Sprintf("unit-%d", i)
	}
	split := func(variants ...serving.Variant) []string {
		t.Helper()
		if _, err := r.Configure(system(), key("production"), variants); err != nil {
			t.Fatal(err)
		}
		got, err := r.Predict(t.Context(), serving.Request{Key: key("production"), Matrix: x, Columns: columns, Rows: units, Units: names})
		if err != nil {
			t.Fatal(err)
		}
		out := make([]string, units)
		for i, res := range got.Results {
			out[i] = res.Variant
		}
		r.sink.take()
		return out
	}
	count := func(all []string, name string) (n int) {
		for _, v := range all {
			if v == name {
				n++
			}
		}
		return n
	}
	five := split(serving.Variant{"champion", serving.Champion, 95, a}, serving.Variant{"canary", serving.Canary, 5, b})
	quarter := split(serving.Variant{"champion", serving.Champion, 75, a}, serving.Variant{"canary", serving.Canary, 25, b})
	other := split(serving.Variant{"champion", serving.Champion, 75, b}, serving.Variant{"canary", serving.Canary, 25, c})
	// 4 standard deviations of a fair split.
	for want, all := range map[float64][]string{0.05: five, 0.25: quarter} {
		got := float64(count(all, "canary")) / units
		if math.Abs(got-want) > 4*math.Sqrt(want*(1-want)/units) {
			t.Errorf("a canary of %v got %v of the units", want, got)
		}
	}
	for i := range five {
		if five[i] == "canary" && quarter[i] != "canary" {
			t.Fatalf("%s left the canary when it grew", names[i])
		}
	}
	if !slices.Equal(quarter, other) {
		t.Error("units moved when the releases changed")
	}
	// The assignment is a promise to those who analyse a split later: it never changes.
	if got := strings.Join(quarter[:12], " "); got != goldenSplit {
		t.Errorf("assignment of unit-0 to unit-11 changed:\n%s", got)
	}
	if got := split(serving.Variant{"champion", serving.Champion, 0, a}, serving.Variant{"canary", serving.Canary, 100, b}); count(got, "canary") != units {
		t.Error("a weight of 100 does not take all")
	}
	if got := split(serving.Variant{"champion", serving.Champion, 100, a}, serving.Variant{"canary", serving.Canary, 0, b}); count(got, "champion") != units {
		t.Error("a weight of 0 takes some")
	}
	one, err := r.Predict(t.Context(), serving.Request{Key: key("production"), Release: "2", Matrix: ramp(wide), Columns: columns, Rows: 1, Units: names[:1]})
	if err != nil || one.Results[0].Release != b {
		t.Errorf("a version by name: %+v, %v", one, err)
	}
	if _, err := r.Predict(t.Context(), serving.Request{Key: key("production"), Release: "9", Matrix: ramp(wide), Columns: columns, Rows: 1}); !fault.Is(err, fault.NotFound) {
		t.Errorf("a version that is not served: %v", err)
	}
}

const goldenSplit = "champion canary champion champion canary champion canary canary champion champion champion champion"

func TestLookup(t *testing.T) {
	t.Parallel()
	r := newRoom(t, storetest.SQLite(t))
	a := r.shelf.add(t, "binary", "delay_v1")
	w, names := r.width(t, a)
	r.table.names = slices.Clone(names)
	slices.Reverse(r.table.names) // another order than the model's
	r.table.names = append(r.table.names, "unused")
	if _, err := r.Configure(system(), key("production"), champion(a)); err != nil {
		t.Fatal(err)
	}
	ask := func(req serving.Request) (serving.Response, error) {
		req.Key = key("production")
		return r.Predict(t.Context(), req)
	}
	row := func(id float64) []float64 {
		x := make([]float64, w)
		for i := range x {
			x[i] = id + float64(w-1-i)
		}
		return x
	}
	at := time.Date(2013, 6, 1, 0, 0, 0, 0, time.UTC)
	entities := []map[string]any{{"id": 3.0}, {"id": 40.0}}
	got, err := ask(serving.Request{Entities: entities, At: []time.Time{at}, Replay: true})
	if err != nil {
		t.Fatal(err)
	}
	p := r.sink.take()
	for i, id := range []float64{3, 40} {
		if !slices.Equal(got.Results[i].Output, r.direct(t, a, row(id))) || !slices.Equal(p[i].Features, row(id)) {
			t.Errorf("row %d: %+v", i, p[i])
		}
		if !p[i].At.Equal(at) || p[i].FeaturesDigest != fmt.Sprintf("row-%v-%d", id, at.Unix()) || p[i].Unit != fmt.Sprint(id) || p[i].Entity["id"] != id {
			t.Errorf("row %d: %+v", i, p[i])
		}
	}
	if r.table.calls != 1 {
		t.Errorf("%d lookups for one request", r.table.calls)
	}
	// Sent again under its id, because the answer got lost, it is answered with the ids that the log has; equal rows keep apart.
	again := serving.Request{ID: "r1", Entities: append(entities, entities[0]), At: []time.Time{at}, Replay: true}
	one, err := ask(again)
	two, err2 := ask(again)
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	for i, r := range one.Results {
		if r.ID != two.Results[i].ID || r.ID == one.Results[(i+1)%3].ID || r.ID == got.Results[i%2].ID {
			t.Errorf("row %d: %s, sent again %s", i, r.ID, two.Results[i].ID)
		}
	}
	r.sink.take()
	// Features given with the request, and a time before anything was known.
	old := at.AddDate(-1, 0, 0)
	if _, err = ask(serving.Request{Entities: entities, Features: []map[string]any{{names[0]: 7.5}, {}}, At: []time.Time{at, old}, Replay: true}); err != nil {
		t.Fatal(err)
	}
	p = r.sink.take()
	if p[0].Features[0] != 7.5 || !math.IsNaN(p[1].Features[0]) || !p[1].At.Equal(old) {
		t.Errorf("%+v", p)
	}

	for name, c := range map[string]struct {
		req   serving.Request
		kind  fault.Kind
		field string
	}{
		"at without the right": {serving.Request{Entities: entities, At: []time.Time{at}}, fault.Denied, "at"},
		"no rows":              {serving.Request{}, fault.Invalid, "inputs"},
		"both":                 {serving.Request{Entities: entities, Matrix: ramp(w), Rows: 1}, fault.Invalid, "inputs"},
		"features short":       {serving.Request{Entities: entities, Features: []map[string]any{{}}}, fault.Invalid, "features"},
		"units short":          {serving.Request{Entities: []map[string]any{{"id": 1.0}, {"id": 2.0}, {"id": 3.0}}, Units: []string{"a", "b"}}, fault.Invalid, "unit"},
		"times short":          {serving.Request{Entities: []map[string]any{{"id": 1.0}, {"id": 2.0}, {"id": 3.0}}, At: []time.Time{at, at}, Replay: true}, fault.Invalid, "at"},
		"zero time":            {serving.Request{Entities: entities, At: []time.Time{{}}, Replay: true}, fault.Invalid, "at"},
		"bad entity":           {serving.Request{Entities: []map[string]any{{"id": "x"}}}, fault.Invalid, "id"},
		"narrow matrix":        {serving.Request{Matrix: ramp(w - 1), Rows: 1}, fault.Invalid, "inputs"},
		"missing column":       {serving.Request{Matrix: ramp(w - 1), Rows: 1, Columns: names[1:]}, fault.Invalid, names[0]},
		"column twice":         {serving.Request{Matrix: ramp(w + 1), Rows: 1, Columns: append(slices.Clone(names), names[0])}, fault.Invalid, names[0]},
		"too many":             {serving.Request{Matrix: ramp(1), Rows: serving.MaxRows + 1}, fault.TooLarge, "inputs"},
	} {
		_, err := ask(c.req)
		if !fault.Is(err, c.kind) || fault.From(err).Field != c.field {
			t.Errorf("%s: %v (field %q), want %s at %q", name, err, fault.From(err).Field, c.kind, c.field)
		}
	}
	if p := r.sink.take(); len(p) != 0 {
		t.Errorf("refused requests were recorded: %+v", p)
	}
	// Columns by name, in any order; one that no release uses is named.
	x := row(9)
	swapped := append(append([]float64{}, x[1:]...), x[0])
	order := append(append([]string{}, names[1:]...), names[0])
	res, err := ask(serving.Request{Matrix: swapped, Rows: 1, Columns: order})
	if err != nil || !slices.Equal(res.Results[0].Output, r.direct(t, a, x)) {
		t.Errorf("%+v, %v", res, err)
	}
	if _, err := ask(serving.Request{Matrix: append([]float64{5}, swapped...), Rows: 1, Columns: append([]string{"unused"}, order...)}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "unused") {
		t.Errorf("a column that nothing uses: %v", err)
	}
}

// gate is the tree engine behind a door that the test holds.
type gate struct {
	trees.Loader
	hold   map[string]chan struct{} // by release
	inside chan string
	loaded atomic.Int64
	closed atomic.Int64
}

type gated struct {
	serving.Engine
	gate   *gate
	digest string
	first  atomic.Bool
}

func (g *gate) Load(ctx context.Context, r serving.Release) (serving.Engine, error) {
	e, err := g.Loader.Load(ctx, r)
	g.loaded.Add(1)
	return &gated{Engine: e, gate: g, digest: r.Digest}, err
}

func (e *gated) Predict(ctx context.Context, x []float64, rows int) ([]float64, error) {
	if c := e.gate.hold[e.digest]; c != nil && e.first.Swap(true) { // the first is the probe at loading
		e.gate.inside <- e.digest
		<-c
	}
	return e.Engine.Predict(ctx, x, rows)
}

func (e *gated) Close() error {
	e.gate.closed.Add(1)
	return e.Engine.Close()
}

func TestShadow(t *testing.T) {
	t.Parallel()
	g := &gate{hold: map[string]chan struct{}{}, inside: make(chan string, 10)}
	r := newRoom(t, storetest.SQLite(t), func(c *serving.Config) {
		c.Loaders = map[string][]serving.Loader{"lightgbm": {g}}
		c.ShadowQueue = 2
	})
	a, b := r.shelf.add(t, "binary", ""), r.shelf.add(t, "goss", "")
	g.hold[b] = make(chan struct{})
	wa, na := r.width(t, a)
	wb, nb := r.width(t, b)
	columns := na
	if wb > wa {
		columns = nb
	}
	x := ramp(max(wa, wb))
	variants := append(champion(a), serving.Variant{Name: "shadow", Role: serving.Shadow, Release: b})
	if _, err := r.Configure(system(), key("production"), variants); err != nil {
		t.Fatal(err)
	}
	ask := func(id string, replay bool) {
		t.Helper()
		req := serving.Request{Key: key("production"), ID: id, Matrix: x, Columns: columns, Rows: 1, Replay: replay}
		if got, err := r.Predict(t.Context(), req); err != nil || got.Results[0].Variant != "champion" {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	ask("r0", false)
	<-g.inside // the shadow of r0 is being scored and stays there
	for i := 1; i <= 5; i++ {
		ask(fmt.Sprintf("r%d", i), false) // none waits: two shadows are queued, three dropped
	}
	if s := r.Stats(); s.ShadowDropped != 3 || s.ShadowScored != 0 {
		t.Fatalf("%+v", s)
	}
	close(g.hold[b])
	ask("r6", true) // replay: the shadow is in the log when the answer is there
	p := r.sink.take()
	i := slices.IndexFunc(p, func(p serving.Prediction) bool { return p.RequestID == "r6" && p.Shadow })
	if i < 0 || p[i].Release != b || !slices.Equal(p[i].Output, r.direct(t, b, p[i].Features)) {
		t.Fatalf("%+v", p)
	}
	if err := r.Close(); err != nil { // waits for the queued ones
		t.Fatal(err)
	}
	r.Service = serving.New(r.config) // for the cleanup
	shadows := 0
	for _, q := range append(p, r.sink.take()...) {
		if q.Shadow {
			shadows++
		}
	}
	if shadows != 4 {
		t.Fatalf("%d shadows recorded, want those of r0, r1, r2 and r6", shadows)
	}
	if n := g.closed.Load(); n != 2 {
		t.Fatalf("%d engines closed", n)
	}
}

// TestMoveUnderLoad moves traffic to and fro while requests run: none fails, each is answered by one of the two, and what is not used any more is closed.
func TestMoveUnderLoad(t *testing.T) {
	t.Parallel()
	g := &gate{inside: make(chan string)}
	r := newRoom(t, storetest.SQLite(t), func(c *serving.Config) { c.Loaders = map[string][]serving.Loader{"lightgbm": {g}} })
	a, b := r.shelf.add(t, "binary", ""), r.shelf.add(t, "rf", "")
	wa, na := r.width(t, a)
	wb, nb := r.width(t, b)
	columns, x := na, ramp(max(wa, wb))
	if wb > wa {
		columns = nb
	}
	want := map[string][]float64{a: r.direct(t, a, x[:wa]), b: r.direct(t, b, x[:wb])}
	if _, err := r.Configure(system(), key("production"), champion(a)); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				got, err := r.Predict(t.Context(), serving.Request{Key: key("production"), Matrix: x, Columns: columns, Rows: 1})
				if err != nil || !slices.Equal(got.Results[0].Output, want[got.Results[0].Release]) {
					t.Errorf("%+v, %v", got, err)
					return
				}
			}
		})
	}
	for i := range 50 {
		if _, err := r.Configure(system(), key("production"), champion([]string{b, a}[i%2])); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.Service = serving.New(r.config)
	if n, m := g.closed.Load(), g.loaded.Load(); n != m || m < 2 {
		t.Errorf("%d engines closed, %d were loaded", n, m)
	}
}

// strange answers what no model should.
type strange struct{ value float64 }

func (s strange) Load(context.Context, serving.Release) (serving.Engine, error) { return &s, nil }
func (s *strange) Predict(_ context.Context, x []float64, rows int) ([]float64, error) {
	return slices.Repeat([]float64{x[0] * s.value}, rows), nil
}
func (s *strange) Features() []string { return []string{"a"} }
func (s *strange) Close() error       { return nil }

func TestNothingDoubtfulIsAnswered(t *testing.T) {
	t.Parallel()
	r := newRoom(t, storetest.SQLite(t), func(c *serving.Config) { c.Loaders = map[string][]serving.Loader{"lightgbm": {strange{1}}} })
	a := r.shelf.add(t, "binary", "")
	if _, err := r.Configure(system(), key("production"), champion(a)); err != nil {
		t.Fatal(err)
	}
	for _, v := range []float64{math.NaN(), math.Inf(1)} {
		if got, err := r.Predict(t.Context(), serving.Request{Key: key("production"), Matrix: []float64{v}, Rows: 1}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %+v, %v", v, got, err)
		}
	}
	if p := r.sink.take(); len(p) != 0 {
		t.Errorf("recorded %+v", p)
	}
}

func TestEntityKey(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]map[string]any{
		"JFK":                 {"origin": "JFK"},
		"carrier=UA,origin=7": {"origin": 7, "carrier": "UA"},
		"":                    {},
	} {
		if got := serving.EntityKey(e); got != want {
			t.Errorf("%v: %q, want %q", e, got, want)
		}
	}
}

func BenchmarkPredict(b *testing.B) {
	r := newRoom(b, storetest.SQLite(b))
	a := r.shelf.add(b, "binary", "")
	w, _ := r.width(b, a)
	if _, err := r.Configure(system(), key("production"), champion(a)); err != nil {
		b.Fatal(err)
	}
	x := ramp(w)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Predict(b.Context(), serving.Request{Key: key("production"), Matrix: x, Rows: 1}); err != nil {
			b.Fatal(err)
		}
		if len(r.sink.all) > 1<<12 {
			r.sink.take()
		}
	}
}

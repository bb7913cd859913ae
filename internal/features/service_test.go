package features_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/blob"
	"falaj/internal/blob/dir"
	"falaj/internal/data"
	"falaj/internal/data/duckdb"
	"falaj/internal/data/duckdb/worker"
	"falaj/internal/features"
	"falaj/internal/features/sqlite"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
	"falaj/internal/store"
	"falaj/internal/store/storetest"
)

// TestMain lets the test binary be the data engine's worker.
func TestMain(m *testing.M) {
	if strings.Join(os.Args[1:min(3, len(os.Args))], " ") == "worker duckdb" {
		os.Exit(worker.Main())
	}
	os.Exit(m.Run())
}

// datasets lays SELECTs without tables out as dataset versions, by the real engine.
type datasets struct {
	engine *duckdb.Engine
	mu     sync.Mutex
	sql    map[string]string
}

func (d *datasets) Tables(ctx context.Context, project string, selects []string, _ map[string]int64) (*features.Tables, error) {
	room, err := d.engine.Room(1 << 20)
	if err != nil {
		return nil, err
	}
	out := &features.Tables{Room: room, Inputs: map[string]data.Input{}}
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, sql := range d.sql {
		if !strings.Contains(strings.Join(selects, " "), name) {
			continue
		}
		file := room.Path("in_" + name + ".parquet")
		if _, err := d.engine.Transform(ctx, data.TransformJob{Dir: room.Dir, SQL: sql, Ref: name, Out: file}); err != nil {
			room.Close()
			return nil, err
		}
		out.Inputs[name] = data.Input{Files: []string{file}}
		out.Pins = append(out.Pins, features.Pin{Dataset: name, Version: 1, Digest: "sha256:" + project})
	}
	return out, nil
}

type stage struct {
	*features.Service
	db     *store.Store
	blobs  *blob.Store
	engine *duckdb.Engine
	data   *datasets
	online *sqlite.Store
	known  int64 // facts that are ever known
}

func newStage(t *testing.T, db *store.Store) *stage {
	t.Helper()
	tmp := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	keys, err := seal.Open(filepath.Join(tmp, "keys"))
	must(err)
	d, err := dir.Open(filepath.Join(tmp, "blobs"))
	must(err)
	e, err := duckdb.New(duckdb.Config{Scratch: filepath.Join(tmp, "scratch"), Threads: 1})
	must(err)
	t.Cleanup(func() { _ = e.Close() })
	on, err := sqlite.Open(context.Background(), filepath.Join(tmp, "online.db"))
	must(err)
	t.Cleanup(func() { _ = on.Close() })
	s := &stage{db: db, blobs: blob.New(db, keys, d), engine: e, data: &datasets{engine: e, sql: map[string]string{}}, online: on}
	s.Service = features.New(db, s.blobs, s.data, e, on)
	return s
}

func sec(n int) time.Time {
	return time.Date(2013, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Second)
}

func stamp(n int) string { return "TIMESTAMPTZ '" + sec(n).Format("2006-01-02 15:04:05") + "+00'" }

// fill makes a view table with late, unordered and equal times, and a spine that asks at every kind of instant.
func (s *stage) fill(rng *rand.Rand) {
	var facts, spine []string
	instants := []int{300, 310} // the ends of windows, and the edges of visibility and ttl
	facts = append(facts, "('EWR', 0, "+stamp(300)+", "+stamp(300)+", 1.5, 1)", "('EWR', 1, "+stamp(300)+", "+stamp(310)+", 2.5, 1)",
		"('JFK', 1, "+stamp(1050)+", "+stamp(1050)+", 3.5, 1)") // the last of its entity: just fresh at 1350, too old after
	s.known += 3
	for range 300 {
		event := rng.IntN(1000)
		instants = append(instants, event-1, event, event+300, event+301)
		known := stamp(event + rng.IntN(3)*rng.IntN(400) - rng.IntN(2)*50)
		if rng.IntN(15) == 0 {
			known = "NULL"
		} else {
			s.known++
		}
		value := fmt.Sprintf("%.3f", rng.NormFloat64())
		if rng.IntN(10) == 0 {
			value = []string{"NULL", "'nan'::DOUBLE", "'inf'::DOUBLE"}[rng.IntN(3)]
		}
		facts = append(facts, fmt.Sprintf("('%s', %d, %s, %s, %s, %d)", []string{"EWR", "JFK"}[rng.IntN(2)], rng.IntN(2), stamp(event), known, value, rng.IntN(5)))
	}
	for i := range 200 {
		at := rng.IntN(1400)
		if i%2 == 0 {
			at = instants[rng.IntN(len(instants))]
		}
		spine = append(spine, fmt.Sprintf("(%d, '%s', %d, %s, %s, %d.5, %d)", i, []string{"EWR", "JFK", "LGA"}[rng.IntN(3)], rng.IntN(2), stamp(at),
			[]string{"'UA'", "'AA'", "'XX'", "NULL"}[rng.IntN(4)], rng.IntN(3000), rng.IntN(2)))
	}
	spine[0] = fmt.Sprintf("(0, 'JFK', 1, %s, 'UA', 1.5, 0)", stamp(1350))
	spine[1] = fmt.Sprintf("(1, 'JFK', 1, %s, 'UA', 1.5, 0)", stamp(1351))
	s.data.sql["facts"] = "SELECT * FROM (VALUES " + strings.Join(facts, ", ") + ") AS t(origin, gate, \"at\", known_at, delay, busy)"
	s.data.sql["spine"] = "SELECT * FROM (VALUES " + strings.Join(spine, ", ") + ") AS t(n, origin, gate, \"at\", carrier, distance, late)"
}

func definitions() ([]features.View, []features.ServiceDef) {
	return []features.View{
			{Name: "delays", Entity: []string{"origin", "gate"}, SQL: "SELECT * FROM facts; -- all\n", Event: "at", Known: "known_at", TTL: 300 * time.Second, Columns: []string{"delay", "busy"}},
			{Name: "forever", Entity: []string{"origin"}, SQL: "SELECT origin, \"at\", delay * 2 AS twice, busy > 2 AS full_house FROM facts", Event: "at", Columns: []string{"twice", "full_house"}},
			{Name: "schedule", Request: []features.Computed{{Name: "carrier", Expr: "list_position(['AA', 'UA'], carrier)"}, {Name: "distance"}, {Name: "hour", Expr: "hour(at) + distance / 1000"}}},
		}, []features.ServiceDef{
			{Name: "delay_v1", Views: []string{"delays", "schedule", "forever"}},
		}
}

const spineSQL = `SELECT n, origin, gate, "at", carrier, distance, late FROM spine`

func TestTrainingAndServingAreGivenTheSame(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, db *store.Store) {
		s, ctx := newStage(t, db), storetest.As("amal")
		s.fill(rand.New(rand.NewPCG(1, uint64(len(db.Name())))))
		views, services := definitions()
		if _, err := s.Define(ctx, "flights", views, services); err != nil {
			t.Fatal(err)
		}
		set, err := s.TrainingSet(ctx, "flights", spineSQL, "delay_v1", features.TrainingSetRequest{})
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"n", "origin", "gate", "at", "late", "delay", "busy", "carrier", "distance", "hour", "twice", "full_house"}
		got := []string{}
		for _, c := range set.Columns {
			got = append(got, c.Name)
		}
		if d := cmp.Diff(want, got); d != "" || set.Rows != 200 {
			t.Fatalf("%d rows, columns %s", set.Rows, d)
		}
		if again, err := s.TrainingSet(ctx, "flights", spineSQL, "delay_v1", features.TrainingSetRequest{}); err != nil || again.Blob != set.Blob {
			t.Fatalf("the same definition gives another digest: %v %v %v", set.Blob, again, err)
		}
		part, err := s.TrainingSet(ctx, "flights", spineSQL, "delay_v1", features.TrainingSetRequest{Since: sec(100), Until: sec(700), Known: "at"})
		if err != nil || part.Rows == 0 || part.Rows >= 200 {
			t.Fatalf("a window of the spine: %+v %v", part, err)
		}

		var rows int64
		for i, w := range []features.Window{{To: sec(300)}, {From: sec(300), To: sec(310)}, {From: sec(310), To: sec(5000)}} {
			for _, v := range []string{"delays", "forever"} {
				m, err := s.Materialize(ctx, "flights", v, w, fmt.Sprint("w", i))
				if err != nil {
					t.Fatal(err)
				}
				if v == "delays" {
					rows += m.Rows
				}
			}
		}
		if rows != s.known {
			t.Fatalf("the windows put %d rows online, %d are ever known", rows, s.known)
		}
		p, err := s.ParityOfSpine(ctx, "flights", spineSQL, "delay_v1", features.TrainingSetRequest{}, 200)
		if err != nil || !p.Passed || p.Rows != 200 || p.Values != 200*7 {
			t.Fatalf("%+v %v", p, err)
		}

		for at, want := range map[int]features.Status{1350: features.Present, 1351: features.OutsideTTL} {
			if v := s.vector(t, ctx, map[string]any{"origin": "JFK", "gate": 1.0}, sec(at)); v.Statuses[0] != want {
				t.Fatalf("at %d: %s", at, v.Statuses[0])
			}
		}
		logged := s.serve(t, ctx, 40)
		if p, err = s.ParityOfLogged(ctx, "flights", "delay_v1", logged); err != nil || !p.Passed || p.Rows != 40 {
			t.Fatalf("%+v %v", p, err)
		}
		logged[7].Values[3] += 1e-9
		logged[9].Values[0] = math.NaN()
		p, err = s.ParityOfLogged(ctx, "flights", "delay_v1", logged)
		if err != nil || p.Passed || p.Different < 1 || p.Different > 2 {
			t.Fatalf("a changed log passes: %+v %v", p, err)
		}

		// A value pushed past the definition makes the two sides differ, and the check says where.
		push := []features.PushRow{{Entity: map[string]any{"origin": "EWR"}, Event: sec(1), Known: sec(1), Values: map[string]any{"twice": 99.0, "full_house": false}}}
		if err := s.Push(ctx, "flights", "forever", push); !fault.Is(err, fault.Denied) {
			t.Fatalf("event time without the replay right: %v", err)
		}
		push[0].Event, push[0].Known = sec(1399), sec(1399)
		if err := s.Push(storetest.As("replay"), "flights", "forever", push); err != nil {
			t.Fatal(err)
		}
		v := s.vector(t, ctx, map[string]any{"origin": "EWR", "gate": 0.0}, sec(1399))
		if v.Values[5] != 99 || v.Values[6] != 0 {
			t.Fatalf("a push is not seen at once: %+v", v)
		}
		push = nil
		for n := 600; n < 800; n += 2 {
			push = append(push, features.PushRow{Entity: map[string]any{"origin": "EWR"}, Event: sec(n), Values: map[string]any{"twice": 99.0, "full_house": nil}})
		}
		if err := s.Push(storetest.As("replay"), "flights", "forever", push); err != nil {
			t.Fatal(err)
		}
		p, err = s.ParityOfSpine(ctx, "flights", spineSQL, "delay_v1", features.TrainingSetRequest{Since: sec(600), Until: sec(800)}, 5000)
		if err != nil || p.Passed || len(p.ByFeature) == 0 || p.ByFeature[0].Feature != "twice" || p.ByFeature[0].Online != "99" {
			t.Fatalf("a pushed difference passes: %+v %v", p, err)
		}
	})
}

// serve asks for vectors as a model server does and keeps them as a prediction log does.
func (s *stage) serve(t *testing.T, ctx context.Context, n int) []features.Logged {
	t.Helper()
	rng := rand.New(rand.NewPCG(8, 9))
	var out []features.Logged
	var entities, request []map[string]any
	var at []time.Time
	for range n {
		when := sec(rng.IntN(1200))
		entities = append(entities, map[string]any{"origin": []string{"EWR", "JFK", "LGA"}[rng.IntN(3)], "gate": float64(rng.IntN(2))})
		request = append(request, map[string]any{"carrier": "UA", "distance": rng.Float64() * 3000, "at": when.Format(time.RFC3339)})
		at = append(at, when)
	}
	names, values, digests, err := s.Lookup(ctx, "flights", "delay_v1", entities, at, request)
	if err != nil || len(values) != n*len(names) || len(digests) != n {
		t.Fatal(err, len(values))
	}
	for i := range n {
		row := map[string]any{"origin": entities[i]["origin"], "gate": entities[i]["gate"]}
		for k, v := range request[i] {
			row[k] = v
		}
		out = append(out, features.Logged{Row: row, At: at[i], Values: values[i*len(names) : (i+1)*len(names)]})
	}
	return out
}

func (s *stage) vector(t *testing.T, ctx context.Context, row map[string]any, at time.Time) features.Vector {
	t.Helper()
	res, err := s.Online(ctx, features.OnlineRequest{Project: "flights", Service: "delay_v1", Rows: []map[string]any{row}, At: []time.Time{at}})
	if err != nil {
		t.Fatal(err)
	}
	return res.Rows[0]
}

func TestDefinitionsAreImmutableAndPinned(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, db *store.Store) {
		s, ctx := newStage(t, db), storetest.As("amal")
		views, services := definitions()
		if _, err := s.Define(storetest.As("vera"), "flights", views, services); !fault.Is(err, fault.Denied) {
			t.Fatalf("a viewer defines: %v", err)
		}
		first, err := s.Define(ctx, "flights", views, services)
		if err != nil || len(first) != 4 || first[3].Version != 1 {
			t.Fatal(first, err)
		}
		entries := func() int {
			l, err := db.Entries(ctx, 0, 1000)
			if err != nil {
				t.Fatal(err)
			}
			return len(l)
		}
		before := entries()
		if again, err := s.Define(ctx, "flights", views, services); err != nil || cmp.Diff(first, again) != "" || entries() != before {
			t.Fatalf("the same definitions change something: %v %v", again, err)
		}
		info, err := s.Describe(ctx, "flights", "delay_v1")
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]features.Input{{Name: "at", Type: "timestamp"}, {Name: "carrier", Type: "text"}, {Name: "distance", Type: "number"}}, info.Request); d != "" {
			t.Fatal(d)
		}
		views[0].Columns = []string{"delay"}
		second, err := s.Define(ctx, "flights", views, services)
		if err != nil || second[0].Version != 2 || second[1].Version != 1 || second[3].Version != 2 || second[3].Digest == first[3].Digest {
			t.Fatal(second, err)
		}
		old, err := s.Describe(ctx, "flights", info.Ref())
		if err != nil || cmp.Diff(info, old) != "" {
			t.Fatalf("a pinned service changed: %v %v", cmp.Diff(info, old), err)
		}
		now, err := s.Describe(ctx, "flights", "delay_v1")
		if err != nil || len(now.Features) != len(old.Features)-1 {
			t.Fatal(now.Features, err)
		}
		v, sv, err := s.Definitions(ctx, "flights")
		if err != nil || len(v) != 3 || len(sv) != 1 || v[0].Version != 2 {
			t.Fatal(v, sv, err)
		}
		if _, err := s.Describe(ctx, "flights", "nope"); !fault.Is(err, fault.NotFound) {
			t.Fatal(err)
		}
	})
}

func TestBadDefinitionsAreRefusedWhole(t *testing.T) {
	t.Parallel()
	s, ctx := newStage(t, storetest.SQLite(t)), storetest.As("amal")
	ok := features.View{Name: "v", Entity: []string{"k"}, SQL: "SELECT 1", Event: "at", Columns: []string{"f"}}
	change := func(f func(*features.View)) features.View {
		v := ok
		f(&v)
		return v
	}
	for says, def := range map[string]struct {
		views    []features.View
		services []features.ServiceDef
	}{
		"not a name":               {[]features.View{change(func(v *features.View) { v.Name = "a b" })}, nil},
		"no entity":                {[]features.View{change(func(v *features.View) { v.Entity = nil })}, nil},
		"neither sql nor request":  {[]features.View{change(func(v *features.View) { v.SQL = " " })}, nil},
		"no event time":            {[]features.View{change(func(v *features.View) { v.Event = "" })}, nil},
		"negative ttl":             {[]features.View{change(func(v *features.View) { v.TTL = -1 })}, nil},
		"named twice":              {[]features.View{change(func(v *features.View) { v.Columns = []string{"k"} })}, nil},
		"defined twice":            {[]features.View{ok, ok}, nil},
		"function random":          {[]features.View{{Name: "r", Request: []features.Computed{{Name: "x", Expr: "random()"}}}}, nil},
		"such a view has no":       {[]features.View{{Name: "r", SQL: "SELECT 1", Request: []features.Computed{{Name: "x"}}}}, nil},
		"two features f":           {[]features.View{ok, change(func(v *features.View) { v.Name = "w" })}, []features.ServiceDef{{Name: "s", Views: []string{"v", "w"}}}},
		"names view v twice":       {[]features.View{ok}, []features.ServiceDef{{Name: "s", Views: []string{"v", "v"}}}},
		"no feature view 'absent'": {[]features.View{ok}, []features.ServiceDef{{Name: "s", Views: []string{"absent"}}}},
		"as number and as text": {[]features.View{{Name: "a", Request: []features.Computed{{Name: "x"}}}, {Name: "b", Request: []features.Computed{{Name: "y", Expr: "list_position(['q'], x)"}}}},
			[]features.ServiceDef{{Name: "s", Views: []string{"a", "b"}}}},
	} {
		_, err := s.Define(ctx, "p", def.views, def.services)
		if err == nil || !strings.Contains(strings.ReplaceAll(fault.From(err).Public, "as text and as number", "as number and as text"), says) {
			t.Errorf("want %q, got %v", says, err)
		}
	}
	if v, sv, err := s.Definitions(ctx, "p"); err != nil || len(v)+len(sv) != 0 {
		t.Fatalf("something of the refused stayed: %v %v %v", v, sv, err)
	}
}

func TestMaterializeIsIdempotentAndHealsAfterACrash(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, db *store.Store) {
		s, ctx := newStage(t, db), storetest.As("amal")
		s.fill(rand.New(rand.NewPCG(4, 4)))
		views, services := definitions()
		if _, err := s.Define(ctx, "flights", views, services); err != nil {
			t.Fatal(err)
		}
		w := features.Window{To: sec(5000)}
		if _, err := s.Materialize(storetest.As("vera"), "flights", "delays", w, "k"); !fault.Is(err, fault.Denied) {
			t.Fatal(err)
		}
		if v := s.vector(t, ctx, map[string]any{"origin": "EWR", "gate": 0.0, "distance": 1.0}, sec(900)); v.Statuses[0] != features.NotFound {
			t.Fatalf("a refused materialization put rows online: %+v", v)
		}
		first, err := s.Materialize(ctx, "flights", "delays", w, "k")
		if err != nil || first.Again || first.Rows != s.known || len(first.Pins) != 1 {
			t.Fatal(first, err)
		}
		want := s.vector(t, ctx, map[string]any{"origin": "EWR", "gate": 0.0, "distance": 1.0}, sec(900))
		again, err := s.Materialize(ctx, "flights", "delays", w, "k")
		if err != nil || !again.Again || again.Rows != first.Rows {
			t.Fatal(again, err)
		}
		// A crash after the rows and before the record: the next try, under any key, puts the same rows.
		if other, err := s.Materialize(ctx, "flights", "delays", w, "k2"); err != nil || other.Rows != first.Rows {
			t.Fatal(other, err)
		}
		if d := cmp.Diff(want, s.vector(t, ctx, map[string]any{"origin": "EWR", "gate": 0.0, "distance": 1.0}, sec(900)), cmp.Comparer(func(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) })); d != "" {
			t.Fatal(d)
		}
		through, err := s.Through(ctx, "flights", "delays")
		if err != nil || through == nil || !through.Window.To.Equal(sec(5000)) {
			t.Fatal(through, err)
		}
		if none, err := s.Through(ctx, "flights", "forever"); err != nil || none != nil {
			t.Fatal(none, err)
		}
		if _, err := s.Materialize(ctx, "flights", "schedule", w, "k"); !fault.Is(err, fault.Invalid) {
			t.Fatal(err)
		}
		if _, err := s.Materialize(ctx, "flights", "delays", features.Window{From: sec(2), To: sec(1)}, "k3"); !fault.Is(err, fault.Invalid) {
			t.Fatal(err)
		}
		if n, err := s.Trim(ctx, "flights", "delays", sec(800)); err != nil || n == 0 {
			t.Fatal(n, err)
		}
	})
}

func TestBadRequestsNameTheField(t *testing.T) {
	t.Parallel()
	s, ctx := newStage(t, storetest.SQLite(t)), storetest.As("amal")
	views, services := definitions()
	if _, err := s.Define(ctx, "flights", views, services); err != nil {
		t.Fatal(err)
	}
	for field, row := range map[string]map[string]any{
		"gate":     {"origin": "EWR", "gate": 1.5, "distance": 1.0},
		"origin":   {"gate": 1.0, "distance": 1.0},
		"distance": {"origin": "EWR", "gate": 1.0, "distance": "far"},
		"at":       {"origin": "EWR", "gate": 1.0, "at": "yesterday"},
		"carrier":  {"origin": "EWR", "gate": 1.0, "carrier": 7.0},
	} {
		_, err := s.Online(ctx, features.OnlineRequest{Project: "flights", Service: "delay_v1", Rows: []map[string]any{row}})
		if e := fault.From(err); err == nil || e.Kind != fault.Invalid || e.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	res, err := s.Online(ctx, features.OnlineRequest{Project: "flights", Service: "delay_v1", Rows: []map[string]any{{"origin": "EWR", "gate": 1}}})
	if err != nil {
		t.Fatal(err)
	}
	wantStatus := []features.Status{features.NotFound, features.NotFound, features.NullValue, features.NullValue, features.NullValue, features.NotFound, features.NotFound}
	if d := cmp.Diff(wantStatus, res.Rows[0].Statuses); d != "" {
		t.Fatal(d)
	}
	if _, err := s.Online(ctx, features.OnlineRequest{Project: "flights", Service: "delay_v1", Rows: make([]map[string]any, 3), At: []time.Time{sec(1), sec(2)}}); !fault.Is(err, fault.Invalid) {
		t.Fatal(err)
	}
}

func TestBadViewSQLGivesOneClearFault(t *testing.T) {
	t.Parallel()
	s, ctx := newStage(t, storetest.SQLite(t)), storetest.As("amal")
	s.fill(rand.New(rand.NewPCG(4, 4)))
	bad := features.View{Name: "bad", Entity: []string{"origin"}, SQL: "SELECT origin, \"at\", nope FROM facts", Event: "at", Columns: []string{"nope"}}
	if _, err := s.Define(ctx, "flights", []features.View{bad}, []features.ServiceDef{{Name: "s", Views: []string{"bad"}}}); err != nil {
		t.Fatal(err)
	}
	_, err := s.TrainingSet(ctx, "flights", spineSQL, "s", features.TrainingSetRequest{})
	if e := fault.From(err); err == nil || e.Kind != fault.Invalid || !strings.Contains(e.Public, "nope") {
		t.Fatal(err)
	}
	if _, err := s.Materialize(ctx, "flights", "bad", features.Window{To: sec(9)}, "k"); fault.KindOf(err) != fault.Invalid {
		t.Fatal(err)
	}
	left, err := os.ReadDir(s.engineScratch(t))
	if err != nil || len(left) != 0 {
		t.Fatalf("decrypted files stayed: %v %v", left, err)
	}
}

// engineScratch is a folder that holds every open room of the engine beside a fresh one that is closed again.
func (s *stage) engineScratch(t *testing.T) string {
	t.Helper()
	r, err := s.engine.Room(1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return filepath.Dir(r.Dir)
}

// between is the real store with something that happens between its answer and the caller's use of it.
type between struct {
	features.OnlineStore
	then func()
}

func (b *between) At(ctx context.Context, table string, asks []features.Ask) ([]features.Found, error) {
	found, err := b.OnlineStore.At(ctx, table, asks)
	if then := b.then; then != nil {
		b.then = nil
		then()
	}
	return found, err
}

func TestAReadThatAWriteOvertakesIsNotKept(t *testing.T) {
	t.Parallel()
	s, ctx := newStage(t, storetest.SQLite(t)), storetest.As("replay")
	b := &between{OnlineStore: s.online}
	s.Service = features.New(s.db, s.blobs, s.data, s.engine, b)
	views, services := definitions()
	if _, err := s.Define(ctx, "flights", views, services); err != nil {
		t.Fatal(err)
	}
	push := func(event int, v float64) {
		t.Helper()
		if err := s.Push(ctx, "flights", "forever", []features.PushRow{{Entity: map[string]any{"origin": "EWR"}, Event: sec(event), Values: map[string]any{"twice": v}}}); err != nil {
			t.Fatal(err)
		}
	}
	ask := func() float64 {
		return s.vector(t, ctx, map[string]any{"origin": "EWR", "gate": 0.0}, sec(100)).Values[5]
	}
	push(1, 1)
	b.then = func() { b.then = func() { push(2, 2) } } // the first view's read, then the second's
	if got := ask(); got != 1 {
		t.Fatalf("%v before the write", got)
	}
	if got := ask(); got != 2 {
		t.Fatalf("%v after the write", got)
	}
	push(200, 3) // of the future: the answer holds until then
	if got := ask(); got != 2 {
		t.Fatal(got)
	}
	if got := s.vector(t, ctx, map[string]any{"origin": "EWR", "gate": 0.0}, sec(200)).Values[5]; got != 3 {
		t.Fatal(got)
	}
	if got := ask(); got != 2 {
		t.Fatalf("%v when asked about the past again", got)
	}
}

func TestMovedValuesDoNotOpen(t *testing.T) {
	t.Parallel()
	s, ctx := newStage(t, storetest.SQLite(t)), storetest.As("amal")
	s.fill(rand.New(rand.NewPCG(4, 4)))
	views, services := definitions()
	defs, err := s.Define(ctx, "flights", views, services)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Materialize(ctx, "flights", "forever", features.Window{To: sec(5000)}, "k"); err != nil {
		t.Fatal(err)
	}
	// The sealed value of another instant, put where this one belongs, is found out and named.
	table := "flights/forever@" + defs[1].Digest
	key := features.EntityKey("EWR")
	got, err := s.online.At(ctx, table, []features.Ask{{Key: key, At: sec(900).UnixMicro()}, {Key: key, At: sec(100).UnixMicro()}})
	if err != nil || !got[0].OK || !got[1].OK || got[0].Event == got[1].Event {
		t.Fatal(got, err)
	}
	if err := s.online.Put(ctx, table, []features.Version{{Key: key, Event: got[0].Event, Known: got[0].Known, Sealed: got[1].Sealed}}); err != nil {
		t.Fatal(err)
	}
	_, err = s.Online(ctx, features.OnlineRequest{Project: "flights", Service: "delay_v1", Rows: []map[string]any{{"origin": "EWR", "gate": 0.0}}, At: []time.Time{sec(900)}})
	if err == nil || !strings.Contains(fault.From(err).Public, "does not open") {
		t.Fatal(err)
	}
}

func BenchmarkOnline(b *testing.B) {
	db := storetest.SQLite(b)
	keys, err := seal.Open(filepath.Join(b.TempDir(), "keys"))
	if err != nil {
		b.Fatal(err)
	}
	on, err := sqlite.Open(context.Background(), filepath.Join(b.TempDir(), "online.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer on.Close()
	s := features.New(db, blob.New(db, keys, nil), nil, nil, on)
	ctx := storetest.As("replay")
	views, services := definitions()
	defs, err := s.Define(ctx, "flights", views, services)
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Push(ctx, "flights", "forever", []features.PushRow{{Entity: map[string]any{"origin": "EWR"}, Event: sec(0), Values: map[string]any{"twice": 1.0}}}); err != nil {
		b.Fatal(err)
	}
	req := features.OnlineRequest{Project: "flights", Service: "delay_v1@" + defs[3].Digest, At: []time.Time{sec(5)},
		Rows: []map[string]any{{"origin": "EWR", "gate": 1.0, "carrier": "UA", "distance": 700.0, "at": sec(5)}}}
	for b.Loop() {
		if _, err := s.Online(ctx, req); err != nil {
			b.Fatal(err)
		}
	}
}

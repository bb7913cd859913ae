package data_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/blob"
	"falaj/internal/blob/dir"
	"falaj/internal/data"
	"falaj/internal/data/duckdb"
	"falaj/internal/data/duckdb/worker"
	"falaj/internal/data/iceberg"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
	"falaj/internal/store"
	"falaj/internal/store/storetest"
)

func TestMain(m *testing.M) {
	if slices.Equal(os.Args[1:], []string{"worker", "duckdb"}) {
		os.Exit(worker.Main())
	}
	os.Exit(m.Run())
}

// world is the stage on a real database, real blobs, a real catalog and a real engine.
type world struct {
	*data.Service
	db     *store.Store
	blobs  *blob.Store
	engine *duckdb.Engine
	cat    *iceberg.Catalog
	keys   *seal.Keys
	folder string
	ctx    context.Context
}

func build(t *testing.T, db *store.Store) *world {
	t.Helper()
	w := &world{db: db, folder: filepath.Join(t.TempDir(), "blobs"), ctx: storetest.As("amal")}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	w.keys, err = seal.Open(filepath.Join(t.TempDir(), "keys"))
	must(err)
	d, err := dir.Open(w.folder)
	must(err)
	t.Cleanup(func() { d.Close() })
	w.blobs = blob.New(db, w.keys, d)
	w.engine, err = duckdb.New(duckdb.Config{Scratch: filepath.Join(t.TempDir(), "scratch")})
	must(err)
	t.Cleanup(func() { w.engine.Close() })
	w.cat, err = iceberg.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "catalog.db"), data.NewWarehouse(db, w.blobs))
	must(err)
	t.Cleanup(func() { w.cat.Close() })
	w.Service = data.New(db, w.blobs, w.engine, w.cat, w.keys.MAC, data.Limits{Unpacked: 64 << 20, Source: 1 << 20})
	return w
}

func each(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	storetest.Each(t, func(t *testing.T, db *store.Store) { fn(t, build(t, db)) })
}

func (w *world) define(t *testing.T, spec data.Spec) data.Dataset {
	t.Helper()
	d, err := w.Define(w.ctx, "flights", spec)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (w *world) add(t *testing.T, dataset, name, text string) {
	t.Helper()
	ref, err := w.blobs.Put(w.ctx, "flights", strings.NewReader(text))
	if err == nil {
		_, err = w.AddSource(w.ctx, "flights", dataset, name, ref.Digest)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) ingest(t *testing.T, dataset string) *data.Report {
	t.Helper()
	rep, err := w.Ingest(w.ctx, "flights", dataset, data.IngestRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func (w *world) rows(t *testing.T, sql string) []string {
	t.Helper()
	rows, err := w.Query(w.ctx, "flights", sql, 1000)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, r := range rows.Rows {
		out = append(out, string(r))
	}
	return out
}

// events lists what was announced as "type subject".
func (w *world) events(t *testing.T) (out []string) {
	t.Helper()
	all, err := w.db.Events(w.ctx, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		out = append(out, e.Type+" "+e.Subject)
	}
	return out
}

// month is a file of flights: rows every half an hour from the first day.
func month(m, rows int) string {
	var b strings.Builder
	b.WriteString("year,month,day,sched,origin,carrier,flight,tailnum,distance,arr_delay\n")
	for i := range rows {
		delay := fmt.Sprint(i%50 - 10)
		if i%17 == 0 {
			delay = "" // cancelled: no label
		}
		fmt.Fprintf(&b, "2013,%d,%d,%d,%s,UA,%d,N%d,%d,%s\n", m, 1+i/40, 500+100*(i%15)+30*(i/15%2), []string{"EWR", "JFK", "LGA"}[i%3], i, 100+i%9, 100+i, delay)
	}
	return b.String()
}

// replace changes one cell of one line (from 1, the header is 0) of a file.
func replace(text string, line, column int, value string) string {
	lines := strings.Split(text, "\n")
	cells := strings.Split(lines[line], ",")
	cells[column] = value
	lines[line] = strings.Join(cells, ",")
	return strings.Join(lines, "\n")
}

func flights() data.Spec {
	one := 1.0
	return data.Spec{Name: "flights", Source: &data.Source{Format: data.CSV, Patterns: []string{"data/flights/*.csv"}}, DeriveRef: "sql/flights.sql",
		Derive: `SELECT make_timestamp(year, month, day, sched // 100, sched % 100, 0) AT TIME ZONE 'America/New_York' AS sched_dep_at,
			CASE WHEN arr_delay IS NOT NULL THEN sched_dep_at + to_minutes(180 + arr_delay) END AS arr_at, origin, carrier, flight, tailnum, distance, arr_delay FROM source`,
		Key: []string{"carrier", "flight", "origin", "sched_dep_at"}, Time: data.Time{Event: "sched_dep_at", Known: "arr_at"},
		Contract: data.Contract{Columns: map[string]data.Rule{"origin": {In: []string{"EWR", "JFK", "LGA"}}, "distance": {Min: &one}, "tailnum": {Class: "identifier", Mask: data.MaskPseudonym}},
			Volume: data.Volume{Anomaly: data.ByMonth}}}
}

func TestFlightsBecomeVersions(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		d := w.define(t, flights())
		if again := w.define(t, flights()); again.Generation != 1 || cmp.Diff(d, again) != "" {
			t.Errorf("the same definition again changed something: %s", cmp.Diff(d, again))
		}
		if _, err := w.Ingest(w.ctx, "flights", "flights", data.IngestRequest{}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "no source files") {
			t.Errorf("an ingest without files gave %v", err)
		}
		w.add(t, "flights", "2013-01.csv", month(1, 300))
		w.add(t, "flights", "2013-02.csv", month(2, 280))
		var said []string
		rep, err := w.Ingest(w.ctx, "flights", "flights", data.IngestRequest{IdempotencyKey: "run-1", Progress: func(s string) { said = append(said, s) }})
		if err != nil {
			t.Fatal(err)
		}
		v := rep.Version
		if !rep.New || v.N != 1 || v.Rows != 580 || len(v.Files) != 2 || len(v.Sources) != 2 || v.PutAside != 0 || v.Periods["2013-02"] != 280 || v.By != "user:amal" || len(rep.Asides) != 0 {
			t.Errorf("version %+v", v)
		}
		if d := cmp.Diff([]string{"source.day", "source.month", "source.sched", "source.year"}, v.Lineage["sched_dep_at"]); d != "" {
			t.Errorf("lineage (-want +got) %s", d)
		}
		if len(said) != 3 {
			t.Errorf("progress %q", said)
		}
		if v.Profile.Rows != 580 || v.Profile.Column("arr_delay").Nulls != 35 {
			t.Errorf("profile %+v", v.Profile.Column("arr_delay"))
		}
		if again, err := w.Ingest(w.ctx, "flights", "flights", data.IngestRequest{IdempotencyKey: "run-1"}); err != nil || again.New || again.Version.ID != v.ID {
			t.Errorf("the same key made %+v, %v", again, err)
		}
		if again := w.ingest(t, "flights"); again.New || again.Version.ID != v.ID {
			t.Errorf("nothing to add made %+v", again)
		}
		w.add(t, "flights", "2013-03.csv", month(3, 310))
		second := w.ingest(t, "flights").Version
		if second.N != 2 || second.Rows != 890 || second.Previous != 1 || len(second.Files) != 3 || second.Table != v.Table || second.Profile.Rows != 890 {
			t.Errorf("second version %+v", second)
		}
		for n, want := range map[int64]string{1: `{"n":580}`, 2: `{"n":890}`} {
			laid, err := w.Files(w.ctx, "flights", "flights", n)
			if err != nil {
				t.Fatal(err)
			}
			rows, err := w.engine.Query(w.ctx, data.QueryJob{Dir: laid.Room.Dir, SQL: "SELECT count(*) AS n FROM flights", Inputs: laid.Inputs})
			if err != nil || string(rows.Rows[0]) != want {
				t.Errorf("version %d: %s, %v", n, rows.Rows, err)
			}
			if err := laid.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(laid.Room.Dir); err == nil {
				t.Error("decrypted files stay after Close")
			}
		}
		if d := cmp.Diff([]string{"dataset.defined flights", "source.added flights", "source.added flights", "dataset.version.created flights/1", "source.added flights", "dataset.version.created flights/2"}, w.events(t)); d != "" {
			t.Errorf("events (-want +got) %s", d)
		}
		all, err := w.Versions(w.ctx, "flights", "flights", 0, 10)
		if err != nil || len(all) != 2 || all[0].N != 2 || all[0].Profile != nil {
			t.Errorf("versions %v, %v", all, err)
		}
		if byID, err := w.VersionByID(w.ctx, "flights", v.ID); err != nil || byID.N != 1 || byID.Digest != v.Digest {
			t.Errorf("%+v, %v", byID, err)
		}
	})
}

// The same content gives the same digest on another installation, whatever the database or the order of upload.
func TestDigestIsOfTheContent(t *testing.T) {
	t.Parallel()
	var got []string
	for i, db := range []*store.Store{storetest.SQLite(t), storetest.Postgres(t)} {
		w := build(t, db)
		w.define(t, flights())
		files := []string{"2013-01.csv", "2013-02.csv"}
		if i == 1 {
			slices.Reverse(files)
		}
		for _, f := range files {
			w.add(t, "flights", f, month(int(f[6]-'0'), 100))
			w.ingest(t, "flights")
		}
		v, err := w.Version(w.ctx, "flights", "flights", 0)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, v.Digest)
	}
	if got[0] != got[1] {
		t.Errorf("two digests of the same content: %v", got)
	}
}

func TestQuarantine(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.define(t, flights())
		w.add(t, "flights", "2013-01.csv", month(1, 300))
		some := replace(replace(month(2, 300), 5, 4, "XXX"), 9, 8, "-3")
		w.add(t, "flights", "2013-02.csv", some)
		rep := w.ingest(t, "flights")
		if rep.Version.Rows != 598 || rep.Version.PutAside != 2 || len(rep.Asides) != 1 || rep.Asides[0].Whole || !strings.Contains(rep.Asides[0].Reason, "2 of 300 rows (0.7 %) break the contract and were put aside: origin must be one of EWR, JFK, LGA (1 row); distance must be at least 1 (1 row)") {
			t.Fatalf("%+v", rep)
		}
		rows, err := w.QuarantineRows(w.ctx, "flights", rep.Asides[0].ID, 10)
		if err != nil || len(rows) != 2 {
			t.Fatalf("%+v, %v", rows, err)
		}
		all := fmt.Sprintf("%v", rows)
		if !strings.Contains(all, "origin: must be one of EWR, JFK, LGA, is XXX") || !strings.Contains(all, "distance: must be at least 1, is -3") {
			t.Errorf("reasons %s", all)
		}
		var record map[string]any
		if err := json.Unmarshal(rows[0].Record, &record); err != nil {
			t.Fatal(err)
		}
		if tail, _ := record["tailnum"].(string); !strings.HasPrefix(tail, "p_") || record["origin"] == nil {
			t.Errorf("the masked column shows %v", record["tailnum"])
		}
		// The poisoned file: more rows break the contract than it allows, so nothing of it enters.
		poison := month(3, 300)
		for line := 1; line <= 60; line++ {
			poison = replace(poison, line, 8, "far away")
		}
		w.add(t, "flights", "2013-03.csv", poison)
		w.add(t, "flights", "2013-04.csv", "year,month\n2013,4\n")
		w.add(t, "flights", "2013-05.csv", month(5, 300)+"2013,5\n")
		rep = w.ingest(t, "flights")
		if rep.New || rep.Version.N != 1 || len(rep.Asides) != 3 {
			t.Fatalf("%+v", rep)
		}
		for i, words := range []string{"60 of 300 rows (20 %) break the contract, 5 % are allowed: distance must be a value of type bigint (60 rows)", "2013-04.csv lacks columns day, sched", "2013-05.csv, line 302, column 3: it has 2 values where the header names 10 columns"} {
			if a := rep.Asides[i]; !a.Whole || !strings.Contains(a.Reason, words) {
				t.Errorf("aside %d: %+v, want %q", i, a, words)
			}
		}
		rows, err = w.QuarantineRows(w.ctx, "flights", rep.Asides[0].ID, 1000)
		if err != nil || len(rows) != 60 || rows[0].Row != 1 || !strings.Contains(rows[0].Reasons[0], "distance: must be a value of type bigint, is far away") || !strings.Contains(string(rows[0].Record), `"far away"`) {
			t.Errorf("%d rows, %v", len(rows), err)
		}
		if rows, err := w.QuarantineRows(w.ctx, "flights", rep.Asides[1].ID, 10); err != nil || len(rows) != 0 {
			t.Errorf("a file that could not be read has rows %v, %v", rows, err)
		}
		// Asked again it is not read again; corrected under its name it is.
		if again := w.ingest(t, "flights"); len(again.Asides) != 0 || again.New {
			t.Errorf("%+v", again)
		}
		w.add(t, "flights", "2013-03.csv", month(3, 300))
		if rep = w.ingest(t, "flights"); !rep.New || rep.Version.Rows != 898 || len(rep.Asides) != 0 {
			t.Errorf("%+v", rep)
		}
		list, err := w.Quarantines(w.ctx, "flights", "flights", 0)
		if err != nil || len(list) != 4 {
			t.Errorf("%d quarantines, %v", len(list), err)
		}
		n := 0
		for _, e := range w.events(t) {
			if e == "data.quarantined flights" {
				n++
			}
		}
		if n != 4 {
			t.Errorf("%d events of %v", n, w.events(t))
		}
		sources, err := w.Sources(w.ctx, "flights", "flights")
		if err != nil {
			t.Fatal(err)
		}
		states := ""
		for _, s := range sources {
			states += s.State + " "
		}
		if states != "accepted accepted accepted refused refused " {
			t.Errorf("sources are %s", states)
		}
		if _, err := w.AddSource(w.ctx, "flights", "flights", "2013-01.csv", sources[1].Digest); !fault.Is(err, fault.Conflict) {
			t.Errorf("accepted content was replaced: %v", err)
		}
	})
}

func TestVolume(t *testing.T) {
	t.Parallel()
	w := build(t, storetest.SQLite(t))
	w.define(t, flights())
	for m, n := range []int{300, 280, 310, 295} {
		w.add(t, "flights", fmt.Sprintf("2013-%02d.csv", m+1), month(m+1, n))
	}
	w.ingest(t, "flights")
	w.add(t, "flights", "2013-05.csv", month(5, 40))
	rep := w.ingest(t, "flights")
	if rep.New || len(rep.Asides) != 1 || !strings.Contains(rep.Asides[0].Reason, "2013-05 has 40 rows, and the months before have about 298") {
		t.Errorf("%+v", rep)
	}
}

func TestNothingAccepted(t *testing.T) {
	t.Parallel()
	w := build(t, storetest.SQLite(t))
	spec := flights()
	spec.Contract.OnViolation = data.Block
	w.define(t, spec)
	w.add(t, "flights", "a.csv", replace(month(1, 50), 1, 4, "XXX"))
	for range 2 { // the second call reads nothing and says the same
		rep, err := w.Ingest(w.ctx, "flights", "flights", data.IngestRequest{})
		if !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), "blocks on the first") {
			t.Errorf("%+v, %v", rep, err)
		}
	}
	// A definition that does not fit is not the file's fault: nothing is put aside.
	spec.Derive = "SELECT nothing FROM source"
	w.define(t, spec)
	if _, err := w.Ingest(w.ctx, "flights", "flights", data.IngestRequest{}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `sql/flights.sql, line 1: Referenced column "nothing" not found`) {
		t.Errorf("got %v", err)
	}
	if list, _ := w.Quarantines(w.ctx, "flights", "", 0); len(list) != 1 {
		t.Errorf("%d quarantines", len(list))
	}
}

func TestDerive(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.define(t, flights())
		w.define(t, data.Spec{Name: "departures", SQL: "SELECT origin, date_trunc('day', sched_dep_at) AS day, count(*) AS n, avg(arr_delay) AS delay FROM flights GROUP BY ALL", SQLRef: "sql/departures.sql",
			Key: []string{"origin", "day"}, Time: data.Time{Event: "day"}})
		if _, err := w.Derive(w.ctx, "flights", "departures", data.DeriveRequest{}); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "flights, which has no version yet") {
			t.Errorf("got %v", err)
		}
		w.add(t, "flights", "2013-01.csv", month(1, 300))
		one := w.ingest(t, "flights").Version
		rep, err := w.Derive(w.ctx, "flights", "departures", data.DeriveRequest{})
		if err != nil {
			t.Fatal(err)
		}
		v := rep.Version
		want := []data.Parent{{Dataset: "flights", N: 1, ID: one.ID, Digest: one.Digest}}
		if d := cmp.Diff(want, v.Parents); d != "" || v.N != 1 || !rep.New || v.Rows == 0 {
			t.Errorf("%+v, parents (-want +got) %s", rep, d)
		}
		if d := cmp.Diff([]string{"flights.sched_dep_at"}, v.Lineage["day"]); d != "" {
			t.Errorf("lineage (-want +got) %s", d)
		}
		if again, err := w.Derive(w.ctx, "flights", "departures", data.DeriveRequest{}); err != nil || again.New || again.Version.ID != v.ID {
			t.Errorf("the same parents made %+v, %v", again, err)
		}
		before := w.rows(t, "SELECT sum(n) AS n FROM departures")
		w.add(t, "flights", "2013-02.csv", month(2, 100))
		w.ingest(t, "flights")
		rep, err = w.Derive(w.ctx, "flights", "departures", data.DeriveRequest{})
		if err != nil || !rep.New || rep.Version.N != 2 || len(rep.Version.Files) != 1 {
			t.Fatalf("%+v, %v", rep, err)
		}
		if d := cmp.Diff([]string{`{"n":300}`, `{"n":400}`}, append(before, w.rows(t, "SELECT sum(n) AS n FROM departures")...)); d != "" {
			t.Errorf("content (-want +got) %s", d)
		}
		laid, err := w.Tables(w.ctx, "flights", []string{"SELECT d.n, f.distance FROM departures d JOIN flights f ON d.origin = f.origin"}, map[string]int64{"departures": 1})
		if err != nil {
			t.Fatal(err)
		}
		defer laid.Close()
		if len(laid.Pins) != 2 || laid.Pins[0].N != 1 || laid.Pins[1].N != 2 || laid.Pins[1].Dataset != "flights" {
			t.Errorf("pins %+v", laid.Pins)
		}
		if _, err := w.Trace(w.ctx, "flights", "SELECT\norigin,\ncarier FROM flights", "x.sql"); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "x.sql, line 3") {
			t.Errorf("got %v", err)
		}
	})
}

func TestNewDefinition(t *testing.T) {
	t.Parallel()
	w := build(t, storetest.SQLite(t))
	spec := flights()
	w.define(t, spec)
	w.add(t, "flights", "2013-01.csv", month(1, 100))
	first := w.ingest(t, "flights").Version
	spec.Contract.Columns = map[string]data.Rule{"tailnum": {Mask: data.MaskRedact}, "origin": spec.Contract.Columns["origin"], "distance": spec.Contract.Columns["distance"]}
	if d := w.define(t, spec); d.Generation != 1 {
		t.Error("another mask made another generation")
	}
	spec.Derive = strings.Replace(spec.Derive, "carrier,", "carrier, lower(origin) AS port,", 1)
	if d := w.define(t, spec); d.Generation != 2 {
		t.Error("other columns made no generation")
	}
	v := w.ingest(t, "flights").Version
	if v.N != 2 || v.Generation != 2 || v.Rows != 100 || v.Table == first.Table || len(v.Columns) != len(first.Columns)+1 {
		t.Errorf("%+v", v)
	}
	laid, err := w.Files(w.ctx, "flights", "flights", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer laid.Close()
	if d := cmp.Diff(first.Columns, laid.Inputs["flights"].Columns); d != "" {
		t.Errorf("the old version changed (-want +got) %s", d)
	}
}

func TestMasks(t *testing.T) {
	t.Parallel()
	w := build(t, storetest.SQLite(t))
	w.define(t, flights())
	w.add(t, "flights", "2013-01.csv", month(1, 60))
	w.ingest(t, "flights")
	secret := func(what string, v any) {
		t.Helper()
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 9 {
			if bytes.Contains(b, fmt.Appendf(nil, `"N%d"`, 100+i)) {
				t.Errorf("%s shows a masked value: %.300s", what, b)
				return
			}
		}
		if !bytes.Contains(b, []byte(`"p_`)) {
			t.Errorf("%s shows no pseudonym: %.300s", what, b)
		}
	}
	v, err := w.Version(w.ctx, "flights", "flights", 0)
	if err != nil {
		t.Fatal(err)
	}
	secret("the profile", v.Profile)
	rows, err := w.Preview(w.ctx, "flights", "flights", 0, 10)
	if err != nil || len(rows.Rows) != 10 || !rows.More {
		t.Fatalf("%+v, %v", rows, err)
	}
	secret("the preview", rows.Rows)
	secret("a query", w.rows(t, "SELECT lower(tailnum) AS plane, upper(tailnum) || '' AS again FROM flights"))
	if got := w.rows(t, "SELECT count(DISTINCT tailnum) AS planes, min(distance) AS d FROM flights"); !strings.HasPrefix(got[0], `{"planes":"p_`) || !strings.HasSuffix(got[0], `"d":100}`) {
		t.Errorf("what is made of a masked column is not masked, or too much is: %s", got)
	}
	raw, err := w.Profile(w.ctx, "flights", "flights", 1)
	if err != nil {
		t.Fatal(err)
	}
	secret("the profile for figures", raw)
	if d := cmp.Diff(v.Profile, raw); d != "" {
		t.Errorf("shown and kept differ, so a token was made of a token: %s", d)
	}
}

// stumble is the real catalog with a power cut after a commit.
type stumble struct {
	data.Tables
	once bool
}

func (s *stumble) Commit(ctx context.Context, c data.Commit) (data.Snapshot, error) {
	snap, err := s.Tables.Commit(ctx, c)
	if err == nil && !s.once {
		s.once = true
		return snap, errors.New("power cut")
	}
	return snap, err
}

func TestInterrupted(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.define(t, flights())
		w.add(t, "flights", "2013-01.csv", month(1, 100))
		broken := data.New(w.db, w.blobs, w.engine, &stumble{Tables: w.cat}, w.keys.MAC, data.Limits{})
		if _, err := broken.Ingest(w.ctx, "flights", "flights", data.IngestRequest{}); err == nil {
			t.Fatal("the power cut did not come")
		}
		if _, err := w.Version(w.ctx, "flights", "flights", 0); !fault.Is(err, fault.NotFound) {
			t.Errorf("half a version is visible: %v", err)
		}
		w.add(t, "flights", "2013-02.csv", month(2, 100)) // the next call commits something else
		v := w.ingest(t, "flights").Version
		if v.N != 1 || v.Rows != 200 {
			t.Errorf("%+v", v)
		}
		if got := w.rows(t, "SELECT count(*) AS n, count(DISTINCT flight) AS f FROM flights"); got[0] != `{"n":200,"f":100}` {
			t.Errorf("rows doubled or lost: %s", got)
		}
		// Two servers at once: one of them is told to go again.
		w.add(t, "flights", "2013-03.csv", month(3, 100))
		other := data.New(w.db, w.blobs, w.engine, w.cat, w.keys.MAC, data.Limits{})
		done := make(chan error, 2)
		for _, s := range []*data.Service{w.Service, other} {
			go func() {
				_, err := s.Ingest(w.ctx, "flights", "flights", data.IngestRequest{})
				done <- err
			}()
		}
		for range 2 {
			if err := <-done; err != nil && !fault.Is(err, fault.Conflict) {
				t.Error(err)
			}
		}
		v, err := w.Version(w.ctx, "flights", "flights", 0)
		if err != nil || v.N != 2 || v.Rows != 300 {
			t.Errorf("%+v, %v", v.N, err)
		}
		if got := w.rows(t, "SELECT count(*) AS n FROM flights"); got[0] != `{"n":300}` {
			t.Errorf("rows doubled or lost: %s", got)
		}
	})
}

func TestSweep(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.define(t, flights())
		w.add(t, "flights", "2013-01.csv", replace(month(1, 100), 3, 4, "XXX"))
		broken := data.New(w.db, w.blobs, w.engine, &stumble{Tables: w.cat}, w.keys.MAC, data.Limits{})
		if _, err := broken.Ingest(w.ctx, "flights", "flights", data.IngestRequest{}); err == nil {
			t.Fatal("the power cut did not come")
		}
		if n, err := w.Sweep(w.ctx, 1<<40); err != nil || n != 0 {
			t.Errorf("a young file was swept: %d, %v", n, err)
		}
		// The data file and nothing else: the catalog still names its metadata, the quarantine its rows.
		if n, err := w.Sweep(w.ctx, 0); err != nil || n != 1 {
			t.Errorf("swept %d, %v", n, err)
		}
		v := w.ingest(t, "flights").Version
		if got := w.rows(t, "SELECT count(*) AS n FROM flights"); got[0] != `{"n":99}` || v.N != 1 {
			t.Errorf("after a sweep: %s", got)
		}
		if _, err := w.Sweep(w.ctx, 0); err != nil {
			t.Fatal(err)
		}
		if got := w.rows(t, "SELECT count(*) AS n FROM flights"); got[0] != `{"n":99}` {
			t.Errorf("a sweep took what a version names: %s", got)
		}
	})
}

func zipped(t *testing.T, files map[string]io.Reader) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, r := range files {
		f, err := z.Create(name)
		if err == nil {
			_, err = io.Copy(f, r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestZip(t *testing.T) {
	t.Parallel()
	w := build(t, storetest.SQLite(t))
	w.define(t, flights())
	w.add(t, "flights", "a.csv.zip", zipped(t, map[string]io.Reader{"../../etc/a.csv": strings.NewReader(month(1, 100))}))
	if v := w.ingest(t, "flights").Version; v.Rows != 100 {
		t.Errorf("%+v", v)
	}
	w.add(t, "flights", "bomb.zip", zipped(t, map[string]io.Reader{"a.csv": io.LimitReader(zeros{}, 70<<20)}))
	w.add(t, "flights", "none.zip", "PK\x03\x04 and no more of it")
	w.add(t, "flights", "two.zip", zipped(t, map[string]io.Reader{"a.csv": strings.NewReader("a"), "b.csv": strings.NewReader("b")}))
	rep := w.ingest(t, "flights")
	var got []string
	for _, a := range rep.Asides {
		got = append(got, a.Reason)
	}
	if len(got) != 3 || !strings.Contains(got[0], "bomb") || !strings.Contains(got[1], "is not one") || !strings.Contains(got[2], "holds 2 files") {
		t.Errorf("%q", got)
	}
	ref, err := w.blobs.Put(w.ctx, "flights", io.LimitReader(zeros{}, 2<<20))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.AddSource(w.ctx, "flights", "flights", "big.csv", ref.Digest); !fault.Is(err, fault.TooLarge) {
		t.Errorf("an oversized source gave %v", err)
	}
	for _, name := range []string{"../x.csv", "/x.csv", "", "a\\b", "a/./b"} {
		if _, err := w.AddSource(w.ctx, "flights", "flights", name, ref.Digest); !fault.Is(err, fault.Invalid) {
			t.Errorf("source name %q gave %v", name, err)
		}
	}
}

func TestDenied(t *testing.T) {
	t.Parallel()
	w := build(t, storetest.SQLite(t))
	w.define(t, flights())
	w.add(t, "flights", "2013-01.csv", month(1, 10))
	if _, err := w.Ingest(storetest.As("vera"), "flights", "flights", data.IngestRequest{}); !fault.Is(err, fault.Denied) {
		t.Errorf("a viewer's ingest gave %v", err)
	}
	if _, err := w.Define(storetest.As("vera"), "flights", data.Spec{Name: "x", SQL: "SELECT 1 AS a"}); !fault.Is(err, fault.Denied) {
		t.Errorf("a viewer's definition gave %v", err)
	}
}

func TestSpecCheck(t *testing.T) {
	t.Parallel()
	for field, set := range map[string]func(*data.Spec){
		"name":                                        func(s *data.Spec) { s.Name = "source" },
		"datasets.flights.source":                     func(s *data.Spec) { s.SQL = "SELECT 1" },
		"datasets.flights.source.delim":               func(s *data.Spec) { s.Source.Delim = ";;" },
		"datasets.flights.time.event":                 func(s *data.Spec) { s.Time.Event = "" },
		"datasets.flights.contract.on_violation":      func(s *data.Spec) { s.Contract.OnViolation = "panic" },
		"datasets.flights.contract.columns.a.type":    func(s *data.Spec) { s.Contract.Columns["a"] = data.Rule{Type: "money"} },
		"datasets.flights.contract.columns.a.mask":    func(s *data.Spec) { s.Contract.Columns["a"] = data.Rule{Mask: "hash"} },
		"datasets.flights.contract.columns.a.pattern": func(s *data.Spec) { s.Contract.Columns["a"] = data.Rule{Pattern: "("} },
		"datasets.flights.contract.volume.anomaly":    func(s *data.Spec) { s.Contract.Volume.Anomaly = "by hour" },
	} {
		s := flights()
		set(&s)
		if err := s.Check(); err == nil || fault.From(err).Field != field || fault.From(err).Next == "" {
			t.Errorf("%s: got %v at %q", field, err, fault.From(err).Field)
		}
	}
	s := flights()
	if err := s.Check(); err != nil {
		t.Error(err)
	}
}

func TestGlob(t *testing.T) {
	t.Parallel()
	fsys := fstest.MapFS{"data/2013-01.csv": {}, "data/2013-02.csv": {}, "data/x.txt": {}, "data/2013-dir.csv/a": {}}
	if got, err := data.Glob(fsys, "./data/2013-*.csv"); err != nil || cmp.Diff([]string{"data/2013-01.csv", "data/2013-02.csv"}, got) != "" {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"data/2014-*.csv", "../data/*", "/etc/*", "data/[", "data/../../x"} {
		if got, err := data.Glob(fsys, bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q gave %v, %v", bad, got, err)
		}
	}
}

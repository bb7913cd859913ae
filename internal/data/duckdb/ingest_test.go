package duckdb_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/data"
	"falaj/internal/data/duckdb"
	"falaj/internal/kernel/fault"
)

func num(f float64) *float64 { return &f }

// job is a CSV ingest of text in a fresh room.
func job(t *testing.T, e *duckdb.Engine, name, text string) data.IngestJob {
	t.Helper()
	r := newRoom(t, e)
	return data.IngestJob{Dir: r.Dir, Path: put(t, r, "source", text), Name: name, Format: data.CSV, Out: r.Path("out.parquet"), Bad: r.Path("bad.parquet"), DeriveRef: "sql/derive.sql"}
}

const flights = `origin,flight,sched,tail,distance,delay
EWR,0012,2013-01-01T10:00:00Z,N1,1400,11
LGA,0007,2013-01-01 05:00:00-05,,1416,
JFK,0001,2013-02-01T10:00:00Z,N3,1089,-2.5
`

func TestIngestFirstFile(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil)
	j := job(t, e, "a.csv", flights)
	j.Key, j.Time = []string{"origin", "flight", "sched"}, data.Time{Event: "sched"}
	res, err := e.Ingest(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	lo, hi := int64(1357034400000000), int64(1359712800000000)
	want := &data.IngestResult{Accepted: true, Read: 3, Good: 3,
		Source: []data.Column{{Name: "origin", Type: "VARCHAR"}, {Name: "flight", Type: "VARCHAR"}, {Name: "sched", Type: "TIMESTAMP WITH TIME ZONE"},
			{Name: "tail", Type: "VARCHAR"}, {Name: "distance", Type: "BIGINT"}, {Name: "delay", Type: "DOUBLE"}},
		Checks: []data.CheckResult{{Check: "not_null", Column: "origin", Rule: "present"}, {Check: "not_null", Column: "flight", Rule: "present"},
			{Check: "not_null", Column: "sched", Rule: "present"}, {Check: "unique", Column: "origin, flight, sched", Rule: "one row for each key"}},
		Periods: map[string]int64{"2013-01": 2, "2013-02": 1}, EventMin: &lo, EventMax: &hi}
	want.Columns = want.Source
	if d := cmp.Diff(want, res); d != "" {
		t.Errorf("(-want +got) %s", d)
	}
	if d := cmp.Diff([]string{
		`{"origin":"EWR","flight":"0012","sched":"2013-01-01T10:00:00.000000Z","tail":"N1","distance":1400,"delay":11.0}`,
		`{"origin":"JFK","flight":"0001","sched":"2013-02-01T10:00:00.000000Z","tail":"N3","distance":1089,"delay":-2.5}`,
		`{"origin":"LGA","flight":"0007","sched":"2013-01-01T10:00:00.000000Z","tail":null,"distance":1416,"delay":null}`,
	}, look(t, e, &data.Room{Dir: j.Dir}, "FROM t", j.Out)); d != "" {
		t.Errorf("rows (-want +got) %s", d)
	}
	// The same rows in another order are the same bytes.
	lines := strings.Split(strings.TrimSpace(flights), "\n")
	again := job(t, e, "b.csv", strings.Join([]string{lines[0], lines[3], lines[2], lines[1], ""}, "\n"))
	again.Key = j.Key
	if _, err := e.Ingest(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	a, _ := os.ReadFile(j.Out)
	b, _ := os.ReadFile(again.Out)
	if len(a) == 0 || !bytes.Equal(a, b) {
		t.Error("the order of the source shows in the bytes of the dataset")
	}
}

func TestIngestDerive(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil)
	j := job(t, e, "a.csv", "y,m,d,hm,origin\n2013,1,1,515,EWR\n2013,7,1,1730,EWR\n")
	j.Derive = `SELECT origin, make_timestamp(y, m, d, hm // 100, hm % 100, 0) AT TIME ZONE 'America/New_York' AS at FROM source`
	j.Key, j.Time = []string{"origin", "at"}, data.Time{Event: "at", Known: "at"}
	if _, err := e.Ingest(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{`{"origin":"EWR","at":"2013-01-01T10:15:00.000000Z"}`, `{"origin":"EWR","at":"2013-07-01T21:30:00.000000Z"}`},
		look(t, e, &data.Room{Dir: j.Dir}, "FROM t", j.Out)); d != "" {
		t.Errorf("rows (-want +got) %s", d)
	}
	j.Out, j.Derive = j.Out+"2", "SELECT origin,\n  att FROM source"
	_, err := e.Ingest(t.Context(), j)
	wantFault(t, err, fault.Invalid, "sql/derive.sql, line 2", `"att"`, "Did you mean")
}

func TestIngestContract(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil)
	text := "id,origin,distance,code,score\n" +
		"1,EWR,100,A1,1\n2,XXX,100,A1,1\n3,EWR,0,A1,1\n4,EWR,100,zz,1\n5,EWR,,A1,1\n6,EWR,100,A1,nan\n1,JFK,5,A2,2\n7,JFK,far,A1,1\n,JFK,5,A1,1\n8,JFK,2.5,A1,1\n9,JFK,9,A1,11\n10,LGA,3,,\n"
	contract := data.Contract{Columns: map[string]data.Rule{
		"origin": {In: []string{"EWR", "JFK", "LGA"}}, "distance": {Type: "integer", Min: num(1), NotNull: true},
		"code": {Pattern: "[A-Z][0-9]"}, "score": {Max: num(10)},
	}}
	for _, c := range []struct {
		mode     string
		limit    float64
		accepted bool
		good     int64
		refusal  string
	}{
		{data.Quarantine, 0.9, true, 2, ""},
		{"", 0, false, 0, "10 of 12 rows (83.3 %) break the contract, 5 % are allowed"},
		{data.Block, 0.9, false, 0, "10 of 12 rows (83.3 %) break the contract, and it blocks on the first"},
		{data.Warn, 0, true, 10, ""}, // two rows have no value of the type and cannot stay
	} {
		t.Run(c.mode, func(t *testing.T) {
			t.Parallel()
			j := job(t, e, "a.csv", text)
			j.Key, j.Contract = []string{"id"}, contract
			j.Contract.OnViolation, j.Contract.MaxViolating = c.mode, c.limit
			res, err := e.Ingest(t.Context(), j)
			if err != nil {
				t.Fatal(err)
			}
			if res.Accepted != c.accepted || res.Good != c.good || res.Bad != 10 || res.Read != 12 {
				t.Errorf("accepted %v good %d bad %d read %d (%s)", res.Accepted, res.Good, res.Bad, res.Read, res.Refusal)
			}
			if c.refusal != "" && !strings.Contains(res.Refusal, c.refusal) {
				t.Errorf("refusal %q", res.Refusal)
			}
			broken := map[string]int64{}
			for _, ch := range res.Checks {
				if ch.Rows > 0 {
					broken[ch.Check+" "+ch.Column] = ch.Rows
				}
			}
			want := map[string]int64{"type distance": 2, "in origin": 1, "min distance": 1, "not_null distance": 1, "pattern code": 1, "finite score": 1, "max score": 1, "not_null id": 1, "unique id": 1}
			if d := cmp.Diff(want, broken); d != "" {
				t.Errorf("checks (-want +got) %s", d)
			}
			if _, err := os.Stat(j.Out); (err == nil) != c.accepted {
				t.Errorf("output there: %v", err)
			}
			got := look(t, e, &data.Room{Dir: j.Dir}, "SELECT row, reasons[1] AS reason, record FROM t", j.Bad)
			if len(got) != 10 {
				t.Fatalf("%d rows aside: %s", len(got), got)
			}
			var first struct {
				Row            int
				Reason, Record string
			}
			if err := json.Unmarshal([]byte(got[0]), &first); err != nil {
				t.Fatal(err)
			}
			if first.Row != 2 || first.Reason != "origin: must be one of EWR, JFK, LGA, is XXX" || first.Record != `{"id":2,"origin":"XXX","distance":100,"code":"A1","score":1.0}` {
				t.Errorf("first row aside: %+v", first)
			}
			if i := slices.IndexFunc(got, func(s string) bool {
				return strings.Contains(s, "must be a value of type bigint, is far") && strings.Contains(s, `\"distance\":\"far\"`)
			}); i < 0 {
				t.Errorf("the value that is no number is not shown as it was: %s", got)
			}
		})
	}
}

func TestIngestLaterFiles(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil)
	first := job(t, e, "a.csv", "k,v\n1,10\n2,20\n")
	first.Key = []string{"k"}
	res, err := e.Ingest(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	later := func(name, text string) data.IngestJob {
		j := job(t, e, name, text)
		j.Key, j.Source, j.Expect, j.Existing = first.Key, res.Source, res.Columns, []string{first.Out}
		j.Contract.MaxViolating = 0.6
		return j
	}
	j := later("b.csv", "v,k\n30,3\n20,2\n40,3\n")
	got, err := e.Ingest(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	if got.Accepted {
		t.Errorf("two of three rows are doubles, above 0.6: %+v", got)
	}
	if d := cmp.Diff([]string{`{"reasons":["unique: this key stands in an accepted file already"],"row":2,"record":"{\"k\":2,\"v\":20}"}`,
		`{"reasons":["unique: this key stands in this file already"],"row":3,"record":"{\"k\":3,\"v\":40}"}`},
		look(t, e, &data.Room{Dir: j.Dir}, "FROM t", j.Bad)); d != "" {
		t.Errorf("aside (-want +got) %s", d)
	}
	_, err = e.Ingest(t.Context(), later("c.csv", "k,w\n1,1\n"))
	wantFault(t, err, fault.Invalid, "c.csv lacks column v and has unknown column w.", "k, v")
	_, err = e.Ingest(t.Context(), later("e.csv", "k,quite_another\n1,1\n"))
	wantFault(t, err, fault.Invalid, "e.csv lacks column v and has unknown column quite_another.", "k, v")
	j = job(t, e, "typo.csv", "k,delya\n1,1\n")
	j.Source = []data.Column{{Name: "k", Type: "BIGINT"}, {Name: "delay", Type: "BIGINT"}}
	_, err = e.Ingest(t.Context(), j)
	wantFault(t, err, fault.Invalid, "typo.csv lacks column delay and has unknown column delya. Is delya meant to be delay?")
	// 4.0 is a whole number and 4.5 is not: nothing is rounded.
	j = later("d.csv", "k,v\n4.0,40\n5,4.5\n")
	if got, err = e.Ingest(t.Context(), j); err != nil || !got.Accepted || got.Good != 1 || got.Bad != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestMalformed(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil)
	for _, c := range []struct {
		name, text, format string
		words              []string
	}{
		{"short line", "a,b,c\n1,2,3\n4,5\n", data.CSV, []string{"x.csv, line 3, column 3", "2 values", "3 columns"}},
		{"long line", "a,b\n1,2\n4,5,6\n", data.CSV, []string{"x.csv, line 3, column 3", "3 values"}},
		{"open quote", "a,b\n1,2\n4,\"5\n6,7\n", data.CSV, []string{"x.csv, line 3, column 2", "does not end"}},
		{"not utf-8", "a,b\n1,\xff\xfe\n", data.CSV, []string{"x.csv, line 2", "UTF-8"}},
		{"empty", "", data.CSV, []string{"x.csv is empty"}},
		{"header only", "a,b\n", data.CSV, []string{"no rows"}},
		{"two equal names", "a,b,A\n1,2,3\n", data.CSV, []string{"columns 1 and 3 are both called A"}},
		{"no name", "a,,c\n1,2,3\n", data.CSV, []string{"line 1, column 2"}},
		{"json", `{"a": 1}{"a": `, data.JSON, []string{"x.csv cannot be read as json"}},
		{"parquet", "PAR1 this is not Parquet at all PAR1", data.Parquet, []string{"x.csv cannot be read as parquet"}},
		{"format", "a\n1\n", "xlsx", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			j := job(t, e, "x.csv", c.text)
			j.Format = c.format
			_, err := e.Ingest(t.Context(), j)
			kind := fault.Invalid
			if c.format == "xlsx" {
				kind = fault.Unsupported
			}
			wantFault(t, err, kind, c.words...)
		})
	}
	for _, c := range []struct {
		name  string
		set   func(*data.IngestJob)
		words []string
	}{
		{"key", func(j *data.IngestJob) { j.Key = []string{"nokey"} }, []string{"names column nokey", "a, b"}},
		{"case", func(j *data.IngestJob) { j.Contract.Columns = map[string]data.Rule{"B": {NotNull: true}} }, []string{"names column B, and it is called b"}},
		{"time", func(j *data.IngestJob) { j.Time.Event = "a" }, []string{"Column a is BIGINT", "timestamp or a date"}},
		{"min of text", func(j *data.IngestJob) { j.Contract.Columns = map[string]data.Rule{"b": {Min: num(1)}} }, []string{"Column b is VARCHAR", "numbers"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			j := job(t, e, "x.csv", "a,b\n1,x\n")
			c.set(&j)
			_, err := e.Ingest(t.Context(), j)
			wantFault(t, err, fault.Invalid, c.words...)
		})
	}
}

func TestIngestFormats(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil)
	for format, text := range map[string]string{
		data.CSV:  "\ufeffa;b\n1;NA\n2;x\n",
		data.JSON: "{\"a\": 1, \"b\": null}\n{\"a\": 2, \"b\": \"x\"}\n",
	} {
		j := job(t, e, "x", text)
		j.Format, j.Delim, j.Null = format, ";", []string{"NA"}
		res, err := e.Ingest(t.Context(), j)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]data.Column{{Name: "a", Type: "BIGINT"}, {Name: "b", Type: "VARCHAR"}}, res.Columns); d != "" {
			t.Errorf("%s (-want +got) %s", format, d)
		}
		want := []string{`{"a":1,"b":null}`, `{"a":2,"b":"x"}`}
		if d := cmp.Diff(want, look(t, e, &data.Room{Dir: j.Dir}, "FROM t", j.Out)); d != "" {
			t.Errorf("%s (-want +got) %s", format, d)
		}
		again := data.IngestJob{Dir: j.Dir, Path: j.Out, Name: "y", Format: data.Parquet, Source: res.Source, Expect: res.Columns, Out: j.Out + "2", Bad: j.Bad + "2"}
		if _, err := e.Ingest(t.Context(), again); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, look(t, e, &data.Room{Dir: j.Dir}, "FROM t", again.Out)); d != "" {
			t.Errorf("parquet of %s (-want +got) %s", format, d)
		}
	}
}

func TestProfile(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil)
	r := newRoom(t, e)
	out := r.Path("p.parquet")
	res, err := e.Transform(t.Context(), data.TransformJob{Dir: r.Dir, Out: out, Profile: true, SQL: `SELECT i AS n, CASE WHEN i % 10 = 0 THEN NULL WHEN i = 1 THEN 'nan'::DOUBLE ELSE i::DOUBLE END AS d,
		to_timestamp(i) AS at, CASE WHEN i < 700 THEN 'a' ELSE 'b' END AS s, i < 100 AS b, 5 AS c, DATE '1970-01-02' AS day FROM range(1000) g(i)`})
	if err != nil {
		t.Fatal(err)
	}
	p := res.Profile
	n, d, at, s, b, c := p.Column("n"), p.Column("d"), p.Column("at"), p.Column("s"), p.Column("b"), p.Column("c")
	if p.Rows != 1000 || *n.Min != 0 || *n.Max != 999 || *n.Mean != 499.5 || fmt.Sprintf("%.4f", *n.SD) != "288.8194" || len(n.Grid) != 51 || n.Grid[25] != 499.5 || len(n.Edges) != 49 {
		t.Errorf("n: %+v", n)
	}
	var total int64
	for _, k := range n.Counts {
		total += k
		if k != 20 {
			t.Errorf("equal bins of 20 rows expected, got %v", n.Counts)
			break
		}
	}
	if total != 1000 || len(n.Counts) != 50 {
		t.Errorf("counts add to %d in %d bins", total, len(n.Counts))
	}
	if d.Nulls != 100 || d.NaNs != 1 || *d.Min != 2 || *d.Max != 999 {
		t.Errorf("d: %+v", d)
	}
	if at.Kind != data.KindTime || *at.Max != 999e6 || *p.Column("day").Min != 86400e6 {
		t.Errorf("at: %+v", at)
	}
	if diff := cmp.Diff([]data.Top{{Value: "a", Rows: 700}, {Value: "b", Rows: 300}}, s.Top); diff != "" || s.Other != 0 {
		t.Errorf("s (-want +got) %s, other %d", diff, s.Other)
	}
	if diff := cmp.Diff([]data.Top{{Value: "false", Rows: 900}, {Value: "true", Rows: 100}}, b.Top); diff != "" || b.Kind != data.KindBool {
		t.Errorf("b (-want +got) %s", diff)
	}
	if len(c.Edges) != 1 || c.Counts[0] != 1000 || c.Counts[1] != 0 || *c.SD != 0 {
		t.Errorf("c: %+v", c)
	}
	// A column of many values is described another way, to the same figures.
	big, err := e.Transform(t.Context(), data.TransformJob{Dir: r.Dir, Out: r.Path("b.parquet"), Profile: true, SQL: `SELECT i / 7 AS many, (i // 100) / 7 AS few, i AS n FROM range(100000) g(i)`})
	if err != nil {
		t.Fatal(err)
	}
	many := big.Profile.Column("many")
	if len(many.Grid) != 51 || math.Abs(many.Grid[25]-99999.0/2/7) > 1e-9 || *many.Min != 0 || *many.Max != 99999.0/7 || math.Abs(*many.Mean-99999.0/2/7) > 1e-6 || math.Abs(*many.SD-4123.9511) > 1e-3 || len(many.Counts) != 50 || many.Counts[7] != 2000 {
		t.Errorf("many: %+v, mean %v, sd %v", many, *many.Mean, *many.SD)
	}
	if few := big.Profile.Column("few"); few.Distinct != 1000 || few.Grid[50] != 999.0/7 {
		t.Errorf("few: %+v", few)
	}
	// Another month on the bins of the first.
	moved := r.Path("m.parquet")
	if _, err := e.Transform(t.Context(), data.TransformJob{Dir: r.Dir, Out: moved, SQL: "SELECT i + 5000 AS n, 'b' AS s FROM range(10) g(i) UNION ALL SELECT NULL, 'z'"}); err != nil {
		t.Fatal(err)
	}
	q, err := e.Profile(t.Context(), data.ProfileJob{Dir: r.Dir, Files: []string{moved}, Against: p})
	if err != nil {
		t.Fatal(err)
	}
	if n := q.Column("n"); n.Counts[49] != 10 || n.Counts[0] != 0 || n.Nulls != 1 || cmp.Diff(p.Column("n").Edges, n.Edges) != "" {
		t.Errorf("n on older bins: %+v", n)
	}
	if s := q.Column("s"); cmp.Diff([]data.Top{{Value: "a", Rows: 0}, {Value: "b", Rows: 10}}, s.Top) != "" || s.Other != 1 {
		t.Errorf("s on older values: %+v", s)
	}
}

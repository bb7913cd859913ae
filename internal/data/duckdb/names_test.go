package duckdb_test

import (
	"encoding/csv"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/data"
	"falaj/internal/kernel/fault"
)

// hostile are names of columns that SQL, DuckDB or the worker's own SQL use themselves, and some that need care to quote.
var hostile = strings.Split("v|m|n|t|r|x|s|c|d|e|w|q|at|i|g|v0|view0|row|rows|record|reasons|reason|source|value|values|count|key|order|group|select|from|where|by|all|"+
	"before|nth|bad|_bad|_row|_rid|_n|_i|_event|_known|_usable|_k0|_f0|raw|src|drv|chk|aside|dup|body|spine|joined|out|rowid|filename|file_row_number|lambda|struct_pack|"+
	"union|join|using|case|end|null|true|limit|offset|window|over|partition|exclude|table|column|main|not|in|like|distinct|columns|position|"+
	"it's|a \"quoted\" name|two words| lead:er, is ;--|*|%s|100%|{x}|[y]|$1|اسم|رقم الرحلة|naïve|日付|1|"+strings.Repeat("long", 32), "|")

// hostileCSV is a file whose columns have those names: two keys, a time, then text and numbers in turn.
func hostileCSV(t *testing.T, rows int) (text string, names []string) {
	t.Helper()
	names = []string{}
	for _, n := range hostile {
		names = append(names, strings.TrimSpace(n))
	}
	var b strings.Builder
	w := csv.NewWriter(&b)
	lines := [][]string{names}
	for i := range rows {
		line := make([]string, len(names))
		for k := range names {
			switch {
			case names[k] == "at" || names[k] == "_known":
				line[k] = fmt.Sprintf("2013-01-%02dT00:00:00Z", i+1)
			case k%2 == 0:
				line[k] = fmt.Sprintf("t%d-%d", k, i)
			default:
				line[k] = fmt.Sprint(k*100 + i)
			}
		}
		lines = append(lines, line)
	}
	if err := w.WriteAll(lines); err != nil {
		t.Fatal(err)
	}
	return b.String(), names
}

func TestColumnsMayHaveAnyName(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil)
	text, names := hostileCSV(t, 20)
	zero := 0.0
	rules := map[string]data.Rule{}
	for k, n := range names {
		switch {
		case n == "at" || n == "_known":
		case k%2 == 0:
			rules[n] = data.Rule{NotNull: true, Pattern: `t\d+-\d+`, In: nil}
		default:
			rules[n] = data.Rule{Min: &zero, Type: "number"}
		}
	}
	var quoted []string
	for _, n := range names {
		quoted = append(quoted, `"`+strings.ReplaceAll(n, `"`, `""`)+`"`)
	}
	for i, derive := range []string{"", "SELECT " + strings.Join(quoted, ", ") + " FROM source ORDER BY 1"} {
		t.Run([]string{"as it is", "derived"}[i], func(t *testing.T) {
			t.Parallel()
			j := job(t, e, "any.csv", text+strings.Repeat(",", len(names)-1)+"\n")
			j.Key, j.Time, j.Derive = []string{"row", "v"}, data.Time{Event: "at", Known: "_known"}, derive
			j.Contract = data.Contract{Columns: rules}
			first, err := e.Ingest(t.Context(), j)
			if err != nil {
				t.Fatal(err)
			}
			if !first.Accepted || first.Good != 20 || first.Bad != 1 || first.Periods["2013-01"] != 20 || len(first.Columns) != len(names) {
				t.Fatalf("first file: %+v", first)
			}
			if bad := look(t, e, &data.Room{Dir: j.Dir}, "SELECT count(*) AS n, min(len(reasons)) > 40 AS many FROM t", j.Bad); bad[0] != `{"n":1,"many":true}` {
				t.Errorf("aside %s", bad)
			}
			// A later file: doubles within it and of the accepted one, values that have no place in their types.
			lines := strings.SplitAfter(text, "\n")
			again := lines[0] + lines[1] + strings.ReplaceAll(lines[2], "-1,", "-91,") + strings.ReplaceAll(lines[2], "-1,", "-91,")
			l := job(t, e, "later.csv", strings.ReplaceAll(again, ",101,", ",far,"))
			l.Key, l.Time, l.Derive, l.Contract, l.Source, l.Expect, l.Existing = j.Key, j.Time, derive, j.Contract, first.Source, first.Columns, []string{j.Out}
			l.Contract.MaxViolating = 1
			later, err := e.Ingest(t.Context(), l)
			if err != nil {
				t.Fatal(err)
			}
			if later.Read != 3 || later.Bad == 0 {
				t.Errorf("later file: %+v", later)
			}
			profile, err := e.Profile(t.Context(), data.ProfileJob{Dir: j.Dir, Files: []string{j.Out}})
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range names {
				if c := profile.Column(n); c == nil || c.Distinct == 0 || len(c.Top)+len(c.Counts) == 0 {
					t.Errorf("profile of %q: %+v", n, c)
				}
			}
			if _, err := e.Profile(t.Context(), data.ProfileJob{Dir: j.Dir, Files: []string{j.Out}, Against: profile}); err != nil {
				t.Error(err)
			}
			bound, err := e.Columns(t.Context(), data.ColumnsJob{Dir: j.Dir, SQL: "SELECT " + strings.Join(quoted, ", ") + " FROM source", Inputs: map[string]data.Input{"source": {Columns: first.Columns}}})
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range names {
				if d := cmp.Diff([]string{"source." + n}, bound.From[n]); d != "" || !bound.Traced {
					t.Errorf("lineage of %q (-want +got) %s", n, d)
				}
			}
			made := data.TransformJob{Dir: j.Dir, SQL: "SELECT * FROM t", Inputs: map[string]data.Input{"t": {Files: []string{j.Out}}}, Out: j.Out + "2", Order: []string{"row", "at"}, Profile: true}
			if _, err := e.Transform(t.Context(), made); err != nil {
				t.Fatal(err)
			}
			view := data.PITView{Name: "any", Files: []string{j.Out}, Keys: map[string]string{"row": "row", "order": "order"}, Event: "at", Known: "_known", TTL: 1e12, As: map[string]string{}, EventAs: "event of it"}
			for i, n := range names {
				view.Features = append(view.Features, n)
				view.As[n] = fmt.Sprintf("f%d of it", i)
			}
			res, err := e.PointInTime(t.Context(), data.PITJob{Dir: j.Dir, Spine: []string{made.Out}, At: "at", Views: []data.PITView{view}, Out: j.Out + "3", Profile: true})
			if err != nil {
				t.Fatal(err)
			}
			if res.Rows != 20 || len(res.Columns) != 2*len(names)+1 {
				t.Fatalf("%d rows of %d columns", res.Rows, len(res.Columns))
			}
			var same []string
			for i := range names {
				same = append(same, fmt.Sprintf(`%s = "f%d of it"`, quoted[i], i))
			}
			if got := look(t, e, &data.Room{Dir: j.Dir}, "SELECT count(*) AS n FROM t WHERE "+strings.Join(same, " AND "), j.Out+"3"); got[0] != `{"n":20}` {
				t.Errorf("joined to itself, equal rows are %s", got)
			}
			if rows := look(t, e, &data.Room{Dir: j.Dir}, "SELECT * FROM t ORDER BY \"at\"", j.Out+"3"); len(rows) != 20 || !strings.Contains(rows[0], `"rowid":`) {
				t.Errorf("rows %s", rows)
			}
		})
	}
	for format, text := range map[string]string{data.CSV: "a,_falaj_row\n1,2\n", data.JSON: `{"a": 1, "_FALAJ_v": 2}`} {
		j := job(t, e, "own.x", text)
		j.Format = format
		_, err := e.Ingest(t.Context(), j)
		wantFault(t, err, fault.Invalid, "own.x", "column 2", "_falaj")
	}
}

package duckdb_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/data"
	"falaj/internal/kernel/fault"
)

func TestColumns(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil)
	r := newRoom(t, e)
	col := func(words string) (out []data.Column) {
		for _, w := range strings.Fields(words) {
			out = append(out, data.Column{Name: w, Type: "BIGINT"})
		}
		return out
	}
	in := map[string]data.Input{"f": {Columns: col("id origin ts delay")}, "w": {Columns: col("origin ts temp wind")}}
	for _, c := range []struct {
		name, sql, from, filters string
		untraced                 bool
	}{
		{"plain", "SELECT id, delay + 1 AS late FROM f WHERE origin > 0", "id=f.id late=f.delay", "f.origin", false},
		{"star and join", "SELECT f.*, w.temp FROM f JOIN w USING (origin)", "id=f.id origin=f.origin ts=f.ts delay=f.delay temp=w.temp", "f.origin w.origin", false},
		{"star over using", "SELECT * EXCLUDE (ts, wind, delay) FROM f JOIN w USING (origin, ts)", "id=f.id origin=f.origin temp=w.temp", "f.origin f.ts w.origin w.ts", false},
		{"asof", "SELECT x.id, y.temp FROM f x ASOF LEFT JOIN w y ON x.origin = y.origin AND x.ts >= y.ts", "id=f.id temp=w.temp", "f.origin f.ts w.origin w.ts", false},
		{"cte and window", "WITH a AS (SELECT origin AS o, avg(delay) OVER (PARTITION BY origin ORDER BY ts) AS m FROM f), b(p, q) AS (SELECT o, m * 2 FROM a) SELECT q FROM b", "q=f.delay,f.origin,f.ts", "", false},
		{"subquery, alias reuse, case", "SELECT s AS a, a + 1 AS b, CASE WHEN ts > 1 THEN b END AS c FROM (SELECT id AS s, ts FROM f) z", "a=f.id b=f.id c=f.id,f.ts", "", false},
		{"union", "SELECT id AS k FROM f UNION ALL SELECT temp FROM w", "k=f.id,w.temp", "", false},
		{"scalar and correlated subquery", "SELECT id, (SELECT max(temp) FROM w WHERE w.origin = f.origin) AS t FROM f", "id=f.id t=w.temp", "f.origin w.origin", false},
		{"replace", "SELECT * REPLACE (delay + id AS delay) FROM f", "id=f.id origin=f.origin ts=f.ts delay=f.delay,f.id", "", false},
		{"group and having", "SELECT origin, count(*) AS n, sum(delay) FILTER (WHERE ts > 3) AS s FROM f GROUP BY origin HAVING min(id) > 0", "origin=f.origin n= s=f.delay,f.ts", "f.id f.origin", false},
		{"lambda", "SELECT list_sum(list_transform([id], lambda x: x + delay)) AS l FROM f", "l=f.delay,f.id", "", false},
		{"from first, constant", "FROM w SELECT temp, 1 AS one", "temp=w.temp one=", "", false},
		{"table function is not traced", "SELECT i, id FROM f, range(3) g(i)", "i=f.delay,f.id,f.origin,f.ts id=f.delay,f.id,f.origin,f.ts", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			res, err := e.Columns(t.Context(), data.ColumnsJob{Dir: r.Dir, SQL: c.sql, Inputs: in})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, col := range res.Columns {
				got = append(got, col.Name+"="+strings.Join(res.From[col.Name], ","))
			}
			if d := cmp.Diff(c.from, strings.Join(got, " ")); d != "" {
				t.Errorf("from (-want +got) %s", d)
			}
			if d := cmp.Diff(c.filters, strings.Join(res.Filters, " ")); d != "" {
				t.Errorf("filters (-want +got) %s", d)
			}
			if res.Traced == c.untraced {
				t.Errorf("traced %v", res.Traced)
			}
		})
	}
	_, err := e.Columns(t.Context(), data.ColumnsJob{Dir: r.Dir, SQL: "SELECT idd FROM f", Inputs: in})
	wantFault(t, err, fault.Invalid, "idd", `Did you mean "id"`)
}

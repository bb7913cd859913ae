package features

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	_ "github.com/duckdb/duckdb-go/v2" // the engine that training sets are made by
)

// gen makes random expressions over the columns a, b (number), t (text), n (number), s (timestamp).
type gen struct{ *rand.Rand }

func (g gen) number(depth int) string {
	if depth == 0 {
		return []string{"a", "b", "n", "0", "1", "2.5", "0.1", "1e-3", "100000000000", "1e300"}[g.IntN(10)]
	}
	d := depth - 1
	switch g.IntN(10) {
	case 0, 1, 2, 3, 4:
		return fmt.Sprintf("(%s %s %s)", g.number(d), []string{"+", "-", "*", "/"}[g.IntN(4)], g.number(d))
	case 5:
		return "-(" + g.number(d) + ")"
	case 6:
		return "list_position(['AA', 'UA', 'it''s', 'é'], t)"
	case 7:
		return fmt.Sprintf("CASE t WHEN 'UA' THEN %s WHEN '' THEN %s ELSE %s END", g.number(d), g.number(d), g.number(d))
	case 8:
		return fmt.Sprintf("CASE WHEN n = %s THEN %s WHEN t = 'AA' THEN %s END", []string{"1", "-2", "0.1", "3"}[g.IntN(4)], g.number(d), g.number(d))
	}
	return []string{"hour(s)", "weekday(s)", "month(s)"}[g.IntN(3)]
}

func (g gen) row() Row {
	r := Row{}
	floats := []any{nil, 0.0, math.Copysign(0, -1), 1.0, -1.0, 0.1, 1e308, -1e308, 5e-324, 1e15 + 0.3, g.NormFloat64() * 1000, g.NormFloat64()}
	r["a"], r["b"] = floats[g.IntN(len(floats))], floats[g.IntN(len(floats))]
	r["n"] = []any{nil, 1.0, -2.0, 3.0, 0.1, 7.0}[g.IntN(6)]
	r["t"] = []any{nil, "", "AA", "UA", "aa", "it's", "é", "e\u0301", "AA "}[g.IntN(9)]
	r["s"] = []any{nil, time.UnixMicro(g.Int64N(4e15) - 1e15).UTC()}[g.IntN(2)]
	return r
}

// One definition, two engines: what serving computes is, bit for bit, what DuckDB put into the training set.
func TestExpressionsEqualDuckDBBitForBit(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("duckdb", "")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	ctx := context.Background()
	exec := func(q string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(ctx, q, args...); err != nil {
			t.Fatal(err)
		}
	}
	// As in the data stage's child: times are kept with zone, the session is in UTC.
	exec(`SET TimeZone = 'UTC'`)
	exec(`CREATE TABLE r (i BIGINT, a DOUBLE, b DOUBLE, n DOUBLE, t VARCHAR, s TIMESTAMP WITH TIME ZONE)`)
	g := gen{rand.New(rand.NewPCG(20260, 1))}
	rows := make([]Row, 400)
	for i := range rows {
		rows[i] = g.row()
		exec(`INSERT INTO r VALUES ($1, $2, $3, $4, $5, $6)`, i, rows[i]["a"], rows[i]["b"], rows[i]["n"], rows[i]["t"], rows[i]["s"])
	}
	size, nulls, values := 150, 0, 0
	if testing.Short() {
		size = 30
	}
	for range size {
		text := g.number(1 + g.IntN(4))
		e, err := ParseExpr(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		got, err := db.QueryContext(ctx, "SELECT "+e.SQL()+" FROM r ORDER BY i")
		if err != nil {
			t.Fatalf("%s\n%s\n%v", text, e.SQL(), err)
		}
		for i := 0; got.Next(); i++ {
			var v sql.NullFloat64
			if err := got.Scan(&v); err != nil {
				t.Fatal(err)
			}
			want := e.Eval(rows[i])
			if v.Valid {
				values++
			} else {
				nulls++
			}
			if v.Valid == math.IsNaN(want) || v.Valid && math.Float64bits(v.Float64) != math.Float64bits(want) {
				t.Fatalf("%s\non %v\nDuckDB %v, falaj %v\n%s", text, rows[i], v, want, e.SQL())
			}
		}
		if err := got.Err(); err != nil {
			t.Fatalf("%s: %v", strings.TrimSpace(text), err)
		}
		got.Close()
	}
	if nulls == 0 || values < size*100 {
		t.Fatalf("the test looked at %d values and %d nulls", values, nulls)
	}
	t.Logf("%d values and %d nulls equal", values, nulls)
}

func BenchmarkExprEval(b *testing.B) {
	e, err := ParseExpr("list_position(['9E','AA','AS','B6','DL','EV','F9','FL','HA','MQ','OO','UA','US','VX','WN','YV'], t)")
	if err != nil {
		b.Fatal(err)
	}
	row := Row{"t": "UA"}
	for b.Loop() {
		e.Eval(row)
	}
}

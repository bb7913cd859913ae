package features

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/kernel/fault"
)

func TestExpressions(t *testing.T) {
	t.Parallel()
	row := Row{"a": 3.0, "b": -2.0, "zero": 0.0, "carrier": "UA", "at": time.Date(2013, 6, 2, 13, 59, 59, 0, time.FixedZone("x", 4*3600)), "gone": nil, "yes": true, "two words": 7.0}
	nan := math.NaN()
	for text, want := range map[string]float64{
		"a": 3, "a + b * 2": -1, "(a + b) * 2": 2, "-a - -b": -5, "a / zero": nan, "a / b": -1.5, "gone + 1": nan, "1e308 * 10": nan,
		"missing": nan, "1.5e-3": 0.0015, "yes + 1": 2, `"two words"`: 7, "2 - 3 - 4": -5, "8 / 4 / 2": 1,
		"list_position(['AA', 'UA'], carrier)": 2, "list_position(['AA'], carrier)": 0, "list_position(['AA'], gone)": nan, "list_position([1, 3], a)": 2,
		"CASE carrier WHEN 'AA' THEN 1 WHEN 'UA' THEN a ELSE 9 END": 3, "case when carrier = 'x' then 1 end": nan, "CASE WHEN gone = 'x' THEN 1 ELSE 5 END": 5,
		"hour(at)": 9, "weekday(at)": 0, "month(at)": 6, "hour(gone)": nan, "CASE a WHEN -3 THEN 1 WHEN 3 THEN 2 END": 2,
	} {
		e, err := ParseExpr(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := e.Eval(row); got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Errorf("%s = %v, want %v", text, got, want)
		}
	}
}

func TestOtherExpressionsAreRefusedWithThePlaceAndTheWay(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"":                                  "the end at character 1",
		"a +":                               "the end at character 4",
		"a ; drop table x":                  `';'`,
		"random()":                          "the function random is not in the language",
		"(select 1)":                        "'select' at character 2",
		"list_position([], c)":              "where a text or a number is expected",
		"list_position(['a', 'a'], c)":      "twice",
		"list_position(['a', 1], c)":        "mixes",
		"CASE WHEN a > 1 THEN 2 END":        "where",
		"CASE WHEN a = 'x' THEN 2":          "END",
		"a = 'x'":                           "the end is expected",
		"'text'":                            "a value is expected",
		"a + list_position(['x'], a)":       "used as",
		"1e999":                             "a number is expected",
		"--1":                               "a value is expected",
		"'unclosed":                         "unclosed quote",
		strings.Repeat("(", 200):            "deeper than 100",
		strings.Repeat("-(", 200) + "1":     "deeper than 100",
		"1" + strings.Repeat("+1", 200):     "in a row",
		strings.Repeat("1", maxExprBytes):   "a number",
		strings.Repeat(" ", maxExprBytes+1): "longer than",
	} {
		_, err := ParseExpr(text)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(fault.From(err).Public, says) || !strings.Contains(fault.From(err).Next, "list_position") {
			t.Errorf("%.40s: %v, want a fault that says %q", text, err, says)
		}
	}
}

func TestColumnsNameTheTypeTheirUseAsksFor(t *testing.T) {
	t.Parallel()
	e, err := ParseExpr("distance / 100 + CASE WHEN carrier = 'UA' THEN hour(sched) ELSE list_position(['JFK'], dest) END")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]Type{"distance": Number, "carrier": Text, "sched": Timestamp, "dest": Text}, e.Columns()); d != "" {
		t.Fatal(d)
	}
}

func FuzzParseExpr(f *testing.F) {
	for _, s := range []string{"a+1", "list_position(['a'], c)", "CASE x WHEN 'a' THEN 1 ELSE -2 END", "hour(\"t\")", "((1))", "'", "1e", "CASE"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := ParseExpr(text)
		if err != nil {
			return
		}
		if v := e.Eval(Row{"a": 1.5, "c": "a"}); math.IsInf(v, 0) {
			t.Fatal("an infinite feature")
		}
		e.SQL()
	})
}

package mlflow_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/tracking/filter"
)

// TestFiltersAgreeWithMLflow gives the same random filters, right and wrong ones, to MLflow's own parser and to ours. What MLflow
// accepts must mean the same here; what it refuses must be refused here.
func TestFiltersAgreeWithMLflow(t *testing.T) {
	t.Parallel()
	python := environment(t, append(others(), "mlflow-skinny==3.17.2"))
	rng := rand.New(rand.NewPCG(3, 17))
	var in bytes.Buffer
	type one struct {
		Dialect, Text string
	}
	var asked []one
	for range 6000 {
		q := one{[]string{"runs", "runs", "experiments", "models", "versions"}[rng.IntN(5)], ""}
		q.Text = random(rng, q.Dialect)
		asked = append(asked, q)
		line, err := json.Marshal([]string{q.Dialect, q.Text})
		if err != nil {
			t.Fatal(err)
		}
		in.Write(append(line, '\n'))
	}
	cmd := exec.CommandContext(t.Context(), python, "testdata/filters.py")
	cmd.Stdin = &in
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	dialects := map[string]filter.Dialect{"runs": filter.Runs(), "experiments": filter.Experiments(), "models": filter.Models(), "versions": filter.ModelVersions()}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	accepted, i, bad := 0, 0, 0
	for ; lines.Scan(); i++ {
		q := asked[i]
		var want []any
		if err := json.Unmarshal(lines.Bytes(), &want); err != nil {
			t.Fatal(err)
		}
		theirs := lines.Text() != "null"
		clauses, err := dialects[q.Dialect].Parse(q.Text)
		switch {
		case theirs && err != nil:
			t.Errorf("%s %q: MLflow reads %s, here: %v", q.Dialect, q.Text, lines.Text(), err)
			bad++
		case !theirs && err == nil:
			t.Errorf("%s %q: MLflow refuses, here it is %v", q.Dialect, q.Text, clauses)
			bad++
		case theirs:
			accepted++
			got := []any{}
			for _, c := range clauses {
				var v any = c.Text
				switch {
				case c.Op == "IS NULL" || c.Op == "IS NOT NULL":
					v = nil
				case c.List != nil:
					l := []any{}
					for _, x := range c.List {
						l = append(l, x)
					}
					v = l
				case c.Numeric:
					v = c.Number
				}
				got = append(got, []any{string(c.Entity), c.Key, c.Op, v})
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s %q: %s", q.Dialect, q.Text, d)
				bad++
			}
		}
		if bad > 20 {
			t.Fatal("and more")
		}
	}
	if i != len(asked) || accepted < 1000 {
		t.Errorf("%d of %d answers, %d accepted: the test has lost its worth", i, len(asked), accepted)
	}
}

// random makes a filter: mostly right, sometimes with a wrong piece, a piece too many or one too few.
func random(rng *rand.Rand, dialect string) string {
	pick := func(s ...string) string { return s[rng.IntN(len(s))] }
	key := func() string {
		return pick("a", "loss", "val_auc", "`a b`", `"x y"`, "mlflow.source.name", "`mlflow.runName`", "a1", "_x")
	}
	left := func() string {
		switch dialect {
		case "runs":
			switch rng.IntN(6) {
			case 0:
				return pick("metrics", "metric") + "." + key()
			case 1:
				return pick("params", "param", "parameter", "parameters") + "." + key()
			case 2:
				return pick("tags", "tag") + "." + key()
			case 3:
				return pick("attributes.", "attr.", "attribute.", "run.", "") + pick("run_id", "status", "start_time", "end_time", "artifact_uri", "user_id", "run_name", "created", "nope")
			case 4:
				return pick("dataset", "datasets") + "." + pick("name", "digest", "context", "nope")
			}
			return pick("foo.a", "metrics", "a")
		case "experiments":
			return pick("name", "experiment_id", "creation_time", "last_update_time", "attribute.name", "tags."+key(), "tag."+key(), "nope", "metrics.a")
		case "models":
			return pick("name", "attribute.name", "tags."+key(), "tag."+key(), "nope")
		}
		return pick("name", "version_number", "run_id", "source_path", "tags."+key(), "attribute.run_id", "nope")
	}
	op := func() string {
		return pick("=", "=", "=", "!=", "<", "<=", ">", ">=", "LIKE", "like", "ILIKE", "IN", "NOT IN", "in", "==", "<>", "IS NULL", "IS NOT NULL")
	}
	right := func() string {
		return pick("'x'", "'x'", `"x y"`, "'%a_b'", "1", "0.5", "-1", "1e-3", "-2.5E2", "('a')", "('a', 'b')", `("a",'b')`, "()", "(1)", "x", "'it AND ''s'", "''", "12345678901234")
	}
	var parts []string
	for range 1 + rng.IntN(3) {
		l, o := left(), op()
		fit := rng.IntN(5) > 0 // most clauses are right, so that most filters are
		numeric := strings.HasPrefix(l, "metric") || strings.HasSuffix(l, "_time") || strings.HasSuffix(l, "version_number") || strings.HasSuffix(l, "created")
		switch {
		case fit && numeric:
			o = pick("=", "!=", "<", "<=", ">", ">=")
		case fit && (strings.HasPrefix(l, "tag") || strings.HasPrefix(l, "param")):
			o = pick("=", "!=", "LIKE", "ilike", "IS NULL", "is not null")
		case fit:
			o = pick("=", "!=", "like", "ILIKE", "IN", "not in")
		}
		c := l + pick(" ", " ", "  ") + o
		if !strings.HasPrefix(strings.ToUpper(o), "IS") {
			v := right()
			switch {
			case fit && numeric:
				v = pick("1", "0.5", "-1", "1e-3", "-2.5E2", ".5", "7.", "12345678901234")
			case fit && strings.HasSuffix(strings.ToUpper(o), "IN"):
				v = pick("('a')", "('a', 'b')", `("a",'b')`, "('a' , 'b',)", "( 'a')")
			case fit:
				v = pick("'x'", `"x y"`, "'%a_b'", "'it AND ''s'", "''", "'é'", "'(x)'", `'a"b'`)
			}
			c += pick(" ", " ", "\t") + v
		}
		parts = append(parts, c)
	}
	s := strings.Join(parts, pick(" AND ", " and ", " And ", "\nAND "))
	switch rng.IntN(25) {
	case 0:
		s += pick(" OR a = 'b'", " AND", ";", " x", " )", "; a = 'b'")
	case 1:
		s = pick("NOT ", "AND ", "(", "") + s
	}
	return s
}

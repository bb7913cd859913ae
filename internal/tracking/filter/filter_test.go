package filter_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/kernel/fault"
	"falaj/internal/tracking/filter"
)

func TestParse(t *testing.T) {
	t.Parallel()
	cases := []struct{ in, want string }{
		{"", ""},
		{"metrics.auc > 0.7", "metric.`auc` > 0.7"},
		{"metric.loss <= -1e-3 and params.lr = '0.1'", "metric.`loss` <= -0.001; parameter.`lr` = '0.1'"},
		{"tags.`mlflow.runName` LIKE '%a_b%'", "tag.`mlflow.runName` LIKE '%a_b%'"},
		{`params."batch size" != "32"`, "parameter.`batch size` != '32'"},
		{"tags.mlflow.source.name = 'x'", "tag.`mlflow.source.name` = 'x'"},
		{"attributes.status = 'FINISHED' AND start_time > 1700000000000", "attribute.`status` = 'FINISHED'; attribute.`start_time` > 1.7e+12"},
		{"run_id IN ('a', \"b\")", "attribute.`run_id` IN ('a', 'b')"},
		{"attribute.run_id not in ('a')", "attribute.`run_id` NOT IN ('a')"},
		{"tags.x IS NULL AND params.y is not null", "tag.`x` IS NULL; parameter.`y` IS NOT NULL"},
		{"dataset.name = 'flights' AND datasets.context IN ('train')", "dataset.`name` = 'flights'; dataset.`context` IN ('train')"},
		{"`Run name` ilike 'A%'", "attribute.`run_name` ILIKE 'A%'"},
		{"params.q = 'it AND (that)'", "parameter.`q` = 'it AND (that)'"},
		{"metrics.a>1 AND metrics.a<2", "metric.`a` > 1; metric.`a` < 2"},
	}
	for _, c := range cases {
		got, err := filter.Runs().Parse(c.in)
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
			continue
		}
		var parts []string
		for _, g := range got {
			parts = append(parts, g.String())
		}
		if d := cmp.Diff(c.want, strings.Join(parts, "; ")); d != "" {
			t.Errorf("%q: %s", c.in, d)
		}
	}
}

func TestParseRefusesInMLflowsWords(t *testing.T) {
	t.Parallel()
	cases := []struct{ in, want string }{
		{"metrics.a > 1 OR metrics.b > 2", "Invalid clause(s) in filter string: 'OR'"},
		{"(metrics.a > 1)", "Invalid clause(s) in filter string: '(metrics.a > 1)'"},
		{"metrics.a", "Invalid clause(s) in filter string: 'metrics.a'"},
		{"metrics.a > 'x'", "Expected numeric value type for metric. Found 'x'"},
		{"params.a > 'x'", "Invalid comparator '>' not one of '{'!=', '=', 'ILIKE', 'LIKE'}'"},
		{"params.a = 1", "Expected a quoted string value for parameter (e.g. 'my-value'). Got value 1"},
		{"nope.a = 'x'", "Invalid entity type 'nope'. Valid values are ['metric', 'parameter', 'tag', 'attribute', 'dataset']"},
		{"attributes.zzz = 'x'", "Invalid attribute key 'zzz' specified."},
		{"status IN ('a')", "Only ['run_id'] attributes support comparison with a list of quoted string values."},
		{"run_id IN ()", "While parsing a list in the query, expected a non-empty list of string values, but got empty list"},
		{"run_id IN (1, 2)", "While parsing a list in the query, expected string value"},
		{"metrics.a > 1;", "Invalid clause(s) in filter string: ';'"},
		{"metrics.a > 1; metrics.b > 2", "Search filter contained multiple expression 'metrics.a > 1; metrics.b > 2'. Provide AND-ed expression list."},
		{"metrics.a == 1", "Invalid comparator '==' not one of '{'!=', '<', '<=', '=', '>', '>='}'"},
		{"metrics.a IS NULL", "IS NULL / IS NOT NULL is only supported for tags and params, not for 'metric' 'a'"},
		{"params.a = 'x", "Parameter value is either not quoted"},
		{"params.a = '\x00'", "The filter holds characters that are no text."},
	}
	for _, c := range cases {
		_, err := filter.Runs().Parse(c.in)
		if err == nil || !strings.HasPrefix(fault.From(err).Public, c.want) || !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: got %v, want %s", c.in, err, c.want)
		}
	}
}

func TestOrderBy(t *testing.T) {
	t.Parallel()
	got, err := filter.Runs().OrderBy([]string{"metrics.`val auc` DESC", "params.lr", "start_time asc", "Created"})
	if err == nil {
		t.Fatalf("start_time twice was accepted: %v", got)
	}
	got, err = filter.Runs().OrderBy([]string{"metrics.`val auc` DESC", "params.lr", "attributes.start_time ASC"})
	if err != nil {
		t.Fatal(err)
	}
	want := []filter.Order{{filter.Metric, "val auc", true}, {filter.Param, "lr", false}, {filter.Attribute, "start_time", false}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"", "metrics.a DOWN", "metrics.a DESC NULLS", "dataset.name", "1", "metrics.a 'x'"} {
		if _, err := filter.Runs().OrderBy([]string{bad}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// The parser takes anything: it answers or refuses with a fault, and what it accepts reads back as itself.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"metrics.a > 1", "tags.`x y` LIKE '%a' AND run_id IN ('a',\"b\")", "params.\"a\" IS NOT NULL", "a.b.c = ''''", "((", "'", "`", "attr.status!='x' and", "-1.e5 = metrics.x"} {
		f.Add(s)
	}
	dialects := []filter.Dialect{filter.Runs(), filter.Experiments(), filter.Models(), filter.ModelVersions(), filter.LoggedModels()}
	f.Fuzz(func(t *testing.T, s string) {
		for _, d := range dialects {
			got, err := d.Parse(s)
			if err != nil {
				if fault.KindOf(err) != fault.Invalid {
					t.Fatalf("%q: %v", s, err)
				}
				continue
			}
			for _, c := range got {
				var a filter.Args
				sql := c.Condition(&a, "x")
				if n := strings.Count(sql, "$"); n < len(a.Values()) || strings.Contains(sql, c.Text) && len(c.Text) > 12 {
					t.Fatalf("%q: condition %q with %d values", s, sql, len(a.Values()))
				}
			}
			_, _ = d.OrderBy([]string{s})
		}
	})
}

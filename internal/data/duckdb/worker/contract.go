package worker

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"falaj/internal/data"
	"falaj/internal/kernel/fault"
)

// check is one promise on rows: violated is true or NULL-free false; shows is the offending value as text.
type check struct {
	data.CheckResult
	violated, shows string
}

func typeCheck(column, of, to, lost string) check {
	return check{data.CheckResult{Check: "type", Column: column, Rule: "a value of type " + strings.ToLower(to)}, lost, ident(of)}
}

// target is the type a column has in the dataset: fixed by the first version, else by the contract, else narrowed.
func target(c data.Column, j data.IngestJob) (string, error) {
	if e, ok := find(j.Expect, c.Name); ok {
		return e.Type, nil
	}
	if r, ok := j.Contract.Columns[c.Name]; ok && r.Type != "" {
		return data.TypeName(r.Type)
	}
	return stored(c)
}

// required refuses a result that lacks a column the definition names.
func required(cols []data.Column, j data.IngestJob) error {
	need := map[string]string{}
	for _, k := range j.Key {
		need[k] = "key"
	}
	for name := range j.Contract.Columns {
		need[name] = "contract.columns." + name
	}
	if j.Time.Event != "" {
		need[j.Time.Event] = "time.event"
	}
	if j.Time.Known != "" {
		need[j.Time.Known] = "time.known"
	}
	var missing []string
	for name := range need {
		c, ok := find(cols, name)
		if !ok {
			missing = append(missing, name)
		} else if c.Name != name { // rules go by name: a rule that applies to nothing would be worse than none
			return fault.New(fault.Invalid, fmt.Sprintf("%s: the definition names column %s, and it is called %s.", j.Name, name, c.Name), "Spell it as the data does.").At(need[name])
		}
	}
	if missing != nil {
		slices.Sort(missing)
		return fault.New(fault.Invalid, fmt.Sprintf("%s: the definition names %s, which the data does not have.", j.Name, list("column", missing)),
			"Columns here are: "+clip(strings.Join(names(cols), ", "), 400)+".").At(need[missing[0]])
	}
	for _, t := range []struct{ name, field string }{{j.Time.Event, "time.event"}, {j.Time.Known, "time.known"}} {
		if t.name == "" {
			continue
		}
		c, _ := find(cols, t.name)
		typ, err := target(c, j)
		if err != nil {
			return err
		}
		if typ != timestampTZ && typ != "DATE" {
			return fault.New(fault.Invalid, fmt.Sprintf("Column %s is %s, and a time of the data must be a timestamp or a date.", t.name, typ), "Make it one in the derive SQL, in UTC or with its zone.").At(t.field)
		}
	}
	return nil
}

// ruleChecks turns the rule of a column, and its being part of the key, into checks on expr, its value in the dataset.
func ruleChecks(c data.Column, expr string, j data.IngestJob) ([]check, error) {
	var out []check
	rule, ruled := j.Contract.Columns[c.Name]
	add := func(name, words, violated string) {
		out = append(out, check{data.CheckResult{Check: name, Column: c.Name, Rule: words}, "coalesce(" + violated + ", false)", expr})
	}
	isKey := slices.Contains(j.Key, c.Name)
	if rule.NotNull || isKey || c.Name == j.Time.Event {
		add("not_null", "present", expr+" IS NULL")
	}
	if ruled && floating(c.Type) {
		add("finite", "a finite number", "NOT isfinite("+expr+")")
	}
	if len(rule.In) > 0 {
		vals := make([]string, len(rule.In))
		for i, v := range rule.In {
			vals[i] = lit(v)
		}
		add("in", "one of "+clip(strings.Join(rule.In, ", "), 200), fmt.Sprintf("CAST(%s AS VARCHAR) NOT IN (%s)", expr, strings.Join(vals, ", ")))
	}
	if (rule.Min != nil || rule.Max != nil) && !numeric(c.Type) {
		return nil, fault.New(fault.Invalid, fmt.Sprintf("Column %s is %s, and min and max are for numbers.", c.Name, c.Type), "Remove min and max, or make it a number.").At("contract.columns." + c.Name)
	}
	there := "true"
	if floating(c.Type) { // NaN stands above every number, and is the finite check's
		there = "isfinite(" + expr + ")"
	}
	num := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
	if rule.Min != nil {
		add("min", "at least "+num(*rule.Min), fmt.Sprintf("(%s AND %s < %s)", there, expr, num(*rule.Min)))
	}
	if rule.Max != nil {
		add("max", "at most "+num(*rule.Max), fmt.Sprintf("(%s AND %s > %s)", there, expr, num(*rule.Max)))
	}
	if rule.Pattern != "" {
		add("pattern", "text matching "+rule.Pattern, fmt.Sprintf("NOT regexp_full_match(CAST(%s AS VARCHAR), %s)", expr, lit(rule.Pattern)))
	}
	return out, nil
}

// anyOf is the condition that some check is violated.
func anyOf(checks []check) string {
	if len(checks) == 0 {
		return "false"
	}
	parts := make([]string, len(checks))
	for i, c := range checks {
		parts[i] = c.violated
	}
	return "(" + strings.Join(parts, " OR ") + ")"
}

// count adds the result of each check over table to res and says whether any row violates one.
func (s *session) count(ctx context.Context, table string, checks []check, res *data.IngestResult) (bool, error) {
	if len(checks) == 0 {
		return false, nil
	}
	asks := make([]string, len(checks))
	for i, c := range checks {
		asks[i] = "count(*) FILTER (WHERE " + c.violated + ")"
	}
	n, err := s.ints(ctx, "SELECT "+strings.Join(asks, ", ")+" FROM "+table)
	if err != nil {
		return false, err
	}
	bad := false
	for i, c := range checks {
		r := c.CheckResult
		if r.Rows = n[i]; n[i] > 0 {
			bad = true
			row, err := s.row(ctx, fmt.Sprintf("SELECT left(CAST(%s AS VARCHAR), 64) FROM %s WHERE %s LIMIT 1", c.shows, table, c.violated))
			if err != nil {
				return false, err
			}
			r.Example, _ = row[0].(string)
		}
		if c.Check == "type" && n[i] == 0 { // a cast that lost nothing is no news
			continue
		}
		res.Checks = append(res.Checks, r)
	}
	return bad, nil
}

// putAside keeps violating rows with the reasons in words.
func (s *session) putAside(ctx context.Context, table, where, row string, cols []data.Column, checks []check) error {
	parts := make([]string, len(checks))
	for i, c := range checks {
		parts[i] = fmt.Sprintf("CASE WHEN %s THEN %s || coalesce(', is ' || left(CAST(%s AS VARCHAR), 64), ', is empty') END", c.violated, lit(c.Column+": must be "+c.Rule), c.shows)
	}
	return s.exec(ctx, fmt.Sprintf("INSERT INTO %s SELECT list_filter([%s], lambda _falaj_x: _falaj_x IS NOT NULL), %s, %s FROM %s %s", aside, strings.Join(parts, ", "), row, record("", cols), table, where))
}

// record is a row as JSON text, in column order.
func record(prefix string, cols []data.Column) string {
	parts := make([]string, len(cols))
	for i, c := range cols {
		v := prefix + ident(c.Name)
		if c.Type == "BLOB" {
			v = "hex(" + v + ")"
		}
		if floating(c.Type) { // JSON has no NaN
			v = fmt.Sprintf("CASE WHEN isfinite(%s) THEN to_json(%s) ELSE to_json(CAST(%s AS VARCHAR)) END", v, v, v)
		}
		parts[i] = ident(c.Name) + " := " + v
	}
	return "CAST(to_json(struct_pack(" + strings.Join(parts, ", ") + ")) AS VARCHAR)"
}

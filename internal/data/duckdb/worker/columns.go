package worker

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"falaj/internal/data"
)

// columns binds a SELECT against empty tables and traces each output column to the input columns it is made of, by
// walking the syntax tree that DuckDB itself gives: no second parser, so no second dialect.
func columns(ctx context.Context, s *session, j data.ColumnsJob) (*data.ColumnsResult, error) {
	if err := s.inputs(ctx, j.Inputs); err != nil {
		return nil, s.explain(err, "")
	}
	tree, err := s.one(ctx, j.SQL, j.Ref)
	if err != nil {
		return nil, err
	}
	cols, err := s.describe(ctx, j.SQL)
	if err != nil {
		return nil, s.explain(shift(err, 1), j.Ref)
	}
	if err := distinctNames(cols, j.Ref); err != nil {
		return nil, err
	}
	w := &walker{inputs: map[string]rel{}, tables: map[string]bool{}, filters: origin{}, traced: true}
	for name := range j.Inputs {
		have, err := s.describe(ctx, "FROM "+ident(name))
		if err != nil {
			return nil, err
		}
		r := rel{alias: name}
		for _, c := range have {
			r.cols = append(r.cols, out{name: c.Name, from: origin{name + "." + c.Name: true}})
		}
		w.inputs[strings.ToLower(name)] = r
	}
	var top node
	if err := json.Unmarshal(tree, &top); err != nil {
		return nil, err
	}
	found := w.query(top.obj("node"), nil, nil)
	res := &data.ColumnsResult{From: map[string][]string{}, Traced: w.traced && len(found) == len(cols)}
	for i, c := range cols {
		if res.Columns = append(res.Columns, c); res.Traced {
			res.From[c.Name] = found[i].from.sorted()
		}
	}
	res.Tables = slices.Sorted(maps.Keys(w.tables))
	res.Filters = w.filters.sorted()
	if !res.Traced {
		all := origin{}
		for _, t := range res.Tables {
			for _, c := range w.inputs[strings.ToLower(t)].cols {
				all.add(c.from)
			}
		}
		for _, c := range cols {
			res.From[c.Name] = all.sorted()
		}
		res.Filters = nil
	}
	return res, nil
}

// node is one object of DuckDB's tree.
type node map[string]any

func (n node) obj(key string) node { m, _ := n[key].(map[string]any); return m }
func (n node) str(key string) string {
	s, _ := n[key].(string)
	return s
}
func (n node) list(key string) []any { l, _ := n[key].([]any); return l }

// origin is a set of input columns, "table.column".
type origin map[string]bool

func (o origin) add(p origin) { maps.Copy(o, p) }
func (o origin) sorted() []string {
	return slices.Sorted(maps.Keys(o))
}

// out is a column of a relation and where its value comes from; hidden columns (the right side of USING) answer to
// their name but do not stand in a star.
type out struct {
	name   string
	from   origin
	hidden bool
}

// rel is a relation in FROM under its alias.
type rel struct {
	alias string
	cols  []out
}

// scope is what names mean at one SELECT; outer scopes answer for correlated subqueries.
type scope struct {
	rels    []rel
	aliases map[string]origin // of the SELECT list so far
	params  map[string]bool   // of lambdas
	ctes    map[string]rel
	outer   *scope
}

type walker struct {
	inputs  map[string]rel
	tables  map[string]bool
	filters origin
	traced  bool
}

func (w *walker) lost() []out { w.traced = false; return nil }

// query walks a SELECT or a set operation.
func (w *walker) query(n node, outer *scope, ctes map[string]rel) []out {
	ctes = maps.Clone(ctes)
	if ctes == nil {
		ctes = map[string]rel{}
	}
	for _, e := range n.obj("cte_map").list("map") {
		entry := node(e.(map[string]any))
		cols := w.query(entry.obj("value").obj("query").obj("node"), outer, ctes)
		rename(cols, entry.obj("value").list("aliases"))
		ctes[strings.ToLower(entry.str("key"))] = rel{alias: entry.str("key"), cols: cols}
	}
	switch n.str("type") {
	case "SELECT_NODE":
		return w.selects(n, outer, ctes)
	case "SET_OPERATION_NODE":
		sides := n.list("children")
		if sides == nil {
			sides = []any{n["left"], n["right"]}
		}
		var first []out
		for i, side := range sides {
			m, _ := side.(map[string]any)
			if inner, ok := m["node"].(map[string]any); ok {
				m = inner
			}
			cols := w.query(m, outer, ctes)
			if i == 0 {
				first = cols
				continue
			}
			if len(cols) != len(first) || strings.Contains(n.str("setop_type"), "NAME") {
				return w.lost()
			}
			for k := range first {
				merged := origin{}
				merged.add(first[k].from)
				merged.add(cols[k].from)
				first[k].from = merged
			}
		}
		return first
	}
	return w.lost()
}

func rename(cols []out, aliases []any) {
	for i, a := range aliases {
		if s, ok := a.(string); ok && i < len(cols) {
			cols[i].name = s
		}
	}
}

func (w *walker) selects(n node, outer *scope, ctes map[string]rel) []out {
	sc := &scope{aliases: map[string]origin{}, ctes: ctes, outer: outer}
	sc.rels = w.from(n.obj("from_table"), sc)
	var res []out
	for _, e := range n.list("select_list") {
		x := node(e.(map[string]any))
		if x.str("class") == "STAR" {
			res = append(res, w.star(x, sc)...)
			continue
		}
		o := out{name: x.str("alias"), from: w.expr(x, sc)}
		if names := x.list("column_names"); o.name == "" && len(names) > 0 {
			o.name, _ = names[len(names)-1].(string)
		}
		if x.str("alias") != "" {
			sc.aliases[strings.ToLower(o.name)] = o.from
		}
		res = append(res, o)
	}
	for _, key := range []string{"where_clause", "group_expressions", "having", "qualify", "modifiers"} {
		w.filters.add(w.expr(n[key], sc))
	}
	return res
}

func (w *walker) star(x node, sc *scope) []out {
	if x["expr"] != nil || x["columns"] == true || len(x.list("rename_list")) > 0 || len(x.list("qualified_exclude_list")) > 0 {
		return w.lost()
	}
	skip := map[string]bool{}
	for _, e := range x.list("exclude_list") {
		s, _ := e.(string)
		skip[strings.ToLower(s)] = true
	}
	replaced := map[string]origin{}
	for _, e := range x.list("replace_list") {
		r := node(e.(map[string]any))
		replaced[strings.ToLower(r.str("key"))] = w.expr(r["value"], sc)
	}
	var res []out
	for _, r := range sc.rels {
		if t := x.str("relation_name"); t != "" && !strings.EqualFold(t, r.alias) {
			continue
		}
		for _, c := range r.cols {
			low := strings.ToLower(c.name)
			if skip[low] || (c.hidden && x.str("relation_name") == "") {
				continue
			}
			if from, ok := replaced[low]; ok {
				c.from = from
			}
			res = append(res, c)
		}
	}
	return res
}

// from walks FROM and returns its relations.
func (w *walker) from(t node, sc *scope) []rel {
	one := func(cols []out, def string) []rel {
		cols = slices.Clone(cols)
		rename(cols, t.list("column_name_alias"))
		if a := t.str("alias"); a != "" {
			def = a
		}
		return []rel{{alias: def, cols: cols}}
	}
	switch t.str("type") {
	case "EMPTY":
		return nil
	case "BASE_TABLE":
		name := t.str("table_name")
		low := strings.ToLower(name)
		if r, ok := sc.ctes[low]; ok {
			return one(r.cols, name)
		}
		if r, ok := w.inputs[low]; ok {
			w.tables[r.alias] = true
			return one(r.cols, name)
		}
	case "SUBQUERY":
		return one(w.query(t.obj("subquery").obj("node"), sc.outer, sc.ctes), "")
	case "JOIN":
		left := w.from(t.obj("left"), sc)
		// A lateral right side sees the left one.
		right := w.from(t.obj("right"), &scope{rels: left, ctes: sc.ctes, outer: &scope{rels: left, outer: sc.outer}})
		if t.str("ref_type") == "NATURAL" || t.str("ref_type") == "POSITIONAL" {
			w.traced = false
		}
		both := &scope{rels: append(slices.Clone(left), right...), ctes: sc.ctes, outer: sc.outer}
		w.filters.add(w.expr(t["condition"], both))
		for _, u := range t.list("using_columns") {
			name, _ := u.(string)
			w.filters.add(w.column([]string{name}, both))
			for i := range right {
				for k := range right[i].cols {
					if strings.EqualFold(right[i].cols[k].name, name) {
						right[i].cols[k].hidden = true
					}
				}
			}
		}
		return append(left, right...)
	}
	w.traced = false
	return nil
}

// expr collects what an expression is made of: every column in it, also in its windows, filters and subqueries.
func (w *walker) expr(v any, sc *scope) origin {
	got := origin{}
	if n, ok := v.(node); ok {
		v = map[string]any(n)
	}
	switch x := v.(type) {
	case []any:
		for _, e := range x {
			got.add(w.expr(e, sc))
		}
	case map[string]any:
		n := node(x)
		switch n.str("class") {
		case "COLUMN_REF":
			var parts []string
			for _, p := range n.list("column_names") {
				s, _ := p.(string)
				parts = append(parts, s)
			}
			return w.column(parts, sc)
		case "SUBQUERY":
			for _, c := range w.query(n.obj("subquery").obj("node"), sc, sc.ctes) {
				got.add(c.from)
			}
			got.add(w.expr(n["child"], sc))
			return got
		case "LAMBDA":
			inner := &scope{params: map[string]bool{}, outer: sc, ctes: sc.ctes}
			lambdaParams(n["lhs"], inner.params)
			return w.expr(n["expr"], inner)
		case "STAR":
			if n.str("relation_name") == "" && n["expr"] == nil { // count(*)
				return got
			}
			w.traced = false
			return got
		}
		for _, e := range x {
			got.add(w.expr(e, sc))
		}
	}
	return got
}

func lambdaParams(v any, into map[string]bool) {
	switch x := v.(type) {
	case []any:
		for _, e := range x {
			lambdaParams(e, into)
		}
	case map[string]any:
		for _, p := range node(x).list("column_names") {
			s, _ := p.(string)
			into[strings.ToLower(s)] = true
		}
		for _, e := range x {
			lambdaParams(e, into)
		}
	}
}

// column resolves a name, qualified or not, from the inside out.
func (w *walker) column(parts []string, sc *scope) origin {
	for s := sc; s != nil; s = s.outer {
		if s.params[strings.ToLower(parts[0])] {
			return nil
		}
		for _, qualified := range []bool{true, false} {
			got, ok := origin{}, false
			for _, r := range s.rels {
				name := parts[0]
				if qualified {
					if len(parts) < 2 || !strings.EqualFold(r.alias, parts[0]) {
						continue
					}
					name = parts[1]
				}
				for _, c := range r.cols {
					if strings.EqualFold(c.name, name) {
						got.add(c.from)
						ok = true
					}
				}
			}
			if ok {
				return got
			}
		}
		if from, ok := s.aliases[strings.ToLower(parts[0])]; ok && len(parts) == 1 {
			return from
		}
	}
	w.traced = false
	return nil
}

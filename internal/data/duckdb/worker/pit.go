package worker

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"falaj/internal/data"
	"falaj/internal/kernel/fault"
)

// pointInTime joins by ASOF, which knows one inequality, while a row must have happened and be known. So rows are
// ordered by the moment they become usable, the later of the two times; and a row that becomes usable when one with a
// newer event time already is, is dropped, for it would never be the answer. Of rows that become usable together the
// best stays. What is left rises in both orders, so the last usable row is the one with the newest event.
func pointInTime(ctx context.Context, s *session, j data.PITJob) (*data.TransformResult, error) {
	spine := own + ".spine"
	if err := s.exec(ctx, "CREATE TABLE "+spine+" AS SELECT * FROM "+parquet(j.Spine)); err != nil {
		return nil, s.explain(err, "The spine")
	}
	cols, err := s.describe(ctx, "FROM "+spine)
	if err != nil {
		return nil, err
	}
	at, ok := find(cols, j.At)
	if !ok || (at.Type != timestampTZ && at.Type != "TIMESTAMP" && at.Type != "DATE") {
		return nil, fault.New(fault.Invalid, fmt.Sprintf("The spine has no time column %q.", j.At), "Give it one in UTC; its columns are: "+clip(strings.Join(names(cols), ", "), 400)+".").At("spine")
	}
	place, err := s.place(ctx, spine, cols)
	if err != nil {
		return nil, err
	}
	var joins, list []string
	out := slices.Clone(cols)
	for _, c := range cols {
		list = append(list, "_falaj_s."+ident(c.Name)+" AS "+ident(c.Name))
	}
	for n, v := range j.Views {
		table := fmt.Sprintf("%s.view%d", own, n)
		have, err := s.usable(ctx, v, table)
		if err != nil {
			return nil, err
		}
		join, err := joinOn(v, n, table, j.At, cols)
		if err != nil {
			return nil, err
		}
		joins = append(joins, join)
		// DuckDB's ASOF takes a NULL time on the left for later than all, and would match it.
		fresh := "_falaj_s." + ident(j.At) + " IS NOT NULL"
		if v.TTL > 0 && v.Event != "" {
			fresh += fmt.Sprintf(" AND epoch_us(CAST(_falaj_s.%s AS TIMESTAMPTZ)) - epoch_us(_falaj_v%d._falaj_event) <= %d", ident(j.At), n, v.TTL)
		}
		take := func(from, as, typ string) {
			list = append(list, fmt.Sprintf("CASE WHEN %s THEN _falaj_v%d.%s END AS %s", fresh, n, from, ident(as)))
			out = append(out, data.Column{Name: as, Type: typ})
		}
		for i, f := range v.Features {
			as := f
			if v.As[f] != "" {
				as = v.As[f]
			}
			take(fmt.Sprintf("_falaj_f%d", i), as, have[i].Type)
		}
		if v.EventAs != "" {
			take("_falaj_event", v.EventAs, timestampTZ)
		}
	}
	if err := distinctNames(out, "The training set"); err != nil {
		return nil, err
	}
	table := own + ".joined"
	if err := s.exec(ctx, fmt.Sprintf("CREATE TABLE %s AS SELECT %s, _falaj_s.%s AS _falaj_n FROM %s _falaj_s %s", table, strings.Join(list, ", "), place, spine, strings.Join(joins, " "))); err != nil {
		return nil, s.explain(err, "The point-in-time join")
	}
	n, err := s.ints(ctx, fmt.Sprintf("SELECT (SELECT count(*) FROM %s), (SELECT count(*) FROM %s), (SELECT count(DISTINCT _falaj_n) FROM %s)", spine, table, table))
	if err != nil {
		return nil, err
	}
	if n[0] != n[1] || n[0] != n[2] {
		return nil, fault.New(fault.Internal, fmt.Sprintf("The point-in-time join made %d rows of %d; the result is not used.", n[1], n[0]), "Report this error.")
	}
	return s.finish(ctx, "(SELECT * EXCLUDE (_falaj_n) FROM "+table+" ORDER BY _falaj_n)", out, data.TransformJob{Ref: "The point-in-time join", Out: j.Out, AsWritten: true, Profile: j.Profile})
}

// usable makes the table of a view's rows that can ever be an answer: keys _falaj_k0.., the moment _falaj_usable they become
// usable, _falaj_event and features _falaj_f0... It returns the columns of the features.
func (s *session) usable(ctx context.Context, v data.PITView, table string) ([]data.Column, error) {
	cols, err := s.describe(ctx, "FROM "+parquet(v.Files))
	if err != nil {
		return nil, s.explain(err, "Feature view "+v.Name)
	}
	lacks := func(name string) error {
		if _, ok := find(cols, name); ok || name == "" {
			return nil
		}
		return fault.New(fault.Invalid, fmt.Sprintf("Feature view %s has no column %s.", v.Name, name), "Its columns are: "+clip(strings.Join(names(cols), ", "), 400)+".").At("features." + v.Name)
	}
	event, known := "'-infinity'::TIMESTAMPTZ", ""
	if v.Event != "" {
		event = "CAST(" + ident(v.Event) + " AS TIMESTAMPTZ)"
	}
	if known = event; v.Known != "" {
		known = "CAST(" + ident(v.Known) + " AS TIMESTAMPTZ)"
	}
	list := []string{event + " AS _falaj_event", known + " AS _falaj_known"}
	where := []string{"_falaj_event IS NOT NULL", "_falaj_known IS NOT NULL"} // without a time it never happened, or is never known
	need := []string{v.Event, v.Known}
	var keys []string
	for i, k := range sortedKeys(v.Keys) {
		name := fmt.Sprintf("_falaj_k%d", i)
		list, keys, need = append(list, ident(v.Keys[k])+" AS "+name), append(keys, name), append(need, v.Keys[k])
		where = append(where, name+" IS NOT NULL")
	}
	var out []data.Column
	var take []string
	for i, f := range v.Features {
		name := fmt.Sprintf("_falaj_f%d", i)
		list, take, need = append(list, ident(f)+" AS "+name), append(take, name), append(need, f)
		c, _ := find(cols, f)
		out = append(out, c)
	}
	for _, name := range need {
		if err := lacks(name); err != nil {
			return nil, err
		}
	}
	by := ""
	if len(keys) > 0 {
		by = "PARTITION BY " + strings.Join(keys, ", ") + " "
	}
	q := fmt.Sprintf(`CREATE TABLE %s AS SELECT %s FROM (
		SELECT *, greatest(_falaj_event, _falaj_known) AS _falaj_usable FROM (SELECT %s, row_number() OVER () AS _falaj_i FROM %s) WHERE %s)
		WINDOW _falaj_w AS (%sORDER BY _falaj_usable, _falaj_event, _falaj_known, _falaj_i)
		QUALIFY lead(_falaj_usable) OVER _falaj_w IS DISTINCT FROM _falaj_usable
			AND coalesce(max(_falaj_event) OVER (%sORDER BY _falaj_usable, _falaj_event, _falaj_known, _falaj_i ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) <= _falaj_event, true)`,
		table, strings.Join(append(append(slices.Clone(keys), "_falaj_usable", "_falaj_event"), take...), ", "), strings.Join(list, ", "), parquet(v.Files), strings.Join(where, " AND "), by, by)
	if err := s.exec(ctx, q); err != nil {
		return nil, s.explain(err, "Feature view "+v.Name)
	}
	return out, nil
}

func joinOn(v data.PITView, n int, table, at string, spine []data.Column) (string, error) {
	on := []string{}
	for i, k := range sortedKeys(v.Keys) {
		if _, ok := find(spine, k); !ok {
			return "", fault.New(fault.Invalid, fmt.Sprintf("Feature view %s joins on %s, and the spine has no such column.", v.Name, k), "Its columns are: "+clip(strings.Join(names(spine), ", "), 400)+".").At("spine")
		}
		on = append(on, fmt.Sprintf("_falaj_s.%s = _falaj_v%d._falaj_k%d", ident(k), n, i))
	}
	on = append(on, fmt.Sprintf("CAST(_falaj_s.%s AS TIMESTAMPTZ) >= _falaj_v%d._falaj_usable", ident(at), n))
	return fmt.Sprintf("ASOF LEFT JOIN %s _falaj_v%d ON %s", table, n, strings.Join(on, " AND ")), nil
}

func sortedKeys(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

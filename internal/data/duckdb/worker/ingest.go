package worker

import (
	"context"
	"fmt"
	"strings"

	"falaj/internal/data"
	"falaj/internal/kernel/fault"
)

// Tables of an ingest, in order: raw (as the file says), src (with its types), drv (after the derive SELECT),
// chk (with the types of the dataset and a mark on rows that break the contract), and aside (rows put aside).
const (
	src   = own + ".src"
	drv   = own + ".drv"
	chk   = own + ".chk"
	aside = own + ".aside"
)

func ingest(ctx context.Context, s *session, j data.IngestJob) (*data.IngestResult, error) {
	res := &data.IngestResult{}
	for _, r := range j.Contract.Columns {
		s.hide = s.hide || r.Mask != ""
	}
	if err := s.exec(ctx, "CREATE TABLE "+aside+" (reasons VARCHAR[], row BIGINT, record VARCHAR)"); err != nil {
		return nil, err
	}
	if err := s.typed(ctx, j, res); err != nil {
		return nil, err
	}
	cols, err := s.derived(ctx, j, res)
	if err != nil {
		return nil, err
	}
	if err := s.checked(ctx, j, cols, res); err != nil {
		return nil, err
	}
	if res.Bad > 0 {
		if err := s.write(ctx, "SELECT reasons, row, record FROM "+aside+" ORDER BY row, record", j.Bad); err != nil {
			return nil, err
		}
	}
	if !res.Accepted {
		return res, nil
	}
	if err := s.span(ctx, j, res); err != nil {
		return nil, err
	}
	order, err := sorted(res.Columns, j.Key)
	if err != nil {
		return nil, err
	}
	return res, s.write(ctx, fmt.Sprintf("SELECT %s FROM %s WHERE NOT _falaj_bad ORDER BY %s", idents(names(res.Columns)), chk, order), j.Out)
}

// typed fills src from raw; rows with a value that has no place in its column's type go aside.
func (s *session) typed(ctx context.Context, j data.IngestJob, res *data.IngestResult) error {
	have, err := s.load(ctx, j)
	if err != nil {
		return err
	}
	if res.Read, err = s.int(ctx, "SELECT count(*) FROM "+raw); err != nil {
		return err
	}
	if res.Read == 0 {
		return fault.New(fault.Invalid, j.Name+" has no rows.", "Remove it from the sources, or give it rows.").At("source")
	}
	res.Source = j.Source
	if res.Source == nil {
		if res.Source, err = s.infer(ctx, have); err != nil {
			return err
		}
		for i, c := range res.Source { // without a SELECT between, the contract's types are those of the source
			if r, ok := j.Contract.Columns[c.Name]; ok && r.Type != "" && j.Derive == "" {
				if res.Source[i].Type, err = data.TypeName(r.Type); err != nil {
					return err
				}
			}
		}
	} else if err := shape(have, res.Source, j.Name, "source"); err != nil {
		return err
	}
	at, err := s.place(ctx, raw, have)
	if err != nil {
		return err
	}
	var list []string
	var checks []check
	for _, c := range res.Source {
		h, _ := find(have, c.Name)
		expr, lost := castTo(ident(h.Name), h.Type, c.Type)
		list = append(list, expr+" AS "+ident(c.Name))
		if lost != "" {
			checks = append(checks, typeCheck(c.Name, h.Name, c.Type, lost))
		}
	}
	bad, err := s.count(ctx, raw, checks, res)
	if err != nil {
		return err
	}
	where := ""
	if bad {
		any := anyOf(checks)
		if err := s.putAside(ctx, raw, "WHERE "+any, at+" + 1", have, checks); err != nil {
			return err
		}
		where = " WHERE NOT " + any
	}
	if err := s.exec(ctx, "CREATE TABLE "+src+" AS SELECT "+strings.Join(list, ", ")+", "+at+" + 1 AS _falaj_row FROM "+raw+where); err != nil {
		return err
	}
	return s.exec(ctx, "DROP TABLE "+raw)
}

// derived runs the derive SELECT over src, or takes src itself, and returns the columns.
func (s *session) derived(ctx context.Context, j data.IngestJob, res *data.IngestResult) ([]data.Column, error) {
	if strings.TrimSpace(j.Derive) == "" {
		return res.Source, s.exec(ctx, "CREATE VIEW "+drv+" AS SELECT *, _falaj_row AS _falaj_rid FROM "+src)
	}
	if err := s.exec(ctx, "CREATE VIEW source AS SELECT * EXCLUDE (_falaj_row) FROM "+src); err != nil {
		return nil, err
	}
	cols, err := s.materialize(ctx, j.Derive, j.DeriveRef, own+".body")
	if err != nil {
		return nil, err
	}
	at, err := s.place(ctx, own+".body", cols)
	if err != nil {
		return nil, err
	}
	return cols, s.exec(ctx, "CREATE VIEW "+drv+" AS SELECT "+idents(names(cols))+", CAST(NULL AS BIGINT) AS _falaj_row, "+at+" AS _falaj_rid FROM "+own+".body")
}

// checked applies the contract to drv and leaves chk; res gets the checks, the counts and the verdict.
func (s *session) checked(ctx context.Context, j data.IngestJob, cols []data.Column, res *data.IngestResult) error {
	if j.Expect != nil {
		if err := shape(cols, j.Expect, "The result for "+j.Name, "derive"); err != nil {
			return err
		}
	}
	if err := required(cols, j); err != nil {
		return err
	}
	var list []string
	var firm, rules []check // firm: the row cannot be stored at all
	for _, c := range cols {
		to, err := target(c, j)
		if err != nil {
			return err
		}
		out := data.Column{Name: c.Name, Type: to}
		if e, ok := find(j.Expect, c.Name); ok {
			out.Name = e.Name
		}
		res.Columns = append(res.Columns, out)
		expr, lost := castTo(ident(c.Name), c.Type, to)
		list = append(list, expr+" AS "+ident(out.Name))
		if lost != "" {
			firm = append(firm, typeCheck(out.Name, c.Name, to, lost))
		}
		more, err := ruleChecks(out, expr, j)
		if err != nil {
			return err
		}
		rules = append(rules, more...)
	}
	if j.Expect != nil { // the order of the first file
		res.Columns = j.Expect
	}
	all := append(append([]check{}, firm...), rules...)
	bad, err := s.count(ctx, drv, all, res)
	if err != nil {
		return err
	}
	mark := "false"
	if bad && !j.Contract.Keeps() {
		mark = anyOf(all)
	} else if bad {
		mark = anyOf(firm)
	}
	if bad {
		if err := s.putAside(ctx, drv, "WHERE "+anyOf(all), "_falaj_row", cols, all); err != nil {
			return err
		}
	}
	if err := s.exec(ctx, fmt.Sprintf("CREATE TABLE %s AS SELECT %s, _falaj_row, _falaj_rid, %s AS _falaj_bad FROM %s", chk, strings.Join(list, ", "), mark, drv)); err != nil {
		return err
	}
	if err := s.unique(ctx, j, res); err != nil {
		return err
	}
	return s.verdict(ctx, j, res)
}

// unique finds rows whose key stands already in this file or in the accepted ones. The first of them stays.
func (s *session) unique(ctx context.Context, j data.IngestJob, res *data.IngestResult) error {
	if len(j.Key) == 0 || j.Contract.Duplicates {
		return nil
	}
	keys := idents(j.Key)
	n, err := s.ints(ctx, fmt.Sprintf("SELECT (SELECT count(*) FROM %s WHERE NOT _falaj_bad), (SELECT count(*) FROM (SELECT DISTINCT %s FROM %s WHERE NOT _falaj_bad))", chk, keys, chk))
	if err != nil {
		return err
	}
	within, before := n[0]-n[1], int64(0)
	if len(j.Existing) > 0 {
		if before, err = s.int(ctx, fmt.Sprintf("SELECT count(*) FROM %s SEMI JOIN (SELECT %s FROM %s) USING (%s) WHERE NOT _falaj_bad", chk, keys, parquet(j.Existing), keys)); err != nil {
			return err
		}
	}
	out := data.CheckResult{Check: "unique", Column: strings.Join(j.Key, ", "), Rule: "one row for each key"}
	defer func() { res.Checks = append(res.Checks, out) }()
	if within == 0 && before == 0 {
		return nil
	}
	dup := own + ".dup"
	seen := "false"
	if before > 0 {
		var eq []string
		for _, k := range j.Key {
			eq = append(eq, fmt.Sprintf("_falaj_e.%s = _falaj_c.%s", ident(k), ident(k)))
		}
		seen = fmt.Sprintf("EXISTS (SELECT 1 FROM %s _falaj_e WHERE %s)", parquet(j.Existing), strings.Join(eq, " AND "))
	}
	if err := s.exec(ctx, fmt.Sprintf(`CREATE TABLE %s AS SELECT _falaj_rid, CASE WHEN _falaj_before THEN 'unique: this key stands in an accepted file already' ELSE 'unique: this key stands in this file already' END AS _falaj_reason
		FROM (SELECT _falaj_rid, %s AS _falaj_before, row_number() OVER (PARTITION BY %s ORDER BY _falaj_rid) AS _falaj_nth FROM %s _falaj_c WHERE NOT _falaj_bad) WHERE _falaj_before OR _falaj_nth > 1`, dup, seen, keys, chk)); err != nil {
		return err
	}
	if out.Rows, err = s.int(ctx, "SELECT count(*) FROM "+dup); err != nil {
		return err
	}
	if err := s.exec(ctx, fmt.Sprintf("INSERT INTO %s SELECT [_falaj_d._falaj_reason], _falaj_c._falaj_row, %s FROM %s _falaj_c JOIN %s _falaj_d USING (_falaj_rid)", aside, record("_falaj_c.", res.Columns), chk, dup)); err != nil {
		return err
	}
	if j.Contract.Keeps() {
		return nil
	}
	return s.exec(ctx, fmt.Sprintf("UPDATE %s SET _falaj_bad = true WHERE _falaj_rid IN (SELECT _falaj_rid FROM %s)", chk, dup))
}

// verdict counts what stays and decides about the file as a whole.
func (s *session) verdict(ctx context.Context, j data.IngestJob, res *data.IngestResult) error {
	n, err := s.ints(ctx, fmt.Sprintf("SELECT (SELECT count(*) FROM %s WHERE NOT _falaj_bad), (SELECT count(*) FROM %s), (SELECT count(*) FROM %s), (SELECT count(*) FROM %s)", chk, aside, src, chk))
	if err != nil {
		return err
	}
	good, rows := n[0], n[3]
	res.Bad = n[1]
	share := 1 - float64(n[2])/float64(res.Read)*float64(good)/float64(max(rows, 1))
	res.Accepted = share <= j.Contract.Limit() && good > 0
	switch {
	case res.Accepted:
		res.Good = good
	case good == 0 && res.Bad == 0:
		return fault.New(fault.Invalid, fmt.Sprintf("%s leaves no rows after its SELECT.", j.Name), "Look at the WHERE of the derive SQL.").At("derive")
	case good == 0:
		res.Refusal = fmt.Sprintf("none of the %s rows keeps the contract", data.Grouped(res.Read))
	case j.Contract.Limit() == 0:
		res.Refusal = fmt.Sprintf("%s of %s rows (%s) break the contract, and it blocks on the first", data.Grouped(res.Bad), data.Grouped(res.Read), data.Percent(share))
	default:
		res.Refusal = fmt.Sprintf("%s of %s rows (%s) break the contract, %s are allowed", data.Grouped(res.Bad), data.Grouped(res.Read), data.Percent(share), data.Percent(j.Contract.Limit()))
	}
	return nil
}

// span finds the event times of what stays, in all and by month.
func (s *session) span(ctx context.Context, j data.IngestJob, res *data.IngestResult) error {
	if j.Time.Event == "" {
		return nil
	}
	ev := "CAST(" + ident(j.Time.Event) + " AS TIMESTAMPTZ)"
	row, err := s.row(ctx, fmt.Sprintf("SELECT epoch_us(min(%s)), epoch_us(max(%s)) FROM %s WHERE NOT _falaj_bad", ev, ev, chk))
	if err != nil {
		return err
	}
	if lo, ok := row[0].(int64); ok {
		hi := whole(row[1])
		res.EventMin, res.EventMax = &lo, &hi
	}
	res.Periods = map[string]int64{}
	return s.each(ctx, fmt.Sprintf("SELECT strftime(%s, '%%Y-%%m') AS _falaj_m, count(*) FROM %s WHERE NOT _falaj_bad AND %s IS NOT NULL GROUP BY _falaj_m", ev, chk, ev), func(row []any) {
		res.Periods[fmt.Sprint(row[0])] = whole(row[1])
	})
}

package worker

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"falaj/internal/data"
)

func profileFiles(ctx context.Context, s *session, j data.ProfileJob) (*data.Profile, error) {
	from := parquet(j.Files)
	cols, err := s.describe(ctx, "FROM "+from)
	if err != nil {
		return nil, err
	}
	if j.Only != nil {
		cols = slices.DeleteFunc(cols, func(c data.Column) bool { return !slices.Contains(j.Only, c.Name) })
	}
	return s.profile(ctx, from, cols, j.Against)
}

// number is the expression that describes a column as a DOUBLE, and its kind.
func number(c data.Column) (expr, kind string) {
	col := ident(c.Name)
	switch {
	case floating(c.Type):
		return fmt.Sprintf("(CASE WHEN isfinite(%s) THEN CAST(%s AS DOUBLE) END)", col, col), data.KindNumber
	case numeric(c.Type):
		return "CAST(" + col + " AS DOUBLE)", data.KindNumber
	case c.Type == timestampTZ, c.Type == "TIMESTAMP":
		return fmt.Sprintf("(CASE WHEN isfinite(%s) THEN CAST(epoch_us(%s) AS DOUBLE) END)", col, col), data.KindTime
	case c.Type == "DATE":
		return fmt.Sprintf("(CASE WHEN isfinite(%s) THEN CAST(epoch_us(CAST(%s AS TIMESTAMP)) AS DOUBLE) END)", col, col), data.KindTime
	case c.Type == "VARCHAR", c.Type == "TIME", c.Type == "UUID":
		return "", data.KindText
	case c.Type == "BOOLEAN":
		return "", data.KindBool
	}
	return "", data.KindOther
}

// profile describes the columns of a table expression. With against, bins and top values are those of that profile.
func (s *session) profile(ctx context.Context, from string, cols []data.Column, against *data.Profile) (*data.Profile, error) {
	p := &data.Profile{Columns: make([]data.ColumnProfile, len(cols))}
	grid := make([]string, data.GridSize+1)
	for i := range grid {
		grid[i] = strconv.FormatFloat(float64(i)/data.GridSize, 'g', -1, 64)
	}
	asks := []string{"count(*)"}
	for i, c := range cols {
		col, expr, cp := ident(c.Name), "", &p.Columns[i]
		cp.Name, cp.Type = c.Name, c.Type
		expr, cp.Kind = number(c)
		asks = append(asks, "count("+col+")", "approx_count_distinct("+col+")")
		if expr != "" {
			asks = append(asks, "count("+expr+")", "min("+expr+")", "max("+expr+")", "avg("+expr+")",
				"CASE WHEN count("+expr+") > 1 THEN stddev_samp("+expr+") END", "quantile_cont("+expr+", ["+strings.Join(grid, ", ")+"])")
		}
	}
	row, err := s.row(ctx, "SELECT "+strings.Join(asks, ", ")+" FROM "+from)
	if err != nil {
		return nil, err
	}
	next := func() any { v := row[0]; row = row[1:]; return v }
	p.Rows = whole(next())
	for i := range p.Columns {
		cp := &p.Columns[i]
		there := whole(next())
		cp.Nulls, cp.Distinct = p.Rows-there, whole(next())
		if cp.Kind == data.KindNumber || cp.Kind == data.KindTime {
			cp.NaNs = there - whole(next())
			cp.Min, cp.Max, cp.Mean, cp.SD = real(next()), real(next()), real(next()), real(next())
			if q, _ := next().([]any); q != nil {
				for _, v := range q {
					if f := real(v); f != nil {
						cp.Grid = append(cp.Grid, *f)
					}
				}
			}
			if a := against.Column(cp.Name); a != nil && a.Kind == cp.Kind {
				cp.Edges = a.Edges
			} else if len(cp.Grid) > 2 {
				cp.Edges = slices.Compact(slices.Clone(cp.Grid[1 : len(cp.Grid)-1]))
			}
		}
	}
	if err := s.bins(ctx, from, cols, p); err != nil {
		return nil, err
	}
	for i, c := range cols {
		cp := &p.Columns[i]
		if cp.Kind == data.KindText || cp.Kind == data.KindBool {
			if err := s.top(ctx, from, c, cp, p.Rows, against.Column(cp.Name)); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

// bins counts every number and time column on its edges, in one pass.
func (s *session) bins(ctx context.Context, from string, cols []data.Column, p *data.Profile) error {
	var asks []string
	var which []int
	for i, c := range cols {
		if len(p.Columns[i].Edges) == 0 {
			continue
		}
		edges := make([]string, 0, len(p.Columns[i].Edges)+1)
		for _, e := range p.Columns[i].Edges {
			edges = append(edges, strconv.FormatFloat(e, 'g', -1, 64)+"::DOUBLE")
		}
		expr, _ := number(c)
		asks = append(asks, fmt.Sprintf("map_values(histogram(%s, [%s, 'infinity'::DOUBLE]))", expr, strings.Join(edges, ", ")))
		which = append(which, i)
	}
	if asks == nil {
		return nil
	}
	row, err := s.row(ctx, "SELECT "+strings.Join(asks, ", ")+" FROM "+from)
	if err != nil {
		return err
	}
	for k, i := range which {
		cp := &p.Columns[i]
		cp.Counts = make([]int64, len(cp.Edges)+1)
		counts, _ := row[k].([]any)
		for b := range counts {
			if b < len(cp.Counts) {
				cp.Counts[b] = whole(counts[b])
			}
		}
	}
	return nil
}

// top counts the most frequent values of a text or boolean column, or those that against lists.
func (s *session) top(ctx context.Context, from string, c data.Column, cp *data.ColumnProfile, rows int64, against *data.ColumnProfile) error {
	value := "CAST(" + ident(c.Name) + " AS VARCHAR)"
	q := fmt.Sprintf("SELECT left(%s, 256) AS v, count(*) AS n FROM %s WHERE %s IS NOT NULL GROUP BY v ORDER BY n DESC, v LIMIT %d", value, from, ident(c.Name), data.TopSize)
	if against != nil {
		if len(against.Top) == 0 {
			cp.Other = rows - cp.Nulls
			return nil
		}
		vals := make([]string, len(against.Top))
		for i, t := range against.Top {
			vals[i] = lit(t.Value)
		}
		q = fmt.Sprintf("SELECT left(%s, 256) AS v, count(*) AS n FROM %s WHERE left(%s, 256) IN (%s) GROUP BY v", value, from, value, strings.Join(vals, ", "))
	}
	left := rows - cp.Nulls
	err := s.each(ctx, q, func(row []any) {
		t := data.Top{Value: fmt.Sprint(row[0]), Rows: whole(row[1])}
		cp.Top, left = append(cp.Top, t), left-t.Rows
	})
	if against != nil { // the same values in the same order, zero rows included
		found := map[string]int64{}
		for _, t := range cp.Top {
			found[t.Value] = t.Rows
		}
		cp.Top = nil
		for _, t := range against.Top {
			cp.Top = append(cp.Top, data.Top{Value: t.Value, Rows: found[t.Value]})
		}
	}
	cp.Other = left
	return err
}

func whole(v any) int64 {
	switch n := v.(type) {
	case int64:
		return n
	case int32:
		return int64(n)
	case uint64:
		return int64(n)
	}
	return 0
}

// real is a number as JSON can hold it; nil for NULL, NaN and infinities.
func real(v any) *float64 {
	f, ok := v.(float64)
	if !ok || math.IsNaN(f) || math.IsInf(f, 0) {
		return nil
	}
	return &f
}

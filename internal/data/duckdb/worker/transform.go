package worker

import (
	"context"
	"fmt"
	"strings"

	"falaj/internal/data"
	"falaj/internal/kernel/fault"
)

// narrow is the SELECT list that brings a table to the types of a dataset.
func narrow(cols []data.Column) (list string, out []data.Column, err error) {
	parts := make([]string, len(cols))
	for i, c := range cols {
		to, err := stored(c)
		if err != nil {
			return "", nil, err
		}
		out = append(out, data.Column{Name: c.Name, Type: to})
		parts[i] = ident(c.Name)
		if c.Type != to {
			expr := fmt.Sprintf("CAST(%s AS %s)", ident(c.Name), to)
			if c.Type == "TIMESTAMP_NS" {
				expr, _ = castTo(ident(c.Name), c.Type, to)
			}
			parts[i] = expr + " AS " + ident(c.Name)
		}
	}
	return strings.Join(parts, ", "), out, nil
}

// sorted is the ORDER BY list that makes the order of rows depend on their content only.
func sorted(cols []data.Column, first []string) (string, error) {
	var keys []string
	seen := map[string]bool{}
	for _, f := range first {
		c, ok := find(cols, f)
		if !ok {
			return "", fault.New(fault.Invalid, fmt.Sprintf("There is no column %s to sort by.", f), "Columns here are: "+clip(strings.Join(names(cols), ", "), 400)+".").At("key")
		}
		keys, seen[c.Name] = append(keys, ident(c.Name)), true
	}
	for _, c := range cols {
		if !seen[c.Name] {
			keys = append(keys, ident(c.Name))
		}
	}
	return strings.Join(keys, ", "), nil
}

func transform(ctx context.Context, s *session, j data.TransformJob) (*data.TransformResult, error) {
	s.hide = j.Hide
	if err := s.inputs(ctx, j.Inputs); err != nil {
		return nil, s.explain(err, "")
	}
	table := own + ".out"
	cols, err := s.materialize(ctx, j.SQL, j.Ref, table)
	if err != nil {
		return nil, err
	}
	return s.finish(ctx, table, cols, j)
}

// finish writes a table to the job's Out, sorted unless the job wants it as written, and profiles it.
func (s *session) finish(ctx context.Context, table string, cols []data.Column, j data.TransformJob) (*data.TransformResult, error) {
	list, out, err := narrow(cols)
	if err != nil {
		return nil, err
	}
	q := "SELECT " + list + " FROM " + table
	if !j.AsWritten {
		order, err := sorted(out, j.Order)
		if err != nil {
			return nil, err
		}
		q = "SELECT * FROM (" + q + ") ORDER BY " + order
	}
	if err := s.write(ctx, q, j.Out); err != nil {
		return nil, s.explain(err, j.Ref)
	}
	res := &data.TransformResult{Columns: out}
	if res.Rows, err = s.int(ctx, "SELECT count(*) FROM "+table); err != nil {
		return nil, err
	}
	if j.Profile {
		if res.Profile, err = s.profile(ctx, "(SELECT "+list+" FROM "+table+")", out, nil); err != nil {
			return nil, s.explain(err, j.Ref)
		}
	}
	return res, nil
}

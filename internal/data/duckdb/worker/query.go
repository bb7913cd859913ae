package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"falaj/internal/data"
	"falaj/internal/kernel/fault"
)

// maxRowsBytes bounds the rows of one look.
const maxRowsBytes = 16 << 20

func query(ctx context.Context, s *session, j data.QueryJob) (*data.Rows, error) {
	s.hide = j.Hide
	if err := s.inputs(ctx, j.Inputs); err != nil {
		return nil, s.explain(err, "")
	}
	if _, err := s.one(ctx, j.SQL, j.Ref); err != nil {
		return nil, err
	}
	cols, err := s.describe(ctx, j.SQL)
	if err != nil {
		return nil, s.explain(shift(err, 1), j.Ref)
	}
	if err := distinctNames(cols, j.Ref); err != nil {
		return nil, err
	}
	if err := s.exec(ctx, "CREATE VIEW "+own+".q AS\n"+j.SQL); err != nil {
		return nil, s.explain(shift(err, 1), j.Ref)
	}
	limit := j.Limit
	if limit <= 0 {
		limit = 100
	}
	parts := make([]string, len(cols))
	for i, c := range cols {
		col := ident(c.Name)
		switch {
		case c.Type == timestampTZ, strings.HasPrefix(c.Type, "TIMESTAMP"):
			col = fmt.Sprintf("CASE WHEN isfinite(%s) THEN strftime(CAST(%s AS TIMESTAMPTZ), '%%Y-%%m-%%dT%%H:%%M:%%S.%%fZ') ELSE CAST(%s AS VARCHAR) END", col, col, col)
			cols[i].Type = timestampTZ
		case c.Type == "BLOB":
			col = "hex(" + col + ")"
		case floating(c.Type):
			col = fmt.Sprintf("CASE WHEN isfinite(%s) THEN to_json(%s) ELSE to_json(CAST(%s AS VARCHAR)) END", col, col, col)
		}
		parts[i] = ident(c.Name) + " := " + col
	}
	out := &data.Rows{Columns: cols, Rows: []json.RawMessage{}}
	size := 0
	err = s.each(ctx, fmt.Sprintf("SELECT CAST(to_json(struct_pack(%s)) AS VARCHAR) FROM (SELECT * FROM %s.q LIMIT %d)", strings.Join(parts, ", "), own, limit+1), func(row []any) {
		text, _ := row[0].(string)
		if len(out.Rows) == limit || size+len(text) > maxRowsBytes {
			out.More = true
			return
		}
		size += len(text)
		out.Rows = append(out.Rows, json.RawMessage(text))
	})
	if err != nil {
		return nil, s.explain(err, j.Ref)
	}
	for _, r := range out.Rows {
		if !json.Valid(r) {
			return nil, fault.New(fault.Unsupported, "A row cannot be shown as JSON.", "Cast unusual columns to text in the SELECT.")
		}
	}
	return out, nil
}

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"

	"falaj/internal/data"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/note"
)

// QuarantineBatch is what was set aside of one source file.
type QuarantineBatch struct {
	ID        string            `json:"id"`
	At        int64             `json:"at"`
	Dataset   string            `json:"dataset"`
	Source    string            `json:"source"`
	Rows      int64             `json:"rows"`
	TotalRows int64             `json:"total_rows"`
	Scope     string            `json:"scope" enum:"refused,rows"`
	Note      note.Note         `json:"note"`
	Checks    []QuarantineCheck `json:"checks"`
}

// QuarantineCheck is a promise that rows of the batch broke.
type QuarantineCheck struct {
	Column     string    `json:"column"`
	Check      note.Note `json:"check"`
	Violations int64     `json:"violations"`
}

// QuarantineRows are rows of a batch, masked.
type QuarantineRows struct {
	Page[QuarantineRow]
	Batch   QuarantineBatch `json:"batch"`
	Columns []string        `json:"columns"`
}

// QuarantineRow is one row as text. Line counts from 1 with the header of a CSV; 0 where a SELECT stands between.
type QuarantineRow struct {
	Line       int64          `json:"line"`
	Values     []*string      `json:"values"`
	Violations []RowViolation `json:"violations"`
}

// RowViolation says which promise a row broke.
type RowViolation struct {
	Column string    `json:"column"`
	Check  note.Note `json:"check"`
}

type quarantineIn struct {
	InDataset
	Paged
}

type quarantineRowsIn struct {
	InDataset
	ID string `path:"id"`
	Paged
}

// farRow bounds how deep into a batch the pages go: the rows are read from the start each time.
const farRow = 20000

func (a *API) quarantine(ctx context.Context, in *quarantineIn) (*Out[Page[QuarantineBatch]], error) {
	d, err := a.Data.Dataset(ctx, in.Project, in.Dataset)
	if err != nil {
		return nil, err
	}
	all, err := a.Data.Quarantines(ctx, in.Project, in.Dataset, 1000)
	if err != nil {
		return nil, err
	}
	list, err := cutPage(all, in.Paged)
	if err != nil {
		return nil, err
	}
	p := Page[QuarantineBatch]{Items: []QuarantineBatch{}, NextPageToken: list.NextPageToken, Total: list.Total}
	for _, x := range list.Items {
		p.Items = append(p.Items, batchView(d.Spec, x))
	}
	return answer(p), nil
}

func batchView(s data.Spec, x data.Aside) QuarantineBatch {
	b := QuarantineBatch{ID: x.ID, At: microsOf(x.Created), Dataset: x.Dataset, Source: x.Source, Rows: x.Rows, TotalRows: x.Read, Scope: "rows", Checks: []QuarantineCheck{}}
	code := "quarantine.rows"
	if x.Whole {
		b.Scope, code = "refused", "quarantine.refused"
	}
	if x.Whole && x.Rows == 0 { // nothing was counted: the file could not be read, and the text says why
		code = "quarantine.unreadable"
	}
	b.Note = note.New(code, strings.TrimSpace(x.Reason+" "+x.Next))
	b.Note.Args["violations"] = x.Rows
	for _, c := range x.Checks {
		if c.Rows > 0 {
			b.Checks = append(b.Checks, QuarantineCheck{c.Column, checkNote(s, c), c.Rows})
		}
	}
	return b
}

func (a *API) quarantineRows(ctx context.Context, in *quarantineRowsIn) (*Out[QuarantineRows], error) {
	d, err := a.Data.Dataset(ctx, in.Project, in.Dataset)
	if err != nil {
		return nil, err
	}
	x, err := a.Data.Quarantine(ctx, in.Project, in.ID)
	if err != nil {
		return nil, err
	}
	if x.Dataset != in.Dataset {
		return nil, fault.Newf(fault.NotFound, "Dataset '%s' has no quarantine '%s'.", in.Dataset, in.ID)
	}
	from, err := in.from()
	if err != nil {
		return nil, err
	}
	if from > farRow {
		return nil, fault.Newf(fault.Invalid, "The pages show the first %d rows of a batch.", farRow).At("page_token")
	}
	rows, err := a.Data.QuarantineRows(ctx, in.Project, in.ID, from+in.Limit)
	if err != nil {
		return nil, err
	}
	list, err := cutPage(rows, in.Paged)
	if err != nil {
		return nil, err
	}
	out := QuarantineRows{Page: Page[QuarantineRow]{Items: []QuarantineRow{}, Total: &x.Rows}, Batch: batchView(d.Spec, x), Columns: []string{}}
	if next := from + len(list.Items); int64(next) < x.Rows && len(list.Items) == in.Limit && next <= farRow {
		out.NextPageToken = pageAt(next)
	}
	records := make([]map[string]*string, len(list.Items))
	for i, r := range list.Items {
		var names []string
		if records[i], names, err = members(r.Record); err != nil {
			return nil, err
		}
		for _, n := range names {
			if !slices.Contains(out.Columns, n) {
				out.Columns = append(out.Columns, n)
			}
		}
	}
	header := int64(0)
	if s := d.Spec.Source; s != nil && s.Format == data.CSV {
		header = 1
	}
	for i, r := range list.Items {
		v := QuarantineRow{Values: make([]*string, len(out.Columns)), Violations: []RowViolation{}}
		if r.Row > 0 {
			v.Line = r.Row + header
		}
		for k, c := range out.Columns {
			v.Values[k] = records[i][c]
		}
		for _, why := range r.Reasons {
			v.Violations = append(v.Violations, violation(d.Spec, x, why))
		}
		out.Items = append(out.Items, v)
	}
	return answer(out), nil
}

// members reads a record with its names in order; values as text.
func members(record json.RawMessage) (map[string]*string, []string, error) {
	dec := json.NewDecoder(bytes.NewReader(record))
	if _, err := dec.Token(); err != nil {
		return nil, nil, err
	}
	out, names := map[string]*string{}, []string{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, nil, err
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, nil, err
		}
		name, _ := key.(string)
		names = append(names, name)
		if string(raw) == "null" {
			out[name] = nil
			continue
		}
		text := string(raw)
		_ = json.Unmarshal(raw, &text) // a text without its quotes, anything else as written
		out[name] = &text
	}
	return out, names, nil
}

// violation finds the check that a reason of the data stage ("distance: must be at least 1, is -5") speaks of.
func violation(s data.Spec, x data.Aside, why string) RowViolation {
	for _, c := range x.Checks {
		if strings.HasPrefix(why, c.Column+": must be "+c.Rule) {
			n := checkNote(s, c)
			n.Text = why
			return RowViolation{c.Column, n}
		}
	}
	column, text, ok := strings.Cut(why, ": ")
	if !ok {
		column, text = "", why
	}
	return RowViolation{column, note.New("check.other", text)}
}

package features

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"falaj/internal/blob"
	"falaj/internal/data"
	"falaj/internal/kernel/fault"
)

// TrainingSet is a stored point-in-time training set: a Parquet blob of the spine's columns followed by the features of
// the service in vector order as DOUBLE, one row for each row of the spine, sorted by time and then by all columns.
type TrainingSet struct {
	Blob     blob.Ref      `json:"blob"`
	Rows     int64         `json:"rows"`
	Service  string        `json:"service"` // name@digest
	Columns  []data.Column `json:"columns"`
	Features []string      `json:"features"`
	Pins     []Pin         `json:"datasets"`
	Profile  *data.Profile `json:"profile"` // of the features: the reference of drift
}

// TrainingSet joins the service's features to the rows of the spine as they were known at each row's time, and keeps the
// result. spine is one SELECT over datasets that gives the views' key columns, the event time, the columns that request
// features read, and whatever else training needs, such as the label. The caller has authorized it.
func (s *Service) TrainingSet(ctx context.Context, project, spine, service string, req TrainingSetRequest) (*TrainingSet, error) {
	p, err := s.plan(ctx, project, service)
	if err != nil {
		return nil, err
	}
	selects := []string{spine}
	for _, v := range p.views {
		selects = append(selects, v.SQL)
	}
	tables, err := s.data.Tables(ctx, project, selects, req.Pins)
	if err != nil {
		return nil, err
	}
	defer tables.Room.Close()
	out := tables.Room.Path("training.parquet")
	res, err := s.join(ctx, p, tables, spine, req, out, true)
	if err != nil {
		return nil, err
	}
	if err := checkLabel(res, req.Label); err != nil {
		return nil, err
	}
	f, err := os.Open(out)
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "The training set could not be read back.", "")
	}
	defer f.Close()
	ref, err := s.blobs.Put(ctx, project, f)
	if err != nil {
		return nil, err
	}
	return &TrainingSet{Blob: ref, Rows: res.Rows, Service: p.info.Ref(), Columns: res.Columns, Features: p.info.Features, Pins: tables.Pins, Profile: onlyFeatures(res.Profile, p.info.Features)}, nil
}

// checkLabel refuses labels that would spoil the training without a word: none at all, and NaN, which is no label.
func checkLabel(res *data.TransformResult, label string) error {
	if label == "" || res.Rows == 0 {
		return nil
	}
	c := res.Profile.Column(label)
	switch {
	case c == nil:
		return fault.New(fault.Invalid, "The spine has no column '"+label+"', which train.label names.", "Select it in the spine's SQL, or name the label column: train: {label: ...}.").At("label")
	case c.NaNs > 0:
		return fault.New(fault.Refused, fmt.Sprintf("In %d of %d rows of the training set the label '%s' is NaN or infinite.", c.NaNs, res.Rows, label),
			"Leave them out in the spine's SQL (WHERE isfinite("+label+")), or make them NULL where the label has not come yet.").At("label")
	case c.Nulls == res.Rows:
		return fault.New(fault.Refused, fmt.Sprintf("None of the %d rows of the training set has a label '%s' yet.", res.Rows, label), "Train on an earlier period, or look at the spine's SQL.").At("label")
	}
	return nil
}

// onlyFeatures keeps what drift is measured against: the distribution of the features. The spine's other columns may be
// masked, and most frequent values are nobody's business here.
func onlyFeatures(p *data.Profile, names []string) *data.Profile {
	if p == nil {
		return nil
	}
	out := &data.Profile{Rows: p.Rows}
	for _, c := range p.Columns {
		if slices.Contains(names, c.Name) {
			c.Top = nil
			out.Columns = append(out.Columns, c)
		}
	}
	return out
}

// join writes the training set to out. It runs the spine with the request expressions, each view, the point-in-time join,
// and a last projection into vector order.
func (s *Service) join(ctx context.Context, p *plan, tables *Tables, spine string, req TrainingSetRequest, out string, profile bool) (*data.TransformResult, error) {
	if req.At == "" {
		req.At = "at"
	}
	dir, room := tables.Room.Dir, tables.Room
	sp, err := s.engine.Transform(ctx, data.TransformJob{
		Dir: dir, SQL: p.spineSQL(spine, req), Ref: "the spine", Inputs: tables.Inputs, Out: room.Path("spine.parquet"), Order: []string{req.At}, Hide: tables.Masked,
	})
	if err != nil {
		return nil, err
	}
	job := data.PITJob{Dir: dir, Spine: []string{room.Path("spine.parquet")}, At: "__at", Out: room.Path("joined.parquet")}
	for i, v := range p.views {
		file := room.Path(fmt.Sprintf("view%d.parquet", i))
		if _, err := s.engine.Transform(ctx, data.TransformJob{
			Dir: dir, SQL: v.rowsSQL(), Ref: "feature view " + v.Name, Inputs: tables.Inputs, Out: file, Order: v.order(), Hide: tables.Masked,
		}); err != nil {
			return nil, err
		}
		view := data.PITView{Name: v.Name, Files: []string{file}, Keys: map[string]string{}, Event: "__event", Known: "__known", TTL: v.TTL.Microseconds(), Features: v.Columns, As: map[string]string{}}
		for k, e := range v.Entity {
			view.Keys["__k_"+e] = keyColumn(k)
		}
		for c, name := range v.Columns {
			view.As[name] = fmt.Sprintf("__v%d_%d", i, c)
		}
		job.Views = append(job.Views, view)
	}
	joined, err := s.engine.PointInTime(ctx, job)
	if err != nil {
		return nil, err
	}
	if joined.Rows != sp.Rows {
		return nil, fault.Newf(fault.Internal, "The point-in-time join gave %d rows for %d rows of the spine.", joined.Rows, sp.Rows)
	}
	return s.engine.Transform(ctx, data.TransformJob{
		Dir: dir, SQL: p.lastSQL(sp.Columns), Ref: "the training set", Inputs: map[string]data.Input{"joined": {Files: []string{room.Path("joined.parquet")}}},
		Out: out, AsWritten: true, Profile: profile, Hide: tables.Masked,
	})
}

// inner makes one SELECT usable as a sub-query: without closing semicolons and comments, and with a line end for a comment
// that remains.
func inner(sql string) string { return "(\n" + sql[:meaningful(sql)] + "\n)" }

// meaningful is where the last part of a SELECT ends that is neither space, semicolon nor comment.
func meaningful(sql string) int {
	end := 0
	for i := 0; i < len(sql); {
		skip := func(from int, close string) int { // past the next close
			if n := strings.Index(sql[from:], close); n >= 0 {
				return from + n + len(close)
			}
			return len(sql)
		}
		switch c := sql[i]; {
		case strings.HasPrefix(sql[i:], "--"):
			i = skip(i, "\n")
		case strings.HasPrefix(sql[i:], "/*"):
			i = skip(i+2, "*/")
		case c == '\'' || c == '"':
			i = skip(i+1, string(c))
			end = i
		case c == ';' || c == ' ' || c == '\t' || c == '\r' || c == '\n':
			i++
		default:
			i++
			end = i
		}
	}
	return end
}

func keyColumn(i int) string { return fmt.Sprintf("__k%d", i) }

func literal(t time.Time) string {
	return "TIMESTAMPTZ '" + t.UTC().Format("2006-01-02 15:04:05.000000") + "+00'"
}

// number of a feature column: booleans are 0 and 1, what is not finite is NULL.
func doubleSQL(column string) string {
	c := "CAST(" + quote(column) + " AS DOUBLE)"
	return "CASE WHEN isfinite(" + c + ") THEN " + c + " END"
}

// rowsSQL is the one text that both sides read a view by: offline it is joined, online it is materialized.
func (v View) rowsSQL() string {
	var b strings.Builder
	b.WriteString("SELECT ")
	for i, e := range v.Entity {
		fmt.Fprintf(&b, "CAST(%s AS VARCHAR) AS %s, ", quote(e), quote(keyColumn(i)))
	}
	known := v.Known
	if known == "" {
		known = v.Event
	}
	fmt.Fprintf(&b, `CAST(%s AS TIMESTAMP WITH TIME ZONE) AS "__event", CAST(%s AS TIMESTAMP WITH TIME ZONE) AS "__known"`, quote(v.Event), quote(known))
	for _, c := range v.Columns {
		fmt.Fprintf(&b, ", %s AS %s", doubleSQL(c), quote(c))
	}
	b.WriteString(" FROM " + inner(v.SQL) + " AS the_view WHERE " + quote(v.Event) + " IS NOT NULL AND " + quote(known) + " IS NOT NULL")
	for _, e := range v.Entity {
		b.WriteString(" AND " + quote(e) + " IS NOT NULL")
	}
	return b.String()
}

// order sorts a view's rows; Transform then sorts by all columns, so that of equal times the same row is last everywhere.
func (v View) order() []string {
	out := make([]string, 0, len(v.Entity)+2)
	for i := range v.Entity {
		out = append(out, keyColumn(i))
	}
	return append(out, "__event", "__known")
}

// spineSQL adds join keys as text, the time and the request features to the spine, and narrows it.
func (p *plan) spineSQL(spine string, req TrainingSetRequest) string {
	var b strings.Builder
	at := "CAST(" + quote(req.At) + " AS TIMESTAMP WITH TIME ZONE)"
	b.WriteString("SELECT *, " + at + ` AS "__at"`)
	for _, e := range p.info.Entity {
		fmt.Fprintf(&b, ", CAST(%s AS VARCHAR) AS %s", quote(e), quote("__k_"+e))
	}
	for i, sl := range p.slots {
		if sl.view < 0 {
			fmt.Fprintf(&b, ", %s AS %s", sl.expr.SQL(), quote(fmt.Sprintf("__r%d", i)))
		}
	}
	b.WriteString(" FROM " + inner(spine) + " AS the_spine WHERE true")
	b.WriteString(req.where())
	return b.String()
}

// where narrows a spine.
func (r TrainingSetRequest) where() string {
	at := "CAST(" + quote(r.At) + " AS TIMESTAMP WITH TIME ZONE)"
	var b strings.Builder
	if !r.Since.IsZero() {
		b.WriteString(" AND " + at + " >= " + literal(r.Since))
	}
	if !r.Until.IsZero() {
		b.WriteString(" AND " + at + " < " + literal(r.Until))
		if r.Known != "" {
			b.WriteString(" AND " + quote(r.Known) + " <= " + literal(r.Until))
		}
	}
	return b.String()
}

// lastSQL keeps the spine's own columns that no feature replaces, then the features in vector order.
func (p *plan) lastSQL(spine []data.Column) string {
	var out []string
	for _, c := range spine {
		if !strings.HasPrefix(c.Name, "__") && !slices.Contains(p.info.Features, c.Name) {
			out = append(out, quote(c.Name))
		}
	}
	for i, sl := range p.slots {
		from := fmt.Sprintf("__r%d", i)
		if sl.view >= 0 {
			from = fmt.Sprintf("__v%d_%d", sl.view, sl.column)
		}
		out = append(out, quote(from)+" AS "+quote(p.info.Features[i]))
	}
	return "SELECT " + strings.Join(out, ", ") + " FROM joined"
}

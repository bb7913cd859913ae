package features

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"falaj/internal/data"
	"falaj/internal/kernel/fault"
)

// Parity is the evidence of the gate `parity: offline_online`: rows of the spine answered by both sides.
type Parity struct {
	Service    string       `json:"service"` // name@digest
	Rows       int          `json:"rows"`
	Values     int          `json:"values"`
	Different  int          `json:"different"` // values that differ in any bit, null against number included
	ByFeature  []Difference `json:"by_feature,omitempty"`
	Pins       []Pin        `json:"datasets"`
	Passed     bool         `json:"passed"`
	ComparedAt time.Time    `json:"compared_at"`
}

// Difference counts one feature's differing values and shows the first.
type Difference struct {
	Feature string    `json:"feature"`
	Count   int       `json:"count"`
	At      time.Time `json:"at"`
	Offline string    `json:"offline"`
	Online  string    `json:"online"`
}

// Logged is one row with its features: the columns that a caller sends, its time and its values in service order.
type Logged struct {
	Row    map[string]any
	At     time.Time
	Values []float64
}

// maxParity bounds the rows of one check: their text is one statement.
const maxParity = 5000

// SpineSample takes a deterministic sample of at most n rows of the spine, spread over the whole of it, and joins them
// offline: what a caller would send (keys and request columns), the instant, and the features in service order.
func (s *Service) SpineSample(ctx context.Context, project, spine, service string, req TrainingSetRequest, n int) ([]Logged, error) {
	p, err := s.plan(ctx, project, service)
	if err != nil {
		return nil, err
	}
	off, _, err := s.sample(ctx, project, p, spine, req, n)
	out := make([]Logged, len(off))
	for i, o := range off {
		out[i] = Logged{Row: o.row, At: o.at, Values: o.values}
	}
	return out, err
}

func (s *Service) sample(ctx context.Context, project string, p *plan, spine string, req TrainingSetRequest, n int) ([]offlineRow, []Pin, error) {
	if n = min(n, maxParity); n <= 0 {
		return nil, nil, fault.New(fault.Invalid, "A sample of a spine needs at least one row.", "").At("rows")
	}
	if req.At == "" {
		req.At = "at"
	}
	// hash() picks the same rows each time, spread over the whole spine.
	by := quotedList(append(p.rowColumns(), req.At))
	sql := fmt.Sprintf("SELECT * FROM %s AS sampled WHERE true%s ORDER BY hash(%s), %s LIMIT %d", inner(spine), req.where(), by, by, n)
	req.Since, req.Until, req.Known = time.Time{}, time.Time{}, ""
	return s.offline(ctx, project, p, sql, req)
}

// ParityOfSpine asks the online store for the rows of SpineSample at the same instants, and compares every value bit for
// bit.
func (s *Service) ParityOfSpine(ctx context.Context, project, spine, service string, req TrainingSetRequest, n int) (*Parity, error) {
	p, err := s.plan(ctx, project, service)
	if err != nil {
		return nil, err
	}
	off, pins, err := s.sample(ctx, project, p, spine, req, n)
	if err != nil {
		return nil, err
	}
	out := newParity(p, pins)
	for _, o := range off {
		res, err := s.Online(ctx, OnlineRequest{Project: project, Service: p.info.Ref(), Rows: []map[string]any{o.row}, At: []time.Time{o.at}})
		if err != nil {
			return nil, err
		}
		out.compare(p, o, res.Rows[0].Values)
	}
	return out.done(), nil
}

// ParityOfLogged compares vectors that were really served with what the offline join gives for their rows today.
func (s *Service) ParityOfLogged(ctx context.Context, project, service string, rows []Logged) (*Parity, error) {
	p, err := s.plan(ctx, project, service)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 || len(rows) > maxParity {
		return nil, fault.Newf(fault.Invalid, "A parity check takes 1 to %d rows, not %d.", maxParity, len(rows)).At("rows")
	}
	spine, err := p.valuesSQL(rows)
	if err != nil {
		return nil, err
	}
	off, pins, err := s.offline(ctx, project, p, spine, TrainingSetRequest{At: "__logged_at"})
	if err != nil {
		return nil, err
	}
	out := newParity(p, pins)
	for _, o := range off {
		out.compare(p, o, rows[o.n].Values)
	}
	return out.done(), nil
}

// offlineRow is one row of the join: the row's columns, its instant and number, and its features.
type offlineRow struct {
	row    map[string]any
	at     time.Time
	n      int
	values []float64
}

func newParity(p *plan, pins []Pin) *Parity {
	out := &Parity{Service: p.info.Ref(), Pins: pins, ComparedAt: time.Now().UTC(), ByFeature: make([]Difference, len(p.slots))}
	for i, f := range p.info.Features {
		out.ByFeature[i].Feature = f
	}
	return out
}

func (out *Parity) compare(p *plan, o offlineRow, online []float64) {
	out.Rows++
	for i := range p.slots {
		out.Values++
		on := math.NaN()
		if i < len(online) {
			on = online[i]
		}
		a, b := o.values[i], on
		if math.Float64bits(a) == math.Float64bits(b) || math.IsNaN(a) && math.IsNaN(b) {
			continue
		}
		d := &out.ByFeature[i]
		if d.Count++; d.Count == 1 {
			d.At, d.Offline, d.Online = o.at, spell(a), spell(b)
		}
		out.Different++
	}
}

func (out *Parity) done() *Parity {
	out.ByFeature = slices.DeleteFunc(out.ByFeature, func(d Difference) bool { return d.Count == 0 })
	out.Passed = out.Different == 0 && out.Rows > 0
	return out
}

func spell(v float64) string {
	if math.IsNaN(v) {
		return "null"
	}
	return fmt.Sprintf("%.17g", v)
}

// rowColumns are the columns of a row that both sides read: keys and request columns.
func (p *plan) rowColumns() []string {
	cols := slices.Clone(p.info.Entity)
	for _, in := range p.info.Request {
		if !slices.Contains(cols, in.Name) {
			cols = append(cols, in.Name)
		}
	}
	return cols
}

func quotedList(cols []string) string {
	out := make([]string, len(cols))
	for i, c := range cols {
		out[i] = quote(c)
	}
	return strings.Join(out, ", ")
}

// offline joins the rows of a spine and reads back the row columns, the instant and the features.
func (s *Service) offline(ctx context.Context, project string, p *plan, spine string, req TrainingSetRequest) ([]offlineRow, []Pin, error) {
	selects := []string{spine}
	for _, v := range p.views {
		selects = append(selects, v.SQL)
	}
	tables, err := s.data.Tables(ctx, project, selects, req.Pins)
	if err != nil {
		return nil, nil, err
	}
	defer tables.Room.Close()
	cols := p.rowColumns()
	// Everything the check reads back travels under names that no feature can replace, as text, bigint and double.
	var b strings.Builder
	b.WriteString("SELECT *")
	for i, c := range cols {
		fmt.Fprintf(&b, ", %s AS %s", p.textSQL(c), quote(fmt.Sprintf("parity_%d", i)))
	}
	fmt.Fprintf(&b, `, epoch_us(CAST(%s AS TIMESTAMP WITH TIME ZONE)) AS parity_at FROM %s AS parity_spine`, quote(req.At), inner(spine))
	joined := tables.Room.Path("parity_join.parquet")
	if _, err := s.join(ctx, p, tables, b.String(), req, joined, false); err != nil {
		return nil, nil, err
	}
	sql := "SELECT "
	for i := range cols {
		sql += fmt.Sprintf("parity_%d, ", i)
	}
	n := "CAST(-1 AS BIGINT)"
	if req.At == "__logged_at" {
		n = "CAST(logged_row AS BIGINT)"
	}
	sql += "parity_at, " + n + " AS parity_row, " + quotedList(p.info.Features) + " FROM joined"
	file := tables.Room.Path("parity.parquet")
	if _, err := s.engine.Transform(ctx, data.TransformJob{Dir: tables.Room.Dir, SQL: sql, Ref: "the parity check", Inputs: map[string]data.Input{"joined": {Files: []string{joined}}}, Out: file, AsWritten: true}); err != nil {
		return nil, nil, err
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, unreadable(err)
	}
	defer f.Close()
	var out []offlineRow
	err = readParquet(f, len(cols), 2, len(p.slots), func(r parquetRow) error {
		o := offlineRow{row: map[string]any{}, at: time.UnixMicro(r.ints[0]).UTC(), n: int(r.ints[1]), values: slices.Clone(r.doubles)}
		for i, c := range cols {
			v, err := p.fromText(c, r.texts[i])
			if err != nil {
				return err
			}
			o.row[c] = v
		}
		out = append(out, o)
		return nil
	})
	return out, tables.Pins, err
}

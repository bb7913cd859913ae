package features

import (
	"context"
	"fmt"
	"os"
	"time"

	"falaj/internal/data"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
	"falaj/internal/store"
)

// putSize bounds the rows that one write of the online store holds in memory and in one transaction.
const putSize = 10000

// Materialize puts the rows of a view that became visible within the window (later than From, up to To) online and
// records it under the caller's idempotency key. A second call with the key gives the recorded result and does nothing.
// Putting the same rows twice changes nothing, so a crash before the record leaves nothing that a new call does not heal.
func (s *Service) Materialize(ctx context.Context, project, view string, w Window, key string) (*Materialized, error) {
	if key == "" || w.To.IsZero() || !w.From.Before(w.To) {
		return nil, fault.New(fault.Invalid, "A materialization needs an idempotency key and a window whose end is after its start.", "Give key, from and to.").At("window")
	}
	name, dg := splitRef(view)
	v, dg, err := s.view(ctx, project, name, dg)
	if err != nil {
		return nil, err
	}
	var m Materialized
	err = s.db.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		m, err = materializedByKey(ctx, q, project, name, key)
		return err
	})
	if err == nil {
		m.Again = true
		return &m, nil
	}
	if !store.NotFound(err) {
		return nil, err
	}
	if dec, err := s.db.Authorize(ctx, "feature.materialize", resource(project, "feature_view", name)); err != nil || !dec.Allow {
		// The change below would refuse too, but after the rows were written.
		return nil, s.refuse(ctx, "feature.materialize", resource(project, "feature_view", name), dec, err)
	}
	m = Materialized{View: name, Digest: dg, Key: key, Window: w, At: time.Now().UTC().Truncate(time.Microsecond)}
	if m.Rows, m.Pins, err = s.copyOnline(ctx, project, v, dg, w); err != nil {
		return nil, err
	}
	err = s.db.Change(ctx, "feature.materialize", resource(project, "feature_view", name), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		if err := insertMaterialized(ctx, tx, project, m); err != nil {
			return event.Draft{}, err
		}
		tx.After(m)
		return event.Draft{Type: "feature.materialized", Subject: name, Data: m, At: w.To}, nil
	})
	if store.Unique(err) { // another call with the key was faster; it wrote the same rows
		err = s.db.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
			m, err = materializedByKey(ctx, q, project, name, key)
			return err
		})
		m.Again = true
	}
	return &m, err
}

// Through says how far a view's current definition was materialized: the newest window, or nil when never.
func (s *Service) Through(ctx context.Context, project, view string) (*Materialized, error) {
	name, dg := splitRef(view)
	_, dg, err := s.view(ctx, project, name, dg)
	if err != nil {
		return nil, err
	}
	var m Materialized
	err = s.db.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		m, err = materializedLast(ctx, q, project, name, dg)
		return err
	})
	if store.NotFound(err) {
		return nil, nil
	}
	return &m, err
}

// Trim forgets versions of a view that no lookup at or after floor can give. The caller keeps the replay window in mind:
// a lookup before floor may then miss rows that the offline join still has.
func (s *Service) Trim(ctx context.Context, project, view string, floor time.Time) (int64, error) {
	name, dg := splitRef(view)
	_, dg, err := s.view(ctx, project, name, dg)
	if err != nil {
		return 0, err
	}
	return s.online.Trim(ctx, onlineTable(project, name, dg), floor.UnixMicro())
}

func (s *Service) copyOnline(ctx context.Context, project string, v View, dg string, w Window) (int64, []Pin, error) {
	tables, err := s.data.Tables(ctx, project, []string{v.SQL}, nil)
	if err != nil {
		return 0, nil, err
	}
	defer tables.Room.Close()
	box, err := s.blobs.Box(ctx, project)
	if err != nil {
		return 0, nil, err
	}
	out := tables.Room.Path("online.parquet")
	if _, err := s.engine.Transform(ctx, data.TransformJob{
		Dir: tables.Room.Dir, SQL: v.onlineSQL(w), Ref: "feature view " + v.Name, Inputs: tables.Inputs, Out: out, Order: v.order(), Hide: tables.Masked,
	}); err != nil {
		return 0, nil, err
	}
	f, err := os.Open(out)
	if err != nil {
		return 0, nil, fault.Wrap(err, fault.Unavailable, "The rows of a feature view could not be read back.", "")
	}
	defer f.Close()
	put := putter{s: s, v: v, table: onlineTable(project, v.Name, dg), box: box}
	if err := readParquet(f, len(v.Entity), 2, len(v.Columns), func(r parquetRow) error { return put.add(ctx, r) }); err != nil {
		return 0, nil, err
	}
	err = put.flush(ctx)
	return put.rows, tables.Pins, err
}

// onlineSQL gives text keys, two times in microseconds, and the features: what readParquet reads.
func (v View) onlineSQL(w Window) string {
	sql := "SELECT "
	for i := range v.Entity {
		sql += quote(keyColumn(i)) + ", "
	}
	sql += `epoch_us("__event") AS "__event", epoch_us("__known") AS "__known"`
	for _, c := range v.Columns {
		sql += ", " + quote(c)
	}
	sql += " FROM (" + v.rowsSQL() + `) AS the_rows WHERE greatest("__event", "__known") <= ` + literal(w.To)
	if !w.From.IsZero() {
		sql += ` AND greatest("__event", "__known") > ` + literal(w.From)
	}
	return sql
}

// putter turns rows into sealed versions and writes them batch by batch.
type putter struct {
	s     *Service
	v     View
	table string
	box   *seal.Box
	batch []Version
	rows  int64
}

func (p *putter) add(ctx context.Context, r parquetRow) error {
	v := Version{Key: EntityKey(r.texts...), Event: r.ints[0], Known: r.ints[1]}
	if err := sealValues(p.box, p.table, &v, r.doubles); err != nil {
		return err
	}
	p.batch = append(p.batch, v)
	if len(p.batch) < putSize {
		return nil
	}
	return p.flush(ctx)
}

func (p *putter) flush(ctx context.Context) error {
	if len(p.batch) == 0 {
		return nil
	}
	if err := p.s.put(ctx, p.table, p.batch); err != nil {
		return fmt.Errorf("materialize %s: %w", p.v.Name, err)
	}
	p.rows += int64(len(p.batch))
	p.batch = p.batch[:0]
	return nil
}

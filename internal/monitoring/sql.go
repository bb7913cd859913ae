package monitoring

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"falaj/internal/kernel/seal"
	"falaj/internal/store"
)

// segmentRow is one line of prediction_segments. Its exported fields are what the ledger keeps the digest of.
type segmentRow struct {
	ID string
	Key
	From, To int64 // event time, microseconds, both included
	Rows     int
	Digest   string

	bloom  bloom
	rollup []byte
	spool  string
}

func insertSpool(ctx context.Context, tx *store.Tx, spool string) error {
	_, err := tx.Exec(ctx, `INSERT INTO prediction_spools (spool, created) VALUES ($1, $2)`, spool, store.Micros(time.Now()))
	return err
}

func insertSegment(ctx context.Context, tx *store.Tx, r *segmentRow) error {
	_, err := tx.Exec(ctx, `INSERT INTO prediction_segments (id, project, model, environment, from_at, to_at, row_count, digest, bloom, rollup, spool, created)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`, r.ID, r.Project, r.Model, r.Environment, r.From, r.To, r.Rows, r.Digest, []byte(r.bloom), r.rollup, r.spool, store.Micros(time.Now()))
	return err
}

func (l *Log) isSealed(ctx context.Context, spool string) (found bool, err error) {
	err = l.db.View(ctx, func(ctx context.Context, q store.Querier) error {
		var one int
		err := q.QueryRow(ctx, `SELECT 1 FROM prediction_spools WHERE spool = $1`, spool).Scan(&one)
		if store.NotFound(err) {
			return nil
		}
		found = err == nil
		return err
	})
	return found, err
}

// segments lists index rows that touch [from, to), oldest first. An empty model or environment takes all.
func (l *Log) segments(ctx context.Context, k Key, from, to int64) (out []segmentRow, err error) {
	err = l.db.View(ctx, func(ctx context.Context, q store.Querier) error {
		rows, err := q.Query(ctx, `SELECT id, project, model, environment, from_at, to_at, row_count, digest, bloom, rollup, spool FROM prediction_segments
WHERE project = $1 AND ($2 = '' OR model = $2) AND ($3 = '' OR environment = $3) AND from_at < $5 AND to_at >= $4 ORDER BY from_at, id`, k.Project, k.Model, k.Environment, from, to)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r segmentRow
			if err := rows.Scan(&r.ID, &r.Project, &r.Model, &r.Environment, &r.From, &r.To, &r.Rows, &r.Digest, (*[]byte)(&r.bloom), &r.rollup, &r.spool); err != nil {
				return err
			}
			out = append(out, r)
		}
		return rows.Err()
	})
	return out, err
}

// lastSegments lists the n that were sealed last, newest first, with what reading them needs.
func (l *Log) lastSegments(ctx context.Context, n int) (out []segmentRow, err error) {
	err = l.db.View(ctx, func(ctx context.Context, q store.Querier) error {
		rows, err := q.Query(ctx, `SELECT id, project, model, environment, row_count, digest FROM prediction_segments ORDER BY id DESC LIMIT $1`, n)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r segmentRow
			if err := rows.Scan(&r.ID, &r.Project, &r.Model, &r.Environment, &r.Rows, &r.Digest); err != nil {
				return err
			}
			out = append(out, r)
		}
		return rows.Err()
	})
	return out, err
}

// The kinds of watermarks.
const (
	markEvent = "event"
	markLabel = "label"
)

func raiseWatermark(ctx context.Context, tx *store.Tx, project, model, kind string, at int64) error {
	_, err := tx.Exec(ctx, `INSERT INTO watermarks (project, model, kind, at) VALUES ($1, $2, $3, $4)
ON CONFLICT (project, model, kind) DO UPDATE SET at = CASE WHEN watermarks.at > $4 THEN watermarks.at ELSE $4 END`, project, model, kind, at)
	return err
}

// watermark is the later of the model's and the whole project's; 0 when there is none.
func watermark(ctx context.Context, q store.Querier, project, model, kind string) (at int64, err error) {
	err = q.QueryRow(ctx, `SELECT COALESCE(MAX(at), 0) FROM watermarks WHERE project = $1 AND (model = $2 OR model = '') AND kind = $3`, project, model, kind).Scan(&at)
	return at, err
}

func upsertMonitor(ctx context.Context, tx *store.Tx, k Key, doc string) error {
	_, err := tx.Exec(ctx, `INSERT INTO monitors (project, model, environment, document, created) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (project, model, environment) DO UPDATE SET document = $4, created = $5`, k.Project, k.Model, k.Environment, doc, store.Micros(time.Now()))
	return err
}

func selectMonitor(ctx context.Context, q store.Querier, k Key) (m Monitor, err error) {
	var doc string
	if err = q.QueryRow(ctx, `SELECT document FROM monitors WHERE project = $1 AND model = $2 AND environment = $3`, k.Project, k.Model, k.Environment).Scan(&doc); err != nil {
		return m, err
	}
	return m, json.Unmarshal([]byte(doc), &m)
}

// selectMonitored lists the keys of a project (or of all, "") that have a monitor; model "" takes all.
func selectMonitored(ctx context.Context, q store.Querier, project, model string) (out []Key, err error) {
	rows, err := q.Query(ctx, `SELECT project, model, environment FROM monitors WHERE ($1 = '' OR project = $1) AND ($2 = '' OR model = $2) ORDER BY project, model, environment`, project, model)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var k Key
		if err := rows.Scan(&k.Project, &k.Model, &k.Environment); err != nil {
			return nil, err
		}
		out = append(out, k)
	}
	return out, rows.Err()
}

func referencePlace(release string) string { return "drift_reference/" + release }

func upsertReference(ctx context.Context, tx *store.Tx, project, release, doc string) error {
	_, err := tx.Exec(ctx, `INSERT INTO drift_references (project, release_digest, document, created) VALUES ($1, $2, $3, $4)
ON CONFLICT (project, release_digest) DO UPDATE SET document = $3, created = $4`, project, release, doc, store.Micros(time.Now()))
	return err
}

func selectReference(ctx context.Context, q store.Querier, box *seal.Box, project, release string) (r Reference, err error) {
	var doc string
	if err = q.QueryRow(ctx, `SELECT document FROM drift_references WHERE project = $1 AND release_digest = $2`, project, release).Scan(&doc); err != nil {
		return r, err
	}
	return r, box.OpenJSON(doc, referencePlace(release), &r)
}

// The kinds of evaluated windows.
const (
	kindQuality = "quality"
	kindDrift   = "drift"
)

func insertWindow(ctx context.Context, tx *store.Tx, k Key, kind string, w Window, verdict, doc string) error {
	_, err := tx.Exec(ctx, `INSERT INTO monitor_windows (project, model, environment, kind, from_at, to_at, verdict, document, created) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		k.Project, k.Model, k.Environment, kind, store.Micros(w.From), store.Micros(w.To), verdict, doc, store.Micros(time.Now()))
	return err
}

// selectWindows reads evaluated windows, oldest first, the newest n of them.
func selectWindows[T any](ctx context.Context, q store.Querier, k Key, kind string, n int) (out []T, err error) {
	rows, err := q.Query(ctx, `SELECT document FROM (SELECT document, from_at FROM monitor_windows WHERE project = $1 AND model = $2 AND environment = $3 AND kind = $4 ORDER BY from_at DESC LIMIT $5) t ORDER BY from_at`,
		k.Project, k.Model, k.Environment, kind, n)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var doc string
		var v T
		if err := rows.Scan(&doc); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(doc), &v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// lastWindowEnd is where the next window may start, 0 when none was evaluated.
func lastWindowEnd(ctx context.Context, q store.Querier, k Key, kind string) (to int64, err error) {
	err = q.QueryRow(ctx, `SELECT COALESCE(MAX(to_at), 0) FROM monitor_windows WHERE project = $1 AND model = $2 AND environment = $3 AND kind = $4`, k.Project, k.Model, k.Environment, kind).Scan(&to)
	return to, err
}

// insertAlert says whether the alert is new: there is one for each key, kind and window.
func insertAlert(ctx context.Context, tx *store.Tx, a Alert) (bool, error) {
	doc, err := document(a)
	if err != nil {
		return false, err
	}
	n, err := tx.Exec(ctx, `INSERT INTO alerts (id, project, model, environment, kind, from_at, to_at, at, state, document, created, changed)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11) ON CONFLICT (project, model, environment, kind, from_at) DO NOTHING`,
		a.ID, a.Project, a.Model, a.Environment, a.Kind, store.Micros(a.Window.From), store.Micros(a.Window.To), store.Micros(a.At), a.State, doc, store.Micros(a.Created))
	return n == 1, err
}

func setAlertState(ctx context.Context, tx *store.Tx, project, id, state string) (int64, error) {
	return tx.Exec(ctx, `UPDATE alerts SET state = $3, changed = $4 WHERE project = $1 AND id = $2 AND state = 'open'`, project, id, state, store.Micros(time.Now()))
}

// resolveAlerts closes those of a kind for windows before from.
func resolveAlerts(ctx context.Context, tx *store.Tx, k Key, kind string, from int64) (int64, error) {
	return tx.Exec(ctx, `UPDATE alerts SET state = 'resolved', changed = $6 WHERE project = $1 AND model = $2 AND environment = $3 AND kind = $4 AND from_at < $5 AND state <> 'resolved'`,
		k.Project, k.Model, k.Environment, kind, from, store.Micros(time.Now()))
}

const alertColumns = `SELECT document, state FROM alerts `

func scanAlert(row interface{ Scan(...any) error }) (a Alert, err error) {
	var doc, state string
	if err = row.Scan(&doc, &state); err != nil {
		return a, err
	}
	err = json.Unmarshal([]byte(doc), &a)
	a.State = state
	return a, err
}

// selectAlerts lists the newest n; an empty model, environment or state takes all.
func selectAlerts(ctx context.Context, q store.Querier, k Key, state string, n int) (out []Alert, err error) {
	rows, err := q.Query(ctx, alertColumns+`WHERE project = $1 AND ($2 = '' OR model = $2) AND ($3 = '' OR environment = $3) AND ($4 = '' OR state = $4) ORDER BY at DESC, id DESC LIMIT $5`,
		k.Project, k.Model, k.Environment, state, n)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out = []Alert{}
	for rows.Next() {
		a, err := scanAlert(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, rows.Err()
}

func selectAlert(ctx context.Context, q store.Querier, project, id string) (Alert, error) {
	return scanAlert(q.QueryRow(ctx, alertColumns+`WHERE project = $1 AND id = $2`, project, id))
}

// labelBatch is one line of label_batches.
type labelBatch struct {
	id       string
	from, to int64 // known times
	rows     int
	digest   string
	sealed   []byte
}

func insertLabels(ctx context.Context, tx *store.Tx, project, model string, b labelBatch) error {
	_, err := tx.Exec(ctx, `INSERT INTO label_batches (id, project, model, known_from, known_to, row_count, digest, sealed, created) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		b.id, project, model, b.from, b.to, b.rows, b.digest, b.sealed, store.Micros(time.Now()))
	return err
}

// selectLabels reads the batches that hold labels known in [from, to).
func selectLabels(ctx context.Context, q store.Querier, project, model string, from, to int64) (out []labelBatch, err error) {
	rows, err := q.Query(ctx, `SELECT id, known_from, known_to, row_count, digest, sealed FROM label_batches WHERE project = $1 AND model = $2 AND known_to >= $3 AND known_from < $4 ORDER BY id`, project, model, from, to)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var b labelBatch
		if err := rows.Scan(&b.id, &b.from, &b.to, &b.rows, &b.digest, &b.sealed); err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, rows.Err()
}

// countLabels sums the labels pushed for a model; a label pushed again counts again.
func countLabels(ctx context.Context, q store.Querier, project, model string) (n int64, err error) {
	err = q.QueryRow(ctx, `SELECT COALESCE(SUM(row_count), 0) FROM label_batches WHERE project = $1 AND model = $2`, project, model).Scan(&n)
	return n, err
}

var errDamagedLabels = errors.New("a batch of labels is damaged")

// firstSegment is the earliest event time at or after start that a segment may hold.
func firstSegment(ctx context.Context, q store.Querier, k Key, start int64) (at int64, found bool, err error) {
	err = q.QueryRow(ctx, `SELECT CASE WHEN from_at < $4 THEN $4 ELSE from_at END FROM prediction_segments WHERE project = $1 AND model = $2 AND environment = $3 AND to_at >= $4 ORDER BY 1 LIMIT 1`,
		k.Project, k.Model, k.Environment, start).Scan(&at)
	if store.NotFound(err) {
		return 0, false, nil
	}
	return at, err == nil, err
}

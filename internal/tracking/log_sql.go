package tracking

import (
	"context"
	"strings"

	"falaj/internal/store"
	"falaj/internal/tracking/filter"
)

// foldEvery is after how many chunk rows of one metric the rows are folded into one: bounds the rows of single log calls.
const foldEvery = 256

func (s *Service) insertParams(ctx context.Context, tx *store.Tx, run int64, params []Pair) (int64, error) {
	a := s.args()
	var b strings.Builder
	for i, p := range params {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("(" + a.Add(run) + ", " + a.Add(p.Key) + ", " + a.Add(p.Value) + ")")
	}
	return tx.Exec(ctx, "INSERT INTO run_params (run, key, value) VALUES "+b.String()+" ON CONFLICT (run, key) DO NOTHING", a.Values()...)
}

// metricKeys finds or makes the numbers of metric names. New ones are added to fresh, which the caller learns after commit.
func (s *Service) metricKeys(ctx context.Context, tx *store.Tx, names []string, fresh map[string]int64, fn func(name string, key int64)) error {
	var unknown []string
	for _, n := range names {
		if id, ok := s.known(n); ok {
			fn(n, id)
		} else {
			unknown = append(unknown, n)
		}
	}
	return inChunks(unknown, func(part []string) error {
		found := map[string]int64{}
		if err := selectKeys(ctx, tx, part, found); err != nil {
			return err
		}
		missing := 0
		for _, n := range part {
			if _, ok := found[n]; ok {
				continue
			}
			missing++
			id, err := tx.Next(ctx, "metric_keys")
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, `INSERT INTO metric_keys (id, name) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`, id, n); err != nil {
				return err
			}
		}
		if missing > 0 { // read back: another writer may have won the name
			if err := selectKeys(ctx, tx, part, found); err != nil {
				return err
			}
		}
		for n, id := range found {
			fresh[n] = id
			fn(n, id)
		}
		return nil
	})
}

func selectKeys(ctx context.Context, q store.Querier, names []string, found map[string]int64) error {
	var a filter.Args
	rows, err := q.Query(ctx, "SELECT id, name FROM metric_keys WHERE name IN "+filter.In(&a, names), a.Values()...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var n string
		if err := rows.Scan(&id, &n); err != nil {
			return err
		}
		found[n] = id
	}
	return rows.Err()
}

// metricKey is the number of a name for reading, -1 when nobody ever logged it.
func (s *Service) metricKey(ctx context.Context, q store.Querier, name string) (int64, error) {
	if id, ok := s.known(name); ok {
		return id, nil
	}
	var id int64
	err := q.QueryRow(ctx, `SELECT id FROM metric_keys WHERE name = $1`, name).Scan(&id)
	if store.NotFound(err) {
		return -1, nil
	}
	return id, err
}

// writeSeries moves the newest values and appends one chunk for each key, in two statements.
func (s *Service) writeSeries(ctx context.Context, tx *store.Tx, run int64, list []*series) error {
	chunks, err := s.upsertLatest(ctx, tx, run, list)
	if err != nil {
		return err
	}
	a := s.args()
	var b strings.Builder
	for i, g := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("(" + a.Add(run) + ", " + a.Add(g.key) + ", " + a.Add(chunks[g.key]) + ", " + a.Add(packPoints(g.points)) + ")")
	}
	if _, err := tx.Exec(ctx, "INSERT INTO metric_chunks (run, key, chunk, data) VALUES "+b.String(), a.Values()...); err != nil {
		return err
	}
	for _, g := range list {
		if n := chunks[g.key]; n%foldEvery == 0 {
			if err := foldChunks(ctx, tx, run, g.key, n); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) upsertLatest(ctx context.Context, tx *store.Tx, run int64, list []*series) (map[int64]int64, error) {
	a := s.args()
	var b strings.Builder
	for i, g := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		v, flag := sqlNumber(g.last.value)
		b.WriteString("(" + a.Add(run) + ", " + a.Add(g.key) + ", " + a.Add(g.last.step) + ", " + a.Add(g.last.tsMs) + ", " + a.Add(v) + ", " + a.Add(flag) + ", 1)")
	}
	const later = `(excluded.step, excluded.ts_ms, excluded.value) > (metric_latest.step, metric_latest.ts_ms, metric_latest.value)`
	rows, err := tx.Query(ctx, "INSERT INTO metric_latest (run, key, step, ts_ms, value, flag, chunk) VALUES "+b.String()+` ON CONFLICT (run, key) DO UPDATE SET
chunk = metric_latest.chunk + 1,
step = CASE WHEN `+later+` THEN excluded.step ELSE metric_latest.step END,
ts_ms = CASE WHEN `+later+` THEN excluded.ts_ms ELSE metric_latest.ts_ms END,
value = CASE WHEN `+later+` THEN excluded.value ELSE metric_latest.value END,
flag = CASE WHEN `+later+` THEN excluded.flag ELSE metric_latest.flag END
RETURNING key, chunk`, a.Values()...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	chunks := make(map[int64]int64, len(list))
	for rows.Next() {
		var key, chunk int64
		if err := rows.Scan(&key, &chunk); err != nil {
			return nil, err
		}
		chunks[key] = chunk
	}
	return chunks, rows.Err()
}

// foldChunks joins the newest foldEvery rows of a metric into the last of them.
func foldChunks(ctx context.Context, tx *store.Tx, run, key, last int64) error {
	rows, err := tx.Query(ctx, `SELECT data FROM metric_chunks WHERE run = $1 AND key = $2 AND chunk > $3 AND chunk <= $4 ORDER BY chunk`, run, key, last-foldEvery, last)
	if err != nil {
		return err
	}
	defer rows.Close()
	var points []point
	for rows.Next() {
		var data []byte
		if err := rows.Scan(&data); err != nil {
			return err
		}
		if points, err = unpackPoints(points, data); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	rows.Close()
	if _, err := tx.Exec(ctx, `DELETE FROM metric_chunks WHERE run = $1 AND key = $2 AND chunk > $3 AND chunk < $4`, run, key, last-foldEvery, last); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE metric_chunks SET data = $1 WHERE run = $2 AND key = $3 AND chunk = $4`, packPoints(points), run, key, last)
	return err
}

// points reads the whole history of one metric for runs of the project; every run must exist.
func (s *Service) points(ctx context.Context, project string, runIDs []string, name string) (map[string][]point, error) {
	out := map[string][]point{}
	err := s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		uuids := map[int64]string{}
		var ids []int64
		for _, u := range runIDs {
			r, err := runInfo(ctx, q, project, u)
			if err != nil {
				return err
			}
			uuids[r.key] = u
			ids = append(ids, r.key)
		}
		key, err := s.metricKey(ctx, q, name)
		if err != nil || key < 0 {
			return err
		}
		return inChunks(ids, func(part []int64) error {
			var a filter.Args
			rows, err := q.Query(ctx, "SELECT run, data FROM metric_chunks WHERE key = "+a.Add(key)+" AND run IN "+filter.In(&a, part)+" ORDER BY run, chunk", a.Values()...)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var run int64
				var data []byte
				if err := rows.Scan(&run, &data); err != nil {
					return err
				}
				u := uuids[run]
				if out[u], err = unpackPoints(out[u], data); err != nil {
					return err
				}
			}
			return rows.Err()
		})
	})
	return out, err
}

// eachLatest reads the newest values of many runs, by key name.
func eachLatest(ctx context.Context, q store.Querier, runs []int64, fn func(run int64, m Metric)) error {
	return inChunks(runs, func(part []int64) error {
		var a filter.Args
		rows, err := q.Query(ctx, "SELECT l.run, k.name, l.step, l.ts_ms, l.value, l.flag FROM metric_latest l JOIN metric_keys k ON k.id = l.key WHERE l.run IN "+filter.In(&a, part)+" ORDER BY l.run, k.name", a.Values()...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var run, flag int64
			var m Metric
			if err := rows.Scan(&run, &m.Key, &m.Step, &m.TimestampMs, &m.Value, &flag); err != nil {
				return err
			}
			m.Value = fromSQL(m.Value, flag)
			fn(run, m)
		}
		return rows.Err()
	})
}

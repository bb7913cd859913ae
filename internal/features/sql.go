package features

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/store"
)

// The two definition tables have the same columns; table is one of the two names, never from outside.

func current(ctx context.Context, q store.Querier, table, project, name, digest string) (d Defined, doc string, err error) {
	var at int64
	err = q.QueryRow(ctx, `SELECT name, version, digest, document, created FROM `+table+` WHERE project = $1 AND name = $2 AND ($3 = '' OR digest = $3) ORDER BY version DESC LIMIT 1`,
		project, name, digest).Scan(&d.Name, &d.Version, &d.Digest, &doc, &at)
	d.At = store.Time(at)
	what := "feature view"
	if table == "feature_services" {
		what = "feature service"
	}
	return d, doc, store.One(err, fmt.Sprintf("%s '%s' in project '%s'", what, name, project))
}

func list(ctx context.Context, q store.Querier, table, project string) ([]Defined, error) {
	rows, err := q.Query(ctx, `SELECT name, version, digest, created FROM `+table+` t WHERE project = $1
AND version = (SELECT max(version) FROM `+table+` o WHERE o.project = t.project AND o.name = t.name) ORDER BY name`, project)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := []Defined{}
	for rows.Next() {
		var d Defined
		var at int64
		if err := rows.Scan(&d.Name, &d.Version, &d.Digest, &at); err != nil {
			return nil, err
		}
		d.At = store.Time(at)
		out = append(out, d)
	}
	return out, rows.Err()
}

// define inserts the next version unless the current one is equal. Going back to an older definition is a new version.
func define(ctx context.Context, tx *store.Tx, table, project, name, digest, doc string) (d Defined, isNew bool, err error) {
	d, _, err = current(ctx, tx, table, project, name, "")
	if err != nil && !fault.Is(err, fault.NotFound) {
		return d, false, err
	}
	if err == nil && d.Digest == digest {
		return d, false, nil
	}
	d = Defined{Name: name, Version: d.Version + 1, Digest: digest, At: time.Now().UTC().Truncate(time.Microsecond)}
	_, err = tx.Exec(ctx, `INSERT INTO `+table+` (project, name, version, digest, document, created) VALUES ($1, $2, $3, $4, $5, $6)`,
		project, name, d.Version, digest, doc, store.Micros(d.At))
	return d, true, err
}

const materialized = `SELECT view, digest, key, from_at, to_at, row_count, pins, created FROM feature_materializations WHERE project = $1 AND view = $2 `

func scanMaterialized(row interface{ Scan(...any) error }) (m Materialized, err error) {
	var from, to, at int64
	var pins string
	if err = row.Scan(&m.View, &m.Digest, &m.Key, &from, &to, &m.Rows, &pins, &at); err != nil {
		return m, err
	}
	m.Window, m.At = Window{store.Time(from), store.Time(to)}, store.Time(at)
	return m, json.Unmarshal([]byte(pins), &m.Pins)
}

func materializedByKey(ctx context.Context, q store.Querier, project, view, key string) (Materialized, error) {
	return scanMaterialized(q.QueryRow(ctx, materialized+`AND key = $3`, project, view, key))
}

// materializedLast is the newest materialization of a view's definition, by the end of its window.
func materializedLast(ctx context.Context, q store.Querier, project, view, digest string) (Materialized, error) {
	return scanMaterialized(q.QueryRow(ctx, materialized+`AND digest = $3 ORDER BY to_at DESC, created DESC LIMIT 1`, project, view, digest))
}

func insertMaterialized(ctx context.Context, tx *store.Tx, project string, m Materialized) error {
	pins, err := json.Marshal(m.Pins)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO feature_materializations (project, view, key, digest, from_at, to_at, row_count, pins, created) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		project, m.View, m.Key, m.Digest, store.Micros(m.Window.From), store.Micros(m.Window.To), m.Rows, string(pins), store.Micros(m.At))
	return err
}

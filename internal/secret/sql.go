package secret

import (
	"context"
	"time"

	"falaj/internal/store"
)

func lastVersion(ctx context.Context, q store.Querier, project, name string) (v int64, err error) {
	err = q.QueryRow(ctx, `SELECT COALESCE(MAX(version), 0) FROM secrets WHERE project = $1 AND name = $2`, project, name).Scan(&v)
	return v, err
}

// insert adds a version and empties those before it.
func insert(ctx context.Context, tx *store.Tx, project string, i Info, sealed []byte) error {
	if _, err := tx.Exec(ctx, `UPDATE secrets SET sealed = NULL WHERE project = $1 AND name = $2`, project, i.Name); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO secrets (project, name, version, sealed, actor, created, removed) VALUES ($1, $2, $3, $4, $5, $6, 0)`,
		project, i.Name, i.Version, sealed, i.Actor, store.Micros(i.Created))
	return err
}

func remove(ctx context.Context, tx *store.Tx, project, name string, at time.Time) (int64, error) {
	return tx.Exec(ctx, `UPDATE secrets SET sealed = NULL, removed = $3 WHERE project = $1 AND name = $2 AND sealed IS NOT NULL`, project, name, store.Micros(at))
}

func current(ctx context.Context, q store.Querier, project, name string) (version int64, sealed []byte, err error) {
	err = q.QueryRow(ctx, `SELECT version, sealed FROM secrets WHERE project = $1 AND name = $2 AND sealed IS NOT NULL`, project, name).Scan(&version, &sealed)
	return version, sealed, err
}

func list(ctx context.Context, q store.Querier, project string) ([]Info, error) {
	return store.List(ctx, q, func(r store.Scanner) (i Info, err error) {
		var created int64
		err = r.Scan(&i.Name, &i.Version, &i.Actor, &created)
		i.Created = store.Time(created)
		return i, err
	}, `SELECT name, version, actor, created FROM secrets WHERE project = $1 AND sealed IS NOT NULL ORDER BY name`, project)
}

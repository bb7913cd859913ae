package serving

import (
	"context"
	"time"

	"falaj/internal/store"
)

// stored is an endpoint as the database has it.
type stored struct {
	Endpoint
	activated map[string]bool // by variant name
}

// readEndpoints reads the endpoints that have variants, of a project or ("") of all.
func readEndpoints(ctx context.Context, q store.Querier, project string) ([]stored, error) {
	rows, err := q.Query(ctx, `SELECT e.project, e.model, e.environment, e.generation, e.configured_at, v.name, v.role, v.weight, v.release_digest, v.activated_at
FROM endpoints e JOIN endpoint_variants v ON v.project = e.project AND v.model = e.model AND v.environment = e.environment
WHERE $1 = '' OR e.project = $1 ORDER BY e.project, e.model, e.environment, v.name`, project)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []stored
	for rows.Next() {
		var e stored
		var v Variant
		var configured, activated int64
		if err := rows.Scan(&e.Project, &e.Model, &e.Environment, &e.Generation, &configured, &v.Name, &v.Role, &v.Weight, &v.Release, &activated); err != nil {
			return nil, err
		}
		if len(out) == 0 || out[len(out)-1].Key != e.Key {
			e.Configured, e.activated = store.Time(configured), map[string]bool{}
			out = append(out, e)
		}
		last := &out[len(out)-1]
		last.Variants = append(last.Variants, v)
		last.activated[v.Name] = activated != 0
	}
	return out, rows.Err()
}

func writeEndpoint(ctx context.Context, tx *store.Tx, k Key, variants []Variant, keep map[string]bool, now time.Time) (generation int64, err error) {
	err = tx.QueryRow(ctx, `INSERT INTO endpoints (project, model, environment, generation, configured_at) VALUES ($1, $2, $3, 1, $4)
ON CONFLICT (project, model, environment) DO UPDATE SET generation = endpoints.generation + 1, configured_at = $4 RETURNING generation`,
		k.Project, k.Model, k.Environment, store.Micros(now)).Scan(&generation)
	if err != nil {
		return 0, err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM endpoint_variants WHERE project = $1 AND model = $2 AND environment = $3`, k.Project, k.Model, k.Environment); err != nil {
		return 0, err
	}
	for _, v := range variants {
		activated := int64(0)
		if keep[v.Name] {
			activated = store.Micros(now)
		}
		if _, err := tx.Exec(ctx, `INSERT INTO endpoint_variants (project, model, environment, name, role, weight, release_digest, activated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
			k.Project, k.Model, k.Environment, v.Name, string(v.Role), v.Weight, v.Release, activated); err != nil {
			return 0, err
		}
	}
	return generation, nil
}

// markActivated says whether this call was the one that activated the variant.
func markActivated(ctx context.Context, tx *store.Tx, k Key, v Variant, now time.Time) (bool, error) {
	n, err := tx.Exec(ctx, `UPDATE endpoint_variants SET activated_at = $5 WHERE project = $1 AND model = $2 AND environment = $3 AND name = $4 AND release_digest = $6 AND activated_at = 0`,
		k.Project, k.Model, k.Environment, v.Name, store.Micros(now), v.Release)
	return n == 1, err
}

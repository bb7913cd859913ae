package serving

import (
	"context"
	"fmt"
	"time"

	"falaj/internal/store"
)

// stored is an endpoint as the database has it.
type stored struct {
	Endpoint
	cause     cause
	announced string
}

// cause is the move of delivery that asked for a configuration; empty when somebody else did.
type cause struct {
	change string
	weight int64
}

// announcement names what serving.activated tells of, so that it is told once.
func announcement(generation int64, c cause) string {
	return fmt.Sprintf("%d %s %d", generation, c.change, c.weight)
}

// readEndpoints reads the endpoints that have variants, of a project or ("") of all.
func readEndpoints(ctx context.Context, q store.Querier, project string) ([]stored, error) {
	rows, err := q.Query(ctx, `SELECT e.project, e.model, e.environment, e.generation, e.configured_at, e.change_id, e.change_weight, e.announced, v.name, v.role, v.weight, v.release_digest
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
		var configured int64
		if err := rows.Scan(&e.Project, &e.Model, &e.Environment, &e.Generation, &configured, &e.cause.change, &e.cause.weight, &e.announced, &v.Name, &v.Role, &v.Weight, &v.Release); err != nil {
			return nil, err
		}
		if len(out) == 0 || out[len(out)-1].Key != e.Key {
			e.Configured = store.Time(configured)
			out = append(out, e)
		}
		last := &out[len(out)-1]
		last.Variants = append(last.Variants, v)
	}
	return out, rows.Err()
}

func writeEndpoint(ctx context.Context, tx *store.Tx, k Key, variants []Variant, c cause, now time.Time) (generation int64, err error) {
	err = tx.QueryRow(ctx, `INSERT INTO endpoints (project, model, environment, generation, configured_at, change_id, change_weight, announced) VALUES ($1, $2, $3, 1, $4, $5, $6, '')
ON CONFLICT (project, model, environment) DO UPDATE SET generation = endpoints.generation + 1, configured_at = $4, change_id = $5, change_weight = $6 RETURNING generation`,
		k.Project, k.Model, k.Environment, store.Micros(now), c.change, c.weight).Scan(&generation)
	if err != nil {
		return 0, err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM endpoint_variants WHERE project = $1 AND model = $2 AND environment = $3`, k.Project, k.Model, k.Environment); err != nil {
		return 0, err
	}
	for _, v := range variants {
		if _, err := tx.Exec(ctx, `INSERT INTO endpoint_variants (project, model, environment, name, role, weight, release_digest) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			k.Project, k.Model, k.Environment, v.Name, string(v.Role), v.Weight, v.Release); err != nil {
			return 0, err
		}
	}
	return generation, nil
}

// markAnnounced says whether this call is the one that tells of the configuration.
func markAnnounced(ctx context.Context, tx *store.Tx, k Key, generation int64, c cause) (bool, error) {
	n, err := tx.Exec(ctx, `UPDATE endpoints SET change_id = $5, change_weight = $6, announced = $7 WHERE project = $1 AND model = $2 AND environment = $3 AND generation = $4 AND announced <> $7`,
		k.Project, k.Model, k.Environment, generation, c.change, c.weight, announcement(generation, c))
	return n == 1, err
}

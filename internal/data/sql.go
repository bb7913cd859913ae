package data

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"falaj/internal/kernel/id"
	"falaj/internal/kernel/seal"
	"falaj/internal/store"
)

// definition is a row of datasets.
type definition struct {
	spec             Spec
	digest           string
	generation       int64
	created, updated int64
}

func (d definition) dataset(project string) Dataset {
	return Dataset{Project: project, Spec: d.spec, Digest: d.digest, Generation: d.generation, Created: store.Time(d.created), Updated: store.Time(d.updated)}
}

func getDefinition(ctx context.Context, q store.Querier, project, name string) (d definition, err error) {
	var doc string
	err = q.QueryRow(ctx, `SELECT digest, generation, document, created, updated FROM datasets WHERE project = $1 AND name = $2`, project, name).
		Scan(&d.digest, &d.generation, &doc, &d.created, &d.updated)
	if err != nil {
		return d, store.One(err, fmt.Sprintf("dataset %s in project %s", quote(name), project))
	}
	return d, json.Unmarshal([]byte(doc), &d.spec)
}

func listDefinitions(ctx context.Context, q store.Querier, project string) (out []definition, err error) {
	rows, err := q.Query(ctx, `SELECT digest, generation, document, created, updated FROM datasets WHERE project = $1 ORDER BY name`, project)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var d definition
		var doc string
		if err := rows.Scan(&d.digest, &d.generation, &doc, &d.created, &d.updated); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(doc), &d.spec); err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, rows.Err()
}

func putDefinition(ctx context.Context, tx *store.Tx, project string, d definition) error {
	doc, err := json.Marshal(d.spec)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO datasets (project, name, digest, generation, document, created, updated) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (project, name) DO UPDATE SET digest = $3, generation = $4, document = $5, updated = $7`,
		project, d.spec.Name, d.digest, d.generation, string(doc), d.created, d.updated)
	return err
}

// listSources gives the sources of a dataset by name, with what became of each in a generation.
func listSources(ctx context.Context, q store.Querier, project, dataset string, generation int64) (out []SourceFile, err error) {
	rows, err := q.Query(ctx, `SELECT s.name, s.digest, s.size, s.added, COALESCE(i.state, 'pending'), COALESCE(i.version, 0) FROM dataset_sources s
		LEFT JOIN dataset_ingests i ON i.project = s.project AND i.dataset = s.dataset AND i.generation = $3 AND i.name = s.name AND i.digest = s.digest
		WHERE s.project = $1 AND s.dataset = $2 ORDER BY s.name`, project, dataset, generation)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var f SourceFile
		var added int64
		if err := rows.Scan(&f.Name, &f.Digest, &f.Size, &added, &f.State, &f.Version); err != nil {
			return nil, err
		}
		f.Added = store.Time(added)
		out = append(out, f)
	}
	return out, rows.Err()
}

func putSource(ctx context.Context, tx *store.Tx, project, dataset string, f SourceFile) error {
	_, err := tx.Exec(ctx, `INSERT INTO dataset_sources (project, dataset, name, digest, size, added) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (project, dataset, name) DO UPDATE SET digest = $4, size = $5, added = $6`, project, dataset, f.Name, f.Digest, f.Size, store.Micros(f.Added))
	return err
}

func putIngest(ctx context.Context, tx *store.Tx, project, dataset string, generation int64, f Ingested, state string, version int64) error {
	_, err := tx.Exec(ctx, `INSERT INTO dataset_ingests (project, dataset, generation, name, digest, state, version) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (project, dataset, generation, name, digest) DO UPDATE SET state = $6, version = $7`,
		project, dataset, generation, f.Name, f.Digest, state, version)
	return err
}

// What tells users' values is sealed where it is kept: extremes, frequent values, and examples of what broke a contract.
func versionPlace(id string) string { return "dataset_version/" + id }
func profilePlace(id string) string { return "dataset_version/" + id + "/profile" }
func asidePlace(id string) string   { return "dataset_quarantine/" + id }

func insertVersion(ctx context.Context, tx *store.Tx, box *seal.Box, v Version, key string) error {
	profile, err := box.SealJSON(v.Profile, profilePlace(v.ID))
	if err != nil {
		return err
	}
	v.Profile = nil
	doc, err := box.SealJSON(v, versionPlace(v.ID))
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO dataset_versions (id, project, dataset, n, generation, digest, request_key, snapshot, document, profile, created, created_by)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
		v.ID, v.Project, v.Dataset, v.N, v.Generation, v.Digest, key, v.Snapshot, doc, profile, store.Micros(v.Created), v.By)
	if err != nil {
		return err
	}
	for _, f := range v.Files {
		if _, err := tx.Exec(ctx, `DELETE FROM dataset_pending WHERE project = $1 AND digest = $2`, v.Project, f.Digest); err != nil {
			return err
		}
	}
	return nil
}

// latest gives the newest version without its profile, nil when there is none.
func latest(ctx context.Context, q store.Querier, box *seal.Box, project, dataset string) (*Version, error) {
	return oneVersion(box, q.QueryRow(ctx, `SELECT id, document, '' FROM dataset_versions WHERE project = $1 AND dataset = $2 ORDER BY n DESC LIMIT 1`, project, dataset).Scan)
}

func versionByN(ctx context.Context, q store.Querier, box *seal.Box, project, dataset string, n int64) (*Version, error) {
	return oneVersion(box, q.QueryRow(ctx, `SELECT id, document, profile FROM dataset_versions WHERE project = $1 AND dataset = $2 AND n = $3`, project, dataset, n).Scan)
}

func versionByID(ctx context.Context, q store.Querier, box *seal.Box, project, versionID string) (*Version, error) {
	return oneVersion(box, q.QueryRow(ctx, `SELECT id, document, profile FROM dataset_versions WHERE project = $1 AND id = $2`, project, versionID).Scan)
}

func versionByKey(ctx context.Context, q store.Querier, box *seal.Box, project, dataset, key string) (*Version, error) {
	return oneVersion(box, q.QueryRow(ctx, `SELECT id, document, profile FROM dataset_versions WHERE project = $1 AND dataset = $2 AND request_key = $3`, project, dataset, key).Scan)
}

func oneVersion(box *seal.Box, scan func(...any) error) (*Version, error) {
	var at, doc, profile string
	if err := scan(&at, &doc, &profile); store.NotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	v := &Version{}
	if err := box.OpenJSON(doc, versionPlace(at), v); err != nil {
		return nil, err
	}
	return v, box.OpenJSON(profile, profilePlace(at), &v.Profile)
}

// listVersions gives versions newest first, before a number (0: from the newest).
func listVersions(ctx context.Context, q store.Querier, box *seal.Box, project, dataset string, before int64, limit int) (out []Version, err error) {
	rows, err := q.Query(ctx, `SELECT id, document, '' FROM dataset_versions WHERE project = $1 AND dataset = $2 AND ($3 = 0 OR n < $3) ORDER BY n DESC LIMIT $4`, project, dataset, before, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		v, err := oneVersion(box, rows.Scan)
		if err != nil {
			return nil, err
		}
		out = append(out, *v)
	}
	return out, rows.Err()
}

func insertAside(ctx context.Context, tx *store.Tx, box *seal.Box, a Aside) error {
	doc, err := box.SealJSON(a, asidePlace(a.ID))
	if err != nil {
		return err
	}
	if _, err = tx.Exec(ctx, `INSERT INTO dataset_quarantines (id, project, dataset, generation, source, source_digest, whole, rows_digest, document, created, created_by)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
		a.ID, a.Project, a.Dataset, a.Generation, a.Source, a.SourceDigest, a.Whole, a.RowsDigest, doc, store.Micros(a.Created), a.By); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `DELETE FROM dataset_pending WHERE project = $1 AND digest = $2`, a.Project, a.RowsDigest)
	return err
}

func asideOf(ctx context.Context, q store.Querier, box *seal.Box, project, dataset string, generation int64, source, digest string) (*Aside, error) {
	return oneAside(box, q.QueryRow(ctx, `SELECT id, document FROM dataset_quarantines WHERE project = $1 AND dataset = $2 AND generation = $3 AND source = $4 AND source_digest = $5`,
		project, dataset, generation, source, digest).Scan)
}

func asideByID(ctx context.Context, q store.Querier, box *seal.Box, project, asideID string) (*Aside, error) {
	return oneAside(box, q.QueryRow(ctx, `SELECT id, document FROM dataset_quarantines WHERE project = $1 AND id = $2`, project, asideID).Scan)
}

func oneAside(box *seal.Box, scan func(...any) error) (*Aside, error) {
	var at, doc string
	if err := scan(&at, &doc); store.NotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	a := &Aside{}
	return a, box.OpenJSON(doc, asidePlace(at), a)
}

// listAsides gives quarantines of a dataset ("" for all of the project), newest first.
func listAsides(ctx context.Context, q store.Querier, box *seal.Box, project, dataset string, limit int) (out []Aside, err error) {
	rows, err := q.Query(ctx, `SELECT id, document FROM dataset_quarantines WHERE project = $1 AND ($2 = '' OR dataset = $2) ORDER BY created DESC, id DESC LIMIT $3`, project, dataset, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		a, err := oneAside(box, rows.Scan)
		if err != nil {
			return nil, err
		}
		out = append(out, *a)
	}
	return out, rows.Err()
}

func putPending(ctx context.Context, tx *store.Tx, project, digest string, at time.Time) error {
	_, err := tx.Exec(ctx, `INSERT INTO dataset_pending (project, digest, created) VALUES ($1, $2, $3) ON CONFLICT (project, digest) DO UPDATE SET created = $3`, project, digest, store.Micros(at))
	return err
}

// stale lists pending data files that have waited since before a time.
func stale(ctx context.Context, q store.Querier, before time.Time, limit int) (out [][2]string, err error) {
	rows, err := q.Query(ctx, `SELECT project, digest FROM dataset_pending WHERE created < $1 ORDER BY created LIMIT $2`, store.Micros(before), limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var p [2]string
		if err := rows.Scan(&p[0], &p[1]); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, rows.Err()
}

func dropPending(ctx context.Context, tx *store.Tx, project, digest string, before time.Time) (bool, error) {
	n, err := tx.Exec(ctx, `DELETE FROM dataset_pending WHERE project = $1 AND digest = $2 AND created < $3`, project, digest, store.Micros(before))
	return n > 0, err
}

func warehouseFile(ctx context.Context, q store.Querier, project, path string) (digest string, err error) {
	err = q.QueryRow(ctx, `SELECT digest FROM warehouse_files WHERE project = $1 AND path = $2`, project, path).Scan(&digest)
	return digest, store.One(err, "table file "+path)
}

func putWarehouseFile(ctx context.Context, tx *store.Tx, project, path, digest string, at time.Time) error {
	_, err := tx.Exec(ctx, `INSERT INTO warehouse_files (project, path, digest, created) VALUES ($1, $2, $3, $4)
		ON CONFLICT (project, path) DO UPDATE SET digest = $3, created = $4`, project, path, digest, store.Micros(at))
	return err
}

// removeWarehouseFile forgets a path and returns the digest that no other path of the project names any more, or "".
func removeWarehouseFile(ctx context.Context, tx *store.Tx, project, path string) (digest string, err error) {
	err = tx.QueryRow(ctx, `DELETE FROM warehouse_files WHERE project = $1 AND path = $2 RETURNING digest`, project, path).Scan(&digest)
	if store.NotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var others int64
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM warehouse_files WHERE project = $1 AND digest = $2`, project, digest).Scan(&others); err != nil || others > 0 {
		return "", err
	}
	return digest, nil
}

func warehouseID(ctx context.Context, tx *store.Tx) (value string, err error) {
	if _, err := tx.Exec(ctx, `INSERT INTO warehouse (name, value) VALUES ('id', $1) ON CONFLICT (name) DO NOTHING`, id.New("wh")[3:]); err != nil {
		return "", err
	}
	err = tx.QueryRow(ctx, `SELECT value FROM warehouse WHERE name = 'id'`).Scan(&value)
	return value, err
}

// warehouseRow is a file of the table format: its path is TABLE/metadata/NAME.
type warehouseRow struct{ project, path string }

func (r warehouseRow) table() string {
	t, _, _ := strings.Cut(r.path, "/")
	return t
}

// oldWarehouseFiles lists files written before a time, those of a table together.
func oldWarehouseFiles(ctx context.Context, q store.Querier, before time.Time) (out []warehouseRow, err error) {
	rows, err := q.Query(ctx, `SELECT project, path FROM warehouse_files WHERE created < $1 ORDER BY project, path`, store.Micros(before))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r warehouseRow
		if err := rows.Scan(&r.project, &r.path); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// isNamed says whether a version, a quarantine or a source names a digest.
func isNamed(ctx context.Context, q store.Querier, project, digest string) (bool, error) {
	var n int64
	err := q.QueryRow(ctx, `SELECT (SELECT count(*) FROM dataset_versions WHERE project = $1 AND document LIKE $2)
		+ (SELECT count(*) FROM dataset_quarantines WHERE project = $1 AND rows_digest = $3) + (SELECT count(*) FROM dataset_sources WHERE project = $1 AND digest = $3)`,
		project, `%`+digest+`%`, digest).Scan(&n)
	return n > 0, err
}

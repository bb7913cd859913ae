package registry

import (
	"context"
	"strings"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/store"
	"falaj/internal/tracking"
	"falaj/internal/tracking/filter"
)

func insertModel(ctx context.Context, tx *store.Tx, m *Model, tags []tracking.Pair) error {
	var err error
	if m.ID, err = tx.Next(ctx, "models"); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `INSERT INTO models (id, project, name, description, last_version, created_by, created_at, updated_at) VALUES ($1, $2, $3, $4, 0, $5, $6, $7)`,
		m.ID, m.Project, m.Name, m.Description, m.Author, store.Micros(m.Created), store.Micros(m.Updated)); err != nil {
		return err
	}
	for _, t := range tags {
		if err := upsertModelTag(ctx, tx, m.ID, t); err != nil {
			return err
		}
	}
	return nil
}

func updateModel(ctx context.Context, tx *store.Tx, m Model) error {
	_, err := tx.Exec(ctx, `UPDATE models SET name = $1, description = $2, updated_at = $3 WHERE id = $4`, m.Name, m.Description, store.Micros(m.Updated), m.ID)
	return err
}

func deleteModel(ctx context.Context, tx *store.Tx, id int64) error {
	if _, err := tx.Exec(ctx, `DELETE FROM model_aliases WHERE model = $1`, id); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `UPDATE models SET deleted_at = $1 WHERE id = $2`, store.Micros(time.Now()), id)
	return err
}

func upsertModelTag(ctx context.Context, tx *store.Tx, model int64, t tracking.Pair) error {
	_, err := tx.Exec(ctx, `INSERT INTO model_tags (model, key, value) VALUES ($1, $2, $3) ON CONFLICT (model, key) DO UPDATE SET value = excluded.value`, model, t.Key, t.Value)
	return err
}

// nextVersion takes the model's next number; the row lock makes concurrent callers wait for each other.
func nextVersion(ctx context.Context, tx *store.Tx, model int64, now time.Time) (int64, error) {
	var n int64
	err := tx.QueryRow(ctx, `UPDATE models SET last_version = last_version + 1, updated_at = $1 WHERE id = $2 RETURNING last_version`, store.Micros(now), model).Scan(&n)
	return n, err
}

func insertVersion(ctx context.Context, tx *store.Tx, v Version, tags []tracking.Pair) error {
	if _, err := tx.Exec(ctx, `INSERT INTO model_versions (model, version, description, source, storage, run, run_link, logged_model, stage, release, created_by, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, '', $10, $11, $12)`,
		v.model, v.Number, v.Description, v.Source, v.Storage, v.Run, v.RunLink, v.LoggedModel, v.Stage, v.Author, store.Micros(v.Created), store.Micros(v.Updated)); err != nil {
		return err
	}
	return upsertVersionTags(ctx, tx, v.model, v.Number, tags)
}

func updateVersion(ctx context.Context, tx *store.Tx, v Version) error {
	_, err := tx.Exec(ctx, `UPDATE model_versions SET description = $1, stage = $2, release = $3, updated_at = $4 WHERE model = $5 AND version = $6`,
		v.Description, v.Stage, v.Release, store.Micros(v.Updated), v.model, v.Number)
	return err
}

func deleteVersion(ctx context.Context, tx *store.Tx, v Version) error {
	_, err := tx.Exec(ctx, `UPDATE model_versions SET deleted_at = $1 WHERE model = $2 AND version = $3`, store.Micros(time.Now()), v.model, v.Number)
	return err
}

func upsertVersionTags(ctx context.Context, tx *store.Tx, model, n int64, tags []tracking.Pair) error {
	for _, t := range tags {
		if _, err := tx.Exec(ctx, `INSERT INTO model_version_tags (model, version, key, value) VALUES ($1, $2, $3, $4) ON CONFLICT (model, version, key) DO UPDATE SET value = excluded.value`,
			model, n, t.Key, t.Value); err != nil {
			return err
		}
	}
	return nil
}

// archiveOthers moves the other versions out of a stage, each with its row of history.
func archiveOthers(ctx context.Context, tx *store.Tx, v Version, stage string) error {
	others, err := selectVersions(ctx, tx, `WHERE v.model = $1 AND v.version <> $2 AND v.stage = $3 AND v.deleted_at IS NULL`, v.model, v.Number, stage)
	if err != nil {
		return err
	}
	for _, o := range others {
		o.Stage, o.Updated = StageArchived, time.Now()
		if err := updateVersion(ctx, tx, o); err != nil {
			return err
		}
		if err := insertMove(ctx, tx, o.model, PointerMove{Kind: "stage", Name: stage, From: o.Number, To: v.Number, Actor: actorOf(ctx)}); err != nil {
			return err
		}
	}
	return nil
}

// moveAlias points the alias (To 0 removes it) and keeps the move.
func (s *Service) moveAlias(ctx context.Context, tx *store.Tx, model int64, m PointerMove) error {
	var err error
	if m.To == 0 {
		_, err = tx.Exec(ctx, `DELETE FROM model_aliases WHERE model = $1 AND alias = $2`, model, m.Name)
	} else {
		_, err = tx.Exec(ctx, `INSERT INTO model_aliases (model, alias, version) VALUES ($1, $2, $3) ON CONFLICT (model, alias) DO UPDATE SET version = excluded.version`, model, m.Name, m.To)
	}
	if err != nil {
		return err
	}
	return insertMove(ctx, tx, model, m)
}

func insertMove(ctx context.Context, tx *store.Tx, model int64, m PointerMove) error {
	id, err := tx.Next(ctx, "model_pointer_moves")
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO model_pointer_moves (id, model, kind, name, from_version, to_version, actor, change, moved_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		id, model, m.Kind, m.Name, m.From, m.To, m.Actor, m.Change, store.Micros(time.Now()))
	return err
}

func selectMoves(ctx context.Context, q store.Querier, model int64, name string) ([]PointerMove, error) {
	rows, err := q.Query(ctx, `SELECT kind, name, from_version, to_version, actor, change, moved_at FROM model_pointer_moves WHERE model = $1 AND ($2 = '' OR name = $2) ORDER BY id DESC`, model, name)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []PointerMove
	for rows.Next() {
		var m PointerMove
		var at int64
		if err := rows.Scan(&m.Kind, &m.Name, &m.From, &m.To, &m.Actor, &m.Change, &at); err != nil {
			return nil, err
		}
		m.At = store.Time(at)
		out = append(out, m)
	}
	return out, rows.Err()
}

// selectModels reads models with tags, aliases and newest versions in a fixed number of queries.
func selectModels(ctx context.Context, q store.Querier, tail string, args ...any) ([]Model, error) {
	rows, err := q.Query(ctx, `SELECT m.id, m.project, m.name, m.description, m.created_by, m.created_at, m.updated_at FROM models m `+tail, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Model
	for rows.Next() {
		var m Model
		var created, updated int64
		if err := rows.Scan(&m.ID, &m.Project, &m.Name, &m.Description, &m.Author, &created, &updated); err != nil {
			return nil, err
		}
		m.Created, m.Updated = store.Time(created), store.Time(updated)
		list = append(list, m)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	rows.Close()
	index := map[int64]*Model{}
	ids := make([]int64, len(list))
	for i := range list {
		index[list[i].ID] = &list[i]
		ids[i] = list[i].ID
	}
	err = inChunks(ids, func(part []int64) error { return fillModels(ctx, q, part, index) })
	return list, err
}

func fillModels(ctx context.Context, q store.Querier, ids []int64, index map[int64]*Model) error {
	var a filter.Args
	in := filter.In(&a, ids)
	if err := each(ctx, q, "SELECT model, key, value FROM model_tags WHERE model IN "+in+" ORDER BY model, key", a.Values(), func(scan func(...any) error) error {
		var id int64
		var t tracking.Pair
		if err := scan(&id, &t.Key, &t.Value); err != nil {
			return err
		}
		index[id].Tags = append(index[id].Tags, t)
		return nil
	}); err != nil {
		return err
	}
	if err := each(ctx, q, "SELECT model, alias, version FROM model_aliases WHERE model IN "+in+" ORDER BY model, alias", a.Values(), func(scan func(...any) error) error {
		var id int64
		var x Alias
		if err := scan(&id, &x.Name, &x.Version); err != nil {
			return err
		}
		index[id].Aliases = append(index[id].Aliases, x)
		return nil
	}); err != nil {
		return err
	}
	latest, err := selectVersions(ctx, q, "JOIN (SELECT model, stage, MAX(version) AS version FROM model_versions WHERE deleted_at IS NULL AND model IN "+in+" GROUP BY model, stage) n ON n.model = v.model AND n.version = v.version ORDER BY v.model, v.version", a.Values()...)
	if err != nil {
		return err
	}
	for _, v := range latest {
		index[v.model].Latest = append(index[v.model].Latest, v)
	}
	return nil
}

// selectVersions reads versions with tags and aliases. tail may join and filter v (model_versions) and m (models).
func selectVersions(ctx context.Context, q store.Querier, tail string, args ...any) ([]Version, error) {
	rows, err := q.Query(ctx, `SELECT v.model, m.project, m.name, v.version, v.description, v.source, v.storage, v.run, v.run_link, v.logged_model, v.stage, v.release, v.created_by, v.created_at, v.updated_at
FROM model_versions v JOIN models m ON m.id = v.model `+tail, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Version
	for rows.Next() {
		var v Version
		var created, updated int64
		if err := rows.Scan(&v.model, &v.Project, &v.Model, &v.Number, &v.Description, &v.Source, &v.Storage, &v.Run, &v.RunLink, &v.LoggedModel, &v.Stage, &v.Release, &v.Author, &created, &updated); err != nil {
			return nil, err
		}
		v.Created, v.Updated = store.Time(created), store.Time(updated)
		list = append(list, v)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	rows.Close()
	type key struct{ model, version int64 }
	index := map[key]*Version{}
	var ids []int64
	for i, v := range list {
		index[key{v.model, v.Number}] = &list[i]
		if len(ids) == 0 || ids[len(ids)-1] != v.model {
			ids = append(ids, v.model)
		}
	}
	err = inChunks(ids, func(part []int64) error {
		var a filter.Args
		in := filter.In(&a, part)
		if err := each(ctx, q, "SELECT model, version, key, value FROM model_version_tags WHERE model IN "+in+" ORDER BY model, version, key", a.Values(), func(scan func(...any) error) error {
			var k key
			var t tracking.Pair
			if err := scan(&k.model, &k.version, &t.Key, &t.Value); err != nil {
				return err
			}
			if v := index[k]; v != nil {
				v.Tags = append(v.Tags, t)
			}
			return nil
		}); err != nil {
			return err
		}
		return each(ctx, q, "SELECT model, version, alias FROM model_aliases WHERE model IN "+in+" ORDER BY model, alias", a.Values(), func(scan func(...any) error) error {
			var k key
			var name string
			if err := scan(&k.model, &k.version, &name); err != nil {
				return err
			}
			if v := index[k]; v != nil {
				v.Aliases = append(v.Aliases, name)
			}
			return nil
		})
	})
	return list, err
}

func each(ctx context.Context, q store.Querier, query string, args []any, fn func(scan func(...any) error) error) error {
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

func inChunks(ids []int64, fn func([]int64) error) error {
	for len(ids) > 0 {
		n := min(len(ids), 500)
		if err := fn(ids[:n]); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

// promptsApart adds what keeps prompts out of searches for models, and models out of searches for prompts: the tag
// mlflow.prompt.is_prompt in a filter chooses which of the two kinds is searched.
func promptsApart(a *filter.Args, clauses []filter.Clause) (rest []filter.Clause, cond string) {
	prompts := false
	for _, c := range clauses {
		if c.Entity == filter.Tag && c.Key == TagPrompt {
			prompts = c.Op == "=" && strings.EqualFold(c.Text, "true") || c.Op == "!=" && strings.EqualFold(c.Text, "false")
			continue
		}
		rest = append(rest, c)
	}
	is := "EXISTS (SELECT 1 FROM model_tags p WHERE p.model = m.id AND p.key = " + a.Add(TagPrompt) + " AND LOWER(p.value) = 'true')"
	if prompts {
		return rest, is
	}
	return rest, "NOT " + is
}

// SearchModels gives a page of registered models. Max 0 is 100.
func (s *Service) SearchModels(ctx context.Context, project string, r tracking.Search) (tracking.Page[Model], error) {
	clauses, order, offset, err := parse(filter.Models(), r)
	if err != nil {
		return tracking.Page[Model]{}, err
	}
	if r.Max == 0 {
		r.Max = 100
	}
	if r.Max < 0 || r.Max > 1000 {
		return tracking.Page[Model]{}, invalid("Invalid value for request parameter max_results. It must be at most 1000, but got value %d", r.Max)
	}
	var a filter.Args
	where := "WHERE m.deleted_at IS NULL AND m.project = " + a.Add(project)
	clauses, apart := promptsApart(&a, clauses)
	where += " AND " + apart
	for _, c := range clauses {
		if c.Entity == filter.Tag {
			where += " AND EXISTS (SELECT 1 FROM model_tags t WHERE t.model = m.id AND t.key = " + a.Add(c.Key) + " AND " + c.Condition(&a, "t.value") + ")"
		} else {
			where += " AND " + c.Condition(&a, "m.name")
		}
	}
	where += orderBy(order, map[string]string{"name": "m.name", "timestamp": "m.updated_at", "last_updated_timestamp": "m.updated_at"}, "m.name") + page(&a, r.Max, offset)
	var list []Model
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		list, err = selectModels(ctx, q, where, a.Values()...)
		return err
	})
	return cut(list, offset, r.Max), err
}

// SearchVersions gives a page of versions. Max 0 is 10000.
func (s *Service) SearchVersions(ctx context.Context, project string, r tracking.Search) (tracking.Page[Version], error) {
	if len(r.OrderBy) == 0 {
		r.OrderBy = []string{"last_updated_timestamp DESC", "name ASC", "version_number DESC"}
	}
	clauses, order, offset, err := parse(filter.ModelVersions(), r)
	if err != nil {
		return tracking.Page[Version]{}, err
	}
	if r.Max == 0 {
		r.Max = 10_000
	}
	if r.Max < 0 || r.Max > 200_000 {
		return tracking.Page[Version]{}, invalid("Invalid value for request parameter max_results. It must be at most 200000, but got value %d", r.Max)
	}
	var a filter.Args
	where := "WHERE v.deleted_at IS NULL AND m.deleted_at IS NULL AND m.project = " + a.Add(project)
	clauses, apart := promptsApart(&a, clauses)
	where += " AND " + apart
	for _, c := range clauses {
		if c.Entity == filter.Tag {
			where += " AND EXISTS (SELECT 1 FROM model_version_tags t WHERE t.model = v.model AND t.version = v.version AND t.key = " + a.Add(c.Key) + " AND " + c.Condition(&a, "t.value") + ")"
			continue
		}
		where += " AND " + c.Condition(&a, map[string]string{"name": "m.name", "run_id": "v.run", "source_path": "v.source", "version_number": "CAST(v.version AS DOUBLE PRECISION)"}[c.Key])
	}
	where += orderBy(order, map[string]string{"name": "m.name", "version_number": "v.version", "creation_timestamp": "v.created_at", "last_updated_timestamp": "v.updated_at"}, "m.name, v.version DESC") + page(&a, r.Max, offset)
	var list []Version
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		list, err = selectVersions(ctx, q, where, a.Values()...)
		return err
	})
	return cut(list, offset, r.Max), err
}

func parse(d filter.Dialect, r tracking.Search) ([]filter.Clause, []filter.Order, int, error) {
	clauses, err := d.Parse(r.Filter)
	if err != nil {
		return nil, nil, 0, err
	}
	order, err := d.OrderBy(r.OrderBy)
	if err != nil {
		return nil, nil, 0, err
	}
	offset, err := tracking.Offset(r.Token)
	return clauses, order, offset, err
}

func orderBy(order []filter.Order, columns map[string]string, last string) string {
	s := " ORDER BY "
	for _, o := range order {
		s += columns[o.Key]
		if o.Desc {
			s += " DESC"
		}
		s += ", "
	}
	return s + last
}

func page(a *filter.Args, max, offset int) string {
	return " LIMIT " + a.Add(max+1) + " OFFSET " + a.Add(offset)
}

func cut[T any](list []T, offset, max int) tracking.Page[T] {
	if len(list) > max {
		return tracking.Page[T]{Items: list[:max], Next: tracking.Token(offset + max)}
	}
	return tracking.Page[T]{Items: list}
}

func corrupt(digest string) error {
	return fault.New(fault.Internal, "The manifest of release "+digest+" does not have that digest: the row was changed outside falaj.", "Run `falaj audit verify`, then restore the database from a backup.")
}

package tracking

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"falaj/internal/store"
	"falaj/internal/tracking/filter"
)

const runColumns = `r.id, r.uuid, r.project, r.experiment, r.name, r.user_id, r.status, r.start_ms, r.end_ms, r.stage, r.artifact_uri, r.parent`

func scanRun(scan func(...any) error, r *RunInfo) error {
	var end sql.NullInt64
	if err := scan(&r.key, &r.ID, &r.Project, &r.Experiment, &r.Name, &r.User, &r.Status, &r.StartMs, &end, &r.Stage, &r.ArtifactURI, &r.Parent); err != nil {
		return err
	}
	if end.Valid {
		r.EndMs = &end.Int64
	}
	return nil
}

func insertRun(ctx context.Context, tx *store.Tx, r *Run, by string) error {
	var err error
	if r.key, err = tx.Next(ctx, "runs"); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `INSERT INTO runs (id, uuid, project, experiment, name, user_id, status, start_ms, stage, artifact_uri, parent, created_by, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
		r.key, r.ID, r.Project, r.Experiment, r.Name, r.User, r.Status, r.StartMs, r.Stage, r.ArtifactURI, r.Parent, by, store.Micros(time.Now())); err != nil {
		return err
	}
	return upsertPairs(ctx, tx, "run_tags", "run", r.key, r.Tags)
}

func updateRun(ctx context.Context, tx *store.Tx, r RunInfo) error {
	var end, deleted any
	if r.EndMs != nil {
		end = *r.EndMs
	}
	if r.Stage == Deleted {
		deleted = store.Micros(time.Now())
	}
	_, err := tx.Exec(ctx, `UPDATE runs SET name = $1, status = $2, end_ms = $3, stage = $4, deleted_at = $5 WHERE id = $6`, r.Name, r.Status, end, r.Stage, deleted, r.key)
	return err
}

func runInfo(ctx context.Context, q store.Querier, project, runID string) (RunInfo, error) {
	var r RunInfo
	err := scanRun(q.QueryRow(ctx, `SELECT `+runColumns+` FROM runs r WHERE r.uuid = $1 AND r.project = $2`, runID, project).Scan, &r)
	if store.NotFound(err) {
		return r, notFound("Run with id=%s not found", runID)
	}
	return r, err
}

// selectRuns gives the runs that the query finds, in its order.
func selectRuns(ctx context.Context, q store.Querier, query string, args ...any) ([]Run, error) {
	ids, err := selectIDs(ctx, q, query, args...)
	if err != nil {
		return nil, err
	}
	list := make([]Run, len(ids))
	index := make(map[int64]*Run, len(ids))
	for i, id := range ids {
		index[id] = &list[i]
	}
	return list, inChunks(ids, func(part []int64) error {
		var a filter.Args
		rows, err := q.Query(ctx, "SELECT "+runColumns+" FROM runs r WHERE r.id IN "+filter.In(&a, part), a.Values()...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r RunInfo
			if err := scanRun(rows.Scan, &r); err != nil {
				return err
			}
			index[r.key].RunInfo = r
		}
		return rows.Err()
	})
}

func selectIDs(ctx context.Context, q store.Querier, query string, args ...any) ([]int64, error) {
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ids []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// fillRuns reads what the runs logged: a fixed number of queries for a page.
func fillRuns(ctx context.Context, q store.Querier, list []Run) error {
	index := make(map[int64]*Run, len(list))
	ids := make([]int64, len(list))
	for i := range list {
		index[list[i].key] = &list[i]
		ids[i] = list[i].key
	}
	if err := eachPair(ctx, q, "run_params", "run", ids, func(id int64, p Pair) { index[id].Params = append(index[id].Params, p) }); err != nil {
		return err
	}
	if err := eachPair(ctx, q, "run_tags", "run", ids, func(id int64, p Pair) { index[id].Tags = append(index[id].Tags, p) }); err != nil {
		return err
	}
	if err := eachLatest(ctx, q, ids, func(id int64, m Metric) {
		m.Run = index[id].ID
		index[id].Metrics = append(index[id].Metrics, m)
	}); err != nil {
		return err
	}
	if err := eachInput(ctx, q, ids, func(id int64, d DatasetInput) { index[id].Datasets = append(index[id].Datasets, d) }); err != nil {
		return err
	}
	return eachModelLink(ctx, q, ids, func(id int64, direction string, l ModelLink) {
		if direction == "input" {
			index[id].Inputs = append(index[id].Inputs, l)
		} else {
			index[id].Outputs = append(index[id].Outputs, l)
		}
	})
}

// runQuery builds the statement that finds the runs of a page; it gives their row numbers only, so that sorting moves little. Ordering by a metric puts numbers first, then NaN, then runs without it.
func (s *Service) runQuery(ctx context.Context, q store.Querier, experiments []int64, v View, clauses []filter.Clause, order []filter.Order, limit, offset int) (string, []any, error) {
	var a filter.Args
	var joins, where, by strings.Builder
	where.WriteString("r.experiment " + filter.One(&a, experiments) + " AND r.stage " + filter.One(&a, v.stages()))
	for _, c := range clauses {
		cond, err := s.runCondition(ctx, q, &a, c)
		if err != nil {
			return "", nil, err
		}
		where.WriteString(" AND " + cond)
	}
	startOrdered := false
	for i, o := range order {
		alias := "o" + string(rune('a'+i))
		switch o.Entity {
		case filter.Metric:
			key, err := s.metricKey(ctx, q, o.Key)
			if err != nil {
				return "", nil, err
			}
			joins.WriteString(" LEFT JOIN metric_latest " + alias + " ON " + alias + ".run = r.id AND " + alias + ".key = " + a.Add(key))
			by.WriteString("CASE WHEN " + alias + ".flag = 1 THEN 1 WHEN " + alias + ".value IS NULL THEN 2 ELSE 0 END, " + alias + ".value" + direction(o.Desc) + ", ")
		case filter.Attribute:
			startOrdered = startOrdered || o.Key == "start_time"
			col := runAttribute(o.Key)
			by.WriteString("CASE WHEN " + col + " IS NULL THEN 1 ELSE 0 END, " + col + direction(o.Desc) + ", ")
		default:
			table := "run_params"
			if o.Entity == filter.Tag {
				table = "run_tags"
			}
			joins.WriteString(" LEFT JOIN " + table + " " + alias + " ON " + alias + ".run = r.id AND " + alias + ".key = " + a.Add(o.Key))
			by.WriteString("CASE WHEN " + alias + ".value IS NULL THEN 1 ELSE 0 END, " + alias + ".value" + direction(o.Desc) + ", ")
		}
	}
	if !startOrdered {
		by.WriteString("r.start_ms DESC, ")
	}
	return "SELECT r.id FROM runs r" + joins.String() + " WHERE " + where.String() + " ORDER BY " + by.String() + "r.uuid LIMIT " + a.Add(limit) + " OFFSET " + a.Add(offset), a.Values(), nil
}

func runAttribute(key string) string {
	return map[string]string{"run_id": "r.uuid", "run_name": "r.name", "user_id": "r.user_id", "status": "r.status", "artifact_uri": "r.artifact_uri",
		"start_time": "r.start_ms", "end_time": "r.end_ms", "experiment_id": "r.experiment", "lifecycle_stage": "r.stage"}[key]
}

func (s *Service) runCondition(ctx context.Context, q store.Querier, a *filter.Args, c filter.Clause) (string, error) {
	switch c.Entity {
	case filter.Metric:
		key, err := s.metricKey(ctx, q, c.Key)
		if err != nil {
			return "", err
		}
		// NaN is stored as 0 with a flag: it equals and exceeds nothing, and differs from everything.
		nan := " AND m.flag <> 1"
		if c.Op == "!=" {
			nan = " OR m.flag = 1"
		}
		return "EXISTS (SELECT 1 FROM metric_latest m WHERE m.run = r.id AND m.key = " + a.Add(key) + " AND (" + c.Condition(a, "m.value") + nan + "))", nil
	case filter.Param, filter.Tag:
		table := "run_params"
		if c.Entity == filter.Tag {
			table = "run_tags"
		}
		exists := "EXISTS (SELECT 1 FROM " + table + " p WHERE p.run = r.id AND p.key = " + a.Add(c.Key)
		switch c.Op {
		case "IS NULL":
			return "NOT " + exists + ")", nil
		case "IS NOT NULL":
			return exists + ")", nil
		}
		return exists + " AND " + c.Condition(a, "p.value") + ")", nil
	case filter.Dataset:
		col := map[string]string{"name": "d.name", "digest": "d.digest", "context": "i.context"}[c.Key]
		return "EXISTS (SELECT 1 FROM run_inputs i JOIN input_datasets d ON d.id = i.dataset WHERE i.run = r.id AND " + c.Condition(a, col) + ")", nil
	}
	col := runAttribute(c.Key)
	if c.Numeric {
		col = "CAST(" + col + " AS DOUBLE PRECISION)"
	}
	return c.Condition(a, col), nil
}

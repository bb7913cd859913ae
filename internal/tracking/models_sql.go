package tracking

import (
	"context"
	"strings"

	"falaj/internal/store"
	"falaj/internal/tracking/filter"
)

func insertModel(ctx context.Context, tx *store.Tx, m LoggedModel) error {
	if _, err := tx.Exec(ctx, `INSERT INTO logged_models (id, project, experiment, name, model_type, source_run, status, status_message, stage, artifact_uri, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
		m.ID, m.Project, m.Experiment, m.Name, m.Type, m.SourceRun, int64(m.Status), m.StatusMessage, m.Stage, m.ArtifactURI, store.Micros(m.Created), store.Micros(m.Updated)); err != nil {
		return err
	}
	if err := upsertPairs(ctx, tx, "logged_model_params", "model", m.ID, m.Params); err != nil {
		return err
	}
	return upsertPairs(ctx, tx, "logged_model_tags", "model", m.ID, m.Tags)
}

func updateModel(ctx context.Context, tx *store.Tx, m LoggedModel) error {
	_, err := tx.Exec(ctx, `UPDATE logged_models SET status = $1, stage = $2, updated_at = $3 WHERE id = $4`, int64(m.Status), m.Stage, store.Micros(m.Updated), m.ID)
	return err
}

func insertModelMetrics(ctx context.Context, tx *store.Tx, metrics []Metric) error {
	for _, m := range metrics {
		v, flag := sqlNumber(m.Value)
		if _, err := tx.Exec(ctx, `INSERT INTO logged_model_metrics (model, key, step, ts_ms, run, value, flag, dataset_name, dataset_digest) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING`,
			m.Model, m.Key, m.Step, m.TimestampMs, m.Run, v, flag, m.DatasetName, m.DatasetDigest); err != nil {
			return err
		}
	}
	return nil
}

// selectModels reads logged models with parameters, tags and metrics in four queries. tail is joins, WHERE, ORDER BY, LIMIT.
func selectModels(ctx context.Context, q store.Querier, tail string, args ...any) ([]LoggedModel, error) {
	rows, err := q.Query(ctx, `SELECT m.id, m.project, m.experiment, m.name, m.model_type, m.source_run, m.status, m.status_message, m.stage, m.artifact_uri, m.created_at, m.updated_at FROM logged_models m `+tail, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []LoggedModel
	index := map[string]int{}
	for rows.Next() {
		var m LoggedModel
		var created, updated int64
		if err := rows.Scan(&m.ID, &m.Project, &m.Experiment, &m.Name, &m.Type, &m.SourceRun, &m.Status, &m.StatusMessage, &m.Stage, &m.ArtifactURI, &created, &updated); err != nil {
			return nil, err
		}
		m.Created, m.Updated = store.Time(created), store.Time(updated)
		index[m.ID] = len(list)
		list = append(list, m)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	rows.Close()
	ids := make([]string, len(list))
	for i, m := range list {
		ids[i] = m.ID
	}
	if err := eachPair(ctx, q, "logged_model_params", "model", ids, func(id string, p Pair) { list[index[id]].Params = append(list[index[id]].Params, p) }); err != nil {
		return nil, err
	}
	if err := eachPair(ctx, q, "logged_model_tags", "model", ids, func(id string, p Pair) { list[index[id]].Tags = append(list[index[id]].Tags, p) }); err != nil {
		return nil, err
	}
	return list, inChunks(ids, func(part []string) error {
		var a filter.Args
		rows, err := q.Query(ctx, "SELECT model, key, step, ts_ms, run, value, flag, dataset_name, dataset_digest FROM logged_model_metrics WHERE model IN "+filter.In(&a, part)+" ORDER BY model, key, step, ts_ms", a.Values()...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var m Metric
			var flag int64
			if err := rows.Scan(&m.Model, &m.Key, &m.Step, &m.TimestampMs, &m.Run, &m.Value, &flag, &m.DatasetName, &m.DatasetDigest); err != nil {
				return err
			}
			m.Value = fromSQL(m.Value, flag)
			i := index[m.Model]
			list[i].Metrics = append(list[i].Metrics, m)
		}
		return rows.Err()
	})
}

func modelColumn(key string) string {
	return map[string]string{"name": "m.name", "model_id": "m.id", "model_type": "m.model_type", "source_run_id": "m.source_run", "status": "m.status",
		"experiment_id": "m.experiment", "creation_timestamp_ms": "m.created_at", "last_updated_timestamp_ms": "m.updated_at"}[key]
}

func modelQuery(project string, experiments []int64, clauses []filter.Clause, r ModelSearch, offset int) (string, []any, error) {
	var a filter.Args
	var joins, where, by strings.Builder
	where.WriteString("WHERE m.project = " + a.Add(project) + " AND m.stage <> 'deleted' AND m.experiment IN " + filter.In(&a, experiments))
	onDatasets := func(alias string) string {
		if len(r.Datasets) == 0 {
			return ""
		}
		var any []string
		for _, d := range r.Datasets {
			c := alias + ".dataset_name = " + a.Add(d.Key)
			if d.Value != "" {
				c += " AND " + alias + ".dataset_digest = " + a.Add(d.Value)
			}
			any = append(any, "("+c+")")
		}
		return " AND (" + strings.Join(any, " OR ") + ")"
	}
	metrics := false
	for _, c := range clauses {
		switch c.Entity {
		case filter.Metric:
			metrics = true
			where.WriteString(" AND EXISTS (SELECT 1 FROM logged_model_metrics x WHERE x.model = m.id AND x.key = " + a.Add(c.Key) + " AND x.flag <> 1 AND " + c.Condition(&a, "x.value") + onDatasets("x") + ")")
		case filter.Param, filter.Tag:
			table := "logged_model_params"
			if c.Entity == filter.Tag {
				table = "logged_model_tags"
			}
			where.WriteString(" AND EXISTS (SELECT 1 FROM " + table + " x WHERE x.model = m.id AND x.key = " + a.Add(c.Key) + " AND " + c.Condition(&a, "x.value") + ")")
		default:
			col := modelColumn(c.Key)
			switch {
			case c.Numeric:
				col = "CAST(" + col + " / 1000 AS DOUBLE PRECISION)"
			case c.Key == "experiment_id" || c.Key == "status":
				col = "CAST(" + col + " AS TEXT)"
			}
			where.WriteString(" AND " + c.Condition(&a, col))
		}
	}
	if !metrics && len(r.Datasets) > 0 {
		where.WriteString(" AND EXISTS (SELECT 1 FROM logged_model_metrics x WHERE x.model = m.id" + onDatasets("x") + ")")
	}
	if len(r.OrderBy) > 16 {
		return "", nil, invalid("`order_by` contains more than 16 fields.")
	}
	for i, o := range r.OrderBy {
		order, err := filter.LoggedModels().OrderBy([]string{o.Field})
		if err != nil {
			return "", nil, invalid("Invalid order by field name: %s", o.Field)
		}
		col := modelColumn(order[0].Key)
		if order[0].Entity == filter.Metric {
			// The newest value of the metric: latest by time, then step.
			alias := "o" + string(rune('a'+i))
			narrow := ""
			if o.DatasetName != "" {
				narrow += " AND dataset_name = " + a.Add(o.DatasetName)
			}
			if o.DatasetDigest != "" {
				narrow += " AND dataset_digest = " + a.Add(o.DatasetDigest)
			}
			joins.WriteString(" LEFT JOIN (SELECT model, value, ROW_NUMBER() OVER (PARTITION BY model ORDER BY ts_ms DESC, step DESC, run) AS rank FROM logged_model_metrics WHERE key = " +
				a.Add(order[0].Key) + narrow + ") " + alias + " ON " + alias + ".model = m.id AND " + alias + ".rank = 1")
			col = alias + ".value"
		}
		by.WriteString("CASE WHEN " + col + " IS NULL THEN 1 ELSE 0 END, " + col + direction(!o.Ascending) + ", ")
	}
	by.WriteString("m.created_at DESC, m.id")
	return joins.String() + " " + where.String() + " ORDER BY " + by.String() + " LIMIT " + a.Add(r.Max+1) + " OFFSET " + a.Add(offset), a.Values(), nil
}

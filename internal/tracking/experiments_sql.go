package tracking

import (
	"context"
	"strconv"
	"strings"
	"time"

	"falaj/internal/kernel/policy"
	"falaj/internal/store"
	"falaj/internal/tracking/filter"
)

func policyAction(s string) policy.Action { return policy.Action(s) }

func insertExperiment(ctx context.Context, tx *store.Tx, project string, r NewExperiment) (Experiment, error) {
	id, err := tx.Next(ctx, "experiments")
	if err != nil {
		return Experiment{}, err
	}
	if r.ArtifactLocation == "" {
		r.ArtifactLocation = "mlflow-artifacts:/" + strconv.FormatInt(id, 10)
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	e := Experiment{ID: id, Project: project, Name: r.Name, ArtifactLocation: r.ArtifactLocation, Stage: Active, Created: now, Updated: now, Tags: r.Tags}
	if _, err := tx.Exec(ctx, `INSERT INTO experiments (id, project, name, artifact_location, stage, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		e.ID, e.Project, e.Name, e.ArtifactLocation, e.Stage, store.Micros(e.Created), store.Micros(e.Updated)); err != nil {
		return Experiment{}, err
	}
	return e, upsertPairs(ctx, tx, "experiment_tags", "experiment", e.ID, r.Tags)
}

func updateExperiment(ctx context.Context, tx *store.Tx, e Experiment) error {
	_, err := tx.Exec(ctx, `UPDATE experiments SET name = $1, stage = $2, updated_at = $3 WHERE id = $4`, e.Name, e.Stage, store.Micros(e.Updated), e.ID)
	return err
}

// markRuns follows the stage of the experiment with all its runs.
func markRuns(ctx context.Context, tx *store.Tx, experiment int64, stage string) error {
	var deleted any
	if stage == Deleted {
		deleted = store.Micros(time.Now())
	}
	_, err := tx.Exec(ctx, `UPDATE runs SET stage = $1, deleted_at = $2 WHERE experiment = $3`, stage, deleted, experiment)
	return err
}

// selectExperiments reads experiments with their tags in two queries.
func selectExperiments(ctx context.Context, q store.Querier, where string, args ...any) ([]Experiment, error) {
	rows, err := q.Query(ctx, `SELECT id, project, name, artifact_location, stage, created_at, updated_at FROM experiments WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Experiment
	index := map[int64]int{}
	for rows.Next() {
		var e Experiment
		var created, updated int64
		if err := rows.Scan(&e.ID, &e.Project, &e.Name, &e.ArtifactLocation, &e.Stage, &created, &updated); err != nil {
			return nil, err
		}
		e.Created, e.Updated = store.Time(created), store.Time(updated)
		index[e.ID] = len(list)
		list = append(list, e)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	rows.Close()
	ids := make([]int64, len(list))
	for i, e := range list {
		ids[i] = e.ID
	}
	return list, eachPair(ctx, q, "experiment_tags", "experiment", ids, func(id int64, p Pair) {
		i := index[id]
		list[i].Tags = append(list[i].Tags, p)
	})
}

func experimentWhere(a *filter.Args, project string, v View, clauses []filter.Clause) (string, error) {
	w := "project = " + a.Add(project) + " AND stage IN " + filter.In(a, v.stages())
	for _, c := range clauses {
		switch {
		case c.Entity == filter.Tag && c.Op == "IS NULL":
			w += " AND NOT EXISTS (SELECT 1 FROM experiment_tags t WHERE t.experiment = experiments.id AND t.key = " + a.Add(c.Key) + ")"
		case c.Entity == filter.Tag && c.Op == "IS NOT NULL":
			w += " AND EXISTS (SELECT 1 FROM experiment_tags t WHERE t.experiment = experiments.id AND t.key = " + a.Add(c.Key) + ")"
		case c.Entity == filter.Tag:
			w += " AND EXISTS (SELECT 1 FROM experiment_tags t WHERE t.experiment = experiments.id AND t.key = " + a.Add(c.Key) + " AND " + c.Condition(a, "t.value") + ")"
		case c.Key == "experiment_id":
			ids, err := idList(c)
			if err != nil {
				return "", err
			}
			not := ""
			if c.Op == "!=" || c.Op == "NOT IN" {
				not = "NOT "
			}
			w += " AND id " + not + "IN " + filter.In(a, ids)
		case c.Key == "name":
			w += " AND " + c.Condition(a, "name")
		case c.Key == "creation_time":
			w += " AND " + c.Condition(a, "CAST(created_at / 1000 AS DOUBLE PRECISION)")
		default:
			w += " AND " + c.Condition(a, "CAST(updated_at / 1000 AS DOUBLE PRECISION)")
		}
	}
	return w, nil
}

func idList(c filter.Clause) ([]int64, error) {
	words := c.List
	switch c.Op {
	case "=", "!=":
		words = []string{c.Text}
	case "IN", "NOT IN":
	default:
		return nil, invalid("Invalid comparator for experiment_id: %s", c.Op)
	}
	ids := make([]int64, len(words))
	for i, w := range words {
		id, err := ParseExperimentID(w)
		if err != nil {
			return nil, err
		}
		ids[i] = id
	}
	return ids, nil
}

// ParseExperimentID reads an id as clients send it.
func ParseExperimentID(s string) (int64, error) {
	id, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil {
		return 0, invalid("Invalid experiment ID '%s'. Experiment ID must be a valid integer.", s)
	}
	return id, nil
}

func experimentOrder(order []filter.Order) string {
	if len(order) == 0 {
		return "created_at DESC, id"
	}
	var b strings.Builder
	for _, o := range order {
		col := map[string]string{"name": "name", "experiment_id": "id", "creation_time": "created_at", "last_update_time": "updated_at"}[o.Key]
		b.WriteString(col + direction(o.Desc) + ", ")
	}
	return b.String() + "id DESC"
}

func direction(desc bool) string {
	if desc {
		return " DESC"
	}
	return ""
}

// upsertPairs writes key-value rows of one owner in few statements. Table and column names are ours, never input.
func upsertPairs[K any](ctx context.Context, tx *store.Tx, table, owner string, id K, pairs []Pair) error {
	last := map[string]int{}
	for i, p := range pairs {
		last[p.Key] = i // one statement may not touch a row twice: the last one counts
	}
	for len(pairs) > 0 {
		n := min(len(pairs), 50)
		var a filter.Args
		var b strings.Builder
		ownerArg := a.Add(id)
		for i, p := range pairs[:n] {
			if last[p.Key] != i {
				continue
			}
			if b.Len() > 0 {
				b.WriteString(", ")
			}
			b.WriteString("(" + ownerArg + ", " + a.Add(p.Key) + ", " + a.Add(p.Value) + ")")
		}
		if b.Len() > 0 {
			if _, err := tx.Exec(ctx, "INSERT INTO "+table+" ("+owner+", key, value) VALUES "+b.String()+" ON CONFLICT ("+owner+", key) DO UPDATE SET value = excluded.value", a.Values()...); err != nil {
				return err
			}
		}
		pairs = pairs[n:]
		for k := range last {
			last[k] -= n
		}
	}
	return nil
}

// eachPair reads the key-value rows of many owners, ordered by owner and key.
func eachPair[K any](ctx context.Context, q store.Querier, table, owner string, ids []K, fn func(id K, p Pair)) error {
	return inChunks(ids, func(part []K) error {
		var a filter.Args
		rows, err := q.Query(ctx, "SELECT "+owner+", key, value FROM "+table+" WHERE "+owner+" IN "+filter.In(&a, part)+" ORDER BY "+owner+", key", a.Values()...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id K
			var p Pair
			if err := rows.Scan(&id, &p.Key, &p.Value); err != nil {
				return err
			}
			fn(id, p)
		}
		return rows.Err()
	})
}

// inChunks calls fn with at most 100 ids at a time: databases limit parameters, and SQLite's cost grows with their square.
func inChunks[K any](ids []K, fn func([]K) error) error {
	for len(ids) > 0 {
		n := min(len(ids), 100)
		if err := fn(ids[:n]); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

package tracking

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"falaj/internal/store"
)

// LogBatch stores metrics, parameters and tags of one active run, all or nothing, durably. Logging the same point, parameter
// or tag again is no error; another value for a parameter is (fault.Invalid).
func (s *Service) LogBatch(ctx context.Context, project, runID string, b Batch) error {
	if !RunIDOK(runID) {
		return invalidValue("run_id", Quote(runID), "")
	}
	if err := checkBatch(&b); err != nil {
		return err
	}
	if err := s.hold(ctx, project, runID); err != nil {
		return err
	}
	var fresh map[string]int64
	err := s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		fresh = map[string]int64{}
		r, err := activeRun(ctx, tx, project, runID)
		if err != nil {
			return err
		}
		if err := s.logParams(ctx, tx, r, b.Params); err != nil {
			return err
		}
		if err := s.logMetrics(ctx, tx, r, b.Metrics, fresh); err != nil {
			return err
		}
		return logTags(ctx, tx, r, b.Tags)
	})
	if err == nil {
		s.learn(fresh)
	}
	return err
}

// LogMetric is LogBatch of one metric.
func (s *Service) LogMetric(ctx context.Context, project, runID string, m Metric) error {
	return s.LogBatch(ctx, project, runID, Batch{Metrics: []Metric{m}, Single: true})
}

// LogParam is LogBatch of one parameter.
func (s *Service) LogParam(ctx context.Context, project, runID string, p Pair) error {
	return s.LogBatch(ctx, project, runID, Batch{Params: []Pair{p}, Single: true})
}

// SetTag is LogBatch of one tag.
func (s *Service) SetTag(ctx context.Context, project, runID string, t Pair) error {
	return s.LogBatch(ctx, project, runID, Batch{Tags: []Pair{t}, Single: true})
}

// DeleteTag removes a tag of an active run.
func (s *Service) DeleteTag(ctx context.Context, project, runID, key string) error {
	if err := s.hold(ctx, project, runID); err != nil {
		return err
	}
	return s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		r, err := activeRun(ctx, tx, project, runID)
		if err != nil {
			return err
		}
		n, err := tx.Exec(ctx, `DELETE FROM run_tags WHERE run = $1 AND key = $2`, r.key, key)
		if err == nil && n == 0 {
			return notFound("No tag with name: %s in run with id %s", key, runID)
		}
		return err
	})
}

// RecordModel appends an MLmodel description to the run's tag mlflow.log-model.history (clients before MLflow 3).
func (s *Service) RecordModel(ctx context.Context, project, runID, modelJSON string) error {
	if err := s.hold(ctx, project, runID); err != nil {
		return err
	}
	return s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		r, err := activeRun(ctx, tx, project, runID)
		if err != nil {
			return err
		}
		var old string
		err = tx.QueryRow(ctx, `SELECT value FROM run_tags WHERE run = $1 AND key = $2`, r.key, TagLoggedModels).Scan(&old)
		if err != nil && !store.NotFound(err) {
			return err
		}
		list := "[" + modelJSON + "]"
		if strings.HasPrefix(old, "[") && strings.HasSuffix(old, "]") && len(old) > 2 {
			list = old[:len(old)-1] + ", " + modelJSON + "]"
		}
		return upsertPairs(ctx, tx, "run_tags", "run", r.key, []Pair{{TagLoggedModels, list}})
	})
}

func activeRun(ctx context.Context, tx *store.Tx, project, runID string) (RunInfo, error) {
	r, err := runInfo(ctx, tx, project, runID)
	if err != nil {
		return r, err
	}
	return r, r.mustBeActive()
}

// logParams inserts what is new and refuses what differs. The insert decides, so that two writers cannot both win.
func (s *Service) logParams(ctx context.Context, tx *store.Tx, r RunInfo, params []Pair) error {
	if len(params) == 0 {
		return nil
	}
	added, err := s.insertParams(ctx, tx, r.key, params)
	if err != nil || added == int64(len(params)) {
		return err
	}
	old := map[string]string{}
	if err := eachPair(ctx, tx, "run_params", "run", []int64{r.key}, func(_ int64, p Pair) { old[p.Key] = p.Value }); err != nil {
		return err
	}
	var differ []string
	for _, p := range params {
		if v, ok := old[p.Key]; ok && v != p.Value {
			if len(params) == 1 {
				return invalid("Changing param values is not allowed. Param with key='%s' was already logged with value='%s' for run ID='%s'. Attempted logging new value '%s'.", p.Key, v, r.ID, p.Value)
			}
			differ = append(differ, fmt.Sprintf("{'key': %s, 'old_value': %s, 'new_value': %s}", PyRepr(p.Key), PyRepr(v), PyRepr(p.Value)))
		}
	}
	if len(differ) > 0 {
		return invalid("Changing param values is not allowed. Params were already logged='[%s]' for run ID='%s'.", strings.Join(differ, ", "), r.ID)
	}
	return nil
}

// logTags writes tags; the run's name and parent follow their tags.
func logTags(ctx context.Context, tx *store.Tx, r RunInfo, tags []Pair) error {
	for _, t := range tags {
		switch {
		case t.Key == TagRunName && t.Value != "":
			if _, err := tx.Exec(ctx, `UPDATE runs SET name = $1 WHERE id = $2`, t.Value, r.key); err != nil {
				return err
			}
		case t.Key == TagParentRun:
			if _, err := tx.Exec(ctx, `UPDATE runs SET parent = $1 WHERE id = $2`, t.Value, r.key); err != nil {
				return err
			}
		}
	}
	return upsertPairs(ctx, tx, "run_tags", "run", r.key, tags)
}

// series is the points of one key in one batch.
type series struct {
	key    int64
	points []point
	last   point
}

// logMetrics files the points under the run: the newest value, a packed chunk for each key, and the logged model's own rows.
func (s *Service) logMetrics(ctx context.Context, tx *store.Tx, r RunInfo, metrics []Metric, fresh map[string]int64) error {
	if len(metrics) == 0 {
		return nil
	}
	byName := make(map[string]*series, len(metrics))
	names := make([]string, 0, len(metrics))
	var ofModels []Metric
	for _, m := range metrics {
		p := point{m.Step, m.TimestampMs, m.Value}
		g := byName[m.Key]
		switch {
		case g == nil:
			g = &series{last: p}
			byName[m.Key] = g
			names = append(names, m.Key)
		case newer(p, g.last):
			g.last = p
		}
		g.points = append(g.points, p)
		if m.Model != "" {
			m.Run = r.ID
			ofModels = append(ofModels, m)
		}
	}
	if err := s.metricKeys(ctx, tx, names, fresh, func(name string, key int64) { byName[name].key = key }); err != nil {
		return err
	}
	list := make([]*series, 0, len(byName))
	for _, g := range byName {
		list = append(list, g)
	}
	// One order for all writers: PostgreSQL locks the rows one by one.
	slices.SortFunc(list, func(a, b *series) int { return int(a.key - b.key) })
	for len(list) > 0 {
		n := min(len(list), 250)
		if err := s.writeSeries(ctx, tx, r.key, list[:n]); err != nil {
			return err
		}
		list = list[n:]
	}
	return insertModelMetrics(ctx, tx, ofModels)
}

func (s *Service) learn(fresh map[string]int64) {
	if len(fresh) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.keys) > 1<<20 { // a million names: start over rather than grow for ever
		s.keys = map[string]int64{}
	}
	for k, v := range fresh {
		s.keys[k] = v
	}
}

func (s *Service) known(name string) (int64, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	id, ok := s.keys[name]
	return id, ok
}

// MetricHistory gives all points of one metric by time, step and value, a page when max > 0.
func (s *Service) MetricHistory(ctx context.Context, project, runID, key string, max int, token string) (Page[Metric], error) {
	offset, err := Offset(token)
	if err != nil {
		return Page[Metric]{}, err
	}
	points, err := s.points(ctx, project, []string{runID}, key)
	if err != nil {
		return Page[Metric]{}, err
	}
	list := toMetrics(runID, key, sortDistinct(points[runID], byTime))
	list = list[min(offset, len(list)):]
	if max > 0 {
		return cutPage(list, offset, max), nil
	}
	return Page[Metric]{Items: list}, nil
}

// MetricHistories gives the points of one metric for several runs, runs in the order of their ids, at most max points in all.
func (s *Service) MetricHistories(ctx context.Context, project string, runIDs []string, key string, max int) ([]Metric, error) {
	all, err := s.points(ctx, project, runIDs, key)
	if err != nil {
		return nil, err
	}
	ids := slices.Clone(runIDs)
	slices.Sort(ids)
	var out []Metric
	for _, id := range slices.Compact(ids) {
		out = append(out, toMetrics(id, key, sortDistinct(all[id], byTime))...)
		if len(out) >= max {
			return out[:max], nil
		}
	}
	return out, nil
}

// MetricSample gives at most max points of each run, evenly spread, optionally only steps from..to.
func (s *Service) MetricSample(ctx context.Context, project string, runIDs []string, key string, max int, steps *[2]int64) ([]Metric, error) {
	all, err := s.points(ctx, project, runIDs, key)
	if err != nil {
		return nil, err
	}
	var out []Metric
	for _, id := range runIDs {
		p := sortDistinct(slices.Clone(all[id]), byStep)
		if steps != nil {
			p = slices.DeleteFunc(p, func(p point) bool { return p.step < steps[0] || p.step > steps[1] })
		}
		out = append(out, toMetrics(id, key, sample(p, max))...)
	}
	return out, nil
}

func toMetrics(runID, key string, points []point) []Metric {
	out := make([]Metric, len(points))
	for i, p := range points {
		out[i] = Metric{Key: key, Value: p.value, TimestampMs: p.tsMs, Step: p.step, Run: runID}
	}
	return out
}

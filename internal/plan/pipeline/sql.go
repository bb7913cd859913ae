package pipeline

import (
	"context"
	"encoding/json"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
	"falaj/internal/store"
)

func text(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

func insertApply(ctx context.Context, tx *store.Tx, a Applied) error {
	bundle, err := text(a.Bundle)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO project_applies (project, seq, at, actor, digest, bundle) VALUES ($1, $2, $3, $4, $5, $6)`, a.Project, a.Seq, store.Micros(a.At), a.Actor, a.Digest, bundle)
	return err
}

// selectApply is the newest apply with seq 0; found is false when the project was never applied.
func selectApply(ctx context.Context, q store.Querier, project string, seq int64) (a Applied, found bool, err error) {
	var at int64
	var bundle string
	err = q.QueryRow(ctx, `SELECT project, seq, at, actor, digest, bundle FROM project_applies WHERE project = $1 AND ($2 = 0 OR seq = $2) ORDER BY seq DESC LIMIT 1`, project, seq).
		Scan(&a.Project, &a.Seq, &at, &a.Actor, &a.Digest, &bundle)
	if store.NotFound(err) {
		return a, false, nil
	}
	if err != nil {
		return a, false, err
	}
	a.At = store.Time(at)
	return a, true, json.Unmarshal([]byte(bundle), &a.Bundle)
}

// What quotes users' data is sealed where it is kept: the logs of steps, their reasons and faults, and cached results.
func runPlace(run string) string { return "pipeline_run/" + run }
func stepPlace(run, name, part string) string {
	return "pipeline_step/" + run + "/" + name + "/" + part
}
func cachePlace(step, key string) string { return "step_cache/" + step + "/" + key }

const runColumns = `id, project, seq, pipeline, state, actor, model, request, apply_seq, error, resumed_from, created, started, ended`

func insertRun(ctx context.Context, tx *store.Tx, r Run) error {
	req, err := text(r.Request)
	if err != nil {
		return err
	}
	reason, err := text(r.Request.Reason)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO pipeline_runs (`+runColumns+`, reason) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, '', $10, $11, 0, 0, $12)`,
		r.ID, r.Project, r.Seq, r.Pipeline, string(r.State), r.Actor, r.Model, req, r.Apply, r.Resumed, store.Micros(r.Created), reason)
	return err
}

func scanRun(box *seal.Box) func(store.Scanner) (Run, error) {
	return func(s store.Scanner) (Run, error) { return oneRun(s, box) }
}

func oneRun(s store.Scanner, box *seal.Box) (r Run, err error) {
	var state, req, fail string
	var created, started, ended int64
	if err = s.Scan(&r.ID, &r.Project, &r.Seq, &r.Pipeline, &state, &r.Actor, &r.Model, &req, &r.Apply, &fail, &r.Resumed, &created, &started, &ended); err != nil {
		return r, err
	}
	r.State, r.Created, r.Started, r.Ended = RunState(state), store.Time(created), store.Time(started), store.Time(ended)
	if err := json.Unmarshal([]byte(req), &r.Request); err != nil {
		return r, err
	}
	return r, box.OpenJSON(fail, runPlace(r.ID), &r.Error)
}

func selectRun(ctx context.Context, q store.Querier, box *seal.Box, project, id string) (Run, error) {
	r, err := oneRun(q.QueryRow(ctx, `SELECT `+runColumns+` FROM pipeline_runs WHERE id = $1 AND project = $2`, id, project), box)
	return r, store.One(err, "pipeline run '"+id+"' in project '"+project+"'")
}

func selectRuns(ctx context.Context, q store.Querier, box *seal.Box, project, state string, before int64, limit int) ([]Run, error) {
	if before <= 0 {
		before = 1 << 62
	}
	return store.List(ctx, q, scanRun(box), `SELECT `+runColumns+` FROM pipeline_runs WHERE project = $1 AND seq < $2 AND ($3 = '' OR state = $3) ORDER BY seq DESC LIMIT $4`, project, before, state, limit)
}

func updateRun(ctx context.Context, tx *store.Tx, box *seal.Box, id string, state RunState, f *Failure) error {
	fail, err := box.SealJSON(f, runPlace(id))
	if err != nil {
		return err
	}
	now := store.Micros(time.Now())
	switch state {
	case Running:
		_, err = tx.Exec(ctx, `UPDATE pipeline_runs SET state = $1, started = CASE WHEN started = 0 THEN $2 ELSE started END WHERE id = $3 AND state IN ('waiting', 'running')`, string(state), now, id)
	default:
		_, err = tx.Exec(ctx, `UPDATE pipeline_runs SET state = $1, ended = $2, error = $3 WHERE id = $4 AND state IN ('waiting', 'running')`, string(state), now, fail, id)
	}
	return err
}

const stepColumns = `name, kind, state, needs, cache_hit, cache_key, cache_reason, started, ended, attempt, inputs, outputs, log, log_cut, error`

// startStep makes or restarts the row of a step.
func startStep(ctx context.Context, tx *store.Tx, run string, idx int, s Step) error {
	needs, err := text(s.Needs)
	if err != nil {
		return err
	}
	now := store.Micros(time.Now())
	_, err = tx.Exec(ctx, `INSERT INTO pipeline_steps (run, idx, `+stepColumns+`) VALUES ($1, $2, $3, $4, 'running', $5, FALSE, '', '', $6, 0, 1, '[]', '[]', '', FALSE, '')
ON CONFLICT (run, name) DO UPDATE SET state = 'running', started = $6, ended = 0, attempt = pipeline_steps.attempt + 1, error = ''`, run, idx, s.Name, s.Kind, needs, now)
	return err
}

func noteCache(ctx context.Context, tx *store.Tx, box *seal.Box, run string, s Step) error {
	reason, err := box.SealJSON(s.CacheReason, stepPlace(run, s.Name, "reason"))
	if err != nil {
		return err
	}
	inputs, err := text(s.Inputs)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE pipeline_steps SET cache_hit = $1, cache_key = $2, cache_reason = $3, inputs = $4 WHERE run = $5 AND name = $6`, s.CacheHit, s.CacheKey, reason, inputs, run, s.Name)
	return err
}

func endStep(ctx context.Context, tx *store.Tx, box *seal.Box, run string, s Step) error {
	outputs, err := text(s.Outputs)
	if err != nil {
		return err
	}
	fail, err := box.SealJSON(s.Error, stepPlace(run, s.Name, "error"))
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE pipeline_steps SET state = $1, ended = $2, outputs = $3, error = $4 WHERE run = $5 AND name = $6`, string(s.State), store.Micros(time.Now()), outputs, fail, run, s.Name)
	return err
}

func setLog(ctx context.Context, tx *store.Tx, box *seal.Box, run, name, log string, cut bool) error {
	log, err := box.SealText(log, stepPlace(run, name, "log"))
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE pipeline_steps SET log = $1, log_cut = $2 WHERE run = $3 AND name = $4`, log, cut, run, name)
	return err
}

func selectSteps(ctx context.Context, q store.Querier, box *seal.Box, run string) ([]Step, error) {
	scan := func(r store.Scanner) (Step, error) { return scanStep(r, box, run) }
	return store.List(ctx, q, scan, `SELECT `+stepColumns+` FROM pipeline_steps WHERE run = $1 ORDER BY idx, name`, run)
}

func scanStep(r store.Scanner, box *seal.Box, run string) (s Step, err error) {
	var state, needs, reason, inputs, outputs, log, fail string
	var started, ended int64
	if err := r.Scan(&s.Name, &s.Kind, &state, &needs, &s.CacheHit, &s.CacheKey, &reason, &started, &ended, &s.Attempt, &inputs, &outputs, &log, &s.LogCut, &fail); err != nil {
		return s, err
	}
	s.State, s.Started, s.Ended = RunState(state), store.Time(started), store.Time(ended)
	for _, f := range []struct {
		doc string
		to  any
	}{{needs, &s.Needs}, {inputs, &s.Inputs}, {outputs, &s.Outputs}} {
		if err := json.Unmarshal([]byte(f.doc), f.to); err != nil {
			return s, err
		}
	}
	if log != "" {
		if s.Log, err = box.OpenText(log, stepPlace(run, s.Name, "log")); err != nil {
			return s, err
		}
	}
	if err := box.OpenJSON(reason, stepPlace(run, s.Name, "reason"), &s.CacheReason); err != nil {
		return s, err
	}
	return s, box.OpenJSON(fail, stepPlace(run, s.Name, "error"), &s.Error)
}

func insertCache(ctx context.Context, tx *store.Tx, box *seal.Box, project, step, key string, e entry) error {
	seq, err := tx.Next(ctx, "step_cache")
	if err != nil {
		return err
	}
	inputs, err := text(e.inputs)
	if err != nil {
		return err
	}
	result, err := box.SealText(string(e.result), cachePlace(step, key))
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO step_cache (project, step, cache_key, seq, inputs, result, run, at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (project, step, cache_key) DO UPDATE SET seq = excluded.seq, result = excluded.result, run = excluded.run, at = excluded.at`,
		project, step, key, seq, inputs, result, e.run, store.Micros(time.Now()))
	return err
}

// selectCache is the entry of a key, and the newest entry of the step, which explains a miss.
func selectCache(ctx context.Context, q store.Querier, box *seal.Box, project, step, key string) (hit, last *entry, err error) {
	get := func(tail string, args ...any) (*entry, error) {
		var inputs, result, key string
		var e entry
		err := q.QueryRow(ctx, `SELECT inputs, result, run, cache_key FROM step_cache WHERE project = $1 AND step = $2 `+tail, args...).Scan(&inputs, &result, &e.run, &key)
		if store.NotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if result, err = box.OpenText(result, cachePlace(step, key)); err != nil {
			return nil, err
		}
		e.result = json.RawMessage(result)
		return &e, json.Unmarshal([]byte(inputs), &e.inputs)
	}
	if hit, err = get(`AND cache_key = $3`, project, step, key); err != nil {
		return nil, nil, err
	}
	last, err = get(`ORDER BY seq DESC LIMIT 1`, project, step)
	return hit, last, err
}

func upsertTrained(ctx context.Context, tx *store.Tx, t Trained) error {
	doc, err := text(t)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO trained (project, release, model, version, run, pipeline, apply_seq, doc) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (project, release) DO NOTHING`,
		t.Project, t.Release, t.Model, t.Version, t.Run, t.Pipeline, t.Apply, doc)
	return err
}

func selectTrained(ctx context.Context, q store.Querier, project, release string) (t Trained, err error) {
	var doc string
	err = q.QueryRow(ctx, `SELECT doc FROM trained WHERE project = $1 AND release = $2`, project, release).Scan(&doc)
	if store.NotFound(err) {
		return t, fault.New(fault.NotFound, "Release "+release+" was not made by a pipeline of this installation.", "Train it with `falaj run`, so that its data and features are known.")
	}
	if err != nil {
		return t, err
	}
	return t, json.Unmarshal([]byte(doc), &t)
}

// takeTrigger records that a trigger fires for a mark (event time in microseconds) and says whether it is new: at least gap after the last.
func takeTrigger(ctx context.Context, tx *store.Tx, project, model, name string, mark int64, gap time.Duration) (bool, error) {
	var last int64
	err := tx.QueryRow(ctx, `SELECT last FROM triggers WHERE project = $1 AND model = $2 AND name = $3`, project, model, name).Scan(&last)
	if err != nil && !store.NotFound(err) {
		return false, err
	}
	if err == nil && mark < last+gap.Microseconds() {
		return false, nil
	}
	_, err = tx.Exec(ctx, `INSERT INTO triggers (project, model, name, last) VALUES ($1, $2, $3, $4) ON CONFLICT (project, model, name) DO UPDATE SET last = excluded.last`, project, model, name, mark)
	return true, err
}

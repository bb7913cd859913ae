package delivery

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/note"
	"falaj/internal/store"
)

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "null"
	}
	return string(b)
}

func upsertPolicy(ctx context.Context, tx *store.Tx, project, model string, p Policy) error {
	_, err := tx.Exec(ctx, `INSERT INTO delivery_models (project, model, environments, gates, rollout) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (project, model) DO UPDATE SET environments = excluded.environments, gates = excluded.gates, rollout = excluded.rollout`, project, model, text(p.Environments), text(p.Gates), text(p.Rollout))
	return err
}

func selectPolicy(ctx context.Context, q store.Querier, project, model string) (p Policy, err error) {
	var envs, gates, rollout string
	err = q.QueryRow(ctx, `SELECT environments, gates, rollout FROM delivery_models WHERE project = $1 AND model = $2`, project, model).Scan(&envs, &gates, &rollout)
	if store.NotFound(err) {
		return Policy{Environments: DefaultEnvironments()}, nil
	}
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal([]byte(envs), &p.Environments); err != nil {
		return p, err
	}
	if err := json.Unmarshal([]byte(gates), &p.Gates); err != nil {
		return p, err
	}
	return p, json.Unmarshal([]byte(rollout), &p.Rollout)
}

func insertKey(ctx context.Context, tx *store.Tx, project, key, change string) error {
	_, err := tx.Exec(ctx, `INSERT INTO change_keys (project, idem, change_id) VALUES ($1, $2, $3)`, project, key, change)
	return err
}

func selectByKey(ctx context.Context, q store.Querier, project, key string) (string, bool, error) {
	var c string
	err := q.QueryRow(ctx, `SELECT change_id FROM change_keys WHERE project = $1 AND idem = $2`, project, key).Scan(&c)
	if store.NotFound(err) {
		return "", false, nil
	}
	return c, err == nil, err
}

const changeColumns = `id, project, seq, kind, verb, state, requester, author, model, environment, from_version, from_release, to_version, to_release, reason, note, gates, rollout, pipeline, created, updated`

func insertChange(ctx context.Context, tx *store.Tx, c Change) error {
	_, err := tx.Exec(ctx, `INSERT INTO changes (`+changeColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)`,
		c.ID, c.Project, c.Seq, c.Kind, c.Verb, string(c.State), c.Requester, c.Author, c.Model, c.Environment, c.FromVersion, c.FromRelease, c.ToVersion, c.ToRelease,
		c.Reason, text(c.Note), text(c.Gates), text(c.Rollout), c.Pipeline, store.Micros(c.Created), store.Micros(c.Updated))
	return err
}

func scanChange(r store.Scanner) (c Change, err error) {
	var state, n, gates, rollout string
	var created, updated int64
	if err = r.Scan(&c.ID, &c.Project, &c.Seq, &c.Kind, &c.Verb, &state, &c.Requester, &c.Author, &c.Model, &c.Environment, &c.FromVersion, &c.FromRelease,
		&c.ToVersion, &c.ToRelease, &c.Reason, &n, &gates, &rollout, &c.Pipeline, &created, &updated); err != nil {
		return c, err
	}
	c.State, c.Created, c.Updated = State(state), store.Time(created), store.Time(updated)
	if err := json.Unmarshal([]byte(n), &c.Note); err != nil {
		return c, err
	}
	if err := json.Unmarshal([]byte(gates), &c.Gates); err != nil {
		return c, err
	}
	return c, json.Unmarshal([]byte(rollout), &c.Rollout)
}

func selectChange(ctx context.Context, q store.Querier, project, id string) (Change, error) {
	c, err := scanChange(q.QueryRow(ctx, `SELECT `+changeColumns+` FROM changes WHERE id = $1 AND project = $2`, id, project))
	return c, store.One(err, "change '"+id+"' in project '"+project+"'")
}

func selectChanges(ctx context.Context, q store.Querier, project string, f Filter) ([]Change, error) {
	if f.Limit <= 0 || f.Limit > 1000 {
		f.Limit = 100
	}
	if f.Before <= 0 {
		f.Before = 1 << 62
	}
	return store.List(ctx, q, scanChange, `SELECT `+changeColumns+` FROM changes WHERE project = $1 AND seq < $2 AND ($3 = '' OR model = $3) AND ($4 = '' OR state = $4) ORDER BY seq DESC LIMIT $5`,
		project, f.Before, f.Model, string(f.State), f.Limit)
}

// selectOpen is a change of the environment that is not finished, or "".
func selectOpen(ctx context.Context, q store.Querier, project, model, environment string) (string, error) {
	var c string
	err := q.QueryRow(ctx, `SELECT id FROM changes WHERE project = $1 AND model = $2 AND environment = $3 AND state IN ('assessing', 'pending_approval', 'approved', 'implementing', 'rolling_out') ORDER BY seq LIMIT 1`,
		project, model, environment).Scan(&c)
	if store.NotFound(err) {
		return "", nil
	}
	return c, err
}

func updateState(ctx context.Context, tx *store.Tx, c Change) error {
	_, err := tx.Exec(ctx, `UPDATE changes SET state = $1, note = $2, updated = $3 WHERE id = $4`, string(c.State), text(c.Note), store.Micros(time.Now()), c.ID)
	return err
}

func selectDetail(ctx context.Context, q store.Querier, project, id string) (d Detail, err error) {
	if d.Change, err = selectChange(ctx, q, project, id); err != nil {
		return d, err
	}
	if d.Evidence, err = selectEvidence(ctx, q, id); err != nil {
		return d, err
	}
	if d.Approvals, err = selectApprovals(ctx, q, id); err != nil {
		return d, err
	}
	d.Events, err = selectSteps(ctx, q, id)
	return d, err
}

// upsertEvidence says whether it was the first for this gate.
func upsertEvidence(ctx context.Context, tx *store.Tx, change string, idx int, e Evidence) (bool, error) {
	n, err := tx.Exec(ctx, `UPDATE change_evidence SET verdict = $1, evidence = $2, digest = $3 WHERE change_id = $4 AND idx = $5`, string(e.Verdict), text(e), e.Digest, change, idx)
	if err != nil || n > 0 {
		return false, err
	}
	_, err = tx.Exec(ctx, `INSERT INTO change_evidence (change_id, idx, verdict, evidence, digest) VALUES ($1, $2, $3, $4, $5)`, change, idx, string(e.Verdict), text(e), e.Digest)
	return true, err
}

func selectEvidence(ctx context.Context, q store.Querier, change string) ([]Evidence, error) {
	scan := func(r store.Scanner) (e Evidence, err error) {
		var s string
		if err = r.Scan(&s); err == nil {
			err = json.Unmarshal([]byte(s), &e)
		}
		return e, err
	}
	return store.List(ctx, q, scan, `SELECT evidence FROM change_evidence WHERE change_id = $1 ORDER BY idx`, change)
}

func insertApproval(ctx context.Context, tx *store.Tx, change string, a Approval) error {
	_, err := tx.Exec(ctx, `INSERT INTO change_approvals (change_id, actor, decision, comment, at) VALUES ($1, $2, $3, $4, $5)`, change, a.Actor, a.Decision, a.Comment, store.Micros(a.At))
	if store.Unique(err) {
		return fault.New(fault.Conflict, "You have decided this change already.", "")
	}
	return err
}

func selectApprovals(ctx context.Context, q store.Querier, change string) ([]Approval, error) {
	scan := func(r store.Scanner) (a Approval, err error) {
		var at int64
		err = r.Scan(&a.Actor, &a.Decision, &a.Comment, &at)
		a.At = store.Time(at)
		return a, err
	}
	return store.List(ctx, q, scan, `SELECT actor, decision, comment, at FROM change_approvals WHERE change_id = $1 ORDER BY at`, change)
}

func insertStep(ctx context.Context, tx *store.Tx, change, actor, kind string, n note.Note) error {
	_, err := tx.Exec(ctx, `INSERT INTO change_events (change_id, seq, at, actor, type, note) VALUES ($1, (SELECT COALESCE(MAX(seq), 0) + 1 FROM change_events WHERE change_id = $1), $2, $3, $4, $5)`,
		change, store.Micros(time.Now()), actor, kind, text(n))
	return err
}

func selectSteps(ctx context.Context, q store.Querier, change string) ([]Step, error) {
	scan := func(r store.Scanner) (s Step, err error) {
		var at int64
		var n string
		if err = r.Scan(&at, &s.Actor, &s.Type, &n); err != nil {
			return s, err
		}
		s.At = store.Time(at)
		return s, json.Unmarshal([]byte(n), &s.Note)
	}
	return store.List(ctx, q, scan, `SELECT at, actor, type, note FROM change_events WHERE change_id = $1 ORDER BY seq`, change)
}

const pointerColumns = `project, model, environment, role, version, release, weight, since, event_at, actor, change_id`

func upsertPointer(ctx context.Context, tx *store.Tx, p Pointer) error {
	_, err := tx.Exec(ctx, `INSERT INTO pointers (`+pointerColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (project, model, environment, role) DO UPDATE SET version = excluded.version, release = excluded.release, weight = excluded.weight, since = excluded.since, event_at = excluded.event_at, actor = excluded.actor, change_id = excluded.change_id`,
		p.Project, p.Model, p.Environment, p.Role, p.Version, p.Release, p.Weight, store.Micros(p.Since), store.Micros(p.EventAt), p.Actor, p.Change)
	return err
}

func setWeight(ctx context.Context, tx *store.Tx, c Change, role string, weight int64) error {
	_, err := tx.Exec(ctx, `UPDATE pointers SET weight = $1 WHERE project = $2 AND model = $3 AND environment = $4 AND role = $5`, weight, c.Project, c.Model, c.Environment, role)
	return err
}

// deletePointer removes a role when it holds the release, or whatever it holds with release "".
func deletePointer(ctx context.Context, tx *store.Tx, c Change, role, release string) error {
	_, err := tx.Exec(ctx, `DELETE FROM pointers WHERE project = $1 AND model = $2 AND environment = $3 AND role = $4 AND ($5 = '' OR release = $5)`, c.Project, c.Model, c.Environment, role, release)
	return err
}

// selectPointer is the zero Pointer when the role is empty.
func selectPointer(ctx context.Context, q store.Querier, project, model, environment, role string) (Pointer, error) {
	p, err := scanPointer(q.QueryRow(ctx, `SELECT `+pointerColumns+` FROM pointers WHERE project = $1 AND model = $2 AND environment = $3 AND role = $4`, project, model, environment, role))
	if store.NotFound(err) {
		return Pointer{}, nil
	}
	return p, err
}

func scanPointer(r store.Scanner) (p Pointer, err error) {
	var since, eventAt int64
	err = r.Scan(&p.Project, &p.Model, &p.Environment, &p.Role, &p.Version, &p.Release, &p.Weight, &since, &eventAt, &p.Actor, &p.Change)
	p.Since, p.EventAt = store.Time(since), store.Time(eventAt)
	return p, err
}

func selectEnvironment(ctx context.Context, q store.Querier, project, model, environment string) ([]Pointer, error) {
	return pointers(ctx, q, `WHERE project = $1 AND model = $2 AND environment = $3 ORDER BY role`, project, model, environment)
}

func selectPointers(ctx context.Context, q store.Querier, project, model string) ([]Pointer, error) {
	return pointers(ctx, q, `WHERE ($1 = '' OR project = $1) AND ($2 = '' OR model = $2) ORDER BY project, model, environment, role`, project, model)
}

func pointers(ctx context.Context, q store.Querier, tail string, args ...any) ([]Pointer, error) {
	return store.List(ctx, q, scanPointer, `SELECT `+pointerColumns+` FROM pointers `+tail, args...)
}

func insertMove(ctx context.Context, tx *store.Tx, project, model string, m Move) error {
	seq, err := tx.Next(ctx, "pointer_history")
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO pointer_history (project, model, `+moveColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`,
		project, model, seq, store.Micros(m.At), store.Micros(m.EventAt), m.Actor, m.Environment, m.Kind, m.FromVersion, m.FromRelease, m.ToVersion, m.ToRelease, m.Change, text(m.Reason))
	return err
}

func everIn(ctx context.Context, q store.Querier, project, model, environment, release string) (bool, error) {
	var n int64
	err := q.QueryRow(ctx, `SELECT COUNT(*) FROM pointer_history WHERE project = $1 AND model = $2 AND environment = $3 AND to_release = $4 AND kind IN ('promote', 'rollback')`, project, model, environment, release).Scan(&n)
	return n > 0, err
}

func hasMove(ctx context.Context, q store.Querier, change, kind string) (bool, error) {
	var n int64
	err := q.QueryRow(ctx, `SELECT COUNT(*) FROM pointer_history WHERE change_id = $1 AND kind = $2`, change, kind).Scan(&n)
	return n > 0, err
}

const moveColumns = `seq, at, event_at, actor, environment, kind, from_version, from_release, to_version, to_release, change_id, reason`

func scanMove(r store.Scanner) (m Move, err error) {
	var at, eventAt int64
	var reason string
	if err = r.Scan(&m.Seq, &at, &eventAt, &m.Actor, &m.Environment, &m.Kind, &m.FromVersion, &m.FromRelease, &m.ToVersion, &m.ToRelease, &m.Change, &reason); err != nil {
		return m, err
	}
	m.At, m.EventAt = store.Time(at), store.Time(eventAt)
	return m, json.Unmarshal([]byte(reason), &m.Reason)
}

func selectMoves(ctx context.Context, q store.Querier, project, model string) ([]Move, error) {
	return store.List(ctx, q, scanMove, `SELECT `+moveColumns+` FROM pointer_history WHERE project = $1 AND model = $2 ORDER BY seq`, project, model)
}

// selectEarlier is the last time another release was the champion here, or version's when it is not 0.
func selectEarlier(ctx context.Context, q store.Querier, project, model, environment string, now Pointer, version int64) (Move, error) {
	m, err := scanMove(q.QueryRow(ctx, `SELECT `+moveColumns+` FROM pointer_history WHERE project = $1 AND model = $2 AND environment = $3 AND kind IN ('promote', 'rollback')
AND to_release <> $4 AND ($5 = 0 OR to_version = $5) ORDER BY seq DESC LIMIT 1`, project, model, environment, now.Release, version))
	if store.NotFound(err) {
		what := "no earlier release of " + model
		if version != 0 {
			what = fmt.Sprintf("%s@%d was never the champion", model, version)
		}
		return m, fault.New(fault.NotFound, fmt.Sprintf("There is nothing to roll back to in %s: %s.", environment, what), "falaj status "+project+"/"+model+" shows what served when.")
	}
	return m, err
}

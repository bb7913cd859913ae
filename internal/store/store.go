// Package store is the one way to change state: policy, change, hash-chained ledger row and outbox event in one transaction.
// One SQL text runs on SQLite and PostgreSQL; the folders below it open the two databases.
package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/id"
	"falaj/internal/kernel/ledger"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
)

// Driver is what a database does beside the shared SQL. When Commit-ed work is acknowledged it must survive kill -9 and power loss.
type Driver interface {
	Name() string
	Writer() *sql.DB
	Reader() *sql.DB
	// Serial says that one goroutine must do all writing (SQLite), which gives group commit.
	Serial() bool
	// LockChain serialises changes so that ledger order is commit order.
	LockChain(ctx context.Context, tx *sql.Tx) error
	// Snapshot copies the database to path before a migration; drivers without a file return "".
	Snapshot(ctx context.Context, path string) (string, error)
	Close() error
}

// Querier is what both a write transaction and a read view can do.
type Querier interface {
	Query(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRow(ctx context.Context, query string, args ...any) *sql.Row
}

// Authorizer answers whether the actor in ctx may do the action. It reads roles through q, inside the same transaction.
type Authorizer interface {
	Authorize(ctx context.Context, q Querier, action policy.Action, res policy.Resource) (policy.Decision, error)
}

// Store is the governed database. It is safe for concurrent use.
type Store struct {
	driver Driver
	auth   Authorizer
	log    *slog.Logger
	jobs   chan *job
	done   chan struct{}

	mu     sync.Mutex // guards wake and closed
	wake   chan struct{}
	closed bool
	inUse  sync.WaitGroup // callers that may still send to jobs
}

// Open migrates the database and starts the writer. snapshotDir receives a copy before a migration of a database that holds data.
func Open(ctx context.Context, d Driver, auth Authorizer, snapshotDir string, log *slog.Logger) (*Store, error) {
	all, err := migrations()
	if err != nil {
		return nil, err
	}
	if err := migrate(ctx, d, all, snapshotDir, log); err != nil {
		d.Close()
		return nil, err
	}
	s := &Store{driver: d, auth: auth, log: log, jobs: make(chan *job, 256), done: make(chan struct{}), wake: make(chan struct{})}
	if d.Serial() {
		go s.writer()
	} else {
		close(s.done)
	}
	return s, nil
}

// Close waits for running writes and closes the database.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.inUse.Wait()
	close(s.jobs)
	<-s.done
	return s.driver.Close()
}

// Name is the driver's: sqlite or postgres.
func (s *Store) Name() string { return s.driver.Name() }

// Ping answers whether the database can be read.
func (s *Store) Ping(ctx context.Context) error {
	return fault.Wrap(s.driver.Reader().PingContext(ctx), fault.Unavailable, "The database does not answer.", "")
}

// Change is the one way to change state. It asks policy, runs fn, appends the ledger row and the outbox event, all in one
// transaction; if any of it fails nothing of it stays. fn does SQL only and may run again after a lost race, so it must not
// keep what an earlier call computed. With a ctx handed to fn by another Change it joins that transaction.
// A refusal is kept as a ledger row of its own and returned as fault.Denied with the reasons. fn returns ErrUnchanged when
// what is asked for is so already: then Change gives nil and records nothing, for there is no row without a change.
func (s *Store) Change(ctx context.Context, action policy.Action, res policy.Resource, fn func(ctx context.Context, tx *Tx) (event.Draft, error)) error {
	one := func(ctx context.Context, tx *Tx) error { return s.change(ctx, tx, action, res, fn) }
	if tx := current(ctx, s); tx != nil {
		return one(ctx, tx)
	}
	return s.outer(ctx, true, one)
}

// outer runs the outermost transaction, then does what must follow it: refusals get rows of their own, waiters wake.
func (s *Store) outer(ctx context.Context, chain bool, fn func(context.Context, *Tx) error) error {
	st := &state{}
	err := s.run(ctx, chain, st, fn)
	for _, d := range st.denials {
		if e := s.Deny(d.ctx, d.action, d.res, d.decision); e != nil {
			s.log.Error("a refusal could not be recorded", "action", d.action, "err", e)
		}
	}
	if err == nil && st.announced {
		s.broadcast()
	}
	return err
}

func (s *Store) change(ctx context.Context, tx *Tx, action policy.Action, res policy.Resource, fn func(context.Context, *Tx) (event.Draft, error)) error {
	dec, err := s.auth.Authorize(ctx, tx, action, res)
	if err != nil {
		return err
	}
	if !dec.Allow {
		tx.st.denials = append(tx.st.denials, denial{ctx, action, res, dec})
		return Denied(ctx, action, res, dec)
	}
	mark := tx.before
	markAfter := tx.after
	tx.before, tx.after = "", ""
	draft, err := fn(ctx, tx)
	before, after := tx.before, tx.after
	tx.before, tx.after = mark, markAfter
	if errors.Is(err, ErrUnchanged) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.chain(ctx, tx); err != nil {
		return err
	}
	return tx.record(ctx, action, res, dec, draft, before, after)
}

// chain takes the lock of the ledger where the outer transaction began as a Write.
func (s *Store) chain(ctx context.Context, tx *Tx) error {
	if tx.chained || tx.serial {
		return nil
	}
	tx.chained = true
	return s.driver.LockChain(ctx, tx.tx)
}

// Denied is the fault of a refusal: which action, why, and which role would allow it.
func Denied(ctx context.Context, action policy.Action, res policy.Resource, dec policy.Decision) error {
	actor := who.From(ctx)
	if actor.Kind == who.Anonymous && actor.Via != "open" {
		return fault.New(fault.Unauthenticated, fmt.Sprintf("%s needs a signed-in caller.", action), "")
	}
	why := ""
	for _, r := range dec.Reasons {
		why += " " + r.Text
	}
	next := fmt.Sprintf("`falaj policy why %s %s` shows the whole decision.", action, res.String())
	if len(dec.Missing) > 0 {
		next = fmt.Sprintf("Ask an admin of the project for the role %s; %s", orList(dec.Missing), next)
	}
	return fault.New(fault.Denied, fmt.Sprintf("%s may not %s on %s.%s", actor, action, res.String(), why), next)
}

func orList(roles []policy.Role) string {
	s := ""
	for i, r := range roles {
		if i > 0 {
			s += " or "
		}
		s += string(r)
	}
	return s
}

// Deny records a refusal that has no change to ride on (a denied read, a failed sign-in).
func (s *Store) Deny(ctx context.Context, action policy.Action, res policy.Resource, dec policy.Decision) error {
	dec.Allow = false
	return s.run(context.WithoutCancel(ctx), true, &state{}, func(ctx context.Context, tx *Tx) error {
		return tx.record(ctx, action, res, dec, event.Draft{}, "", "")
	})
}

// Authorize asks policy without changing anything: for reads and for pages that show what is allowed.
func (s *Store) Authorize(ctx context.Context, action policy.Action, res policy.Resource) (policy.Decision, error) {
	if tx := current(ctx, s); tx != nil {
		return s.auth.Authorize(ctx, tx, action, res)
	}
	dec, err := s.auth.Authorize(ctx, reader{s.driver.Reader()}, action, res)
	return dec, classify(err)
}

// Write stores high-rate data (metric points, prediction indexes, cursors) durably without a ledger row.
// The caller has authorized it. Inside a Change it joins that transaction, and a Change inside it joins this one.
func (s *Store) Write(ctx context.Context, fn func(ctx context.Context, tx *Tx) error) error {
	if tx := current(ctx, s); tx != nil {
		return fn(ctx, tx)
	}
	return s.outer(ctx, false, fn)
}

// View reads. Inside a Change it sees that transaction; else one snapshot.
func (s *Store) View(ctx context.Context, fn func(ctx context.Context, q Querier) error) error {
	if tx := current(ctx, s); tx != nil {
		return fn(ctx, tx)
	}
	t, err := s.driver.Reader().BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: s.viewIsolation()})
	if err != nil {
		return fault.Wrap(classify(err), fault.Unavailable, "The database could not be read.", "")
	}
	defer t.Rollback()
	return classify(fn(ctx, reader{t}))
}

func (s *Store) viewIsolation() sql.IsolationLevel {
	if s.driver.Serial() {
		return sql.LevelDefault
	}
	return sql.LevelRepeatableRead
}

// Events reads the outbox in order, after a sequence number.
func (s *Store) Events(ctx context.Context, after int64, limit int) ([]event.Event, error) {
	var out []event.Event
	err := s.View(ctx, func(ctx context.Context, q Querier) error {
		rows, err := q.Query(ctx, `SELECT seq, id, type, source, subject, project, time, data FROM outbox WHERE seq > $1 ORDER BY seq LIMIT $2`, after, limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var e event.Event
			var us int64
			var data string
			if err := rows.Scan(&e.Seq, &e.ID, &e.Type, &e.Source, &e.Subject, &e.Project, &us, &data); err != nil {
				return err
			}
			e.Time, e.Data = Time(us), json.RawMessage(data)
			out = append(out, e)
		}
		return rows.Err()
	})
	return out, err
}

// Latest gives the newest event of each of the types in a project, by type; types without one are absent. Time is when it was
// recorded, also where the event tells of another time.
func (s *Store) Latest(ctx context.Context, project string, types []string) (map[string]event.Event, error) {
	out := map[string]event.Event{}
	err := s.View(ctx, func(ctx context.Context, q Querier) error {
		clear(out)
		for _, kind := range types {
			var e event.Event
			var us int64
			var data string
			err := q.QueryRow(ctx, `SELECT o.seq, o.id, o.type, o.source, o.subject, o.project, l.time, o.data FROM outbox o JOIN ledger l ON l.event_id = o.id
WHERE o.project = $1 AND o.type = $2 ORDER BY o.seq DESC LIMIT 1`, project, kind).Scan(&e.Seq, &e.ID, &e.Type, &e.Source, &e.Subject, &e.Project, &us, &data)
			if errors.Is(err, sql.ErrNoRows) {
				continue
			}
			if err != nil {
				return err
			}
			e.Time, e.Data = Time(us), json.RawMessage(data)
			out[kind] = e
		}
		return nil
	})
	return out, err
}

// Wake returns a channel that is closed when the next event is committed by this process.
func (s *Store) Wake() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wake
}

func (s *Store) broadcast() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.wake)
	s.wake = make(chan struct{})
}

// Head is the sequence of the newest ledger row and of the newest event.
func (s *Store) Head(ctx context.Context) (row, event int64, err error) {
	err = s.View(ctx, func(ctx context.Context, q Querier) error {
		return q.QueryRow(ctx, `SELECT seq, outbox FROM ledger_head WHERE id = 1`).Scan(&row, &event)
	})
	return row, event, err
}

// Entries reads audit rows after seq, oldest first.
func (s *Store) Entries(ctx context.Context, after int64, limit int) ([]ledger.Row, error) {
	return s.entries(ctx, `WHERE seq > $1 ORDER BY seq LIMIT $2`, after, limit)
}

// Recent reads the newest audit rows before seq (0: from the end), newest first, of a project or ("") of all;
// action and actor narrow when not empty.
func (s *Store) Recent(ctx context.Context, project, action, actor string, before int64, limit int) ([]ledger.Row, error) {
	if before <= 0 {
		before = 1 << 62
	}
	return s.entries(ctx, `WHERE seq < $1 AND ($2 = '' OR project = $2) AND ($3 = '' OR action = $3) AND ($4 = '' OR actor = $4) ORDER BY seq DESC LIMIT $5`,
		before, project, action, actor, limit)
}

func (s *Store) entries(ctx context.Context, tail string, args ...any) ([]ledger.Row, error) {
	var out []ledger.Row
	err := s.View(ctx, func(ctx context.Context, q Querier) error {
		rows, err := q.Query(ctx, `SELECT seq, prev, hash, time, project, actor, on_behalf_of, via, action, resource, decision, reasons, before_digest, after_digest, event, request FROM ledger `+tail, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r ledger.Row
			var reasons string
			if err := rows.Scan(&r.Seq, &r.Prev, &r.Hash, &r.Time, &r.Project, &r.Actor, &r.OnBehalfOf, &r.Via, &r.Action, &r.Resource, &r.Decision, &reasons, &r.Before, &r.After, &r.Event, &r.Request); err != nil {
				return err
			}
			if err := json.Unmarshal([]byte(reasons), &r.Reasons); err != nil {
				r.Reasons = []string{reasons} // a damaged row: verification names it by its hash
			}
			out = append(out, r)
		}
		return rows.Err()
	})
	return out, err
}

// Micros is the database form of a time: microseconds UTC; the zero time is 0.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Time is the inverse of Micros.
func Time(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// NotFound says whether err is a query that found no row.
func NotFound(err error) bool { return errors.Is(err, sql.ErrNoRows) }

type requestKey struct{}

// WithRequest puts the request id into ctx; it is kept in ledger rows.
func WithRequest(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestKey{}, id)
}

// RequestID is the request id of ctx, or "".
func RequestID(ctx context.Context) string {
	s, _ := ctx.Value(requestKey{}).(string)
	return s
}

// record appends the ledger row and the outbox event of one change.
func (tx *Tx) record(ctx context.Context, action policy.Action, res policy.Resource, dec policy.Decision, d event.Draft, before, after string) error {
	var seq, outbox int64
	var prev string
	if err := tx.QueryRow(ctx, `SELECT seq, hash, outbox FROM ledger_head WHERE id = 1`).Scan(&seq, &prev, &outbox); err != nil {
		return err
	}
	now := time.Now()
	eventID, eventRef := "", ""
	if d.Type != "" {
		outbox++
		eventID = id.New("evt")
		data, err := json.Marshal(d.Data)
		if err != nil {
			return fmt.Errorf("event %s: %w", d.Type, err)
		}
		source := "/falaj"
		if res.Project != "" {
			source = "/falaj/p/" + res.Project
		}
		at := d.At
		if at.IsZero() {
			at = now
		}
		if _, err := tx.Exec(ctx, `INSERT INTO outbox (seq, id, type, source, subject, project, time, data) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
			outbox, eventID, d.Type, source, d.Subject, res.Project, Micros(at), string(data)); err != nil {
			return err
		}
		// The row names the event and its data's digest, so that an edited event breaks the chain's promise too.
		eventRef = eventID + ":" + ledger.Digest(json.RawMessage(data))
		tx.st.announced = true
	}
	actor := who.From(ctx)
	row := ledger.Row{Seq: seq + 1, Prev: prev, Time: Micros(now), Project: res.Project, Actor: actor.String(), OnBehalfOf: actor.OnBehalfOf, Via: actor.Via,
		Action: string(action), Resource: res.String(), Decision: "allow", Before: before, After: after, Event: eventRef, Request: RequestID(ctx)}
	if !dec.Allow {
		row.Decision = "deny"
	}
	for _, r := range dec.Reasons {
		row.Reasons = append(row.Reasons, r.Policy)
	}
	row.Hash = row.Sum()
	reasons, err := json.Marshal(row.Reasons)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `INSERT INTO ledger (seq, prev, hash, time, project, actor, on_behalf_of, via, action, resource, decision, reasons, before_digest, after_digest, event, event_id, request)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)`,
		row.Seq, row.Prev, row.Hash, row.Time, row.Project, row.Actor, row.OnBehalfOf, row.Via, row.Action, row.Resource, row.Decision, string(reasons), row.Before, row.After, row.Event, eventID, row.Request); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE ledger_head SET seq = $1, hash = $2, outbox = $3 WHERE id = 1`, row.Seq, row.Hash, outbox)
	return err
}

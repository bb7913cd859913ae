package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/ledger"
	"falaj/internal/kernel/policy"
)

// Tx is one write transaction. It is used by one goroutine, inside the function it was given to.
type Tx struct {
	tx      *sql.Tx
	serial  bool
	chained bool // holds the lock of the ledger
	st      *state
	before  string
	after   string
}

// state is what one outermost write gathers beside the database.
type state struct {
	denials   []denial
	announced bool
}

type denial struct {
	ctx      context.Context
	action   policy.Action
	res      policy.Resource
	decision policy.Decision
}

// detach keeps a cancelled request from interrupting SQLite inside a transaction that other requests share:
// an interrupted write there rolls the whole transaction back (sqlite.org/c3ref/interrupt.html).
func (tx *Tx) detach(ctx context.Context) context.Context {
	if tx.serial {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

// Exec runs a statement and returns the rows affected.
func (tx *Tx) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	r, err := tx.tx.ExecContext(tx.detach(ctx), query, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// Query runs a query.
func (tx *Tx) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return tx.tx.QueryContext(tx.detach(ctx), query, args...)
}

// QueryRow runs a query of at most one row.
func (tx *Tx) QueryRow(ctx context.Context, query string, args ...any) *sql.Row {
	return tx.tx.QueryRowContext(tx.detach(ctx), query, args...)
}

// Next takes the next number of a named counter, from 1.
func (tx *Tx) Next(ctx context.Context, name string) (int64, error) {
	var v int64
	err := tx.QueryRow(ctx, `INSERT INTO counters (name, value) VALUES ($1, 1) ON CONFLICT (name) DO UPDATE SET value = counters.value + 1 RETURNING value`, name).Scan(&v)
	return v, err
}

// Before keeps the digest of the state before the change in the ledger row.
func (tx *Tx) Before(v any) { tx.before = ledger.Digest(v) }

// After keeps the digest of the state after the change in the ledger row.
func (tx *Tx) After(v any) { tx.after = ledger.Digest(v) }

type reader struct {
	db interface {
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
		QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	}
}

func (r reader) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return r.db.QueryContext(ctx, query, args...)
}

func (r reader) QueryRow(ctx context.Context, query string, args ...any) *sql.Row {
	return r.db.QueryRowContext(ctx, query, args...)
}

type txKey struct{ s *Store }

func current(ctx context.Context, s *Store) *Tx {
	tx, _ := ctx.Value(txKey{s}).(*Tx)
	return tx
}

type job struct {
	ctx   context.Context
	chain bool
	st    *state
	fn    func(context.Context, *Tx) error
	err   error
	panic any
	done  chan struct{}
}

// run does fn in one durable transaction. On SQLite the one writer groups what waits; on PostgreSQL each has its own.
func (s *Store) run(ctx context.Context, chain bool, st *state, fn func(context.Context, *Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fault.New(fault.Unavailable, "The server is stopping.", "")
	}
	s.inUse.Add(1)
	s.mu.Unlock()
	defer s.inUse.Done()
	if !s.driver.Serial() {
		return s.runOwn(ctx, chain, st, fn)
	}
	j := &job{ctx: ctx, chain: chain, st: st, fn: fn, done: make(chan struct{})}
	s.jobs <- j
	<-j.done // not ctx.Done(): the caller must know whether the change happened
	if j.panic != nil {
		panic(j.panic)
	}
	return j.err
}

const maxGroup = 256

// writer is the only goroutine that writes to SQLite. It takes what is queued, runs each in a savepoint and commits once,
// so that one fsync serves all who wait.
func (s *Store) writer() {
	defer close(s.done)
	for first := range s.jobs {
		group := []*job{first}
	fill:
		for len(group) < maxGroup {
			select {
			case j, ok := <-s.jobs:
				if !ok {
					break fill
				}
				group = append(group, j)
			default:
				break fill
			}
		}
		s.commit(group)
		for _, j := range group {
			close(j.done)
		}
	}
}

func (s *Store) commit(group []*job) {
	fail := func(err error, jobs []*job) {
		for _, j := range jobs {
			if j.err == nil {
				j.err = classify(err)
			}
		}
	}
	bg := context.Background()
	t, err := s.driver.Writer().BeginTx(bg, nil)
	if err != nil {
		fail(err, group)
		return
	}
	for i, j := range group {
		if err := j.ctx.Err(); err != nil {
			j.err = err
			continue
		}
		if _, err := t.ExecContext(bg, `SAVEPOINT one`); err != nil {
			t.Rollback()
			fail(err, group)
			return
		}
		j.err = s.call(j, t)
		undo := `RELEASE one`
		if j.err != nil || j.panic != nil {
			j.err = classify(j.err)
			j.st.announced = false
			undo = `ROLLBACK TO one; RELEASE one`
		}
		if _, err := t.ExecContext(bg, undo); err != nil {
			// The whole transaction is gone (disk full, I/O error): nobody in it may be told that it worked.
			t.Rollback()
			cause := err
			if j.err != nil {
				cause = j.err
			}
			fail(cause, group[:i+1])
			fail(cause, group[i+1:])
			return
		}
	}
	if err := t.Commit(); err != nil {
		t.Rollback()
		fail(err, group)
	}
}

func (s *Store) call(j *job, t *sql.Tx) (err error) {
	defer func() { j.panic = recover() }()
	tx := &Tx{tx: t, serial: true, st: j.st}
	return j.fn(context.WithValue(j.ctx, txKey{s}, tx), tx)
}

// runOwn is PostgreSQL's way: an own transaction, again after a serialisation failure.
func (s *Store) runOwn(ctx context.Context, chain bool, st *state, fn func(context.Context, *Tx) error) error {
	for attempt := 0; ; attempt++ {
		*st = state{}
		err := s.tryOwn(ctx, chain, st, fn)
		if err == nil || attempt >= 5 || !lostRace(err) {
			if err != nil {
				st.announced = false
			}
			return classify(err)
		}
	}
}

func (s *Store) tryOwn(ctx context.Context, chain bool, st *state, fn func(context.Context, *Tx) error) error {
	t, err := s.driver.Writer().BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer t.Rollback()
	if chain {
		if err := s.driver.LockChain(ctx, t); err != nil {
			return err
		}
	}
	tx := &Tx{tx: t, chained: chain, st: st}
	if err := fn(context.WithValue(ctx, txKey{s}, tx), tx); err != nil {
		return err
	}
	err = t.Commit()
	if gone(err) {
		return fault.Wrap(away{err}, fault.Unavailable, "The database went away while it was keeping the change: it may be there or not.", "Look whether it is there, then try again.")
	}
	return err
}

// sqlState is implemented by pgx's error.
type sqlState interface{ SQLState() string }

func lostRace(err error) bool {
	var st sqlState
	return errors.As(err, &st) && (st.SQLState() == "40001" || st.SQLState() == "40P01")
}

// classify gives database failures that a person can act on their public words; others pass.
func classify(err error) error {
	var e *fault.E
	if err == nil || errors.As(err, &e) {
		return err
	}
	if err := Lost(err); Away(err) {
		return err
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "database or disk is full"), strings.Contains(text, "No space left"), strings.Contains(text, "no space left"):
		return fault.Wrap(err, fault.Unavailable, "The disk is full: nothing was changed.", "Free space on the volume of the data directory, then try again.")
	case strings.Contains(text, "readonly database"), strings.Contains(text, "attempt to write a readonly"):
		return fault.Wrap(err, fault.Unavailable, "The database cannot be written.", "Check the owner and mode of the data directory; `falaj doctor` names it.")
	case strings.Contains(text, "disk I/O error"):
		return fault.Wrap(err, fault.Unavailable, "The disk reported an error: nothing was changed.", "Check the volume of the data directory.")
	}
	return err
}

// Unique says whether err is the violation of a unique or primary key, on either database.
func Unique(err error) bool {
	var st sqlState
	if errors.As(err, &st) {
		return st.SQLState() == "23505"
	}
	return err != nil && strings.Contains(err.Error(), "UNIQUE constraint failed")
}

// One scans a single row or says what is not there. what is shown to people, such as "model 'delay'".
func One(err error, what string) error {
	if NotFound(err) {
		return fault.New(fault.NotFound, fmt.Sprintf("There is no %s.", what), "")
	}
	return err
}

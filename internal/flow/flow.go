// Package flow runs durable workflows: each step's result is recorded once, and a run goes on by itself after a kill, a restart or an upgrade.
// It also carries the outbox on: every recorded event reaches the subscribers in this process and the signed webhooks outside, at least once and in order.
package flow

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
	_ "github.com/dbos-inc/dbos-transact-golang/dbos/driver/sqlite" // the engine's pure Go SQLite dialect

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
	"falaj/internal/kernel/who"
)

// Config opens an engine. Exactly one of Path and PostgresDSN is set.
type Config struct {
	Path        string // SQLite file, e.g. DATA/flow.db; one process per file (the caller holds the file lock)
	PostgresDSN string // the same code on PostgreSQL, for several replicas
	Executor    string // stable name of this replica, e.g. "main" or a StatefulSet ordinal; a restart recovers its own runs

	// SchemaVersion is the version of the workflows' shape, never of the binary: a run goes on only under the
	// version it was started with, so raise it when a workflow changes in a way that Run.Patched cannot bridge.
	SchemaVersion string
	// Accepts lists older schema versions whose runs this code can still finish; they are adopted at Launch.
	Accepts []string

	Sweep     time.Duration // how often stranded runs are looked for; 0 means 15 s
	LeaseWait time.Duration // how long to wait for the executor's lease on PostgreSQL; 0 means 10 s
	Log       *slog.Logger

	// Box seals what runs record: inputs, results, signals and faults. nil leaves them readable.
	Box *seal.Box
}

// Workflow is the body of a durable workflow. It must be deterministic: everything that reads a clock, a database or
// the network happens in a Step. It may run many times, its steps' recorded results are replayed.
type Workflow func(c *Run, input json.RawMessage) (any, error)

// Engine runs workflows. All methods are safe for concurrent use; Register comes before Launch.
type Engine struct {
	cfg   Config
	log   *slog.Logger
	root  dbos.Context
	db    database
	lease *lease // nil on SQLite
	stop  context.CancelFunc
	done  sync.WaitGroup
	quiet *atomic.Bool // set by Close: interruptions are no errors then

	mu        sync.Mutex
	launched  bool                         // guarded by mu
	closed    bool                         // guarded by mu
	workflows map[string]*bound            // guarded by mu until Launch, then read only
	running   map[string]map[*Run]struct{} // runs alive in this process by id, guarded by mu
	changed   chan struct{}                // closed and replaced when a run leaves running; guarded by mu
}

// bound gives each registered workflow its own identity in the engine: the name is recorded with the run and leads back here.
type bound struct {
	name string
	fn   Workflow
	e    *Engine
}

// ConfigName is the key under which recovery finds the workflow again.
func (b *bound) ConfigName() string { return b.name }

// Open opens the engine's own database (WAL and synchronous=FULL on SQLite) and, on PostgreSQL, takes the lease of the
// executor name. A second live process with the same name is fault.Conflict.
func Open(ctx context.Context, cfg Config) (*Engine, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Sweep == 0 {
		cfg.Sweep = 15 * time.Second
	}
	if cfg.LeaseWait == 0 {
		cfg.LeaseWait = 10 * time.Second
	}
	if cfg.Executor == "" || cfg.SchemaVersion == "" || (cfg.Path == "") == (cfg.PostgresDSN == "") {
		return nil, fault.New(fault.Invalid, "The workflow engine needs an executor name, a schema version and one database.", "Set the path of flow.db or a PostgreSQL DSN, not both.")
	}
	// The library lets its own environment variables win over the configuration; that would unpin the version.
	for _, name := range []string{"DBOS__APPVERSION", "DBOS__VMID", "DBOS__CLOUD"} {
		if os.Getenv(name) != "" {
			return nil, fault.New(fault.Invalid, "The environment variable "+name+" is set; it would change which workflows are recovered.", "Unset "+name+" and start again.")
		}
	}
	e := &Engine{
		cfg: cfg, log: cfg.Log.With("room", "flow"), quiet: new(atomic.Bool),
		workflows: map[string]*bound{}, running: map[string]map[*Run]struct{}{}, changed: make(chan struct{}),
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	e.stop = stop
	fail := func(err error, public string) (*Engine, error) {
		stop()
		e.lease.release()
		e.db.close()
		if fault.KindOf(err) != fault.Internal {
			return nil, err
		}
		return nil, fault.Wrap(err, fault.Unavailable, public, "Check the database's path or DSN, its rights and free space; `falaj doctor` helps.")
	}
	var err error
	if e.db, err = openDatabase(ctx, cfg); err != nil {
		return fail(err, "The workflow database cannot be opened.")
	}
	if cfg.PostgresDSN != "" {
		if e.lease, err = takeLease(ctx, cfg, e.log); err != nil {
			return fail(err, "The lease of this executor cannot be taken.")
		}
	}
	var form dbos.Serializer[any]
	if cfg.Box != nil {
		form = newSealed(cfg.Box)
	}
	e.root, err = dbos.NewContext(life, dbos.Config{
		Serializer: form,
		AppName:    "falaj", SQLiteSystemDB: e.db.lite, SystemDBPool: e.db.pg, DatabaseSchema: schemaName,
		ApplicationVersion: cfg.SchemaVersion, ExecutorID: cfg.Executor,
		Logger: slog.New(calm{e.log.Handler(), e.quiet}), SystemDBStartupTimeout: time.Minute,
	})
	if err != nil {
		return fail(err, "The workflow database cannot be prepared.")
	}
	return e, nil
}

// Register names a workflow. The name is recorded with every run: it must stay the same over restarts and upgrades.
// A second registration of a name, or one after Launch, is a mistake of the program and panics.
func (e *Engine) Register(name string, w Workflow) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.launched || e.workflows[name] != nil || name == "" || w == nil {
		panic("flow: workflow '" + name + "' registered twice, after Launch, or without a body")
	}
	b := &bound{name: name, fn: w, e: e}
	e.workflows[name] = b
	dbos.RegisterWorkflow(e.root, b.run, dbos.WithInstance(b), dbos.WithWorkflowName(name), dbos.WithMaxRecoveryAttempts(maxRecoveries))
}

// maxRecoveries is after how many restarts in the middle of a run it is put aside as one that kills the server.
// A run that waits for weeks sees many restarts, so it is generous.
const maxRecoveries = 1000

// Launch recovers the interrupted runs of this executor and starts to take new ones.
func (e *Engine) Launch(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.launched || e.closed {
		return fault.New(fault.Conflict, "The workflow engine is already started.", "")
	}
	if err := e.adopt(ctx); err != nil {
		return fault.Wrap(err, fault.Unavailable, "Runs of older workflow versions cannot be adopted.", "")
	}
	if err := dbos.Launch(e.root); err != nil {
		return fault.Wrap(err, fault.Unavailable, "The workflow engine cannot start.", "Check flow.db with `falaj doctor`.")
	}
	e.launched = true
	e.done.Add(1)
	go func() {
		defer e.done.Done()
		e.sweepLoop()
	}()
	return nil
}

// Close interrupts the running workflows without ending them (the next Launch goes on) and waits for their steps to
// return, at most 10 seconds.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	e.mu.Unlock()
	e.quiet.Store(true)
	// Not e.stop() first: the library would take any other end of its context for a wish to cancel every run for good.
	err := dbos.Shutdown(e.root, 10*time.Second)
	e.done.Wait()
	e.stop()
	e.lease.release()
	e.db.close()
	if err != nil {
		return fault.Wrap(err, fault.Unavailable, "Some workflow steps did not stop in time.", "They will be run again at the next start.")
	}
	return nil
}

// Lost is closed when the lease of this executor was lost for good: another process may run its workflows, so the
// server must stop. It is never closed on SQLite.
func (e *Engine) Lost() <-chan struct{} {
	if e.lease == nil {
		return nil
	}
	return e.lease.lost
}

// run is what the engine calls for every start and every recovery of a run.
func (b *bound) run(ctx dbos.Context, env envelope) (out json.RawMessage, err error) {
	id, err := ctx.GetWorkflowID()
	if err != nil {
		return nil, err
	}
	own, cancel := dbos.WithCancel(ctx)
	defer cancel()
	c := &Run{
		ID: id, Name: b.name, Actor: env.Actor,
		e: b.e, ctx: own, cancel: cancel,
		log: b.e.log.With("workflow", b.name, "run", id),
	}
	b.e.enter(c)
	defer b.e.leave(c)
	v, err := c.body(b.fn, env.Input)
	if err != nil {
		return nil, c.ending(err)
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, b.e.toRecord(fault.Wrap(err, fault.Internal, "The workflow's result cannot be written as JSON.", ""))
	}
	return raw, nil
}

func (e *Engine) enter(c *Run) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running[c.ID] == nil {
		e.running[c.ID] = map[*Run]struct{}{}
	}
	e.running[c.ID][c] = struct{}{}
}

func (e *Engine) leave(c *Run) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.running[c.ID], c)
	if len(e.running[c.ID]) == 0 {
		delete(e.running, c.ID)
	}
	close(e.changed)
	e.changed = make(chan struct{})
}

// interrupt cancels the steps of a run in this process.
func (e *Engine) interrupt(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.running[id] {
		c.cancel()
	}
}

func (e *Engine) ready() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return fault.New(fault.Unavailable, "The workflow engine is stopping.", "Try again when the server is up.")
	case !e.launched:
		return fault.New(fault.Unavailable, "The workflow engine is not started yet.", "Try again in a moment.")
	}
	return nil
}

// envelope is the recorded input of a run: the input and on whose behalf it runs.
type envelope struct {
	Actor who.Actor       `json:"actor"`
	Input json.RawMessage `json:"input"`
}

// calm lowers the library's chatter by one level: its information is our debugging, its warnings are routine
// (a wait that timed out, a run taken over), its errors are errors.
type calm struct {
	h     slog.Handler
	quiet *atomic.Bool
}

func (c calm) lower(l slog.Level) slog.Level {
	switch {
	case c.quiet.Load():
		return slog.LevelDebug
	case l >= slog.LevelError:
		return l
	}
	return l - 4
}

func (c calm) Enabled(ctx context.Context, l slog.Level) bool { return c.h.Enabled(ctx, c.lower(l)) }
func (c calm) Handle(ctx context.Context, r slog.Record) error {
	r.Level = c.lower(r.Level)
	if !c.h.Enabled(ctx, r.Level) { // a logger made before Close asked before
		return nil
	}
	return c.h.Handle(ctx, r)
}
func (c calm) WithAttrs(a []slog.Attr) slog.Handler { return calm{c.h.WithAttrs(a), c.quiet} }
func (c calm) WithGroup(g string) slog.Handler      { return calm{c.h.WithGroup(g), c.quiet} }

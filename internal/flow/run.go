package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

// Run is one run of a workflow as its body sees it. It belongs to the body's goroutine: a workflow does one thing at
// a time, so that a replay does the same things in the same order.
type Run struct {
	ID    string
	Name  string
	Actor who.Actor // on whose behalf it runs; the same after every restart

	e      *Engine
	ctx    dbos.Context
	cancel context.CancelFunc
	log    *slog.Logger
	busy   atomic.Bool // a step, a sleep or a wait is under way
	broken error       // the engine itself failed; set by the body's goroutine, read in ending

	mu      sync.Mutex
	current *StepInfo // the step under way, for Steps; guarded by mu
}

// Log writes with the workflow's name and the run's id.
func (c *Run) Log() *slog.Logger { return c.log }

// never is how long a wait without time-out waits.
const never = 100 * 365 * 24 * time.Hour

type stepOptions struct {
	retries  int
	base     time.Duration
	max      time.Duration
	timeout  time.Duration
	retryErr func(error) bool
}

// StepOption changes how a step is run.
type StepOption func(*stepOptions)

// Retry runs a failing step up to n more times within the same start, waiting base, 2 base, 4 base ... at most max
// (0: 30 s). Only what may pass by itself is tried again: fault.Unavailable, Limited and Internal.
func Retry(n int, base, max time.Duration) StepOption {
	return func(o *stepOptions) {
		o.retries, o.base, o.max = n, base, max
		if o.max == 0 {
			o.max = 30 * time.Second
		}
	}
}

// RetryIf replaces the rule of which errors are tried again.
func RetryIf(f func(error) bool) StepOption { return func(o *stepOptions) { o.retryErr = f } }

// Timeout limits each try of the step.
func Timeout(d time.Duration) StepOption { return func(o *stepOptions) { o.timeout = d } }

func passing(err error) bool {
	switch fault.KindOf(err) {
	case fault.Unavailable, fault.Limited, fault.Internal:
		return true
	}
	return false
}

// Step runs fn at least once and records its result, or its fault, exactly once: a replay returns the record and does
// not run fn. A fn that was interrupted by a kill runs again, so effects outside must be idempotent under key, which is
// the same at every run of this step and differs from that of every other step, also of a Fork. T must survive
// JSON. ctx carries the run's actor and ends when the run is cancelled or the server stops.
func Step[T any](c *Run, name string, fn func(ctx context.Context, key string) (T, error), opts ...StepOption) (T, error) {
	var v T
	raw, err := c.step(name, func(ctx context.Context, key string) (json.RawMessage, error) {
		v, err := fn(ctx, key)
		if err != nil {
			return nil, err
		}
		raw, err := json.Marshal(v)
		return raw, fault.Wrap(err, fault.Internal, "The result of step "+name+" cannot be written as JSON.", "")
	}, opts)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, fault.Wrap(err, fault.Internal, "The recorded result of step "+name+" does not fit this version of the workflow.", "Start a new run, or fork this one before the step.")
	}
	return v, nil
}

// outcome is the recorded result of a step.
type outcome struct {
	Value json.RawMessage `json:"value,omitempty"`
	Fault *wireFault      `json:"fault,omitempty"`
	Tries int             `json:"tries,omitempty"`
	Await bool            `json:"await,omitempty"` // no step but the mark of a wait
}

func (c *Run) step(name string, fn func(context.Context, string) (json.RawMessage, error), opts []StepOption) (json.RawMessage, error) {
	o := stepOptions{retryErr: passing}
	for _, opt := range opts {
		opt(&o)
	}
	if err := c.begin("step " + name); err != nil {
		return nil, err
	}
	defer c.busy.Store(false)
	out, err := dbos.RunAsStep(c.ctx, func(sctx context.Context) (outcome, error) {
		number, err := sctx.(dbos.Context).GetStepID()
		if err != nil {
			return outcome{}, err
		}
		c.setCurrent(&StepInfo{Number: number, Name: name, Started: time.Now()})
		defer c.setCurrent(nil)
		key := fmt.Sprintf("%s#%d.%s", c.ID, number, name)
		raw, tries, err := c.try(who.With(sctx, c.Actor), name, key, fn, o)
		if err != nil && c.ctx.Err() != nil {
			return outcome{}, c.ctx.Err() // interrupted, not failed: nothing is recorded and the step runs again
		}
		if err != nil {
			return outcome{Fault: toWire(err), Tries: tries}, nil
		}
		return outcome{Value: raw, Tries: tries}, nil
	}, dbos.WithStepName(name))
	if err != nil {
		return nil, c.engineError(err)
	}
	if out.Fault != nil {
		return nil, out.Fault.fault()
	}
	return out.Value, nil
}

// try is one durable step's loop of tries.
func (c *Run) try(ctx context.Context, name, key string, fn func(context.Context, string) (json.RawMessage, error), o stepOptions) (json.RawMessage, int, error) {
	wait, lull := o.base, 100*time.Millisecond
	for n := 1; ; n++ {
		raw, err := guarded(ctx, name, key, fn, o.timeout, c.log)
		if err == nil {
			return raw, n, nil
		}
		if store.Away(err) && ctx.Err() == nil {
			// Not the step's failure, and it could not be recorded either: the step waits for the database.
			c.log.Warn("step waits for the database", "step", name, "wait", lull, "err", err)
			if !sleep(ctx, lull) {
				return nil, n, ctx.Err()
			}
			lull = min(2*lull, 5*time.Second)
			n--
			continue
		}
		if ctx.Err() != nil || n > o.retries || !o.retryErr(err) {
			c.log.Info("step failed", "step", name, "tries", n, "kind", fault.KindOf(err)) // its words may quote data; the run keeps them
			return nil, n, err
		}
		c.log.Info("step failed, trying again", "step", name, "try", n, "wait", wait, "kind", fault.KindOf(err))
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, n, ctx.Err()
		}
		wait = min(2*wait, o.max)
	}
}

func guarded(ctx context.Context, name, key string, fn func(context.Context, string) (json.RawMessage, error), limit time.Duration, log *slog.Logger) (raw json.RawMessage, err error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	defer func() {
		if r := recover(); r != nil {
			log.Error("step panicked", "step", name, "panic", r, "stack", string(debug.Stack()))
			raw, err = nil, fault.Wrap(fmt.Errorf("panic: %v", r), fault.Internal, "Step "+name+" broke inside falaj.", "")
		}
	}()
	return fn(ctx, key)
}

// Sleep waits durably: a restart waits only for the rest.
func (c *Run) Sleep(d time.Duration) error {
	if err := c.begin("sleep"); err != nil {
		return err
	}
	defer c.busy.Store(false)
	if _, err := dbos.Sleep(c.ctx, d); err != nil {
		return c.engineError(err)
	}
	return nil
}

// Await waits durably for the next Signal on topic. ok is false when timeout passed first; a timeout of 0 waits for ever.
// Signals that came before are kept in order.
func (c *Run) Await(topic string, timeout time.Duration) (payload json.RawMessage, ok bool, err error) {
	if err := c.begin("wait for " + topic); err != nil {
		return nil, false, err
	}
	defer c.busy.Store(false)
	// The library records a wait only when it ends, so a Patched just before one would be answered as if the run had
	// not come there. A recorded step of our own marks the place, and shows since when the run waits.
	_, err = dbos.RunAsStep(c.ctx, func(context.Context) (outcome, error) { return outcome{Await: true}, nil }, dbos.WithStepName("await "+topic))
	if err != nil {
		return nil, false, c.engineError(err)
	}
	if timeout <= 0 {
		timeout = never
	}
	payload, err = dbos.Recv[json.RawMessage](c.ctx, topic, timeout)
	switch {
	case err == nil && payload == nil:
		return nil, false, nil
	case err == nil:
		return payload, true, nil
	case c.ctx.Err() == nil && errors.Is(err, dbos.ErrTimeout):
		return nil, false, nil
	}
	return nil, false, c.engineError(err)
}

// Patched bridges a change of the body for runs already under way: it is true in runs that reach this point for the
// first time with the new code, and false, always, in runs that had passed it with the old.
func (c *Run) Patched(name string) (bool, error) {
	if err := c.begin("patch " + name); err != nil {
		return false, err
	}
	defer c.busy.Store(false)
	ok, err := dbos.Patch(c.ctx, name)
	if err != nil {
		return false, c.engineError(err)
	}
	return ok, nil
}

// begin refuses what a replay could not repeat: a step inside a step, two at once, or anything after the engine's database
// failed under the run. A body that ends itself with what such a step gave it would end a run that goes on, and its record
// would stand in the way of the step that is tried again.
func (c *Run) begin(what string) error {
	if c.broken != nil {
		return engineFailed(c.broken)
	}
	if !c.busy.CompareAndSwap(false, true) {
		return fault.New(fault.Internal, "A workflow may do one thing at a time; "+what+" was started inside or beside another step.", "Start it from the workflow's body, after the other step.")
	}
	return nil
}

func (c *Run) setCurrent(s *StepInfo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = s
}

// body runs the workflow's function and turns a panic into a fault.
func (c *Run) body(fn Workflow, input json.RawMessage) (v any, err error) {
	defer func() {
		if r := recover(); r != nil {
			c.log.Error("workflow panicked", "panic", r, "stack", string(debug.Stack()))
			v, err = nil, fault.Wrap(fmt.Errorf("panic: %v", r), fault.Internal, "The workflow "+c.Name+" broke inside falaj.", "")
		}
	}()
	return fn(c, input)
}

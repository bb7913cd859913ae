package flow

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/who"
)

// Status of a run.
type Status string

// The statuses. Queued runs wait for an executor, Stuck ones were put aside after too many restarts in their middle.
const (
	Queued    Status = "queued"
	Running   Status = "running"
	Done      Status = "done"
	Failed    Status = "failed"
	Cancelled Status = "cancelled"
	Stuck     Status = "stuck"
)

// Ended says whether the run will do nothing more by itself.
func (s Status) Ended() bool { return s == Done || s == Failed || s == Cancelled || s == Stuck }

func statusOf(s dbos.WorkflowStatusType) Status {
	switch s {
	case dbos.WorkflowStatusEnqueued, dbos.WorkflowStatusDelayed:
		return Queued
	case dbos.WorkflowStatusPending:
		return Running
	case dbos.WorkflowStatusSuccess:
		return Done
	case dbos.WorkflowStatusError:
		return Failed
	case dbos.WorkflowStatusCancelled:
		return Cancelled
	}
	return Stuck
}

func toLibrary(s Status) []dbos.WorkflowStatusType {
	switch s {
	case Queued:
		return []dbos.WorkflowStatusType{dbos.WorkflowStatusEnqueued, dbos.WorkflowStatusDelayed}
	case Running:
		return []dbos.WorkflowStatusType{dbos.WorkflowStatusPending}
	case Done:
		return []dbos.WorkflowStatusType{dbos.WorkflowStatusSuccess}
	case Failed:
		return []dbos.WorkflowStatusType{dbos.WorkflowStatusError}
	case Cancelled:
		return []dbos.WorkflowStatusType{dbos.WorkflowStatusCancelled}
	}
	return []dbos.WorkflowStatusType{dbos.WorkflowStatusMaxRecoveryAttemptsExceeded}
}

// Start begins a run under id on behalf of the actor in ctx, and returns when that is durable. It is idempotent: a
// second Start of the same workflow with the same id does nothing, whatever its input; another workflow's id is
// fault.Conflict. An event that starts a run uses the event's id and its trigger's as the id. Ids that begin with
// "PROJECT/" let List find a project's runs.
func (e *Engine) Start(ctx context.Context, name, id string, input any) error {
	if err := e.ready(); err != nil {
		return err
	}
	b := e.workflows[name]
	if b == nil || id == "" {
		return fault.New(fault.NotFound, "There is no workflow '"+name+"', or the run has no id.", "")
	}
	raw, err := json.Marshal(input)
	if err != nil {
		return fault.Wrap(err, fault.Invalid, "The input of workflow "+name+" cannot be written as JSON.", "")
	}
	actor := who.From(ctx)
	// The engine's own context, not the caller's: a request that ends must not end the run.
	_, err = dbos.RunWorkflow(e.root, b.run, envelope{Actor: actor, Input: raw},
		dbos.WithWorkflowID(id), dbos.WithRunInstance(b), dbos.WithAuthenticatedUser(actor.String()))
	return lookup(err, id)
}

// Signal gives a waiting or future Await of the run a payload. Signals with the same non-empty once are delivered once,
// so that a redelivered event does not approve twice.
func (e *Engine) Signal(ctx context.Context, id, topic string, payload any, once string) error {
	if err := e.ready(); err != nil {
		return err
	}
	raw, err := json.Marshal(payload)
	if err != nil {
		return fault.Wrap(err, fault.Invalid, "The signal cannot be written as JSON.", "")
	}
	var opts []dbos.SendOption
	if once != "" {
		opts = append(opts, dbos.WithIdempotencyKey(id+"/"+topic+"/"+once))
	}
	return lookup(dbos.Send(e.root, id, json.RawMessage(raw), topic, opts...), id)
}

// Cancel ends a run for good: its context ends at once, no further step starts, and nothing it still does is recorded.
// A run that has ended is fault.Conflict; one already cancelled is no error.
func (e *Engine) Cancel(ctx context.Context, id string) error {
	info, err := e.get(ctx, id)
	if err != nil {
		return err
	}
	if info.Status == Cancelled {
		return nil
	}
	if info.Status.Ended() {
		return fault.New(fault.Conflict, "The run '"+id+"' has already ended ("+string(info.Status)+").", "")
	}
	if err := dbos.CancelWorkflow(e.root, id); err != nil {
		return lookup(err, id)
	}
	e.interrupt(id)
	return nil
}

// Resume lets a run that was cancelled, failed or got stuck go on under its own id: recorded results stay, the failed
// step and what follows run again. Signals not yet consumed by a failed run are dropped. A run that is under way or
// done is fault.Conflict.
func (e *Engine) Resume(ctx context.Context, id string) error {
	info, err := e.get(ctx, id)
	if err != nil {
		return err
	}
	switch info.Status {
	case Cancelled, Stuck:
		_, err = dbos.ResumeWorkflow[json.RawMessage](e.root, id)
	case Failed:
		steps, serr := e.Steps(ctx, id)
		if serr != nil {
			return serr
		}
		from := 0
		for _, s := range steps {
			if s.Number >= from {
				from = s.Number + 1
			}
		}
		for _, s := range steps {
			if s.Err != nil {
				from = s.Number // the last failed one wins: earlier faults were handled by the body
			}
		}
		_, err = dbos.RewindWorkflow[json.RawMessage](e.root, id, dbos.WithRewindStartStep(uint(from)), dbos.WithRewindApplicationVersion(e.cfg.SchemaVersion))
	default:
		return fault.New(fault.Conflict, "The run '"+id+"' is "+string(info.Status)+"; there is nothing to resume.", "Fork it to run it again from a step.")
	}
	return lookup(err, id)
}

// Fork starts a new run with the recorded results of the steps before fromStep (numbers of Steps) and returns its id.
// The original stays as it is; the new run has the same input and acts for the same actor.
func (e *Engine) Fork(ctx context.Context, id string, fromStep int) (string, error) {
	if _, err := e.get(ctx, id); err != nil {
		return "", err
	}
	if fromStep < 0 {
		return "", fault.New(fault.Invalid, "Steps are counted from 0.", "`falaj status` lists the steps of a run.").At("from_step")
	}
	h, err := dbos.ForkWorkflow[json.RawMessage](e.root, dbos.ForkWorkflowInput{
		OriginalWorkflowID: id, StartStep: uint(fromStep), ApplicationVersion: e.cfg.SchemaVersion,
	})
	if err != nil {
		return "", lookup(err, id)
	}
	return h.GetWorkflowID(), nil
}

// Result gives a run's status, its result when Done (JSON) and its fault when Failed, Cancelled or Stuck. An unknown id
// is fault.NotFound with an empty status.
func (e *Engine) Result(ctx context.Context, id string) (Status, json.RawMessage, error) {
	list, err := e.list(ctx, true, dbos.WithFilterWorkflowIDs(id))
	if err != nil {
		return "", nil, err
	}
	if len(list) == 0 {
		return "", nil, lookup(dbos.ErrNonExistentWorkflow, id)
	}
	w := list[0]
	switch s := statusOf(w.Status); s {
	case Done:
		raw, _ := listed[json.RawMessage](w.Output)
		return s, raw, nil
	case Failed:
		return s, nil, e.fromRecord(w.Error)
	case Cancelled:
		return s, nil, fault.New(fault.Conflict, "The run '"+id+"' was cancelled.", "Resume it to go on from its last step.")
	case Stuck:
		return s, nil, fault.New(fault.Internal, "The run '"+id+"' was put aside: the server was stopped in its middle too often.", "Look at the server's log, then resume the run.")
	default:
		return s, nil, nil
	}
}

// Wait is Result after the run has ended, or ctx's error.
func (e *Engine) Wait(ctx context.Context, id string) (Status, json.RawMessage, error) {
	pause := 5 * time.Millisecond
	for {
		e.mu.Lock()
		changed, here := e.changed, len(e.running[id]) > 0
		e.mu.Unlock()
		s, raw, err := e.Result(ctx, id)
		if s == "" || s.Ended() {
			return s, raw, err
		}
		if !here {
			changed = nil // it runs elsewhere, or its result is just being recorded
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return s, nil, ctx.Err()
		case <-changed:
			timer.Stop()
			pause = 5 * time.Millisecond
		case <-timer.C:
			pause = min(pause*3/2, 250*time.Millisecond)
		}
	}
}

// Filter selects runs; zero fields do not limit.
type Filter struct {
	Name    string
	Status  Status
	Prefix  string // of the id, e.g. "flights/"
	Actor   string // kind:name
	After   time.Time
	Limit   int // 0 means 100
	Offset  int
	Version string
}

// Info is one run, without input and result. Times are UTC, zero when they did not come yet.
type Info struct {
	ID         string
	Name       string
	Status     Status
	Actor      string // kind:name
	Version    string // schema version it runs under
	Executor   string
	Starts     int // how often it was started: 1 and one more for each recovery
	ForkedFrom string
	Created    time.Time
	Ended      time.Time
}

// List returns runs, the newest first.
func (e *Engine) List(ctx context.Context, f Filter) ([]Info, error) {
	if f.Limit <= 0 {
		f.Limit = 100
	}
	opts := []dbos.ListWorkflowsOption{dbos.WithFilterSortDesc(), dbos.WithFilterLimit(f.Limit), dbos.WithFilterOffset(f.Offset)}
	if f.Name != "" {
		opts = append(opts, dbos.WithFilterName(f.Name))
	}
	if f.Status != "" {
		opts = append(opts, dbos.WithFilterStatus(toLibrary(f.Status)...))
	}
	if f.Prefix != "" {
		opts = append(opts, dbos.WithFilterWorkflowIDPrefix(f.Prefix))
	}
	if f.Actor != "" {
		opts = append(opts, dbos.WithFilterUser(f.Actor))
	}
	if f.Version != "" {
		opts = append(opts, dbos.WithFilterAppVersion(f.Version))
	}
	if !f.After.IsZero() {
		opts = append(opts, dbos.WithFilterCreatedAfter(f.After))
	}
	list, err := e.list(ctx, false, opts...)
	if err != nil {
		return nil, err
	}
	out := make([]Info, 0, len(list))
	for _, w := range list {
		out = append(out, infoOf(w))
	}
	return out, nil
}

// StepInfo is one step of a run. Number is what Fork takes. Ended is zero while the step runs in this process or a wait
// is under way. The Value of an ended wait is the signal, or nil after its time-out.
type StepInfo struct {
	Number  int
	Name    string
	Started time.Time
	Ended   time.Time
	Tries   int
	Value   json.RawMessage
	Err     *fault.E
}

// Steps lists the recorded steps in order, and the one under way when the run is in this process.
func (e *Engine) Steps(ctx context.Context, id string) ([]StepInfo, error) {
	if _, err := e.get(ctx, id); err != nil {
		return nil, err
	}
	list, err := dbos.GetWorkflowSteps(e.root, id, dbos.WithStepsLoadOutput(true))
	if err != nil {
		return nil, lookup(err, id)
	}
	out := make([]StepInfo, 0, len(list)+1)
	wait := -1 // the number of the mark of a wait just seen
	for _, s := range list {
		switch {
		case wait >= 0 && s.StepID == wait+1 && s.StepName == "DBOS.recv":
			mark := &out[len(out)-1]
			mark.Value, _ = listed[json.RawMessage](s.Output)
			mark.Ended = s.CompletedAt.UTC()
		case wait >= 0 && s.StepID == wait+2 && s.StepName == "DBOS.sleep":
		default:
			info, isWait := stepOf(s)
			if wait = -1; isWait {
				wait = info.Number
			}
			out = append(out, info)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.running[id] {
		c.mu.Lock()
		if c.current != nil {
			out = append(out, *c.current)
		}
		c.mu.Unlock()
	}
	return out, nil
}

func stepOf(s dbos.StepInfo) (info StepInfo, wait bool) {
	info = StepInfo{Number: s.StepID, Name: strings.TrimPrefix(s.StepName, "DBOS."), Started: s.StartedAt.UTC(), Ended: s.CompletedAt.UTC()}
	out, ok := listed[outcome](s.Output)
	if strings.HasPrefix(s.StepName, "DBOS.") || !ok {
		return info, false
	}
	if out.Await {
		info.Ended = time.Time{}
		return info, true
	}
	info.Value, info.Tries = out.Value, out.Tries
	if out.Fault != nil {
		info.Err = out.Fault.fault()
	}
	return info, false
}

func (e *Engine) get(ctx context.Context, id string) (Info, error) {
	if err := e.ready(); err != nil {
		return Info{}, err
	}
	list, err := e.list(ctx, false, dbos.WithFilterWorkflowIDs(id))
	if err != nil {
		return Info{}, err
	}
	if len(list) == 0 {
		return Info{}, lookup(dbos.ErrNonExistentWorkflow, id)
	}
	return infoOf(list[0]), nil
}

func (e *Engine) list(ctx context.Context, output bool, opts ...dbos.ListWorkflowsOption) ([]dbos.WorkflowStatus, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	opts = append(opts, dbos.WithFilterLoadInput(false), dbos.WithFilterLoadOutput(output))
	list, err := dbos.ListWorkflows(e.root, opts...)
	return list, lookup(err, "")
}

func infoOf(w dbos.WorkflowStatus) Info {
	return Info{
		ID: w.ID, Name: w.Name, Status: statusOf(w.Status), Actor: w.AuthenticatedUser, Version: w.ApplicationVersion,
		Executor: w.ExecutorID, Starts: w.Attempts, ForkedFrom: w.ForkedFrom, Created: w.CreatedAt.UTC(), Ended: w.CompletedAt.UTC(),
	}
}

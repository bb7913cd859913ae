package flow

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/dbos-inc/dbos-transact-golang/dbos"

	"falaj/internal/kernel/fault"
	"falaj/internal/store"
)

// wireFault is a fault as it is recorded: a person must read the same words after a restart. Cause is the text for the
// log, shortened.
type wireFault struct {
	Kind   fault.Kind `json:"kind"`
	Public string     `json:"public"`
	Next   string     `json:"next"`
	Field  string     `json:"field,omitempty"`
	Cause  string     `json:"cause,omitempty"`
}

const longestCause = 2000

func toWire(err error) *wireFault {
	f := fault.From(err)
	w := &wireFault{Kind: f.Kind, Public: f.Public, Next: f.Next, Field: f.Field}
	if f.Err != nil {
		w.Cause = strings.ToValidUTF8(f.Err.Error(), "?")
		if len(w.Cause) > longestCause {
			w.Cause = strings.ToValidUTF8(w.Cause[:longestCause], "") + " ..."
		}
	}
	return w
}

func (w *wireFault) fault() *fault.E {
	e := fault.New(w.Kind, w.Public, w.Next)
	e.Field = w.Field
	if w.Cause != "" {
		e.Err = errors.New(w.Cause)
	}
	return e
}

// marker tells our recorded faults from the library's own errors.
const marker = "falaj.fault"

// toRecord is the form in which a failed run's fault is stored by the library. Its words may quote users' data, so they
// are sealed like results.
func (e *Engine) toRecord(err error) error {
	w := toWire(err)
	data, _ := json.Marshal(w) // strings only, cannot fail
	p := &dbos.PortableWorkflowError{Name: marker, Message: w.Public, Data: string(data)}
	if e.cfg.Box != nil {
		text, err := e.cfg.Box.SealText(string(data), place)
		if err != nil {
			return err
		}
		p.Message, p.Data = string(w.Kind), text
	}
	return p
}

// fromRecord reads what toRecord, or the library itself, stored as the error of a run.
func (e *Engine) fromRecord(err error) error {
	if err == nil {
		return nil
	}
	var p *dbos.PortableWorkflowError
	if errors.As(err, &p) && p.Name == marker {
		var w wireFault
		data, _ := p.Data.(string)
		if e.cfg.Box != nil {
			if plain, err := e.cfg.Box.OpenText(data, place); err == nil {
				data = plain
			}
		}
		if json.Unmarshal([]byte(data), &w) == nil && w.Kind != "" {
			return w.fault()
		}
	}
	return changedCode(err)
}

func changedCode(err error) error {
	if isCode(err, dbos.ErrorCodeUnexpectedStep) || isCode(err, dbos.ErrorCodeStepNondeterminism) {
		return fault.Wrap(err, fault.Internal, "The workflow's code no longer does what this run had recorded.", "Start a new run; if falaj was just upgraded, report it.")
	}
	return fault.Wrap(err, fault.Internal, "The workflow failed inside falaj.", "")
}

func isCode(err error, code dbos.ErrorCode) bool { return errors.Is(err, &dbos.Error{Code: code}) }

// engineError sorts what the library returned from a step, a sleep or a wait. An interruption passes as it is; changed
// code is a fault of the run; anything else means that the engine's database failed, which is no result of the run.
func (c *Run) engineError(err error) error {
	switch {
	case c.ctx.Err() != nil, errors.Is(err, dbos.ErrConflictingWorkflowID), errors.Is(err, dbos.ErrWorkflowCancelled):
		return err
	case isCode(err, dbos.ErrorCodeUnexpectedStep), isCode(err, dbos.ErrorCodeStepNondeterminism):
		return changedCode(err)
	}
	c.broken = err
	return engineFailed(err)
}

func engineFailed(err error) error {
	return fault.Wrap(err, fault.Unavailable, "The workflow database failed.", "Check the disk and the database; the run goes on by itself.")
}

// ending decides what the end of a body with an error means. A run whose engine failed under it gives up its claim
// without recording anything: the sweeper starts it again from its last recorded step.
func (c *Run) ending(err error) error {
	if c.broken != nil {
		c.log.Error("workflow database failed, the run will be started again", "error", c.broken)
		return fmt.Errorf("%w: %w", dbos.ErrConflictingWorkflowID, err)
	}
	if c.ctx.Err() != nil {
		return fmt.Errorf("%w: %w", c.ctx.Err(), err)
	}
	if errors.Is(err, dbos.ErrConflictingWorkflowID) || errors.Is(err, dbos.ErrWorkflowCancelled) {
		return err
	}
	return c.e.toRecord(err)
}

// lookup sorts the errors of the control verbs.
func lookup(err error, id string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, dbos.ErrNonExistentWorkflow):
		return fault.New(fault.NotFound, "There is no run '"+id+"'.", "`falaj status` lists the runs.")
	case errors.Is(err, dbos.ErrUnexpectedWorkflow):
		return fault.Wrap(err, fault.Conflict, "The run id '"+id+"' is already used by another workflow.", "Choose another id.")
	}
	if err := store.Lost(err); store.Away(err) {
		return err
	}
	return fault.Wrap(err, fault.Unavailable, "The workflow database did not answer.", "Try again; `falaj doctor` names what is wrong.")
}

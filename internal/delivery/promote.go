package delivery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"falaj/internal/flow"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/note"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

// workflow is recorded with every run of it: it never changes.
const workflow = "delivery.promote"

// How long a change waits: for a person, for serving to load, for a canary to see enough traffic.
const (
	approvalWait   = 30 * 24 * time.Hour
	activationWait = 10 * time.Minute
	canaryPoll     = 2 * time.Second
	canaryLimit    = 14 * 24 * time.Hour
)

type job struct {
	Project string `json:"project"`
	Change  string `json:"change"`
}

func (j job) run() string { return j.Project + "/" + j.Change }

func sha(b []byte) string {
	h := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(h[:])
}

// OnEvent turns events into starts and signals of the workflow. It is idempotent; app subscribes it to change.* and serving.*.
func (s *Service) OnEvent(ctx context.Context, e event.Event) error {
	j := job{Project: e.Project, Change: e.Subject}
	switch e.Type {
	case "change.requested":
		var c Change
		if err := json.Unmarshal(e.Data, &c); err != nil {
			return err
		}
		return s.flow.Start(s.system(ctx, c), workflow, j.run(), j)
	case "change.approved", "change.rejected":
		return s.flow.Signal(ctx, j.run(), "decision", e.Type, e.ID)
	case "change.cancelled":
		if err := s.flow.Cancel(ctx, j.run()); err != nil && !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.NotFound) {
			return err
		}
		return nil
	case "serving.activated", "serving.failed":
		var a Activation
		if err := json.Unmarshal(e.Data, &a); err != nil {
			return err
		}
		if a.Change == "" {
			return nil
		}
		a.OK = e.Type == "serving.activated"
		err := s.flow.Signal(ctx, job{e.Project, a.Change}.run(), "activated", a, e.ID)
		if fault.Is(err, fault.NotFound) { // a change made without a workflow (roll-back)
			return nil
		}
		return err
	}
	return nil
}

// Activation is what serving reports of a moved pointer.
type Activation struct {
	Change string `json:"change"`
	Weight int64  `json:"weight"`
	OK     bool   `json:"ok"`
	Error  string `json:"error,omitempty"`
}

func (s *Service) system(ctx context.Context, c Change) context.Context {
	return who.With(ctx, who.Actor{Kind: who.System, Name: "delivery", Via: "system", OnBehalfOf: c.Requester})
}

// promote is the durable life of one change: evidence, decision, move, activation. It waits days without cost.
func (s *Service) promote(r *flow.Run, input json.RawMessage) (any, error) {
	var j job
	if err := json.Unmarshal(input, &j); err != nil {
		return nil, err
	}
	c, err := flow.Step(r, "load", func(ctx context.Context, _ string) (Change, error) {
		d, err := s.Change(ctx, j.Project, j.Change)
		return d.Change, err
	})
	if err != nil {
		return nil, err
	}
	var bad *Evidence
	for i, g := range c.Gates {
		if g.Kind == GateApproval {
			continue
		}
		ev, err := flow.Step(r, fmt.Sprintf("gate %d %s", i, g.Kind), func(ctx context.Context, _ string) (Evidence, error) {
			return s.gather(s.system(ctx, c), c, i, g)
		})
		if err != nil {
			return nil, s.fail(r, c, err)
		}
		if ev.Verdict != Passed && bad == nil {
			bad = &ev
		}
	}
	if bad != nil {
		n := note.New("change.gate_failed", "gate '{gate}' is not met", "gate", bad.Gate)
		if bad.Note != nil {
			n = *bad.Note
		}
		return s.end(r, c, Refused, "refused", n)
	}
	if g := approvalGate(c.Gates); g != nil {
		ok, err := s.awaitApproval(r, &c, *g)
		if err != nil || !ok {
			return nil, err
		}
	}
	return s.implement(r, c)
}

// gather evaluates a gate and records its evidence. The evaluator's own failure is evidence too: it refuses, and says why.
func (s *Service) gather(ctx context.Context, c Change, i int, g Gate) (Evidence, error) {
	ev, err := s.eval.Evaluate(ctx, c, g)
	if err != nil {
		if fault.Is(err, fault.Unavailable) || ctx.Err() != nil {
			return ev, err
		}
		n := note.New("gate.error", "the check itself failed: {why}", "why", fault.From(err).Public)
		ev = Evidence{Verdict: Broken, Note: &n}
	}
	ev.Gate, ev.Label, ev.At = g.Kind, g.Label(), store.Micros(time.Now())
	if ev.Tests == nil {
		ev.Tests = []TestResult{}
	}
	ev.Digest = digestOf(ev)
	return ev, s.store.Change(ctx, "gate.record", resource(c), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		tx.After(ev)
		word := "failed"
		if ev.Verdict == Passed {
			word = "passed"
		}
		first, err := upsertEvidence(ctx, tx, c.ID, i, ev)
		if err != nil {
			return event.Draft{}, err
		}
		if first {
			if err := insertStep(ctx, tx, c.ID, "system:delivery", "gate."+word, note.New("event.gate_"+word, "{gate}: "+word, "gate", g.Kind)); err != nil {
				return event.Draft{}, err
			}
		}
		return event.Draft{Type: "gate." + word, Subject: c.ID, Data: map[string]string{"gate": g.Kind, "digest": ev.Digest}}, nil
	})
}

func (s *Service) awaitApproval(r *flow.Run, c *Change, g Gate) (bool, error) {
	_, err := flow.Step(r, "ask for approval", func(ctx context.Context, _ string) (bool, error) {
		return true, s.transition(s.system(ctx, *c), c.Project, c.ID, "change.decide", Assessing, PendingApproval, "change.waiting", note.New("approval.waiting", "waits for a member of {group}", "group", g.Group))
	})
	if err != nil {
		return false, err
	}
	payload, ok, err := r.Await("decision", approvalWait)
	if err != nil {
		return false, err
	}
	if !ok {
		_, err := s.end(r, *c, Rejected, "expired", note.New("change.expired", "nobody decided within 30 days"))
		return false, err
	}
	if string(payload) == `"change.rejected"` {
		_, err := flow.Step(r, "note rejection", func(ctx context.Context, _ string) (bool, error) {
			return true, s.history(s.system(ctx, *c), *c, "rejected")
		})
		return false, err
	}
	return true, nil
}

// implement moves the pointer, by canary weights when the change has a roll-out, and waits until serving says it answers.
func (s *Service) implement(r *flow.Run, c Change) (any, error) {
	weights := c.Rollout
	if len(weights) == 0 {
		weights = []int{100}
	}
	for _, w := range weights {
		_, err := flow.Step(r, fmt.Sprintf("move to %d", w), func(ctx context.Context, _ string) (bool, error) {
			return true, s.move(s.system(ctx, c), c, w)
		})
		if err != nil {
			return nil, s.fail(r, c, err)
		}
		a, err := s.awaitActivation(r, w)
		if err != nil {
			return nil, err
		}
		if !a.OK {
			return s.backOut(r, c, note.New("change.not_activated", "serving could not load it: {why}", "why", a.Error))
		}
		if w == 100 {
			break
		}
		ev, err := s.watch(r, c, w)
		if err != nil {
			return nil, err
		}
		if ev.Verdict != Passed {
			n := note.New("change.canary_failed", "the canary did worse than the champion")
			if ev.Note != nil {
				n = *ev.Note
			}
			return s.backOut(r, c, n)
		}
	}
	return s.end(r, c, Closed, "closed", note.New("event.closed", "serves in {environment}", "environment", c.Environment))
}

// awaitActivation skips reports of earlier weights: signals are kept in order and may come twice.
func (s *Service) awaitActivation(r *flow.Run, weight int) (Activation, error) {
	for {
		payload, ok, err := r.Await("activated", activationWait)
		if err != nil {
			return Activation{}, err
		}
		if !ok {
			return Activation{Error: "no answer from serving within 10 minutes"}, nil
		}
		var a Activation
		if err := json.Unmarshal(payload, &a); err != nil {
			return a, err
		}
		if a.Weight == int64(weight) {
			return a, nil
		}
	}
}

// watch asks until the canary has seen enough, for at most two weeks.
func (s *Service) watch(r *flow.Run, c Change, weight int) (Evidence, error) {
	for waited := time.Duration(0); waited < canaryLimit; waited += canaryPoll {
		ev, err := flow.Step(r, fmt.Sprintf("canary at %d", weight), func(ctx context.Context, _ string) (Evidence, error) {
			return s.eval.Canary(s.system(ctx, c), c)
		}, flow.Retry(5, time.Second, 30*time.Second))
		if err != nil || ev.Verdict != Waiting {
			return ev, err
		}
		if err := r.Sleep(canaryPoll); err != nil {
			return ev, err
		}
	}
	n := note.New("change.canary_starved", "the canary saw too little traffic in two weeks")
	return Evidence{Verdict: Failed, Note: &n}, nil
}

// backOut restores what served before and ends the change as failed.
func (s *Service) backOut(r *flow.Run, c Change, why note.Note) (any, error) {
	if _, err := flow.Step(r, "back out", func(ctx context.Context, _ string) (bool, error) {
		return true, s.restore(s.system(ctx, c), c)
	}); err != nil {
		return nil, err
	}
	return s.end(r, c, FailedState, "failed", why)
}

// fail ends the change when the machinery itself gave up, so that no change hangs for ever.
func (s *Service) fail(r *flow.Run, c Change, cause error) error {
	if _, err := s.end(r, c, FailedState, "failed", note.New("change.failed", "could not go on: {why}", "why", fault.From(cause).Public)); err != nil {
		return err
	}
	return cause
}

func (s *Service) end(r *flow.Run, c Change, to State, word string, why note.Note) (any, error) {
	_, err := flow.Step(r, "end "+word, func(ctx context.Context, _ string) (bool, error) {
		ctx = s.system(ctx, c)
		if err := s.transition(ctx, c.Project, c.ID, "change.close", "", to, "change."+word, why); err != nil {
			return false, err
		}
		if to == Refused || to == FailedState {
			return true, s.history(ctx, c, "refused", why)
		}
		return true, nil
	})
	return string(to), err
}

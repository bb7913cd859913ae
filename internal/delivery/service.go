package delivery

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"falaj/internal/flow"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/id"
	"falaj/internal/kernel/note"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

// Service is the delivery stage.
type Service struct {
	store   *store.Store
	flow    *flow.Engine
	catalog Catalog
	eval    Evaluator
}

// New makes the stage and registers its workflow; the engine is launched later.
func New(s *store.Store, f *flow.Engine, c Catalog, e Evaluator) *Service {
	d := &Service{store: s, flow: f, catalog: c, eval: e}
	f.Register(workflow, d.promote)
	return d
}

// Resource is what policy decides on: the change with who asked for it and who made its model.
func (c Change) Resource() policy.Resource { return resource(c) }

func resource(c Change) policy.Resource {
	return policy.Resource{Kind: "Change", ID: c.ID, Project: c.Project, Attrs: map[string]string{"requester": c.Requester, "author": c.Author, "group": approvalGroup(c.Gates)}}
}

// DefaultEnvironments is what a model gets that declares none.
func DefaultEnvironments() []string { return []string{"dev", "staging", "production"} }

// Define sets the environments and gates of a model. Changes under way keep the gates they began with.
func (s *Service) Define(ctx context.Context, project, model string, p Policy) error {
	if len(p.Environments) == 0 {
		p.Environments = DefaultEnvironments()
	}
	last := 0
	for _, w := range p.Rollout {
		if w <= last || w > 100 {
			return fault.New(fault.Invalid, "The canary weights must rise and end at 100.", "For example canary: [5, 25, 100].").At("serve.rollout.canary")
		}
		last = w
	}
	if len(p.Rollout) > 0 && last != 100 {
		return fault.New(fault.Invalid, "The last canary weight must be 100.", "For example canary: [5, 25, 100].").At("serve.rollout.canary")
	}
	return s.store.Change(ctx, "project.apply", policy.Resource{Kind: "Model", ID: model, Project: project}, func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		tx.After(p)
		return event.Draft{Type: "delivery.defined", Subject: model, Data: p}, upsertPolicy(ctx, tx, project, model, p)
	})
}

// Policy is what was last defined for the model, or the defaults.
func (s *Service) Policy(ctx context.Context, project, model string) (p Policy, err error) {
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		p, err = selectPolicy(ctx, q, project, model)
		return err
	})
	return p, err
}

// Request asks for a promotion. The change is recorded at once; its gates are then gathered by a durable workflow.
// The same key gives the same change.
func (s *Service) Request(ctx context.Context, project string, req PromoteRequest) (Change, error) {
	cand, err := s.catalog.Candidate(ctx, project, req.Model, req.Version)
	if err != nil {
		return Change{}, err
	}
	c := Change{ID: id.New("chg"), Project: project, Kind: "normal", Verb: "promote", State: Assessing, Requester: who.From(ctx).Origin(), Author: cand.Author,
		Model: req.Model, Environment: req.Environment, ToVersion: cand.Version, ToRelease: cand.Release, Reason: req.Reason, Note: req.Note, Pipeline: req.Pipeline}
	err = s.store.Change(ctx, "change.request", resource(c), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		if err := asked(ctx, tx, &c, req.Key); err != nil {
			return event.Draft{}, err
		}
		pol, err := selectPolicy(ctx, tx, project, req.Model)
		if err != nil {
			return event.Draft{}, err
		}
		if err := s.place(ctx, tx, &c, pol); err != nil {
			return event.Draft{}, err
		}
		if err := s.insert(ctx, tx, &c, req.Key); err != nil {
			return event.Draft{}, err
		}
		text := note.New("event.requested", "asked for {model}@{version} in {environment}", "model", c.Model, "version", c.ToVersion, "environment", c.Environment)
		if err := insertStep(ctx, tx, c.ID, c.Requester, "requested", text); err != nil {
			return event.Draft{}, err
		}
		tx.After(c)
		return event.Draft{Type: "change.requested", Subject: c.ID, Data: c}, nil
	})
	return c, err
}

// asked gives c the change that was asked for under the same key before, and then the caller changes nothing.
func asked(ctx context.Context, q store.Querier, c *Change, key string) error {
	if key == "" {
		return nil
	}
	old, found, err := selectByKey(ctx, q, c.Project, key)
	if !found || err != nil {
		return err
	}
	if *c, err = selectChange(ctx, q, c.Project, old); err != nil {
		return err
	}
	return store.ErrUnchanged
}

// place checks the environment and fills what serves there now, the gates and the roll-out.
func (s *Service) place(ctx context.Context, q store.Querier, c *Change, pol Policy) error {
	index := -1
	for i, e := range pol.Environments {
		if e == c.Environment {
			index = i
		}
	}
	if index < 0 {
		return fault.New(fault.Invalid, fmt.Sprintf("Model '%s' has no environment '%s'.", c.Model, c.Environment), fmt.Sprintf("Its environments are %v.", pol.Environments)).At("environment")
	}
	now, err := selectPointer(ctx, q, c.Project, c.Model, c.Environment, Champion)
	if err != nil {
		return err
	}
	c.FromVersion, c.FromRelease = now.Version, now.Release
	if c.FromRelease == c.ToRelease {
		return fault.New(fault.Conflict, fmt.Sprintf("%s@%d is already in %s.", c.Model, c.ToVersion, c.Environment), "Nothing has to be done.")
	}
	if index > 0 && len(pol.Gates[pol.Environments[index-1]]) > 0 {
		was, err := everIn(ctx, q, c.Project, c.Model, pol.Environments[index-1], c.ToRelease)
		if err != nil {
			return err
		}
		if !was {
			return fault.New(fault.Conflict, fmt.Sprintf("%s@%d was never in %s, which comes before %s.", c.Model, c.ToVersion, pol.Environments[index-1], c.Environment),
				fmt.Sprintf("falaj promote %s/%s@%d %s", c.Project, c.Model, c.ToVersion, pol.Environments[index-1]))
		}
	}
	open, err := selectOpen(ctx, q, c.Project, c.Model, c.Environment)
	if err != nil {
		return err
	}
	if open != "" {
		return fault.New(fault.Conflict, fmt.Sprintf("Change %s of %s in %s is not finished.", open, c.Model, c.Environment), "Decide or cancel it first: falaj status "+open)
	}
	c.Gates = pol.Gates[c.Environment]
	if index == len(pol.Environments)-1 && c.FromVersion != 0 {
		c.Rollout = pol.Rollout
	}
	return nil
}

func (s *Service) insert(ctx context.Context, tx *store.Tx, c *Change, key string) error {
	seq, err := tx.Next(ctx, "changes")
	if err != nil {
		return err
	}
	c.Seq, c.Created = seq, time.Now().UTC()
	c.Updated = c.Created
	if err := insertChange(ctx, tx, *c); err != nil {
		return err
	}
	if key != "" {
		return insertKey(ctx, tx, c.Project, key, c.ID)
	}
	return nil
}

// Approve says yes to a change. The requester and the model's author may not; the group of the gate must.
func (s *Service) Approve(ctx context.Context, project, changeID, comment string) (Detail, error) {
	return s.decide(ctx, project, changeID, comment, "change.approve", "approved", Approved)
}

// Reject says no; the comment is required.
func (s *Service) Reject(ctx context.Context, project, changeID, comment string) (Detail, error) {
	if comment == "" {
		return Detail{}, fault.New(fault.Invalid, "A rejection needs a comment.", "Say why, so that the requester can mend it: --comment \"...\"").At("comment")
	}
	return s.decide(ctx, project, changeID, comment, "change.reject", "rejected", Rejected)
}

func (s *Service) decide(ctx context.Context, project, changeID, comment string, action policy.Action, decision string, to State) (Detail, error) {
	d, err := s.Change(ctx, project, changeID)
	if err != nil {
		return d, err
	}
	actor := who.From(ctx)
	err = s.store.Change(ctx, action, resource(d.Change), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		c, err := selectChange(ctx, tx, project, changeID)
		if err != nil {
			return event.Draft{}, err
		}
		if c.State != PendingApproval {
			return event.Draft{}, fault.New(fault.Conflict, fmt.Sprintf("Change %s is %s, not waiting for approval.", c.ID, c.State), "falaj status "+c.ID)
		}
		tx.Before(c)
		c.State = to
		tx.After(c)
		if err := updateState(ctx, tx, c); err != nil {
			return event.Draft{}, err
		}
		if err := insertApproval(ctx, tx, c.ID, Approval{Actor: actor.String(), Decision: decision, Comment: comment, At: time.Now()}); err != nil {
			return event.Draft{}, err
		}
		text := note.New("event."+decision, decision+" by {by}", "by", actor.Name, "comment", comment)
		if err := insertStep(ctx, tx, c.ID, actor.String(), decision, text); err != nil {
			return event.Draft{}, err
		}
		return event.Draft{Type: "change." + decision, Subject: c.ID, Data: map[string]string{"change": c.ID, "by": actor.String()}}, nil
	})
	if err != nil {
		return d, err
	}
	return s.Change(ctx, project, changeID)
}

func approvalGate(gates []Gate) *Gate {
	for i := range gates {
		if gates[i].Kind == GateApproval {
			return &gates[i]
		}
	}
	return nil
}

// approvalGroup is who decides, "" when the gates leave it open.
func approvalGroup(gates []Gate) string {
	if g := approvalGate(gates); g != nil {
		return g.Group
	}
	return ""
}

// MayDecide says whether the caller could approve (or reject) now, and why not.
func (s *Service) MayDecide(ctx context.Context, c Change, action policy.Action) (bool, *note.Note, error) {
	no := func(code, text string, args ...any) (bool, *note.Note, error) {
		n := note.New(code, text, args...)
		return false, &n, nil
	}
	actor := who.From(ctx)
	group := approvalGroup(c.Gates)
	switch {
	case actor.Kind == who.Anonymous && actor.Via == "open":
		return no("open_mode", "nobody approves without a name; sign in first")
	case actor.Kind == who.Anonymous:
		return no("not_signed_in", "sign in first")
	case c.State == Approved || c.State.Final() || c.State == Implementing || c.State == RollingOut:
		return no("already_decided", "this change is decided")
	case c.State != PendingApproval:
		return no("wrong_state", "this change is {state}", "state", string(c.State))
	}
	d, err := s.store.Authorize(ctx, action, resource(c))
	if err != nil {
		return false, nil, err
	}
	if !d.Allow {
		forbidden := func(by ...string) bool {
			return slices.ContainsFunc(d.Reasons, func(r policy.Reason) bool { return slices.Contains(by, r.Policy) })
		}
		switch {
		case forbidden("requester-may-not-approve", "author-may-not-approve"):
			return no("own_change", "you requested this change or made its model; another member of {group} has to approve it", "group", group)
		case forbidden("only-the-group-decides"):
			return no("not_in_group", "only members of {group} decide this", "group", group)
		}
		return no("missing_role", "you need the role {roles}", "roles", "approver")
	}
	return true, nil, nil
}

// Cancel withdraws a change that is not implemented yet.
func (s *Service) Cancel(ctx context.Context, project, changeID string) (Detail, error) {
	d, err := s.Change(ctx, project, changeID)
	if err != nil {
		return d, err
	}
	err = s.store.Change(ctx, "change.cancel", resource(d.Change), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		c, err := selectChange(ctx, tx, project, changeID)
		if err != nil {
			return event.Draft{}, err
		}
		if c.State != Assessing && c.State != PendingApproval {
			return event.Draft{}, fault.New(fault.Conflict, fmt.Sprintf("Change %s is %s and cannot be cancelled.", c.ID, c.State), "falaj rollback undoes what is implemented.")
		}
		tx.Before(c)
		c.State = Cancelled
		tx.After(c)
		if err := insertStep(ctx, tx, c.ID, who.From(ctx).String(), "cancelled", note.New("event.cancelled", "withdrawn")); err != nil {
			return event.Draft{}, err
		}
		return event.Draft{Type: "change.cancelled", Subject: c.ID}, updateState(ctx, tx, c)
	})
	if err != nil {
		return d, err
	}
	return s.Change(ctx, project, changeID)
}

// Change returns one change with its evidence.
func (s *Service) Change(ctx context.Context, project, changeID string) (d Detail, err error) {
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		d, err = selectDetail(ctx, q, project, changeID)
		return err
	})
	return d, err
}

// Changes lists changes, newest first.
func (s *Service) Changes(ctx context.Context, project string, f Filter) (out []Change, err error) {
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		out, err = selectChanges(ctx, q, project, f)
		return err
	})
	return out, err
}

// Unsettled lists the changes in which the machinery is at work: neither final nor waiting for a person or for traffic.
func (s *Service) Unsettled(ctx context.Context, project string) (out []string, err error) {
	for _, state := range []State{Assessing, Approved, Implementing} {
		list, err := s.Changes(ctx, project, Filter{State: state, Limit: 100})
		if err != nil {
			return nil, err
		}
		for _, c := range list {
			out = append(out, c.ID)
		}
	}
	return out, nil
}

// Pointers is what the environments of a model hold now; model "" means all models of the project, project "" all.
func (s *Service) Pointers(ctx context.Context, project, model string) (out []Pointer, err error) {
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		out, err = selectPointers(ctx, q, project, model)
		return err
	})
	return out, err
}

// Timeline is who moved what and why, oldest first.
func (s *Service) Timeline(ctx context.Context, project, model string) (out []Move, err error) {
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		out, err = selectMoves(ctx, q, project, model)
		return err
	})
	return out, err
}

func digestOf(e Evidence) string {
	e.Digest = ""
	b, err := json.Marshal(e)
	if err != nil {
		return ""
	}
	return sha(b)
}

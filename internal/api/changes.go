package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"falaj/internal/delivery"
	"falaj/internal/kernel/note"
	"falaj/internal/kernel/policy"
	"falaj/internal/store"
)

// ChangeSummary is one line of the list of changes.
type ChangeSummary struct {
	ID          string     `json:"id"`
	Kind        string     `json:"kind" enum:"standard,normal,emergency"`
	State       string     `json:"state"`
	Verb        string     `json:"verb" enum:"promote,rollback"`
	Requester   ActorRef   `json:"requester"`
	Model       string     `json:"model"`
	FromVersion *int64     `json:"from_version"`
	ToVersion   int64      `json:"to_version"`
	Release     string     `json:"release"`
	Environment string     `json:"environment"`
	CreatedAt   int64      `json:"created_at"`
	UpdatedAt   int64      `json:"updated_at"`
	Gates       GateCounts `json:"gates"`
	Note        *note.Note `json:"note"`
}

// GateCounts says how the gates stand.
type GateCounts struct {
	Passed  int `json:"passed"`
	Failed  int `json:"failed"`
	Waiting int `json:"waiting"`
}

// ChangeDetail is a change with its evidence.
type ChangeDetail struct {
	ChangeSummary
	Reason         string              `json:"reason"`
	Evidence       []delivery.Evidence `json:"evidence"`
	Approvals      []Approval          `json:"approvals"`
	ApprovalNeeded *ApprovalNeeded     `json:"approval_needed"`
	Backout        Backout             `json:"backout"`
	Events         []ChangeEvent       `json:"events"`
	Can            Can                 `json:"can"`
	LedgerSeq      *int64              `json:"ledger_seq"`
	PipelineRun    *string             `json:"pipeline_run"`
}

// Approval is one person's decision.
type Approval struct {
	At       int64    `json:"at"`
	Actor    ActorRef `json:"actor"`
	Decision string   `json:"decision"`
	Comment  string   `json:"comment"`
}

// ApprovalNeeded says who still has to say yes.
type ApprovalNeeded struct {
	Group     string `json:"group"`
	Count     int    `json:"count"`
	NotAuthor bool   `json:"not_author"`
}

// Backout is the automatic back-out plan.
type Backout struct {
	ToVersion *int64    `json:"to_version"`
	Note      note.Note `json:"note"`
	Command   string    `json:"command"`
}

// ChangeEvent is one line of the change's story.
type ChangeEvent struct {
	At    int64     `json:"at"`
	Actor ActorRef  `json:"actor"`
	Type  string    `json:"type"`
	Note  note.Note `json:"note"`
}

// Can says what the caller may do now, and why not.
type Can struct {
	Approve Permission `json:"approve"`
	Reject  Permission `json:"reject"`
}

// Permission is a yes, or a no with its reason.
type Permission struct {
	Allowed bool       `json:"allowed"`
	Reason  *note.Note `json:"reason"`
}

type changesIn struct {
	InProject
	State     string `query:"state"`
	Model     string `query:"model"`
	PageToken string `query:"page_token"`
	Limit     int    `query:"limit" default:"100" minimum:"1" maximum:"1000"`
}

// ChangeIn names a change; it is exported because huma reads only exported embedded fields.
type ChangeIn struct {
	InProject
	ID string `path:"change"`
}

type decisionIn struct {
	ChangeIn
	Body struct {
		Comment string `json:"comment" maxLength:"4000"`
	}
}

type promoteIn struct {
	InProject
	Body struct {
		Model       string `json:"model"`
		Version     int64  `json:"version"`
		Environment string `json:"environment"`
		Reason      string `json:"reason,omitempty" maxLength:"4000"`
		Key         string `json:"key,omitempty" doc:"idempotency key: the same key gives the same change"`
	}
}

type rollbackIn struct {
	InProject
	Body struct {
		Model       string `json:"model"`
		Environment string `json:"environment"`
		ToVersion   int64  `json:"to_version,omitempty" doc:"0: the release before the present one"`
		Reason      string `json:"reason,omitempty" maxLength:"4000"`
		Key         string `json:"key,omitempty" doc:"idempotency key: the same key gives the same change"`
	}
}

func (a *API) changes() {
	add(a, "GET", "/projects/{p}/changes", "listChanges", "Changes, newest first", "change.read", a.listChanges)
	add(a, "GET", "/projects/{p}/changes/{change}", "getChange", "A change with its evidence", "change.read", a.getChange)
	add(a, "POST", "/projects/{p}/changes", "promote", "Ask for a promotion", "change.request", a.promote, status(http.StatusCreated))
	add(a, "POST", "/projects/{p}/changes/{change}/approve", "approveChange", "Approve a change", "change.read", a.approve)
	add(a, "POST", "/projects/{p}/changes/{change}/reject", "rejectChange", "Reject a change", "change.read", a.reject)
	add(a, "POST", "/projects/{p}/changes/{change}/cancel", "cancelChange", "Withdraw a change", "change.cancel", a.cancelChange)
	add(a, "POST", "/projects/{p}/rollback", "rollback", "Put an earlier release back at once", "delivery.rollback", a.rollback)
}

func (a *API) listChanges(ctx context.Context, in *changesIn) (*Out[Page[ChangeSummary]], error) {
	before, err := pageSeq(in.PageToken)
	if err != nil {
		return nil, err
	}
	list, err := a.Delivery.Changes(ctx, in.Project, delivery.Filter{Model: in.Model, State: delivery.State(in.State), Before: before, Limit: in.Limit})
	if err != nil {
		return nil, err
	}
	p := Page[ChangeSummary]{Items: []ChangeSummary{}}
	for _, c := range list {
		d, err := a.Delivery.Change(ctx, in.Project, c.ID)
		if err != nil {
			return nil, err
		}
		p.Items = append(p.Items, summary(d))
	}
	if len(list) == in.Limit {
		p.NextPageToken = strconv.FormatInt(list[len(list)-1].Seq, 10)
	}
	return answer(p), nil
}

func summary(d delivery.Detail) ChangeSummary {
	s := ChangeSummary{ID: d.ID, Kind: d.Kind, State: string(d.State), Verb: d.Verb, Requester: actorRef(d.Requester), Model: d.Model, ToVersion: d.ToVersion, Release: d.ToRelease,
		Environment: d.Environment, CreatedAt: store.Micros(d.Created), UpdatedAt: store.Micros(d.Updated), Note: d.Note}
	if d.FromVersion != 0 {
		s.FromVersion = &d.FromVersion
	}
	for _, e := range d.Evidence {
		if e.Verdict == delivery.Passed {
			s.Gates.Passed++
		} else {
			s.Gates.Failed++
		}
	}
	for _, g := range d.Gates {
		if g.Kind == delivery.GateApproval && approved(d) {
			s.Gates.Passed++
		}
	}
	if n := len(d.Gates) - s.Gates.Passed - s.Gates.Failed; n > 0 {
		s.Gates.Waiting = n
	}
	return s
}

func approved(d delivery.Detail) bool {
	for _, a := range d.Approvals {
		if a.Decision == "approved" {
			return true
		}
	}
	return false
}

func (a *API) getChange(ctx context.Context, in *ChangeIn) (*Out[ChangeDetail], error) {
	d, err := a.Delivery.Change(ctx, in.Project, in.ID)
	if err != nil {
		return nil, err
	}
	return a.detail(ctx, d)
}

func (a *API) detail(ctx context.Context, d delivery.Detail) (*Out[ChangeDetail], error) {
	out := ChangeDetail{ChangeSummary: summary(d), Reason: d.Reason, Evidence: d.Evidence, Approvals: []Approval{}, Events: []ChangeEvent{}}
	if out.Evidence == nil {
		out.Evidence = []delivery.Evidence{}
	}
	for _, x := range d.Approvals {
		out.Approvals = append(out.Approvals, Approval{store.Micros(x.At), actorRef(x.Actor), x.Decision, x.Comment})
	}
	for _, x := range d.Events {
		out.Events = append(out.Events, ChangeEvent{store.Micros(x.At), actorRef(x.Actor), x.Type, x.Note})
	}
	for _, g := range d.Gates {
		if g.Kind == delivery.GateApproval && !approved(d) {
			out.ApprovalNeeded = &ApprovalNeeded{g.Group, 1, g.NotAuthor}
		}
	}
	out.Backout = Backout{Note: note.New("backout.empty", "the environment becomes empty"), Command: fmt.Sprintf("falaj rollback %s/%s %s", d.Project, d.Model, d.Environment)}
	if d.FromVersion != 0 {
		out.Backout.ToVersion = &d.FromVersion
		out.Backout.Note = note.New("backout.rollback", fmt.Sprintf("%s@%d serves again", d.Model, d.FromVersion), "version", d.FromVersion)
	}
	if d.Pipeline != "" {
		out.PipelineRun = &d.Pipeline
	}
	for action, to := range map[policy.Action]*Permission{"change.approve": &out.Can.Approve, "change.reject": &out.Can.Reject} {
		ok, why, err := a.Delivery.MayDecide(ctx, d.Change, action)
		if err != nil {
			return nil, err
		}
		*to = Permission{ok, why}
	}
	rows, err := a.Store.Recent(ctx, d.Project, "change.request", "", 0, 1000)
	for _, r := range rows {
		if strings.HasSuffix(r.Resource, d.ID) && r.Decision == "allow" {
			out.LedgerSeq = &r.Seq
		}
	}
	return answer(out), err
}

func (a *API) promote(ctx context.Context, in *promoteIn) (*Out[ChangeDetail], error) {
	c, err := a.Delivery.Request(ctx, in.Project, delivery.PromoteRequest{Model: in.Body.Model, Version: in.Body.Version, Environment: in.Body.Environment, Reason: in.Body.Reason, Key: in.Body.Key})
	if err != nil {
		return nil, err
	}
	return a.getChange(ctx, &ChangeIn{in.InProject, c.ID})
}

func (a *API) approve(ctx context.Context, in *decisionIn) (*Out[ChangeDetail], error) {
	d, err := a.Delivery.Approve(ctx, in.Project, in.ID, in.Body.Comment)
	if err != nil {
		return nil, err
	}
	return a.detail(ctx, d)
}

func (a *API) reject(ctx context.Context, in *decisionIn) (*Out[ChangeDetail], error) {
	d, err := a.Delivery.Reject(ctx, in.Project, in.ID, in.Body.Comment)
	if err != nil {
		return nil, err
	}
	return a.detail(ctx, d)
}

func (a *API) cancelChange(ctx context.Context, in *ChangeIn) (*Out[ChangeDetail], error) {
	d, err := a.Delivery.Cancel(ctx, in.Project, in.ID)
	if err != nil {
		return nil, err
	}
	return a.detail(ctx, d)
}

func (a *API) rollback(ctx context.Context, in *rollbackIn) (*Out[ChangeDetail], error) {
	c, err := a.Delivery.Rollback(ctx, in.Project, in.Body.Model, in.Body.Environment, in.Body.ToVersion, in.Body.Reason, in.Body.Key)
	if err != nil {
		return nil, err
	}
	return a.getChange(ctx, &ChangeIn{in.InProject, c.ID})
}

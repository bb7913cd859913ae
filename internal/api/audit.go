package api

import (
	"context"
	"fmt"
	"strings"

	"falaj/internal/audit"
	"falaj/internal/kernel/ledger"
	"falaj/internal/kernel/note"
)

// AuditEntry is one ledger row as pages show it.
type AuditEntry struct {
	Seq      int64       `json:"seq"`
	At       int64       `json:"at"`
	Actor    ActorRef    `json:"actor"`
	Via      string      `json:"via"`
	Action   string      `json:"action"`
	Resource AuditTarget `json:"resource"`
	Outcome  string      `json:"outcome" enum:"allowed,refused"`
	Reason   *note.Note  `json:"reason"`
	Before   *string     `json:"before"`
	After    *string     `json:"after"`
	Hash     string      `json:"hash"`
}

// AuditTarget names what was acted on.
type AuditTarget struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
}

// AuditPage is newest first.
type AuditPage struct {
	Items     []AuditEntry `json:"items"`
	NextAfter *int64       `json:"next_after"`
	Head      int64        `json:"head"`
}

// AuditVerification is the outcome of walking the chain.
type AuditVerification struct {
	OK       bool          `json:"ok"`
	Entries  int64         `json:"entries"`
	Events   int64         `json:"events"`
	Blobs    int64         `json:"blobs"`
	HeadSeq  int64         `json:"head_seq"`
	HeadHash string        `json:"head_hash"`
	TookMS   float64       `json:"took_ms"`
	Broken   *AuditBroken  `json:"broken"`
	All      []AuditBroken `json:"all" doc:"everything that is broken"`
}

// AuditBroken is one thing that does not hold.
type AuditBroken struct {
	Seq  int64     `json:"seq"`
	Note note.Note `json:"note"`
}

type auditIn struct {
	InProject
	After  int64  `query:"after" doc:"show entries before this sequence number"`
	Limit  int    `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	Action string `query:"action"`
	Actor  string `query:"actor"`
}

func (a *API) audit() {
	add(a, "GET", "/projects/{p}/audit", "listAudit", "The project's audit entries, newest first", "audit.read", a.auditPage)
	add(a, "GET", "/projects/{p}/audit/verify", "verifyAuditOfProject", "Verify the chain", "audit.read", func(ctx context.Context, _ *InProject) (*Out[AuditVerification], error) { return a.verify(ctx, false) })
	add(a, "GET", "/audit/verify", "verifyAudit", "Verify the chain, the events and every stored byte", "audit.verify", func(ctx context.Context, in *struct {
		Deep bool `query:"deep" default:"true"`
	}) (*Out[AuditVerification], error) {
		return a.verify(ctx, in.Deep)
	}, installation("Ledger"))
}

func (a *API) auditPage(ctx context.Context, in *auditIn) (*Out[AuditPage], error) {
	rows, err := a.Store.Recent(ctx, in.Project, in.Action, in.Actor, in.After, in.Limit)
	if err != nil {
		return nil, err
	}
	head, _, err := a.Store.Head(ctx)
	if err != nil {
		return nil, err
	}
	p := AuditPage{Items: []AuditEntry{}, Head: head}
	for _, r := range rows {
		p.Items = append(p.Items, auditEntry(r))
	}
	if len(rows) == in.Limit {
		p.NextAfter = &rows[len(rows)-1].Seq
	}
	return answer(p), nil
}

func auditEntry(r ledger.Row) AuditEntry {
	kind, id, _ := strings.Cut(r.Resource, "::")
	e := AuditEntry{Seq: r.Seq, At: r.Time, Actor: actorRef(r.Actor), Via: r.Via, Action: r.Action, Resource: AuditTarget{strings.ToLower(kind), id}, Outcome: "allowed", Before: digestOrNil(r.Before), After: digestOrNil(r.After), Hash: "sha256:" + r.Hash}
	if r.Decision != "allow" {
		e.Outcome = "refused"
		n := note.New("policy", "{policies}", "policies", strings.Join(r.Reasons, ", "))
		e.Reason = &n
	}
	return e
}

func digestOrNil(s string) *string {
	if s == "" {
		return nil
	}
	s = "sha256:" + s
	return &s
}

func (a *API) verify(ctx context.Context, deep bool) (*Out[AuditVerification], error) {
	r, err := a.Audit.Verify(ctx, deep)
	if err != nil {
		return nil, err
	}
	v := AuditVerification{OK: r.OK, Entries: r.Entries, Events: r.Events, Blobs: r.Blobs, HeadSeq: r.HeadSeq, HeadHash: "sha256:" + r.HeadHash, TookMS: float64(r.Took.Microseconds()) / 1000, All: []AuditBroken{}}
	for _, b := range r.Broken {
		v.All = append(v.All, AuditBroken{b.Seq, note.New("ledger.broken", brokenPlace(b), "seq", b.Seq)})
	}
	if len(v.All) > 0 {
		v.Broken = &v.All[0]
	}
	return answer(v), nil
}

// brokenPlace names what is broken: a row by its number, an event by its id and row, a blob by project, digest and file.
func brokenPlace(b audit.Broken) string {
	if b.Seq != 0 {
		return fmt.Sprintf("%s row %d (%s): %s", b.Kind, b.Seq, b.Name, b.Why)
	}
	return fmt.Sprintf("%s %s: %s", b.Kind, b.Name, b.Why)
}

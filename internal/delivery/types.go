// Package delivery decides which release runs in which environment: gates, approvals, promotion, rollback.
// It only decides and moves pointers, and keeps who moved them and why; serving follows the pointers by event.
package delivery

import (
	"context"
	"time"

	"falaj/internal/kernel/note"
)

// Gate is one condition of an environment, as declared in falaj.yaml.
type Gate struct {
	Kind      string   `json:"kind"` // tests, metric, beats, parity, scan, latency_p99_ms, approval
	Metric    string   `json:"metric,omitempty"`
	Min       *float64 `json:"min,omitempty"`
	Max       *float64 `json:"max,omitempty"`
	On        string   `json:"on,omitempty"` // beats: latest_labelled_window
	Group     string   `json:"group,omitempty"`
	NotAuthor bool     `json:"not_author,omitempty"`
}

// The kinds of gates.
const (
	GateTests    = "tests"
	GateMetric   = "metric"
	GateBeats    = "beats"
	GateParity   = "parity"
	GateScan     = "scan"
	GateLatency  = "latency_p99_ms"
	GateApproval = "approval"
)

// Label says what the gate demands.
func (g Gate) Label() note.Note {
	switch g.Kind {
	case GateTests:
		return note.New("gate.tests", "unit, behaviour and integration tests pass")
	case GateMetric:
		if g.Max != nil {
			return note.New("gate.metric_max", "{metric} at most {max}", "metric", g.Metric, "max", *g.Max)
		}
		return note.New("gate.metric", "{metric} at least {min}", "metric", g.Metric, "min", deref(g.Min))
	case GateBeats:
		return note.New("gate.beats", "better than the champion on the newest labelled window ({metric})", "metric", g.Metric)
	case GateParity:
		return note.New("gate.parity", "features served online equal the offline join")
	case GateScan:
		return note.New("gate.scan", "the model's files are of known, safe formats")
	case GateLatency:
		return note.New("gate.latency_p99", "99 of 100 predictions within {ms} ms", "ms", deref(g.Max))
	case GateApproval:
		return note.New("gate.approval", "approved by a member of {group} who did not make it", "group", g.Group)
	}
	return note.New("gate.unknown", g.Kind)
}

func deref(f *float64) float64 {
	if f == nil {
		return 0
	}
	return *f
}

// Verdict of a gate.
type Verdict string

// The verdicts. Failed speaks of the model, Broken of the check itself; both refuse.
const (
	Passed  Verdict = "passed"
	Failed  Verdict = "failed"
	Waiting Verdict = "waiting"
	Broken  Verdict = "error"
)

// TestResult is one test of a suite (unit, behaviour, integration).
type TestResult struct {
	Suite      string  `json:"suite"`
	Name       string  `json:"name"`
	Verdict    Verdict `json:"verdict"`
	DurationMS float64 `json:"duration_ms"`
	Message    string  `json:"message"`
}

// Ref is what a page can show.
type Ref = note.Ref

// Evidence is the outcome of one gate, kept with the change for ever. Nil numbers are unknown.
type Evidence struct {
	Gate      string       `json:"gate"`
	Label     note.Note    `json:"label"`
	Verdict   Verdict      `json:"verdict"`
	Threshold *float64     `json:"threshold"`
	Direction string       `json:"direction"` // min, max or ""
	Observed  *float64     `json:"observed"`
	Low       *float64     `json:"low"`
	High      *float64     `json:"high"`
	Champion  *float64     `json:"champion"`
	Unit      string       `json:"unit"`
	Note      *note.Note   `json:"note"`
	Tests     []TestResult `json:"tests"`
	At        int64        `json:"at"` // microseconds UTC
	Digest    string       `json:"digest"`
	Ref       *Ref         `json:"ref"`
}

// State of a change (ITIL: assess, authorize, implement, review folded into what the product does).
type State string

// The states. Refused, rejected, closed, failed and cancelled are final.
const (
	Assessing       State = "assessing"
	PendingApproval State = "pending_approval"
	Approved        State = "approved"
	Implementing    State = "implementing"
	RollingOut      State = "rolling_out"
	Closed          State = "closed"
	Refused         State = "refused"
	Rejected        State = "rejected"
	FailedState     State = "failed"
	Cancelled       State = "cancelled"
)

// Final says whether nothing more happens to the change.
func (s State) Final() bool {
	switch s {
	case Closed, Refused, Rejected, FailedState, Cancelled:
		return true
	}
	return false
}

// Change is a change record. From is what serves now (version 0: nothing).
type Change struct {
	ID          string     `json:"id"`
	Project     string     `json:"project"`
	Seq         int64      `json:"seq"`
	Kind        string     `json:"kind"` // standard, normal, emergency
	Verb        string     `json:"verb"` // promote, rollback
	State       State      `json:"state"`
	Requester   string     `json:"requester"`
	Author      string     `json:"author"` // who trained the model
	Model       string     `json:"model"`
	Environment string     `json:"environment"`
	FromVersion int64      `json:"from_version"`
	FromRelease string     `json:"from_release"`
	ToVersion   int64      `json:"to_version"`
	ToRelease   string     `json:"to_release"`
	Reason      string     `json:"reason"`
	Note        *note.Note `json:"note"`
	Gates       []Gate     `json:"gates"`
	Rollout     []int      `json:"rollout"` // canary weights in percent
	Pipeline    string     `json:"pipeline"`
	Created     time.Time  `json:"created"`
	Updated     time.Time  `json:"updated"`
}

// Approval is one person's decision.
type Approval struct {
	Actor    string    `json:"actor"`
	Decision string    `json:"decision"` // approved or rejected
	Comment  string    `json:"comment"`
	At       time.Time `json:"at"`
}

// Step is one line of the change's story.
type Step struct {
	At    time.Time `json:"at"`
	Actor string    `json:"actor"`
	Type  string    `json:"type"`
	Note  note.Note `json:"note"`
}

// Detail is a change with all that is known of it.
type Detail struct {
	Change
	Evidence  []Evidence
	Approvals []Approval
	Events    []Step
}

// Pointer is what an environment holds now. Role is champion, canary or challenger (shadow); Weight in percent.
type Pointer struct {
	Project     string    `json:"project"`
	Model       string    `json:"model"`
	Environment string    `json:"environment"`
	Role        string    `json:"role"`
	Version     int64     `json:"version"`
	Release     string    `json:"release"`
	Weight      int64     `json:"weight"`
	Since       time.Time `json:"since"`
	EventAt     time.Time `json:"event_at"`
	Actor       string    `json:"actor"`
	Change      string    `json:"change"`
}

// The roles of pointers.
const (
	Champion   = "champion"
	Canary     = "canary"
	Challenger = "challenger"
)

// Move is one entry of the timeline.
type Move struct {
	Seq         int64     `json:"seq"`
	At          time.Time `json:"at"`
	EventAt     time.Time `json:"event_at"` // the project's event time then
	Actor       string    `json:"actor"`
	Environment string    `json:"environment"`
	Kind        string    `json:"kind"` // promote, rollback, refused, rejected, challenger, canary
	FromVersion int64     `json:"from_version"`
	FromRelease string    `json:"from_release"`
	ToVersion   int64     `json:"to_version"`
	ToRelease   string    `json:"to_release"`
	Change      string    `json:"change"`
	Reason      note.Note `json:"reason"`
}

// Candidate is a model version that may be promoted. Author is who trained it ("user:NAME").
type Candidate struct {
	Version int64
	Release string
	Run     string
	Author  string
}

// Catalog finds versions; the registry answers.
type Catalog interface {
	Candidate(ctx context.Context, project, model string, version int64) (Candidate, error)
}

// Evaluator gathers the evidence of one gate. Features, serving, monitoring and plan answer through app.
// It may run twice for the same change and must then say the same.
type Evaluator interface {
	Evaluate(ctx context.Context, c Change, g Gate) (Evidence, error)
	// Canary judges the running canary: waiting, passed or failed.
	Canary(ctx context.Context, c Change) (Evidence, error)
	// EventTime is the project's watermark: where event time stands.
	EventTime(ctx context.Context, project string) time.Time
}

// Policy is what an apply declares for a model.
type Policy struct {
	Environments []string          `json:"environments"` // in order
	Gates        map[string][]Gate `json:"gates"`
	Rollout      []int             `json:"rollout"` // canary weights for the last environment; empty: at once
}

// PromoteRequest asks for a version in an environment.
type PromoteRequest struct {
	Model       string
	Version     int64
	Environment string
	Reason      string
	Pipeline    string // the pipeline run that asks, or ""
	Note        *note.Note
	Key         string // idempotency key; the same key gives the same change
}

// Filter narrows a list of changes.
type Filter struct {
	Model  string
	State  State
	Before int64 // seq
	Limit  int
}

// Package policy decides whether an actor may do an action on a resource, with reasons, default deny.
// It embeds cedar with a constant policy set; roles come in as attributes of the project, so a decision costs the same for 5 or 1000 projects.
package policy

import (
	_ "embed"
	"fmt"
	"sort"
	"strings"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"falaj/internal/kernel/who"
)

//go:embed policies.cedar
var policyText []byte

// Resource is what is acted on. Project "" means the installation itself. Attrs that policies read:
// requester, author ("user:NAME"), group (who decides), run, parent (MLflow run ids), region.
type Resource struct {
	Kind    string
	ID      string
	Project string
	Attrs   map[string]string
}

// Unlabelled is the region of a place that nobody labelled: outside of all.
const Unlabelled = "unlabelled"

// In gives the resource a region: that of the place where its bytes go or lie.
func (r Resource) In(region string) Resource {
	if region == "" {
		region = Unlabelled
	}
	attrs := map[string]string{"region": region}
	for k, v := range r.Attrs {
		attrs[k] = v
	}
	r.Attrs = attrs
	return r
}

// String is Kind::project/id as written in the ledger.
func (r Resource) String() string {
	if r.Project == "" {
		return r.Kind + "::" + r.ID
	}
	return r.Kind + "::" + r.Project + "/" + r.ID
}

// Bindings maps a role to the principals ("user:a", "group:g", "service:s") that hold it in the resource's project or in "*".
type Bindings map[Role][]string

// Reason names the policy that decided.
type Reason struct {
	Policy string `json:"policy"`
	Text   string `json:"text"`
}

// Decision is the answer. Reasons name the deciding policies; Missing lists the roles that would allow, when nothing forbids.
type Decision struct {
	Allow   bool     `json:"allow"`
	Reasons []Reason `json:"reasons"`
	Missing []Role   `json:"missing,omitempty"`
}

// Input is one question.
type Input struct {
	Actor    who.Actor
	Action   Action
	Resource Resource
	Roles    Bindings
	Regions  []string // that the project allows
	Open     bool     // open mode
}

// Engine holds the parsed policies. It is safe for concurrent use.
type Engine struct {
	set     *cedar.PolicySet
	reasons map[types.PolicyID]Reason
	actions map[Action]types.EntityUID
	graph   types.EntityMap // actions and their capability groups
}

// New parses the embedded policies.
func New() (*Engine, error) {
	list, err := cedar.NewPolicyListFromBytes("policies.cedar", policyText)
	if err != nil {
		return nil, fmt.Errorf("policies.cedar: %w", err)
	}
	e := &Engine{set: cedar.NewPolicySet(), reasons: map[types.PolicyID]Reason{}, actions: map[Action]types.EntityUID{}, graph: types.EntityMap{}}
	for _, p := range list {
		a := p.Annotations()
		id := types.PolicyID(a["id"])
		if id == "" || a["reason"] == "" {
			return nil, fmt.Errorf("policies.cedar:%d: a policy needs @id and @reason", p.Position().Line)
		}
		e.set.Add(id, p)
		e.reasons[id] = Reason{string(id), string(a["reason"])}
	}
	parents := map[Action][]types.EntityUID{}
	for c, actions := range Vocabulary() {
		for _, a := range actions {
			parents[a] = append(parents[a], uid("Action", string(c)))
		}
	}
	for _, a := range TrainingActions() {
		parents[a] = append(parents[a], uid("Action", "training"))
	}
	for a, up := range parents {
		u := uid("Action", string(a))
		e.actions[a] = u
		e.graph[u] = types.Entity{UID: u, Parents: types.NewEntityUIDSet(up...)}
	}
	return e, nil
}

func uid(kind, id string) types.EntityUID {
	return types.NewEntityUID(types.EntityType(kind), types.String(id))
}

// Known says whether the vocabulary has the action.
func (e *Engine) Known(a Action) bool { _, ok := e.actions[a]; return ok }

// Decide answers one question. It allocates a handful of small values and touches no database.
func (e *Engine) Decide(in Input) Decision {
	d := e.decide(in)
	if d.Allow || len(d.Reasons) > 0 {
		return d
	}
	// An implicit deny has no reason in Cedar: ask again with each role to say what is missing.
	me := in.Actor.String()
	for _, r := range Roles() {
		try := in
		try.Roles = Bindings{r: {me}}
		if e.decide(try).Allow {
			d.Missing = append(d.Missing, r)
		}
	}
	return d
}

func (e *Engine) decide(in Input) Decision {
	action, ok := e.actions[in.Action]
	if !ok {
		return Decision{Reasons: []Reason{{"vocabulary", "There is no action '" + string(in.Action) + "'."}}}
	}
	world := entities{base: e.graph, more: make(map[types.EntityUID]types.Entity, 4)}
	principal := world.principal(in.Actor)
	project := world.project(in.Resource.Project, in.Roles)
	resource := world.resource(in.Resource, project)
	regions := make([]types.Value, len(in.Regions))
	for i, r := range in.Regions {
		regions[i] = types.String(r)
	}
	dec, diag := e.set.IsAuthorized(world, cedar.Request{
		Principal: principal, Action: action, Resource: resource,
		Context: types.NewRecord(types.RecordMap{
			"open":    types.Boolean(in.Open && in.Actor.Via == "open"),
			"origin":  types.String(in.Actor.Origin()),
			"regions": types.NewSet(regions...),
		}),
	})
	out := Decision{Allow: bool(dec)}
	for _, r := range diag.Reasons {
		reason := e.reasons[r.PolicyID]
		reason.Text = strings.ReplaceAll(reason.Text, "{group}", in.Resource.Attrs["group"])
		out.Reasons = append(out.Reasons, reason)
	}
	for _, err := range diag.Errors { // a policy that cannot be evaluated must never turn into an allow unseen
		out.Allow = false
		out.Reasons = append(out.Reasons, Reason{string(err.PolicyID), "could not be evaluated: " + err.Message})
	}
	sort.Slice(out.Reasons, func(i, j int) bool { return out.Reasons[i].Policy < out.Reasons[j].Policy })
	return out
}

// entities is the little world of one question over the constant action graph.
type entities struct {
	base types.EntityMap
	more map[types.EntityUID]types.Entity
}

func (w entities) Get(u types.EntityUID) (types.Entity, bool) {
	if e, ok := w.more[u]; ok {
		return e, true
	}
	return w.base.Get(u)
}

func (w entities) principal(a who.Actor) types.EntityUID {
	kind := map[who.Kind]string{who.User: "User", who.Service: "Service", who.Run: "Run", who.System: "System"}[a.Kind]
	if kind == "" {
		kind, a.Name = "Anonymous", "anonymous"
	}
	u := uid(kind, a.Name)
	attrs := types.RecordMap{}
	if a.Scope.Project != "" {
		attrs["project"] = uid("Project", a.Scope.Project)
	}
	if a.Scope.Role != "" {
		attrs["cap"] = types.String(a.Scope.Role)
	}
	if a.Scope.Run != "" {
		attrs["run"] = types.String(a.Scope.Run)
	}
	groups := make([]types.EntityUID, len(a.Groups))
	for i, g := range a.Groups {
		groups[i] = uid("Group", g)
	}
	w.more[u] = types.Entity{UID: u, Parents: types.NewEntityUIDSet(groups...), Attributes: types.NewRecord(attrs)}
	return u
}

func (w entities) project(name string, b Bindings) types.EntityUID {
	if name == "" {
		name = "*"
	}
	u := uid("Project", name)
	attrs := types.RecordMap{}
	for _, r := range Roles() {
		set := make([]types.Value, 0, len(b[r]))
		for _, p := range b[r] {
			set = append(set, parsePrincipal(p))
		}
		attrs[types.String(r)] = types.NewSet(set...)
	}
	w.more[u] = types.Entity{UID: u, Attributes: types.NewRecord(attrs)}
	return u
}

func (w entities) resource(r Resource, project types.EntityUID) types.EntityUID {
	u := uid("Resource", r.String())
	attrs := types.RecordMap{"project": project}
	for k, v := range r.Attrs {
		switch {
		case v == "":
		case k == "group":
			attrs["group"] = uid("Group", v)
		default:
			attrs[types.String(k)] = types.String(v)
		}
	}
	w.more[u] = types.Entity{UID: u, Attributes: types.NewRecord(attrs)}
	return u
}

func parsePrincipal(s string) types.EntityUID {
	kind, name, _ := strings.Cut(s, ":")
	switch kind {
	case "group":
		return uid("Group", name)
	case "service":
		return uid("Service", name)
	case "run":
		return uid("Run", name)
	case "anonymous":
		return uid("Anonymous", "anonymous")
	}
	return uid("User", name)
}

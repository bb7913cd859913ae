package api

import (
	"context"
	"slices"
	"strings"
	"time"

	"falaj/internal/delivery"
	"falaj/internal/kernel/note"
	"falaj/internal/monitoring"
	"falaj/internal/registry"
	"falaj/internal/serving"
	"falaj/internal/tracking"
)

// Health of a model in its last environment.
const (
	healthy  = "healthy"
	degraded = "degraded"
	failing  = "failing"
	unknown  = "unknown"
)

// fleet is what the pages ask again and again of the models of a project, read in a fixed number of queries however many
// models there are.
type fleet struct {
	versions  map[string][]registry.Version // by model, newest first
	release   map[string]registry.Version   // by digest
	pointers  map[string][]delivery.Pointer // by model
	endpoints map[place]serving.Endpoint
	alerts    map[string][]monitoring.Alert // by model, those that are not resolved, newest first
	moving    map[place]bool                // a change is moving the pointer
	pending   map[string]int                // by model: changes that are not final
}

// place is an environment of a model.
type place struct{ model, environment string }

// fleet reads one model, or with "" all of the project.
func (a *API) fleet(ctx context.Context, project, model string) (*fleet, error) {
	f := &fleet{versions: map[string][]registry.Version{}, release: map[string]registry.Version{}, pointers: map[string][]delivery.Pointer{}, endpoints: map[place]serving.Endpoint{},
		alerts: map[string][]monitoring.Alert{}, moving: map[place]bool{}, pending: map[string]int{}}
	search := tracking.Search{OrderBy: []string{"name ASC", "version_number DESC"}}
	if model != "" {
		search.Filter = "name = '" + strings.ReplaceAll(model, "'", "''") + "'"
	}
	for {
		p, err := a.Registry.SearchVersions(ctx, project, search)
		if err != nil {
			return nil, err
		}
		for _, v := range p.Items {
			f.versions[v.Model] = append(f.versions[v.Model], v)
			if v.Release != "" {
				f.release[v.Release] = v
			}
		}
		if search.Token = p.Next; p.Next == "" {
			break
		}
	}
	pointers, err := a.Delivery.Pointers(ctx, project, model)
	if err != nil {
		return nil, err
	}
	for _, p := range pointers {
		f.pointers[p.Model] = append(f.pointers[p.Model], p)
	}
	endpoints, err := a.Serving.Endpoints(ctx, project)
	if err != nil {
		return nil, err
	}
	for _, e := range endpoints {
		f.endpoints[place{e.Model, e.Environment}] = e
	}
	for _, state := range []string{monitoring.AlertOpen, monitoring.AlertAcknowledged} {
		open, err := a.Monitoring.Alerts(ctx, monitoring.Key{Project: project, Model: model}, state, 1000)
		if err != nil {
			return nil, err
		}
		for _, al := range open {
			f.alerts[al.Model] = append(f.alerts[al.Model], al)
		}
	}
	for _, list := range f.alerts {
		slices.SortStableFunc(list, func(a, b monitoring.Alert) int { return b.At.Compare(a.At) })
	}
	for _, state := range []delivery.State{delivery.Assessing, delivery.PendingApproval, delivery.Approved, delivery.Implementing, delivery.RollingOut} {
		changes, err := a.Delivery.Changes(ctx, project, delivery.Filter{Model: model, State: state, Limit: 1000})
		if err != nil {
			return nil, err
		}
		for _, c := range changes {
			f.pending[c.Model]++
			if state != delivery.Assessing && state != delivery.PendingApproval {
				f.moving[place{c.Model, c.Environment}] = true
			}
		}
	}
	return f, nil
}

// number is the version that a release belongs to, 0 when nobody knows.
func (f *fleet) number(release string) int64 { return f.release[release].Number }

func (f *fleet) pointer(model, environment, role string) (delivery.Pointer, bool) {
	for _, p := range f.pointers[model] {
		if p.Environment == environment && p.Role == role {
			return p, true
		}
	}
	return delivery.Pointer{}, false
}

// environment says what stands in one environment of a model.
func (f *fleet) environment(model, environment string) EnvironmentPointer {
	at := place{model, environment}
	out := EnvironmentPointer{Environment: environment, State: "empty", Variants: []Variant{}}
	if f.moving[at] {
		out.State = "activating"
	}
	p, ok := f.pointer(model, environment, delivery.Champion)
	if !ok {
		return out
	}
	actor := actorRef(p.Actor)
	out.Version, out.Release, out.Since, out.Actor = numberOrNil(p.Version), textOrNil(p.Release), microsOrNil(p.Since), &actor
	if !f.moving[at] {
		out.State = f.serves(at)
	}
	for _, r := range []struct{ ours, theirs string }{{delivery.Champion, "champion"}, {delivery.Canary, "challenger"}, {delivery.Challenger, "shadow"}} {
		if v, ok := f.pointer(model, environment, r.ours); ok {
			weight := float64(v.Weight) / 100
			if r.theirs == "shadow" {
				weight = 0
			}
			out.Variants = append(out.Variants, Variant{v.Version, r.theirs, weight})
		}
	}
	return out
}

// serves is the state of an endpoint that should answer.
func (f *fleet) serves(at place) string {
	e, ok := f.endpoints[at]
	switch {
	case ok && e.Ready:
		return "serving"
	case ok && e.Problem != "" && e.Problem != "It is being loaded.":
		return "failed"
	}
	return "activating"
}

// health judges a model by its last environment: failing when the endpoint is down, degraded while an alert is open,
// unknown when nothing serves there.
func (f *fleet) health(model, last string) (string, *note.Note) {
	if _, ok := f.pointer(model, last, delivery.Champion); !ok {
		return unknown, nil
	}
	at := place{model, last}
	if f.serves(at) == "failed" {
		n := note.New("endpoint.down", f.endpoints[at].Problem)
		return failing, &n
	}
	worst := slices.IndexFunc(f.alerts[model], func(al monitoring.Alert) bool {
		return al.Environment == last && al.Kind == monitoring.QualityDegraded
	})
	if worst < 0 {
		worst = slices.IndexFunc(f.alerts[model], func(al monitoring.Alert) bool { return al.Environment == last })
	}
	if worst >= 0 {
		n := alertNote(f.alerts[model][worst])
		return degraded, &n
	}
	if f.serves(at) != "serving" {
		return unknown, nil
	}
	return healthy, nil
}

// environments of a model in the order of promotion.
func (a *API) environments(ctx context.Context, project, model string) ([]string, error) {
	p, err := a.Delivery.Policy(ctx, project, model)
	return p.Environments, err
}

// lastTrained is when the newest version was registered.
func (f *fleet) lastTrained(model string) *int64 {
	var at time.Time
	for _, v := range f.versions[model] {
		at = later(at, v.Created)
	}
	return microsOrNil(at)
}

package api

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"falaj/internal/delivery"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/note"
	"falaj/internal/monitoring"
	"falaj/internal/plan/pipeline"
	"falaj/internal/registry"
)

// ModelDetail is the model's page.
type ModelDetail struct {
	ModelSummary
	Owners       []string       `json:"owners"`
	CreatedAt    int64          `json:"created_at"`
	VersionList  []ModelVersion `json:"version_list" doc:"newest first"`
	Timeline     []PointerMove  `json:"timeline" doc:"newest first"`
	Alerts       []Alert        `json:"alerts" doc:"open first, then newest first"`
	LastPipeline *string        `json:"last_pipeline"`
}

// ModelVersion is one version with the manifest of its release.
type ModelVersion struct {
	Version      int64               `json:"version"`
	Stage        string              `json:"stage" enum:"registered,shadow,deployed,archived,refused"`
	Environments []string            `json:"environments"`
	Health       string              `json:"health" enum:"healthy,degraded,failing,unknown"`
	Release      *string             `json:"release"`
	RunID        *string             `json:"run_id"`
	CreatedAt    int64               `json:"created_at"`
	Actor        ActorRef            `json:"actor"`
	Metrics      map[string]*float64 `json:"metrics"`
	Params       map[string]string   `json:"params"`
	Manifest     []ManifestEntry     `json:"manifest"`
	Note         *note.Note          `json:"note"`
}

// PointerMove is one entry of the timeline. At is wall time, EventAt where the project's event time stood.
type PointerMove struct {
	At          int64      `json:"at"`
	EventAt     *int64     `json:"event_at"`
	Actor       ActorRef   `json:"actor"`
	Environment string     `json:"environment"`
	From        *int64     `json:"from"`
	To          *int64     `json:"to"`
	Change      *string    `json:"change"`
	Kind        string     `json:"kind" enum:"promote,rollback,refused,retrain"`
	Approvers   []ActorRef `json:"approvers"`
	Reason      note.Note  `json:"reason"`
}

// How much of the past a model's page looks at.
const (
	shownChanges = 100
	shownRuns    = 50
)

func tierOf(m registry.Model) *int64 {
	for _, t := range m.Tags {
		if n, err := strconv.ParseInt(t.Value, 10, 64); t.Key == "tier" && err == nil {
			return &n
		}
	}
	return nil
}

func ownersOf(m registry.Model) []string {
	out := []string{}
	for _, t := range m.Tags {
		if t.Key != "owners" {
			continue
		}
		for o := range strings.SplitSeq(t.Value, ",") {
			if o = strings.TrimSpace(o); o != "" {
				out = append(out, o)
			}
		}
	}
	return out
}

func (a *API) getModel(ctx context.Context, in *InModel) (*Out[ModelDetail], error) {
	m, err := a.Registry.Model(ctx, in.Project, in.Model)
	if err != nil {
		return nil, err
	}
	f, err := a.fleet(ctx, in.Project, m.Name)
	if err != nil {
		return nil, err
	}
	d := ModelDetail{Owners: ownersOf(m), CreatedAt: microsOf(m.Created), Timeline: []PointerMove{}}
	var k monitoring.Key
	if d.ModelSummary, k, err = a.modelSummary(ctx, f, m); err != nil {
		return nil, err
	}
	runs, err := a.modelRuns(ctx, in.Project, m.Name)
	if err != nil {
		return nil, err
	}
	if len(runs) > 0 {
		d.LastPipeline = &runs[0].ID
	}
	changes, err := a.changesOf(ctx, in.Project, m.Name)
	if err != nil {
		return nil, err
	}
	moves, err := a.Delivery.Timeline(ctx, in.Project, m.Name)
	if err != nil {
		return nil, err
	}
	d.Timeline = append(training(runs, changes, k.Environment), timeline(moves, changes)...)
	slices.SortStableFunc(d.Timeline, func(x, y PointerMove) int { return int(min(max(y.At-x.At, -1), 1)) })
	if d.VersionList, err = a.versionList(ctx, f, m, k.Environment, changes, moves); err != nil {
		return nil, err
	}
	windows, err := a.judgedWindows(ctx, k)
	if err != nil {
		return nil, err
	}
	d.Alerts, err = a.alertList(ctx, f, monitoring.Key{Project: in.Project, Model: m.Name}, windows, runs)
	return answer(d), err
}

// modelRuns are the newest pipeline runs that trained this model or all models, newest first.
func (a *API) modelRuns(ctx context.Context, project, model string) ([]pipeline.Run, error) {
	all, err := a.Pipelines.Runs(ctx, project, "", 0, shownRuns)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(r pipeline.Run) bool {
		return r.Model != model && r.Model != "" || r.Pipeline == pipeline.IngestPipeline
	}), nil
}

// changesOf reads the newest changes of a model with their evidence, by id.
func (a *API) changesOf(ctx context.Context, project, model string) (map[string]delivery.Detail, error) {
	list, err := a.Delivery.Changes(ctx, project, delivery.Filter{Model: model, Limit: shownChanges})
	if err != nil {
		return nil, err
	}
	out := map[string]delivery.Detail{}
	for _, c := range list {
		if out[c.ID], err = a.Delivery.Change(ctx, project, c.ID); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// timeline turns moves into the page's entries. A canary is told only until its change went on to all of the traffic.
func timeline(moves []delivery.Move, changes map[string]delivery.Detail) []PointerMove {
	done := map[string]bool{}
	for _, m := range moves {
		done[m.Change] = done[m.Change] || m.Kind == "promote"
	}
	out := []PointerMove{}
	for _, m := range moves {
		kind := m.Kind
		switch m.Kind {
		case "canary":
			if done[m.Change] {
				continue
			}
			kind = "promote"
		case "rejected":
			kind = "refused"
		case "challenger":
			kind = "retrain"
		case "promote", "rollback", "refused":
		default: // a change that was withdrawn or could not go on moved nothing, and says why on its own page
			continue
		}
		p := PointerMove{At: microsOf(m.At), EventAt: microsOrNil(m.EventAt), Actor: actorRef(m.Actor), Environment: m.Environment, From: numberOrNil(m.FromVersion), To: numberOrNil(m.ToVersion),
			Change: textOrNil(m.Change), Kind: kind, Approvers: []ActorRef{}, Reason: m.Reason}
		for _, x := range changes[m.Change].Approvals {
			if x.Decision == "approved" {
				p.Approvers = append(p.Approvers, actorRef(x.Actor))
			}
		}
		out = append(out, p)
	}
	return out
}

// training tells of retrainings that are under way and have asked for nothing yet.
func training(runs []pipeline.Run, changes map[string]delivery.Detail, environment string) []PointerMove {
	out := []PointerMove{}
	for _, r := range runs {
		if r.Pipeline != pipeline.RetrainPipeline && r.Pipeline != pipeline.ChallengePipeline || r.State != pipeline.Waiting && r.State != pipeline.Running {
			continue
		}
		asked := false
		for _, c := range changes {
			asked = asked || c.Pipeline == r.ID
		}
		if !asked {
			out = append(out, PointerMove{At: microsOf(r.Created), Actor: actorRef(r.Actor), Environment: environment, Kind: "retrain", Approvers: []ActorRef{}, Reason: r.Request.Reason})
		}
	}
	return out
}

// versionList gives all versions with what became of each.
func (a *API) versionList(ctx context.Context, f *fleet, m registry.Model, last string, changes map[string]delivery.Detail, moves []delivery.Move) ([]ModelVersion, error) {
	releases, err := a.Registry.Releases(ctx, m.Project, m.Name)
	if err != nil {
		return nil, err
	}
	by := map[int64]registry.Release{}
	for _, r := range releases {
		by[r.Version] = r
	}
	facts := &manifests{api: a, project: m.Project, services: map[string]string{}, rows: map[string]map[int64]int64{}}
	out := []ModelVersion{}
	for _, v := range f.versions[m.Name] {
		x := ModelVersion{Version: v.Number, Environments: []string{}, Health: unknown, Release: textOrNil(v.Release), RunID: textOrNil(v.Run), CreatedAt: microsOf(v.Created), Actor: actorRef(v.Author),
			Metrics: map[string]*float64{}, Params: map[string]string{}, Manifest: []ManifestEntry{}}
		if r, ok := by[v.Number]; ok {
			x.Actor = actorRef(r.Author) // who asked for the pipeline; the version itself was registered by its run
			x.Metrics = metricsOf(r.Manifest.Metrics)
			for k, p := range r.Manifest.Parameters {
				x.Params[k] = p
			}
			if x.Manifest, err = facts.entries(ctx, r, changes); err != nil {
				return nil, err
			}
		} else if v.Run != "" {
			run, err := a.Tracking.Run(ctx, m.Project, v.Run)
			if err != nil && !fault.Is(err, fault.NotFound) {
				return nil, err
			}
			x.Metrics, x.Params = lastMetrics(run), pairs(run.Params)
		}
		a.fate(f, m.Name, last, &x, changes, moves)
		out = append(out, x)
	}
	return out, nil
}

// fate says where a version is, was, or why it never came anywhere.
func (a *API) fate(f *fleet, model, last string, v *ModelVersion, changes map[string]delivery.Detail, moves []delivery.Move) {
	for _, p := range f.pointers[model] {
		if p.Version == v.Version && p.Role != delivery.Challenger && !slices.Contains(v.Environments, p.Environment) {
			v.Environments = append(v.Environments, p.Environment)
		}
	}
	if len(v.Environments) > 0 {
		v.Stage = "deployed"
		states := []string{}
		for _, e := range v.Environments {
			states = append(states, f.serves(place{model, e}))
		}
		champion, _ := f.pointer(model, last, delivery.Champion)
		switch {
		case slices.Contains(v.Environments, last) && champion.Version == v.Version:
			v.Health, _ = f.health(model, last)
		case slices.Contains(states, "failed"):
			v.Health = failing
		case !slices.Contains(states, "activating"):
			v.Health = healthy
		}
		return
	}
	v.Stage = "registered"
	if c, ok := f.pointer(model, last, delivery.Challenger); ok && c.Version == v.Version {
		v.Stage = "shadow"
		return
	}
	for i := len(moves) - 1; i >= 0; i-- {
		m := moves[i]
		switch {
		case m.FromVersion == v.Version && (m.Kind == "promote" || m.Kind == "rollback") && m.ToVersion != v.Version:
			v.Stage = "archived"
			n := note.New("superseded", "replaced by {model}@{by}", "model", model, "by", m.ToVersion)
			if m.Kind == "rollback" {
				n = m.Reason
			}
			v.Note = &n
			return
		case m.ToVersion == v.Version && (m.Kind == "refused" || m.Kind == "rejected"):
			v.Stage = "refused"
			n := m.Reason
			if why := changes[m.Change].Note; why != nil {
				n = *why
			}
			v.Note = &n
			return
		}
	}
}

package api

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"falaj/internal/delivery"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/note"
	"falaj/internal/lineage"
	"falaj/internal/registry"
	"falaj/internal/serving"
)

// Cause is one sentence of an answer to "why", with what it points at.
type Cause struct {
	Text   string    `json:"text"`
	Ref    *note.Ref `json:"ref"`
	Digest string    `json:"digest"`
}

// Because answers why a model version is where it is, or why a prediction was what it was. Sections go from the decision
// down to the data.
type Because struct {
	Subject  string    `json:"subject"`
	Sections []Section `json:"sections"`
}

// Section is a group of reasons.
type Section struct {
	Title   string  `json:"title"`
	Reasons []Cause `json:"reasons"`
}

type whyModelIn struct {
	InProject
	Model       string `path:"model"`
	Version     int64  `query:"version" doc:"0: what serves the environment"`
	Environment string `query:"environment" doc:"default: the last one"`
}

type whyPredictionIn struct {
	InProject
	ID string `path:"prediction"`
}

func (a *API) whys() {
	add(a, "GET", "/projects/{p}/models/{model}/why", "whyModel", "Why this model version is where it is", "lineage.read", a.whyModel)
	add(a, "GET", "/projects/{p}/predictions/{prediction}/why", "whyPrediction", "Why a prediction was what it was", "lineage.read", a.whyPrediction)
}

func (a *API) whyModel(ctx context.Context, in *whyModelIn) (*Out[Because], error) {
	policy, err := a.Delivery.Policy(ctx, in.Project, in.Model)
	if err != nil {
		return nil, err
	}
	if in.Environment == "" {
		in.Environment = policy.Environments[len(policy.Environments)-1]
	}
	if in.Version == 0 {
		pointers, err := a.Delivery.Pointers(ctx, in.Project, in.Model)
		if err != nil {
			return nil, err
		}
		for _, p := range pointers {
			if p.Environment == in.Environment && p.Role == delivery.Champion {
				in.Version = p.Version
			}
		}
		if in.Version == 0 {
			return nil, fault.New(fault.NotFound, fmt.Sprintf("Nothing of %s serves in %s.", in.Model, in.Environment), "Name a version: falaj why "+in.Project+"/"+in.Model+"@1")
		}
	}
	v, err := a.Registry.Version(ctx, in.Project, in.Model, in.Version)
	if err != nil {
		return nil, err
	}
	out := Because{Subject: fmt.Sprintf("%s/%s@%d", in.Project, in.Model, in.Version)}
	decisions, err := a.decisions(ctx, in.Project, in.Model, in.Version)
	if err != nil {
		return nil, err
	}
	out.Sections = append(out.Sections, decisions...)
	if v.Release != "" {
		made, err := a.madeOf(ctx, in.Project, v.Release)
		if err != nil {
			return nil, err
		}
		out.Sections = append(out.Sections, made...)
	}
	from, err := a.cameFrom(ctx, in.Project, in.Model, in.Version)
	if err != nil {
		return nil, err
	}
	out.Sections = append(out.Sections, from)
	return answer(out), nil
}

// decisions are the moves of a version, each with its change's evidence and approvals.
func (a *API) decisions(ctx context.Context, project, model string, version int64) ([]Section, error) {
	moves, err := a.Delivery.Timeline(ctx, project, model)
	if err != nil {
		return nil, err
	}
	var out []Section
	for _, m := range moves {
		if m.ToVersion != version {
			continue
		}
		s := Section{Title: fmt.Sprintf("%s: %s, %s (event time %s), asked for by %s", m.Environment, m.Kind, m.At.UTC().Format(time.RFC3339), m.EventAt.UTC().Format("2006-01-02"), m.Actor),
			Reasons: []Cause{{Text: m.Reason.Text, Ref: &note.Ref{Kind: "change", ID: m.Change}}}}
		if m.Change != "" {
			d, err := a.Delivery.Change(ctx, project, m.Change)
			if err != nil {
				return nil, err
			}
			for _, e := range d.Evidence {
				text := fmt.Sprintf("%s: %s", e.Verdict, e.Label.Text)
				if e.Note != nil {
					text += " (" + e.Note.Text + ")"
				}
				s.Reasons = append(s.Reasons, Cause{Text: text, Ref: e.Ref, Digest: e.Digest})
			}
			for _, p := range d.Approvals {
				s.Reasons = append(s.Reasons, Cause{Text: strings.TrimSpace(fmt.Sprintf("%s by %s at %s %s", p.Decision, p.Actor, p.At.UTC().Format(time.RFC3339), p.Comment))})
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// madeOf is the release's manifest in sentences.
func (a *API) madeOf(ctx context.Context, project, digest string) ([]Section, error) {
	rel, err := a.Registry.Release(ctx, project, digest)
	if err != nil {
		return nil, err
	}
	m := rel.Manifest
	s := Section{Title: "made of", Reasons: []Cause{{Text: "release " + rel.Digest, Ref: &note.Ref{Kind: "release", ID: rel.Digest}, Digest: rel.Digest}}}
	add := func(kind, text, digest string, ref *note.Ref) {
		s.Reasons = append(s.Reasons, Cause{Text: kind + " " + text, Ref: ref, Digest: digest})
	}
	for _, d := range m.Data {
		add("data", d.Name+"@"+d.Version, d.Digest, &note.Ref{Kind: "dataset_version", ID: d.Name})
	}
	for _, f := range m.Features {
		add("features", f.Name, f.Digest, nil)
	}
	commit := m.Code.Commit
	switch {
	case commit == "":
		commit = "outside Git"
	case m.Code.Dirty:
		commit += " with local changes"
	}
	add("code", commit, m.Code.Digest, nil)
	add("runtime", short(m.Runtime), m.Runtime, nil)
	add("command", m.Command+" "+parameters(m), "", &note.Ref{Kind: "run", ID: m.Run})
	for _, name := range slices.Sorted(maps.Keys(m.Metrics)) {
		add("metric", fmt.Sprintf("%s = %.4g", name, float64(m.Metrics[name])), "", nil)
	}
	return []Section{s}, nil
}

func parameters(m registry.Manifest) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m.Parameters)) {
		out = append(out, k+"="+m.Parameters[k])
	}
	return "(" + strings.Join(out, ", ") + ")"
}

func short(digest string) string {
	d := strings.TrimPrefix(digest, "sha256:")
	return d[:min(12, len(d))]
}

// cameFrom lists the files and dataset versions upstream, the nearest first.
func (a *API) cameFrom(ctx context.Context, project, model string, version int64) (Section, error) {
	s := Section{Title: "came from", Reasons: []Cause{}}
	up, err := a.Lineage.Upstream(ctx, project, fmt.Sprintf("model_version:%s@%d", model, version), lineage.Dataset, lineage.Source)
	if fault.Is(err, fault.NotFound) {
		s.Reasons = append(s.Reasons, Cause{Text: "its origin was not recorded: it was registered by a client"})
		return s, nil
	}
	for _, n := range up {
		s.Reasons = append(s.Reasons, Cause{Text: fmt.Sprintf("%s %s", n.Kind, n.Label), Ref: &note.Ref{Kind: string(n.Kind), ID: n.ID}})
	}
	return s, err
}

func (a *API) whyPrediction(ctx context.Context, in *whyPredictionIn) (*Out[Because], error) {
	list, err := a.Monitoring.Predictions(ctx, in.Project, in.ID)
	if err != nil {
		return nil, err
	}
	p := list[0]
	out := Because{Subject: "prediction " + p.ID, Sections: []Section{{Title: "answered", Reasons: a.answered(p)}}}
	names := []string{}
	if t, err := a.Pipelines.Trained(ctx, in.Project, p.Release); err == nil {
		if info, err := a.Features.Describe(ctx, in.Project, t.Service); err == nil {
			names = info.Features
		}
	}
	s := Section{Title: "from these features"}
	for i, v := range p.Features {
		name := fmt.Sprintf("feature %d", i)
		if i < len(names) {
			name = names[i]
		}
		text := fmt.Sprintf("%s = %g", name, v)
		if v != v {
			text = name + " was missing"
		}
		s.Reasons = append(s.Reasons, Cause{Text: text})
	}
	out.Sections = append(out.Sections, s)
	made, err := a.madeOf(ctx, in.Project, p.Release)
	if err != nil {
		return nil, err
	}
	out.Sections = append(out.Sections, made...)
	return answer(out), nil
}

func (a *API) answered(p serving.Prediction) []Cause {
	return []Cause{
		{Text: fmt.Sprintf("%v for %s at %s", p.Output, p.Unit, p.At.UTC().Format(time.RFC3339))},
		{Text: fmt.Sprintf("by %s (%s) of %s in %s", short(p.Release), p.Variant, p.Model, p.Environment), Ref: &note.Ref{Kind: "release", ID: p.Release}, Digest: p.Release},
		{Text: "the features' digest is " + p.FeaturesDigest, Digest: p.FeaturesDigest},
	}
}

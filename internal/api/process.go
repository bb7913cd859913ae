package api

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"falaj/internal/data"
	"falaj/internal/delivery"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/note"
	"falaj/internal/plan/pipeline"
	"falaj/internal/process"
	"falaj/internal/store"
	"falaj/internal/tracking"
)

// Process is the lifecycle of a project as one live diagram.
type Process struct {
	Stages []ProcessStage  `json:"stages" nullable:"false"`
	Edges  []process.Edge  `json:"edges" nullable:"false" doc:"events that a stage follows, and calls that it makes"`
	Behind int64           `json:"behind" doc:"recorded events of the installation that some follower has not done with"`
	Wide   process.Drawing `json:"wide" doc:"laid out for about 1,080 px"`
	Narrow process.Drawing `json:"narrow" doc:"laid out for a phone"`
}

// ProcessStage is one stage. Its state is the worst that holds now.
type ProcessStage struct {
	Name   string         `json:"name" enum:"data,features,tracking,training,registry,delivery,serving,monitoring,plan"`
	State  string         `json:"state" enum:"idle,working,attention,failed"`
	Note   *note.Note     `json:"note" doc:"why it is in this state; null when idle"`
	Last   *ProcessEvent  `json:"last" doc:"null: it has announced nothing yet"`
	Counts []ProcessCount `json:"counts" nullable:"false"`
	Emits  []string       `json:"emits" nullable:"false" doc:"every event type of the stage, drawn or not"`
}

// ProcessEvent is the newest event of a stage. At is when it was recorded.
type ProcessEvent struct {
	Type    string    `json:"type"`
	Subject string    `json:"subject"`
	At      int64     `json:"at"`
	Ref     *note.Ref `json:"ref" doc:"the page of what it is about"`
}

// ProcessCount is a figure of a stage by its word.
type ProcessCount struct {
	Name  string `json:"name"`
	Value int    `json:"value"`
}

// The states of a stage; the later one wins.
const (
	stageIdle      = "idle"
	stageWorking   = "working"
	stageAttention = "attention"
	stageFailed    = "failed"
)

// stepStage says which stage does the work of a pipeline's step.
func stepStage(kind string) string {
	switch kind {
	case "ingest", "derive":
		return process.Data
	case "features":
		return process.Features
	case "train":
		return process.Training
	case "register":
		return process.Registry
	case "gate":
		return process.Delivery
	}
	return process.Plan
}

// lifecycle gathers the stages of one project.
type lifecycle struct {
	api     *API
	project string
	stages  map[string]*ProcessStage
}

func (l *lifecycle) count(stage, name string, value int) {
	l.stages[stage].Counts = append(l.stages[stage].Counts, ProcessCount{name, value})
}

// say sets a state, unless a worse one holds.
func (l *lifecycle) say(stage, state string, n note.Note) {
	rank := func(s string) int {
		return slices.Index([]string{stageIdle, stageWorking, stageAttention, stageFailed}, s)
	}
	if s := l.stages[stage]; rank(state) > rank(s.State) {
		s.State, s.Note = state, &n
	}
}

func (a *API) process(ctx context.Context, in *InProject) (*Out[Process], error) {
	l := &lifecycle{a, in.Project, map[string]*ProcessStage{}}
	for _, s := range process.Stages() {
		l.stages[s.Name] = &ProcessStage{Name: s.Name, State: stageIdle, Counts: []ProcessCount{}, Emits: process.Emits(s.Name)}
	}
	for _, read := range []func(context.Context) error{l.materials, l.runs, l.models, l.changes, l.pipelines, l.events} {
		if err := read(ctx); err != nil {
			return nil, err
		}
	}
	behind, err := a.Relay.Behind(ctx)
	if err != nil {
		return nil, err
	}
	out := Process{Stages: []ProcessStage{}, Edges: process.Edges(), Behind: behind, Wide: process.Wide(), Narrow: process.Narrow()}
	for _, s := range process.Stages() {
		out.Stages = append(out.Stages, *l.stages[s.Name])
	}
	return answer(out), nil
}

// materials are the datasets and the features made of them.
func (l *lifecycle) materials(ctx context.Context) error {
	sets, err := l.api.Data.Datasets(ctx, l.project)
	if err != nil {
		return err
	}
	asides, err := l.api.Data.Quarantines(ctx, l.project, "", 1000)
	if err != nil {
		return err
	}
	l.count(process.Data, "datasets", len(sets))
	l.count(process.Data, "aside", len(asides))
	if newest := newestAside(asides, sets); newest != nil {
		l.say(process.Data, stageAttention, note.New("process.aside", "{rows} rows of {source} were set aside", "rows", newest.Rows, "source", newest.Source))
	}
	views, _, err := l.api.Features.Definitions(ctx, l.project)
	l.count(process.Features, "views", len(views))
	return err
}

// newestAside is what the newest version of a dataset left behind, or what was refused after it: earlier ones are history.
func newestAside(asides []data.Aside, sets []data.Dataset) *data.Aside {
	made := map[string]data.Dataset{}
	for _, d := range sets {
		made[d.Spec.Name] = d
	}
	for i, x := range asides { // newest first
		d := made[x.Dataset]
		if d.Latest == nil || x.Created.After(d.Latest.Created) {
			return &asides[i]
		}
	}
	return nil
}

// runs of scripts that are under way.
func (l *lifecycle) runs(ctx context.Context) error {
	found, err := l.api.Tracking.SearchExperiments(ctx, l.project, tracking.Search{View: tracking.ActiveOnly, Max: 1000})
	if err != nil {
		return err
	}
	ids := make([]int64, len(found.Items))
	for i, e := range found.Items {
		ids[i] = e.ID
	}
	l.count(process.Tracking, "experiments", len(ids))
	now, err := l.api.Tracking.SearchRuns(ctx, l.project, tracking.Search{Experiments: ids, View: tracking.ActiveOnly, Max: 100, Filter: "attributes.status = 'RUNNING'"})
	if err != nil {
		return err
	}
	n := len(now.Items)
	l.count(process.Tracking, "running", n)
	if n > 0 {
		l.say(process.Tracking, stageWorking, note.New("process.running", "{count} runs are logging", "count", n))
	}
	return nil
}

// models are their versions, endpoints and alerts.
func (l *lifecycle) models(ctx context.Context) error {
	f, err := l.api.fleet(ctx, l.project, "")
	if err != nil {
		return err
	}
	versions, alerts, answering := 0, 0, 0
	for _, list := range f.versions {
		versions += len(list)
	}
	l.count(process.Registry, "models", len(f.versions))
	l.count(process.Registry, "versions", versions)
	l.count(process.Registry, "releases", len(f.release))
	for at := range f.endpoints {
		switch f.serves(at) {
		case "serving":
			answering++
		case "failed":
			l.say(process.Serving, stageFailed, note.New("process.down", "{model} does not answer in {environment}", "model", at.model, "environment", at.environment))
		default:
			l.say(process.Serving, stageWorking, note.New("process.loading", "{model} is loading in {environment}", "model", at.model, "environment", at.environment))
		}
	}
	l.count(process.Serving, "answering", answering)
	for _, list := range f.alerts {
		alerts += len(list)
	}
	l.count(process.Monitoring, "alerts", alerts)
	if alerts > 0 {
		l.say(process.Monitoring, stageAttention, note.New("process.alerts", "{count} alerts are open", "count", alerts))
	}
	return nil
}

// changes that are not final, and places whose newest change failed.
func (l *lifecycle) changes(ctx context.Context) error {
	list, err := l.api.Delivery.Changes(ctx, l.project, delivery.Filter{Limit: 1000})
	if err != nil {
		return err
	}
	open, waiting := 0, 0
	seen := map[place]bool{}
	for _, c := range list { // newest first
		at := place{c.Model, c.Environment}
		switch {
		case c.State == delivery.PendingApproval:
			waiting++
			open++
		case !c.State.Final():
			open++
		case c.State == delivery.FailedState && !seen[at]:
			l.say(process.Delivery, stageFailed, note.New("process.change_failed", "{model}@{version} could not be brought into {environment}", "model", c.Model, "version", c.ToVersion, "environment", c.Environment))
		}
		seen[at] = true
	}
	l.count(process.Delivery, "open", open)
	l.count(process.Delivery, "waiting", waiting)
	if waiting > 0 {
		l.say(process.Delivery, stageAttention, note.New("process.waiting", "{count} changes wait for a person", "count", waiting))
	} else if open > 0 {
		l.say(process.Delivery, stageWorking, note.New("process.open", "{count} changes are under way", "count", open))
	}
	return nil
}

// pipelines tell what the stages do for them: a stage has failed when the newest run that reached it failed there.
func (l *lifecycle) pipelines(ctx context.Context) error {
	list, err := l.api.Pipelines.Runs(ctx, l.project, "", 0, 30)
	if err != nil {
		return err
	}
	open := 0
	reached, ended := map[string]bool{}, false
	for _, r := range list { // newest first
		in := map[string]bool{}
		for _, st := range r.Steps {
			stage := stepStage(st.Kind)
			switch st.State {
			case pipeline.Running:
				l.say(stage, stageWorking, note.New("process.step", "{step}", "step", st.Name))
			case pipeline.Failed:
				if !reached[stage] {
					l.say(stage, stageFailed, note.New("process.step_failed", "{step} failed in {pipeline}", "step", st.Name, "pipeline", r.Pipeline))
				}
			}
			in[stage] = in[stage] || st.State == pipeline.Done || st.State == pipeline.Cached || st.State == pipeline.Failed || st.State == pipeline.Running
		}
		for stage, did := range in {
			reached[stage] = reached[stage] || did
		}
		switch r.State {
		case pipeline.Waiting, pipeline.Running:
			open++
		case pipeline.Failed:
			if !ended {
				l.say(process.Plan, stageFailed, note.New("process.run_failed", "the newest run of {pipeline} failed", "pipeline", r.Pipeline))
			}
			ended = true
		default:
			ended = true
		}
	}
	l.count(process.Plan, "runs", open)
	if open > 0 {
		l.say(process.Plan, stageWorking, note.New("process.runs", "{count} pipelines are under way", "count", open))
	}
	return nil
}

// events are the newest of each stage.
func (l *lifecycle) events(ctx context.Context) error {
	of := map[string]string{}
	var types []string
	for _, s := range l.stages {
		for _, t := range s.Emits {
			of[t] = s.Name
			types = append(types, t)
		}
	}
	found, err := l.api.Store.Latest(ctx, l.project, types)
	if err != nil {
		return err
	}
	newest := map[string]event.Event{}
	for t, e := range found {
		if e.Seq > newest[of[t]].Seq {
			newest[of[t]] = e
		}
	}
	for stage, e := range newest {
		l.stages[stage].Last = &ProcessEvent{e.Type, e.Subject, store.Micros(e.Time), eventRef(stage, e)}
	}
	return nil
}

// eventRef is the page of what an event is about; nil when there is none.
func eventRef(stage string, e event.Event) *note.Ref {
	kind, subject := "", e.Subject
	switch object, _, _ := strings.Cut(e.Type, "."); {
	case stage == process.Data && object == "dataset" && strings.Contains(subject, "/"):
		name, n, _ := strings.Cut(subject, "/")
		if v, err := strconv.ParseInt(n, 10, 64); err == nil {
			return &note.Ref{Kind: "dataset_version", ID: name, Version: &v}
		}
	case stage == process.Data:
		kind = "dataset"
	case e.Type == "feature.materialized":
		kind = "feature_view"
	case object == "experiment":
		kind = "experiment"
	case object == "run":
		kind = "run"
	case stage == process.Training, e.Type == "model.logged":
		var d struct{ Run string }
		if json.Unmarshal(e.Data, &d) == nil && d.Run != "" {
			kind, subject = "run", d.Run
		}
	case object == "release", strings.HasPrefix(e.Type, "model.version."), e.Type == "model.trained":
		name, n, _ := strings.Cut(subject, "@")
		if v, err := strconv.ParseInt(n, 10, 64); err == nil {
			return &note.Ref{Kind: "model_version", ID: name, Version: &v}
		}
	case object == "change", object == "gate":
		kind = "change"
	case stage == process.Registry, stage == process.Delivery, stage == process.Serving, stage == process.Monitoring:
		// "delay@production", "delay/production" and "delay" are all about delay.
		kind, subject = "model", subject[:strings.IndexAny(subject+"@", "@/")]
	case object == "pipeline":
		kind = "pipeline_run"
	}
	if kind == "" || subject == "" {
		return nil
	}
	return &note.Ref{Kind: kind, ID: subject}
}

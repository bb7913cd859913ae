// Package process is the lifecycle as data: its stages, the events that each announces, who follows them, and the calls between stages.
// The drawing that opens the README, the process page and its tables are made from it, and a test holds every name to the code.
package process

import "slices"

// The stages, by the names of their folders.
const (
	Data       = "data"
	Features   = "features"
	Tracking   = "tracking"
	Training   = "training"
	Registry   = "registry"
	Delivery   = "delivery"
	Serving    = "serving"
	Monitoring = "monitoring"
	Plan       = "plan"
)

// Stage is one room of the lifecycle. Events are those that its box names, in the order in which they happen.
type Stage struct {
	Name   string
	Says   [2]string // what it does, in two short lines
	Events []string
}

// Stages gives them in the order of the tree.
func Stages() []Stage {
	return []Stage{
		{Data, [2]string{"files in, contracts held,", "versions out"}, []string{"source.added", "data.quarantined", "dataset.version.created"}},
		{Features, [2]string{"one definition for", "training and serving"}, []string{"feature.defined", "feature.materialized"}},
		{Tracking, [2]string{"runs, metrics, models", "as their scripts log them"}, []string{"run.created", "run.finished", "model.logged"}},
		{Training, [2]string{"locked runtimes,", "watched processes"}, []string{"training.started", "training.finished"}},
		{Registry, [2]string{"versions; releases named", "by what made them"}, []string{"model.version.created", "release.created", "model.alias.set"}},
		{Delivery, [2]string{"gates, approvals, canary,", "the way back"}, []string{"change.requested", "gate.passed", "gate.failed", "change.waiting", "change.approved", "change.rejected", "change.refused", "delivery.moved", "change.closed"}},
		{Serving, [2]string{"answers from releases,", "champion and challenger"}, []string{"endpoint.configured", "serving.activated", "serving.failed"}},
		{Monitoring, [2]string{"the prediction log, drift,", "quality with late labels"}, []string{"quality.measured", "drift.measured", "quality.degraded", "drift.detected", "features.missing"}},
		{Plan, [2]string{"owns every workflow that crosses stages:", "apply, run, gates, retrain"}, []string{"project.applied", "pipeline.requested", "pipeline.step.done", "pipeline.step.cached", "pipeline.step.failed", "pipeline.finished", "pipeline.failed", "model.trained"}},
	}
}

// Undrawn is an event that exists and that no box names. Stage is "" for what belongs to no stage of the lifecycle.
type Undrawn struct{ Type, Stage, Why string }

// NotDrawn lists the events that the drawing leaves out, each with the reason.
func NotDrawn() []Undrawn {
	const (
		people   = "about people and what they may do, not about a model's life"
		outside  = "about who listens outside, not about a model's life"
		declared = "project.applied tells of it: it is declared in falaj.yaml"
		kept     = "upkeep by hand: nothing follows it"
		ending   = "one of the endings of a change; the box names the usual ones"
	)
	return []Undrawn{
		{"project.created", "", people},
		{"user.created", "", people},
		{"user.updated", "", people},
		{"user.disabled", "", people},
		{"role.bound", "", people},
		{"role.unbound", "", people},
		{"token.created", "", people},
		{"token.revoked", "", people},
		{"secret.set", "", people},
		{"secret.removed", "", people},
		{"keys.rotated", "", kept},
		{"backup.created", "", kept},
		{"backup.restored", "", kept},
		{"dataset.exported", Data, outside},
		{"webhook.created", "", outside},
		{"webhook.deleted", "", outside},
		{"dataset.defined", Data, declared},
		{"experiment.created", Tracking, "the first run of a model makes it"},
		{"experiment.renamed", Tracking, kept},
		{"experiment.deleted", Tracking, kept},
		{"experiment.restored", Tracking, kept},
		{"run.updated", Tracking, "many a run; run.finished is the one that counts"},
		{"run.deleted", Tracking, kept},
		{"run.restored", Tracking, kept},
		{"model.created", Registry, "the first version of a model makes it"},
		{"model.renamed", Registry, kept},
		{"model.deleted", Registry, kept},
		{"model.version.staged", Registry, "MLflow's old word for what delivery.moved does"},
		{"model.version.deleted", Registry, kept},
		{"model.alias.deleted", Registry, kept},
		{"delivery.defined", Delivery, declared},
		{"change.cancelled", Delivery, ending},
		{"change.expired", Delivery, ending},
		{"change.failed", Delivery, ending},
		{"endpoint.removed", Serving, kept},
		{"monitor.defined", Monitoring, declared},
		{"alert.acknowledged", Monitoring, "a person saw it: nothing follows it"},
		{"pipeline.cancelled", Plan, kept},
	}
}

// Emits gives every event type of a stage, drawn or not.
func Emits(stage string) []string {
	var out []string
	for _, s := range Stages() {
		if s.Name == stage {
			out = slices.Clone(s.Events)
		}
	}
	for _, u := range NotDrawn() {
		if u.Stage == stage {
			out = append(out, u.Type)
		}
	}
	return out
}

// Kind of an edge.
type Kind string

// An event travels in the transaction of the change it tells of and is followed when it can be; a call waits for its answer.
const (
	Event Kind = "event"
	Call  Kind = "call"
)

// Edge is what goes from one stage to another: events that To follows, or calls that From makes. A call's name is an interface that
// From declares and To fills, or a method of To. Events from a stage to itself drive its own workflow.
type Edge struct {
	From  string   `json:"from"`
	To    string   `json:"to"`
	Kind  Kind     `json:"kind"`
	Names []string `json:"names"`
}

// Edges gives the events that are followed first, then the calls.
func Edges() []Edge {
	return []Edge{
		{Delivery, Delivery, Event, []string{"change.requested", "change.approved", "change.rejected", "change.cancelled"}},
		{Delivery, Serving, Event, []string{"delivery.moved"}},
		{Delivery, Registry, Event, []string{"delivery.moved"}},
		{Serving, Delivery, Event, []string{"serving.activated", "serving.failed"}},
		{Monitoring, Plan, Event, []string{"quality.degraded", "drift.detected"}},
		{Plan, Plan, Event, []string{"pipeline.requested"}},
		{Plan, Data, Call, []string{"Ingest", "Derive"}},
		{Plan, Features, Call, []string{"Materialize", "TrainingSet"}},
		{Plan, Tracking, Call, []string{"CreateRun", "UpdateRun"}},
		{Plan, Training, Call, []string{"Launch"}},
		{Plan, Registry, Call, []string{"CreateRelease"}},
		{Plan, Delivery, Call, []string{"Request", "SetChallenger"}},
		{Plan, Serving, Call, []string{"Ephemeral"}},
		{Plan, Monitoring, Call, []string{"CompareOnWindow"}},
		{Features, Data, Call, []string{"Data"}},
		{Training, Tracking, Call, []string{"LogBatch"}},
		{Delivery, Plan, Call, []string{"Evaluator", "Catalog"}},
		{Serving, Features, Call, []string{"FeatureSource"}},
		{Serving, Registry, Call, []string{"ModelSource"}},
		{Serving, Monitoring, Call, []string{"PredictionSink"}},
	}
}

// followed says whether an event drives the workflow of its own stage.
func followed(stage, name string) bool {
	return slices.ContainsFunc(Edges(), func(e Edge) bool {
		return e.Kind == Event && e.From == stage && e.To == stage && slices.Contains(e.Names, name)
	})
}

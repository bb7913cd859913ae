package api

import (
	"math"
	"strconv"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/note"
	"falaj/internal/monitoring"
	"falaj/internal/registry"
	"falaj/internal/store"
)

// pages registers what the pages read, and the two calls that feed models from outside: labels, and event time in a replay.
func (a *API) pages() {
	add(a, "GET", "/projects/{p}/process", "getProcess", "The lifecycle: stages with state and last event, and what goes between them", "project.read", a.process)
	add(a, "GET", "/projects/{p}/models", "listModels", "Models with their health", "model.read", a.listModels)
	add(a, "GET", "/projects/{p}/models/{m}", "getModel", "A model: versions, timeline, alerts", "model.read", a.getModel, on("Model", "m"))
	add(a, "GET", "/projects/{p}/models/{m}/telemetry", "getTelemetry", "Traffic, quality and drift over event time", "monitor.read", a.telemetry, on("Model", "m"))
	add(a, "GET", "/projects/{p}/models/{m}/traffic", "getTraffic", "Predictions and labels by release", "monitor.read", a.traffic, on("Model", "m"))
	add(a, "POST", "/projects/{p}/models/{m}/labels", "pushLabels", "Say what turned out to be true of predictions", "label.push", a.pushLabels, on("Model", "m"))
	add(a, "POST", "/projects/{p}/clock", "advanceClock", "In a replay: event time has come to here", "time.replay", a.advanceClock)
	add(a, "GET", "/projects/{p}/experiments", "listExperiments", "Experiments", "experiment.read", a.listExperiments)
	add(a, "GET", "/projects/{p}/experiments/{e}/runs", "searchRuns", "Runs of an experiment", "run.read", a.searchRuns, on("Experiment", "e"))
	add(a, "GET", "/projects/{p}/runs/compare", "compareRuns", "Several runs side by side", "run.read", a.compareRuns)
	add(a, "GET", "/projects/{p}/runs/{id}", "getRun", "A run with what it logged", "run.read", a.runPage, on("Run", "id"))
	add(a, "GET", "/projects/{p}/datasets", "listDatasets", "Datasets with their newest version", "dataset.read", a.listDatasets)
	add(a, "GET", "/projects/{p}/datasets/{d}", "getDataset", "A dataset with its versions", "dataset.read", a.getDataset, on("Dataset", "d"))
	add(a, "GET", "/projects/{p}/datasets/{d}/versions/{v}", "getDatasetVersion", "A dataset version: schema, contract, profile", "dataset.read", a.datasetVersion, on("Dataset", "d"))
	add(a, "GET", "/projects/{p}/datasets/{d}/quarantine", "listQuarantine", "What was set aside of a dataset, newest first", "dataset.read", a.quarantine, on("Dataset", "d"))
	add(a, "GET", "/projects/{p}/datasets/{d}/quarantine/{id}/rows", "listQuarantineRows", "Rows that were set aside, masked", "dataset.read", a.quarantineRows, on("Dataset", "d"))
	add(a, "GET", "/projects/{p}/lineage", "getLineage", "What came from what, laid out in pixels", "lineage.read", a.lineage)
}

// InModel is the input of operations on a model.
type InModel struct {
	InProject
	Model string `path:"m"`
}

// Paged is the input of lists. A token is an offset that next_page_token gave.
type Paged struct {
	PageToken string `query:"page_token"`
	Limit     int    `query:"limit" default:"100" minimum:"1" maximum:"1000"`
}

// from reads the token of a list that is cut in memory.
func (p Paged) from() (int, error) {
	if p.PageToken == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(p.PageToken)
	if err != nil || n < 0 || n > 1<<30 {
		return 0, fault.New(fault.Invalid, "The page token is not one of ours.", "Take it from next_page_token.").At("page_token")
	}
	return n, nil
}

// cutPage is one page of a list that is known as a whole.
func cutPage[T any](all []T, p Paged) (Page[T], error) {
	from, err := p.from()
	if err != nil {
		return Page[T]{}, err
	}
	total := int64(len(all))
	from = min(from, len(all))
	to := min(from+p.Limit, len(all))
	out := Page[T]{Items: append([]T{}, all[from:to]...), Total: &total}
	if to < len(all) {
		out.NextPageToken = strconv.Itoa(to)
	}
	return out, nil
}

// spark is at most this many values.
const sparkSize = 60

// finite is nil for what JSON cannot say.
func finite(f float64) *float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil
	}
	return &f
}

// figure is nil for a number that could not be measured.
func figure(f monitoring.Figure) *float64 {
	if !f.Defined() {
		return nil
	}
	return finite(f.Value)
}

func milliseconds(d *time.Duration) *float64 {
	if d == nil {
		return nil
	}
	return finite(float64(d.Nanoseconds()) / 1e6)
}

func textOrNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func numberOrNil(n int64) *int64 {
	if n == 0 {
		return nil
	}
	return &n
}

// sha spells a bare hex digest as pages do.
func sha(hex string) string {
	if hex == "" || len(hex) > 7 && hex[:7] == "sha256:" {
		return hex
	}
	return "sha256:" + hex
}

func versionRef(kind, id string, version int64) *note.Ref {
	return &note.Ref{Kind: kind, ID: id, Version: &version}
}

func metricsOf(m map[string]registry.Number) map[string]*float64 {
	out := map[string]*float64{}
	for k, v := range m {
		out[k] = finite(float64(v))
	}
	return out
}

// milliMicros turns a client's milliseconds into the pages' microseconds.
func milliMicros(ms int64) int64 { return ms * 1000 }

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func microsOf(t time.Time) int64 { return store.Micros(t) }

// tokenActor reads a name that clients gave: "user:amal" or just "amal".
func tokenActor(s string) ActorRef {
	switch r := actorRef(s); r.Kind {
	case "user", "service", "run", "system":
		return r
	}
	if s == "" {
		return ActorRef{"anonymous", "anonymous"}
	}
	return ActorRef{"user", s}
}

func pageAt(offset int) string { return strconv.Itoa(offset) }

// Package tracking keeps experiments, runs and what they logged: parameters, metrics, tags, datasets, models, artifacts.
// It speaks the words of MLflow, whose API compat/mlflow translates onto it, and knows nothing of HTTP.
package tracking

import (
	"time"

	"falaj/internal/kernel/fault"
)

// Lifecycle stages of experiments, runs and logged models: deleting is a flag that Restore takes back.
const (
	Active  = "active"
	Deleted = "deleted"
)

// DefaultExperiment is the name of the experiment that every project has; in project "default" its id is 0.
const DefaultExperiment = "Default"

// The statuses of a run, MLflow's words.
const (
	Running   = "RUNNING"
	Scheduled = "SCHEDULED"
	Finished  = "FINISHED"
	Failed    = "FAILED"
	Killed    = "KILLED"
)

// Tags that mean something to the server.
const (
	TagRunName      = "mlflow.runName"
	TagParentRun    = "mlflow.parentRunId"
	TagUser         = "mlflow.user"
	TagLoggedModels = "mlflow.log-model.history"
	TagContext      = "mlflow.data.context"
)

// Pair is a parameter or a tag.
type Pair struct{ Key, Value string }

// View selects by lifecycle stage.
type View int

// The views, numbered as in MLflow.
const (
	ActiveOnly  View = 1
	DeletedOnly View = 2
	All         View = 3
)

func (v View) stages() []string {
	switch v {
	case DeletedOnly:
		return []string{Deleted}
	case All:
		return []string{Active, Deleted}
	}
	return []string{Active}
}

// Experiment groups runs. ID is unique in the installation, Name in the project.
type Experiment struct {
	ID               int64
	Project          string
	Name             string
	ArtifactLocation string
	Stage            string
	Created, Updated time.Time
	Tags             []Pair
}

// NewExperiment asks for one. An empty ArtifactLocation takes the server's proxy.
type NewExperiment struct {
	Name             string
	ArtifactLocation string
	Tags             []Pair
}

// RunInfo is the head of a run. ID is MLflow's 32 hex digits. Times are milliseconds since 1970 UTC, as clients send them.
type RunInfo struct {
	ID          string
	Project     string
	Experiment  int64
	Name        string
	User        string
	Status      string
	StartMs     int64
	EndMs       *int64
	Stage       string
	ArtifactURI string
	Parent      string // id of the parent run, "" for none

	key int64 // internal row number
}

// Run is a run with what it logged; Metrics holds the newest value of each key.
type Run struct {
	RunInfo
	Params   []Pair
	Tags     []Pair
	Metrics  []Metric
	Datasets []DatasetInput
	Inputs   []ModelLink
	Outputs  []ModelLink
}

// NewRun asks for a run. ID may give the 32 hex digits (imports, retries); empty takes a new one.
type NewRun struct {
	ID         string
	Experiment int64
	Name       string
	User       string
	StartMs    int64
	Tags       []Pair
}

// RunUpdate changes what is not nil.
type RunUpdate struct {
	Status *string
	EndMs  *int64
	Name   *string
}

// Metric is one point. Value may be NaN or infinite. Step counts, TimestampMs is milliseconds since 1970 UTC.
// Model, DatasetName and DatasetDigest, when given, also file the point under that logged model.
type Metric struct {
	Key           string
	Value         float64
	TimestampMs   int64
	Step          int64
	Model         string
	DatasetName   string
	DatasetDigest string
	Run           string
}

// Batch is what one log call carries.
type Batch struct {
	Metrics []Metric
	Params  []Pair
	Tags    []Pair
	Single  bool // one metric by itself: messages name no index
}

// Dataset is what a run read. Source, Schema and Profile are JSON texts of the client.
type Dataset struct {
	Name, Digest, SourceType, Source, Schema, Profile string
}

// DatasetInput is a dataset with the tags of its use, such as mlflow.data.context.
type DatasetInput struct {
	Dataset Dataset
	Tags    []Pair
}

// ModelLink ties a run to a logged model.
type ModelLink struct {
	Model string
	Step  int64
}

// Search asks for a page. Empty Filter matches all; Max 0 takes the endpoint's default.
type Search struct {
	Experiments []int64
	Filter      string
	OrderBy     []string
	View        View
	Max         int
	Token       string
}

// Page is one page of results and the token of the next, "" at the end.
type Page[T any] struct {
	Items []T
	Next  string
}

// ModelStatus is the state of a logged model, numbered as in MLflow.
type ModelStatus int

// The states of a logged model.
const (
	ModelPending      ModelStatus = 1
	ModelReady        ModelStatus = 2
	ModelUploadFailed ModelStatus = 3
)

// LoggedModel is a model that a run wrote, before or without registration. ID is "m-" and 32 hex digits.
type LoggedModel struct {
	ID               string
	Project          string
	Experiment       int64
	Name             string
	Type             string
	SourceRun        string
	Status           ModelStatus
	StatusMessage    string
	Stage            string
	ArtifactURI      string
	Created, Updated time.Time
	Params           []Pair
	Tags             []Pair
	Metrics          []Metric
}

// NewLoggedModel asks for one.
type NewLoggedModel struct {
	Experiment int64
	Name       string
	Type       string
	SourceRun  string
	Params     []Pair
	Tags       []Pair
}

// Artifact is a file or a folder in an artifact root. Path is relative to what was asked; folders have no digest and size.
type Artifact struct {
	Path   string
	Folder bool
	Digest string
	Size   int64
}

func invalid(format string, args ...any) *fault.E {
	return fault.Newf(fault.Invalid, format, args...)
}

func notFound(format string, args ...any) *fault.E {
	return fault.Newf(fault.NotFound, format, args...)
}

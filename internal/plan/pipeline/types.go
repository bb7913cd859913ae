// Package pipeline applies a project and runs it: ingest, derive, features, train, register, and the loops that retrain and challenge.
// It owns every workflow that crosses stages; each step is durable, cached by what it is made of, and says why it ran or did not.
package pipeline

import (
	"time"

	"falaj/internal/features"
	"falaj/internal/kernel/note"
)

// Bundle is a project as it was applied: falaj.yaml and the files it names, each by the digest of its blob.
type Bundle struct {
	YAML   string            `json:"yaml"`
	Files  map[string]string `json:"files"` // slash-separated path -> "sha256:..."
	Commit string            `json:"commit"`
	Dirty  bool              `json:"dirty"`
}

// Applied is one recorded apply.
type Applied struct {
	Project string
	Seq     int64
	At      time.Time
	Actor   string
	Digest  string
	Bundle  Bundle
}

// Difference is one thing that an apply would change. Kind is dataset, feature_view, service or model; Verb is add, change
// or remove. Models are those that the difference reaches.
type Difference struct {
	Kind   string   `json:"kind"`
	Name   string   `json:"name"`
	Verb   string   `json:"verb"`
	What   []string `json:"what"`
	Models []string `json:"models"`
}

// SourceFile is a file that a run brings: already a blob.
type SourceFile struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
}

// The pipelines.
const (
	RunPipeline       = "run"       // ingest, derive, features, train, register
	IngestPipeline    = "ingest"    // ingest and derive only
	RetrainPipeline   = "retrain"   // train on what was known before the newest labelled window, then challenge the champion
	ChallengePipeline = "challenge" // train on all that is known, and run in the champion's shadow
)

// Request asks for a run.
type Request struct {
	Pipeline string                  `json:"pipeline"`
	Model    string                  `json:"model"` // "" is every model of the project
	Sources  map[string][]SourceFile `json:"sources"`
	Params   map[string]string       `json:"params"`  // over those of the file
	Since    time.Time               `json:"since"`   // training rows from here, zero: all
	Until    time.Time               `json:"until"`   // training rows before this and labels known by it; zero: all
	History  time.Duration           `json:"history"` // retrain on this much before Until only; 0: all
	NoCache  bool                    `json:"no_cache"`
	Resumes  string                  `json:"resumes"` // the run this one takes up
	Key      string                  `json:"key"`     // idempotency key
	Reason   note.Note               `json:"reason"`
}

// RunState of a pipeline run or a step.
type RunState string

// The states. Cached and Skipped are only of steps.
const (
	Waiting   RunState = "waiting"
	Running   RunState = "running"
	Done      RunState = "done"
	Cached    RunState = "cached"
	Failed    RunState = "failed"
	Skipped   RunState = "skipped"
	Cancelled RunState = "cancelled"
)

// Failure is why a run or step ended badly, as a person reads it.
type Failure struct {
	Kind   string `json:"kind"`
	Public string `json:"public"`
	Next   string `json:"next"`
}

// Run is one pipeline run.
type Run struct {
	ID       string
	Project  string
	Seq      int64
	Pipeline string
	State    RunState
	Actor    string
	Model    string
	Request  Request
	Apply    int64
	Error    *Failure
	Resumed  string
	Created  time.Time
	Started  time.Time
	Ended    time.Time
	Steps    []Step
}

// Ref points at an input or output of a step.
type Ref = note.Ref

// Step is one step of a run.
type Step struct {
	Name        string
	Kind        string
	State       RunState
	Needs       []string
	CacheHit    bool
	CacheKey    string
	CacheReason *note.Note
	Started     time.Time
	Ended       time.Time
	Attempt     int64
	Inputs      []Ref
	Outputs     []Ref
	Log         string
	LogCut      bool
	Error       *Failure
}

// Trained is what is known of how a release was made, beside its manifest: what gates and monitors need later.
type Trained struct {
	Project     string            `json:"project"`
	Release     string            `json:"release"`
	Model       string            `json:"model"`
	Version     int64             `json:"version"`
	Run         string            `json:"run"`      // MLflow's run id
	Pipeline    string            `json:"pipeline"` // pipeline run id
	Apply       int64             `json:"apply"`
	Author      string            `json:"author"`  // who asked for the pipeline
	Spine       string            `json:"spine"`   // SQL text
	Service     string            `json:"service"` // name@digest
	At          string            `json:"at"`      // the spine's event time column
	Known       string            `json:"known"`
	Label       string            `json:"label"`
	Since       time.Time         `json:"since"`
	Until       time.Time         `json:"until"`
	Pins        map[string]int64  `json:"pins"`
	TrainingSet string            `json:"training_set"` // blob
	Runtime     string            `json:"runtime"`
	Params      map[string]string `json:"params"`
}

// rows are the rows of the spine that the release was trained on.
func (t Trained) rows() features.TrainingSetRequest {
	return features.TrainingSetRequest{Since: t.Since, Until: t.Until, At: t.At, Known: t.Known, Pins: t.Pins}
}

// Package registry keeps registered models, their versions, the aliases that point to them with full history, and releases.
// A release is the immutable manifest of everything that made a model version; its digest is its identity.
package registry

import (
	"encoding/json"
	"math"
	"strconv"
	"time"

	"falaj/internal/tracking"
)

// The stages of a version, MLflow's old pointers.
const (
	StageNone       = "None"
	StageStaging    = "Staging"
	StageProduction = "Production"
	StageArchived   = "Archived"
)

// TagPrompt marks models and versions that are prompts.
const TagPrompt = "mlflow.prompt.is_prompt"

// Model is a registered model. Latest holds the newest version of each stage.
type Model struct {
	ID               int64
	Project          string
	Name             string
	Description      string
	Author           string // who made it, e.g. "user:amal"
	Created, Updated time.Time
	Tags             []tracking.Pair
	Aliases          []Alias
	Latest           []Version
}

// NewModel asks for a model.
type NewModel struct {
	Name        string
	Description string
	Tags        []tracking.Pair
}

// Alias points from a name to a version.
type Alias struct {
	Name    string
	Version int64
}

// Version is one version of a model, numbered from 1. Storage is where its files lie: an mlflow-artifacts: URI when falaj
// keeps them. Release is the digest of its manifest, "" before there is one.
type Version struct {
	Project          string
	Model            string
	Number           int64
	Description      string
	Source           string
	Storage          string
	Run              string
	RunLink          string
	LoggedModel      string
	Stage            string
	Release          string
	Author           string // the person or service behind it, e.g. "user:amal"
	Created, Updated time.Time
	Tags             []tracking.Pair
	Aliases          []string

	model int64
}

// NewVersion asks for a version of an existing model. HasRun and HasLoggedModel say that the caller named them, even as "".
type NewVersion struct {
	Model          string
	Source         string
	Run            string
	RunLink        string
	Description    string
	LoggedModel    string
	Tags           []tracking.Pair
	HasRun         bool
	HasLoggedModel bool
}

// PointerMove is one row of a pointer's history: who moved it, when, from which version to which (0: none), by which change.
type PointerMove struct {
	Kind   string // alias or stage
	Name   string
	From   int64
	To     int64
	Actor  string
	Change string
	At     time.Time
}

// Ref names an input of a release and the digest of its content.
type Ref struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Digest  string `json:"digest"`
}

// Code says what was run: the digest of the declared files, the Git commit and whether files differed from it.
type Code struct {
	Digest string `json:"digest,omitempty"`
	Commit string `json:"commit,omitempty"`
	Dirty  bool   `json:"dirty"`
}

// File is one file of the model. Path is relative to the model's folder, Size bytes, Digest "sha256:...".
type File struct {
	Path   string `json:"path"`
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// Number is a float64 that JSON can carry: NaN and the infinities are texts.
type Number float64

// MarshalJSON writes a number, or "NaN", "Infinity", "-Infinity".
func (n Number) MarshalJSON() ([]byte, error) {
	f := float64(n)
	switch {
	case math.IsNaN(f):
		return []byte(`"NaN"`), nil
	case math.IsInf(f, 1):
		return []byte(`"Infinity"`), nil
	case math.IsInf(f, -1):
		return []byte(`"-Infinity"`), nil
	}
	return json.Marshal(f)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (n *Number) UnmarshalJSON(b []byte) error {
	var f float64
	if err := json.Unmarshal(b, &f); err == nil {
		*n = Number(f)
		return nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	f, err := strconv.ParseFloat(s, 64)
	*n = Number(f)
	return err
}

// Signature is the model's, as in MLflow's MLmodel file: column specs as JSON.
type Signature struct {
	Inputs  json.RawMessage `json:"inputs,omitempty"`
	Outputs json.RawMessage `json:"outputs,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
}

// ManifestSchema is the format of a manifest. Readers refuse what they do not know.
const ManifestSchema = "falaj.release/1"

// Manifest is everything that made a model version. Its canonical JSON (see Canonical) has the digest that
// is the release's identity. Lists are sorted by name or path.
type Manifest struct {
	Schema     string            `json:"schema"`
	Project    string            `json:"project"`
	Model      string            `json:"model"`
	Version    int64             `json:"version"`
	Run        string            `json:"run,omitempty"`
	Data       []Ref             `json:"data,omitempty"`
	Features   []Ref             `json:"features,omitempty"`
	Code       Code              `json:"code"`
	Runtime    string            `json:"runtime,omitempty"`
	Command    string            `json:"command,omitempty"`
	Parameters map[string]string `json:"parameters,omitempty"`
	Metrics    map[string]Number `json:"metrics,omitempty"`
	Signature  *Signature        `json:"signature,omitempty"`
	Files      []File            `json:"files"`
}

// Release is a stored manifest. JSON is the canonical form that was digested.
type Release struct {
	Digest   string
	Project  string
	Model    string
	Version  int64
	Manifest Manifest
	JSON     json.RawMessage
	Author   string
	Created  time.Time
}

// ReleaseRequest asks for the release of a registered version. Run, Parameters, Metrics and Signature that are empty are taken
// from the version: its run, what that run logged, and its MLmodel file. The files are always taken from the version.
type ReleaseRequest struct {
	Model      string
	Version    int64
	Run        string
	Data       []Ref
	Features   []Ref
	Code       Code
	Runtime    string
	Command    string
	Parameters map[string]string
	Metrics    map[string]float64
	Signature  *Signature
}

// Resolved is what "[project/]model@version|alias|digest" names.
type Resolved struct {
	Project string
	Model   string
	Version Version
}

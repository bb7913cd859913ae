// Package serving answers predictions: an endpoint of a model in an environment splits its traffic over releases, looks features up, scores, and hands every prediction to the log.
// It follows delivery's pointers and sets only weights; which release may serve is decided upstream.
package serving

import (
	"context"
	"io"
	"time"
)

// Key names an endpoint: a model in an environment of a project.
type Key struct {
	Project     string
	Model       string
	Environment string
}

// String is project/model@environment.
func (k Key) String() string { return k.Project + "/" + k.Model + "@" + k.Environment }

// Role is what a variant is to an endpoint.
type Role string

// The roles. Champion and canary share the traffic by weight; a shadow is scored after the answer and never seen by a caller.
const (
	Champion Role = "champion"
	Canary   Role = "canary"
	Shadow   Role = "shadow"
)

// Variant is one release of an endpoint.
type Variant struct {
	Name    string `json:"name"` // unique in the endpoint; usually the role
	Role    Role   `json:"role"`
	Weight  int    `json:"weight"`  // percent of the units; the weights of champion and canaries sum to 100, a shadow has 0
	Release string `json:"release"` // the release's digest
}

// Endpoint is what is configured, and whether it is loaded.
type Endpoint struct {
	Key
	Variants   []Variant
	Generation int64     // counts the configurations of this endpoint, from 1
	Configured time.Time // wall time
	Ready      bool      // champion and canaries are loaded and answer
	Problem    string    // why not, in public words
}

// EphemeralEnvironment is the environment of throw-away endpoints, which live in memory only.
const EphemeralEnvironment = "ephemeral"

// Request asks for predictions, one for each row. Either Matrix holds the features themselves, or they are looked up by Entities with Features given beside them.
type Request struct {
	Key
	ID      string // the caller's request id; empty: a new one
	Release string // only the variant of this release (digest, or its version); empty: by weight

	Entities []map[string]any // one row of entity keys each
	Features []map[string]any // request features of each row; nil or as long as Entities

	Columns []string  // names of the matrix's columns; empty: the model's own order
	Matrix  []float64 // row-major, rows x columns; NaN is missing
	Rows    int       // rows of Matrix

	At     []time.Time // event time of each row, or one for all; empty: now. Only with Replay.
	Units  []string    // sticky key of each row, or one for all; empty: the entity keys, else the request id
	Replay bool        // the caller holds the right time.replay: At is allowed, and shadows are scored before the answer
}

// Result is the prediction of one row.
type Result struct {
	ID      string    // of the prediction
	Variant string    //
	Release string    // digest
	Version string    // of the model, if the release has one, else the digest
	Output  []float64 // the model's outputs: one value, or one for each class
}

// Response holds one result for each row of the request, in its order.
type Response struct {
	ID      string // the request id
	Results []Result
}

// Prediction is what the log keeps of one scored row.
type Prediction struct {
	ID             string
	RequestID      string
	Project        string
	Model          string
	Environment    string
	Variant        string
	Release        string // digest
	Unit           string
	Entity         map[string]any // nil when the caller sent the features themselves
	At             time.Time      // event time
	FeaturesDigest string
	Features       []float64 // in the order of the release's feature names; shared and not to be changed
	Output         []float64 // shared and not to be changed
	Latency        time.Duration
	Shadow         bool
}

// PredictionSink keeps predictions. Record is called before the answer is given; its error fails the request, so a sink that may drop returns nil.
// The slice is the sink's to keep.
type PredictionSink interface {
	Record(ctx context.Context, predictions []Prediction) error
}

// Features is the answer of a feature lookup.
type Features struct {
	Names   []string  // of the columns
	Values  []float64 // row-major, len(entities) x len(Names); NaN is missing
	Digests []string  // one for each row: what the features were computed from
}

// Input is a column that an entity request brings.
type Input struct {
	Name string
	Type string // "number", "text", "boolean" or "timestamp"
}

// Inputs is what a feature service must be asked with.
type Inputs struct {
	Entity  []Input // the entity keys
	Request []Input // the request features
}

// FeatureSource looks up the features of a feature service.
type FeatureSource interface {
	// Inputs says what a row must bring. It is asked once when a release is loaded.
	Inputs(ctx context.Context, project, service string) (Inputs, error)
	// Lookup gives one row of features for each entity row, as of its event time. request is nil or has a row of request features for each entity.
	Lookup(ctx context.Context, project, service string, entities []map[string]any, at []time.Time, request []map[string]any) (Features, error)
}

// Release is what serving needs to know of a release.
type Release struct {
	Digest   string
	Version  string   // the model version's number, if it has one
	Flavor   string   // "lightgbm" or "pyfunc"
	Model    string   // lightgbm: path of the text model in Files; pyfunc: the directory that holds MLmodel ("" is the root)
	Files    []File   // every file of the model
	Service  string   // feature service; empty: the model takes its features from the caller only
	Features []string // names in the order that the model takes them; may be empty when the model file holds them
	Runtime  string   // digest of the runtime for flavors that need Python
	Open     func(ctx context.Context, path string) (io.ReadCloser, error)
}

// File is one file of a model. Its digest is checked on every load.
type File struct {
	Path   string // slash-separated, relative
	SHA256 string // lower-case hex
	Size   int64
}

// ModelSource opens releases of the registry, having checked that the manifest has the digest asked for.
type ModelSource interface {
	Open(ctx context.Context, project, release string) (Release, error)
}

// Engine is one loaded model. It is safe for concurrent use.
type Engine interface {
	// Predict scores rows of a row-major matrix with the columns of Features and returns rows x k outputs.
	Predict(ctx context.Context, x []float64, rows int) ([]float64, error)
	// Features are the model's own column names, nil when it does not know them.
	Features() []string
	Close() error
}

// Loader makes engines of one or more flavors. A Loader that does not know a model exactly returns an error matching ErrUnsupported, and the next one is asked.
type Loader interface {
	Load(ctx context.Context, release Release) (Engine, error)
}

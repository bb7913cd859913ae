package monitoring

import (
	"encoding/json"
	"time"
)

// Key names what is monitored: a model in an environment of a project.
type Key struct {
	Project     string `json:"project"`
	Model       string `json:"model"`
	Environment string `json:"environment"`
}

// Window is a span of event time: From included, To excluded.
type Window struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Monitor says what is watched. The zero value of a field takes the default in its comment.
type Monitor struct {
	Drift   DriftMonitor   `json:"drift"`
	Quality QualityMonitor `json:"quality"`
}

// DriftMonitor compares the features of each window with the training profile of the release that served them.
type DriftMonitor struct {
	Off       bool          `json:"off,omitempty"`
	Method    string        `json:"method"`     // jensen_shannon
	Weigh     string        `json:"weigh"`      // importance, or "equal"
	Threshold float64       `json:"threshold"`  // of the weighed score: 0.2
	Window    time.Duration `json:"window"`     // the window of quality
	MinRows   int           `json:"min_rows"`   // 200: fewer give no verdict
	MissingBy float64       `json:"missing_by"` // 0.2: features.missing when a share of nulls grows by more
}

// QualityMonitor judges the champion by labels, and a shadow challenger on the same rows.
type QualityMonitor struct {
	Off         bool          `json:"off,omitempty"`
	Metric      string        `json:"metric"`       // auc
	Window      time.Duration `json:"window"`       // 14 days
	LabelsAfter time.Duration `json:"labels_after"` // 1 day: labels that late still count
	MinGap      float64       `json:"min_gap"`      // 0.01: degraded when the gap's lower bound is above it
	MinLabels   int           `json:"min_labels"`   // 200: fewer give no verdict
}

// The ways to weigh drift.
const (
	WeighImportance = "importance"
	WeighEqual      = "equal"
)

// Label is the truth about one prediction, found by its ID, or by RequestID when the request had one row, or by Unit and
// At. Value is 0 or 1; NaN and others are kept and counted, never used. KnownAt zero is now; setting it needs the replay right.
type Label struct {
	ID        string
	RequestID string
	Unit      string
	At        time.Time
	Value     float64
	KnownAt   time.Time
}

// Reference is what drift of a release is measured against: its training profile and how much it uses each feature.
// Importance belongs to Profile.Features by index; nil weighs all alike.
type Reference struct {
	Profile    Profile   `json:"profile"`
	Importance []float64 `json:"importance,omitempty"`
}

// The verdicts of a window.
const (
	VerdictOK           = "ok"
	VerdictDegraded     = "degraded"       // quality: the challenger is better by more than min_gap
	VerdictDrifted      = "drifted"        // drift: the score is above the threshold
	VerdictFewLabels    = "too_few_labels" // quality
	VerdictNoChallenger = "no_challenger"  // quality: nothing to compare with
	VerdictFewRows      = "too_few_rows"   // drift
	VerdictNoReference  = "no_reference"   // drift: the release has no training profile
)

// QualityWindow is one evaluated window. Challenger is "" when no shadow scored the same rows.
type QualityWindow struct {
	Key
	Window
	Verdict       string                    `json:"verdict"`
	Metric        string                    `json:"metric"`
	MinGap        float64                   `json:"min_gap"`
	Rows          int                       `json:"rows"`       // predictions of the champion in the window
	Labels        int                       `json:"labels"`     // of them with a label
	Unlabelled    int                       `json:"unlabelled"` // without, when the window was closed
	Unmatched     int                       `json:"unmatched"`  // labels that name no prediction or more than one
	Champion      string                    `json:"champion"`   // release digest
	Challenger    string                    `json:"challenger"` // release digest
	ChampionFacts QualityFigures            `json:"champion_figures"`
	ChallengerOwn *QualityFigures           `json:"challenger_figures,omitempty"`
	Gap           *Gap                      `json:"gap,omitempty"` // B is the challenger
	ByRelease     map[string]QualityFigures `json:"by_release"`    // everything that scored rows, shadows too
}

// DriftWindow is one evaluated window.
type DriftWindow struct {
	Key
	Window
	Verdict   string       `json:"verdict"`
	Release   string       `json:"release"`
	Threshold float64      `json:"threshold"`
	Weigh     string       `json:"weigh"`
	Rows      int          `json:"rows"`
	NullRows  int          `json:"null_rows"`         // rows with at least one missing feature
	Missing   []string     `json:"missing,omitempty"` // features whose share of nulls grew by more than missing_by
	Figures   DriftFigures `json:"figures"`
}

// The kinds of alerts; the event that announces one has the same type.
const (
	QualityDegraded = "quality.degraded"
	DriftDetected   = "drift.detected"
	FeaturesMissing = "features.missing"
)

// The states of an alert. A later window with a good verdict resolves those of its kind.
const (
	AlertOpen         = "open"
	AlertAcknowledged = "acknowledged"
	AlertResolved     = "resolved"
)

// Alert says that a window broke its monitor. There is at most one for each kind and window of a key.
// At is event time: when the window could be judged. Args are for messages: metric, gap, lower, min_gap, score ...
type Alert struct {
	ID    string `json:"id"`
	Kind  string `json:"kind"`
	State string `json:"state"`
	Key
	Window  Window         `json:"window"`
	At      time.Time      `json:"at"`
	Text    string         `json:"text"`
	Args    map[string]any `json:"args"`
	Created time.Time      `json:"created"`
}

// LabelledRow is one prediction of the window whose truth is known, with what it was given: for scoring another release.
// Scores holds what each release said, by digest.
type LabelledRow struct {
	ID        string
	RequestID string
	Unit      string
	Entity    map[string]any
	At        time.Time
	Release   string // that served it
	Features  []float64
	Label     float64
	KnownAt   time.Time
	Scores    map[string]float64
}

// Scores name one side of a comparison: what Release logged, or, with ByID set, these scores by prediction id.
type Scores struct {
	Release string
	ByID    map[string]float64
}

// Comparison is the paired gap of B over A on the labelled rows of a window that both scored.
type Comparison struct {
	Window
	A, B    string // releases
	Labels  int    `json:"labels"` // labelled rows of the window
	Missing int    `json:"missing"`
	Gap     Gap    `json:"gap"`
}

// ReleaseStats are counters of one release since the process started, for metrics.
type ReleaseStats struct {
	Key
	Release  string
	Variant  string
	Shadow   bool
	Count    uint64
	NullRows uint64 // with at least one missing feature
	Latency  Latency
}

// document is JSON for a column; what is stored was made by this package, so a failure is a defect.
func document(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

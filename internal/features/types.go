package features

import (
	"time"
)

// View is a feature view. One with SQL holds facts about an entity over time and is looked up by key; one with Request
// holds features that are computed from what the request brings. Exactly one of SQL and Request is set.
type View struct {
	Name    string        `json:"name"`
	Entity  []string      `json:"entity,omitempty"`  // key columns: text, integer, boolean or date
	SQL     string        `json:"sql,omitempty"`     // one SELECT over datasets, giving key, time and feature columns
	Event   string        `json:"event,omitempty"`   // column: when it happened
	Known   string        `json:"known,omitempty"`   // column: when it could be known; "" is the event time, NULL is never
	TTL     time.Duration `json:"ttl,omitempty"`     // older rows are not used; 0 for no limit
	Columns []string      `json:"columns,omitempty"` // the features, in order: numbers or booleans
	Request []Computed    `json:"request,omitempty"`
}

// Computed is a feature of a request view: an expression in the language of Expr. An empty Expr is the column Name.
type Computed struct {
	Name string `json:"name"`
	Expr string `json:"expr,omitempty"`
}

// ServiceDef is a feature service: the views of one model, in the order of its vector.
type ServiceDef struct {
	Name  string   `json:"name"`
	Views []string `json:"views"`
}

// Input is a column that a request or a spine must bring, with its type.
type Input struct {
	Name string `json:"name"`
	Type Type   `json:"type"`
}

// Defined is a view or service as recorded: immutable under its digest.
type Defined struct {
	Name    string    `json:"name"`
	Version int64     `json:"version"`
	Digest  string    `json:"digest"` // of the definition; of a service with all its views
	At      time.Time `json:"at"`
}

// ServiceInfo is a service with everything that a caller must know to fill its vector.
type ServiceInfo struct {
	Defined
	Views    []View   `json:"views"`
	Features []string `json:"features"` // names in vector order
	Entity   []string `json:"entity"`   // key columns that a row must bring
	Request  []Input  `json:"request"`  // request columns that a row must bring (null when absent)
}

// Ref is the pinned spelling name@digest; a release keeps it, so that a later definition does not change what it is given.
func (s ServiceInfo) Ref() string { return s.Name + "@" + s.Digest }

// Status says what stands at a place of a vector, in Feast's words.
type Status string

// The statuses. Only Present comes with a value; the others are NaN.
const (
	Present    Status = "PRESENT"
	NullValue  Status = "NULL_VALUE"
	NotFound   Status = "NOT_FOUND"       // nothing was known of the entity
	OutsideTTL Status = "OUTSIDE_MAX_AGE" // the newest row is older than the view's ttl
)

// Vector is one row of features in service order. Values are NaN where Statuses is not Present. EventTimes are those of
// the rows used, zero for request features and where nothing was found. Digest identifies service and values.
type Vector struct {
	Values     []float64
	Statuses   []Status
	EventTimes []time.Time
	Digest     string
}

// OnlineRequest asks for vectors. Service is a name or a pinned name@digest. Rows bring key and request columns:
// float64, string, bool, time.Time, int or nil. At is the event time of each row, or one for all, or none for now; the
// answer is what was known then.
type OnlineRequest struct {
	Project string
	Service string
	Rows    []map[string]any
	At      []time.Time
}

// OnlineResult holds one vector for each row of the request, in its order.
type OnlineResult struct {
	Service  string // name@digest
	Features []string
	Rows     []Vector
}

// Window is a span of time, From excluded and To included for materialization; zero From is the beginning of time.
type Window struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Materialized says what one materialization put online.
type Materialized struct {
	View   string    `json:"view"`
	Digest string    `json:"digest"`
	Key    string    `json:"key"`
	Window Window    `json:"window"`
	Rows   int64     `json:"rows"`
	Pins   []Pin     `json:"datasets"`
	At     time.Time `json:"at"`
	Again  bool      `json:"again"` // the idempotency key was used before: this is the recorded result
}

// Pin is a dataset version that a SELECT was run on.
type Pin struct {
	Dataset string `json:"dataset"`
	Version int64  `json:"version"`
	Digest  string `json:"digest"`
}

// TrainingSetRequest narrows the spine. Rows with Since <= at < Until are taken; zero times do not limit. With Known
// set, rows whose Known column is NULL or after Until are left out: at that time nobody knew their label.
type TrainingSetRequest struct {
	Since, Until time.Time
	At           string           // the spine's event time column; "" is "at"
	Known        string           // the spine's column of when the label was known; "" does not limit
	Label        string           // the spine's label column, checked when it is named: NULL is a label that has not come
	Pins         map[string]int64 // dataset versions to use instead of the newest
}

// PushRow is one row written to the online store directly. Known zero means: known at Event.
type PushRow struct {
	Entity map[string]any
	Event  time.Time
	Known  time.Time
	Values map[string]any // float64, bool or nil by feature
}

package plan

import "time"

// The structs of falaj.yaml. Their tags are the one source of three things: what the parser takes (yaml, req, enum),
// what people read about a key (doc), and the published JSON Schema (all of them). A key that is not here is refused.

// Project is a whole falaj.yaml.
type Project struct {
	Name         string                 `yaml:"project" req:"true" doc:"Name of the project: lower case letters, digits, - and _."`
	Residency    []string               `yaml:"residency" doc:"Regions where this project's data may lie, as two-letter country codes. An installation in another region refuses it."`
	Environments []string               `yaml:"environments" doc:"Where models are served, in the order of promotion. Default: dev, staging, production."`
	Datasets     map[string]Dataset     `yaml:"datasets" doc:"Tables with immutable versions: read from files or made by one SELECT."`
	Features     map[string]FeatureView `yaml:"features" doc:"Feature views: facts about an entity over time, or values given with the request."`
	Services     map[string]Service     `yaml:"services" doc:"Named lists of feature views, in the order of the model's vector."`
	Models       map[string]Model       `yaml:"models" doc:"Models: how they are trained, tested, gated, served, watched and retrained."`

	at map[string]Position
}

// Dataset has exactly one of Source and SQL.
type Dataset struct {
	Source   *Source   `yaml:"source" doc:"Files to read."`
	Derive   string    `yaml:"derive" doc:"SQL file of one SELECT over the table source, applied to each file as it is read."`
	SQL      string    `yaml:"sql" doc:"SQL file of one SELECT over other datasets."`
	Key      []string  `yaml:"key" doc:"Columns that identify a row."`
	Time     Time      `yaml:"time" doc:"The two times of a row."`
	Contract *Contract `yaml:"contract" doc:"What the rows must keep; those that break it are put aside."`
}

// Source has exactly one of the formats; each is one pattern or a list. A csv may lie alone in a zip.
type Source struct {
	CSV     Strings `yaml:"csv" doc:"CSV files, also zipped: a path or pattern, or a list of them."`
	Parquet Strings `yaml:"parquet" doc:"Parquet files."`
	JSON    Strings `yaml:"json" doc:"JSON files: an array of objects, or one object per line."`
	Delim   string  `yaml:"delim" doc:"One character between the columns of a CSV. Default: a comma."`
	Null    Strings `yaml:"null" doc:"Texts that mean no value in a CSV, beside the empty one."`
}

// Time names the columns of when a row happened and when it could be known.
type Time struct {
	Event string `yaml:"event" doc:"Column of when it happened."`
	Known string `yaml:"known" doc:"Column of when it could be known; no value there means never. Default: the event time."`
}

// Contract is what a dataset promises of its rows.
type Contract struct {
	Columns      map[string]Rule `yaml:"columns" doc:"Rules by column."`
	Volume       Volume          `yaml:"volume" doc:"Watches the number of rows."`
	OnViolation  string          `yaml:"on_violation" enum:"warn,quarantine,block" doc:"What happens to rows that break a rule. Default: quarantine."`
	MaxViolating float64         `yaml:"max_violating" doc:"Share of violating rows above which a whole file is refused. Default: 0.05."`
	Duplicates   bool            `yaml:"duplicates" doc:"Allow rows with an equal key."`
}

// Rule is the promise of one column.
type Rule struct {
	Type    string   `yaml:"type" doc:"integer, number, text, boolean, date, timestamp or decimal(p,s)."`
	In      Scalars  `yaml:"in" doc:"The only values allowed."`
	Min     *float64 `yaml:"min" doc:"Least value."`
	Max     *float64 `yaml:"max" doc:"Greatest value."`
	NotNull bool     `yaml:"not_null" doc:"A value must be there."`
	Pattern string   `yaml:"pattern" doc:"RE2 expression that the whole value must match."`
	Class   string   `yaml:"class" doc:"What kind of value it is, in the project's own words: identifier, personal, ..."`
	Mask    string   `yaml:"mask" enum:"pseudonym,redact" doc:"How the value is shown; it never appears in clear on a page."`
}

// Volume watches the rows of each period.
type Volume struct {
	Anomaly string `yaml:"anomaly" enum:"by month" doc:"Warn when a month has far fewer or more rows than the months before."`
}

// FeatureView has exactly one of SQL and Request.
type FeatureView struct {
	Entity  Strings   `yaml:"entity" doc:"Key column, or a list of them."`
	SQL     string    `yaml:"sql" doc:"SQL file of one SELECT over datasets, giving key, times and features."`
	Time    Time      `yaml:"time" doc:"The two times of its rows. Default: event_at, and known_at when the SELECT has it."`
	TTL     Duration  `yaml:"ttl" doc:"Rows older than this are not used, e.g. 6h."`
	Columns Strings   `yaml:"columns" doc:"The features, in order. Default: all columns of the SELECT but keys and times."`
	Request []Request `yaml:"request" doc:"Features given with the request: a column, or name: expression."`
}

// Request is one feature computed from what the request brings; an empty Expr is the column Name.
type Request struct {
	Name string
	Expr string
}

// Service is the names of feature views in the order of the vector.
type Service []string

// Model is everything about one model.
type Model struct {
	Train   Train             `yaml:"train" req:"true" doc:"How it is trained."`
	Tests   Tests             `yaml:"tests" doc:"The project's own tests of a release, run on it before staging."`
	Gates   map[string][]Gate `yaml:"gates" doc:"What a release must show before it enters an environment, by environment."`
	Serve   Serve             `yaml:"serve" doc:"How it is served."`
	Monitor Monitor           `yaml:"monitor" doc:"What is watched in production."`
	Retrain Retrain           `yaml:"retrain" doc:"When a new model is trained, and what becomes of it."`
}

// Train is the training command with its inputs.
type Train struct {
	Run      string         `yaml:"run" req:"true" doc:"Command, without a shell; {name} stands for a parameter."`
	Runtime  string         `yaml:"runtime" req:"true" doc:"Hash-pinned requirements file."`
	Spine    string         `yaml:"spine" req:"true" doc:"SQL file: one row for each prediction to learn from, with its label."`
	Label    string         `yaml:"label" doc:"Label column of the spine. Default: label."`
	Time     Time           `yaml:"time" doc:"event: the spine's column of when the prediction is made (default at); known: when the label was known."`
	Features string         `yaml:"features" doc:"Feature service joined to the spine."`
	Params   map[string]any `yaml:"params" doc:"Parameters of the command: numbers, texts or booleans."`
	Code     Strings        `yaml:"code" doc:"Files the command needs beside the script; they count for the step cache. Default: the files named in run."`
	Limits   Limits         `yaml:"limits" doc:"What the command may use."`

	Secrets map[string]string `yaml:"secrets" doc:"Files in the folder FALAJ_SECRETS, by name: secret://NAME (falaj secret set), env://NAME or file://PATH of the server where its admin allows it. Never a value."`
}

// Limits bound a command.
type Limits struct {
	Memory  Bytes    `yaml:"memory" doc:"Of all its processes, e.g. 2GiB."`
	CPUs    float64  `yaml:"cpus" doc:"CPU cores."`
	Timeout Duration `yaml:"timeout" doc:"Wall time, e.g. 30m."`
}

// Tests are the suites of the project.
type Tests struct {
	Unit        string `yaml:"unit" doc:"Command, e.g. pytest tests/unit."`
	Behaviour   string `yaml:"behaviour" doc:"YAML file of cases the model must answer."`
	Integration string `yaml:"integration" doc:"Python file run against the release on a throw-away endpoint."`

	Secrets map[string]string `yaml:"secrets" doc:"As in train, for the unit command and the integration file."`
}

// None says that no suite is declared.
func (t Tests) None() bool { return t.Unit == "" && t.Behaviour == "" && t.Integration == "" }

// Gate is one demand; exactly one kind is set. Its spelling is in gate.go.
type Gate struct {
	Kind      string // tests, metric, beats, parity, scan, latency_p99_ms, approval
	Metric    string
	Min, Max  *float64
	On        string
	Group     string
	NotAuthor bool
}

// Serve says how a model is served.
type Serve struct {
	Profile string  `yaml:"profile" enum:"cpu" doc:"What it runs on."`
	Rollout Rollout `yaml:"rollout" doc:"How the last environment changes over to a new release."`
}

// Rollout is a change-over in steps.
type Rollout struct {
	Canary []int `yaml:"canary" doc:"Weights of the new release in percent, rising, the last one 100."`
}

// Monitor says what is watched.
type Monitor struct {
	Drift   *Drift   `yaml:"drift" doc:"Inputs against the training set."`
	Quality *Quality `yaml:"quality" doc:"Answers against late labels."`
}

// Drift compares inputs with the training profile.
type Drift struct {
	Against   string   `yaml:"against" enum:"training" doc:"The reference. Default: training."`
	Weigh     string   `yaml:"weigh" enum:"importance,none" doc:"How features count. Default: importance."`
	Method    string   `yaml:"method" enum:"psi,jensen_shannon" doc:"The figure. Default: jensen_shannon (the distance, base 2)."`
	Threshold *float64 `yaml:"threshold" doc:"Alert above this. Default: 0.2."`
	Window    Duration `yaml:"window" doc:"Span of event time compared, e.g. 14d. Default: 14d."`
}

// Quality judges answers when their labels have come.
type Quality struct {
	Metric      string   `yaml:"metric" req:"true" enum:"auc,brier,log_loss" doc:"The figure."`
	Window      Duration `yaml:"window" req:"true" doc:"Span of event time judged, e.g. 14d."`
	LabelsAfter Duration `yaml:"labels_after" doc:"How late labels come; newer answers are not judged. Default: 0."`
	Against     string   `yaml:"against" enum:"challenger" doc:"Whose answers it is compared with. Default: challenger."`
	MinGap      float64  `yaml:"min_gap" doc:"Alert when the lower 95 % bound of the challenger's lead exceeds this."`
}

// Retrain says when and how a new model is made.
type Retrain struct {
	When     []Trigger `yaml:"when" doc:"quality.degraded, drift.weighted, manual, or schedule: daily, weekly, monthly or quarterly."`
	Cooldown Duration  `yaml:"cooldown" doc:"Least event time between two retrainings, e.g. 7d."`
	Then     string    `yaml:"then" enum:"challenge" doc:"What becomes of the new model: it must win against the champion. Default: challenge."`
}

// Trigger is one reason to retrain: Event, or Schedule (daily, weekly, monthly, quarterly).
type Trigger struct {
	Event    string
	Schedule string
}

// Strings is a text or a list of texts.
type Strings []string

// Scalars is a list of texts, numbers or booleans, as written.
type Scalars []string

// Duration is a number with a unit: s, m, h, d (24 h) or w (7 d), or several: 1d12h.
type Duration time.Duration

// Std is the duration of the standard library.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// Bytes is a number with a unit: B, KiB, MiB, GiB.
type Bytes int64

// Position is a place in falaj.yaml, from 1.
type Position struct{ Line, Column int }

// At is where a key stands, by its path, e.g. "models.delay.train.run" or "models.delay.gates.staging[1]"; zero when
// it is not in the file.
func (p *Project) At(path string) Position { return p.at[path] }

// DefaultEnvironments are those of a project that names none.
func DefaultEnvironments() []string { return []string{"dev", "staging", "production"} }

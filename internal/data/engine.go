package data

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
)

// Engine runs SQL over local files. Everything a job names lies in clear on this machine: the caller decrypts into a
// Room before and wipes it after. A job that crashes, outgrows its memory or its time costs that job alone and comes
// back as a fault; an engine is safe for concurrent use. The one implementation is duckdb.Engine, in a child process.
type Engine interface {
	// Room gives a fresh private folder with at least need bytes free. Close wipes it.
	Room(need int64) (*Room, error)
	// Ingest reads one source file through the contract into Parquet; see IngestJob.
	Ingest(ctx context.Context, job IngestJob) (*IngestResult, error)
	// Transform runs exactly one SELECT into Parquet.
	Transform(ctx context.Context, job TransformJob) (*TransformResult, error)
	// Profile describes the columns of Parquet files, on their own grid or on that of an older profile.
	Profile(ctx context.Context, job ProfileJob) (*Profile, error)
	// Query runs exactly one SELECT and returns its first rows, to look at.
	Query(ctx context.Context, job QueryJob) (*Rows, error)
	// Columns binds one SELECT against empty tables: output columns, and which input columns each came from.
	Columns(ctx context.Context, job ColumnsJob) (*ColumnsResult, error)
}

// Room is a private (0700) folder for one job, in memory where the machine has a tmpfs. It holds decrypted data.
type Room struct {
	Dir  string
	wipe func() error
}

// NewRoom is for engines: a room over dir that wipe empties and removes.
func NewRoom(dir string, wipe func() error) *Room { return &Room{Dir: dir, wipe: wipe} }

// Path is the absolute path of a file in the room; only the last element of name counts.
func (r *Room) Path(name string) string { return filepath.Join(r.Dir, filepath.Base(name)) }

// Create makes a file (0600) in the room.
func (r *Room) Create(name string) (*os.File, error) {
	return os.OpenFile(r.Path(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
}

// Close wipes the room; nothing in it can be read afterwards. A second Close does nothing.
func (r *Room) Close() error {
	if r == nil || r.wipe == nil {
		return nil
	}
	wipe := r.wipe
	r.wipe = nil
	return wipe()
}

// Column is one column of a table: DuckDB's name of the type, narrowed to what a dataset holds (BIGINT, INTEGER,
// DOUBLE, FLOAT, DECIMAL(p,s), BOOLEAN, VARCHAR, BLOB, DATE, TIME, TIMESTAMP WITH TIME ZONE). In source columns
// TIMESTAMP (a clock reading without zone) may stand too; a dataset keeps UTC only.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// Names of the formats a source file may have. A csv may lie alone in a zip.
const (
	CSV     = "csv"
	Parquet = "parquet"
	JSON    = "json"
)

// IngestJob reads the file Path (in format Format, called Name in messages) and writes Out, a Parquet file of the rows
// that keep the contract, sorted by Key, and Bad, a Parquet file (reasons VARCHAR[], row BIGINT, record VARCHAR: the row
// as a JSON object) of those that do not.
//
// Source and Expect hold the columns fixed by the first file; nil for that first one. Derive is one SELECT over the
// table `source`; empty takes the source as it is. Existing are the Parquet files accepted before, read for the
// uniqueness of Key only.
type IngestJob struct {
	Dir       string
	Path      string
	Name      string
	Format    string
	Delim     string
	Null      []string
	Source    []Column
	Derive    string
	Expect    []Column
	Key       []string
	Time      Time
	Contract  Contract
	Existing  []string
	Out, Bad  string
	DeriveRef string // what messages call the derive text, for example sql/flights.sql
}

// IngestResult is what became of one file. Accepted is false when the contract refuses the file as a whole: then Out
// does not exist and Refusal says why.
type IngestResult struct {
	Accepted bool             `json:"accepted"`
	Refusal  string           `json:"refusal,omitempty"`
	Source   []Column         `json:"source"`
	Columns  []Column         `json:"columns"`
	Read     int64            `json:"read"` // rows in the source
	Good     int64            `json:"good"` // rows in Out
	Bad      int64            `json:"bad"`  // rows in Bad
	Checks   []CheckResult    `json:"checks"`
	Periods  map[string]int64 `json:"periods,omitempty"` // rows by calendar month ("2013-01") of the event time
	EventMin *int64           `json:"event_min,omitempty"`
	EventMax *int64           `json:"event_max,omitempty"` // microseconds UTC
}

// CheckResult is one check of a contract over one file or version.
type CheckResult struct {
	Check   string `json:"check"` // type, not_null, in, min, max, pattern, unique, finite, volume
	Column  string `json:"column,omitempty"`
	Rule    string `json:"rule"` // in words, for example "at least 1"
	Rows    int64  `json:"rows"` // violating rows
	Example string `json:"example,omitempty"`
}

// TransformJob runs SQL, exactly one SELECT over the named inputs, and writes Out. Rows come sorted by Order, then by
// all columns, so that equal content gives equal bytes; AsWritten keeps the order of the SQL instead.
type TransformJob struct {
	Dir       string
	SQL       string
	Ref       string // what messages call the text
	Inputs    map[string]Input
	Out       string
	Order     []string
	AsWritten bool
	Profile   bool
	Hide      bool // messages hold no values, for some input has masked columns
}

// Input is a table a SELECT may name: Parquet files with equal columns. Without files it is an empty table of Columns.
type Input struct {
	Files   []string
	Columns []Column
}

// TransformResult describes Out.
type TransformResult struct {
	Columns []Column `json:"columns"`
	Rows    int64    `json:"rows"`
	Profile *Profile `json:"profile,omitempty"`
}

// ProfileJob profiles Files, keeping Only those columns (nil: all). Against takes the bins and the top values of an
// older profile, so that both can be compared.
type ProfileJob struct {
	Dir     string
	Files   []string
	Only    []string
	Against *Profile
}

// QueryJob runs SQL, exactly one SELECT over the inputs, for at most Limit rows.
type QueryJob struct {
	Dir    string
	SQL    string
	Ref    string
	Inputs map[string]Input
	Limit  int
	Hide   bool // as in TransformJob
}

// Rows are the first rows of a SELECT, each one JSON object with its keys in column order. Times are RFC 3339 in UTC.
// More says that rows were left out.
type Rows struct {
	Columns []Column          `json:"columns"`
	Rows    []json.RawMessage `json:"rows"`
	More    bool              `json:"more"`
}

// ColumnsJob binds SQL, exactly one SELECT, against empty Inputs; no file is read.
type ColumnsJob struct {
	Dir    string
	SQL    string
	Ref    string
	Inputs map[string]Input
}

// ColumnsResult is what a SELECT gives. From lists for each output column the input columns ("flights.dep_time") its
// value is made of; Filters lists those that only decide which rows appear. Traced is false when the walk met a form it
// does not know: then From names every column of every input that the text mentions.
type ColumnsResult struct {
	Columns []Column            `json:"columns"`
	Tables  []string            `json:"tables"`
	From    map[string][]string `json:"from"`
	Filters []string            `json:"filters,omitempty"`
	Traced  bool                `json:"traced"`
}

// PITJob joins feature views to the entity rows in Spine as they were known at each row's time, and writes Out.
//
// There is exactly one output row for each spine row, always, in the order of the spine (its files, then their rows):
// rows of the spine are never dropped, merged or reordered, whatever their key or time, NULL included. Columns are
// those of the spine, then the features of each view.
//
// A row of a view is usable for a spine row when its keys are equal (NULL equals nothing), and both its event time and
// its known time are at or before the spine row's At. Of the usable rows the one with the newest event time wins, then
// the newest known time, then the last in the view's files. Its features are taken when At - event <= TTL; else,
// and when nothing was usable, they are NULL.
type PITJob struct {
	Dir     string
	Spine   []string
	At      string
	Views   []PITView
	Out     string
	Profile bool
}

// PITView is one feature view. Keys maps the spine's column to the view's. Known empty means: known at its event time.
// TTL is in microseconds, 0 for no limit. Features lists the view's columns to take; As renames them in the output.
type PITView struct {
	Name     string
	Files    []string
	Keys     map[string]string
	Event    string
	Known    string
	TTL      int64
	Features []string
	As       map[string]string
	// EventAs names an output column that receives the event time of the row taken; empty for none.
	EventAs string
}

package data

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/ledger"
)

// Spec is the definition of a dataset in falaj.yaml. Exactly one of Source and SQL is set.
type Spec struct {
	Name   string  `json:"name"`
	Source *Source `json:"source,omitempty"`
	// Derive is the text of one SELECT over the table `source`, DeriveRef its file for messages.
	Derive    string `json:"derive,omitempty"`
	DeriveRef string `json:"derive_ref,omitempty"`
	// SQL is the text of one SELECT over other datasets of the project, by name.
	SQL      string   `json:"sql,omitempty"`
	SQLRef   string   `json:"sql_ref,omitempty"`
	Key      []string `json:"key,omitempty"`
	Time     Time     `json:"time,omitzero"`
	Contract Contract `json:"contract,omitzero"`
}

// Source says how the files of a dataset are read. Patterns tell which files of the user's folder they are (see Glob);
// the stage itself takes what AddSource gives. Delim is one character, "" is a comma. Null lists texts that mean "no
// value" in a CSV beside the empty one.
type Source struct {
	Format   string   `json:"format"`
	Patterns []string `json:"patterns,omitempty"`
	Delim    string   `json:"delim,omitempty"`
	Null     []string `json:"null,omitempty"`
}

// Dataset is a definition with its state. Generation rises when a new definition asks for other content; the next
// version is then made from all sources again.
type Dataset struct {
	Project    string    `json:"project"`
	Spec       Spec      `json:"spec"`
	Digest     string    `json:"digest"`
	Generation int64     `json:"generation"`
	Created    time.Time `json:"created"`
	Updated    time.Time `json:"updated"`
	Latest     *Version  `json:"latest,omitempty"`
}

// SourceFile is a source file of a dataset and what became of it in the current generation: pending, accepted, refused.
type SourceFile struct {
	Name    string    `json:"name"`
	Digest  string    `json:"digest"`
	Size    int64     `json:"size"`
	Added   time.Time `json:"added"`
	State   string    `json:"state"`
	Version int64     `json:"version,omitempty"`
}

// States of a source file.
const (
	Pending  = "pending"
	Accepted = "accepted"
	Refused  = "refused"
)

// Version is an immutable state of a dataset: a snapshot of its table, the digest of its content, and what was found
// out about it. Digest covers columns and file digests; equal content has an equal digest. Profile is filled where a
// single version is asked for.
type Version struct {
	ID         string              `json:"id"`
	Project    string              `json:"project"`
	Dataset    string              `json:"dataset"`
	N          int64               `json:"n"`
	Generation int64               `json:"generation"`
	Digest     string              `json:"digest"`
	Definition string              `json:"definition"`
	Previous   int64               `json:"previous,omitempty"`
	Parents    []Parent            `json:"parents,omitempty"`
	Sources    []Ingested          `json:"sources,omitempty"` // all files that the version covers
	Columns    []Column            `json:"columns"`
	Files      []File              `json:"files"`
	Rows       int64               `json:"rows"`
	Checks     []CheckResult       `json:"checks,omitempty"` // summed over the files that this version added
	PutAside   int64               `json:"put_aside"`        // rows of those files that broke the contract
	Periods    map[string]int64    `json:"periods,omitempty"`
	EventMin   *int64              `json:"event_min,omitempty"`
	EventMax   *int64              `json:"event_max,omitempty"`
	Table      string              `json:"table"` // name in the catalog; the namespace is the project
	TableID    string              `json:"table_id"`
	Snapshot   int64               `json:"snapshot,string"` // too large for JavaScript's numbers
	Location   string              `json:"location"`
	Lineage    map[string][]string `json:"lineage,omitempty"` // input columns of each column, "flights.origin" or "source.origin"
	Created    time.Time           `json:"created"`
	By         string              `json:"by"`
	Profile    *Profile            `json:"profile,omitempty"`
}

// Parent is a dataset version that another was made of.
type Parent struct {
	Dataset string `json:"dataset"`
	N       int64  `json:"n"`
	ID      string `json:"id"`
	Digest  string `json:"digest"`
}

// Ingested is one source file inside a version.
type Ingested struct {
	Name   string           `json:"name"`
	Digest string           `json:"digest"`
	Read   int64            `json:"read"`
	Good   int64            `json:"good"`
	Bad    int64            `json:"bad"`
	File   File             `json:"file"`
	Source []Column         `json:"source,omitempty"`
	Out    []Column         `json:"out,omitempty"`
	Period map[string]int64 `json:"period,omitempty"`
	Min    *int64           `json:"min,omitempty"`
	Max    *int64           `json:"max,omitempty"`
}

// Aside is a quarantine: rows that broke the contract, or a file refused as a whole (Whole). Rows is 0 where the file
// could not be read at all; the file itself stays a source blob in any case.
type Aside struct {
	ID           string        `json:"id"`
	Project      string        `json:"project"`
	Dataset      string        `json:"dataset"`
	Generation   int64         `json:"generation"`
	Source       string        `json:"source"`
	SourceDigest string        `json:"source_digest"`
	Whole        bool          `json:"whole"`
	Reason       string        `json:"reason"`
	Next         string        `json:"next,omitempty"`
	Rows         int64         `json:"rows"`
	Read         int64         `json:"read"`
	Checks       []CheckResult `json:"checks,omitempty"`
	RowsDigest   string        `json:"rows_digest,omitempty"`
	// Masks are the masks that applied, by lower-case name; also of source columns that masked columns are made of.
	Masks   map[string]string `json:"masks,omitempty"`
	Created time.Time         `json:"created"`
	By      string            `json:"by"`
}

// AsideRow is one row that was put aside. Row counts the data rows of the source from 1, 0 where a SELECT stands
// between. Record is the row as a JSON object, masked.
type AsideRow struct {
	Row     int64           `json:"row,omitempty"`
	Reasons []string        `json:"reasons"`
	Record  json.RawMessage `json:"record"`
}

// nameForm is what a dataset may be called, so that SQL can name it without quotes.
var nameForm = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// Check refuses a definition that cannot work, whatever the data. It is what Define calls first, and `falaj plan`.
func (s Spec) Check() error {
	if !nameForm.MatchString(s.Name) || s.Name == "source" {
		return fault.New(fault.Invalid, "The dataset name "+quote(s.Name)+" cannot be used.", "Names are lower-case letters, digits and _, start with a letter, and are not `source`.").At("name")
	}
	at := "datasets." + s.Name
	bad := func(field, format string, args ...any) error {
		return fault.Newf(fault.Invalid, format, args...).At(at + "." + field)
	}
	switch {
	case (s.Source == nil) == (s.SQL == ""):
		return bad("source", "Dataset %s needs either a source or sql.", s.Name)
	case s.SQL != "" && s.Derive != "":
		return bad("derive", "Dataset %s has sql and derive; derive belongs to a source.", s.Name)
	case s.Source != nil && !slices.Contains([]string{CSV, Parquet, JSON}, s.Source.Format):
		return bad("source", "The source of dataset %s is in format %q; it can be csv (also in a zip), parquet or json.", s.Name, s.Source.Format)
	case s.Source != nil && len([]rune(s.Source.Delim)) > 1:
		return bad("source.delim", "delim of dataset %s is %q; it is one character.", s.Name, s.Source.Delim)
	case s.Time.Known != "" && s.Time.Event == "":
		return bad("time.event", "Dataset %s has a known time without an event time.", s.Name)
	case s.Contract.Volume.Anomaly != "" && s.Time.Event == "":
		return bad("contract.volume", "Dataset %s watches its volume by month, so it needs an event time.", s.Name)
	}
	if err := s.Contract.check(); err != nil {
		f := fault.From(err)
		return f.At(at + "." + f.Field)
	}
	return nil
}

// Ident is a name as SQL writes it, whatever is in it.
func Ident(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func quote(s string) string { b, _ := json.Marshal(s); return string(b) }

// digest covers the whole definition; content only what decides about the rows, so that a new mask or class does not
// make a new generation.
func (s Spec) digest() string { return ledger.Digest(s) }

func (s Spec) content() string {
	c := s
	c.DeriveRef, c.SQLRef, c.Contract.Volume = "", "", Volume{}
	if s.Source != nil {
		src := *s.Source
		src.Patterns = nil
		c.Source = &src
	}
	c.Contract.Columns = map[string]Rule{}
	for name, r := range s.Contract.Columns {
		r.Class, r.Mask = "", ""
		c.Contract.Columns[name] = r
	}
	return ledger.Digest(c)
}

package data

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"falaj/internal/kernel/fault"
)

// What happens to rows that break the contract.
const (
	Warn       = "warn"       // they stay, the version says how many; a value that has no place in its type is still put aside
	Quarantine = "quarantine" // they are put aside; a file with more than MaxViolating of them is put aside as a whole
	Block      = "block"      // one is enough to put the file aside as a whole
)

// DefaultMaxViolating is the share of violating rows above which a file is refused as a whole.
const DefaultMaxViolating = 0.05

// Contract is what a dataset promises of its rows. The zero value promises only that the key is unique.
type Contract struct {
	Columns      map[string]Rule `json:"columns,omitempty"`
	Volume       Volume          `json:"volume,omitzero"`
	OnViolation  string          `json:"on_violation,omitempty"`  // "" is quarantine
	MaxViolating float64         `json:"max_violating,omitempty"` // share, 0 is DefaultMaxViolating
	Duplicates   bool            `json:"duplicates,omitempty"`    // rows with an equal key are allowed
}

// Rule is the promise of one column. Class and Mask say what the value is and how it is shown: a column with a Mask
// never appears in clear on a page, in a profile or among quarantined rows.
type Rule struct {
	Type    string   `json:"type,omitempty"`
	In      []string `json:"in,omitempty"`
	Min     *float64 `json:"min,omitempty"`
	Max     *float64 `json:"max,omitempty"`
	NotNull bool     `json:"not_null,omitempty"`
	Pattern string   `json:"pattern,omitempty"` // RE2, must match the whole value
	Class   string   `json:"class,omitempty"`   // a word of the project: identifier, personal, ...
	Mask    string   `json:"mask,omitempty"`    // pseudonym | redact
}

// Volume watches the rows of a file by calendar month of the event time against the accepted months before it.
type Volume struct {
	Anomaly string `json:"anomaly,omitempty"` // "by month" or "" (off)
}

// ByMonth is the one period that Volume knows so far.
const ByMonth = "by month"

// The masks.
const (
	MaskPseudonym = "pseudonym" // the same value gives the same token within a project and column
	MaskRedact    = "redact"    // shown as ***
)

// Time names the columns of the two times of a row: when it happened and when we could know it. Known may be empty:
// then a row is known when it happens. A NULL in the known column means: never known.
type Time struct {
	Event string `json:"event,omitempty"`
	Known string `json:"known,omitempty"`
}

func (c Contract) mode() string {
	if c.OnViolation == "" {
		return Quarantine
	}
	return c.OnViolation
}

// Limit is the effective share of violating rows above which a file is refused.
func (c Contract) Limit() float64 {
	switch {
	case c.mode() == Block:
		return 0
	case c.mode() == Warn:
		return 1
	case c.MaxViolating == 0:
		return DefaultMaxViolating
	}
	return c.MaxViolating
}

// Keeps says whether rows that break a rule but have values of the right type stay in the version.
func (c Contract) Keeps() bool { return c.mode() == Warn }

// check refuses a contract that could not be kept as written.
func (c Contract) check() error {
	if !slices.Contains([]string{"", Warn, Quarantine, Block}, c.OnViolation) {
		return fault.Newf(fault.Invalid, "on_violation is %q; it can be warn, quarantine or block.", c.OnViolation).At("contract.on_violation")
	}
	if c.MaxViolating < 0 || c.MaxViolating > 1 {
		return fault.Newf(fault.Invalid, "max_violating is %v; it is a share between 0 and 1.", c.MaxViolating).At("contract.max_violating")
	}
	if c.Volume.Anomaly != "" && c.Volume.Anomaly != ByMonth {
		return fault.Newf(fault.Unsupported, "volume anomaly %q is not available in this version; only %q is.", c.Volume.Anomaly, ByMonth).At("contract.volume.anomaly")
	}
	for name, r := range c.Columns {
		at := "contract.columns." + name
		if _, err := TypeName(r.Type); r.Type != "" && err != nil {
			return fault.From(err).At(at + ".type")
		}
		if r.Mask != "" && r.Mask != MaskPseudonym && r.Mask != MaskRedact {
			return fault.Newf(fault.Unsupported, "mask %q of column %s is not available; masks are pseudonym and redact.", r.Mask, name).At(at + ".mask")
		}
		if _, err := regexp.Compile(r.Pattern); err != nil {
			return fault.New(fault.Invalid, fmt.Sprintf("The pattern of column %s is not a regular expression: %v.", name, err), "Patterns use RE2 syntax.").At(at + ".pattern")
		}
		if r.Min != nil && r.Max != nil && *r.Min > *r.Max {
			return fault.Newf(fault.Invalid, "Column %s has min %v above max %v.", name, *r.Min, *r.Max).At(at + ".min")
		}
	}
	return nil
}

// decimalType matches a decimal with precision and scale.
var decimalType = regexp.MustCompile(`^DECIMAL\(\s*(\d+)\s*,\s*(\d+)\s*\)$`)

// TypeName turns the word a contract uses for a type into the column type of a dataset.
func TypeName(word string) (string, error) {
	w := strings.ToUpper(strings.TrimSpace(word))
	switch w {
	case "INTEGER", "INT", "LONG", "BIGINT", "INT64":
		return "BIGINT", nil
	case "INT32":
		return "INTEGER", nil
	case "NUMBER", "DOUBLE", "FLOAT", "FLOAT64", "REAL":
		return "DOUBLE", nil
	case "FLOAT32":
		return "FLOAT", nil
	case "STRING", "TEXT", "VARCHAR":
		return "VARCHAR", nil
	case "BOOLEAN", "BOOL":
		return "BOOLEAN", nil
	case "DATE":
		return "DATE", nil
	case "TIMESTAMP", "DATETIME", "TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE":
		return "TIMESTAMP WITH TIME ZONE", nil
	}
	if m := decimalType.FindStringSubmatch(w); m != nil {
		return "DECIMAL(" + m[1] + "," + m[2] + ")", nil
	}
	return "", fault.Newf(fault.Invalid, "%q is not a column type; types are integer, number, text, boolean, date, timestamp and decimal(p,s).", word)
}

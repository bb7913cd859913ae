package worker

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	engine "github.com/duckdb/duckdb-go/v2"

	"falaj/internal/kernel/fault"
)

var (
	lineAt    = regexp.MustCompile(`(?m)^LINE (\d+):`)
	suggested = regexp.MustCompile(`(?m)^(Candidate bindings|Did you mean|Candidate tables|Candidate functions)[:]? ?(.*)$`)
)

// hidden stands for an error whose text may quote values of masked columns, also in the log; values finds them.
var (
	hidden = errors.New("the text of DuckDB is withheld, for it may quote masked values")
	values = regexp.MustCompile(`'.*'|".*"`)
)

// shifted is an error of DuckDB on text that stood by lines lower than the user wrote it.
type shifted struct {
	error
	by int
}

func (s shifted) Unwrap() error { return s.error }

func shift(err error, by int) error { return shifted{err, by} }

// explain turns an error of DuckDB on the text called ref into a fault: DuckDB's words, the line, what it suggests.
// Faults pass unchanged. Paths of the scratch never appear.
func (s *session) explain(err error, ref string) error {
	var known *fault.E
	if err == nil || errors.As(err, &known) {
		return err
	}
	text := strings.ReplaceAll(err.Error(), s.dir+"/", "")
	kind, words := split(text)
	var typed *engine.Error
	if errors.As(err, &typed) && typed.Type == engine.ErrorTypeOutOfMemory {
		kind = "Out of Memory"
	}
	what := orWord(ref)
	first, _, _ := strings.Cut(words, "\n")
	first = strings.TrimRight(strings.TrimSpace(first), ".!")
	cause := err
	if s.hide {
		cause = hidden
		switch kind {
		case "Conversion", "Out of Range", "Invalid Input", "Mismatch Type", "Constraint": // the others speak of names
			first = values.ReplaceAllString(first, "***")
		}
	}
	switch kind {
	case "Parser", "Binder", "Catalog", "Not implemented", "Conversion", "Out of Range", "Invalid Input", "Mismatch Type", "Divide by Zero", "Constraint", "Syntax":
		where := what
		var moved shifted // else the line is one of the worker's own text
		if m := lineAt.FindStringSubmatch(text); m != nil && errors.As(err, &moved) {
			n, _ := strconv.Atoi(m[1])
			where = fmt.Sprintf("%s, line %d", what, max(n-moved.by, 1))
		}
		next := "Correct the SQL; it is DuckDB's dialect."
		if m := suggested.FindStringSubmatch(text); m != nil && m[2] != "" {
			names := strings.TrimRight(m[2], "?")
			if first2 := strings.Split(names, ", "); len(first2) > 6 {
				names = strings.Join(first2[:6], ", ")
			}
			next = "Did you mean " + names + "?"
		}
		return fault.Wrap(cause, fault.Invalid, where+": "+first+".", next).(*fault.E).At("sql")
	case "Permission":
		return fault.Wrap(cause, fault.Invalid, what+" reaches for a file, and SQL here sees only its declared inputs.",
			"Make the file a source of a dataset and name the dataset instead.").(*fault.E).At("sql")
	case "Out of Memory":
		return fault.Wrap(cause, fault.TooLarge, fmt.Sprintf("%s needs more memory or scratch space than the %d MiB the data engine may use.", what, s.memory>>20),
			"Give it less data at once, or raise the data engine's memory limit.")
	case "IO":
		if strings.Contains(text, "No space left") || strings.Contains(text, "Could not write") {
			return fault.Wrap(cause, fault.Unavailable, "The scratch folder is full, so the data job was stopped; nothing of it is kept.", "Free space there and run it again.")
		}
	}
	return fault.Wrap(cause, fault.Internal, "The data engine failed inside DuckDB ("+kind+").", "Report this error with the server's log.")
}

// split takes "Binder Error: text" apart.
func split(text string) (kind, words string) {
	if i := strings.Index(text, " Error: "); i > 0 && i < 30 {
		return text[:i], text[i+len(" Error: "):]
	}
	return "unknown", text
}

package tracking

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of MLflow 3.17 (mlflow.utils.validation). Lengths are characters.
const (
	MaxMetrics    = 1000
	MaxParamsTags = 100
	MaxEntities   = 1000
	maxKey        = 250
	maxParam      = 6000
	maxTag        = 8000
	maxExpName    = 500
	maxExpTag     = 20000
)

const badCharacters = "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colon(:) and slashes (/)."

// nameOK is ^[/\w.\- :]*$ of Python: letters and digits of every script.
func nameOK(s string) bool {
	for _, r := range s {
		switch {
		case r == '/' || r == '_' || r == '.' || r == '-' || r == ' ' || r == ':':
		case isWord(r):
		default:
			return false
		}
	}
	return true
}

// notUnique says whether the name, taken as a path, would resolve to another one.
func notUnique(s string) (string, bool) {
	n := path.Clean(s)
	if strings.HasPrefix(s, "//") && !strings.HasPrefix(s, "///") {
		n = "/" + n // POSIX keeps two leading slashes
	}
	return n, n != s || n == "." || strings.HasPrefix(n, "..") || strings.HasPrefix(n, "/")
}

func invalidValue(path, jsonValue, why string) error {
	if why != "" {
		why = ": " + why
	} else {
		why = "."
	}
	return invalid("Invalid value %s for parameter '%s' supplied%s", jsonValue, path, why)
}

// CheckName is MLflow's check of metric, parameter and tag names.
func CheckName(field, name string) error {
	if !nameOK(name) {
		return invalidValue(field, Quote(name), badCharacters)
	}
	if n, bad := notUnique(name); bad {
		return invalidValue(field, Quote(name), "Names may be treated as files in certain cases, and must not resolve to other names when treated as such. This name would resolve to "+PyRepr(n))
	}
	return nil
}

func checkLength(what string, limit int, s string) error {
	if len(s) > limit && utf8.RuneCountInString(s) > limit {
		return invalid("'%s' exceeds the maximum length of %d characters", what, limit)
	}
	return nil
}

// cut shortens a value to the limit, as MLflow does with its default settings (MLFLOW_TRUNCATE_LONG_VALUES).
func cut(s string, limit int) string {
	if len(s) <= limit || utf8.RuneCountInString(s) <= limit {
		return s
	}
	return string([]rune(s)[:limit])
}

func at(prefix, field string) string {
	if prefix == "" {
		return field
	}
	return prefix + "." + field
}

func checkMetric(m Metric, prefix string) error {
	if err := CheckName(at(prefix, "name"), m.Key); err != nil {
		return err
	}
	if m.TimestampMs < 0 {
		return invalidValue(at(prefix, "timestamp"), strconv.FormatInt(m.TimestampMs, 10),
			fmt.Sprintf("metric '%s' (value=%s). Timestamp must be a nonnegative long (64-bit integer) ", m.Key, PyFloat(m.Value)))
	}
	return checkLength("Metric name", maxKey, m.Key)
}

func checkParam(p *Pair, prefix string) error {
	if err := CheckName(at(prefix, "key"), p.Key); err != nil {
		return err
	}
	if err := checkLength("Param key", maxKey, p.Key); err != nil {
		return err
	}
	p.Value = cut(p.Value, maxParam)
	return nil
}

func checkTag(p *Pair, prefix string) error {
	if err := CheckName(at(prefix, "key"), p.Key); err != nil {
		return err
	}
	if err := checkLength(at(prefix, "key"), maxKey, p.Key); err != nil {
		return err
	}
	p.Value = cut(p.Value, maxTag)
	return nil
}

func checkExperimentTag(p Pair) error {
	if err := CheckName("key", p.Key); err != nil {
		return err
	}
	if err := checkLength("key", maxKey, p.Key); err != nil {
		return err
	}
	return checkLength("value", maxExpTag, p.Value)
}

// RunIDOK says whether s can be a run's id: a letter or digit and at most 255 more letters, digits, _ and -.
func RunIDOK(s string) bool {
	if s == "" || len(s) > 256 || s[0] == '_' || s[0] == '-' {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

// hexID says whether s is 32 lower-case hex digits.
func hexID(s string) bool {
	if len(s) != 32 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return true
}

// checkBatch checks a batch against MLflow's rules, in its order, and cuts long values.
func checkBatch(b *Batch) error {
	for i, m := range b.Metrics {
		prefix := ""
		if !b.Single {
			prefix = fmt.Sprintf("metrics[%d]", i)
		}
		if err := checkMetric(m, prefix); err != nil {
			return err
		}
	}
	for i := range b.Params {
		if err := checkParam(&b.Params[i], index("params", i, b.Single)); err != nil {
			return err
		}
	}
	for i := range b.Tags {
		if err := checkTag(&b.Tags[i], index("tags", i, b.Single)); err != nil {
			return err
		}
	}
	for _, l := range []struct {
		what   string
		max, n int
	}{
		{"metrics", MaxMetrics, len(b.Metrics)}, {"params", MaxParamsTags, len(b.Params)}, {"tags", MaxParamsTags, len(b.Tags)},
		{"metrics, params, and tags", MaxEntities, len(b.Metrics) + len(b.Params) + len(b.Tags)},
	} {
		if l.n > l.max {
			return invalid("A batch logging request can contain at most %d %s. Got %d %s. Please split up %s across multiple requests and try again.", l.max, l.what, l.n, l.what, l.what)
		}
	}
	seen := map[string]bool{}
	var twice []string
	for _, p := range b.Params {
		if seen[p.Key] {
			twice = append(twice, PyRepr(p.Key))
		}
		seen[p.Key] = true
	}
	if len(twice) > 0 {
		return invalid("Duplicate parameter keys have been submitted: [%s]. Please ensure the request contains only one param value per param key.", strings.Join(twice, ", "))
	}
	return nil
}

func index(what string, i int, single bool) string {
	if single {
		return ""
	}
	return fmt.Sprintf("%s[%d]", what, i)
}

// checkMax holds a page size to its limit.
func checkMax(n, most int) error {
	switch {
	case n < 1:
		return invalid("Invalid value %d for parameter 'max_results' supplied. It must be a positive integer", n)
	case n > most:
		return invalid("Invalid value %d for parameter 'max_results' supplied. It must be at most %d", n, most)
	}
	return nil
}

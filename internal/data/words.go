package data

import (
	"fmt"
	"strconv"
	"strings"
)

// Grouped writes a count as people read it: 28,330.
func Grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Percent writes a share in per cent with at most one decimal: 5 %, 33.1 %.
func Percent(share float64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", 100*share), ".0") + " %"
}

// because adds to a sentence which checks were broken and how often: "...: distance must be at least 1 (60 rows)".
func because(sentence string, checks []CheckResult) string {
	var parts []string
	for _, c := range checks {
		rows := "rows"
		if c.Rows == 1 {
			rows = "row"
		}
		switch {
		case c.Rows == 0 || c.Check == "volume":
			continue
		case c.Check == "unique":
			parts = append(parts, fmt.Sprintf("the key %s must be unique (%s %s)", c.Column, Grouped(c.Rows), rows))
		default:
			parts = append(parts, fmt.Sprintf("%s must be %s (%s %s)", c.Column, c.Rule, Grouped(c.Rows), rows))
		}
	}
	if parts == nil {
		return sentence
	}
	if len(parts) > 8 {
		parts = append(parts[:8], fmt.Sprintf("and %d more", len(parts)-8))
	}
	return sentence + ": " + strings.Join(parts, "; ")
}

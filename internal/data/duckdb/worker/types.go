package worker

import (
	"fmt"
	"strings"

	"falaj/internal/data"
	"falaj/internal/kernel/fault"
)

const timestampTZ = "TIMESTAMP WITH TIME ZONE"

// stored narrows a type of DuckDB to what a dataset holds: whole numbers of 32 or 64 bits, UTC for every time.
func stored(c data.Column) (string, error) {
	switch t := c.Type; {
	case t == "TINYINT", t == "SMALLINT", t == "UTINYINT", t == "USMALLINT":
		return "INTEGER", nil
	case t == "UINTEGER", t == "UBIGINT", t == "HUGEINT", t == "UHUGEINT", t == "BIGNUM":
		return "BIGINT", nil
	case t == "TIMESTAMP", t == "TIMESTAMP_S", t == "TIMESTAMP_MS", t == "TIMESTAMP_NS":
		return timestampTZ, nil
	case t == "UUID", t == "JSON", t == `"NULL"`, t == "NULL", strings.HasPrefix(t, "ENUM"):
		return "VARCHAR", nil
	case t == "BIGINT", t == "INTEGER", t == "DOUBLE", t == "FLOAT", t == "BOOLEAN", t == "VARCHAR", t == "BLOB", t == "DATE", t == "TIME", t == timestampTZ,
		strings.HasPrefix(t, "DECIMAL(") && !strings.HasSuffix(t, "]"):
		return t, nil
	}
	return "", fault.New(fault.Invalid, fmt.Sprintf("Column %s is %s, and a dataset holds flat columns only.", c.Name, c.Type),
		"Take it apart or cast it in the SELECT.").At(c.Name)
}

// castTo is the expression that brings col of type from to type to, and the condition under which a value that is
// there has no place in the new type; "" when that cannot happen. A number with a fraction is no whole number:
// DuckDB's own cast would round it.
func castTo(col, from, to string) (expr, lost string) {
	if from == to {
		return col, ""
	}
	if from == "VARCHAR" && (to == "BIGINT" || to == "INTEGER") {
		expr = fmt.Sprintf("TRY_CAST(%s AS %s)", col, to)
		return expr, fmt.Sprintf("(%s IS NOT NULL AND (%s IS NULL OR (contains(%s, '.') AND TRY_CAST(%s AS DOUBLE) <> %s)))", col, expr, col, col, expr)
	}
	if (from == "DOUBLE" || from == "FLOAT" || strings.HasPrefix(from, "DECIMAL(")) && (to == "BIGINT" || to == "INTEGER") {
		expr = fmt.Sprintf("TRY_CAST(%s AS %s)", col, to)
		return expr, fmt.Sprintf("(%s IS NOT NULL AND (%s IS NULL OR %s <> %s))", col, expr, expr, col)
	}
	if from == "TIMESTAMP_NS" && to == timestampTZ {
		return fmt.Sprintf("CAST(CAST(%s AS TIMESTAMP) AS %s)", col, timestampTZ), ""
	}
	if to == "VARCHAR" {
		return fmt.Sprintf("CAST(%s AS VARCHAR)", col), ""
	}
	expr = fmt.Sprintf("TRY_CAST(%s AS %s)", col, to)
	return expr, fmt.Sprintf("(%s IS NOT NULL AND %s IS NULL)", col, expr)
}

func numeric(t string) bool {
	return t == "BIGINT" || t == "INTEGER" || t == "DOUBLE" || t == "FLOAT" || strings.HasPrefix(t, "DECIMAL(")
}

func floating(t string) bool { return t == "DOUBLE" || t == "FLOAT" }

func find(cols []data.Column, name string) (data.Column, bool) {
	for _, c := range cols {
		if strings.EqualFold(c.Name, name) {
			return c, true
		}
	}
	return data.Column{}, false
}

func names(cols []data.Column) []string {
	out := make([]string, len(cols))
	for i, c := range cols {
		out[i] = c.Name
	}
	return out
}

// shape compares the columns of a file with those the first file fixed, in any order.
func shape(got, want []data.Column, name, field string) error {
	var missing, extra []string
	for _, w := range want {
		if _, ok := find(got, w.Name); !ok {
			missing = append(missing, w.Name)
		}
	}
	for _, g := range got {
		if _, ok := find(want, g.Name); !ok {
			extra = append(extra, g.Name)
		}
	}
	if missing == nil && extra == nil {
		return nil
	}
	var parts []string
	if missing != nil {
		parts = append(parts, "lacks "+list("column", missing))
	}
	if extra != nil {
		parts = append(parts, "has unknown "+list("column", extra))
	}
	text := fmt.Sprintf("%s %s.", name, strings.Join(parts, " and "))
	for _, m := range missing {
		if e := nearest(m, extra); e != "" {
			text += fmt.Sprintf(" Is %s meant to be %s?", e, m)
		}
	}
	return fault.New(fault.Invalid, text,
		"Every file of a dataset has the columns of its first one: "+clip(strings.Join(names(want), ", "), 400)+".").At(field)
}

// nearest finds the name that a slip of the hand makes of another, "" when none is near.
func nearest(name string, of []string) (best string) {
	n := len([]rune(name))
	least := min(max(2, n/3), n-2) + 1
	for _, o := range of {
		if d := distance([]rune(strings.ToLower(name)), []rune(strings.ToLower(o))); d < least {
			best, least = o, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b []rune) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range a {
		left := row[0]
		row[0] = i + 1
		for j := range b {
			next := min(row[j+1]+1, row[j]+1, left+1)
			if a[i] == b[j] {
				next = left
			}
			left, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}

func list(word string, of []string) string {
	if len(of) > 1 {
		word += "s"
	}
	return word + " " + clip(strings.Join(of, ", "), 200)
}

func clip(text string, n int) string {
	if len(text) > n {
		return strings.ToValidUTF8(text[:n], "") + "..."
	}
	return text
}

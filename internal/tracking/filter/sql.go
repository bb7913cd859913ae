package filter

import (
	"strconv"
	"strings"
)

// Args collects the values of a statement whose text is built while reading clauses.
//
// SQLite looks $n up by name in a list, which costs the square of their number: statements with hundreds of values set
// Anonymous there, which writes ? instead. Each value is then used once.
type Args struct {
	Anonymous bool
	values    []any
}

// Add keeps a value and returns its placeholder.
func (a *Args) Add(v any) string {
	a.values = append(a.values, v)
	if a.Anonymous {
		return "?"
	}
	return "$" + strconv.Itoa(len(a.values))
}

// Values are the kept values in order.
func (a *Args) Values() []any { return a.values }

// In is "(  $1, $2 )" over values; it must not be called with none.
func In[T any](a *Args, values []T) string {
	b := strings.Builder{}
	b.WriteByte('(')
	for i, v := range values {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(a.Add(v))
	}
	b.WriteByte(')')
	return b.String()
}

// One is "= $1" for one value and "IN (...)" for more: planners use the order of an index only behind an equality.
func One[T any](a *Args, values []T) string {
	if len(values) == 1 {
		return "= " + a.Add(values[0])
	}
	return "IN " + In(a, values)
}

// Condition is the SQL of the clause's comparison on a column of text or number, the same on SQLite and PostgreSQL.
// SQLite's LIKE ignores case, PostgreSQL's does not, so LIKE is helped by conditions on the literal pieces,
// which respect case on both; ILIKE lowers both sides. The escape character is one that no pattern holds.
func (c Clause) Condition(a *Args, column string) string {
	switch c.Op {
	case "LIKE":
		return "(" + column + " LIKE " + a.Add(c.Text) + " ESCAPE '\x01'" + literal(a, column, c.Text) + ")"
	case "ILIKE":
		return "LOWER(" + column + ") LIKE " + a.Add(strings.ToLower(c.Text)) + " ESCAPE '\x01'"
	case "IN", "NOT IN":
		return column + " " + c.Op + " " + In(a, c.List)
	}
	if c.Numeric {
		return column + " " + c.Op + " " + a.Add(c.Number)
	}
	return column + " " + c.Op + " " + a.Add(c.Text)
}

// literal adds what a case-sensitive LIKE means for the pieces between wildcards: exact for prefix, suffix, infix and plain
// patterns; with several pieces each must occur.
func literal(a *Args, column, pattern string) string {
	pieces := strings.FieldsFunc(pattern, func(r rune) bool { return r == '%' || r == '_' })
	var b strings.Builder
	for i, p := range pieces {
		n := strconv.Itoa(len([]rune(p)))
		switch {
		case i == 0 && strings.HasPrefix(pattern, p):
			b.WriteString(" AND SUBSTR(" + column + ", 1, " + n + ") = " + a.Add(p))
		case i == len(pieces)-1 && strings.HasSuffix(pattern, p):
			b.WriteString(" AND SUBSTR(" + column + ", LENGTH(" + column + ") - " + n + " + 1) = " + a.Add(p))
		default:
			b.WriteString(" AND REPLACE(" + column + ", " + a.Add(p) + ", '') <> " + column)
		}
	}
	return b.String()
}

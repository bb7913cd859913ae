package features

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"falaj/internal/data"
)

// Type is the type of a column of a request or a view.
type Type string

// The types. A timestamp is UTC with microseconds; a number is what JSON calls a number.
const (
	Number    Type = "number"
	Text      Type = "text"
	Timestamp Type = "timestamp"
	Boolean   Type = "boolean"
)

// Expr is an expression over the columns of one request row, in a part of SQL small enough that this package evaluates
// it exactly as DuckDB does. Every expression gives a number or null. The language:
//
//	column            a number, or a boolean (true is 1)
//	12  1.5  -x       literals and sign
//	+ - * / ( )       double arithmetic; null with null; x/0 and any result that is not finite is null
//	list_position(['AA', 'UA'], column)    1, 2, ...; 0 when not in the list; null for null
//	CASE column WHEN 'x' THEN e ... ELSE e END     the first equal literal; null never equals; no ELSE gives null
//	CASE WHEN column = 'x' THEN e ... ELSE e END   the same, = between a column and a literal only
//	hour(c) weekday(c) month(c)            of a timestamp in UTC; Sunday is 0
type Expr struct {
	root node
	text string
}

// node is one part of an expression.
type node interface {
	eval(row Row) (v float64, ok bool) // ok false is null
	sql(b *strings.Builder)            // DuckDB's spelling with the same meaning
	columns(into map[string]Type) error
}

// Row is one request row: values by column. Numbers are float64, text is string, timestamps are time.Time, booleans bool;
// an absent key and nil are null.
type Row map[string]any

// String gives the expression as it was written.
func (e Expr) String() string { return e.text }

// SQL gives the expression for DuckDB, for the offline side. It means what Eval does, to the bit.
func (e Expr) SQL() string {
	var b strings.Builder
	e.root.sql(&b)
	return b.String()
}

// Columns lists the columns that the expression reads, with the type that their use asks for.
func (e Expr) Columns() map[string]Type {
	m := map[string]Type{}
	_ = e.root.columns(m) // ParseExpr has refused conflicts
	return m
}

// Eval computes the expression on one row; NaN is null.
func (e Expr) Eval(row Row) float64 {
	v, ok := e.root.eval(row)
	if !ok {
		return math.NaN()
	}
	return v
}

func use(into map[string]Type, name string, t Type) error {
	if have, ok := into[name]; ok && have != t {
		return fmt.Errorf("column %s is used as %s and as %s", name, have, t)
	}
	into[name] = t
	return nil
}

func quote(name string) string           { return data.Ident(name) }
func quoteText(s string) string          { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
func finiteOr(v float64) (float64, bool) { return v, !math.IsNaN(v) && !math.IsInf(v, 0) }

type columnNode struct{ name string }

func (n columnNode) eval(row Row) (float64, bool) {
	switch v := row[n.name].(type) {
	case float64:
		return finiteOr(v)
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	}
	return 0, false
}

// A column that is not finite is null, as in the offline table, where JSON could not have carried it.
func (n columnNode) sql(b *strings.Builder) {
	c := "CAST(" + quote(n.name) + " AS DOUBLE)"
	b.WriteString("CASE WHEN isfinite(" + c + ") THEN " + c + " END")
}
func (n columnNode) columns(into map[string]Type) error { return use(into, n.name, Number) }

type literalNode struct{ v float64 }

func (n literalNode) eval(Row) (float64, bool) { return n.v, true }

// Through text: DuckDB reads 0.1 as a DECIMAL, and a cast of the text gives the nearest double as strconv does.
func (n literalNode) sql(b *strings.Builder) {
	b.WriteString("CAST('" + strconv.FormatFloat(n.v, 'g', -1, 64) + "' AS DOUBLE)")
}
func (n literalNode) columns(map[string]Type) error { return nil }

type binaryNode struct {
	op   byte
	a, b node
}

func (n binaryNode) eval(row Row) (float64, bool) {
	a, ok := n.a.eval(row)
	if !ok {
		return 0, false
	}
	b, ok := n.b.eval(row)
	if !ok {
		return 0, false
	}
	// float64() after each operation forbids fused multiply-add, which DuckDB does not use either.
	switch n.op {
	case '+':
		return finiteOr(float64(a + b))
	case '-':
		return finiteOr(float64(a - b))
	case '*':
		return finiteOr(float64(a * b))
	}
	if b == 0 {
		return 0, false
	}
	return finiteOr(float64(a / b))
}

// Each operation is guarded by a list of one: the operands are written once, so the text grows linearly.
func (n binaryNode) sql(b *strings.Builder) {
	b.WriteString("list_transform([")
	b.WriteByte('(')
	n.a.sql(b)
	b.WriteString(") ")
	b.WriteByte(n.op)
	b.WriteByte(' ')
	if n.op == '/' {
		b.WriteString("nullif((")
		n.b.sql(b)
		b.WriteString("), CAST(0 AS DOUBLE))")
	} else {
		b.WriteByte('(')
		n.b.sql(b)
		b.WriteByte(')')
	}
	b.WriteString("], x -> CASE WHEN isfinite(x) THEN x END)[1]")
}

func (n binaryNode) columns(into map[string]Type) error {
	if err := n.a.columns(into); err != nil {
		return err
	}
	return n.b.columns(into)
}

type negateNode struct{ a node }

func (n negateNode) eval(row Row) (float64, bool) {
	v, ok := n.a.eval(row)
	return -v, ok
}

func (n negateNode) sql(b *strings.Builder) {
	b.WriteString("(-(")
	n.a.sql(b)
	b.WriteString("))")
}
func (n negateNode) columns(into map[string]Type) error { return n.a.columns(into) }

// constant is a literal of a comparison: text or number.
type constant struct {
	text   string
	number float64
	isText bool
}

func (c constant) equals(v any) bool {
	switch v := v.(type) {
	case string:
		return c.isText && v == c.text
	case float64:
		return !c.isText && v == c.number
	case bool:
		return !c.isText && (v && c.number == 1 || !v && c.number == 0)
	}
	return false
}

func (c constant) sql(b *strings.Builder) {
	if c.isText {
		b.WriteString(quoteText(c.text))
		return
	}
	literalNode{c.number}.sql(b)
}

// String is for messages.
func (c constant) String() string {
	if c.isText {
		return quoteText(c.text)
	}
	return strconv.FormatFloat(c.number, 'g', -1, 64)
}

func (c constant) of() Type {
	if c.isText {
		return Text
	}
	return Number
}

// cast spells a column so that it compares with constants of type t.
func cast(name string, t Type) string {
	switch t {
	case Text:
		return "CAST(" + quote(name) + " AS VARCHAR)"
	case Timestamp:
		return "CAST(" + quote(name) + " AS TIMESTAMP)"
	}
	return "CAST(" + quote(name) + " AS DOUBLE)"
}

type positionNode struct {
	column string
	list   []constant
}

func (n positionNode) eval(row Row) (float64, bool) {
	v := row[n.column]
	if v == nil {
		return 0, false
	}
	for i, c := range n.list {
		if c.equals(v) {
			return float64(i + 1), true
		}
	}
	return 0, true
}

func (n positionNode) sql(b *strings.Builder) {
	c := cast(n.column, n.list[0].of())
	b.WriteString("CASE WHEN " + c + " IS NOT NULL THEN CAST(coalesce(list_position([")
	for i, v := range n.list {
		if i > 0 {
			b.WriteString(", ")
		}
		v.sql(b)
	}
	b.WriteString("], " + c + "), 0) AS DOUBLE) END")
}
func (n positionNode) columns(into map[string]Type) error {
	return use(into, n.column, n.list[0].of())
}

type caseNode struct {
	whens     []when
	otherwise node // nil: null
}

type when struct {
	column string
	equals constant
	then   node
}

func (n caseNode) eval(row Row) (float64, bool) {
	for _, w := range n.whens {
		if w.equals.equals(row[w.column]) {
			return w.then.eval(row)
		}
	}
	if n.otherwise == nil {
		return 0, false
	}
	return n.otherwise.eval(row)
}

func (n caseNode) sql(b *strings.Builder) {
	b.WriteString("CASE")
	for _, w := range n.whens {
		b.WriteString(" WHEN " + cast(w.column, w.equals.of()) + " = ")
		w.equals.sql(b)
		b.WriteString(" THEN ")
		w.then.sql(b)
	}
	if n.otherwise != nil {
		b.WriteString(" ELSE ")
		n.otherwise.sql(b)
	} else {
		b.WriteString(" ELSE CAST(NULL AS DOUBLE)")
	}
	b.WriteString(" END")
}

func (n caseNode) columns(into map[string]Type) error {
	for _, w := range n.whens {
		if err := use(into, w.column, w.equals.of()); err != nil {
			return err
		}
		if err := w.then.columns(into); err != nil {
			return err
		}
	}
	if n.otherwise == nil {
		return nil
	}
	return n.otherwise.columns(into)
}

type partNode struct{ part, column string }

func (n partNode) eval(row Row) (float64, bool) {
	t, ok := row[n.column].(time.Time)
	if !ok {
		return 0, false
	}
	t = t.UTC()
	switch n.part {
	case "hour":
		return float64(t.Hour()), true
	case "weekday":
		return float64(t.Weekday()), true
	}
	return float64(t.Month()), true
}

func (n partNode) sql(b *strings.Builder) {
	b.WriteString("CAST(" + n.part + "(" + cast(n.column, Timestamp) + ") AS DOUBLE)")
}
func (n partNode) columns(into map[string]Type) error { return use(into, n.column, Timestamp) }

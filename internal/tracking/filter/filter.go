// Package filter reads MLflow's search grammar: clauses joined by AND, and order_by items, for runs, experiments, models and model versions.
// It only understands and checks; the stages turn clauses into SQL, so both databases and both stages share one grammar.
package filter

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"falaj/internal/kernel/fault"
)

// Entity is what a clause compares.
type Entity string

// The entities, in MLflow's words.
const (
	Metric    Entity = "metric"
	Param     Entity = "parameter"
	Tag       Entity = "tag"
	Attribute Entity = "attribute"
	Dataset   Entity = "dataset"
)

// Clause is one comparison. Op is upper case: = != < <= > >= LIKE ILIKE IN, NOT IN, IS NULL, IS NOT NULL.
// Exactly one of Text, Number, List holds the value: List for IN and NOT IN, Number when Numeric.
type Clause struct {
	Entity  Entity
	Key     string
	Op      string
	Text    string
	Number  float64
	Numeric bool
	List    []string
}

// Order is one order_by item.
type Order struct {
	Entity Entity
	Key    string
	Desc   bool
}

// Dialect is what a search endpoint knows. Sets are small, order is the order in messages.
type Dialect struct {
	Entities     map[string]Entity // spelling in front of the dot
	EntityText   string            // for messages: "Invalid entity type 'x'. " + EntityText
	Attributes   []string          // searchable
	Orderable    []string          // attributes that may be ordered by
	Numeric      []string          // attributes with numbers
	Lists        []string          // attributes that may be compared with IN
	TagNull      []Entity          // entities that know IS NULL
	Aliases      map[string]string // attribute spellings
	BareEntities []Entity          // entities beside attributes that may be ordered by
	MixedNumeric bool              // a number is refused by name of the numeric attributes, text may be given for them
}

func numericOps() []string   { return []string{"!=", "<", "<=", "=", ">", ">="} }
func textOps() []string      { return []string{"!=", "=", "ILIKE", "LIKE"} }
func attributeOps() []string { return []string{"!=", "=", "ILIKE", "IN", "LIKE", "NOT IN"} }

func invalid(format string, args ...any) error { return fault.Newf(fault.Invalid, format, args...) }

func has(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// Set writes a set of words the way MLflow's messages do: {'a', 'b'}, sorted.
func Set(words []string) string {
	w := append([]string(nil), words...)
	sort.Strings(w)
	return "{'" + strings.Join(w, "', '") + "'}"
}

// Parse reads a filter. The empty filter has no clauses.
func (d Dialect) Parse(s string) ([]Clause, error) {
	if len(s) > 1<<16 {
		return nil, invalid("The filter is longer than 65536 characters.")
	}
	if !utf8.ValidString(s) || strings.ContainsAny(s, "\x00\x01") {
		return nil, invalid("The filter holds characters that are no text.")
	}
	toks := lex(s)
	for i, t := range toks {
		if t.kind == semicolon && i < len(toks)-1 {
			return nil, invalid("Search filter contained multiple expression %s. Provide AND-ed expression list.", quote(s))
		}
	}
	groups, bad := group(toks)
	if len(bad) > 0 {
		return nil, invalid("Invalid clause(s) in filter string: %s", strings.Join(bad, ", "))
	}
	out := make([]Clause, 0, len(groups))
	for _, g := range groups {
		c, err := d.clause(g)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

type triple struct {
	left, right token
	op          string
	unary       bool
}

// group finds the comparisons; every token that is neither part of one nor AND is reported.
func group(toks []token) (out []triple, bad []string) {
	at := func(i int) token {
		if i < len(toks) {
			return toks[i]
		}
		return token{kind: -1}
	}
	for i := 0; i < len(toks); {
		t := toks[i]
		if t.is("AND") {
			i++
			continue
		}
		if t.kind == word && !reserved(t.raw) {
			n, op := comparator(at(i+1), at(i+2), at(i+3))
			switch {
			case op == "IS NULL" || op == "IS NOT NULL":
				out = append(out, triple{left: t, op: op, unary: true})
				i += 1 + n
				continue
			case n > 0 && i+1+n < len(toks) && !toks[i+1+n].is("AND") && toks[i+1+n].kind != operator:
				out = append(out, triple{left: t, op: op, right: toks[i+1+n]})
				i += 2 + n
				continue
			}
		}
		bad = append(bad, "'"+t.raw+"'")
		i++
	}
	return out, bad
}

func reserved(s string) bool {
	return has([]string{"AND", "OR", "NOT", "IN", "IS", "NULL", "LIKE", "ILIKE", "BETWEEN"}, strings.ToUpper(s))
}

// comparator reads one at the given tokens and returns how many it takes.
func comparator(a, b, c token) (int, string) {
	switch {
	case a.kind == operator:
		return 1, a.raw
	case a.is("LIKE"), a.is("ILIKE"), a.is("IN"):
		return 1, strings.ToUpper(a.raw)
	case a.is("NOT") && b.is("IN"):
		return 2, "NOT IN"
	case a.is("NOT") && (b.is("LIKE") || b.is("ILIKE")):
		return 2, "NOT " + strings.ToUpper(b.raw)
	case a.is("IS") && b.is("NULL"):
		return 2, "IS NULL"
	case a.is("IS") && b.is("NOT") && c.is("NULL"):
		return 3, "IS NOT NULL"
	}
	return 0, ""
}

func (d Dialect) clause(t triple) (Clause, error) {
	entity, key, err := d.identifier(t.left.raw, d.Attributes)
	if err != nil {
		return Clause{}, err
	}
	c := Clause{Entity: entity, Key: key, Op: t.op}
	if t.unary {
		for _, e := range d.TagNull {
			if e == entity {
				return c, nil
			}
		}
		return c, invalid("IS NULL / IS NOT NULL is only supported for tags and params, not for '%s' '%s'", entity, key)
	}
	c.Numeric = entity == Metric || entity == Attribute && has(d.Numeric, key)
	if err := d.value(&c, t.right); err != nil {
		return c, err
	}
	ops := textOps()
	switch {
	case c.Numeric:
		ops = numericOps()
	case entity == Attribute || entity == Dataset:
		ops = attributeOps()
	}
	if !has(ops, c.Op) {
		return c, invalid("Invalid comparator '%s' not one of '%s'", c.Op, Set(ops))
	}
	if (c.Op == "IN" || c.Op == "NOT IN") != (c.List != nil) {
		return c, invalid("Invalid comparison clause. '%s' does not fit the value %s", c.Op, t.right.raw)
	}
	return c, nil
}

func (d Dialect) value(c *Clause, t token) error {
	str := t.kind == text || t.kind == word && strings.HasPrefix(t.raw, `"`)
	switch {
	case c.Entity == Metric && t.kind != number:
		return invalid("Expected numeric value type for metric. Found %s", t.raw)
	case c.Numeric && d.MixedNumeric && str:
		n, err := strconv.ParseInt(trim(t.raw), 10, 64)
		if err != nil {
			return invalid("Invalid value for numeric attribute '%s': %s", c.Key, quote(trim(t.raw)))
		}
		c.Number = float64(n)
		return nil
	case c.Numeric && t.kind != number:
		return invalid("Expected numeric value type for numeric attribute: %s. Found %s", c.Key, t.raw)
	case c.Numeric:
		f, err := strconv.ParseFloat(t.raw, 64)
		if err != nil && f == 0 {
			return invalid("Expected numeric value type for metric. Found %s", t.raw)
		}
		c.Number = f
		return nil
	case str && (t.kind != text && len(t.raw) < 2 || unclosed(t.raw)):
		return invalid("Parameter value is either not quoted or unidentified quote types used for string value %s. Use either single or double quotes.", t.raw)
	case str:
		c.Text = trim(t.raw)
		return nil
	case t.kind == list && (c.Entity == Dataset || c.Entity == Attribute && has(d.Lists, c.Key)):
		var err error
		c.List, err = items(t.raw)
		return err
	case t.kind == list && c.Entity == Attribute:
		return invalid("Only ['%s'] attributes support comparison with a list of quoted string values.", strings.Join(d.Lists, "', '"))
	case c.Entity == Param || c.Entity == Tag:
		return invalid("Expected a quoted string value for %s (e.g. 'my-value'). Got value %s", c.Entity, t.raw)
	case c.Entity == Dataset:
		return invalid("Expected a quoted string value for dataset attributes. Got value %s", t.raw)
	case d.MixedNumeric && t.kind == number:
		return invalid("Only the '%s' attributes support comparison with numeric values.", Set(d.Numeric))
	}
	return invalid("Expected a quoted string value for attributes. Got value %s", t.raw)
}

func unclosed(s string) bool { return len(s) < 2 || s[len(s)-1] != s[0] }

func trim(s string) string {
	if len(s) >= 2 && s[0] == s[len(s)-1] && strings.IndexByte("'\"`", s[0]) >= 0 {
		return s[1 : len(s)-1]
	}
	return s
}

// items reads ('a', "b") into its texts.
func items(raw string) ([]string, error) {
	broken := invalid("While parsing a list in the query, expected a non-empty list of string values, but got ill-formed list.")
	if len(raw) < 2 || raw[len(raw)-1] != ')' {
		return nil, broken
	}
	var out []string
	wantItem := true
	for s := raw[1 : len(raw)-1]; ; {
		s = strings.TrimLeft(s, " \t\r\n")
		if s == "" {
			break
		}
		switch {
		case s[0] == ',' && !wantItem:
			s, wantItem = s[1:], true
			continue
		case (s[0] == '\'' || s[0] == '"') && wantItem:
			n := quoted(s, 0)
			if unclosed(s[:n]) {
				return nil, broken
			}
			out, s, wantItem = append(out, trim(s[:n])), s[n:], false
			continue
		}
		return nil, invalid("While parsing a list in the query, expected string value, punctuation, or whitespace, but got different type in list: %s", raw)
	}
	if len(out) == 0 {
		return nil, invalid("While parsing a list in the query, expected a non-empty list of string values, but got empty list")
	}
	return out, nil
}

// identifier splits entity.key; a bare name is an attribute.
func (d Dialect) identifier(raw string, attributes []string) (Entity, string, error) {
	head, key, dotted := strings.Cut(raw, ".")
	entity := Attribute
	if !dotted {
		key = head
	} else if e, ok := d.Entities[trim(head)]; ok {
		entity = e
	} else {
		return "", "", invalid("Invalid entity type '%s'. %s", trim(head), d.EntityText)
	}
	key = trim(trim(key))
	switch entity {
	case Attribute:
		if a, ok := d.Aliases[key]; ok {
			key = a
		}
		if !has(attributes, key) {
			return "", "", invalid("Invalid attribute key '%s' specified. Valid keys are '%s'", key, Set(attributes))
		}
	case Dataset:
		if keys := []string{"context", "digest", "name"}; !has(keys, key) {
			return "", "", invalid("Invalid dataset key '%s' specified. Valid keys are '%s'", key, Set(keys))
		}
	}
	return entity, key, nil
}

// OrderBy reads order_by items such as "metrics.auc DESC". A field may appear once.
func (d Dialect) OrderBy(list []string) ([]Order, error) {
	out := make([]Order, 0, len(list))
	seen := map[[2]string]bool{}
	for _, s := range list {
		o, err := d.order(s)
		if err != nil {
			return nil, err
		}
		k := [2]string{string(o.Entity), o.Key}
		if seen[k] {
			return nil, invalid("`order_by` contains duplicate fields: ['%s']", strings.Join(list, "', '"))
		}
		seen[k] = true
		out = append(out, o)
	}
	if len(out) > 16 {
		return nil, invalid("`order_by` contains more than 16 fields.")
	}
	return out, nil
}

func (d Dialect) order(s string) (Order, error) {
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		return Order{}, invalid("Invalid order_by clause %q. Could not be parsed.", s)
	}
	toks := lex(s)
	if len(toks) == 0 || len(toks) > 2 || toks[0].kind != word {
		return Order{}, invalid("Invalid order_by clause '%s'. Could not be parsed.", s)
	}
	desc := false
	if len(toks) == 2 {
		if desc = toks[1].is("DESC"); !desc && !toks[1].is("ASC") {
			if toks[1].kind != word {
				return Order{}, invalid("Invalid order_by clause '%s'. Could not be parsed.", s)
			}
			return Order{}, invalid("Invalid ordering key in order_by clause '%s'.", s)
		}
	}
	entity, key, err := d.identifier(toks[0].raw, d.Orderable)
	if err != nil {
		return Order{}, err
	}
	ok := entity == Attribute
	for _, e := range d.BareEntities {
		ok = ok || e == entity
	}
	if !ok {
		return Order{}, invalid("Invalid order_by entity: %s", entity)
	}
	return Order{Entity: entity, Key: key, Desc: desc}, nil
}

// quote writes a text as MLflow's messages do.
func quote(s string) string {
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		return `"` + s + `"`
	}
	return "'" + strings.ReplaceAll(s, "'", `\'`) + "'"
}

// String is the clause in canonical spelling, for logs and tests.
func (c Clause) String() string {
	v := quote(c.Text)
	switch {
	case c.Op == "IS NULL" || c.Op == "IS NOT NULL":
		return fmt.Sprintf("%s.`%s` %s", c.Entity, c.Key, c.Op)
	case c.Numeric:
		v = strconv.FormatFloat(c.Number, 'g', -1, 64)
	case c.List != nil:
		v = "('" + strings.Join(c.List, "', '") + "')"
	}
	return fmt.Sprintf("%s.`%s` %s %s", c.Entity, c.Key, c.Op, v)
}

package plan

import (
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"falaj/internal/kernel/fault"
)

// decoder fills the structs of file.go from the syntax tree and remembers where each key stands. It goes on after an
// error, so that one look at the file tells all that is wrong, up to maxProblems.
type decoder struct {
	at       map[string]Position
	problems []problem
}

const (
	maxProblems = 20
	maxDepth    = 16
)

type problem struct {
	pos  Position
	path string
	kind fault.Kind
	text string
	next string
}

func (d *decoder) bad(pos Position, path, format string, args ...any) {
	d.add(problem{pos, path, fault.Invalid, fmt.Sprintf(format, args...), ""})
}

func (d *decoder) add(p problem) {
	if len(d.problems) < maxProblems {
		d.problems = append(d.problems, p)
	}
}

func positionOf(n ast.Node) Position {
	if n == nil {
		return Position{1, 1}
	}
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return positionOf(m.Values[0].Key) // the mapping's own token is its first colon
	}
	return place(n.GetToken())
}

func place(t *token.Token) Position {
	if t == nil || t.Position == nil {
		return Position{1, 1}
	}
	return Position{t.Position.Line, t.Position.Column}
}

// special is a type with its own spelling in the file.
type special interface {
	decode(d *decoder, n ast.Node, path string)
}

// value decodes n into v.
func (d *decoder) value(n ast.Node, v reflect.Value, path string, depth int) {
	if n == nil || depth > maxDepth {
		d.bad(positionOf(n), path, "%s is nested too deeply or empty.", name(path))
		return
	}
	if _, ok := d.at[path]; !ok {
		d.at[path] = positionOf(n)
	}
	switch t := n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.MergeKeyNode:
		d.bad(positionOf(n), path, "Anchors, aliases, merges and tags are not used in falaj.yaml.")
		return
	case *ast.NullNode:
		if v.Kind() != reflect.Struct || v.Type() == reflect.TypeFor[Gate]() {
			d.bad(positionOf(n), path, "%s has no value.", name(path))
		}
		return
	case *ast.MappingValueNode: // the library's form of a mapping with one key
		n = &ast.MappingNode{BaseNode: t.BaseNode, Start: t.Start, Values: []*ast.MappingValueNode{t}}
	}
	if s, ok := v.Addr().Interface().(special); ok {
		s.decode(d, n, path)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), path, depth)
	case reflect.Struct:
		d.structure(n, v, path, depth)
	case reflect.Map:
		d.mapping(n, v, path, depth)
	case reflect.Slice:
		seq, ok := n.(*ast.SequenceNode)
		if !ok {
			d.bad(positionOf(n), path, "%s is a list: write [a, b].", name(path))
			return
		}
		out := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
		for i, e := range seq.Values {
			d.value(e, out.Index(i), fmt.Sprintf("%s[%d]", path, i), depth+1)
		}
		v.Set(out)
	default:
		d.scalar(n, v, path)
	}
}

func (d *decoder) pairs(n ast.Node, path, shape string) []*ast.MappingValueNode {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		d.bad(positionOf(n), path, "%s is a mapping: write %s.", name(path), shape)
		return nil
	}
	return m.Values
}

// key is the text of a mapping's key; a key that is no plain text is refused.
func (d *decoder) key(e *ast.MappingValueNode, path string) (string, bool) {
	switch k := e.Key.(type) {
	case *ast.StringNode:
		return k.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode: // null is a key of a csv source
		if v := k.GetToken().Value; v != "" {
			return v, true
		}
	}
	d.bad(positionOf(e.Key), path, "A key here must be a plain word.")
	return "", false
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func (d *decoder) structure(n ast.Node, v reflect.Value, path string, depth int) {
	fields := fieldsOf(v.Type())
	seen := map[string]bool{}
	for _, e := range d.pairs(n, path, "key: value") {
		k, ok := d.key(e, path)
		if !ok {
			continue
		}
		at := join(path, k)
		pos := positionOf(e.Key)
		if seen[k] {
			d.bad(pos, at, "%s is written twice.", name(at))
			continue
		}
		seen[k] = true
		d.at[at] = pos
		if l, ok := unavailable(at, ""); ok {
			d.add(problem{pos, at, fault.Unsupported, fmt.Sprintf("%s is not available in this version: %s.", name(at), l.Why), l.Next})
			continue
		}
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == k })
		if i < 0 {
			d.unknown(pos, path, k, fields)
			continue
		}
		d.value(e.Value, v.FieldByIndex(fields[i].index), at, depth+1)
		d.enum(e.Value, fields[i], v.FieldByIndex(fields[i].index), at)
	}
	for _, f := range fields {
		if f.required && !seen[f.key] {
			d.bad(positionOf(n), join(path, f.key), "%s needs %s.", name(path), f.key)
		}
	}
}

func (d *decoder) enum(n ast.Node, f field, v reflect.Value, path string) {
	if len(f.enum) == 0 || v.Kind() != reflect.String || slices.Contains(f.enum, v.String()) {
		return
	}
	if l, ok := unavailable(path, v.String()); ok && v.String() != "" {
		d.add(problem{positionOf(n), path, fault.Unsupported, fmt.Sprintf("%s: %s is not available in this version: %s.", name(path), v.String(), l.Why), l.Next})
		return
	}
	if v.String() != "" {
		d.bad(positionOf(n), path, "%s is '%s'; it can be %s.", name(path), v.String(), strings.Join(f.enum, ", "))
	}
}

func (d *decoder) unknown(pos Position, path, key string, fields []field) {
	known := make([]string, len(fields))
	for i, f := range fields {
		known[i] = f.key
	}
	where := "falaj.yaml"
	if path != "" {
		where = name(path)
	}
	next := "Keys here are " + strings.Join(known, ", ") + "."
	if near := nearest(key, known); near != "" {
		next = "Did you mean '" + near + "'? " + next
	}
	d.add(problem{pos, join(path, key), fault.Invalid, fmt.Sprintf("'%s' is no key of %s.", key, where), next})
}

func (d *decoder) mapping(n ast.Node, v reflect.Value, path string, depth int) {
	out := reflect.MakeMap(v.Type())
	for _, e := range d.pairs(n, path, "name: ...") {
		k, ok := d.key(e, path)
		if !ok {
			continue
		}
		at := join(path, k)
		d.at[at] = positionOf(e.Key)
		if out.MapIndex(reflect.ValueOf(k)).IsValid() {
			d.bad(positionOf(e.Key), at, "%s is written twice.", name(at))
			continue
		}
		if len(k) > 200 || strings.ContainsAny(k, ".[]*\n") {
			d.bad(positionOf(e.Key), path, "%q is no name.", k)
			continue
		}
		el := reflect.New(v.Type().Elem()).Elem()
		d.value(e.Value, el, at, depth+1)
		out.SetMapIndex(reflect.ValueOf(k), el)
	}
	v.Set(out)
}

// text is a scalar as it is written; numbers and booleans keep their spelling.
func text(n ast.Node) (string, bool) {
	switch t := n.(type) {
	case *ast.StringNode:
		return t.Value, true
	case *ast.LiteralNode:
		return t.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func (d *decoder) scalar(n ast.Node, v reflect.Value, path string) {
	s, ok := text(n)
	if !ok {
		d.bad(positionOf(n), path, "%s is a single value, not a list or mapping.", name(path))
		return
	}
	switch v.Kind() {
	case reflect.String:
		if strings.ContainsRune(s, 0) || strings.TrimSpace(s) == "" {
			d.bad(positionOf(n), path, "%s has no value.", name(path))
			return
		}
		v.SetString(s)
	case reflect.Bool:
		b, ok := n.(*ast.BoolNode)
		if !ok {
			d.bad(positionOf(n), path, "%s is true or false, not '%s'.", name(path), s)
			return
		}
		v.SetBool(b.Value)
	case reflect.Int:
		i, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			d.bad(positionOf(n), path, "%s is a whole number, not '%s'.", name(path), s)
			return
		}
		v.SetInt(i)
	case reflect.Float64:
		f, ok := number(n, s)
		if !ok {
			d.bad(positionOf(n), path, "%s is a number, not '%s'.", name(path), s)
			return
		}
		v.SetFloat(f)
	case reflect.Interface: // a parameter: its own type
		switch t := n.(type) {
		case *ast.BoolNode:
			v.Set(reflect.ValueOf(t.Value))
		case *ast.IntegerNode:
			i, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				d.bad(positionOf(n), path, "%s: '%s' is no decimal number that fits.", name(path), s)
				return
			}
			v.Set(reflect.ValueOf(i))
		case *ast.FloatNode:
			f, ok := number(n, s)
			if !ok {
				d.bad(positionOf(n), path, "%s is a finite number.", name(path))
				return
			}
			v.Set(reflect.ValueOf(f))
		default:
			v.Set(reflect.ValueOf(s))
		}
	default:
		panic("plan: no spelling for " + v.Type().String())
	}
}

func number(n ast.Node, s string) (float64, bool) {
	switch n.(type) {
	case *ast.IntegerNode, *ast.FloatNode:
	default:
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil && !math.IsInf(f, 0) && !math.IsNaN(f)
}

func (s *Strings) decode(d *decoder, n ast.Node, path string) {
	*s = d.list(n, path, func(n ast.Node) (string, bool) {
		_, isText := n.(*ast.StringNode)
		t, ok := text(n)
		return t, ok && (isText || t != "") && strings.TrimSpace(t) != ""
	})
}

func (s *Service) decode(d *decoder, n ast.Node, path string) {
	var l Strings
	l.decode(d, n, path)
	*s = Service(l)
}

func (s *Scalars) decode(d *decoder, n ast.Node, path string) {
	if _, ok := n.(*ast.SequenceNode); !ok {
		d.bad(positionOf(n), path, "%s is a list: write [a, b].", name(path))
		return
	}
	*s = d.list(n, path, text)
}

func (d *decoder) list(n ast.Node, path string, item func(ast.Node) (string, bool)) []string {
	nodes := []ast.Node{n}
	if seq, ok := n.(*ast.SequenceNode); ok {
		nodes = seq.Values
	}
	out := []string{}
	for i, e := range nodes {
		at := path
		if len(nodes) > 1 || nodes[0] != n {
			at = fmt.Sprintf("%s[%d]", path, i)
		}
		d.at[at] = positionOf(e)
		t, ok := item(e)
		if !ok {
			d.bad(positionOf(e), at, "%s is a text or a list of texts.", name(path))
			continue
		}
		out = append(out, t)
	}
	return out
}

// durationPart is a number and a unit.
var durationPart = regexp.MustCompile(`^(\d{1,9}(?:\.\d{1,9})?)(s|m|h|d|w)`)

func (v *Duration) decode(d *decoder, n ast.Node, path string) {
	s, _ := text(n)
	got, ok := parseDuration(s)
	if !ok {
		d.bad(positionOf(n), path, "%s is a span of time such as 30m, 6h, 14d or 1d12h, not '%s'.", name(path), s)
		return
	}
	*v = Duration(got)
}

func parseDuration(s string) (time.Duration, bool) {
	units := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
	total := 0.0
	for rest := s; rest != ""; {
		m := durationPart.FindStringSubmatch(rest)
		if m == nil {
			return 0, false
		}
		f, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return 0, false
		}
		total += f * float64(units[m[2]])
		rest = rest[len(m[0]):]
	}
	const century = 100 * 365 * 24 * time.Hour
	if s == "" || total > float64(century) {
		return 0, false
	}
	return time.Duration(total), true
}

var bytesForm = regexp.MustCompile(`^(\d{1,9}(?:\.\d{1,3})?) ?(B|KiB|MiB|GiB|TiB)$`)

func (v *Bytes) decode(d *decoder, n ast.Node, path string) {
	s, _ := text(n)
	m := bytesForm.FindStringSubmatch(s)
	if m == nil {
		d.bad(positionOf(n), path, "%s is a size such as 512MiB or 2GiB, not '%s'.", name(path), s)
		return
	}
	f, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		d.bad(positionOf(n), path, "%s is a size such as 512MiB or 2GiB.", name(path))
		return
	}
	shift := map[string]int{"B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}[m[2]]
	*v = Bytes(min(f*float64(int64(1)<<shift), math.MaxInt64/2))
}

// decode of a request feature: a name, or one name: expression.
func (r *Request) decode(d *decoder, n ast.Node, path string) {
	if m, ok := n.(*ast.MappingNode); ok {
		if len(m.Values) == 1 {
			k, ok := d.key(m.Values[0], path)
			e, ok2 := text(m.Values[0].Value)
			if ok && ok2 && strings.TrimSpace(e) != "" {
				r.Name, r.Expr = k, e
				return
			}
		}
		d.bad(positionOf(n), path, "A request feature is a column, or one name: expression.")
		return
	}
	s, ok := text(n)
	if !ok || strings.TrimSpace(s) == "" {
		d.bad(positionOf(n), path, "A request feature is a column, or one name: expression.")
	}
	r.Name = s
}

func (t *Trigger) decode(d *decoder, n ast.Node, path string) {
	const say = "A trigger is quality.degraded, drift.weighted, manual, or schedule: daily, weekly, monthly or quarterly."
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) == 1 {
		k, _ := d.key(m.Values[0], path)
		s, _ := text(m.Values[0].Value)
		if k == "schedule" && slices.Contains(Schedules(), s) {
			t.Schedule = s
			return
		}
	}
	if s, ok := text(n); ok && slices.Contains(TriggerEvents(), s) {
		t.Event = s
		return
	}
	d.bad(positionOf(n), path, say)
}

// TriggerEvents are the events and words that may start a retraining.
func TriggerEvents() []string { return []string{"quality.degraded", "drift.weighted", "manual"} }

// Schedules are the calendars that may start a retraining.
func Schedules() []string { return []string{"daily", "weekly", "monthly", "quarterly"} }

package api_test

import (
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// contract is ui/src/lib/types.ts and the part that it hands on, read well enough to hold answers to it: a missing or superfluous key, a null array, a
// word that no enumeration has.
type contract struct {
	decls map[string]*decl
}

type decl struct {
	params  []string // of a generic
	extends *shape
	body    *shape
}

// shape is one type expression.
type shape struct {
	kind   string // union, array, tuple, object, literal, name
	name   string // of a name or literal
	parts  []*shape
	fields []field
}

type field struct {
	name     string
	optional bool
	of       *shape
}

func readContract(t testing.TB) *contract {
	t.Helper()
	var text []byte
	for _, file := range []string{"types.ts", "types.process.ts"} {
		part, err := os.ReadFile("../../ui/src/lib/" + file)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, part...)
	}
	plain := regexp.MustCompile(`(?s)/\*.*?\*/|//[^\n]*|import type [^;]*;|export \* from [^;]*;`).ReplaceAllString(string(text), "")
	r := &tsReader{tokens: regexp.MustCompile(`'[^']*'|[A-Za-z_0-9.]+|[^\s]`).FindAllString(plain, -1)}
	c := &contract{decls: map[string]*decl{}}
	for r.at < len(r.tokens) {
		r.want("export")
		word, name := r.next(), r.next()
		d := &decl{}
		if r.is("<") {
			for !r.is(">") {
				d.params = append(d.params, r.next())
				r.is(",")
			}
		}
		if word == "interface" {
			if r.is("extends") {
				d.extends = r.primary()
			}
			d.body = r.primary()
		} else {
			r.want("=")
			d.body = r.union()
			r.want(";")
		}
		if r.bad != "" {
			t.Fatalf("types.ts at %s: %s", name, r.bad)
		}
		c.decls[name] = d
	}
	return c
}

type tsReader struct {
	tokens []string
	at     int
	bad    string
}

func (r *tsReader) peek() string {
	if r.at < len(r.tokens) {
		return r.tokens[r.at]
	}
	return ""
}

func (r *tsReader) next() string { s := r.peek(); r.at++; return s }

func (r *tsReader) is(s string) bool {
	if r.peek() == s {
		r.at++
		return true
	}
	return false
}

func (r *tsReader) want(s string) {
	if got := r.next(); got != s && r.bad == "" {
		r.bad = fmt.Sprintf("%q where %q is expected", got, s)
		r.at = len(r.tokens)
	}
}

func (r *tsReader) union() *shape {
	r.is("|")
	u := &shape{kind: "union", parts: []*shape{r.postfix()}}
	for r.is("|") {
		u.parts = append(u.parts, r.postfix())
	}
	if len(u.parts) == 1 {
		return u.parts[0]
	}
	return u
}

func (r *tsReader) postfix() *shape {
	s := r.primary()
	for r.is("[") {
		r.want("]")
		s = &shape{kind: "array", parts: []*shape{s}}
	}
	return s
}

func (r *tsReader) primary() *shape {
	switch w := r.next(); {
	case w == "(":
		s := r.union()
		r.want(")")
		return s
	case w == "[":
		s := &shape{kind: "tuple"}
		for r.bad == "" && !r.is("]") {
			s.parts = append(s.parts, r.union())
			r.is(",")
		}
		return s
	case w == "{":
		s := &shape{kind: "object"}
		for r.bad == "" && !r.is("}") {
			f := field{name: r.next()}
			f.optional = r.is("?")
			r.want(":")
			f.of = r.union()
			r.is(";")
			s.fields = append(s.fields, f)
		}
		return s
	case strings.HasPrefix(w, "'"):
		return &shape{kind: "literal", name: strings.Trim(w, "'")}
	default:
		s := &shape{kind: "name", name: w}
		if r.is("<") {
			for r.bad == "" && !r.is(">") {
				s.parts = append(s.parts, r.union())
				r.is(",")
			}
		}
		return s
	}
}

// check says what is wrong with a decoded JSON value, "" when nothing is.
func (c *contract) check(v any, typ string) []string {
	r := &tsReader{tokens: regexp.MustCompile(`[A-Za-z_]+|[^\s]`).FindAllString(typ, -1)}
	var bad []string
	c.hold(v, r.union(), nil, typ, &bad)
	return bad
}

func (c *contract) hold(v any, s *shape, env map[string]*shape, path string, bad *[]string) {
	wrong := func(want string) {
		text := fmt.Sprintf("%v", v)
		*bad = append(*bad, fmt.Sprintf("%s is %T %s, not %s", path, v, text[:min(len(text), 80)], want))
	}
	switch s.kind {
	case "union":
		var least []string
		for i, p := range s.parts {
			var b []string
			if c.hold(v, p, env, path, &b); len(b) == 0 {
				return
			}
			if i == 0 || len(b) < len(least) && v != nil {
				least = b
			}
		}
		if len(least) == 1 && len(s.parts) > 2 {
			wrong("one of the words")
			return
		}
		*bad = append(*bad, least...)
	case "literal":
		if v != s.name {
			wrong("'" + s.name + "'")
		}
	case "array":
		list, ok := v.([]any)
		if !ok {
			wrong("an array")
			return
		}
		for i, x := range list {
			c.hold(x, s.parts[0], env, fmt.Sprintf("%s[%d]", path, i), bad)
		}
	case "tuple":
		list, ok := v.([]any)
		if !ok || len(list) != len(s.parts) {
			wrong("a tuple")
			return
		}
		for i, x := range list {
			c.hold(x, s.parts[i], env, fmt.Sprintf("%s[%d]", path, i), bad)
		}
	case "object":
		c.object(v, s.fields, env, path, bad)
	case "name":
		c.named(v, s, env, path, bad, wrong)
	}
}

func (c *contract) named(v any, s *shape, env map[string]*shape, path string, bad *[]string, wrong func(string)) {
	if to := env[s.name]; to != nil {
		c.hold(v, to, nil, path, bad)
		return
	}
	switch s.name {
	case "unknown":
	case "null":
		if v != nil {
			wrong("null")
		}
	case "string":
		if _, ok := v.(string); !ok {
			wrong("a string")
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			wrong("a boolean")
		}
	case "number":
		if f, ok := v.(float64); !ok || math.IsInf(f, 0) {
			wrong("a number")
		}
	case "Record":
		m, ok := v.(map[string]any)
		if !ok {
			wrong("a map")
			return
		}
		for k, x := range m {
			c.hold(x, s.parts[1], env, path+"."+k, bad)
		}
	default:
		d := c.decls[s.name]
		if d == nil {
			wrong("of the unknown type " + s.name)
			return
		}
		inner := map[string]*shape{}
		for i, p := range d.params {
			inner[p] = s.parts[i]
		}
		if d.body.kind != "object" {
			c.hold(v, d.body, inner, path, bad)
			return
		}
		c.object(v, c.fields(d, inner), inner, path, bad)
	}
}

// fields are the interface's own and those it extends, with the latter's parameters put in.
func (c *contract) fields(d *decl, env map[string]*shape) []field {
	out := slices.Clone(d.body.fields)
	if d.extends == nil {
		return out
	}
	base := c.decls[d.extends.name]
	for i, p := range base.params {
		env[p] = d.extends.parts[i]
	}
	return append(out, c.fields(base, env)...)
}

func (c *contract) object(v any, fields []field, env map[string]*shape, path string, bad *[]string) {
	m, ok := v.(map[string]any)
	if !ok {
		*bad = append(*bad, fmt.Sprintf("%s is %T, not an object", path, v))
		return
	}
	known := map[string]bool{}
	for _, f := range fields {
		known[f.name] = true
		x, ok := m[f.name]
		if !ok {
			if !f.optional {
				*bad = append(*bad, path+"."+f.name+" is missing")
			}
			continue
		}
		c.hold(x, f.of, env, path+"."+f.name, bad)
	}
	for k := range m {
		if !known[k] {
			*bad = append(*bad, path+"."+k+" is in no type")
		}
	}
}

// TestContractReader proves that the reader of types.ts sees what it is there for.
func TestContractReader(t *testing.T) {
	t.Parallel()
	c := readContract(t)
	actor := map[string]any{"kind": "user", "name": "amal"}
	for _, x := range []struct {
		v    any
		typ  string
		want string
	}{
		{actor, "ActorRef", ""},
		{map[string]any{"kind": "cat", "name": "amal"}, "ActorRef", "ActorRef.kind is string cat, not one of the words"},
		{map[string]any{"kind": "user"}, "ActorRef", "ActorRef.name is missing"},
		{map[string]any{"kind": "user", "name": "a", "age": 1.0}, "ActorRef", "ActorRef.age is in no type"},
		{map[string]any{"items": nil, "next_page_token": "", "total": nil}, "Page<Variant>", "Page<Variant>.items is <nil> <nil>, not an array"},
		{map[string]any{"items": []any{map[string]any{"version": "1", "role": "shadow", "weight": 0.0}}, "next_page_token": "", "total": 1.0}, "Page<Variant>", "Page<Variant>.items[0].version is string 1, not a number"},
		{[]any{1.0, nil}, "Spark", ""},
		{[]any{"x"}, "Spark", "Spark[0] is string x, not a number"},
		{map[string]any{"from": "a", "to": "b", "points": []any{[]any{1.0}}}, "LineageEdge", "LineageEdge.points[0] is []interface {} [1], not a tuple"},
	} {
		if got := strings.Join(c.check(x.v, x.typ), "; "); got != x.want {
			t.Errorf("%s of %v: got %q, want %q", x.typ, x.v, got, x.want)
		}
	}
	if len(c.decls) < 60 {
		t.Errorf("only %d types were read", len(c.decls))
	}
}

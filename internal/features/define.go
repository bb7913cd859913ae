package features

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"falaj/internal/kernel/fault"
)

var goodName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,63}$`)

func invalid(field, format string, args ...any) error {
	return fault.Newf(fault.Invalid, format, args...).At(field)
}

// check refuses a view that could not be joined or looked up, with the field and the reason.
func (v View) check() error {
	at := "features." + v.Name
	if !goodName.MatchString(v.Name) {
		return invalid("features", "'%s' is not a name of a feature view: a letter, then letters, digits and _, at most 64.", v.Name)
	}
	if len(v.Request) > 0 {
		if v.SQL != "" || len(v.Entity) > 0 || len(v.Columns) > 0 || v.Event != "" || v.Known != "" || v.TTL != 0 {
			return invalid(at, "View %s has request features; such a view has no entity, sql, columns, times or ttl.", v.Name)
		}
		for _, c := range v.Request {
			if !goodName.MatchString(c.Name) {
				return invalid(at+".request", "'%s' is not a name of a feature: a letter, then letters, digits and _, at most 64.", c.Name)
			}
			if _, err := c.parse(); err != nil {
				return fault.From(err).At(at + ".request." + c.Name)
			}
		}
		return nil
	}
	switch {
	case strings.TrimSpace(v.SQL) == "":
		return invalid(at+".sql", "View %s has neither sql nor request features.", v.Name)
	case len(v.Entity) == 0:
		return invalid(at+".entity", "View %s names no entity column.", v.Name)
	case v.Event == "":
		return invalid(at+".time.event", "View %s names no event time column.", v.Name)
	case len(v.Columns) == 0:
		return invalid(at+".columns", "View %s has no features.", v.Name)
	case v.TTL < 0:
		return invalid(at+".ttl", "View %s has the negative ttl %s.", v.Name, v.TTL)
	}
	seen := map[string]bool{}
	for _, c := range slices.Concat(v.Entity, v.Columns) {
		if !goodName.MatchString(c) || seen[c] {
			return invalid(at, "Column '%s' of view %s is named twice or is not a name.", c, v.Name)
		}
		seen[c] = true
	}
	return nil
}

func (c Computed) parse() (Expr, error) {
	if c.Expr == "" {
		return ParseExpr(quote(c.Name))
	}
	return ParseExpr(c.Expr)
}

func (v View) names() []string {
	if len(v.Request) == 0 {
		return v.Columns
	}
	out := make([]string, len(v.Request))
	for i, c := range v.Request {
		out[i] = c.Name
	}
	return out
}

// digest identifies a definition by its meaning: canonical JSON of all fields.
func digest(doc any) (string, string, error) {
	b, err := json.Marshal(doc)
	if err != nil {
		return "", "", err
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:]), string(b), nil
}

// serviceDoc is what a recorded service holds: its views by digest, so that it never changes under a release.
type serviceDoc struct {
	Name  string    `json:"name"`
	Views []viewRef `json:"views"`
}

type viewRef struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
}

// plan is a service made ready for use: immutable.
type plan struct {
	info   ServiceInfo
	views  []planView // the looked-up ones
	slots  []slot     // one for each place of the vector
	inputs map[string]Type
}

type planView struct {
	View
	table string // in the online store
}

// slot fills one place: column of a looked-up view, or an expression.
type slot struct {
	view, column int // view -1: expr
	expr         Expr
}

// compile checks that views fit together and lays out the vector.
func compile(project string, d Defined, views []View, digests []string) (*plan, error) {
	p := &plan{info: ServiceInfo{Defined: d, Views: views}, inputs: map[string]Type{}}
	at := "services." + d.Name
	owner := map[string]string{}
	for i, v := range views {
		for _, f := range v.names() {
			if o := owner[f]; o != "" {
				return nil, invalid(at, "Service %s would have two features %s, from %s and %s.", d.Name, f, o, v.Name)
			}
			owner[f] = v.Name
			p.info.Features = append(p.info.Features, f)
		}
		if len(v.Request) == 0 {
			for c := range v.Columns {
				p.slots = append(p.slots, slot{view: len(p.views), column: c})
			}
			for _, e := range v.Entity {
				if !slices.Contains(p.info.Entity, e) {
					p.info.Entity = append(p.info.Entity, e)
				}
			}
			p.views = append(p.views, planView{v, onlineTable(project, v.Name, digests[i])})
			continue
		}
		for _, c := range v.Request {
			e, err := c.parse()
			if err != nil {
				return nil, err
			}
			for name, t := range e.Columns() {
				if have, ok := p.inputs[name]; ok && have != t {
					return nil, invalid(at, "Service %s reads the request column %s as %s and as %s.", d.Name, name, have, t)
				}
				p.inputs[name] = t
			}
			p.slots = append(p.slots, slot{view: -1, expr: e})
		}
	}
	for name, t := range p.inputs {
		p.info.Request = append(p.info.Request, Input{name, t})
	}
	slices.SortFunc(p.info.Request, func(a, b Input) int { return strings.Compare(a.Name, b.Name) })
	return p, nil
}

func onlineTable(project, view, digest string) string {
	return fmt.Sprintf("%s/%s@%s", project, view, digest)
}

// splitRef reads name or name@digest.
func splitRef(ref string) (name, digest string) {
	name, digest, _ = strings.Cut(ref, "@")
	return name, digest
}

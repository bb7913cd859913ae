package process_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"falaj/internal/process"
)

// built are the events whose type is put together when it is announced: by file and expression, what can come of it. Each must be
// found in its package as text, whole or as the part that is added.
func built() map[string][]string {
	return map[string][]string{
		"delivery/move.go: word":                                      {"change.waiting", "change.refused", "change.expired", "change.closed", "change.failed"},
		"delivery/promote.go: \"gate.\" + word":                       {"gate.passed", "gate.failed"},
		"delivery/service.go: \"change.\" + decision":                 {"change.approved", "change.rejected"},
		"monitoring/evaluate.go: a.Kind":                              {"quality.degraded", "drift.detected", "features.missing"},
		"monitoring/evaluate.go: kind + \".measured\"":                {"quality.measured", "drift.measured"},
		"plan/pipeline/run.go: kind":                                  {"pipeline.finished", "pipeline.failed"},
		"plan/pipeline/run.go: \"pipeline.step.\" + string(st.State)": {"pipeline.step.done", "pipeline.step.cached", "pipeline.step.failed"},
		"registry/aliases.go: announce":                               {"model.alias.set", "model.alias.deleted"},
		"registry/service.go: announce":                               {"model.renamed"},
		"registry/versions.go: announce":                              {"model.version.staged"},
		"tracking/experiments.go: announce":                           {"experiment.renamed", "experiment.deleted", "experiment.restored"},
		"tracking/runs.go: announce":                                  {"run.updated", "run.deleted", "run.restored"},
	}
}

// source is a Go file of internal/ that is no test.
type source struct {
	short string // below internal/
	file  *ast.File
}

func sources(t *testing.T) (*token.FileSet, []source) {
	t.Helper()
	set, out := token.NewFileSet(), []source{}
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(set, path, nil, 0)
		short, _ := filepath.Rel("..", path)
		out = append(out, source{filepath.ToSlash(short), f})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return set, out
}

// emitted reads the code: the type of every event.Draft, and of every event whose type is replaced, by the folder that announces it.
func emitted(t *testing.T) map[string]map[string]bool {
	t.Helper()
	set, all := sources(t)
	dynamic := built()
	known, used := dynamic, map[string]bool{}
	texts := map[string]map[string]bool{} // string literals by folder
	out := map[string]map[string]bool{}
	add := func(short, kind string) {
		stage, _, _ := strings.Cut(short, "/")
		if out[stage] == nil {
			out[stage] = map[string]bool{}
		}
		out[stage][kind] = true
	}
	dotted := regexp.MustCompile(`^[a-z]+(\.[a-z_]+)+$`)
	for _, s := range all {
		folder := filepath.ToSlash(filepath.Dir(s.short))
		if texts[folder] == nil {
			texts[folder] = map[string]bool{}
		}
		take := func(v ast.Expr) {
			if lit, ok := v.(*ast.BasicLit); ok {
				text, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				add(s.short, text)
				return
			}
			key := s.short + ": " + show(v)
			if _, ok := known[key]; !ok {
				t.Errorf("%s: an event's type is made by %s; say in built() what can come of it", set.Position(v.Pos()), show(v))
			}
			used[key] = true
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				if text, err := strconv.Unquote(n.Value); n.Kind == token.STRING && err == nil {
					texts[folder][text] = true
				}
			case *ast.CompositeLit:
				if show(n.Type) != "event.Draft" {
					break
				}
				for _, e := range n.Elts {
					kv, ok := e.(*ast.KeyValueExpr)
					if !ok {
						t.Errorf("%s: name the fields of event.Draft", set.Position(n.Pos()))
					} else if show(kv.Key) == "Type" {
						take(kv.Value)
					}
				}
			case *ast.AssignStmt:
				for i, l := range n.Lhs {
					if sel, ok := l.(*ast.SelectorExpr); ok && sel.Sel.Name == "Type" && i < len(n.Rhs) {
						if lit, ok := n.Rhs[i].(*ast.BasicLit); ok && dotted.MatchString(strings.Trim(lit.Value, `"`)) {
							take(lit)
						}
					}
				}
			}
			return true
		})
	}
	for key, types := range dynamic {
		file, _, _ := strings.Cut(key, ": ")
		folder := filepath.ToSlash(filepath.Dir(file))
		if !used[key] {
			t.Errorf("built() names %s, which announces no event any more", key)
		}
		for _, kind := range types {
			last := kind[strings.LastIndex(kind, ".")+1:]
			first, _, _ := strings.Cut(kind, ".")
			if !texts[folder][kind] && !texts[folder][last] && !texts[folder][first] {
				t.Errorf("%s: nothing in %s makes %s", key, folder, kind)
			}
			add(file, kind)
		}
	}
	return out
}

// show writes an expression as it stands in the code, without blanks but around "+".
func show(n ast.Expr) string {
	switch n := n.(type) {
	case *ast.Ident:
		return n.Name
	case *ast.BasicLit:
		return n.Value
	case *ast.SelectorExpr:
		return show(n.X) + "." + n.Sel.Name
	case *ast.BinaryExpr:
		return show(n.X) + " " + n.Op.String() + " " + show(n.Y)
	case *ast.CallExpr:
		var args []string
		for _, a := range n.Args {
			args = append(args, show(a))
		}
		return show(n.Fun) + "(" + strings.Join(args, ", ") + ")"
	}
	return "?"
}

// TestEveryEventIsDrawnOrSaysWhyNot holds the drawing to the code in both directions.
func TestEveryEventIsDrawnOrSaysWhyNot(t *testing.T) {
	t.Parallel()
	code := emitted(t)
	if len(code) < 9 {
		t.Fatalf("only %d folders announce events: the test looks in the wrong place", len(code))
	}
	declared := map[string]string{}
	for _, s := range process.Stages() {
		for _, kind := range s.Events {
			declared[kind] = s.Name
		}
	}
	for _, u := range process.NotDrawn() {
		if _, twice := declared[u.Type]; twice || u.Why == "" {
			t.Errorf("%s is drawn and not drawn, or not drawn without a reason", u.Type)
		}
		declared[u.Type] = u.Stage
	}
	stages := map[string]bool{}
	for _, s := range process.Stages() {
		stages[s.Name] = true
	}
	count := 0
	for folder, types := range code {
		for kind := range types {
			count++
			of, ok := declared[kind]
			if !ok {
				t.Errorf("internal/%s announces %s: name it in process.Stages, or say in process.NotDrawn why the drawing leaves it out", folder, kind)
			} else if of != folder && (of != "" || stages[folder]) {
				t.Errorf("internal/%s announces %s, which the drawing gives to %q", folder, kind, of)
			}
			delete(declared, kind)
		}
	}
	for kind, stage := range declared {
		t.Errorf("%s of %q is declared, and nothing announces it", kind, stage)
	}
	t.Logf("%d event types", count)
}

// TestEveryFollowerIsAnEdge reads what app subscribes: the edges of events are these and no others.
func TestEveryFollowerIsAnEdge(t *testing.T) {
	t.Parallel()
	_, all := sources(t)
	var want, got []string
	for _, e := range process.Edges() {
		if e.Kind == process.Event {
			for _, n := range e.Names {
				want = append(want, n+" -> "+e.To)
			}
		}
	}
	words := map[string]string{"monitoring.QualityDegraded": "quality.degraded", "monitoring.DriftDetected": "drift.detected", "serving.Moved()": "delivery.moved", "registry.Moved()": "delivery.moved"}
	for _, s := range all {
		if !strings.HasPrefix(s.short, "app/") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 3 || !strings.HasSuffix(show(call.Fun), "relay.Subscribe") {
				return true
			}
			stage, _, _ := strings.Cut(strings.Trim(show(call.Args[0]), `"`), ".")
			types := []ast.Expr{call.Args[1]}
			if lit, ok := call.Args[1].(*ast.CompositeLit); ok {
				types = lit.Elts
			}
			for _, e := range types {
				kind := strings.Trim(show(e), `"`)
				if w, ok := words[kind]; ok {
					kind = w
				}
				got = append(got, kind+" -> "+stage)
			}
			return true
		})
	}
	// change.* brings delivery all its own events; those that move a change are what OnEvent names.
	if i := slices.Index(got, "change.* -> delivery"); i >= 0 {
		got = slices.Delete(got, i, i+1)
		for _, s := range all {
			if s.short != "delivery/promote.go" {
				continue
			}
			ast.Inspect(s.file, func(n ast.Node) bool {
				if c, ok := n.(*ast.CaseClause); ok {
					for _, e := range c.List {
						if kind := strings.Trim(show(e), `"`); strings.HasPrefix(kind, "change.") {
							got = append(got, kind+" -> delivery")
						}
					}
				}
				return true
			})
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		t.Errorf("app subscribes\n%s\nthe drawing says\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestEveryCallExists: a call is an interface that the asking stage declares, or a method of the stage that answers.
func TestEveryCallExists(t *testing.T) {
	t.Parallel()
	_, all := sources(t)
	has := map[string]bool{}
	for _, s := range all {
		folder := filepath.ToSlash(filepath.Dir(s.short))
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv != nil {
					has[folder+" method "+d.Name.Name] = true
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if ts, ok := spec.(*ast.TypeSpec); ok {
						if _, ok := ts.Type.(*ast.InterfaceType); ok {
							has[folder+" interface "+ts.Name.Name] = true
						}
					}
				}
			}
		}
	}
	for _, e := range process.Edges() {
		for _, n := range e.Names {
			if e.Kind == process.Call && !has[e.From+" interface "+n] && !has[e.To+" method "+n] {
				t.Errorf("%s calls %s by %s: neither an interface of the first nor a method of the second", e.From, e.To, n)
			}
		}
	}
}

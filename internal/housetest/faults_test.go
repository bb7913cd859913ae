package housetest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"falaj/internal/kernel/fault"
)

// wordless lists faults that would reach a person without words: an empty public text, or a fault built by hand without a next step.
func wordless(set *token.FileSet, f *ast.File) (bad []string, seen int) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			name, ok := selector(n.Fun, "fault")
			public := map[string]int{"New": 1, "Newf": 1, "Wrap": 2}
			if at, known := public[name]; ok && known && len(n.Args) > at {
				seen++
				if empty(n.Args[at]) {
					bad = append(bad, set.Position(n.Pos()).String()+": fault."+name+" with an empty public text: say what happened and why")
				}
			}
		case *ast.CompositeLit:
			if name, ok := selector(n.Type, "fault"); ok && name == "E" {
				has := map[string]bool{}
				for _, e := range n.Elts {
					if kv, ok := e.(*ast.KeyValueExpr); ok {
						if key, ok := kv.Key.(*ast.Ident); ok && !empty(kv.Value) {
							has[key.Name] = true
						}
					}
				}
				if !has["Public"] || !has["Next"] {
					bad = append(bad, set.Position(n.Pos()).String()+": fault.E without Public or Next: use fault.New")
				}
			}
		}
		return true
	})
	return bad, seen
}

func selector(e ast.Expr, of string) (string, bool) {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return "", false
	}
	x, ok := s.X.(*ast.Ident)
	return s.Sel.Name, ok && x.Name == of
}

func empty(e ast.Expr) bool {
	lit, ok := e.(*ast.BasicLit)
	if !ok {
		return false
	}
	text, err := strconv.Unquote(lit.Value)
	return err == nil && strings.TrimSpace(text) == ""
}

func TestEveryFaultHasWords(t *testing.T) {
	t.Parallel()
	total := 0
	for _, p := range packages(t) {
		if p.short() == "internal/kernel/fault" || p.testing() {
			continue
		}
		for _, f := range p.files {
			bad, seen := wordless(p.set, f)
			total += seen
			for _, b := range bad {
				t.Error(b)
			}
		}
	}
	if total < 300 {
		t.Errorf("only %d faults found: the test looks in the wrong place", total)
	}
	t.Logf("%d places make a fault", total)
}

// TestEveryKindHasANextStep reads the kinds out of the source, so that a new one is seen.
func TestEveryKindHasANextStep(t *testing.T) {
	t.Parallel()
	kinds, internal := 0, fault.New(fault.Internal, "x", "").Next
	for _, p := range packages(t) {
		if p.short() != "internal/kernel/fault" {
			continue
		}
		for _, f := range p.files {
			ast.Inspect(f, func(n ast.Node) bool {
				spec, ok := n.(*ast.ValueSpec)
				if !ok || len(spec.Values) != 1 {
					return true
				}
				if of, ok := spec.Type.(*ast.Ident); !ok || of.Name != "Kind" {
					return true
				}
				text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				kinds++
				next := fault.New(fault.Kind(text), "x", "").Next
				if next == "" || next == internal && fault.Kind(text) != fault.Internal {
					t.Errorf("the kind %s has no next step of its own in the table", text)
				}
				return true
			})
		}
	}
	if kinds < 13 {
		t.Errorf("found %d kinds, there are at least 13", kinds)
	}
}

func TestWordlessSeesEachKind(t *testing.T) {
	t.Parallel()
	for src, want := range map[string]int{
		`fault.New(fault.Invalid, "", "x")`:                 1,
		`fault.New(fault.Invalid, " ", "x")`:                1,
		`fault.Wrap(err, fault.Invalid, "", "x")`:           1,
		`fault.Newf(fault.Invalid, "")`:                     1,
		`fault.New(fault.Invalid, "a", "")`:                 0,
		`&fault.E{Kind: fault.Invalid, Public: "a"}`:        1,
		`&fault.E{Kind: fault.Invalid, Public: p, Next: n}`: 0,
		`fault.New(fault.Invalid, text, "")`:                0,
	} {
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, "x.go", "package p\nvar _ = "+src, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := wordless(set, f); len(got) != want {
			t.Errorf("%s: %v, want %d", src, got, want)
		}
	}
}

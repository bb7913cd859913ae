package housetest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"
)

// allowed are package-level variables that change or are built by more than a literal, each with its reason.
var allowed = map[string]string{
	"internal/data/iceberg mounts": "iceberg-go opens files by a process-wide scheme; the table of open warehouses behind it is guarded by its own lock",
}

// constructors build values that nobody changes afterwards.
var constructors = map[string]bool{
	"regexp.MustCompile": true, "errors.New": true, "strings.NewReplacer": true, "base32.NewEncoding": true, "reflect.TypeFor": true,
	"crc32.MakeTable": true, "big.NewInt": true, "fmt.Errorf": true, "fault.New": true, "netip.MustParsePrefix": true, "netip.MustParseAddr": true,
	"time.Date": true, "math.Log": true, "math.Inf": true, "math.NaN": true, "lipgloss.NewStyle": true, "strings.Join": true,
}

// globals lists what breaks the rule in the files of one package: no init with effects, no state outside a value that somebody made.
func globals(short string, files map[string]*ast.File) []string {
	top := map[any]bool{} // declarations at package level
	for _, f := range files {
		for _, d := range f.Decls {
			if gen, ok := d.(*ast.GenDecl); ok {
				for _, s := range gen.Specs {
					top[s] = true
				}
			}
		}
	}
	changed := map[string]bool{}
	change := func(e ast.Expr) {
		// A name that the parser could not resolve in its file is one of the package.
		if id := base(e); id != nil && (id.Obj == nil || top[id.Obj.Decl]) {
			changed[id.Name] = true
		}
	}
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					for _, l := range n.Lhs {
						change(l)
					}
				}
			case *ast.IncDecStmt:
				change(n.X)
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					change(n.X)
				}
			case *ast.CallExpr:
				if name, ok := n.Fun.(*ast.Ident); ok && (name.Name == "delete" || name.Name == "clear") && len(n.Args) > 0 {
					change(n.Args[0])
				}
			}
			return true
		})
	}
	var bad []string
	for file, f := range files {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				bad = append(bad, short+"/"+file+": func init: wire by hand in app")
			}
			gen, ok := d.(*ast.GenDecl)
			if !ok || gen.Tok != token.VAR {
				continue
			}
			for _, s := range gen.Specs {
				spec := s.(*ast.ValueSpec)
				for i, name := range spec.Names {
					key := short + " " + name.Name
					if name.Name == "_" || embedded(gen, spec) || allowed[key] != "" {
						continue
					}
					switch {
					case len(spec.Values) != len(spec.Names):
						bad = append(bad, key+" has no value of its own: a package-level variable that is set later is hidden state")
					case !fixed(spec.Values[i]):
						bad = append(bad, key+" is not a table or one of the known constructors: make it in New, or give the reason in this test")
					case changed[name.Name]:
						bad = append(bad, key+" is assigned to, or its address taken: move it into the value that owns it")
					}
				}
			}
		}
	}
	return bad
}

// base is the variable that an expression is a part of.
func base(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		default:
			return nil
		}
	}
}

func embedded(gen *ast.GenDecl, spec *ast.ValueSpec) bool {
	for _, c := range []*ast.CommentGroup{gen.Doc, spec.Doc} {
		if c != nil {
			for _, line := range c.List {
				if strings.HasPrefix(line.Text, "//go:embed ") {
					return true
				}
			}
		}
	}
	return false
}

// fixed says whether an expression is a literal, a table of them, or made by a known constructor.
func fixed(e ast.Expr) bool {
	ok := true
	ast.Inspect(e, func(n ast.Node) bool {
		call, is := n.(*ast.CallExpr)
		if !is {
			_, fn := n.(*ast.FuncLit)
			return !fn // what a function of a table does is not done at start
		}
		fun := call.Fun
		if index, is := fun.(*ast.IndexExpr); is {
			fun = index.X
		}
		switch f := fun.(type) {
		case *ast.SelectorExpr:
			if x, is := f.X.(*ast.Ident); is {
				ok = ok && constructors[x.Name+"."+f.Sel.Name]
				return true
			}
			_, chained := f.X.(*ast.CallExpr) // regexp.MustCompile(...).Longest(): the inner call decides
			ok = ok && chained
		case *ast.ArrayType, *ast.MapType, *ast.ParenExpr: // a conversion
		case *ast.Ident:
			ok = ok && (f.Name == "string" || f.Name == "len" || f.Name == "float64" || f.Name == "int64" || f.Name == "new")
		default:
			ok = false
		}
		return true
	})
	return ok
}

func TestNoHiddenState(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if p.testing() {
			continue
		}
		for _, b := range globals(p.short(), p.files) {
			t.Error(b)
		}
	}
}

func TestGlobalsSeesEachKind(t *testing.T) {
	t.Parallel()
	for src, want := range map[string]int{
		`var a = regexp.MustCompile("x")`:                   0,
		`var a = map[string]int{"x": 1}`:                    0,
		`var a = map[string]int{}; func f() { a["x"] = 1 }`: 1,
		`var a int`: 1,
		`var a = []int{1}; func f() { a = append(a, 2) }`:            1,
		`var a = []int{1}; func f() *int { return &a[0] }`:           1,
		`var a = map[string]int{"x": 1}; func f() { delete(a, "x")}`: 1,
		`var a = []int{1}; func f() { a := []int{2}; a[0] = 3 }`:     0,
		`var a = []int{1}; func f(a []int) { a[0] = 3 }`:             0,
		`var a = []int{1}; func f() { a[0]++ }`:                      1,
		`var a = open()`:                                             1,
		`var a = os.Getenv("X")`:                                     1,
		`func init() {}`:                                             1,
		"//go:embed x\nvar a string":                                 0,
		`var _ I = T{}`:                                              0,
		`var a = [...]func() int{func() int { return os.Getpid() }}`: 0,
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package p\n"+src, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if got := globals("p", map[string]*ast.File{"x.go": f}); len(got) != want {
			t.Errorf("%s: %v, want %d", src, got, want)
		}
	}
}

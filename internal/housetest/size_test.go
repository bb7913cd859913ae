package housetest

import (
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	maxLines      = 800
	maxInterfaces = 30
	maxDirect     = 55
)

// generated files are written by a tool and read by one.
func generated(name string) bool {
	return name == "go.sum" || name == "ui/package-lock.json" || name == "internal/api/openapi.json" || name == "docs/falaj.schema.json" ||
		strings.Contains(name, "/testdata/") || strings.HasSuffix(name, ".lock")
}

// TestFilesAreSmall: what does not fit on a few screens is two things.
func TestFilesAreSmall(t *testing.T) {
	t.Parallel()
	var sizes []int
	eachFile(t, func(name, text string) {
		if generated(name) {
			return
		}
		switch path.Ext(name) {
		case ".go", ".ts", ".svelte", ".js", ".mjs", ".css", ".sql", ".py", ".sh", ".yaml", ".md":
		default:
			return
		}
		n := strings.Count(text, "\n")
		if n > maxLines {
			t.Errorf("%s has %d lines, at most %d: which two things is it?", name, n, maxLines)
		}
		if path.Ext(name) == ".go" && !strings.HasSuffix(name, "_test.go") {
			sizes = append(sizes, n)
		}
	})
	slices.Sort(sizes)
	t.Logf("%d production Go files, median %d lines, longest %d", len(sizes), sizes[len(sizes)/2], sizes[len(sizes)-1])
}

// TestFewInterfaces: an interface belongs to its user and exists when there are two sides.
func TestFewInterfaces(t *testing.T) {
	t.Parallel()
	var found []string
	for _, p := range packages(t) {
		if p.testing() {
			continue
		}
		for _, f := range p.files {
			for _, d := range f.Decls {
				gen, ok := d.(*ast.GenDecl)
				if !ok {
					continue
				}
				for _, s := range gen.Specs {
					spec, ok := s.(*ast.TypeSpec)
					if !ok || !spec.Name.IsExported() {
						continue
					}
					if i, ok := spec.Type.(*ast.InterfaceType); ok {
						found = append(found, p.short()+"."+spec.Name.Name)
						if n := len(i.Methods.List); n > 7 {
							t.Errorf("%s.%s has %d methods, at most 7: an interface is what one user needs", p.short(), spec.Name.Name, n)
						}
					}
				}
			}
		}
	}
	slices.Sort(found)
	t.Logf("%d exported interfaces:\n%s", len(found), strings.Join(found, "\n"))
	if len(found) > maxInterfaces {
		t.Errorf("%d exported interfaces, at most %d: the user of an interface can keep it to itself", len(found), maxInterfaces)
	}
}

// TestFewDependencies: each one is somebody whom the user of falaj must trust.
func TestFewDependencies(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(top(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	var direct []string
	inside := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "require (":
			inside = true
		case line == ")":
			inside = false
		case inside && line != "" && !strings.HasSuffix(line, "// indirect"):
			direct = append(direct, line)
		}
	}
	t.Logf("%d direct dependencies:\n%s", len(direct), strings.Join(direct, "\n"))
	if len(direct) < 10 || len(direct) > maxDirect {
		t.Errorf("%d direct dependencies, at most %d", len(direct), maxDirect)
	}
}

package housetest

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const module = "falaj/"

// pkg is what `go list` says of one package; files are its production files, parsed.
type pkg struct {
	ImportPath  string
	Name        string
	Dir         string
	GoFiles     []string
	CgoFiles    []string
	TestGoFiles []string
	Imports     []string

	files map[string]*ast.File
	set   *token.FileSet
}

// short is the import path without the module's name.
func (p *pkg) short() string { return strings.TrimPrefix(p.ImportPath, module) }

// testing says whether the package exists for tests only.
func (p *pkg) testing() bool { return testOnly(p.short()) }

func testOnly(short string) bool {
	for part := range strings.SplitSeq(short, "/") {
		if strings.HasSuffix(part, "test") || part == "e2e" {
			return true
		}
	}
	return false
}

// top is the repository's folder.
func top(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatalf("the repository is not two folders up: %v", err)
	}
	return dir
}

// load lists and parses the packages once for all tests of this package.
var load = sync.OnceValues(func() ([]*pkg, error) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Dir,GoFiles,CgoFiles,TestGoFiles,Imports", "./...")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var all []*pkg
	for d := json.NewDecoder(out); ; {
		p := &pkg{files: map[string]*ast.File{}, set: token.NewFileSet()}
		if err := d.Decode(p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		for _, name := range append(p.GoFiles, p.CgoFiles...) {
			f, err := parser.ParseFile(p.set, filepath.Join(p.Dir, name), nil, parser.ParseComments) // with objects: state_test.go tells locals by them
			if err != nil {
				return nil, err
			}
			p.files[name] = f
		}
		all = append(all, p)
	}
	return all, cmd.Wait()
})

func packages(t *testing.T) []*pkg {
	t.Helper()
	all, err := load()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 40 {
		t.Fatalf("go list names only %d packages: the test looks in the wrong place", len(all))
	}
	return all
}

// skipped are folders that hold nothing of ours; all are git-ignored but .git.
func skipped(path string) bool {
	switch path {
	case ".git", ".tools", ".falaj", "bin", "ui/node_modules", "internal/ui/dist":
		return true
	}
	return strings.HasSuffix(path, "__pycache__")
}

// eachFile calls fn with the slash path and the text of every file of the repository that is no picture or archive.
func eachFile(t *testing.T, fn func(path, text string)) {
	t.Helper()
	dir, seen := top(t), 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a temporary file of somebody's editor
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if entry.IsDir() {
			if skipped(name) {
				return filepath.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if strings.ContainsRune(string(text[:min(len(text), 8000)]), 0) {
			return nil // binary
		}
		seen++
		fn(name, string(text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 300 {
		t.Fatalf("only %d files read: the test looks in the wrong place", seen)
	}
}

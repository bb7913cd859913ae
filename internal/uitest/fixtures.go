package uitest

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// root is the repository's folder, found from the package's own.
func root(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("go.mod is not above the test")
		}
		dir = parent
	}
}

// Fixtures starts the developer's fixture server (ui/dev/server.mjs) on a free port of loopback and
// returns its base URL. It needs Node and a built UI; without them the test fails and says so.
func Fixtures(t testing.TB) string {
	t.Helper()
	top := root(t)
	if _, err := os.Stat(filepath.Join(top, "internal", "ui", "dist", "index.html")); err != nil {
		t.Fatal("the pages are not built: make ui")
	}
	node := os.Getenv("FALAJ_NODE")
	if node == "" {
		found, err := exec.LookPath("node")
		if err != nil {
			t.Fatal("the fixture server needs Node 20.19 or newer in PATH, or FALAJ_NODE set to its path")
		}
		node = found
	}
	cmd := exec.Command(node, filepath.Join(top, "ui", "dev", "server.mjs"), "0")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // its error is the kill
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the fixture server says nothing: %v", err)
	}
	return strings.TrimSuffix(strings.TrimSpace(line), "/")
}

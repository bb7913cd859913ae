package worker

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"

	"falaj/internal/data/duckdb"
)

// TestMain lets the test binary be a process behind the wall: it tries three files and says what it could do.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "walled" {
		dir, in, other := os.Args[2], os.Args[3], os.Args[4]
		if err := confine(duckdb.Limits{Memory: 64 << 20, Overhead: 1 << 30, FileBytes: 1 << 20}); err != nil {
			panic(err)
		}
		if err := wall(dir, []string{in}); err != nil {
			panic(err)
		}
		var can []string
		try := func(what string, err error) {
			if err == nil {
				can = append(can, what)
			}
		}
		try("write room", os.WriteFile(filepath.Join(dir, "x"), nil, 0o600))
		_, err := os.ReadFile(in)
		try("read input", err)
		try("write input", os.WriteFile(in, nil, 0o600))
		_, err = os.ReadFile(other)
		try("read other", err)
		_, err = os.ReadFile("/etc/passwd")
		try("read system", err)
		_, _ = os.Stdout.WriteString(strings.Join(can, ", "))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// The wall holds for the process, whatever DuckDB is talked into. Without Landlock in the kernel there is none, which
// is allowed (DuckDB's own settings are the first wall) and said by the doctor.
func TestWall(t *testing.T) {
	t.Parallel()
	dir, in, other := t.TempDir(), filepath.Join(t.TempDir(), "in"), filepath.Join(t.TempDir(), "other")
	for _, f := range []string{in, other} {
		if err := os.WriteFile(f, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(os.Args[0], "walled", dir, in, other).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := "write room, read input"
	if v, err := ll.LandlockGetABIVersion(); err != nil || v < 1 {
		want = "write room, read input, write input, read other, read system"
	}
	if string(out) != want {
		t.Errorf("a walled process can: %s; want: %s", out, want)
	}
}

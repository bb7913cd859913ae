package process_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"falaj/internal/training"
)

// Decrypted inputs lie in the machine's /dev/shm, over which the job has a private one: it must see its own input there,
// be unable to change it, and see nothing of its neighbours.
func TestInputsInMemory(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/dev/shm", "falaj-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	input, other := filepath.Join(dir, "room", "training.parquet"), filepath.Join(dir, "other")
	if err := os.Mkdir(filepath.Dir(input), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{input: "rows", other: "secret"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	j, l := job(t, `
import os, sys
print("read", open(sys.argv[1]).read())
for path, mode in ((sys.argv[1], "r+"), (sys.argv[1], "w"), (sys.argv[2], "r")):
    try:
        open(path, mode).write("x")
        print("opened", path, mode)
    except OSError as e:
        print("refused", mode)
try:
    os.remove(sys.argv[1]); print("removed")
except OSError:
    print("kept")
`)
	j.Argv = append(j.Argv, input, other)
	j.Inputs = []string{input}
	if res := launch(t, j); res.Outcome != training.Succeeded {
		t.Fatalf("%+v\n%s", res, l)
	}
	if got := l.String(); !strings.Contains(got, "read rows") || strings.Contains(got, "opened") || strings.Contains(got, "removed") {
		t.Fatal(got)
	}
	if b, err := os.ReadFile(input); err != nil || string(b) != "rows" {
		t.Fatalf("%q %v", b, err)
	}
}

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

// The job's own folders lie in the machine's memory, too: what it writes there is what the server finds.
func TestOwnFoldersInMemory(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/dev/shm", "falaj-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	j, l := job(t, `
import os, sys, tempfile
with tempfile.NamedTemporaryFile() as f:
    f.write(b"x")
print("temp", os.path.dirname(f.name) == os.environ["TMPDIR"])
open(os.path.join(os.environ["FALAJ_OUTPUTS"], "made"), "w").write("model")
open(sys.argv[1], "w") # in the job's private memory
`)
	j.Scratch, j.Outputs = filepath.Join(dir, "job", "scratch"), filepath.Join(dir, "job", "outputs")
	for _, d := range []string{j.Scratch, j.Outputs} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	j.Argv = append(j.Argv, filepath.Join(dir, "job", "elsewhere"))
	if res := launch(t, j); res.Outcome != training.Succeeded {
		t.Fatalf("%+v\n%s", res, l)
	}
	if got := l.String(); !strings.Contains(got, "temp True") {
		t.Error(got)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "job")); err != nil || len(left) != 2 {
		t.Errorf("beside its folders the job left %v %v", left, err)
	}
	if b, err := os.ReadFile(filepath.Join(j.Outputs, "made")); err != nil || string(b) != "model" {
		t.Errorf("%q %v", b, err)
	}
}

package process_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"falaj/internal/training"
	"falaj/internal/training/process"
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

// The job's own folders lie in the machine's /dev/shm too: what it writes there is found by the server and bounded by its
// limits, and beside them it can write nowhere, not into its neighbour's folder, not into /tmp.
func TestOwnFoldersInMemory(t *testing.T) {
	t.Parallel()
	bare := process.Config{WithoutNamespaces: true, WithoutCgroups: true}
	cases := map[string]struct {
		cfg    process.Config
		script string
		reason string // one of them, separated by |
		says   string
	}{
		"outputs": {process.Config{}, `
import os, tempfile
print("temporary", tempfile.gettempdir() == os.environ["TMPDIR"])
with open(os.environ["FALAJ_OUTPUTS"] + "/model.txt", "w") as f: f.write("trees")
`, "exit code 0", "temporary True"},
		"elsewhere":       {process.Config{}, elsewhere, "exit code 0", "refused 6"},
		"elsewhere, bare": {bare, elsewhere, "exit code 0", "refused 6"},
		"many files":      {process.Config{}, filling, "killed: disk limit 64 MiB reached", ""},
		"empty files": {process.Config{}, `
import os, itertools
for i in itertools.count(): os.close(os.open(f"{os.environ['TMPDIR']}/{i}", os.O_CREAT | os.O_WRONLY))
`, "killed: disk limit 64 MiB reached|killed: memory limit 256 MiB reached", ""}, // a cgroup counts them, too
		"more than memory":       {process.Config{}, filling, "killed: memory limit 64 MiB reached|killed: disk limit 1 GiB reached", ""},
		"more than memory, bare": {bare, filling, "killed: memory limit 64 MiB reached", ""},
		"deleted files": {bare, `
import os, time
held = []
for i in range(10**6):
    f = open(f"{os.environ['TMPDIR']}/{i}", "wb"); f.write(b"x" * (8 << 20)); f.flush(); os.unlink(f.name); held.append(f); time.sleep(0.02)
`, "killed: memory limit 64 MiB reached", ""},
		"memfd": {bare, `
import os, time
fd = os.memfd_create("x")
while True: os.write(fd, b"x" * (8 << 20)); time.sleep(0.02)
`, "killed: memory limit 64 MiB reached", ""},
		"system V": {bare, `
import ctypes
print("refused", ctypes.CDLL(None).shmget(0, 1 << 20, 0o1600))
`, "exit code 0", "refused -1"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("/dev/shm", "falaj-test-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			j, l := job(t, c.script)
			j.Scratch, j.Outputs = filepath.Join(dir, "one", "scratch"), filepath.Join(dir, "one", "outputs")
			other := filepath.Join(dir, "other")
			for _, d := range []string{j.Scratch, j.Outputs, other} {
				if err := os.MkdirAll(d, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			j.Argv = append(j.Argv, dir, other, filepath.Base(dir))
			if strings.HasPrefix(name, "more than memory") || name == "deleted files" || name == "memfd" {
				j.Limits.Memory, j.Limits.Disk = 64<<20, 1<<30
			}
			res, err := launcherWith(t, c.cfg).Launch(t.Context(), j)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(strings.Split(c.reason, "|"), res.Reason) || !strings.Contains(l.String(), c.says) {
				t.Errorf("%q, want %q saying %q\n%s", res.Reason, c.reason, c.says, l)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
				t.Errorf("it wrote beside its folders: %v %v", left, err)
			}
			if left, err := os.ReadDir(other); err != nil || len(left) != 0 {
				t.Errorf("it wrote into another's: %v %v", left, err)
			}
			if b, err := os.ReadFile(filepath.Join(j.Outputs, "model.txt")); name == "outputs" && (err != nil || string(b) != "trees") {
				t.Errorf("what it left is not there: %q %v", b, err)
			}
		})
	}
}

const filling = `
import os, time
for i in range(10**6):
    with open(f"{os.environ['FALAJ_OUTPUTS']}/{i}", "wb") as f: f.write(b"x" * (8 << 20))
    time.sleep(0.02)
`

// elsewhere may succeed inside a /dev/shm of its own; what counts is what the machine's holds afterwards.
const elsewhere = `
import os, sys
refused = 0
for path in (sys.argv[1] + "/x", sys.argv[2] + "/x", "/dev/shm/" + sys.argv[3] + "-x", "/tmp/" + sys.argv[3] + "-x", "/var/tmp/" + sys.argv[3] + "-x", "/run/" + sys.argv[3] + "-x"):
    try:
        open(path, "w").write("x")
        if path.startswith("/dev/shm") and os.stat("/dev/shm").st_size < 200 and path != sys.argv[2] + "/x": refused += 1
        print("wrote", path)
    except OSError: refused += 1
print("refused", refused)
`

package process_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"falaj/internal/training"
)

// A job reads the secrets of its own folder, cannot change them, sees none of a neighbour's, and its log shows none, also
// where it cuts a long line in pieces in the middle of one.
func TestSecretsInMemory(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/dev/shm", "falaj-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	const value = "canary-9c-of-the-mine"
	own, other := filepath.Join(dir, "own", "DB"), filepath.Join(dir, "other", "DB")
	for _, path := range []string{own, other} {
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(value), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	j, l := job(t, `
import os, sys
folder = os.environ["FALAJ_SECRETS"]
value = open(folder + "/DB").read()
print("read", len(value), value, "and", value)
print("environment", value in str(dict(os.environ)), "mode", oct(os.stat(folder + "/DB").st_mode)[-3:])
for pad in range(16360, 16400):
    print("." * pad + value)
print("cleaned", value[:6] + "\x01" + value[6:])
print(value[:5], end="", flush=True)
print(value[5:], file=sys.stderr)
for path, mode in ((folder + "/DB", "w"), (folder + "/new", "w"), (sys.argv[1], "r")):
    try:
        open(path, mode); print("opened", path, mode)
    except OSError:
        print("refused", mode)
`)
	j.Argv = append(j.Argv, other)
	j.Inputs, j.Hidden = []string{filepath.Dir(own)}, [][]byte{[]byte(value)}
	if j.Env == nil {
		j.Env = map[string]string{}
	}
	j.Env["FALAJ_SECRETS"] = filepath.Dir(own)
	if res := launch(t, j); res.Outcome != training.Succeeded {
		t.Fatalf("%+v\n%s", res, l)
	}
	got := l.String()
	for _, want := range []string{"read 21 *** and ***", "environment False mode 400", "cleaned ***"} {
		if !strings.Contains(got, want) {
			t.Errorf("the log does not say %q", want)
		}
	}
	joined := strings.ReplaceAll(got, "\n", "")
	if strings.Contains(got, value) || strings.Contains(got, "opened") || strings.Count(joined, value) > 0 {
		t.Errorf("a secret got through: %.2000s", got)
	}
	for n := range len(value) - 6 { // a piece of it at the end of a line of the log
		if strings.Contains(got, "."+value[:6+n]+"\n") {
			t.Fatalf("a long line shows the beginning of a secret: %q", value[:6+n])
		}
	}
}

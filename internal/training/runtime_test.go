package training_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"falaj/internal/kernel/fault"
	"falaj/internal/store/storetest"
	"falaj/internal/training"
)

// sixLock pins six 1.17.0, a package of one pure-Python wheel.
const sixLock = `six==1.17.0 \
    --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274 \
    --hash=sha256:ff70335d468e7eb6ec65b95b99d3a2836546063f63acc5171de367e834932a81
`

// The runtimes test needs a package index (or PIP_FIND_LINKS) for uv and six, as the product does once.
func TestRuntimes(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "runtimes")
	rts, err := training.NewRuntimes(folder)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	req := training.RuntimeRequest{Lock: []byte(sixLock)}
	if _, err := rts.EnsureRuntime(ctx, req); !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.From(err).Next, "falaj runtime install uv") {
		t.Errorf("without uv: %v", err)
	}
	if err := rts.InstallUV(ctx, training.UVRequest{Wheelhouse: t.TempDir()}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("an empty wheelhouse gave %v", err)
	}
	left(t, folder)
	var said []string
	if err := rts.InstallUV(ctx, training.UVRequest{Progress: func(l string) { said = append(said, l) }}); err != nil {
		t.Fatal(err)
	}
	if err := rts.InstallUV(ctx, training.UVRequest{}); err != nil || len(said) == 0 {
		t.Errorf("second install: %v; progress %q", err, said)
	}

	wheels := t.TempDir()
	if out, err := exec.CommandContext(ctx, "python3", "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", wheels, "six==1.17.0").CombinedOutput(); err != nil {
		t.Fatalf("pip: %v\n%s", err, out)
	}
	bad := map[string]training.RuntimeRequest{
		"wrong hash":             {Lock: []byte("six==1.17.0 " + hash("a")), Offline: true, Wheelhouse: wheels},
		"not in the wheelhouse":  {Lock: []byte(sixLock), Offline: true, Wheelhouse: t.TempDir()},
		"no such Python":         {Lock: []byte(sixLock), Python: "9.99"},
		"a Python that is a lie": {Lock: []byte(sixLock), Python: "/bin/true"},
	}
	for name, req := range bad {
		if _, err := rts.EnsureRuntime(ctx, req); !fault.Is(err, fault.Unavailable) || fault.From(err).Next == "" {
			t.Errorf("%s gave %v", name, err)
		}
		left(t, folder)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := rts.EnsureRuntime(cancelled, req); err == nil {
		t.Error("a cancelled making succeeded")
	}
	left(t, folder)

	req.Offline, req.Wheelhouse = true, wheels
	req.Progress = func(string) {}
	all := make([]training.Runtime, 4)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			var err error
			if all[i], err = rts.EnsureRuntime(ctx, req); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	rt := all[0]
	for _, other := range all {
		if other.Digest != rt.Digest || other.Python != rt.Python {
			t.Fatalf("different runtimes %+v, %+v", other, rt)
		}
	}
	left(t, folder, filepath.Base(filepath.Dir(filepath.Dir(rt.Bin))))
	out, err := exec.CommandContext(ctx, rt.Python, "-I", "-c", "import six, sys; print(six.__version__, sys.prefix)").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "1.17.0 "+filepath.Dir(rt.Bin)) {
		t.Errorf("the runtime says %q, %v", out, err)
	}

	// The same lock written otherwise is the same runtime; a second start finds it; another lock is another one.
	again, err := training.NewRuntimes(folder)
	if err != nil {
		t.Fatal(err)
	}
	same, err := again.EnsureRuntime(ctx, training.RuntimeRequest{Lock: []byte("# other words\n" + sixLock), Offline: true})
	if err != nil || same.Digest != rt.Digest {
		t.Errorf("%+v, %v", same, err)
	}
	less, err := again.EnsureRuntime(ctx, training.RuntimeRequest{Lock: []byte(sixLock[:strings.LastIndex(sixLock, " \\\n")]), Offline: true, Wheelhouse: wheels})
	if err == nil && less.Digest == rt.Digest {
		t.Error("another lock gave the same runtime")
	}

	// A job in it runs its packages, and cannot change them.
	w := build(t, storetest.SQLite(t))
	w.write(t, "train.py", `
import six, sys
print("six", six.__version__)
try: open(six.__file__, "a"); print("WRITABLE")
except OSError as e: print("read-only")
`)
	launch := w.request(t)
	launch.Runtime, launch.Argv = rt, []string{"python", "train.py"}
	got, err := w.Launch(storetest.As("amal"), launch)
	if err != nil || got.Outcome != training.Succeeded || got.Runtime != rt.Digest {
		t.Fatalf("%+v, %v", got, err)
	}
	if text := w.logText(t, got); !strings.Contains(text, "out six 1.17.0") || !strings.Contains(text, "out read-only") {
		t.Errorf("log:\n%s", text)
	}
}

// left checks that nothing half-made is in the folder, and only the named runtimes.
func left(t *testing.T, folder string, runtimes ...string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, e := range entries {
		if e.Name() != "uv" && e.Name() != ".cache" {
			have[e.Name()] = true
		}
	}
	for _, r := range runtimes {
		if !have[r] {
			t.Errorf("runtime %s is missing", r)
		}
		delete(have, r)
	}
	for name := range have {
		t.Errorf("%s was left", name)
	}
}

func TestInterruptedMakingIsCleared(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "runtimes")
	half := filepath.Join(folder, ".making-ABC", "venv")
	if err := errors.Join(os.MkdirAll(half, 0o700), os.WriteFile(filepath.Join(half, "x"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := training.NewRuntimes(folder); err != nil {
		t.Fatal(err)
	}
	left(t, folder)
}

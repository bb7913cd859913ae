package python_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"falaj/internal/kernel/fault"
	"falaj/internal/serving"
	"falaj/internal/serving/python"
	"falaj/internal/serving/python/pythontest"
	"falaj/internal/serving/trees"

	"golang.org/x/sys/unix"
)

// logModels writes four real MLflow models: "plain" (x0 + 2*x1 over float columns), "typed" (integer column in the signature),
// "lgb" (LightGBM with a categorical split, as pyfunc) and "bad" (raises, crashes or hangs by its input).
const logModels = `
import sys, os, signal, time
import numpy as np, pandas as pd, lightgbm as lgb
import mlflow.pyfunc, mlflow.lightgbm
from mlflow.models import infer_signature
out = sys.argv[1]

class Plain(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input["x0"].to_numpy() + 2 * model_input["x1"].to_numpy()

class Bad(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        v = model_input["x0"].to_numpy()
        if (v == 1313).any(): raise ValueError("thirteen")
        if (v == 666).any(): os.kill(os.getpid(), signal.SIGSEGV)
        if (v == 777).any(): open(os.path.expanduser(os.environ["FALAJ_NOT_SET"]) if "FALAJ_NOT_SET" in os.environ else "/etc/falaj-was-here", "w")
        if (v == 888).any():
            import socket; socket.create_connection(("127.0.0.1", 9), timeout=1)
        if (v == 555).any(): np.ones(1 << 29)
        if (v == 999).any(): time.sleep(3600)
        return np.stack([v, np.full(len(v), float(len(v)))], axis=1)

f = pd.DataFrame({"x0": [1.0, 2.0], "x1": [3.0, 4.0]})
i = pd.DataFrame({"x0": [1, 2], "x1": [3.0, 4.0]})
mlflow.pyfunc.save_model(out + "/plain", python_model=Plain(), signature=infer_signature(f, np.array([1.0])))
mlflow.pyfunc.save_model(out + "/typed", python_model=Plain(), signature=infer_signature(i, np.array([1.0])))
mlflow.pyfunc.save_model(out + "/bad", python_model=Bad(), signature=infer_signature(f, np.array([1.0])))
r = np.random.default_rng(1)
x = pd.DataFrame({"a": r.normal(size=500), "c": pd.Series(r.integers(0, 6, 500)), "d": r.normal(size=500)})
b = lgb.train({"objective": "binary", "verbose": -1, "num_threads": 1, "min_data_per_group": 1, "cat_smooth": 0, "num_leaves": 7},
    lgb.Dataset(x.to_numpy(), (x["c"] % 2 == 0) ^ (x["a"] > 1), categorical_feature=[1], feature_name=["a", "c", "d"]), 5)
mlflow.lightgbm.save_model(b, out + "/lgb")
n = lgb.train({"objective": "binary", "verbose": -1, "num_threads": 1, "num_leaves": 7}, lgb.Dataset(x, x["a"] > x["d"]), 5)
mlflow.lightgbm.save_model(n, out + "/numeric", signature=infer_signature(x, n.predict(x)))
s = lgb.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1).fit(x, x["a"] > 0)
mlflow.lightgbm.save_model(s, out + "/sklearn", serialization_format="cloudpickle", signature=infer_signature(x, s.predict(x)))
b.save_model(out + "/booster.txt")
q = np.column_stack([x["a"], x["c"], x["d"]])[:50]
np.savetxt(out + "/q.txt", np.column_stack([q, b.predict(q)]), fmt="%.17g")
`

type models struct {
	python, dir string
}

func logged(t *testing.T) models {
	t.Helper()
	m := models{pythontest.Python(t, pythontest.MLflow), t.TempDir()}
	cmd := exec.Command(m.python, "-c", logModels, m.dir)
	cmd.Env = append(os.Environ(), "OMP_NUM_THREADS=1", "MLFLOW_DISABLE_TELEMETRY=true", "DO_NOT_TRACK=true")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("logging the models: %v\n%s", err, out)
	}
	return m
}

// release describes a folder or file on disk the way the registry describes a release.
func (m models) release(t *testing.T, flavor, name string) serving.Release {
	t.Helper()
	r := serving.Release{Digest: "sha256:" + name, Flavor: flavor, Runtime: "rt", Open: func(_ context.Context, path string) (io.ReadCloser, error) {
		return os.Open(filepath.Join(m.dir, path))
	}}
	r.Model = name
	err := filepath.WalkDir(filepath.Join(m.dir, name), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(m.dir, path)
		sum := sha256.Sum256(b)
		r.Files = append(r.Files, serving.File{Path: filepath.ToSlash(rel), SHA256: hex.EncodeToString(sum[:]), Size: int64(len(b))})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// folder is a release whose files are named from the model's folder, as the registry names them.
func (m models) folder(t *testing.T, name string) serving.Release {
	t.Helper()
	return models{m.python, filepath.Join(m.dir, name)}.release(t, "", ".")
}

func (m models) loader(t *testing.T, log io.Writer) python.Loader {
	return python.Loader{Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(log, nil)), Python: func(_ context.Context, runtime string) (string, error) {
		if runtime != "rt" {
			return "", fmt.Errorf("runtime %q", runtime)
		}
		return m.python, nil
	}}
}

func load(t *testing.T, l python.Loader, r serving.Release) serving.Engine {
	t.Helper()
	e, err := l.Load(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(l.Dir); len(left) != 0 {
			t.Errorf("the worker left %v", left)
		}
	})
	return e
}

func predict(t *testing.T, e serving.Engine, x ...float64) ([]float64, error) {
	t.Helper()
	return e.Predict(t.Context(), x, len(x)/2)
}

func equal(a []float64, b ...float64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if math.Abs(a[i]-b[i]) > 1e-12 {
			return false
		}
	}
	return true
}

// TestWorker runs the real MLflow models in the real worker.
func TestWorker(t *testing.T) {
	t.Parallel()
	m := logged(t)

	t.Run("pyfunc", func(t *testing.T) {
		t.Parallel()
		e := load(t, m.loader(t, io.Discard), m.release(t, "pyfunc", "plain"))
		if got := fmt.Sprint(e.Features()); got != "[x0 x1]" {
			t.Errorf("features %s", got)
		}
		if out, err := predict(t, e, 1, 2, 10, 20); err != nil || !equal(out, 5, 50) {
			t.Errorf("%v, %v", out, err)
		}
		if out, err := predict(t, e, math.NaN(), 2); err != nil || len(out) != 1 || !math.IsNaN(out[0]) {
			t.Errorf("a missing value: %v, %v", out, err)
		}
		if _, err := e.Predict(t.Context(), []float64{1, 2, 3}, 1); !fault.Is(err, fault.Invalid) {
			t.Errorf("three columns: %v", err)
		}
	})

	t.Run("integers in the signature", func(t *testing.T) {
		t.Parallel()
		e := load(t, m.loader(t, io.Discard), m.release(t, "pyfunc", "typed"))
		if out, err := predict(t, e, 7, 0.5); err != nil || !equal(out, 8) {
			t.Errorf("%v, %v", out, err)
		}
		for _, v := range []float64{0.5, math.NaN()} {
			if _, err := predict(t, e, v, 1); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "x0") {
				t.Errorf("x0=%v: %v", v, err)
			}
		}
	})

	t.Run("what the tree engine refuses", func(t *testing.T) {
		t.Parallel()
		text := m.release(t, "lightgbm", "booster.txt")
		if _, err := (trees.Loader{}).Load(t.Context(), text); err == nil || !strings.Contains(err.Error(), "num_cat") {
			t.Fatalf("the tree engine took a categorical model: %v", err)
		}
		b, err := os.ReadFile(filepath.Join(m.dir, "q.txt"))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []serving.Release{text, m.release(t, "pyfunc", "lgb")} {
			e := load(t, m.loader(t, io.Discard), r)
			n := 0
			for line := range bytes.Lines(b) {
				var v []float64
				for f := range bytes.FieldsSeq(line) {
					x, err := strconv.ParseFloat(string(f), 64)
					if err != nil {
						t.Fatal(err)
					}
					v = append(v, x)
				}
				if out, err := e.Predict(t.Context(), v[:3], 1); err != nil || !equal(out, v[3]) {
					t.Fatalf("%s: %v, %v, want %v", r.Flavor, out, err, v[3])
				}
				n++
			}
			if n != 50 {
				t.Fatalf("%d rows", n)
			}
		}
	})

	t.Run("MLmodel", func(t *testing.T) {
		t.Parallel()
		for name, want := range map[string]serving.Release{
			"plain":   {Flavor: "pyfunc", Features: []string{"x0", "x1"}},
			"lgb":     {Flavor: "lightgbm", Model: "model.lgb"},
			"numeric": {Flavor: "lightgbm", Model: "model.lgb", Features: []string{"a", "c", "d"}},
			"sklearn": {Flavor: "pyfunc", Features: []string{"a", "c", "d"}},
		} {
			r := m.folder(t, name)
			got, err := serving.FromMLmodel(t.Context(), r)
			if err != nil || got.Flavor != want.Flavor || got.Model != want.Model || !slices.Equal(got.Features, want.Features) {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
			switch name {
			case "numeric":
				e, err := trees.Loader{}.Load(t.Context(), got)
				if err != nil || !slices.Equal(e.Features(), want.Features) {
					t.Errorf("the tree engine does not take a plain Booster: %v", err)
				}
			case "sklearn":
				e := load(t, m.loader(t, io.Discard), got)
				if out, err := e.Predict(t.Context(), []float64{5, 1, 0, -5, 1, 0}, 2); err != nil || !equal(out, 1, 0) {
					t.Errorf("LGBMClassifier answers %v, %v", out, err)
				}
			}
		}
		r := m.folder(t, "plain")
		r.Files = r.Files[1:] // MLmodel is the first by name
		if _, err := serving.FromMLmodel(t.Context(), r); !fault.Is(err, fault.Refused) {
			t.Errorf("no MLmodel: %v", err)
		}
	})

	t.Run("a crash costs one request", func(t *testing.T) {
		t.Parallel()
		e := load(t, m.loader(t, io.Discard), m.release(t, "pyfunc", "bad"))
		const n = 200
		errs := make([]error, n)
		outs := make([][]float64, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				v := float64(i)
				switch i {
				case 20:
					v = 666
				case 40:
					v = 1313
				}
				outs[i], errs[i] = e.Predict(t.Context(), []float64{v, 0}, 1)
			})
		}
		wg.Wait()
		batched := false
		for i := range n {
			switch i {
			case 20:
				if !fault.Is(errs[i], fault.Unavailable) || !strings.Contains(errs[i].Error(), "segmentation fault") {
					t.Errorf("the crash: %v", errs[i])
				}
			case 40:
				if !fault.Is(errs[i], fault.Invalid) || !strings.Contains(errs[i].Error(), "ValueError: thirteen") {
					t.Errorf("the exception: %v", errs[i])
				}
			default:
				if errs[i] != nil || len(outs[i]) != 2 || outs[i][0] != float64(i) {
					t.Errorf("request %d beside the crash: %v, %v", i, outs[i], errs[i])
				} else if outs[i][1] > 1 {
					batched = true // the model tells how many rows it saw at once
				}
			}
		}
		if !batched {
			t.Error("200 requests at once and no two were put together")
		}
		if out, err := predict(t, e, 1, 0); err != nil || !equal(out, 1, 1) {
			t.Errorf("after the crash: %v, %v", out, err)
		}
	})

	t.Run("killed from outside", func(t *testing.T) {
		t.Parallel()
		var log lockedBuffer
		e := load(t, m.loader(t, &log), m.release(t, "pyfunc", "plain"))
		pid := func() int {
			_, tail, _ := strings.Cut(log.String()[strings.LastIndex(log.String(), "python worker serves"):], "pid=")
			n, err := strconv.Atoi(strings.Fields(tail)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		first := pid()
		if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		lost := 0
		for range 20 {
			if out, err := predict(t, e, 1, 2); err != nil {
				lost++
			} else if !equal(out, 5) {
				t.Fatal(out)
			}
		}
		if lost > 1 {
			t.Errorf("%d requests were lost", lost)
		}
		if pid() == first {
			t.Error("the worker was not started again")
		}
	})

	t.Run("hangs", func(t *testing.T) {
		t.Parallel()
		l := m.loader(t, io.Discard)
		l.Answer = 1e9
		e := load(t, l, m.release(t, "pyfunc", "bad"))
		if _, err := predict(t, e, 999, 0); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a model that hangs: %v", err)
		}
		if out, err := predict(t, e, 2, 0); err != nil || !equal(out, 2, 1) {
			t.Errorf("after it: %v, %v", out, err)
		}
	})

	t.Run("eats memory", func(t *testing.T) {
		t.Parallel()
		l := m.loader(t, io.Discard)
		l.Memory = 1 << 30
		e := load(t, l, m.release(t, "pyfunc", "bad"))
		if _, err := predict(t, e, 555, 0); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "MemoryError") {
			t.Errorf("4 GiB under a limit of 1 GiB: %v", err)
		}
		if out, err := predict(t, e, 2, 0); err != nil || !equal(out, 2, 1) {
			t.Errorf("after it: %v, %v", out, err)
		}
	})

	t.Run("server killed", func(t *testing.T) {
		t.Parallel()
		// This test binary again, as a server that loads a model, says its worker's pid and waits to be killed.
		cmd := exec.Command(os.Args[0], "-test.run=^TestServerToKill$")
		cmd.Env = append(os.Environ(), "FALAJ_TEST_MODELS="+m.dir, "FALAJ_TEST_PYTHON="+m.python)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var worker int
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if _, err := fmt.Sscanf(lines.Text(), "worker %d", &worker); err == nil {
				break
			}
		}
		if worker == 0 {
			t.Fatal("the server did not start its worker")
		}
		fd, err := unix.PidfdOpen(worker, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		// The worker sleeps inside the model; it must end all the same.
		gone := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(gone, 60000)
		for err == unix.EINTR {
			n, err = unix.Poll(gone, 60000)
		}
		if n != 1 || err != nil {
			t.Errorf("the worker outlived its server by a minute: %v", err)
		}
		cmd.Wait()
	})

	t.Run("isolated", func(t *testing.T) {
		t.Parallel()
		var log lockedBuffer
		e := load(t, m.loader(t, &log), m.release(t, "pyfunc", "bad"))
		if !strings.Contains(log.String(), "isolation=\"landlock") {
			t.Fatalf("this kernel gives no Landlock, so isolation cannot be shown: %s", log.String())
		}
		for v, what := range map[float64]string{777: "/etc/falaj-was-here", 888: "Permission"} {
			if _, err := predict(t, e, v, 0); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "PermissionError") || !strings.Contains(err.Error(), what) {
				t.Errorf("input %v: %v", v, err)
			}
		}
	})

	t.Run("flipped byte", func(t *testing.T) {
		t.Parallel()
		r := m.release(t, "pyfunc", "plain")
		open := r.Open
		r.Open = func(ctx context.Context, path string) (io.ReadCloser, error) {
			in, err := open(ctx, path)
			if err != nil || !strings.HasSuffix(path, ".pkl") {
				return in, err
			}
			b, err := io.ReadAll(in)
			b[len(b)/2] ^= 1
			return io.NopCloser(bytes.NewReader(b)), err
		}
		if _, err := m.loader(t, io.Discard).Load(t.Context(), r); !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), "python_model.pkl") {
			t.Errorf("a damaged file was loaded: %v", err)
		}
	})

	t.Run("path outside", func(t *testing.T) {
		t.Parallel()
		r := m.release(t, "pyfunc", "plain")
		r.Files = append(r.Files, serving.File{Path: "../outside"})
		if _, err := m.loader(t, io.Discard).Load(t.Context(), r); !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), "outside") {
			t.Errorf("a path with ..: %v", err)
		}
	})

	t.Run("does not load", func(t *testing.T) {
		t.Parallel()
		r := m.release(t, "pyfunc", "plain")
		r.Model = "plain/no"
		r.Files = append(r.Files, serving.File{Path: "plain/no/MLmodel", SHA256: hex.EncodeToString(sha256.New().Sum(nil))})
		r.Open = func(_ context.Context, path string) (io.ReadCloser, error) {
			if path == "plain/no/MLmodel" {
				return io.NopCloser(strings.NewReader("")), nil
			}
			return os.Open(filepath.Join(m.dir, path))
		}
		l := m.loader(t, io.Discard)
		if _, err := l.Load(t.Context(), r); !fault.Is(err, fault.Refused) {
			t.Errorf("an empty MLmodel: %v", err)
		}
		if left, _ := os.ReadDir(l.Dir); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestServerToKill is the server of "server killed"; alone it has nothing to do.
func TestServerToKill(t *testing.T) {
	dir := os.Getenv("FALAJ_TEST_MODELS")
	if dir == "" {
		return
	}
	m := models{os.Getenv("FALAJ_TEST_PYTHON"), dir}
	var log lockedBuffer
	e, err := m.loader(t, &log).Load(t.Context(), m.release(t, "pyfunc", "bad"))
	if err != nil {
		t.Fatal(err)
	}
	_, tail, _ := strings.Cut(log.String(), "pid=")
	fmt.Printf("worker %s\n", strings.Fields(tail)[0])
	e.Predict(t.Context(), []float64{999, 0}, 1)
}

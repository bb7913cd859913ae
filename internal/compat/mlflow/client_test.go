package mlflow_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// others are the packages beside mlflow in the environments of the tests, pinned: they fit CPython 3.10 to 3.13.
func others() []string { return []string{"lightgbm==4.6.0", "numpy==2.2.6", "pandas==2.3.3"} }

// TestRealClients runs the unmodified client from PyPI, oldest and newest supported, against the real door on both databases.
// The oldest names the project in the address and sends a bearer token, the newest uses MLflow's workspace and a password.
func TestRealClients(t *testing.T) {
	t.Run("3.12.0", func(t *testing.T) {
		each(t, func(t *testing.T, s server) {
			python := environment(t, append(others(), "mlflow-skinny==3.12.0"))
			run(t, python, []string{"MLFLOW_TRACKING_URI=" + s.URL + "/p/flights", "MLFLOW_TRACKING_TOKEN=" + s.token}, "testdata/client.py")
		})
	})
	t.Run("3.17.2", func(t *testing.T) {
		each(t, func(t *testing.T, s server) {
			python := environment(t, append(others(), "mlflow-skinny==3.17.2"))
			run(t, python, []string{"MLFLOW_TRACKING_URI=" + s.URL, "MLFLOW_WORKSPACE=flights", "MLFLOW_TRACKING_USERNAME=amal", "MLFLOW_TRACKING_PASSWORD=" + s.token}, "testdata/client.py")
		})
	})
}

// run runs a script and fails with its output when it does not end well.
func run(t *testing.T, python string, env []string, script string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), python, script)
	home := t.TempDir()
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home, "PYTHONWARNINGS=ignore", "GIT_PYTHON_REFRESH=quiet", "MLFLOW_DISABLE_TELEMETRY=true", "DO_NOT_TRACK=true",
		"MLFLOW_HTTP_REQUEST_MAX_RETRIES=2", "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING=false", "OMP_NUM_THREADS=1"}, env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	begin := time.Now()
	if err := cmd.Run(); err != nil || !strings.Contains(out.String(), "DONE") {
		t.Fatalf("%v after %s\n%s", err, time.Since(begin).Round(time.Second), out.String())
	}
}

// environment gives the Python of a virtual environment with the pinned packages, made once and kept in the tests' cache:
// FALAJ_TEST_CACHE, or falaj-test in the user's cache folder. Several test processes may ask at once.
func environment(t *testing.T, packages []string) string {
	t.Helper()
	root := os.Getenv("FALAJ_TEST_CACHE")
	if root == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		root = filepath.Join(base, "falaj-test")
	}
	sum := sha256.Sum256([]byte(strings.Join(packages, "\n")))
	dir := filepath.Join(root, "mlflow-"+hex.EncodeToString(sum[:6]))
	python := filepath.Join(dir, "bin", "python")
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "complete")); err == nil {
		return python
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"python3", "-m", "venv", dir}, append([]string{python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"}, packages...)} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s\nThe test needs Python 3.10 or newer with venv and pip, and PyPI.", strings.Join(args, " "), err, out)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "complete"), []byte(fmt.Sprintln(packages)), 0o644); err != nil {
		t.Fatal(err)
	}
	return python
}

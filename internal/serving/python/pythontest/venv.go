// Package pythontest gives tests a real Python environment with pinned packages, built once and kept in a cache.
// A machine that cannot build it fails the test with what is missing; nothing is skipped.
package pythontest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Pinned sets of packages. All have wheels for CPython 3.10 to 3.13.
var (
	// LightGBM trains and predicts; it needs libgomp.so.1 of the system.
	LightGBM = []string{"lightgbm==4.7.0", "numpy==2.2.6", "scipy==1.15.3", "narwhals==2.29.0"}
	// MLflow loads models the way a release keeps them.
	MLflow = append([]string{"mlflow-skinny==3.17.2", "pandas==2.3.3", "scikit-learn==1.7.2"}, LightGBM...)
	// Triton is the Open Inference Protocol client.
	Triton = []string{"tritonclient[http]==2.73.0", "numpy==2.2.6"}
)

// CacheDir is FALAJ_TEST_CACHE, else falaj-test in the user's cache directory.
func CacheDir(t testing.TB) string {
	t.Helper()
	if d := os.Getenv("FALAJ_TEST_CACHE"); d != "" {
		return d
	}
	d, err := os.UserCacheDir()
	if err != nil {
		t.Fatalf("no cache directory for the Python test environment: %v; set FALAJ_TEST_CACHE", err)
	}
	return filepath.Join(d, "falaj-test")
}

// Python returns the interpreter of a virtual environment that holds exactly the packages asked for and what they need.
// It is built on first use (pip, wheels only) under a lock that test binaries share.
func Python(t testing.TB, packages []string) string {
	t.Helper()
	base, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal("python3 is missing: install Python 3.10 or newer with pip and venv (Debian: apt-get install python3-venv)")
	}
	version, err := exec.Command(base, "-c", "import sys; print(sys.version, sys.prefix)").Output()
	if err != nil {
		t.Fatalf("python3 does not run: %v", err)
	}
	sum := sha256.Sum256([]byte(strings.Join(packages, "\n") + "\x00" + string(version)))
	dir := filepath.Join(CacheDir(t), "venv-"+hex.EncodeToString(sum[:6]))
	python, ready := filepath.Join(dir, "bin", "python"), filepath.Join(dir, "ready")
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close() // releases the flock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(ready); err == nil {
		return python
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	run(t, base, "-m", "venv", dir)
	run(t, python, append([]string{"-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary", ":all:"}, packages...)...)
	if err := os.WriteFile(ready, []byte(strings.Join(packages, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return python
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("building the Python test environment needs venv, pip and a package index: %s\n%v\n%s", fmt.Sprint(name, " ", strings.Join(args, " ")), err, out)
	}
}

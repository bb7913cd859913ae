package training

import (
	"archive/zip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"falaj/internal/kernel/fault"
)

// uvVersion is the version of uv whose wheels are pinned below; the digests are of the files on PyPI.
const uvVersion = "0.13.9"

// uvWheel names the digest of uv's wheel and of the program inside it for this machine.
func uvWheel(arch string) (sha string, platforms []string) {
	switch arch {
	case "amd64":
		return "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19", []string{"manylinux_2_17_x86_64", "manylinux2014_x86_64"}
	case "arm64":
		return "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe", []string{"manylinux_2_17_aarch64", "manylinux2014_aarch64"}
	}
	return "", nil
}

func (r *Runtimes) uvPath() string { return filepath.Join(r.dir, "uv", uvVersion, "uv") }

// uv returns the installed uv.
func (r *Runtimes) uv() (string, error) {
	if notThere(r.uvPath()) {
		return "", fault.New(fault.Unavailable, "uv, which makes Python runtimes, is not installed in this data folder.", "Type: falaj runtime install uv")
	}
	return r.uvPath(), nil
}

// UVRequest says where uv's wheel comes from.
type UVRequest struct {
	Wheelhouse string            // folder that holds the wheel; empty means the index that pip is configured for
	Progress   func(line string) // may be nil
}

// InstallUV puts the pinned uv into the runtimes folder, once. The wheel comes through the machine's pip, so mirrors and
// proxies work as they do there; its SHA-256 must be the one in our source.
func (r *Runtimes) InstallUV(ctx context.Context, req UVRequest) error {
	unlock, err := r.lock(ctx, "uv")
	if err != nil {
		return err
	}
	defer unlock()
	if !notThere(r.uvPath()) {
		return nil
	}
	sha, platforms := uvWheel(runtime.GOARCH)
	if sha == "" {
		return fault.New(fault.Unsupported, fmt.Sprintf("There is no pinned uv for %s/%s.", runtime.GOOS, runtime.GOARCH), "Use linux on amd64 or arm64.")
	}
	temp := filepath.Join(r.dir, making+"uv-"+rand.Text())
	if err := os.MkdirAll(temp, 0o700); err != nil {
		return fault.Wrap(err, fault.Unavailable, "uv could not be installed.", "Check free space under "+r.dir+".")
	}
	defer os.RemoveAll(temp)
	if req.Progress != nil {
		req.Progress("installing uv " + uvVersion)
	}
	wheel, err := downloadUV(ctx, temp, sha, platforms, req.Wheelhouse)
	if err != nil {
		return err
	}
	if err := extractUV(wheel, sha, filepath.Join(temp, "uv")); err != nil {
		return err
	}
	err = os.MkdirAll(filepath.Dir(r.uvPath()), 0o700)
	if err == nil {
		err = os.Rename(filepath.Join(temp, "uv"), r.uvPath())
	}
	return fault.Wrap(err, fault.Unavailable, "uv could not be installed.", "Check free space under "+r.dir+".")
}

func downloadUV(ctx context.Context, temp, sha string, platforms []string, wheelhouse string) (string, error) {
	pin := filepath.Join(temp, "uv.txt")
	if err := os.WriteFile(pin, fmt.Appendf(nil, "uv==%s --hash=sha256:%s\n", uvVersion, sha), 0o600); err != nil {
		return "", err
	}
	args := []string{"-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", temp, "-r", pin}
	for _, p := range platforms {
		args = append(args, "--platform", p)
	}
	if wheelhouse != "" {
		args = append(args, "--no-index", "--find-links", wheelhouse)
	}
	cmd := exec.CommandContext(ctx, "python3", args...)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "", fault.Wrap(err, fault.Unavailable, "pip could not fetch uv: "+lastLine(out),
			"Check that python3 -m pip works here (Debian: apt-get install python3-pip) and reaches an index, or give a folder that holds the wheel of uv "+uvVersion+".")
	}
	wheels, err := filepath.Glob(filepath.Join(temp, "uv-*.whl"))
	if err != nil || len(wheels) != 1 {
		return "", fault.New(fault.Unavailable, "pip fetched something else than uv's wheel.", "Try again, or give a folder that holds the wheel.")
	}
	return wheels[0], nil
}

// extractUV checks the wheel's digest itself (pip did so too) and takes one file out of it.
func extractUV(wheel, sha, to string) error {
	f, err := os.Open(wheel)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, f)
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != sha {
		return fault.New(fault.Refused, "The wheel of uv has SHA-256 "+got+" and not the pinned one.", "Do not use it; find out who changed it.")
	}
	archive, err := zip.NewReader(f, size)
	if err != nil {
		return err
	}
	for _, file := range archive.File {
		if !strings.HasSuffix(file.Name, ".data/scripts/uv") {
			continue
		}
		src, err := file.Open()
		if err != nil {
			return err
		}
		defer src.Close()
		dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
		if err != nil {
			return err
		}
		_, err = io.Copy(dst, io.LimitReader(src, 256<<20))
		return errors.Join(err, dst.Sync(), dst.Close())
	}
	return fault.New(fault.Unsupported, "The wheel of uv holds no program.", "Report this error.")
}

// cleanEnv is the least a helper program needs.
func cleanEnv() []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8"}
	if home, ok := os.LookupEnv("HOME"); ok {
		env = append(env, "HOME="+home)
	}
	return env
}

// uvEnv passes the machine's own settings on: uv's, a proxy's, and pip's index and certificates where uv has none of
// its own, because that is where closed sites configure their mirror.
func uvEnv(ctx context.Context, python, cache string, offline bool) []string {
	env := append(cleanEnv(), "UV_CACHE_DIR="+cache, "UV_PYTHON_DOWNLOADS=never", "NO_COLOR=1")
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		switch upper := strings.ToUpper(name); {
		case upper == "UV_CACHE_DIR" || upper == "UV_PYTHON_DOWNLOADS":
		case strings.HasPrefix(upper, "UV_"), strings.HasSuffix(upper, "_PROXY"), strings.HasPrefix(upper, "SSL_CERT_"):
			env = append(env, kv)
		}
	}
	if offline {
		return env
	}
	cmd := exec.CommandContext(ctx, python, "-m", "pip", "--disable-pip-version-check", "config", "list")
	out, err := cmd.Output()
	if err != nil {
		return env // a Python without pip has no settings to pass on
	}
	settings := map[string]string{"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "cert": "SSL_CERT_FILE", "find-links": "UV_FIND_LINKS"}
	for line := range strings.Lines(string(out)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		_, key, _ = strings.Cut(key, ".")
		name := settings[strings.TrimPrefix(key, ".")]
		if !ok || name == "" || os.Getenv(name) != "" {
			continue
		}
		env = append(env, name+"="+strings.Trim(value, "'\""))
	}
	return env
}

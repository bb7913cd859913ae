package training

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"falaj/internal/kernel/fault"
)

// Runtime is a locked Python environment on this machine.
type Runtime struct {
	Digest string   `json:"digest"` // of lock, platform and Python version
	Python string   `json:"python"` // the interpreter to start
	Bin    string   `json:"bin"`    // folder of the interpreter and the packages' commands
	Reads  []string `json:"reads"`  // what a job must be able to read to use it
}

// RuntimeRequest asks for a runtime.
type RuntimeRequest struct {
	Lock       []byte            // hash-pinned requirements, see ParseLock
	Python     string            // "3.11", a path, or "" for python3 of the machine; 3.10 or newer
	Offline    bool              // never use the network
	Wheelhouse string            // folder of wheels to take packages from, beside or (Offline) instead of the index
	Progress   func(line string) // may be nil
}

// Runtimes makes and keeps runtimes in one folder. It is safe for concurrent use.
type Runtimes struct {
	dir string

	mu      sync.Mutex
	working map[string]chan struct{} // guarded by mu: what is being made, closed when done
}

// NewRuntimes keeps runtimes in dir (DATA/runtimes) and clears what an interrupted making left there.
func NewRuntimes(dir string) (*Runtimes, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	var left []string
	if err == nil {
		left, err = filepath.Glob(filepath.Join(dir, making+"*"))
	}
	for _, l := range left {
		// A tool of the server that was killed may still write there; what resists is garbage, and goes at a later start.
		_ = os.RemoveAll(l)
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, fmt.Sprintf("The runtimes folder %s cannot be used.", dir), "Check that this user may write there.")
	}
	return &Runtimes{dir: dir, working: map[string]chan struct{}{}}, nil
}

// making prefixes what is not ready: a runtime has its own name only when it is whole.
const making = ".making-"

const manifest = "falaj-runtime.json"

// EnsureRuntime returns the runtime of a lock and makes it when it is not there. The same lock on the same platform and
// Python is the same runtime. Only wheels are installed: building from source would run a stranger's code outside the
// isolation. On any failure nothing half-made is left.
func (r *Runtimes) EnsureRuntime(ctx context.Context, req RuntimeRequest) (Runtime, error) {
	lock, err := ParseLock(req.Lock)
	if err != nil {
		return Runtime{}, err
	}
	py, err := findPython(ctx, req.Python)
	if err != nil {
		return Runtime{}, err
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{"falaj-runtime/1", lock.Digest(), py.Platform, py.Implementation, py.Version}, "\n")))
	id := hex.EncodeToString(sum[:])
	unlock, err := r.lock(ctx, id)
	if err != nil {
		return Runtime{}, err
	}
	defer unlock()
	final := filepath.Join(r.dir, id)
	if rt, err := readRuntime(final); err == nil {
		if _, err := os.Stat(rt.Python); err == nil { // the machine's Python may have been removed since
			return rt, nil
		}
	}
	uv, err := r.uv()
	if err != nil {
		return Runtime{}, err
	}
	temp := filepath.Join(r.dir, making+rand.Text())
	defer os.RemoveAll(temp)
	if err := build(ctx, uv, temp, r.dir, py, lock, req); err != nil {
		return Runtime{}, err
	}
	rt := Runtime{Digest: "sha256:" + id, Python: filepath.Join(final, "venv", "bin", "python"), Bin: filepath.Join(final, "venv", "bin"), Reads: append([]string{final}, py.reads()...)}
	if err := publish(temp, final, rt, lock); err != nil {
		return Runtime{}, fault.Wrap(err, fault.Unavailable, "The finished runtime could not be stored.", "Check free space under "+r.dir+".")
	}
	return rt, nil
}

// Find returns a runtime that was made before, by its digest.
func (r *Runtimes) Find(digest string) (Runtime, error) {
	id := strings.TrimPrefix(digest, "sha256:")
	if b, err := hex.DecodeString(id); err != nil || len(b) != sha256.Size {
		return Runtime{}, fault.New(fault.Invalid, fmt.Sprintf("'%s' is not the digest of a runtime.", digest), "")
	}
	rt, err := readRuntime(filepath.Join(r.dir, id))
	return rt, fault.Wrap(err, fault.NotFound, fmt.Sprintf("Runtime %s is not on this machine.", digest), "`falaj run` makes it again from its lock.")
}

// lock lets one caller at a time make a runtime; the others wait for it, or give up with their ctx.
func (r *Runtimes) lock(ctx context.Context, id string) (unlock func(), err error) {
	for {
		r.mu.Lock()
		busy, taken := r.working[id]
		if !taken {
			mine := make(chan struct{})
			r.working[id] = mine
			r.mu.Unlock()
			return func() {
				r.mu.Lock()
				delete(r.working, id)
				r.mu.Unlock()
				close(mine)
			}, nil
		}
		r.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func readRuntime(dir string) (rt Runtime, err error) {
	data, err := os.ReadFile(filepath.Join(dir, manifest))
	if err == nil {
		err = json.Unmarshal(data, &rt)
	}
	return rt, err
}

func build(ctx context.Context, uv, temp, dir string, py python, lock Lock, req RuntimeRequest) error {
	if err := os.MkdirAll(temp, 0o700); err != nil {
		return fault.Wrap(err, fault.Unavailable, "A runtime could not be started.", "Check free space under "+dir+".")
	}
	file := filepath.Join(temp, "requirements.lock")
	if err := os.WriteFile(file, []byte(lock.Text()), 0o600); err != nil {
		return fault.Wrap(err, fault.Unavailable, "A runtime could not be started.", "Check free space under "+dir+".")
	}
	venv := filepath.Join(temp, "venv")
	env := uvEnv(ctx, py.Executable, filepath.Join(dir, ".cache"), req.Offline)
	// Relocatable, because it is renamed when it is whole.
	if err := tool(ctx, env, req.Progress, uv, "venv", "--quiet", "--no-project", "--no-config", "--relocatable", "--python", py.Executable, venv); err != nil {
		return err
	}
	args := []string{"pip", "sync", "--no-config", "--require-hashes", "--no-build", "--strict", "--compile-bytecode", "--no-progress", "--python", filepath.Join(venv, "bin", "python")}
	if req.Offline {
		args = append(args, "--offline", "--no-index")
	}
	if req.Wheelhouse != "" {
		args = append(args, "--find-links", req.Wheelhouse)
	}
	return tool(ctx, env, req.Progress, uv, append(args, file)...)
}

func publish(temp, final string, rt Runtime, lock Lock) error {
	data, err := json.MarshalIndent(struct {
		Runtime
		Lock string `json:"lock"`
	}{rt, lock.Digest()}, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(temp, manifest), data, 0o600); err != nil {
		return err
	}
	if err := os.RemoveAll(final); err != nil { // one whose interpreter is gone
		return err
	}
	return os.Rename(temp, final)
}

// python is what an interpreter says about itself.
type python struct {
	Executable, Version, Implementation, Platform, Prefix string
}

// reads lists what the interpreter itself needs. Only these sub-folders: its prefix may be somebody's home.
func (p python) reads() (out []string) {
	for _, sub := range []string{"bin", "lib", "lib64"} {
		path := filepath.Join(p.Prefix, sub)
		if _, err := os.Stat(path); err == nil {
			out = append(out, path)
		}
	}
	return out
}

func findPython(ctx context.Context, want string) (python, error) {
	name := "python3"
	switch {
	case strings.Contains(want, "/"):
		name = want
	case want != "":
		name = "python" + want
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return python{}, fault.Wrap(err, fault.Unavailable, fmt.Sprintf("This machine has no %s.", name),
			"Install Python 3.10 or newer (Debian: apt-get install python3 python3-venv python3-pip), or name another one as the runtime's python.")
	}
	cmd := exec.CommandContext(ctx, path, "-I", "-c", `import sys,json,platform,sysconfig
print(json.dumps({"Executable":sys.executable,"Version":platform.python_version(),"Implementation":sys.implementation.cache_tag,
"Platform":sysconfig.get_platform()+"/"+"-".join(platform.libc_ver()),"Prefix":sys.base_prefix,"ok":sys.version_info>=(3,10)}))`)
	cmd.Env = cleanEnv()
	out, err := cmd.Output()
	var p struct {
		python
		OK bool `json:"ok"`
	}
	if err == nil {
		err = json.Unmarshal(out, &p)
	}
	if err != nil {
		return python{}, fault.Wrap(err, fault.Unavailable, fmt.Sprintf("%s does not start.", path), "Run it by hand to see why, or name another Python.")
	}
	if !p.OK {
		return python{}, fault.New(fault.Unsupported, fmt.Sprintf("%s is Python %s; 3.10 or newer is needed.", path, p.Version), "Install a newer Python and name it as the runtime's python.")
	}
	return p.python, nil
}

// tool runs a fixed program and passes its words on; what it said last becomes the fault's text.
func tool(ctx context.Context, env []string, progress func(string), name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = env
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = in, in
	err = cmd.Start()
	in.Close()
	if err != nil {
		return fault.Wrap(err, fault.Unavailable, fmt.Sprintf("%s could not be started.", filepath.Base(name)), "Type: falaj runtime install uv")
	}
	var last []string
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := withoutCredentials(lines.Text())
		if strings.TrimSpace(line) == "" {
			continue
		}
		last = append(last, strings.TrimSpace(line))
		last = last[max(0, len(last)-4):]
		if progress != nil {
			progress(line)
		}
	}
	err = cmd.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fault.Wrap(err, fault.Unavailable, fmt.Sprintf("Making the runtime failed: %s", strings.Join(last, " ")),
		"Check the lock file and that its packages can be had (an index, or a wheelhouse of wheels when offline).")
}

// withoutCredentials hides user:password@ in URLs, which installers print.
func withoutCredentials(line string) string {
	for from := 0; ; {
		at := strings.Index(line[from:], "://")
		if at < 0 {
			return line
		}
		start := from + at + 3
		end := start + len(line[start:])
		if i := strings.IndexAny(line[start:], "/ \t\"'`"); i >= 0 {
			end = start + i
		}
		if i := strings.LastIndexByte(line[start:end], '@'); i >= 0 {
			line = line[:start] + "***" + line[start+i:]
			end = start + 3
		}
		from = end
	}
}

// notThere says whether a path is missing.
func notThere(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func lastLine(out []byte) string {
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	return withoutCredentials(string(lines[len(lines)-1]))
}

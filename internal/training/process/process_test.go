package process_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/training"
	"falaj/internal/training/process"
)

// TestMain lets this binary be the worker, as the real one is.
func TestMain(m *testing.M) {
	switch os.Getenv("FALAJ_TEST_ROLE") {
	case "worker":
		os.Exit(process.ExecMain(os.Stdin))
	case "server":
		os.Exit(serverThatDies())
	}
	os.Exit(m.Run())
}

// python is the machine's interpreter as a runtime without packages.
func python(t testing.TB) training.Runtime {
	t.Helper()
	out, err := exec.Command("python3", "-I", "-c", "import sys,json;print(json.dumps([sys.executable,sys.base_prefix]))").Output()
	if err != nil {
		t.Fatalf("python3 is needed: %v", err)
	}
	var said [2]string
	if err := json.Unmarshal(out, &said); err != nil {
		t.Fatal(err)
	}
	return training.Runtime{Python: said[0], Bin: filepath.Dir(said[0]), Reads: []string{filepath.Join(said[1], "bin"), filepath.Join(said[1], "lib")}}
}

func launcher(t testing.TB) *process.Launcher { return launcherWith(t, process.Config{}) }

func launcherWith(t testing.TB, cfg process.Config) *process.Launcher {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Self, cfg.SelfEnv = []string{self}, []string{"FALAJ_TEST_ROLE=worker"}
	l, err := process.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestProbe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	guards, err := launcher(t).Probe(t.Context(), dir)
	if err != nil || !strings.Contains(strings.Join(guards, " "), "landlock") {
		t.Errorf("%v, %v", guards, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// log gathers lines.
type log struct {
	mu    sync.Mutex
	lines []string
	seen  chan string
}

func (l *log) add(line training.Line) {
	l.mu.Lock()
	l.lines = append(l.lines, line.Stream+" "+line.Text)
	l.mu.Unlock()
	select {
	case l.seen <- line.Text:
	default:
	}
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

// until waits for a line that starts so and returns the rest of it.
func (l *log) until(t testing.TB, prefix string) string {
	t.Helper()
	for {
		select {
		case line := <-l.seen:
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				return rest
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("no line %q in:\n%s", prefix, l)
		}
	}
}

// job makes folders and a program, to be run by the machine's python.
func job(t testing.TB, script string) (training.Job, *log) {
	t.Helper()
	base := t.TempDir()
	j := training.Job{ID: "../../any/name", Argv: []string{"python3", "main.py"}, Code: filepath.Join(base, "code"),
		Scratch: filepath.Join(base, "scratch"), Outputs: filepath.Join(base, "outputs"), Runtime: python(t)}
	for _, d := range []string{j.Code, j.Scratch, j.Outputs} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(j.Code, "main.py"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	l := &log{seen: make(chan string, 1000)}
	j.Log = l.add
	j.Limits = training.Limits{Memory: 256 << 20, Processes: 32, Disk: 64 << 20, Timeout: time.Minute}
	return j, l
}

func launch(t *testing.T, j training.Job) training.Result {
	t.Helper()
	res, err := launcher(t).Launch(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestSuccess(t *testing.T) {
	t.Parallel()
	j, l := job(t, `
import os, sys
print("args", sys.argv[1:])
print("to err", file=sys.stderr)
open(os.environ["FALAJ_OUTPUTS"] + "/model.txt", "w").write("trees")
open(os.environ["TMPDIR"] + "/t", "w").write("x")
os.replace(os.environ["TMPDIR"] + "/t", os.environ["FALAJ_OUTPUTS"] + "/moved")
import tempfile; tempfile.NamedTemporaryFile().write(b"x")
import multiprocessing; print("lock", multiprocessing.Lock() is not None)
a = bytearray(50 << 20)
for i in range(0, len(a), 4096): a[i] = 1
sum(range(3_000_000))
`)
	j.Argv = append(j.Argv, "--name", "a b; $(id)")
	res := launch(t, j)
	if res.Outcome != training.Succeeded || res.ExitCode != 0 {
		t.Fatalf("%+v\n%s", res, l)
	}
	for _, want := range []string{`out args ['--name', 'a b; $(id)']`, "err to err"} {
		if !strings.Contains(l.String(), want) {
			t.Errorf("no %q in\n%s", want, l)
		}
	}
	if res.MemoryPeak < 50<<20 || res.MemoryPeak > j.Limits.Memory || res.CPUSeconds <= 0.05 || res.CPUSeconds > 30 {
		t.Errorf("measured %d bytes and %v s", res.MemoryPeak, res.CPUSeconds)
	}
	if data, err := os.ReadFile(filepath.Join(j.Outputs, "model.txt")); err != nil || string(data) != "trees" {
		t.Errorf("outputs: %q, %v", data, err)
	}
	t.Logf("guards: %v", res.Guards)
}

func TestEndsOfJobs(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		script  string
		limit   func(*training.Limits)
		outcome training.Outcome
		reason  string
		says    string
	}{
		"exit code": {"import sys; sys.exit(3)", nil, training.Failed, "exit code 3", ""},
		"exception": {"raise ValueError('bad label')", nil, training.Failed, "exit code 1", "ValueError: bad label"},
		"crash":     {"import ctypes; ctypes.string_at(0)", nil, training.Failed, "ended by signal 11 (segmentation fault)", ""},
		"own kill":  {"import os; os.kill(os.getpid(), 9)", nil, training.Failed, "ended by signal 9 (killed)", ""},
		"eats memory": {"a = []\nwhile True: a.append(bytearray(b'x' * (8 << 20)))", nil,
			training.Killed, "killed: memory limit 256 MiB reached", ""},
		"eats memory in children": {`
import os, time
for _ in range(8):
    if os.fork() == 0:
        a = bytearray(b'x' * (60 << 20)); time.sleep(60)
for _ in range(8): assert os.wait()[1] == 0
`, nil, training.Killed, "killed: memory limit 256 MiB reached", ""},
		"eats shared memory": {`
import os
with open("/dev/shm/x", "wb") as f:
    while True: f.write(b"x" * (1 << 20))
`, func(l *training.Limits) { l.Disk = 1 << 30 }, training.Failed, "exit code 1", "No space left on device"},
		"fills the disk with many files": {`
import os, time
for i in range(10**6):
    with open(f"{os.environ['FALAJ_OUTPUTS']}/{i}", "wb") as f: f.write(b"x" * (8 << 20))
    time.sleep(0.01)
`, nil, training.Killed, "killed: disk limit 64 MiB reached", ""},
		"time-out": {"import time\nwhile True: time.sleep(1)", func(l *training.Limits) { l.Timeout = 2 * time.Second },
			training.Killed, "killed: time limit 2s reached", ""},
		"ignores signals": {"import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: time.sleep(1)",
			func(l *training.Limits) { l.Timeout = 2 * time.Second }, training.Killed, "killed: time limit 2s reached", ""},
		"fork bomb": {`
import os, time
refused = 0
while refused < 50:
    try:
        if os.fork() == 0: time.sleep(60); os._exit(0)
    except OSError: refused += 1; time.sleep(0.001)
print("bounded"); raise SystemExit(7)
`, nil, training.Failed, "exit code 7", "bounded"},
		"opens too many files": {"f = [open('/dev/null') for _ in range(5000)]", nil, training.Failed, "exit code 1", "Too many open files"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j, l := job(t, c.script)
			if c.limit != nil {
				c.limit(&j.Limits)
			}
			res := launch(t, j)
			if res.Outcome != c.outcome || res.Reason != c.reason || !strings.Contains(l.String(), c.says) {
				t.Errorf("%s: %q, want %q saying %q\n%s", res.Outcome, res.Reason, c.reason, c.says, l)
			}
			alive(t, j)
		})
	}
}

// One file is bounded by the kernel (RLIMIT_FSIZE) and by the watch on the folders, whichever sees it first.
func TestOneHugeFileIsBounded(t *testing.T) {
	t.Parallel()
	j, l := job(t, `
import os
with open(os.environ["TMPDIR"] + "/big", "wb") as f:
    while True: f.write(b"x" * (1 << 20))
`)
	res := launch(t, j)
	if res.Reason != "killed: disk limit 64 MiB reached" && !(res.Reason == "exit code 1" && strings.Contains(l.String(), "File too large")) {
		t.Errorf("%+v\n%s", res, l)
	}
	if st, err := os.Stat(filepath.Join(j.Scratch, "big")); err != nil || st.Size() > j.Limits.Disk {
		t.Errorf("the file has %v, %v", st, err)
	}
}

// On a host that allows neither namespaces nor cgroups the rest still bounds memory, hides the keys and leaves nothing alive.
func TestWithoutNamespacesAndCgroups(t *testing.T) {
	t.Parallel()
	bare := launcherWith(t, process.Config{WithoutNamespaces: true, WithoutCgroups: true})
	run := func(t *testing.T, ctx context.Context, j training.Job) training.Result {
		res, err := bare.Launch(ctx, j)
		if err != nil {
			t.Fatal(err)
		}
		alive(t, j)
		if got := strings.Join(res.Guards, " "); strings.Contains(got, "cgroup") || strings.Contains(got, "namespaces") {
			t.Errorf("guards %v", got)
		}
		return res
	}
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		j, l := job(t, "import time\na = []\nwhile True:\n  a.append(bytearray(b'x' * (8 << 20))); time.sleep(0.02)")
		if res := run(t, t.Context(), j); res.Reason != "killed: memory limit 256 MiB reached" || res.MemoryPeak < 256<<20 {
			t.Errorf("%+v\n%s", res, l)
		}
	})
	t.Run("memory at once", func(t *testing.T) {
		t.Parallel()
		j, l := job(t, "bytearray(2 << 30)")
		if res := run(t, t.Context(), j); res.Reason != "exit code 1" || !strings.Contains(l.String(), "MemoryError") {
			t.Errorf("%+v\n%s", res, l)
		}
	})
	t.Run("grandchildren", func(t *testing.T) {
		t.Parallel()
		j, l := job(t, grandchildren)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			l.until(t, "grandchild up")
			cancel()
		}()
		if res := run(t, ctx, j); res.Outcome != training.Cancelled {
			t.Errorf("%+v\n%s", res, l)
		}
	})
	t.Run("daemons", func(t *testing.T) {
		t.Parallel()
		j, _ := job(t, "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0: time.sleep(3600)\n  os._exit(0)\nos.wait()")
		if res := run(t, t.Context(), j); res.Outcome != training.Succeeded {
			t.Errorf("%+v", res)
		}
	})
	t.Run("files and other processes", func(t *testing.T) {
		t.Parallel()
		secret := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(secret, []byte("canary"), 0o600); err != nil {
			t.Fatal(err)
		}
		j, l := job(t, fmt.Sprintf(`
import os
for what in (lambda: open(%q).read(), lambda: open("/proc/%d/environ").read(), lambda: os.kill(%d, 0), lambda: os.readlink("/proc/%d/fd/0")):
    try: print("GOT", what())
    except OSError as e: print("refused", e.errno)
`, secret, os.Getpid(), os.Getpid(), os.Getpid()))
		if res := run(t, t.Context(), j); res.Outcome != training.Succeeded || strings.Count(l.String(), "refused") != 4 {
			t.Errorf("%+v\n%s", res, l)
		}
	})
}

// alive fails the test when a process of the job is left: each carries its scratch folder in its environment.
func alive(t testing.TB, j training.Job) {
	t.Helper()
	envs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range envs {
		if data, err := os.ReadFile(e); err == nil && strings.Contains(string(data), "HOME="+j.Scratch+"\x00") {
			t.Errorf("%s is still alive", filepath.Dir(e))
		}
	}
}

func TestRefusedCommands(t *testing.T) {
	t.Parallel()
	for name, argv := range map[string][]string{"empty": {}, "missing": {"no-such-program"}, "a script that is not executable": {"./main.py"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j, _ := job(t, "")
			j.Argv = argv
			_, err := launcher(t).Launch(t.Context(), j)
			if !fault.Is(err, fault.Invalid) || fault.From(err).Next == "" {
				t.Errorf("got %v", err)
			}
		})
	}
	j, _ := job(t, "")
	if err := os.WriteFile(filepath.Join(j.Code, "broken"), []byte("no program"), 0o700); err != nil {
		t.Fatal(err)
	}
	j.Argv = []string{"./broken"}
	if _, err := launcher(t).Launch(t.Context(), j); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "exec format error") {
		t.Errorf("a file that is no program gave %v", err)
	}
}

// A cancel ends the job, its children, and a grandchild that left its process group and session.
func TestCancelKillsGrandchildren(t *testing.T) {
	t.Parallel()
	j, l := job(t, grandchildren)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		l.until(t, "grandchild up")
		cancel()
	}()
	res, err := launcher(t).Launch(ctx, j)
	if err != nil || res.Outcome != training.Cancelled || res.Reason != "cancelled" {
		t.Errorf("%+v, %v\n%s", res, err, l)
	}
	alive(t, j)
}

const grandchildren = `
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print("grandchild up", flush=True)
        while True: time.sleep(1)
    os._exit(0)
while True: time.sleep(1)
`

// A job that ends leaves no daemon behind.
func TestDaemonsEndWithTheJob(t *testing.T) {
	t.Parallel()
	j, l := job(t, `
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: time.sleep(3600)
    os._exit(0)
os.wait(); print("done")
`)
	if res := launch(t, j); res.Outcome != training.Succeeded {
		t.Errorf("%+v\n%s", res, l)
	}
	alive(t, j)
}

func TestClosingTheLauncherEndsJobs(t *testing.T) {
	t.Parallel()
	j, l := job(t, grandchildren)
	lc := launcher(t)
	go func() {
		l.until(t, "grandchild up")
		lc.Close()
	}()
	res, err := lc.Launch(t.Context(), j)
	if err != nil || res.Outcome != training.Interrupted {
		t.Errorf("%+v, %v\n%s", res, err, l)
	}
	alive(t, j)
}

// serverThatDies launches the job of its environment; it is killed by kill -9 while the job runs.
func serverThatDies() int {
	var j training.Job
	if err := json.Unmarshal([]byte(os.Getenv("FALAJ_TEST_JOB")), &j); err != nil {
		fmt.Println(err)
		return 1
	}
	j.Log = func(l training.Line) { fmt.Println(l.Text) }
	self, _ := os.Executable()
	l, err := process.New(process.Config{Self: []string{self}, SelfEnv: []string{"FALAJ_TEST_ROLE=worker"}})
	if err == nil {
		_, err = l.Launch(context.Background(), j)
	}
	fmt.Println(err)
	return 1
}

func TestKilledServerTakesItsJobsAlong(t *testing.T) {
	t.Parallel()
	j, _ := job(t, grandchildren)
	j.Log = nil
	text, err := json.Marshal(struct {
		training.Job
		Log any `json:",omitempty"`
	}{Job: j})
	if err != nil {
		t.Fatal(err)
	}
	server := exec.Command(os.Args[0])
	server.Env = append(os.Environ(), "FALAJ_TEST_ROLE=server", "FALAJ_TEST_JOB="+string(text))
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1000)
	if n, err := out.Read(buf); err != nil || !strings.Contains(string(buf[:n]), "grandchild up") {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	if err := server.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// The pipe ends when the last process that holds it is gone: the job's own pipes end at the server, so ask /proc.
	_ = server.Wait()
	deadline := time.Now().Add(10 * time.Second)
	for left := 1; left > 0 && time.Now().Before(deadline); {
		left = 0
		envs, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, e := range envs {
			if data, err := os.ReadFile(e); err == nil && strings.Contains(string(data), "HOME="+j.Scratch+"\x00") {
				left++
			}
		}
	}
	alive(t, j)
}

func listen(t testing.TB, network string) (net.Listener, uint16) {
	t.Helper()
	ln, err := net.Listen(network, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, "hello")
			c.Close()
		}
	}()
	return ln, uint16(ln.Addr().(*net.TCPAddr).Port)
}

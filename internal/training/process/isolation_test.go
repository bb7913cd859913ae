package process_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"falaj/internal/training"
)

// Each attempt must fail with a permission error inside the job; the job prints what it got.
func TestIsolation(t *testing.T) {
	t.Parallel()
	keys := filepath.Join(t.TempDir(), "keys")
	secret := filepath.Join(keys, "keyset.json")
	if err := os.Mkdir(keys, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(secret, []byte("canary-keyset"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, allowed := listen(t, "tcp")
	_, other := listen(t, "tcp")
	socket := filepath.Join(t.TempDir(), "s.sock")
	unix, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	home, _ := os.UserHomeDir()
	script := fmt.Sprintf(`
import os, socket, ctypes, errno, glob
def attempt(name, f):
    try:
        r = f()
        print(name, "GOT", repr(r)[:200])
    except (OSError, ValueError) as e:
        print(name, "refused", errno.errorcode.get(getattr(e, "errno", 0), e))
def connect(port, kind=socket.SOCK_STREAM, proto=0, family=socket.AF_INET):
    s = socket.socket(family, kind, proto); s.settimeout(5); s.connect(("127.0.0.1", port)); return s.recv(5)
libc = ctypes.CDLL(None, use_errno=True)
def call(nr, *args):
    if libc.syscall(nr, *args) < 0: raise OSError(ctypes.get_errno(), "")
    return "done"
attempt("allowed-port", lambda: connect(%d))
attempt("other-port", lambda: connect(%d))
attempt("mptcp", lambda: connect(%d, proto=262))
attempt("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 53)))
attempt("udp6", lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
def unix():
    s = socket.socket(socket.AF_UNIX); s.connect(%q); return "connected"
attempt("unix-socket", unix)
attempt("io_uring", lambda: call(425, 4, ctypes.create_string_buffer(120)))
attempt("unshare", lambda: call(272, 0x10000000))
attempt("ptrace", lambda: call(101, 16, %d, 0, 0))
attempt("read-keys", lambda: open(%q).read())
attempt("list-keys", lambda: os.listdir(%q))
attempt("write-keys", lambda: open(%q, "w"))
attempt("read-home", lambda: os.listdir(%q))
attempt("read-shadow", lambda: open("/etc/shadow").read())
attempt("read-root", lambda: os.listdir("/root"))
attempt("write-code", lambda: open("main.py", "a"))
attempt("write-tmp", lambda: open("/tmp/falaj-escape", "w"))
attempt("write-runtime", lambda: open(os.__file__, "a"))
attempt("server-environ", lambda: open("/proc/%d/environ").read())
attempt("signal-server", lambda: os.kill(%d, 0))
attempt("supervisor-memory", lambda: open(f"/proc/{os.getppid()}/mem", "rb").read(1))
attempt("supervisor-environ", lambda: open(f"/proc/{os.getppid()}/environ", "rb").read())
attempt("cgroup-escape", lambda: [open(p, "w").write("0") for p in glob.glob("/sys/fs/cgroup/*/cgroup.procs")[:1] or ["/sys/fs/cgroup/cgroup.procs"]])
attempt("oom-score", lambda: open("/proc/self/oom_score_adj", "w").write("-1000"))
attempt("mount", lambda: call(165, b"none", b"/tmp", b"tmpfs", 0, 0))
attempt("setuid", lambda: os.setuid(12345) if os.getuid() == 0 else os.setuid(0))
attempt("link-keys", lambda: os.link(%q, os.environ["TMPDIR"] + "/k"))
os.symlink(%q, os.environ["FALAJ_OUTPUTS"] + "/keyset")
attempt("follow-link", lambda: open(os.environ["FALAJ_OUTPUTS"] + "/keyset").read())
print("descriptors", sorted(os.listdir("/proc/self/fd")))
print("stdin", repr(os.read(0, 10)))
print("end")
`, allowed, other, other, socket, os.Getpid(), secret, keys, secret, home, os.Getpid(), os.Getpid(), secret, secret)
	j, l := job(t, script)
	j.Connect = []uint16{allowed}
	res := launch(t, j)
	if res.Outcome != training.Succeeded || !strings.Contains(l.String(), "out end") {
		t.Fatalf("%+v\n%s", res, l)
	}
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, " GOT ") && !strings.HasPrefix(line, "out allowed-port GOT") {
			t.Errorf("an attempt succeeded: %s", strings.TrimSpace(line))
		}
	}
	if !strings.Contains(l.String(), `out allowed-port GOT b'hello'`) {
		t.Errorf("the tracking port cannot be reached")
	}
	if !strings.Contains(l.String(), "stdin b''") || strings.Contains(l.String(), "canary-keyset") {
		t.Errorf("the job got something it should not have")
	}
	if !strings.Contains(l.String(), "out descriptors ['0', '1', '2', '3']") { // 3 is the listing itself
		t.Errorf("the job inherited descriptors")
	}
	if n := strings.Count(l.String(), " refused "); n < 29 {
		t.Errorf("only %d attempts were refused", n)
	}
	t.Logf("guards %v\n%s", res.Guards, l)
}

func TestNoPortsMeansNoNetwork(t *testing.T) {
	t.Parallel()
	_, port := listen(t, "tcp")
	j, l := job(t, fmt.Sprintf("import socket\ntry:\n  socket.create_connection(('127.0.0.1', %d), 5)\n  print('GOT')\nexcept OSError as e: print('refused', e)", port))
	if res := launch(t, j); res.Outcome != training.Succeeded || !strings.Contains(l.String(), "refused") {
		t.Errorf("%+v\n%s", res, l)
	}
}

func TestEnvironmentIsCleanAndSecretsAreMasked(t *testing.T) {
	t.Setenv("FALAJ_TEST_LEAK", "leaked-value")
	j, l := job(t, `
import os
for k, v in sorted(os.environ.items()): print(f"{k}={v}")
import sys; print("token is", os.environ["MLFLOW_TRACKING_TOKEN"], file=sys.stderr)
`)
	j.Env = map[string]string{"MLFLOW_TRACKING_URI": "http://127.0.0.1:7420"}
	j.Secrets = map[string]string{"MLFLOW_TRACKING_TOKEN": "flj_verysecrettoken"}
	j.Limits.CPUs = 2
	if res := launch(t, j); res.Outcome != training.Succeeded {
		t.Fatalf("%+v\n%s", res, l)
	}
	have := map[string]bool{}
	for line := range strings.Lines(l.String()) {
		if name, _, ok := strings.Cut(strings.TrimPrefix(line, "out "), "="); ok {
			have[name] = true
		}
	}
	for name := range have {
		switch {
		case strings.HasSuffix(name, "_NUM_THREADS"), strings.HasPrefix(name, "PYTHON"), strings.HasPrefix(name, "MLFLOW_"):
		case name == "PATH" || name == "HOME" || name == "TMPDIR" || name == "LANG" || name == "LC_CTYPE" || name == "FALAJ_OUTPUTS" || name == "LOKY_MAX_CPU_COUNT":
		default:
			t.Errorf("the job sees %s", name)
		}
	}
	text := l.String()
	if strings.Contains(text, "leaked-value") || strings.Contains(text, "verysecret") || strings.Contains(text, "FALAJ_TEST_ROLE") {
		t.Errorf("something leaked:\n%s", text)
	}
	for _, want := range []string{"out OMP_NUM_THREADS=2", "out MLFLOW_TRACKING_URI=http://127.0.0.1:7420", "err token is [secret]", "out HOME=" + j.Scratch} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestLogLines(t *testing.T) {
	t.Parallel()
	j, l := job(t, `
import sys
w = sys.stdout.buffer.write
w(b"progress 1%\rprogress 100%\n"); w(b"\x1b[31mred\x1b[0m\xff\n"); w("سلام\n".encode()); w(b"x" * 40000 + b"\n"); w(b"no end")
`)
	if res := launch(t, j); res.Outcome != training.Succeeded {
		t.Fatalf("%+v", res)
	}
	text := l.String()
	for _, want := range []string{"out progress 100%", "out [31mred[0m\uFFFD", "out سلام", "out no end"} {
		if !strings.Contains(text, want+"\n") && !strings.HasSuffix(text, want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(text, "progress 1%") || strings.Count(text, "x") < 40000 {
		t.Errorf("wrong pieces")
	}
	for line := range strings.Lines(text) {
		if len(line) > 16<<10+10 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}

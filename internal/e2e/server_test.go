package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"falaj/internal/training"
)

// shared is what all tests of the process use: the binary and one Python runtime, both made once.
var (
	sharedDir = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "falaj-e2e-") })
	binary    = sync.OnceValues(buildBinary)
	runtimes  = sync.OnceValues(makeRuntime)
	lastPort  atomic.Int64
)

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := sharedDir(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

func buildBinary() (string, error) {
	dir, err := sharedDir()
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "falaj")
	cmd := exec.Command("go", "build", "-o", out, "falaj/cmd/falaj")
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("the binary could not be built: %w\n%s", err, b)
	}
	return out, nil
}

// makeRuntime makes the runtime of the flights' lock in a folder that every data directory of the tests links to.
func makeRuntime() (string, error) {
	dir, err := sharedDir()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "runtimes")
	lock, err := os.ReadFile(lockFile)
	if err != nil {
		return "", err
	}
	rs, err := training.NewRuntimes(dir)
	if err != nil {
		return "", err
	}
	if err := rs.InstallUV(context.Background(), training.UVRequest{}); err != nil {
		return "", err
	}
	_, err = rs.EnsureRuntime(context.Background(), training.RuntimeRequest{Lock: lock})
	return dir, err
}

const lockFile = "../../demo/flights/requirements.lock"

// freePort finds a port below the ephemeral range: a client that retries against a stopped server must not get its own
// port as source and talk to itself.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		p := 20000 + (os.Getpid()*37+int(lastPort.Add(1)))%10000
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if err == nil {
			l.Close()
			return p
		}
	}
	t.Fatal("there is no free port between 20000 and 30000")
	return 0
}

// server is a child process of the real binary and its data directory.
type server struct {
	t     *testing.T
	bin   string
	data  string
	url   string
	flags []string
	env   []string // beside a bare environment

	mu     sync.Mutex // guards what follows
	cmd    *exec.Cmd
	exited chan struct{}
	out    *lines
}

// lines collects what a child says.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// newServer makes a server on data ("": a fresh folder) and starts it.
func newServer(t *testing.T, data string, flags ...string) *server {
	t.Helper()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	rts, err := runtimes()
	if err != nil {
		t.Fatal(err)
	}
	if data == "" {
		data = filepath.Join(t.TempDir(), "data")
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(rts, filepath.Join(data, "runtimes")); err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, bin: bin, data: data, flags: flags, out: &lines{}, url: fmt.Sprintf("http://127.0.0.1:%d", freePort(t))}
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			text := s.out.String()
			t.Logf("the server said:\n%s", text[max(0, len(text)-6000):])
		}
	})
	s.start()
	return s
}

// environ is a bare environment: nothing of the developer's own falaj reaches a child.
func environ(extra ...string) []string {
	out := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.TempDir(), "LANG=C.UTF-8"}
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "PIP_") || strings.HasPrefix(v, "UV_") || strings.HasPrefix(v, "PYENV_") {
			out = append(out, v)
		}
	}
	return append(out, extra...)
}

// start starts the process and waits until it is ready.
func (s *server) start() {
	s.t.Helper()
	s.begin()
	s.ready()
}

func (s *server) begin() {
	s.t.Helper()
	args := append([]string{"server", "--data", s.data, "--listen", strings.TrimPrefix(s.url, "http://"), "--webhook-network", "127.0.0.0/8"}, s.flags...)
	cmd := exec.Command(s.bin, args...)
	cmd.Env = environ(s.env...)
	cmd.Stdout, cmd.Stderr = s.out, s.out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	s.mu.Lock()
	s.cmd, s.exited = cmd, exited
	s.mu.Unlock()
}

func (s *server) ready() {
	s.t.Helper()
	s.mu.Lock()
	exited := s.exited
	s.mu.Unlock()
	await(s.t, "the server to be ready", 60*time.Second, func() bool {
		select {
		case <-exited:
			s.t.Fatalf("the server ended instead of getting ready:\n%s", s.out)
		default:
		}
		resp, err := http.Get(s.url + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == 200
	})
}

// kill is kill -9 of the server, and of nothing else.
func (s *server) kill() { s.end(syscall.SIGKILL) }

// stop asks it to stop and waits until it has.
func (s *server) stop() { s.end(syscall.SIGTERM) }

func (s *server) end(sig syscall.Signal) {
	s.mu.Lock()
	cmd, exited := s.cmd, s.exited
	s.mu.Unlock()
	if cmd == nil {
		return
	}
	if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Error(err)
	}
	<-exited
}

// link is the token of the one-use link that the first start prints.
func (s *server) link() string {
	s.t.Helper()
	var token string
	await(s.t, "the link of the first start", 20*time.Second, func() bool {
		lines := bufio.NewScanner(strings.NewReader(s.out.String()))
		for lines.Scan() {
			if _, after, ok := strings.Cut(lines.Text(), "/#/setup?token="); ok {
				token = after
			}
		}
		return token != ""
	})
	return token
}

// await polls: the other side is a process, there is nothing to be woken by.
func await(t *testing.T, what string, limit time.Duration, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain for %s", limit, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// result is how a command ended.
type result struct {
	code int
	out  string
	err  string
}

// command runs the CLI in dir as a child.
func (s *server) command(dir, config, stdin string, args ...string) result {
	s.t.Helper()
	cmd := exec.Command(s.bin, args...)
	cmd.Dir = dir
	cmd.Env = environ("FALAJ_SERVER="+s.url, "XDG_CONFIG_HOME="+config)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errw bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errw
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errw.String()}
}

func readAll(t *testing.T, r io.ReadCloser) []byte {
	t.Helper()
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

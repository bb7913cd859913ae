package python

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"falaj/internal/kernel/fault"
)

// maxFrame bounds a frame in both directions.
const maxFrame = 256 << 20

// config is the first frame to a worker.
type config struct {
	Flavor   string   `json:"flavor"`
	Path     string   `json:"path"`
	Features []string `json:"features"`
	Tmp      string   `json:"tmp"`
	Memory   int64    `json:"memory"`
}

type hello struct {
	OK        bool     `json:"ok"`
	Features  []string `json:"features"`
	Isolation string   `json:"isolation"`
	Error     string   `json:"error"`
}

// process is one running worker. It is used by one goroutine; exited may be read by any.
type process struct {
	cmd      *exec.Cmd
	conn     net.Conn
	stderr   *tail
	features []string
	exited   chan struct{} // closed when the process is gone
	buf      []byte
}

// errDied matches when the process ended, was ended, or broke the protocol.
var errDied = errors.New("the Python worker ended")

// start runs a worker and waits until it has loaded its model.
func (w *worker) start(ctx context.Context) (*process, error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Start)
	defer cancel()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "A Python worker could not be started: no socket.", "")
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "worker"), os.NewFile(uintptr(fds[1]), "server")
	conn, err := net.FileConn(ours)
	ours.Close()
	defer theirs.Close()
	if err != nil {
		return nil, err
	}
	p := &process{conn: conn, stderr: &tail{}, exited: make(chan struct{})}
	p.cmd = exec.Command(w.interpreter, "-I", "-B", "-c", script, "3")
	p.cmd.Dir = w.conf.Tmp
	p.cmd.Env = w.environment()
	p.cmd.ExtraFiles = []*os.File{theirs}
	p.cmd.Stderr = p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.WaitDelay = time.Second // a grandchild may hold stderr open
	if err := p.cmd.Start(); err != nil {
		conn.Close()
		return nil, fault.Wrap(err, fault.Unavailable, "The Python worker's interpreter does not start.", "Install the runtime of the release again.")
	}
	go func() {
		p.cmd.Wait() // the exit status is in cmd.ProcessState
		close(p.exited)
	}()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conf, err := json.Marshal(w.conf)
	if err == nil {
		err = p.write(conf)
	}
	var answer []byte
	if err == nil {
		answer, err = p.read()
	}
	var h hello
	if err == nil {
		err = json.Unmarshal(answer, &h)
	}
	switch {
	case err != nil:
		p.end()
		why := p.why()
		if ctx.Err() != nil {
			why = fmt.Sprintf("it was not ready within %s", w.cfg.Start)
		}
		return nil, fault.Wrap(errors.Join(err, errors.New(p.stderr.String())), fault.Unavailable, "The Python worker did not load the model: "+why+".", "The server's log has the end of its output.")
	case !h.OK:
		p.end()
		return nil, fault.Wrap(errors.New(p.stderr.String()), fault.Refused, "The model does not load in its runtime: "+h.Error, "Load it with mlflow.pyfunc in that runtime to see the whole trace; the server's log has the end of the worker's output.")
	}
	p.features = h.Features
	w.cfg.Log.Info("python worker serves", "release", w.release, "pid", p.cmd.Process.Pid, "isolation", h.Isolation)
	return p, nil
}

func (w *worker) environment() []string {
	n := fmt.Sprint(w.cfg.Threads)
	return []string{
		"PATH=" + filepath.Dir(w.interpreter) + ":/usr/bin:/bin", "HOME=" + w.conf.Tmp, "TMPDIR=" + w.conf.Tmp, "LANG=C.UTF-8",
		"OMP_NUM_THREADS=" + n, "OPENBLAS_NUM_THREADS=" + n, "MKL_NUM_THREADS=" + n, "NUMEXPR_NUM_THREADS=" + n,
		"DO_NOT_TRACK=true", "MLFLOW_DISABLE_TELEMETRY=true",
	}
}

func (p *process) write(payload ...[]byte) error {
	n := 0
	for _, b := range payload {
		n += len(b)
	}
	if n > maxFrame {
		return fault.Newf(fault.TooLarge, "The request needs %d bytes for the Python worker, allowed are %d.", n, maxFrame)
	}
	head := binary.LittleEndian.AppendUint32(nil, uint32(n))
	bufs := append(net.Buffers{head}, payload...)
	_, err := bufs.WriteTo(p.conn)
	return err
}

// read returns the next frame; it is valid until the next read.
func (p *process) read() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(p.conn, head[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > maxFrame {
		return nil, fmt.Errorf("a frame of %d bytes", n)
	}
	if uint32(cap(p.buf)) < n {
		p.buf = make([]byte, n)
	}
	p.buf = p.buf[:n]
	_, err := io.ReadFull(p.conn, p.buf)
	return p.buf, err
}

// modelError is the exception that a model raised.
type modelError string

func (e modelError) Error() string { return string(e) }

// predict sends one batch and returns its outputs. An error is a modelError, or matches errDied and the process is to be ended.
func (p *process) predict(x []float64, rows int, limit time.Duration) ([]float64, error) {
	p.conn.SetDeadline(time.Now().Add(limit))
	frame := make([]byte, 8, 8+8*len(x))
	binary.LittleEndian.PutUint32(frame, uint32(rows))
	binary.LittleEndian.PutUint32(frame[4:], uint32(len(x)/rows))
	for _, v := range x {
		frame = binary.LittleEndian.AppendUint64(frame, math.Float64bits(v))
	}
	if err := p.write(frame); err != nil {
		return nil, errors.Join(errDied, err)
	}
	answer, err := p.read()
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("no answer within %s", limit)
		}
		return nil, errors.Join(errDied, err)
	}
	if len(answer) > 0 && answer[0] == 1 {
		return nil, modelError(answer[1:])
	}
	if len(answer) < 9 || answer[0] != 0 {
		return nil, errors.Join(errDied, errors.New("a frame that is no answer"))
	}
	n, k := uint64(binary.LittleEndian.Uint32(answer[1:])), uint64(binary.LittleEndian.Uint32(answer[5:]))
	body := answer[9:]
	if n != uint64(rows) || uint64(len(body)) != 8*n*k {
		return nil, errors.Join(errDied, errors.New("an answer of the wrong size"))
	}
	out := make([]float64, n*k)
	for i := range out {
		out[i] = math.Float64frombits(binary.LittleEndian.Uint64(body[8*i:]))
	}
	return out, nil
}

func (p *process) alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// end closes the socket, which ends a healthy worker, and kills the process group when it does not go.
func (p *process) end() {
	p.conn.Close()
	t := time.NewTimer(2 * time.Second)
	defer t.Stop()
	select {
	case <-p.exited:
	case <-t.C:
	}
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // also children that it left
	<-p.exited
}

// why says in public words how the process ended.
func (p *process) why() string {
	if p.alive() || p.cmd.ProcessState == nil {
		return "it did not answer"
	}
	if s, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return "it was ended by the signal " + s.Signal().String()
	}
	return "it ended by itself (" + p.cmd.ProcessState.String() + ")"
}

// tail keeps the last bytes that a worker wrote.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailSize = 8 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if len(t.buf) > 2*tailSize {
		t.buf = bytes.Clone(t.buf[len(t.buf)-tailSize:])
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ToValidUTF8(string(t.buf[max(0, len(t.buf)-tailSize):]), "?")
}

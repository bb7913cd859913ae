package duckdb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"falaj/internal/kernel/fault"
)

// child runs one request in one process. The process sees the socket close when this one dies, however it dies, and
// ends itself; so no orphan outlives a kill -9 of the server.
func (e *Engine) child(ctx context.Context, req Request) (*Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Timeout)
	defer cancel()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "The data engine cannot be started.", "See `falaj doctor`: too many files may be open.")
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "engine"), os.NewFile(uintptr(fds[1]), "worker")
	defer ours.Close()
	var stderr head
	cmd := exec.CommandContext(ctx, e.cfg.Command[0], e.cfg.Command[1:]...)
	cmd.Env = []string{"TZ=UTC", "LC_ALL=C.UTF-8", "GOMEMLIMIT=256MiB"} // nothing of the server's environment
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{theirs} // becomes SocketFD
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		theirs.Close()
		return nil, fault.Wrap(err, fault.Unavailable, "The data engine cannot be started.", "See `falaj doctor`.")
	}
	theirs.Close()

	var reply Reply
	err = WriteFrame(ours, req)
	if err == nil {
		err = ReadFrame(ours, &reply)
	}
	ours.Close() // a child that does not end by itself sees this
	if err != nil {
		_ = cmd.Cancel()
	}
	waited := cmd.Wait()
	if err == nil {
		return &reply, nil
	}
	return nil, e.lost(ctx, errors.Join(err, waited, cause(stderr.String())), cmd.ProcessState)
}

// lost explains a child that ended without an answer.
func (e *Engine) lost(ctx context.Context, err error, st *os.ProcessState) error {
	if cause := context.Cause(ctx); errors.Is(cause, context.DeadlineExceeded) {
		return fault.Wrap(err, fault.Unavailable, fmt.Sprintf("The data job took longer than %s and was stopped; nothing of it is kept.", e.cfg.Timeout),
			"Give it less data or simpler SQL, or raise the data engine's time limit.")
	} else if cause != nil {
		return fault.Wrap(err, fault.Unavailable, "The data job was cancelled; nothing of it is kept.", "Start it again.")
	}
	how := "ended without an answer"
	if st != nil {
		if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			switch ws.Signal() {
			case syscall.SIGKILL:
				how = "was killed by the system, most likely for lack of memory"
			case syscall.SIGXCPU:
				how = "used up its CPU time"
			case syscall.SIGXFSZ:
				how = "wrote a file above its limit"
			default:
				how = "crashed (" + ws.Signal().String() + ")"
			}
		}
	}
	return fault.Wrap(err, fault.Unavailable, "The data engine's process "+how+"; this job is lost, nothing of it is kept.",
		"Run it again; if it happens again, give it less data or more memory, and report it with the server's log.")
}

// head keeps the first few KiB that the child says: the cause stands there, stack traces follow.
type head struct{ buf bytes.Buffer }

func (h *head) Write(p []byte) (int, error) {
	h.buf.Write(p[:min(len(p), max(0, 4096-h.buf.Len()))])
	return len(p), nil
}

func (h *head) String() string { return h.buf.String() }

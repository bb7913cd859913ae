package process

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"falaj/internal/training"
)

// The two stages of ExecMain: the supervisor, and the process that becomes the job.
const (
	stageSupervise = "supervise"
	stageBecome    = "become"
)

// spec is what the server tells a stage on its standard input, as one JSON value.
type spec struct {
	Stage      string
	Self       []string
	Program    string
	Argv, Env  []string
	Dir        string
	Read       []string
	Write      []string
	Connect    []uint16
	Limits     training.Limits
	Landlock   int // the kernel's ABI, 0 is none
	Cgroups    []string
	MemoryHeld bool
	CPUHeld    bool
	Namespaces bool
	PrivateShm bool
}

// report is what the supervisor says at the end, on descriptor 3.
type report struct {
	Done       bool
	Exit       int
	Signal     int
	CPUSeconds float64
	MaxRSS     int64
	Setup      string // why the job never began
}

// statusFD is where a stage reports; the job itself never has it.
const statusFD = 3

// ExecMain is the program `falaj worker exec`: it reads its orders from stdin (os.Stdin) and returns the exit code.
// Called with stdin from anywhere else than a Launcher it fails without doing anything.
func ExecMain(stdin io.Reader) int {
	in := json.NewDecoder(stdin)
	var s spec
	if err := in.Decode(&s); err != nil {
		fmt.Fprintln(os.Stderr, "falaj worker exec is started by the server, not by hand.")
		return 2
	}
	status := os.NewFile(statusFD, "status")
	unix.CloseOnExec(statusFD)
	switch s.Stage {
	case stageSupervise:
		rep := supervise(s, stdin)
		_ = json.NewEncoder(status).Encode(rep)
		return 0
	case stageBecome:
		err := become(s)
		fmt.Fprint(status, err) // it only returns when it failed
		return 125
	}
	return 2
}

// supervise runs the job as its child, reaps whatever the job leaves, and kills all of it when the control pipe closes.
func supervise(s spec, control io.Reader) report {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	// Orphans of the job become our children, so none escapes by double fork.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return report{Setup: "orphans cannot be adopted: " + err.Error()}
	}
	if s.Namespaces {
		var err error
		if s.PrivateShm, err = privateMounts(s.Limits, s.Read, s.Write); err != nil {
			return report{Setup: "a folder in memory could not be shown to the job: " + err.Error()}
		}
	}
	s.Stage = stageBecome
	order, err := json.Marshal(s)
	if err != nil {
		return report{Setup: err.Error()}
	}
	stdin, orders, err1 := os.Pipe()
	said, status, err2 := os.Pipe()
	if err1 != nil || err2 != nil {
		return report{Setup: "no pipe to the job"}
	}
	job, err := os.StartProcess(s.Self[0], s.Self, &os.ProcAttr{Env: os.Environ(), Dir: "/", Files: []*os.File{stdin, os.Stdout, os.Stderr, status}})
	if err != nil {
		return report{Setup: err.Error()}
	}
	_, _ = stdin.Close(), status.Close()
	go func() { // a large order must not block: the job may die while reading
		_, _ = orders.Write(order)
		_ = orders.Close()
	}()
	// Our own copies must go, or the server would wait for more output after the job has ended.
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err == nil {
		_ = unix.Dup3(int(null.Fd()), 1, 0)
		_ = unix.Dup3(int(null.Fd()), 2, 0)
	}
	go func() {
		_, _ = io.Copy(io.Discard, control)
		killBelow(job.Pid) // the server is gone or has had enough
	}()
	setup, _ := io.ReadAll(io.LimitReader(said, 4096))
	rep := report{Setup: string(setup)}
	if !s.MemoryHeld {
		limitAddresses(job.Pid, s.Limits)
	}
	var ws syscall.WaitStatus
	for {
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid == job.Pid {
			break
		}
	}
	rep.Done = true
	rep.Exit = ws.ExitStatus()
	if ws.Signaled() {
		rep.Exit, rep.Signal = -1, int(ws.Signal())
	}
	killBelow(0)
	var use syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_CHILDREN, &use) == nil {
		rep.CPUSeconds = float64(use.Utime.Nano()+use.Stime.Nano()) / 1e9
		rep.MaxRSS = use.Maxrss << 10
	}
	return rep
}

// killBelow ends all our descendants until none is left; first is shot first. What dies is reaped by the main loop of
// supervise while that runs, afterwards (first == 0) here.
func killBelow(first int) {
	if first != 0 {
		_ = syscall.Kill(first, syscall.SIGKILL)
	}
	for {
		left := 1
		if os.Getpid() == 1 {
			_ = syscall.Kill(-1, syscall.SIGKILL) // the whole namespace but us, in one step
		} else {
			found := below(os.Getpid())
			for _, p := range found {
				_ = syscall.Kill(p.pid, syscall.SIGKILL)
			}
			left = len(found)
		}
		if first == 0 {
			var ws syscall.WaitStatus
			if _, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil); err == syscall.ECHILD {
				return
			}
		} else if left == 0 {
			return
		}
		time.Sleep(2 * time.Millisecond) // dying takes the kernel a moment
	}
}

const sharedMemory = "/dev/shm"

// privateMounts gives the job its own /proc and /dev/shm. It reports whether /dev/shm is private; where mounting is not
// allowed, Landlock still hides what matters and the job has no shared memory. What the job was given in the machine's
// /dev/shm is bound into the private one: inputs read-only, its own folders so that the server finds what it writes there
// and the watch counts it.
func privateMounts(limits training.Limits, inputs, own []string) (shm bool, err error) {
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return false, nil //nolint:nilerr // no rights to mount: the job does without
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	_ = unix.Mount("proc", "/proc", "proc", flags, "")
	held := map[string]int{}
	for _, path := range slices.Concat(inputs, own) {
		if !strings.HasPrefix(path, sharedMemory+"/") {
			continue
		}
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			return false, err
		}
		defer unix.Close(fd)
		held[path] = fd
	}
	if unix.Mount("tmpfs", sharedMemory, "tmpfs", flags, fmt.Sprintf("size=%d,mode=0700", limits.Memory/2)) != nil {
		return false, nil
	}
	for path, fd := range held {
		if err := show(path, fd, slices.Contains(own, path)); err != nil {
			return false, err
		}
	}
	return true, nil
}

// show binds what fd names to path, read-only unless it is the job's own.
func show(path string, fd int, own bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
	} else if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), path, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if own { // as the source is mounted: a user namespace may not loosen it, and no_new_privs makes suid and devices void
		return nil
	}
	return unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
}

// become turns this process into the job. It returns only on failure.
func become(s spec) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	if err == nil {
		err = unix.Dup3(int(null.Fd()), 0, 0)
	}
	if err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	for _, procs := range s.Cgroups {
		if err := os.WriteFile(procs, []byte("0"), 0); err != nil {
			return fmt.Errorf("joining the control group %s: %w", filepath.Base(filepath.Dir(procs)), err)
		}
	}
	if err := os.Chdir(s.Dir); err != nil {
		return fmt.Errorf("the code folder: %w", err)
	}
	if err := confine(s); err != nil {
		return err
	}
	// What the server itself inherited without close-on-exec must not reach the job.
	if err := unix.CloseRange(statusFD, 1<<32-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("closing descriptors: %w", err)
	}
	return fmt.Errorf("starting %s: %w", s.Argv[0], syscall.Exec(s.Program, s.Argv, s.Env))
}

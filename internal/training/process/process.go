// Package process runs training jobs as processes of this machine: our own binary is started again as a supervisor,
// which starts the job under Landlock, seccomp, cgroups, rlimits and, where allowed, its own pid and mount namespaces.
// Everything the job started dies with it, with its limits, with a cancel and with the server.
//
// BUG(falaj): Landlock's TCP rule knows ports, not addresses: a job may connect to the tracking server's port on any host.
// BUG(falaj): cgroup v2 needs a delegated folder (systemd Delegate=yes); without it and without v1, memory is watched by
// sampling and RLIMIT_AS.
package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"falaj/internal/kernel/fault"
	"falaj/internal/training"
)

// Config says how jobs are started.
type Config struct {
	// Self is the command line that reaches ExecMain, for example {"/usr/bin/falaj", "worker", "exec"}.
	Self []string
	// SelfEnv is the environment of Self; the job never sees it.
	SelfEnv []string
	// AllowUnconfined lets jobs run on a kernel without Landlock, where they can read whatever the server can.
	AllowUnconfined bool
	// WithoutNamespaces and WithoutCgroups leave these guards out, as on hosts that forbid them; the others still hold.
	WithoutNamespaces, WithoutCgroups bool
}

// Launcher is the driver. It is safe for concurrent use.
type Launcher struct {
	cfg    Config
	groups *cgroups
	abi    int
	ctx    context.Context // ends with Close
	stop   context.CancelFunc
}

var _ training.Launcher = (*Launcher)(nil)

// New checks what this kernel offers. It refuses a kernel without Landlock unless told otherwise.
func New(cfg Config) (*Launcher, error) {
	if len(cfg.Self) == 0 || !filepath.IsAbs(cfg.Self[0]) {
		return nil, fault.New(fault.Internal, "The launcher was not told how to start itself again.", "")
	}
	abi, err := llsys.LandlockGetABIVersion()
	if err != nil {
		abi = 0
	}
	if abi < 1 && !cfg.AllowUnconfined {
		return nil, fault.New(fault.Unsupported, "This kernel has no Landlock, so training code could read the server's keys.",
			"Use Linux 5.13 or newer with Landlock on, or allow unconfined training where all authors are trusted.")
	}
	l := &Launcher{cfg: cfg, groups: &cgroups{}, abi: abi}
	if !cfg.WithoutCgroups {
		l.groups = findCgroups()
	}
	l.ctx, l.stop = context.WithCancel(context.Background())
	return l, nil
}

// Probe runs /bin/true as a job in a new folder under dir and returns what held it, for falaj doctor.
func (l *Launcher) Probe(ctx context.Context, dir string) (guards []string, err error) {
	base, err := os.MkdirTemp(dir, "probe-")
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "The isolation of training could not be tried.", "Check that the data folder is writable.")
	}
	defer os.RemoveAll(base)
	job := training.Job{ID: filepath.Base(base), Argv: []string{"/bin/true"}, Code: base, Scratch: base, Outputs: base, Limits: training.Limits{Timeout: 30 * time.Second}}
	res, err := l.Launch(ctx, job)
	if err == nil && res.Outcome != training.Succeeded {
		err = fault.New(fault.Unavailable, "The isolation of training does not work here: "+res.Reason+".", "")
	}
	return res.Guards, err
}

// Close ends all running jobs.
func (l *Launcher) Close() error {
	l.stop()
	return nil
}

// Launch implements training.Launcher.
func (l *Launcher) Launch(ctx context.Context, job training.Job) (training.Result, error) {
	job.Limits = job.Limits.WithDefaults()
	ctx, cancel := context.WithTimeoutCause(ctx, job.Limits.Timeout, errTimeout)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	if err := ctx.Err(); err != nil {
		return training.Result{}, err
	}
	group, err := l.groups.create(job.Limits)
	if err != nil {
		return training.Result{}, fault.Wrap(err, fault.Unavailable, "The job's memory and CPU limits could not be set.", "Run falaj doctor.")
	}
	defer group.remove()
	s, err := l.spec(job, group)
	if err != nil {
		return training.Result{}, err
	}
	child, err := start(&s, l.cfg)
	if err != nil {
		return training.Result{}, fault.Wrap(err, fault.Unavailable, "The job could not be started.", "Check the process limits of the server's user (ulimit -u).")
	}
	defer child.release()
	res := training.Result{Started: time.Now(), Guards: l.guards(group, s)}
	over := make(chan struct{})
	watched := make(chan observed, 1)
	go func() { watched <- watch(ctx, over, child.cmd.Process.Pid, job, group.holdsMemory(), cancel) }()
	go func() {
		select {
		case <-ctx.Done():
			child.kill(group, over)
		case <-over:
		}
	}()
	drain(job, child.out, child.err)
	waitErr := child.cmd.Wait()
	close(over)
	seen := <-watched
	res.Ended = time.Now()
	group.kill()
	rep := child.report()
	if rep.Setup != "" {
		return training.Result{}, fault.Wrap(errors.New(rep.Setup), fault.Unavailable, "The job could not be started: "+rep.Setup+".", "Check the command and the runtime; falaj doctor shows what this machine allows.")
	}
	if waitErr != nil && !rep.Done && ctx.Err() == nil && seen.limit == "" {
		res.Outcome, res.ExitCode, res.Reason = training.Failed, -1, "the job's supervisor was ended from outside"
		return res, nil
	}
	res.CPUSeconds, res.MemoryPeak = group.usage()
	res.CPUSeconds = max(res.CPUSeconds, rep.CPUSeconds)
	res.MemoryPeak = max(res.MemoryPeak, seen.memoryPeak, rep.MaxRSS)
	conclude(&res, ctx, l.ctx, rep, seen, group.oomKills(), job.Limits)
	return res, nil
}

var errTimeout = errors.New("time limit")

// conclude finds the words for the end, the most telling cause first.
func conclude(res *training.Result, ctx, server context.Context, rep report, seen observed, oom int, limits training.Limits) {
	res.ExitCode = rep.Exit
	switch {
	case rep.Done && rep.Exit == 0 && rep.Signal == 0:
		res.Outcome, res.Reason = training.Succeeded, "exit code 0"
	case oom > 0:
		res.Outcome, res.Reason = training.Killed, "killed: memory limit "+size(limits.Memory)+" reached"
	case seen.limit != "":
		res.Outcome, res.Reason = training.Killed, "killed: "+seen.limit+" reached"
	case errors.Is(context.Cause(ctx), errTimeout):
		res.Outcome, res.Reason = training.Killed, fmt.Sprintf("killed: time limit %v reached", limits.Timeout)
	case server.Err() != nil:
		res.Outcome, res.Reason = training.Interrupted, "interrupted: the server stopped"
	case ctx.Err() != nil:
		res.Outcome, res.Reason = training.Cancelled, "cancelled"
	case rep.Signal != 0:
		sig := syscall.Signal(rep.Signal)
		res.Outcome, res.Reason = training.Failed, fmt.Sprintf("ended by signal %d (%s)", rep.Signal, sig)
	default:
		res.Outcome, res.Reason = training.Failed, fmt.Sprintf("exit code %d", rep.Exit)
	}
	if res.Outcome != training.Succeeded && (rep.Signal != 0 || !rep.Done) {
		res.ExitCode = -1
	}
}

// size writes bytes as a person would.
func size(n int64) string {
	switch {
	case n >= 1<<30 && n%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

func (l *Launcher) guards(g *group, s spec) (out []string) {
	if l.abi > 0 {
		out = append(out, fmt.Sprintf("landlock ABI %d", l.abi))
	}
	out = append(out, "seccomp", "rlimits")
	if kinds := g.kinds(); kinds != "" {
		out = append(out, "cgroup "+kinds)
	}
	if s.Namespaces {
		out = append(out, "namespaces")
	}
	return out
}

func (l *Launcher) spec(job training.Job, g *group) (spec, error) {
	bin := slices.Concat([]string{job.Runtime.Bin}, systemPath())
	bin = slices.DeleteFunc(bin, func(s string) bool { return s == "" })
	program, err := lookPath(job.Argv, job.Code, bin)
	if err != nil {
		return spec{}, err
	}
	cpus := max(1, int(job.Limits.CPUs))
	env := map[string]string{"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
	for _, name := range []string{"OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM", "RAYON"} {
		env[name+"_NUM_THREADS"] = fmt.Sprint(cpus)
	}
	env["LOKY_MAX_CPU_COUNT"] = fmt.Sprint(cpus)
	maps.Copy(env, job.Env)
	maps.Copy(env, job.Secrets)
	env["PATH"], env["HOME"], env["TMPDIR"] = strings.Join(bin, ":"), job.Scratch, job.Scratch
	env["FALAJ_OUTPUTS"] = job.Outputs
	s := spec{Stage: stageSupervise, Self: l.cfg.Self, Program: program, Argv: job.Argv, Dir: job.Code, Limits: job.Limits,
		Read: slices.Concat([]string{job.Code}, job.Runtime.Reads, job.Inputs), Write: []string{job.Scratch, job.Outputs},
		Connect: job.Connect, Landlock: l.abi, Cgroups: g.procs(), MemoryHeld: g.holdsMemory(), CPUHeld: g.holdsCPU()}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if strings.ContainsAny(name, "=\x00") || strings.ContainsRune(env[name], 0) || name == "" {
			return spec{}, fault.New(fault.Invalid, fmt.Sprintf("%.40q cannot be an environment variable.", name), "Use a name without = and values without NUL bytes.").At("env")
		}
		s.Env = append(s.Env, name+"="+env[name])
	}
	return s, nil
}

// systemPath is where programs are looked for after the runtime; never the server's own PATH.
func systemPath() []string { return []string{"/usr/local/bin", "/usr/bin", "/bin"} }

func lookPath(argv []string, code string, bin []string) (string, error) {
	if len(argv) == 0 || argv[0] == "" {
		return "", fault.New(fault.Invalid, "The command is empty.", "Write what to run, for example: python train.py").At("run")
	}
	candidates := []string{filepath.Join(code, argv[0])}
	if filepath.IsAbs(argv[0]) {
		candidates = []string{argv[0]}
	} else if !strings.Contains(argv[0], "/") {
		candidates = nil
		for _, dir := range bin {
			candidates = append(candidates, filepath.Join(dir, argv[0]))
		}
	}
	for _, c := range candidates {
		if st, err := os.Stat(c); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return c, nil
		}
	}
	return "", fault.New(fault.Invalid, fmt.Sprintf("There is no program %q to run.", argv[0]),
		"Name one from the runtime (python, pytest), from the system, or an executable file of your code as ./name.").At("run")
}

// child is the running supervisor with the pipes to it.
type child struct {
	cmd      *exec.Cmd
	out, err *os.File
	status   *os.File
	control  *os.File // closing it ends the job; the kernel closes it when the server dies
	owns     []io.Closer
}

// start runs the supervisor in namespaces of its own, or without where that is not allowed; s says which it was.
func start(s *spec, cfg Config) (*child, error) {
	env := cfg.SelfEnv
	if cfg.WithoutNamespaces {
		return startWith(*s, env, 0)
	}
	flags := uintptr(syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC)
	if len(s.Connect) == 0 {
		flags |= syscall.CLONE_NEWNET
	}
	if os.Geteuid() != 0 {
		flags |= syscall.CLONE_NEWUSER
	}
	s.Namespaces = true
	c, err := startWith(*s, env, flags)
	if err == nil {
		return c, nil
	}
	s.Namespaces = false
	return startWith(*s, env, 0)
}

func startWith(s spec, env []string, flags uintptr) (*child, error) {
	c := &child{cmd: exec.Command(s.Self[0], s.Self[1:]...)}
	var theirs []*os.File
	pipe := func(oursReads bool) *os.File {
		r, w, err := os.Pipe()
		if err != nil {
			return nil
		}
		ours, their := r, w
		if !oursReads {
			ours, their = w, r
		}
		c.owns, theirs = append(c.owns, ours), append(theirs, their)
		return ours
	}
	c.control, c.out, c.err, c.status = pipe(false), pipe(true), pipe(true), pipe(true)
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	if len(theirs) != 4 {
		c.release()
		return nil, errors.New("too many open files")
	}
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr, c.cmd.ExtraFiles = theirs[0], theirs[1], theirs[2], theirs[3:]
	c.cmd.Env, c.cmd.Dir = append([]string{}, env...), "/"
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: flags}
	if flags&syscall.CLONE_NEWUSER != 0 {
		c.cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN} // to mount in there; exec would lose it
		c.cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
		c.cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
	}
	if err := c.cmd.Start(); err != nil {
		c.release()
		return nil, err
	}
	if err := json.NewEncoder(c.control).Encode(s); err != nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
		c.release()
		return nil, err
	}
	return c, nil
}

// kill ends the whole job: the supervisor sees its control pipe close and kills all below it; the group and the cgroup
// catch what would outlive a broken supervisor.
func (c *child) kill(g *group, over <-chan struct{}) {
	_ = c.control.Close()
	g.kill()
	select {
	case <-over:
	case <-time.After(3 * time.Second):
		_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
		_ = c.cmd.Process.Kill()
		g.kill()
	}
}

func (c *child) report() (rep report) {
	_ = json.NewDecoder(io.LimitReader(c.status, 64<<10)).Decode(&rep)
	return rep
}

func (c *child) release() {
	for _, o := range c.owns {
		_ = o.Close()
	}
}

package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"

	"falaj/internal/training"
)

// confine narrows this thread to what the job may do. The order matters: capabilities are needed for none of the later
// steps, Landlock allows no new file afterwards, seccomp comes last. Exec then makes this thread the whole process.
func confine(s spec) error {
	runtime.LockOSThread()
	unix.Umask(0o077)
	// When the machine runs out of memory the job goes first, not the server; and it yields the CPU to it.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("500"), 0)
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 5)
	if err := rlimits(s); err != nil {
		return err
	}
	if !s.CPUHeld {
		pinCPUs(max(1, int(s.Limits.CPUs)))
	}
	if err := dropCapabilities(); err != nil {
		return err
	}
	if s.Landlock > 0 {
		if err := restrictFiles(s); err != nil {
			return fmt.Errorf("landlock: %w", err)
		}
	}
	return filterSyscalls(s.Landlock, s.Namespaces)
}

func rlimits(s spec) error {
	set := map[int]uint64{
		unix.RLIMIT_CORE:   0,
		unix.RLIMIT_FSIZE:  uint64(s.Limits.Disk),
		unix.RLIMIT_NOFILE: uint64(s.Limits.Files),
		unix.RLIMIT_NPROC:  uint64(s.Limits.Processes + ownTasks()), // counts all of the user's, ours included
	}
	for what, want := range set {
		var have unix.Rlimit
		if err := unix.Getrlimit(what, &have); err != nil {
			return fmt.Errorf("rlimit %d: %w", what, err)
		}
		want = min(want, have.Max)
		if err := unix.Setrlimit(what, &unix.Rlimit{Cur: want, Max: want}); err != nil {
			return fmt.Errorf("rlimit %d: %w", what, err)
		}
	}
	return nil
}

// limitAddresses bounds the address space of the job where no cgroup holds its memory, so that one wild allocation is a
// MemoryError at once. Libraries are mapped and not used, hence the extra 1 GiB. It is set from outside after exec: the
// Go runtime maps more than that and would die of it.
func limitAddresses(pid int, limits training.Limits) {
	want := uint64(limits.Memory) + 1<<30
	_ = unix.Prlimit(pid, unix.RLIMIT_AS, &unix.Rlimit{Cur: want, Max: want}, nil)
}

// ownTasks counts the threads that our user has now, as RLIMIT_NPROC does.
func ownTasks() (n int) {
	tasks, _ := filepath.Glob("/proc/[0-9]*/task/[0-9]*")
	for _, t := range tasks {
		var st unix.Stat_t
		if unix.Stat(t, &st) == nil && int(st.Uid) == os.Getuid() {
			n++
		}
	}
	return n
}

// pinCPUs keeps the job on n processors where no cgroup limits its CPU time.
func pinCPUs(n int) {
	var may, take unix.CPUSet
	if unix.SchedGetaffinity(0, &may) != nil {
		return
	}
	for cpu := 0; cpu < 8*len(may)*8 && n > 0; cpu++ {
		if may.IsSet(cpu) {
			take.Set(cpu)
			n--
		}
	}
	_ = unix.SchedSetaffinity(0, &take)
}

// dropCapabilities leaves none, also for root: the bounding set is what a root process regains on exec.
func dropCapabilities() error {
	_ = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	for c := uintptr(0); c < 64; c++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); errors.Is(err, unix.EINVAL) {
			break // past the kernel's last capability
		} else if errors.Is(err, unix.EPERM) {
			break // not root: there is nothing to drop
		} else if err != nil {
			return fmt.Errorf("capabilities: %w", err)
		}
	}
	var none [2]unix.CapUserData
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	return nil
}

// systemFiles is what any program may read beside its own: libraries, certificates, zone and name-service tables, and
// what libraries ask to count processors. Nothing secret stands there.
func systemFiles() []string {
	out := []string{"/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/proc", "/sys/devices/system", "/sys/fs/cgroup"}
	for _, name := range []string{"ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "timezone", "ssl", "pki", "ca-certificates", "hosts", "resolv.conf",
		"nsswitch.conf", "host.conf", "gai.conf", "passwd", "group", "mime.types", "os-release", "alternatives", "locale.alias", "services", "protocols"} {
		out = append(out, "/etc/"+name)
	}
	return out
}

// restrictFiles applies Landlock: the lists of the spec and nothing else, TCP to the given ports, no signals to or
// abstract sockets of processes outside.
func restrictFiles(s spec) error {
	var rules []landlock.Rule
	add := func(paths []string, dirs, files func(...string) landlock.FSRule) error {
		for _, p := range paths {
			st, err := os.Stat(p)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				continue
			case err != nil:
				return err
			case st.IsDir():
				rules = append(rules, dirs(p))
			default:
				rules = append(rules, files(p))
			}
		}
		return nil
	}
	write := s.Write
	if s.PrivateShm {
		write = append(write, "/dev/shm")
	}
	err := errors.Join(
		add(append(systemFiles(), s.Read...), landlock.RODirs, landlock.ROFiles),
		add([]string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}, landlock.RWDirs, landlock.RWFiles),
		add(write, func(p ...string) landlock.FSRule {
			if s.Landlock < 2 {
				return landlock.RWDirs(p...) // asking for a right that ABI 1 cannot give would turn it off
			}
			return landlock.RWDirs(p...).WithRefer() // rename between the writable folders
		}, landlock.RWFiles))
	if err != nil {
		return err
	}
	for _, port := range s.Connect {
		rules = append(rules, landlock.ConnectTCP(port))
	}
	return landlock.V11.BestEffort().Restrict(rules...)
}

package worker

import (
	"os"
	"syscall"

	"github.com/landlock-lsm/go-landlock/landlock"

	"falaj/internal/data/duckdb"
	"falaj/internal/kernel/fault"
)

// confine sets the process's own limits. They are set before any data is touched and cannot be raised again.
func confine(l duckdb.Limits) error {
	set := func(what int, value int64) error {
		if value <= 0 {
			return nil
		}
		return syscall.Setrlimit(what, &syscall.Rlimit{Cur: uint64(value), Max: uint64(value)})
	}
	var errs [4]error
	errs[0] = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}) // a core file would hold data in clear
	errs[1] = set(syscall.RLIMIT_DATA, l.Memory+l.Overhead)
	errs[2] = set(syscall.RLIMIT_FSIZE, l.FileBytes)
	errs[3] = set(syscall.RLIMIT_CPU, l.CPUSeconds)
	for _, err := range errs {
		if err != nil {
			return fault.Wrap(err, fault.Unavailable, "The data engine could not set its limits.", "See `falaj doctor`.")
		}
	}
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, 5) // predictions go first
	// When the machine runs out of memory the kernel should take this process, not the server. Best effort.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0o600)
	return nil
}

// wall lets the process see its folder and its input files and nothing else, where the kernel has Landlock. It is the
// second wall: DuckDB's own settings are the first and hold everywhere.
func wall(dir string, in []string) error {
	rules := []landlock.Rule{landlock.RWDirs(dir), landlock.ROFiles("/dev/urandom").IgnoreIfMissing(), landlock.RODirs("/proc/self").IgnoreIfMissing()}
	if len(in) > 0 {
		rules = append(rules, landlock.ROFiles(in...).IgnoreIfMissing())
	}
	return landlock.V5.BestEffort().Restrict(rules...)
}

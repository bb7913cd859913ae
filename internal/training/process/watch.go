package process

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"falaj/internal/training"
)

// observed is what sampling saw.
type observed struct {
	limit      string // the limit that was reached, in words
	memoryPeak int64
}

// watch samples what the kernel does not bound by itself: disk use of the job's folders, and memory where no cgroup
// holds it; folders in a memory file system are memory then, as a cgroup would count them. When a limit is reached it
// calls kill.
func watch(ctx context.Context, over <-chan struct{}, pid int, job training.Job, memoryHeld bool, kill func()) (seen observed) {
	const pause, longest = 200 * time.Millisecond, 2 * time.Second
	inMemory := memoryFiles(job.Scratch) && memoryFiles(job.Outputs)
	tick := time.NewTimer(pause)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return seen
		case <-ctx.Done():
			return seen
		case <-tick.C:
		}
		begun := time.Now()
		files := diskUse(job.Scratch, job.Limits.Disk)
		files += diskUse(job.Outputs, job.Limits.Disk-files)
		if files += unlinked(pid); files > job.Limits.Disk {
			seen.limit = "disk limit " + size(job.Limits.Disk)
		}
		if !memoryHeld {
			used := memoryUse(pid)
			if inMemory {
				used += files
			}
			seen.memoryPeak = max(seen.memoryPeak, used)
			if used > job.Limits.Memory {
				seen.limit = "memory limit " + size(job.Limits.Memory)
			}
		}
		if seen.limit != "" {
			kill()
			return seen
		}
		// At most 5 % of one CPU, but a job that makes looking slow is not left alone for it.
		tick.Reset(min(max(pause, 20*time.Since(begun)), longest))
	}
}

// entry is what a file takes beside its content, in bytes: a million empty files fill a memory file system, too.
const entry = 1 << 10

// diskUse sums what the files under dir take, in bytes, until that is more than limit. What vanishes meanwhile is not
// counted.
func diskUse(dir string, limit int64) (total int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := e.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				total += st.Blocks*512 + entry
			}
		}
		if total > limit {
			return fs.SkipAll
		}
		return nil
	})
	return total
}

// unlinked sums what open files without a name take, in bytes: deleted ones and memfds, which no walk and no resident
// memory shows.
func unlinked(pid int) (total int64) {
	type file struct{ dev, ino uint64 }
	seen := map[file]bool{}
	for _, p := range below(pid) {
		dir := "/proc/" + strconv.Itoa(p.pid) + "/fd/"
		open, _ := os.ReadDir(dir)
		for _, e := range open {
			var st unix.Stat_t
			if unix.Stat(dir+e.Name(), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink > 0 || seen[file{st.Dev, st.Ino}] {
				continue
			}
			seen[file{st.Dev, st.Ino}] = true
			total += st.Blocks * 512
		}
	}
	return total
}

// memoryFiles says whether a folder lies in a memory file system.
func memoryFiles(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && int64(st.Type) == unix.TMPFS_MAGIC
}

// memoryUse sums the resident memory of all processes below pid (not pid itself, the supervisor), in bytes.
func memoryUse(pid int) (total int64) {
	for _, p := range below(pid) {
		total += p.rss
	}
	return total
}

// proc is one line of the process table.
type proc struct {
	pid, parent int
	rss         int64
}

// below lists all descendants of pid.
func below(pid int) (out []proc) {
	children := map[int][]proc{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		data, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		// The name in parentheses may hold anything; the fields after the last one are fixed (proc_pid_stat(5)).
		fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
		if len(fields) < 22 {
			continue
		}
		parent, _ := strconv.Atoi(fields[1])
		pages, _ := strconv.ParseInt(fields[21], 10, 64)
		children[parent] = append(children[parent], proc{id, parent, pages * int64(os.Getpagesize())})
	}
	for queue := []int{pid}; len(queue) > 0; queue = queue[1:] {
		for _, c := range children[queue[0]] {
			out = append(out, c)
			queue = append(queue, c.pid)
		}
	}
	return out
}

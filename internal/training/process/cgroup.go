package process

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"falaj/internal/training"
)

// cgroups is where this machine lets us make control groups; it may be nowhere.
type cgroups struct {
	v1      map[string]string // controller -> our own folder in its hierarchy
	unified string            // our own folder in the v2 hierarchy, when memory can be limited there
}

// findCgroups looks at our own place in each hierarchy; whether we may write there shows when a group is made.
func findCgroups() *cgroups {
	c := &cgroups{v1: map[string]string{}}
	mounts := map[string]string{} // controllers ("" for v2) -> mount point
	for _, fields := range table("/proc/self/mounts", " ") {
		if len(fields) < 4 {
			continue
		}
		switch fields[2] {
		case "cgroup2":
			mounts[""] = fields[1]
		case "cgroup":
			for _, option := range strings.Split(fields[3], ",") {
				mounts[option] = fields[1]
			}
		}
	}
	for _, fields := range table("/proc/self/cgroup", ":") {
		if len(fields) < 3 {
			continue
		}
		path := strings.Join(fields[2:], ":")
		for _, controller := range strings.Split(fields[1], ",") {
			if mount := mounts[controller]; mount != "" {
				folder := filepath.Join(mount, path)
				if controller == "" {
					have, _ := os.ReadFile(filepath.Join(folder, "cgroup.subtree_control"))
					if slices.Contains(strings.Fields(string(have)), "memory") {
						c.unified = folder
					}
				} else {
					c.v1[controller] = folder
				}
			}
		}
	}
	c.sweep()
	return c
}

func table(file, sep string) (out [][]string) {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		out = append(out, strings.Split(lines.Text(), sep))
	}
	return out
}

// prefix names our groups; the server's pid follows, so that what a dead server left can be told from a live one's.
const prefix = "falaj-job-"

// sweep removes groups that servers left behind which are gone now.
func (c *cgroups) sweep() {
	folders := []string{c.unified}
	for _, f := range c.v1 {
		folders = append(folders, f)
	}
	for _, folder := range folders {
		left, _ := filepath.Glob(filepath.Join(folder, prefix+"*"))
		for _, l := range left {
			owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(l), prefix), "-")
			if pid, err := strconv.Atoi(owner); folder != "" && err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
				_ = os.Remove(l) // fails while it holds processes
			}
		}
	}
}

// group is the control group of one job: one folder in v2, or one per controller in v1. It may be empty.
type group struct {
	v2      string
	v1      map[string]string
	applied []string
}

// create makes the group and sets its limits. Where groups cannot be made (no rights) the group is empty; where one was
// made but refuses a limit, that is an error: half a limit would look like a whole one.
func (c *cgroups) create(limits training.Limits) (*group, error) {
	g := &group{v1: map[string]string{}}
	name := prefix + strconv.Itoa(os.Getpid()) + "-" + rand.Text()
	quota := strconv.Itoa(max(1000, int(limits.CPUs*100_000)))
	set := func(folder, file, value string) error {
		return os.WriteFile(filepath.Join(folder, file), []byte(value), 0)
	}
	if c.unified != "" && os.Mkdir(filepath.Join(c.unified, name), 0o755) == nil {
		g.v2 = filepath.Join(c.unified, name)
		if err := set(g.v2, "memory.max", strconv.FormatInt(limits.Memory, 10)); err != nil {
			g.remove()
			return nil, err
		}
		_ = set(g.v2, "memory.swap.max", "0")
		g.applied = append(g.applied, "memory")
		for controller, value := range map[string]string{"pids": strconv.Itoa(limits.Processes), "cpu": quota + " 100000"} {
			if set(g.v2, controller+".max", value) == nil {
				g.applied = append(g.applied, controller)
			}
		}
		return g, nil
	}
	values := map[string][][2]string{
		"memory":  {{"memory.limit_in_bytes", strconv.FormatInt(limits.Memory, 10)}},
		"pids":    {{"pids.max", strconv.Itoa(limits.Processes)}},
		"cpu":     {{"cpu.cfs_period_us", "100000"}, {"cpu.cfs_quota_us", quota}},
		"cpuacct": nil,
	}
	for _, controller := range []string{"memory", "pids", "cpu", "cpuacct"} {
		parent := c.v1[controller]
		if parent == "" {
			continue
		}
		folder := filepath.Join(parent, name)
		if err := os.Mkdir(folder, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			continue // no rights there; with a joint mount (cpu,cpuacct) the second one exists
		}
		g.v1[controller] = folder
		for _, v := range values[controller] {
			if err := set(folder, v[0], v[1]); err != nil {
				g.remove()
				return nil, fmt.Errorf("%s: %w", v[0], err)
			}
		}
		_ = set(folder, "memory.memsw.limit_in_bytes", strconv.FormatInt(limits.Memory, 10)) // absent without swap accounting
		g.applied = append(g.applied, controller)
	}
	return g, nil
}

func (g *group) folders() []string {
	var out []string
	if g.v2 != "" {
		out = append(out, g.v2)
	}
	for _, f := range g.v1 {
		if !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	return out
}

// procs lists the files that a process writes "0" to in order to join.
func (g *group) procs() (out []string) {
	for _, f := range g.folders() {
		out = append(out, filepath.Join(f, "cgroup.procs"))
	}
	return out
}

func (g *group) kinds() string     { return strings.Join(g.applied, "+") }
func (g *group) holdsMemory() bool { return slices.Contains(g.applied, "memory") }
func (g *group) holdsCPU() bool    { return slices.Contains(g.applied, "cpu") }

// kill ends every process in the group, again and again until none is left: a fork bomb grows while it is shot at.
func (g *group) kill() {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		alive := false
		for _, f := range g.folders() {
			_ = os.WriteFile(filepath.Join(f, "cgroup.kill"), []byte("1"), 0) // v2 since Linux 5.14
			data, _ := os.ReadFile(filepath.Join(f, "cgroup.procs"))
			for _, p := range strings.Fields(string(data)) {
				if pid, err := strconv.Atoi(p); err == nil && pid > 1 && pid != os.Getpid() {
					alive = true
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		}
		if !alive {
			return
		}
		time.Sleep(5 * time.Millisecond) // the kernel tells nobody when a group is empty in v1
	}
}

func (g *group) remove() {
	g.kill()
	for _, f := range g.folders() {
		for range 200 { // the last exiting process may hold it a moment longer
			if err := os.Remove(f); err == nil || errors.Is(err, os.ErrNotExist) {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func (g *group) number(v2, controller, v1 string) int64 {
	file := filepath.Join(g.v1[controller], v1)
	if g.v2 != "" {
		file = filepath.Join(g.v2, v2)
	} else if g.v1[controller] == "" {
		return 0
	}
	data, _ := os.ReadFile(file)
	n, _ := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n
}

// keyed reads one value of a file of "name value" lines.
func keyed(file, key string) int64 {
	for _, f := range table(file, " ") {
		if len(f) == 2 && f[0] == key {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}

// usage is the CPU time in seconds and the memory peak in bytes of all processes the group ever held.
func (g *group) usage() (cpu float64, memory int64) {
	memory = g.number("memory.peak", "memory", "memory.max_usage_in_bytes")
	if g.v2 != "" {
		return float64(keyed(filepath.Join(g.v2, "cpu.stat"), "usage_usec")) / 1e6, memory
	}
	return float64(g.number("", "cpuacct", "cpuacct.usage")) / 1e9, memory
}

// oomKills counts processes that the kernel ended at the memory limit.
func (g *group) oomKills() int {
	switch {
	case g.v2 != "":
		return int(keyed(filepath.Join(g.v2, "memory.events"), "oom_kill"))
	case g.v1["memory"] != "":
		return int(keyed(filepath.Join(g.v1["memory"], "memory.oom_control"), "oom_kill"))
	}
	return 0
}

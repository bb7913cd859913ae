package cli

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"falaj/internal/api"
	"falaj/internal/app"
	"falaj/internal/kernel/fault"
)

// finding is one check's outcome: ok, or what is wrong and how to mend it.
type finding struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
}

func (e *env) doctorCmd() *cobra.Command {
	var cfg app.Config
	c := &cobra.Command{Use: "doctor", Short: "Check this machine and the server, and say how to mend what is wrong", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		full, err := cfg.Complete()
		if err != nil {
			return err
		}
		python := first(full.Python, "python3")
		if _, err := exec.LookPath(python); err != nil {
			python = "python" + python
		}
		list := []finding{checkPython(cmd.Context(), python), checkVenv(cmd.Context(), python), checkDisk(full.Data), checkKeys(full), checkMemory(), checkGomp(cmd.Context()), e.checkServer(cmd.Context())}
		bad := 0
		for _, f := range list {
			if !f.OK {
				bad++
			}
		}
		if e.json {
			if err := printJSON(e.out, list); err != nil {
				return err
			}
		} else {
			for _, f := range list {
				mark := e.paint(green, "ok  ")
				if !f.OK {
					mark = e.paint(red, "FAIL")
				}
				fmt.Fprintf(e.out, "%s  %s: %s\n", mark, f.Check, f.Detail)
				if !f.OK && f.Fix != "" {
					fmt.Fprintf(e.out, "      %s\n", f.Fix)
				}
			}
		}
		if bad > 0 {
			return exitCode(1)
		}
		return nil
	}}
	c.Flags().StringVar(&cfg.Data, "data", "", "data directory")
	c.Flags().StringVar(&cfg.Keys, "keys", "", "folder of the keyset")
	c.Flags().StringVar(&cfg.Python, "python", "", "Python interpreter")
	return c
}

func checkPython(ctx context.Context, python string) finding {
	f := finding{Check: "python", Fix: "Install Python 3.10 or newer, or name it with --python."}
	out, err := exec.CommandContext(ctx, python, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])").Output()
	if err != nil {
		f.Detail = "'" + python + "' does not run"
		return f
	}
	v := strings.TrimSpace(string(out))
	parts := strings.Split(v, ".")
	major, _ := strconv.Atoi(parts[0])
	minor := 0
	if len(parts) > 1 {
		minor, _ = strconv.Atoi(parts[1])
	}
	f.Detail, f.OK = v, major == 3 && minor >= 10
	return f
}

func checkVenv(ctx context.Context, python string) finding {
	f := finding{Check: "pip and venv", Fix: "Install them, on Debian: apt-get install python3-pip python3-venv"}
	if err := exec.CommandContext(ctx, python, "-c", "import pip, venv, ensurepip").Run(); err != nil {
		f.Detail = "pip, venv or ensurepip is missing"
		return f
	}
	f.Detail, f.OK = "present", true
	return f
}

func checkDisk(dir string) finding {
	f := finding{Check: "disk", Fix: "Free space, or put --data on a larger volume."}
	for {
		if _, err := os.Stat(dir); err == nil || dir == "/" {
			break
		}
		dir = filepath.Dir(dir)
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		f.Detail = err.Error()
		return f
	}
	free := float64(st.Bavail) * float64(st.Bsize) / (1 << 30)
	f.Detail, f.OK = fmt.Sprintf("%.1f GiB free on %s", free, dir), free >= 2
	return f
}

func checkKeys(cfg app.Config) finding {
	f := finding{Check: "keys", OK: true, Detail: "made at the first start"}
	st, err := os.Stat(cfg.Keys)
	if err != nil {
		return f
	}
	f.Detail = cfg.Keys
	if st.Mode().Perm()&0o077 != 0 {
		f.OK, f.Detail, f.Fix = false, fmt.Sprintf("others can read %s (mode %o)", cfg.Keys, st.Mode().Perm()), "chmod 700 "+cfg.Keys
	} else if strings.HasPrefix(cfg.Keys, cfg.Data+string(filepath.Separator)) {
		f.Detail += " (beside the data: for production put --keys on another volume)"
	}
	return f
}

func checkMemory() finding {
	f := finding{Check: "memory", Fix: "falaj with its workers wants 1 GiB."}
	var si syscall.Sysinfo_t
	if err := syscall.Sysinfo(&si); err != nil {
		f.Detail = err.Error()
		return f
	}
	gib := float64(si.Totalram) * float64(si.Unit) / (1 << 30)
	f.Detail, f.OK = fmt.Sprintf("%.1f GiB", gib), gib >= 1
	return f
}

func checkGomp(ctx context.Context) finding {
	f := finding{Check: "libgomp (LightGBM needs it)", Fix: "On Debian: apt-get install libgomp1"}
	out, err := exec.CommandContext(ctx, "ldconfig", "-p").Output()
	if err != nil {
		if out, err = exec.CommandContext(ctx, "/sbin/ldconfig", "-p").Output(); err != nil {
			f.Detail = "ldconfig does not run"
			return f
		}
	}
	f.OK = strings.Contains(string(out), "libgomp.so.1")
	f.Detail = "not found"
	if f.OK {
		f.Detail = "present"
	}
	return f
}

func (e *env) checkServer(ctx context.Context) finding {
	cl := e.client()
	f := finding{Check: "server"}
	var me api.Me
	if err := cl.call(ctx, "GET", "/me", nil, &me); err != nil {
		w := fault.From(err)
		f.Detail, f.Fix = w.Public, w.Next
		return f
	}
	f.OK, f.Detail = true, fmt.Sprintf("falaj %s at %s, you are %s:%s", me.Version, cl.base, me.Actor.Kind, me.Actor.Name)
	return f
}

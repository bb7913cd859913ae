package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of CPU times in /proc (USER_HZ is 100 on every Linux that Go runs on).
const tick = 10 * time.Millisecond

// server is a falaj that this benchmark started.
type server struct {
	cmd   *exec.Cmd
	base  string
	ready time.Duration // from exec to the first answer of /readyz
}

// serve starts falaj on a data directory and waits until it is ready. It is stopped by stop.
func (b *bench) serve(ctx context.Context, data string, flags ...string) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	l.Close()
	log, err := os.Create(filepath.Join(b.temp, "server-"+strconv.FormatInt(time.Now().UnixNano(), 36)+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s := &server{cmd: exec.Command(b.binary, append([]string{"server", "--data", data, "--listen", address}, flags...)...), base: "http://" + address}
	if slices.Contains(flags, "auto") {
		s.base = "https://" + address
	}
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C reaches it through stop
	begin := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := begin.Add(time.Minute); ; {
		if ok(ctx, trusting(data), s.base+"/readyz") {
			s.ready = time.Since(begin)
			return s, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			text, _ := os.ReadFile(log.Name()) // the error is worth more
			return nil, errors.Join(fmt.Errorf("the server was not ready within a minute: %s", text), s.stop())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// trusting is a client that knows the server's own CA, where it has one.
func trusting(data string) *http.Client {
	pool := x509.NewCertPool()
	if pem, err := os.ReadFile(filepath.Join(data, "ca.pem")); err == nil {
		pool.AppendCertsFromPEM(pem)
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}, Timeout: time.Minute}
}

func ok(ctx context.Context, c *http.Client, url string) bool {
	defer c.CloseIdleConnections()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := c.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// stop ends the server as an operator would.
func (s *server) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- s.cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(30 * time.Second):
		return errors.Join(errors.New("the server did not end within 30 s"), s.cmd.Process.Kill(), <-done)
	}
}

func (s *server) cpu() time.Duration { return treeCPU(s.cmd.Process.Pid) }

// process is one line of /proc.
type process struct {
	parent int
	cpu    time.Duration // its own, and that of the children it has waited for
}

func processes() map[int]process {
	out := map[int]process{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return out
	}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // after the name: state, parent, ...
		if len(f) < 15 {
			continue
		}
		p := process{}
		p.parent, _ = strconv.Atoi(f[1])
		for _, s := range f[11:15] { // user and system time, and those of children that were waited for
			n, _ := strconv.Atoi(s)
			p.cpu += time.Duration(n) * tick
		}
		out[pid] = p
	}
	return out
}

// tree is the process and all that descend from it.
func tree(root int) (pids []int, all map[int]process) {
	all = processes()
	for pid := range all {
		for at := pid; at > 1; at = all[at].parent {
			if at == root {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids, all
}

// treeCPU is the user and system time of a process tree so far, ended children that were waited for included. 10 ms steps.
func treeCPU(root int) (sum time.Duration) {
	pids, all := tree(root)
	for _, pid := range pids {
		sum += all[pid].cpu
	}
	return sum
}

// treeMemory is the proportional resident memory of a process tree in bytes, and how many processes it has.
func treeMemory(root int) (bytes int64, n int) {
	pids, _ := tree(root)
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if rest, found := strings.CutPrefix(line, "Pss:"); found {
				kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				bytes += kib << 10
			}
		}
	}
	return bytes, len(pids)
}

// ownCPU is the user and system time of this process and of the children it has waited for.
func ownCPU() (sum time.Duration) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var r syscall.Rusage
		if syscall.Getrusage(who, &r) == nil {
			sum += time.Duration(r.Utime.Nano() + r.Stime.Nano())
		}
	}
	return sum
}

// load is the machine's load, so that a reader knows how lonely the measurement was.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "load unknown"
	}
	f := strings.Fields(string(b))
	return "load " + strings.Join(f[:3], " ")
}

package storetest

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// Cluster is a PostgreSQL of one test, which may stop and start it. It commits as an operator's does, but for the fsync that
// only a power loss asks for: what it acknowledged survives an immediate stop.
type Cluster struct {
	t      testing.TB
	bin    string
	dir    string
	port   int
	as     *syscall.Credential
	cmd    *exec.Cmd
	exited chan struct{}
}

// NewCluster makes and starts one; it ends with the test.
func NewCluster(t testing.TB) *Cluster {
	t.Helper()
	bin, err := binDir()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "falaj-pg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &Cluster{t: t, bin: bin, dir: dir}
	if c.as, err = owner(dir); err != nil {
		t.Fatal(err)
	}
	if c.port, err = freePort(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(bin, "initdb"), "-D", c.data(), "-U", "falaj", "-A", "trust", "--locale=C.UTF-8", "-E", "UTF8", "--no-sync")
	cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Credential: c.as}
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v: %s", err, b)
	}
	c.Start()
	t.Cleanup(func() { c.Stop(syscall.SIGQUIT) })
	return c
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

// DSN is the address of its database, which sorts by bytes.
func (c *Cluster) DSN() string {
	return fmt.Sprintf("postgres://falaj@127.0.0.1:%d/postgres?sslmode=disable", c.port)
}

// Start starts it and waits until it answers.
func (c *Cluster) Start() {
	c.t.Helper()
	cmd := exec.Command(filepath.Join(c.bin, "postgres"), "-D", c.data(), "-p", strconv.Itoa(c.port), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories="+c.dir, "-c", "fsync=off", "-c", "max_connections=200")
	cmd.Dir, cmd.SysProcAttr = c.dir, &syscall.SysProcAttr{Credential: c.as, Pdeathsig: syscall.SIGQUIT}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	exited, started := make(chan struct{}), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // Pdeathsig follows the thread that started the child
		defer close(exited)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		c.t.Fatal(err)
	}
	c.cmd, c.exited = cmd, exited
	db, err := sql.Open("pgx", c.DSN())
	if err != nil {
		c.t.Fatal(err)
	}
	defer db.Close()
	for deadline := time.Now().Add(time.Minute); ; {
		if err = db.Ping(); err == nil {
			return
		}
		select {
		case <-exited:
			c.t.Fatalf("PostgreSQL ended instead of starting: %s", out.String())
		case <-time.After(50 * time.Millisecond): // another process: there is nothing to be woken by
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("PostgreSQL did not start: %v", err)
		}
	}
}

// Stop stops it as pg_ctl does: SIGINT is a fast stop, which breaks connections off in order; SIGQUIT an immediate one, after
// which it recovers as after a crash.
func (c *Cluster) Stop(sig syscall.Signal) {
	c.t.Helper()
	if c.cmd == nil {
		return
	}
	if err := c.cmd.Process.Signal(sig); err != nil {
		c.t.Error(err)
	}
	<-c.exited
	c.cmd = nil
}

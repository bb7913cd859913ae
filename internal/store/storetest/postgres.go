package storetest

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // registers the driver with database/sql

	"falaj/internal/kernel/policy"
	"falaj/internal/store"
	"falaj/internal/store/postgres"
)

// One server and one policy engine for the whole test process: starting them for each test would cost seconds.
var (
	engine = sync.OnceValues(policy.New)
	server = sync.OnceValues(startServer)
	serial sync.Mutex // CREATE DATABASE from a template wants the template unused
	count  int
)

// PostgresDSN makes a fresh database from a migrated template and returns its address.
// With FALAJ_TEST_POSTGRES it uses that server instead of starting one.
func PostgresDSN(t testing.TB) string {
	t.Helper()
	base, err := server()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := sql.Open("pgx", base)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	serial.Lock()
	count++
	name := fmt.Sprintf("t%d_%d", os.Getpid(), count)
	_, err = admin.Exec(fmt.Sprintf(`CREATE DATABASE %s TEMPLATE %s`, name, template()))
	serial.Unlock()
	if err != nil {
		t.Fatalf("create database: %v", err)
	}
	t.Cleanup(func() {
		db, err := sql.Open("pgx", base)
		if err != nil {
			t.Error(err)
			return
		}
		defer db.Close()
		if _, err := db.Exec(`DROP DATABASE IF EXISTS ` + name + ` WITH (FORCE)`); err != nil {
			t.Error(err)
		}
	})
	return withDatabase(base, name)
}

func template() string { return fmt.Sprintf("tpl%d", os.Getpid()) }

func withDatabase(base, name string) string {
	u, err := url.Parse(base)
	if err != nil {
		return base
	}
	u.Path = "/" + name
	return u.String()
}

func startServer() (string, error) {
	base := os.Getenv("FALAJ_TEST_POSTGRES")
	if base == "" {
		var err error
		if base, err = startCluster(); err != nil {
			return "", err
		}
	}
	admin, err := sql.Open("pgx", base)
	if err != nil {
		return "", err
	}
	defer admin.Close()
	for deadline := time.Now().Add(30 * time.Second); ; {
		if err = admin.Ping(); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("PostgreSQL did not start: %w", err)
		}
		time.Sleep(50 * time.Millisecond) // waiting for another process: there is nothing to be woken by
	}
	if _, err := admin.Exec(`CREATE DATABASE ` + template() + ` TEMPLATE template0 LOCALE 'C.UTF-8' ENCODING 'UTF8'`); err != nil {
		return "", err
	}
	d, err := postgres.Open(context.Background(), withDatabase(base, template()))
	if err != nil {
		return "", err
	}
	s, err := store.Open(context.Background(), d, Roles{}, "", slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		return "", err
	}
	return base, s.Close()
}

// startCluster runs an own PostgreSQL on loopback in a temporary folder. A small shell holds it and removes the folder
// when this test process ends, however it ends.
func startCluster() (string, error) {
	bin, err := binDir()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "falaj-pg-")
	if err != nil {
		return "", err
	}
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if attr.Credential, err = owner(dir); err != nil {
		return "", err
	}
	port, err := freePort()
	if err != nil {
		return "", err
	}
	script := `"$1/initdb" -D "$0/data" -U falaj -A trust --locale=C.UTF-8 -E UTF8 --no-sync >"$0/log" 2>&1 || { cat "$0/log" >&2; exit 1; }
"$1/postgres" -D "$0/data" -p "$2" -c listen_addresses=127.0.0.1 -c unix_socket_directories="$0" -c fsync=off -c full_page_writes=off -c max_connections=300 >>"$0/log" 2>&1 & p=$!
trap 'kill -INT $p; wait $p; rm -rf "$0"; exit 0' TERM INT HUP
echo up
wait $p`
	cmd := exec.Command("/bin/sh", "-c", script, dir, bin, strconv.Itoa(port))
	cmd.SysProcAttr, cmd.Dir = attr, dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // Pdeathsig follows the thread that started the child
		started <- cmd.Start()
		select {}
	}()
	if err := <-started; err != nil {
		return "", err
	}
	buf := make([]byte, 8)
	if _, err := out.Read(buf); err != nil {
		return "", fmt.Errorf("initdb failed: %s", stderr.String())
	}
	return fmt.Sprintf("postgres://falaj@127.0.0.1:%d/postgres?sslmode=disable", port), nil
}

// owner gives the folder to the user that PostgreSQL runs as: it refuses to run as root. nil is the caller's own.
func owner(dir string) (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("running as root needs the user postgres: apt-get install postgresql: %w", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, os.Chown(dir, uid, gid)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func binDir() (string, error) {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	for i := len(dirs) - 1; i >= 0; i-- {
		if _, err := os.Stat(filepath.Join(dirs[i], "initdb")); err == nil {
			return dirs[i], nil
		}
	}
	if p, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(p); err == nil && !strings.Contains(real, "wrapper") {
			return filepath.Dir(real), nil
		}
	}
	return "", errors.New("PostgreSQL's server (initdb, postgres) is not installed: `apt-get install postgresql`, or `make test` as root")
}

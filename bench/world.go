package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// world is a server with the model of the fast demo in production, and tokens of its people.
type world struct {
	*server
	bench *bench
	admin string
	layla string // engineer
	bot   string // the service that sends traffic
}

// world plays the fast demo unless its folder is there, and starts a server on it.
func (b *bench) world(ctx context.Context) (*world, error) {
	people, pid := filepath.Join(b.demo, "demo", "people.json"), filepath.Join(b.demo, "demo", "server.pid")
	done := filepath.Join(b.demo, "played")
	if _, err := os.Stat(done); err != nil {
		fmt.Fprintln(os.Stderr, "playing falaj demo flights --fast first: its model answers the predictions")
		cmd := exec.CommandContext(ctx, b.binary, "demo", "flights", "--fast", "--data", b.demo, "--input", b.flights, "--listen", "127.0.0.1:7431")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("falaj demo flights --fast: %w\n%s", err, out)
		}
		if err := endDemo(pid, b.demo); err != nil {
			return nil, err
		}
		if err := os.WriteFile(done, nil, 0o600); err != nil {
			return nil, err
		}
	}
	text, err := os.ReadFile(people)
	if err != nil {
		return nil, err
	}
	var cast struct{ Admin, Layla, Replay struct{ Token string } }
	if err := json.Unmarshal(text, &cast); err != nil {
		return nil, err
	}
	s, err := b.serve(ctx, b.demo)
	if err != nil {
		return nil, err
	}
	return &world{server: s, bench: b, admin: cast.Admin.Token, layla: cast.Layla.Token, bot: cast.Replay.Token}, nil
}

// endDemo ends the server that the demo leaves up, after looking that the process is that one.
func endDemo(pidFile, data string) error {
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return err
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(line, []byte(data)) {
		return nil // gone already
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return err
	}
	for range 600 {
		if syscall.Kill(pid, 0) != nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("the demo's server (%d) did not end within 30 s", pid)
}

// post sends JSON to falaj's own API.
func (w *world) post(ctx context.Context, path, token string, in any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.base+"/api/falaj/v1"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 400 {
		err = fmt.Errorf("%s: %s %s", path, resp.Status, text)
	}
	return err
}

// falaj runs the command line in a folder against the server, and returns what it printed.
func (w *world) falaj(ctx context.Context, dir, token string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, w.bench.binary, append(args, "--server", w.base)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "FALAJ_TOKEN="+token)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("falaj %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

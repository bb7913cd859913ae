package flow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"falaj/internal/kernel/who"
	"falaj/internal/store/storetest"
)

const crashSteps = 10

// chain is the workflow of the crash tests: ten steps that append a line to a file and add up their numbers.
func chain(executions *os.File) Workflow {
	return func(c *Run, input json.RawMessage) (any, error) {
		var sum int
		if err := json.Unmarshal(input, &sum); err != nil {
			return nil, err
		}
		for i := range crashSteps {
			n, err := Step(c, fmt.Sprintf("add%d", i), func(ctx context.Context, key string) (int, error) {
				_, err := fmt.Fprintf(executions, "%s %s\n", key, who.From(ctx))
				return sum + i, err
			})
			if err != nil {
				return nil, err
			}
			sum = n
		}
		return sum, nil
	}
}

func crashConfig() Config {
	return Config{Path: os.Getenv("FLOW_CRASH_PATH"), PostgresDSN: os.Getenv("FLOW_CRASH_DSN"), Executor: os.Getenv("FLOW_CRASH_EXECUTOR"), SchemaVersion: "1", Sweep: 200 * time.Millisecond}
}

// crashChild is the process that is killed: it starts all workflows (again) and ends when all have ended.
func crashChild() int {
	n, _ := strconv.Atoi(os.Getenv("FLOW_CRASH_CHILD"))
	f, err := os.OpenFile(os.Getenv("FLOW_CRASH_LOG"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 3
	}
	ctx := who.With(context.Background(), who.Actor{Kind: who.User, Name: "amal"})
	cfg := crashConfig()
	if cfg.Box, err = testBox(); err != nil {
		return 3
	}
	e, err := Open(ctx, cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 4
	}
	e.Register("chain", chain(f))
	if err := e.Launch(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 5
	}
	errs := make(chan error)
	for i := range n {
		go func() {
			id := fmt.Sprintf("p/chain-%d", i)
			err := e.Start(ctx, "chain", id, i)
			if err == nil {
				_, _, err = e.Wait(ctx, id)
			}
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 6
		}
	}
	if err := e.Close(); err != nil {
		return 7
	}
	return 0
}

type victim struct {
	cmd *exec.Cmd
	err bytes.Buffer
	end chan error
}

func spawn(t *testing.T, cfg Config, n int, log, executor string) *victim {
	t.Helper()
	v := &victim{cmd: exec.Command(os.Args[0]), end: make(chan error, 1)}
	v.cmd.Env = append(os.Environ(), fmt.Sprintf("FLOW_CRASH_CHILD=%d", n), "FLOW_CRASH_PATH="+cfg.Path, "FLOW_CRASH_DSN="+cfg.PostgresDSN, "FLOW_CRASH_LOG="+log, "FLOW_CRASH_EXECUTOR="+executor)
	v.cmd.Stderr = &v.err
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { v.end <- v.cmd.Wait() }()
	t.Cleanup(func() { v.cmd.Process.Kill() })
	return v
}

func lines(path string) int {
	b, _ := os.ReadFile(path)
	return bytes.Count(b, []byte("\n"))
}

// killAt kills the child once executions has grown by more lines; it says whether the child ended before.
func (v *victim) killAt(t *testing.T, log string, more int) (ended bool) {
	t.Helper()
	base := lines(log)
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-v.end:
			if err != nil {
				t.Fatalf("the child failed: %v: %s", err, v.err.String())
			}
			return true
		case <-deadline:
			t.Fatalf("the child makes no progress: %s", v.err.String())
		case <-tick.C:
			if lines(log) >= base+more {
				v.cmd.Process.Signal(syscall.SIGKILL)
				<-v.end
				return false
			}
		}
	}
}

func TestKillNineLosesNothingAndDoublesNoResult(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, cfg Config) {
		n, kills := 60, 6
		if soak() {
			n, kills = 1500, 20
		}
		log := filepath.Join(t.TempDir(), "executions")
		killed := 0
		for killed < kills {
			v := spawn(t, cfg, n, log, "one")
			if v.killAt(t, log, 1+rand.IntN(n*crashSteps/kills)) {
				break
			}
			killed++
		}
		if killed == 0 {
			t.Fatal("no kill hit the child")
		}
		v := spawn(t, cfg, n, log, "one")
		if err := <-v.end; err != nil {
			t.Fatalf("the last child: %v: %s", err, v.err.String())
		}
		checkChains(t, cfg, n, log, killed)
	})
}

// checkChains looks at what the children left: every run done, right, with each step recorded once.
func checkChains(t *testing.T, cfg Config, n int, log string, killed int) {
	t.Helper()
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	executions := map[string]int{}
	total, twice := 0, 0
	for line := range strings.Lines(string(b)) {
		key, actor, _ := strings.Cut(strings.TrimSpace(line), " ")
		if actor != "user:amal" {
			t.Errorf("a step acted for %q", actor)
		}
		executions[key]++
		total++
		if executions[key] == 2 {
			twice++
		}
	}
	if len(executions) != n*crashSteps {
		t.Errorf("%d different steps were executed, want %d", len(executions), n*crashSteps)
	}
	cfg.Executor = "checker"
	e := start(t, cfg, map[string]Workflow{"chain": chain(os.Stderr)})
	for i := range n {
		id := fmt.Sprintf("p/chain-%d", i)
		s, raw, err := e.Result(t.Context(), id)
		if s != Done || err != nil || string(raw) != strconv.Itoa(i+crashSteps*(crashSteps-1)/2) {
			t.Errorf("%s: %s %s %v", id, s, raw, err)
			continue
		}
		steps, err := e.Steps(t.Context(), id)
		if err != nil || len(steps) != crashSteps {
			t.Errorf("%s: %d steps recorded, %v", id, len(steps), err)
		}
	}
	t.Logf("%d workflows, %d kills: %d executions for %d steps, %d steps more than once", n, killed, total, n*crashSteps, twice)
}

func TestADeadReplicasRunsAreTakenOver(t *testing.T) {
	t.Parallel()
	cfg := Config{PostgresDSN: storetest.PostgresDSN(t)}
	log := filepath.Join(t.TempDir(), "executions")
	const n = 40
	v := spawn(t, cfg, n, log, "first")
	if v.killAt(t, log, n*crashSteps/3) {
		t.Fatal("the child was not killed")
	}
	// Another replica, with another name; the first one never comes back.
	cfg.Executor, cfg.Sweep = "second", 100*time.Millisecond
	f, err := os.OpenFile(log, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	e := start(t, cfg, map[string]Workflow{"chain": chain(f)})
	eventually(t, "the end of the dead replica's runs", func() bool {
		open, err := e.List(t.Context(), Filter{Status: Running, Limit: n})
		queued, err2 := e.List(t.Context(), Filter{Status: Queued, Limit: n})
		return err == nil && err2 == nil && len(open)+len(queued) == 0
	})
	ctx := who.With(t.Context(), who.Actor{Kind: who.User, Name: "amal"})
	for i := range n { // those the first one had not started
		if err := e.Start(ctx, "chain", fmt.Sprintf("p/chain-%d", i), i); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		if s, _, err := wait[int](t, e, fmt.Sprintf("p/chain-%d", i)); s != Done {
			t.Fatal(s, err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	checkChains(t, Config{PostgresDSN: cfg.PostgresDSN}, n, log, 1)
}

func TestTwoLiveProcessesNeverShareAnExecutor(t *testing.T) {
	t.Parallel()
	cfg := Config{PostgresDSN: storetest.PostgresDSN(t), Executor: "one", SchemaVersion: "1", LeaseWait: 200 * time.Millisecond}
	a := open(t, cfg)
	if b, err := Open(t.Context(), cfg); err == nil {
		b.Close()
		t.Fatal("a second live engine took the same name")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, cfg)
}

func TestTheSweeperStartsStrandedRunsAgainAndLeavesLiveOnesAlone(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, cfg Config) {
		cfg.Sweep = 50 * time.Millisecond
		bodies := make(chan string, 10)
		e := start(t, cfg, map[string]Workflow{"w": func(c *Run, _ json.RawMessage) (any, error) {
			bodies <- c.ID
			_, _, err := c.Await("go", 0)
			return 1, err
		}})
		if err := e.Start(t.Context(), "w", "live", nil); err != nil {
			t.Fatal(err)
		}
		if err := e.Start(t.Context(), "w", "stranded", nil); err != nil {
			t.Fatal(err)
		}
		<-bodies
		<-bodies
		// What a database failure leaves: the row says it runs here, but no body does.
		e.mu.Lock()
		delete(e.running, "stranded")
		e.mu.Unlock()
		if got := <-bodies; got != "stranded" {
			t.Errorf("%s was started again", got)
		}
		for _, id := range []string{"live", "stranded"} {
			if err := e.Signal(t.Context(), id, "go", nil, ""); err != nil {
				t.Fatal(err)
			}
			if s, _, err := wait[int](t, e, id); s != Done || err != nil {
				t.Errorf("%s: %s %v", id, s, err)
			}
		}
		if len(bodies) != 0 {
			t.Errorf("a live run was started twice: %s", <-bodies)
		}
	})
}

func TestAFullDiskFailsNoRun(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{}, 100)
	var want = strings.Repeat("x", 1<<20)
	e := start(t, Config{Path: t.TempDir() + "/flow.db", Sweep: 50 * time.Millisecond}, map[string]Workflow{"w": func(c *Run, _ json.RawMessage) (any, error) {
		v, err := Step(c, "big", func(context.Context, string) (string, error) {
			entered <- struct{}{}
			return want, nil
		})
		// A body that notes how it ends, as a pipeline does: it must not note the end of a run that goes on.
		_, e := Step(c, "end", func(context.Context, string) (bool, error) {
			if err != nil {
				t.Errorf("the run was ended by a full disk: %v", err)
			}
			return true, nil
		})
		return v, errors.Join(err, e)
	}})
	e.db.lite.SetMaxOpenConns(1) // the limit below belongs to a connection
	var pages int
	if err := e.db.lite.QueryRow("PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	if err := e.db.lite.QueryRow(fmt.Sprintf("PRAGMA max_page_count = %d", pages+60)).Scan(&pages); err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context(), "w", "r", nil); err != nil {
		t.Fatal(err)
	}
	<-entered
	<-entered // started again by the sweeper
	if s, _, err := e.Result(t.Context(), "r"); s != Running && s != Queued {
		t.Fatalf("a full disk ended the run: %s %v", s, err)
	}
	if err := e.db.lite.QueryRow("PRAGMA max_page_count = 1000000").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	if s, got, err := wait[string](t, e, "r"); s != Done || got != want || err != nil {
		t.Errorf("%s, %d bytes, %v", s, len(got), err)
	}
}

func TestACancelByAnotherReplicaInterruptsTheStep(t *testing.T) {
	t.Parallel()
	cfg := Config{PostgresDSN: storetest.PostgresDSN(t), Sweep: 50 * time.Millisecond, Executor: "a"}
	entered, left := make(chan struct{}), make(chan struct{})
	w := map[string]Workflow{"w": func(c *Run, _ json.RawMessage) (any, error) {
		return Step(c, "long", func(ctx context.Context, _ string) (int, error) {
			close(entered)
			<-ctx.Done()
			close(left)
			return 0, ctx.Err()
		})
	}}
	a := start(t, cfg, w)
	cfg.Executor = "b"
	b := start(t, cfg, w)
	if err := a.Start(t.Context(), "w", "r", nil); err != nil {
		t.Fatal(err)
	}
	<-entered
	if err := b.Cancel(t.Context(), "r"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-left:
	case <-time.After(30 * time.Second):
		t.Fatal("the step on the other replica was not interrupted")
	}
	if s, _, _ := a.Result(t.Context(), "r"); s != Cancelled {
		t.Error(s)
	}
}

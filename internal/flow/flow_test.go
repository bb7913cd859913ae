package flow

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/who"
)

func TestARunRecordsEachStepOnceAndActsForItsActor(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, cfg Config) {
		var bodies, steps atomic.Int64
		var keys [2]atomic.Value
		e := start(t, cfg, map[string]Workflow{"add": func(c *Run, input json.RawMessage) (any, error) {
			bodies.Add(1)
			var n int
			if err := json.Unmarshal(input, &n); err != nil {
				return nil, err
			}
			for i := range 2 {
				m, err := Step(c, "plus", func(ctx context.Context, key string) (int, error) {
					steps.Add(1)
					keys[i].Store(key)
					if got := who.From(ctx).String(); got != "user:amal" {
						t.Errorf("step acts for %s", got)
					}
					return n + i + 1, nil
				})
				if err != nil {
					return nil, err
				}
				n = m
			}
			return n, nil
		}})
		ctx := who.With(t.Context(), who.Actor{Kind: who.User, Name: "amal", Groups: []string{"ml"}})
		for range 3 { // the second and third start are no starts
			if err := e.Start(ctx, "add", "flights/add-1", 10); err != nil {
				t.Fatal(err)
			}
		}
		s, n, err := wait[int](t, e, "flights/add-1")
		if s != Done || n != 13 || err != nil {
			t.Fatalf("%s %d %v", s, n, err)
		}
		if bodies.Load() != 1 || steps.Load() != 2 {
			t.Errorf("body ran %d times, steps %d times", bodies.Load(), steps.Load())
		}
		if keys[0].Load() == keys[1].Load() || keys[0].Load() != "flights/add-1#0.plus" {
			t.Errorf("keys %v %v", keys[0].Load(), keys[1].Load())
		}
		got, err := e.Steps(t.Context(), "flights/add-1")
		if err != nil || len(got) != 2 || string(got[1].Value) != "13" || got[0].Name != "plus" || got[0].Tries != 1 || got[0].Ended.Before(got[0].Started) {
			t.Errorf("steps %+v %v", got, err)
		}
		list, err := e.List(t.Context(), Filter{Prefix: "flights/", Name: "add", Status: Done})
		if err != nil || len(list) != 1 || list[0].Actor != "user:amal" || list[0].Version != "1" || list[0].Starts != 1 {
			t.Errorf("list %+v %v", list, err)
		}
		if list, _ := e.List(t.Context(), Filter{Prefix: "weather/"}); len(list) != 0 {
			t.Errorf("another project's runs: %+v", list)
		}
	})
}

func TestFaultsKeepKindWordsAndNextStepOverARestart(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, cfg Config) {
		want := fault.New(fault.Refused, "The contract refused 12 rows.", "Look at them with `falaj data quarantine`.").At("distance")
		body := func(c *Run, _ json.RawMessage) (any, error) {
			_, err := Step(c, "check", func(context.Context, string) (int, error) {
				e := *want
				e.Err = errors.New("row 7")
				return 0, &e
			})
			if fault.KindOf(err) != fault.Refused {
				t.Errorf("in the body: %v", err)
			}
			return nil, err
		}
		look := func(t *testing.T, e *Engine) {
			s, _, err := wait[int](t, e, "r")
			got := fault.From(err)
			if s != Failed || got.Kind != want.Kind || got.Public != want.Public || got.Next != want.Next || got.Field != want.Field {
				t.Errorf("%s %+v", s, got)
			}
			if got.Err == nil || got.Err.Error() != "row 7" {
				t.Errorf("cause %v", got.Err)
			}
		}
		e := start(t, cfg, map[string]Workflow{"w": body})
		if err := e.Start(t.Context(), "w", "r", nil); err != nil {
			t.Fatal(err)
		}
		look(t, e)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		look(t, start(t, cfg, map[string]Workflow{"w": body}))
	})
}

func TestPanicsAreFaultsAndTheEngineLives(t *testing.T) {
	t.Parallel()
	e := start(t, Config{Path: t.TempDir() + "/flow.db"}, map[string]Workflow{
		"step": func(c *Run, _ json.RawMessage) (any, error) {
			return Step(c, "boom", func(context.Context, string) (int, error) { panic("secret") })
		},
		"body": func(*Run, json.RawMessage) (any, error) { panic("secret") },
		"nested": func(c *Run, _ json.RawMessage) (any, error) {
			return Step(c, "outer", func(context.Context, string) (int, error) {
				return Step(c, "inner", func(context.Context, string) (int, error) { return 1, nil })
			})
		},
		"unwritable": func(*Run, json.RawMessage) (any, error) { return func() {}, nil },
	})
	for _, name := range []string{"step", "body", "nested", "unwritable"} {
		if err := e.Start(t.Context(), name, name, nil); err != nil {
			t.Fatal(err)
		}
		s, _, err := wait[int](t, e, name)
		f := fault.From(err)
		if s != Failed || f.Kind != fault.Internal || f.Next == "" || strings.Contains(f.Public, "secret") {
			t.Errorf("%s: %s %+v", name, s, f)
		}
	}
}

func TestAStepIsTriedAgainOnlyForWhatMayPass(t *testing.T) {
	t.Parallel()
	var tries [3]atomic.Int64
	kinds := []fault.Kind{fault.Unavailable, fault.Invalid, fault.Unavailable}
	e := start(t, Config{Path: t.TempDir() + "/flow.db"}, map[string]Workflow{"w": func(c *Run, in json.RawMessage) (any, error) {
		var i int
		if err := json.Unmarshal(in, &i); err != nil {
			return nil, err
		}
		return Step(c, "s", func(context.Context, string) (int64, error) {
			n := tries[i].Add(1)
			if n == 3 && i == 0 {
				return n, nil
			}
			return 0, fault.New(kinds[i], "no", "")
		}, Retry(3, time.Millisecond, 2*time.Millisecond))
	}})
	for i := range tries {
		if err := e.Start(t.Context(), "w", string(rune('a'+i)), i); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []struct {
		status Status
		tries  int64
	}{{Done, 3}, {Failed, 1}, {Failed, 4}} {
		s, _, _ := wait[int64](t, e, string(rune('a'+i)))
		if s != want.status || tries[i].Load() != want.tries {
			t.Errorf("case %d: %s after %d tries", i, s, tries[i].Load())
		}
	}
}

func TestAwaitSignalAndTimeout(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, cfg Config) {
		type got struct {
			First, Second string
			Ok            bool
		}
		e := start(t, cfg, map[string]Workflow{"w": func(c *Run, _ json.RawMessage) (any, error) {
			a, ok, err := c.Await("approval", 0)
			if err != nil || !ok {
				return nil, err
			}
			b, ok, err := c.Await("approval", 50*time.Millisecond)
			return got{string(a), string(b), ok}, err
		}})
		if err := e.Start(t.Context(), "w", "r", nil); err != nil {
			t.Fatal(err)
		}
		for range 2 { // redelivered: the same key counts once
			if err := e.Signal(t.Context(), "r", "approval", map[string]string{"by": "omar"}, "evt_1"); err != nil {
				t.Fatal(err)
			}
		}
		s, v, err := wait[got](t, e, "r")
		if diff := cmp.Diff(got{First: `{"by":"omar"}`}, v); s != Done || err != nil || diff != "" {
			t.Errorf("%s %v %s", s, err, diff)
		}
		steps, err := e.Steps(t.Context(), "r")
		if err != nil {
			t.Fatal(err)
		}
		if len(steps) != 2 || string(steps[0].Value) != `{"by":"omar"}` || steps[1].Value != nil {
			t.Errorf("steps %+v", steps)
		}
		for _, s := range steps {
			if s.Err != nil || s.Name != "await approval" || s.Ended.IsZero() {
				t.Errorf("step %+v", s)
			}
		}
		if err := e.Signal(t.Context(), "nobody", "approval", 1, ""); !fault.Is(err, fault.NotFound) {
			t.Errorf("signal to nobody: %v", err)
		}
	})
}

func TestASleepIsNotStartedAnewByARestart(t *testing.T) {
	t.Parallel()
	cfg := Config{Path: t.TempDir() + "/flow.db"}
	const long = 1500 * time.Millisecond
	w := map[string]Workflow{"w": func(c *Run, _ json.RawMessage) (any, error) { return 1, c.Sleep(long) }}
	e := start(t, cfg, w)
	began := time.Now()
	if err := e.Start(t.Context(), "w", "r", nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the recorded sleep", func() bool {
		s, err := e.Steps(t.Context(), "r")
		return err == nil && len(s) == 1 && s[0].Name == "sleep"
	})
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for time.Since(began) < long { // let the sleep's time pass while nothing runs
		time.Sleep(10 * time.Millisecond)
	}
	again := time.Now()
	if s, _, err := wait[int](t, start(t, cfg, w), "r"); s != Done || err != nil {
		t.Fatal(s, err)
	}
	if d := time.Since(began); d < long {
		t.Errorf("woke after %v", d)
	}
	t.Logf("recovered and done %v after the restart", time.Since(again))
}

func TestCancelInterruptsTheStepAndResumeGoesOn(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, cfg Config) {
		var first, second atomic.Int64
		entered := make(chan struct{}, 2)
		e := start(t, cfg, map[string]Workflow{"w": func(c *Run, _ json.RawMessage) (any, error) {
			if _, err := Step(c, "first", func(context.Context, string) (int64, error) { return first.Add(1), nil }); err != nil {
				return nil, err
			}
			return Step(c, "long", func(ctx context.Context, _ string) (int64, error) {
				n := second.Add(1)
				entered <- struct{}{}
				if n == 1 {
					<-ctx.Done()
					return 0, ctx.Err()
				}
				return n, nil
			})
		}})
		if err := e.Start(t.Context(), "w", "r", nil); err != nil {
			t.Fatal(err)
		}
		<-entered
		steps, err := e.Steps(t.Context(), "r")
		if err != nil || len(steps) != 2 || steps[1].Name != "long" || !steps[1].Ended.IsZero() {
			t.Errorf("the step under way is missing: %+v %v", steps, err)
		}
		if err := e.Cancel(t.Context(), "r"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the end of the interrupted body", func() bool {
			e.mu.Lock()
			defer e.mu.Unlock()
			return len(e.running) == 0
		})
		if s, _, err := e.Result(t.Context(), "r"); s != Cancelled || !fault.Is(err, fault.Conflict) {
			t.Fatalf("%s %v", s, err)
		}
		if err := e.Cancel(t.Context(), "r"); err != nil {
			t.Errorf("second cancel: %v", err)
		}
		if err := e.Resume(t.Context(), "r"); err != nil {
			t.Fatal(err)
		}
		s, n, err := wait[int64](t, e, "r")
		if s != Done || n != 2 || err != nil || first.Load() != 1 {
			t.Errorf("%s %d %v, first step ran %d times", s, n, err, first.Load())
		}
		if err := e.Resume(t.Context(), "r"); !fault.Is(err, fault.Conflict) {
			t.Errorf("resume of a done run: %v", err)
		}
		if err := e.Cancel(t.Context(), "r"); !fault.Is(err, fault.Conflict) {
			t.Errorf("cancel of a done run: %v", err)
		}
		if err := e.Cancel(t.Context(), "none"); !fault.Is(err, fault.NotFound) {
			t.Errorf("cancel of nothing: %v", err)
		}
	})
}

func TestResumeOfAFailedRunRunsOnlyTheFailedStepAgain(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, cfg Config) {
		var good, bad atomic.Int64
		e := start(t, cfg, map[string]Workflow{"w": func(c *Run, _ json.RawMessage) (any, error) {
			if _, err := Step(c, "good", func(context.Context, string) (int64, error) { return good.Add(1), nil }); err != nil {
				return nil, err
			}
			return Step(c, "bad", func(context.Context, string) (int64, error) {
				if n := bad.Add(1); n > 1 {
					return n, nil
				}
				return 0, fault.New(fault.Invalid, "train.py ended with 1.", "Read the log.")
			})
		}})
		if err := e.Start(t.Context(), "w", "r", nil); err != nil {
			t.Fatal(err)
		}
		if s, _, _ := wait[int64](t, e, "r"); s != Failed {
			t.Fatal(s)
		}
		if err := e.Resume(t.Context(), "r"); err != nil {
			t.Fatal(err)
		}
		if s, n, err := wait[int64](t, e, "r"); s != Done || n != 2 || err != nil || good.Load() != 1 {
			t.Errorf("%s %d %v, good ran %d times", s, n, err, good.Load())
		}
	})
}

func TestForkKeepsTheStepsBeforeAndTheActor(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, cfg Config) {
		var runs [3]atomic.Int64
		e := start(t, cfg, map[string]Workflow{"w": func(c *Run, _ json.RawMessage) (any, error) {
			sum := int64(0)
			for i := range runs {
				n, err := Step(c, "s", func(ctx context.Context, _ string) (int64, error) {
					if who.From(ctx).Name != "amal" {
						t.Errorf("acts for %v", who.From(ctx))
					}
					return runs[i].Add(1), nil
				})
				if err != nil {
					return nil, err
				}
				sum += n
			}
			return sum, nil
		}})
		if err := e.Start(who.With(t.Context(), who.Actor{Kind: who.User, Name: "amal"}), "w", "r", nil); err != nil {
			t.Fatal(err)
		}
		if s, n, _ := wait[int64](t, e, "r"); s != Done || n != 3 {
			t.Fatal(s, n)
		}
		id, err := e.Fork(t.Context(), "r", 2)
		if err != nil {
			t.Fatal(err)
		}
		if s, n, err := wait[int64](t, e, id); s != Done || n != 4 || err != nil {
			t.Errorf("fork: %s %d %v", s, n, err)
		}
		if runs[0].Load() != 1 || runs[1].Load() != 1 || runs[2].Load() != 2 {
			t.Errorf("steps ran %d %d %d times", runs[0].Load(), runs[1].Load(), runs[2].Load())
		}
		list, err := e.List(t.Context(), Filter{Name: "w"})
		if err != nil || len(list) != 2 || list[0].ForkedFrom != "r" {
			t.Errorf("%+v %v", list, err)
		}
		if _, err := e.Fork(t.Context(), "none", 0); !fault.Is(err, fault.NotFound) {
			t.Errorf("fork of nothing: %v", err)
		}
	})
}

func TestAWaitingRunGoesOnUnderNewCode(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, cfg Config) {
		say := func(s string) func(context.Context, string) (string, error) {
			return func(context.Context, string) (string, error) { return s, nil }
		}
		old := func(c *Run, _ json.RawMessage) (any, error) {
			a, err := Step(c, "gates", say("old gates"))
			if err != nil {
				return nil, err
			}
			if _, _, err := c.Await("approval", 0); err != nil {
				return nil, err
			}
			b, err := Step(c, "promote", say("old promote"))
			return a + ", " + b, err
		}
		// The new code has one more step before the wait, and another promote.
		fresh := func(c *Run, _ json.RawMessage) (any, error) {
			a, err := Step(c, "gates", say("new gates"))
			if err != nil {
				return nil, err
			}
			patched, err := c.Patched("scan")
			if err != nil {
				return nil, err
			}
			if patched {
				if a, err = Step(c, "scan", say(a+" scanned")); err != nil {
					return nil, err
				}
			}
			if _, _, err := c.Await("approval", 0); err != nil {
				return nil, err
			}
			b, err := Step(c, "promote", say("new promote"))
			return a + ", " + b, err
		}
		cfg.SchemaVersion = "1"
		e := start(t, cfg, map[string]Workflow{"promotion": old})
		if err := e.Start(t.Context(), "promotion", "waiting", nil); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the wait", func() bool {
			s, err := e.Steps(t.Context(), "waiting")
			return err == nil && len(s) == 2 && s[1].Name == "await approval" && s[1].Ended.IsZero()
		})
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		cfg.SchemaVersion, cfg.Accepts = "2", []string{"1"}
		e = start(t, cfg, map[string]Workflow{"promotion": fresh})
		if err := e.Start(t.Context(), "promotion", "new", nil); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"waiting", "new"} {
			if err := e.Signal(t.Context(), id, "approval", "omar", ""); err != nil {
				t.Fatal(err)
			}
		}
		for id, want := range map[string]string{"waiting": "old gates, new promote", "new": "new gates scanned, new promote"} {
			if s, got, err := wait[string](t, e, id); s != Done || got != want || err != nil {
				t.Errorf("%s: %s %q %v", id, s, got, err)
			}
		}
	})
}

func TestRunsOfARefusedSchemaVersionStayUntouched(t *testing.T) {
	t.Parallel()
	cfg := Config{Path: t.TempDir() + "/flow.db"}
	w := map[string]Workflow{"w": func(c *Run, _ json.RawMessage) (any, error) {
		_, _, err := c.Await("go", 0)
		return 1, err
	}}
	e := start(t, cfg, w)
	if err := e.Start(t.Context(), "w", "r", nil); err != nil {
		t.Fatal(err)
	}
	e.Close()
	cfg.SchemaVersion = "2"
	e = start(t, cfg, w)
	list, err := e.List(t.Context(), Filter{Status: Running})
	if err != nil || len(list) != 1 || list[0].Version != "1" || list[0].Starts != 1 {
		t.Fatalf("%+v %v", list, err)
	}
	e.Close()
	cfg.SchemaVersion = "1"
	e = start(t, cfg, w)
	if err := e.Signal(t.Context(), "r", "go", nil, ""); err != nil {
		t.Fatal(err)
	}
	if s, _, err := wait[int](t, e, "r"); s != Done || err != nil {
		t.Fatal(s, err)
	}
}

func TestOpenRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{
		"no database": {Executor: "a", SchemaVersion: "1"},
		"two":         {Executor: "a", SchemaVersion: "1", Path: "x", PostgresDSN: "y"},
		"no executor": {SchemaVersion: "1", Path: t.TempDir() + "/flow.db"},
		"no version":  {Executor: "a", Path: t.TempDir() + "/flow.db"},
	} {
		if _, err := Open(t.Context(), cfg); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(t.Context(), Config{Executor: "a", SchemaVersion: "1", Path: "/proc/none/flow.db"}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("bad path: %v", err)
	}
	e := open(t, Config{Path: t.TempDir() + "/flow.db"})
	if err := e.Start(t.Context(), "w", "r", nil); !fault.Is(err, fault.Unavailable) {
		t.Errorf("start before launch: %v", err)
	}
}

// Inputs, results, faults and signals may hold users' data: none of it lies readable in the workflow database.
func TestNothingIsReadableInTheDatabase(t *testing.T) {
	t.Parallel()
	cfg := Config{Path: filepath.Join(t.TempDir(), "flow.db")}
	const canary = "CANARY-7d1f"
	e := start(t, cfg, map[string]Workflow{"w": func(c *Run, in json.RawMessage) (any, error) {
		if _, err := Step(c, "result", func(context.Context, string) (map[string]string, error) { return map[string]string{"k": canary}, nil }); err != nil {
			return nil, err
		}
		if _, _, err := c.Await("topic", time.Minute); err != nil {
			return nil, err
		}
		_, err := Step(c, "fault", func(context.Context, string) (int, error) {
			return 0, fault.Wrap(errors.New(canary), fault.Invalid, "The value "+canary+" is no number.", "Mend "+canary+".")
		})
		if string(in) == `"fail `+canary+`"` {
			return nil, err
		}
		return canary, nil
	}})
	for _, in := range []string{"fail " + canary, "pass " + canary} {
		if err := e.Start(t.Context(), "w", in[:4], in); err != nil {
			t.Fatal(err)
		}
		if err := e.Signal(t.Context(), in[:4], "topic", canary, ""); err != nil {
			t.Fatal(err)
		}
	}
	if s, v, err := wait[string](t, e, "pass"); s != Done || v != canary || err != nil {
		t.Errorf("%s %q %v", s, v, err)
	}
	if s, _, err := wait[string](t, e, "fail"); s != Failed || !strings.Contains(fault.From(err).Public, canary) {
		t.Errorf("%s %v", s, err)
	}
	steps, err := e.Steps(t.Context(), "fail")
	if err != nil || len(steps) != 3 || string(steps[0].Value) != `{"k":"`+canary+`"}` || string(steps[1].Value) != `"`+canary+`"` || steps[2].Err == nil {
		t.Errorf("%+v %v", steps, err)
	}
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(cfg.Path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		for _, form := range []string{canary, base64.StdEncoding.EncodeToString([]byte(canary))[:12]} {
			if bytes.Contains(b, []byte(form)) {
				t.Errorf("%s is readable in flow.db%s", form, suffix)
			}
		}
	}
}

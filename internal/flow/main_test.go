package flow

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"falaj/internal/kernel/seal"
	"falaj/internal/store/storetest"
)

// TestMain starts the child of the crash tests when asked to. All tests and their children seal under one key, so that an
// engine reads what another of its database recorded.
func TestMain(m *testing.M) {
	if os.Getenv("FLOW_CRASH_CHILD") != "" {
		os.Exit(crashChild())
	}
	if os.Getenv("FLOW_RELAY_CHILD") != "" {
		os.Exit(relayChild())
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "falaj-flow-")
		if err != nil {
			return 2
		}
		defer os.RemoveAll(dir)
		keys, err := seal.Open(dir + "/keys")
		if err != nil {
			return 2
		}
		wrapped, err := keys.NewDataKey("flow")
		if err != nil {
			return 2
		}
		os.Setenv("FLOW_TEST_KEYS", dir+"/keys")
		os.Setenv("FLOW_TEST_KEY", hex.EncodeToString(wrapped))
		return m.Run()
	}())
}

func testBox() (*seal.Box, error) {
	keys, err := seal.Open(os.Getenv("FLOW_TEST_KEYS"))
	if err != nil {
		return nil, err
	}
	wrapped, err := hex.DecodeString(os.Getenv("FLOW_TEST_KEY"))
	if err != nil {
		return nil, err
	}
	return keys.Box(wrapped, "flow")
}

// each runs a test on SQLite and on PostgreSQL; base has the database set.
func each(t *testing.T, f func(t *testing.T, base Config)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		f(t, Config{Path: filepath.Join(t.TempDir(), "flow.db")})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		f(t, Config{PostgresDSN: storetest.PostgresDSN(t)})
	})
}

// start opens, registers and launches an engine that closes with the test.
func start(t *testing.T, cfg Config, workflows map[string]Workflow) *Engine {
	t.Helper()
	e := open(t, cfg)
	for name, w := range workflows {
		e.Register(name, w)
	}
	if err := e.Launch(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e
}

func open(t *testing.T, cfg Config) *Engine {
	t.Helper()
	if cfg.Executor == "" {
		cfg.Executor = "one"
	}
	if cfg.SchemaVersion == "" {
		cfg.SchemaVersion = "1"
	}
	if cfg.Log == nil && testing.Verbose() {
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	cfg.Box = newBox(t)
	e, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// wait is Wait with a limit, and the result decoded.
func wait[T any](t *testing.T, e *Engine, id string) (Status, T, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, raw, err := e.Wait(ctx, id)
	var v T
	if s == Done {
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatalf("result %s: %v", raw, err)
		}
	}
	return s, v, err
}

// eventually polls a condition that another goroutine or process makes true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatal("never came: " + what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// soak says whether the tests run at their full size.
func soak() bool { return os.Getenv("FALAJ_SOAK") != "" }

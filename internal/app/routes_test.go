package app

import (
	"context"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"falaj/internal/store"
)

func newApp(t *testing.T, cfg Config) *App {
	t.Helper()
	cfg.Data, cfg.Listen = t.TempDir(), "127.0.0.1:0"
	a, err := New(context.Background(), cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return a
}

var wildcard = regexp.MustCompile(`\{[^}]*\}`)

// The whole route table of a fresh server, own API and foreign ones: a caller without credentials, with a made-up token
// and with a made-up session gets nothing but what is meant for everybody, and leaves no trace but refusals.
func TestEveryRouteAsksWho(t *testing.T) {
	t.Parallel()
	a := newApp(t, Config{})
	public := []string{"/", "/healthz", "/readyz", "/version", "/health", "/api/falaj/v1/openapi.json", "/api/falaj/v1/me", "/api/falaj/v1/login", "/api/falaj/v1/setup",
		"/v2/health/live", "/v2/health/ready"}
	before, _, err := a.store.Head(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	routes, asked := a.door.Routes(), 0
	for _, r := range routes {
		path := wildcard.ReplaceAllString(r.Pattern, "x")
		if r.Public {
			// MLflow's routes that are not built say 501, and parts of an upload carry a signature in their address: both
			// give a caller without one nothing.
			w := httptest.NewRecorder()
			a.door.ServeHTTP(w, httptest.NewRequest(r.Method, "http://127.0.0.1"+path, strings.NewReader("{}")))
			if !slices.Contains(public, r.Pattern) && !strings.HasSuffix(r.Pattern, "/server-info") && w.Code < 400 {
				t.Errorf("%s %s is public and says %d", r.Method, r.Pattern, w.Code)
			}
			continue
		}
		asked++
		for name, header := range map[string][2]string{"none": {}, "token": {"Authorization", "Bearer flj_made-up"}, "session": {"Cookie", "falaj_session=made-up"}, "basic": {"Authorization", "Basic eDp4"}} {
			req := httptest.NewRequest(r.Method, "http://127.0.0.1"+path, strings.NewReader("{}"))
			if header[0] != "" {
				req.Header.Set(header[0], header[1])
			}
			w := httptest.NewRecorder()
			a.door.ServeHTTP(w, req)
			// The few that everybody may call on themselves say 401 themselves when nobody is there.
			if name == "none" && r.Action == "me.read" {
				continue
			}
			if w.Code != 401 {
				t.Errorf("%s %s with %s: %d %s", r.Method, path, name, w.Code, w.Body)
			}
		}
	}
	if asked < 100 {
		t.Fatalf("only %d guarded routes", asked)
	}
	after, events, err := a.store.Head(context.Background())
	if err != nil || events != 0 {
		t.Fatalf("%d events, %v", events, err)
	}
	rows, err := a.store.Entries(context.Background(), before, 10000)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if r.Decision != "deny" {
			t.Errorf("a caller without a name did %s on %s", r.Action, r.Resource)
		}
	}
	if after == before {
		t.Error("no refusal was recorded")
	}
}

// What everybody may call on themselves gives an anonymous caller nothing.
func TestPersonalRoutesGiveNobodyNothing(t *testing.T) {
	t.Parallel()
	a := newApp(t, Config{})
	for _, r := range a.door.Routes() {
		if r.Action != "me.read" {
			continue
		}
		w := httptest.NewRecorder()
		a.door.ServeHTTP(w, httptest.NewRequest(r.Method, "http://127.0.0.1"+wildcard.ReplaceAllString(r.Pattern, "x")+"?action=model.read", strings.NewReader(`{"project":"*","role":"admin","principal":"user:mallory"}`)))
		if w.Code < 400 && r.Pattern != "/api/falaj/v1/projects" && r.Pattern != "/api/falaj/v1/policy/why" {
			t.Errorf("%s %s: %d %s", r.Method, r.Pattern, w.Code, w.Body)
		}
	}
	err := a.store.View(context.Background(), func(ctx context.Context, q store.Querier) error {
		var n int
		if err := q.QueryRow(ctx, `SELECT COUNT(*) FROM bindings`).Scan(&n); err != nil || n != 0 {
			t.Errorf("%d bindings, %v", n, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestUnsafeConfigurationStopsTheStart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]Config{
		"not loopback": {Listen: "0.0.0.0:7420"},
		"no port":      {Listen: "127.0.0.1"},
		"region":       {Listen: "127.0.0.1:0", Region: "a b"},
	} {
		c.Data = t.TempDir()
		if a, err := New(context.Background(), c, slog.New(slog.NewTextHandler(io.Discard, nil))); err == nil {
			a.Stop(context.Background())
			t.Errorf("%s: started", name)
		}
	}
}

// One server per data directory; a newer layout is refused.
func TestDataDirectoryIsClaimed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f, err := claim(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := claim(dir); err == nil || !strings.Contains(err.Error(), "Another falaj") {
		t.Fatal(err)
	}
	f.Close()
	if f, err = claim(dir); err != nil {
		t.Fatal(err)
	}
	f.Close()
	writeFile(t, dir+"/FORMAT", "99\n")
	if _, err := claim(dir); err == nil || !strings.Contains(err.Error(), "format 99") {
		t.Fatal(err)
	}
}

func TestExplainNamesEverySetting(t *testing.T) {
	t.Parallel()
	text := ExplainConfig()
	for _, want := range []string{"data\n", "keys\n", "listen\n", "region\n", "postgres\n", "open\n", "hosts\n", "log_level\n", "python\n", "wheelhouse\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not explained in\n%s", want, text)
		}
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

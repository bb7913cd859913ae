package door_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"falaj/internal/door"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
	"falaj/internal/store/storetest"
)

type people struct{}

func (people) Token(_ context.Context, secret string) (who.Actor, error) {
	switch secret {
	case "amal":
		return who.Actor{Kind: who.User, Name: "amal", Via: "token"}, nil
	case "vera":
		return who.Actor{Kind: who.User, Name: "vera", Via: "token"}, nil
	case "scoped":
		return who.Actor{Kind: who.User, Name: "amal", Via: "token", Scope: who.Scope{Project: "loans"}}, nil
	}
	return who.Actor{}, fault.New(fault.Unauthenticated, "The token is unknown.", "")
}

func (p people) Session(ctx context.Context, secret string) (who.Actor, error) {
	return p.Token(ctx, secret)
}

func newDoor(t *testing.T, s *store.Store, open bool) (*door.Door, *int) {
	t.Helper()
	e, err := policy.New()
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	d := door.New(s, people{}, door.Config{Open: open, Known: e.Known, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ran++
		if _, err := io.ReadAll(r.Body); err != nil {
			door.Problem(w, r, fault.New(fault.TooLarge, "too large", ""))
			return
		}
		io.WriteString(w, door.Project(r.Context())+" "+who.From(r.Context()).String())
	})
	if err := d.Handle(
		door.Route{Method: "GET", Pattern: "/projects/{p}/models", Action: "model.read", Handler: h},
		door.Route{Method: "POST", Pattern: "/runs", Action: "run.create", MaxBody: 10, Handler: h},
		door.Route{Method: "GET", Pattern: "/healthz", Public: true, Handler: h},
	); err != nil {
		t.Fatal(err)
	}
	return d, &ran
}

func TestRouteTable(t *testing.T) {
	t.Parallel()
	d, _ := newDoor(t, storetest.SQLite(t), false)
	if err := d.Handle(door.Route{Method: "GET", Pattern: "/x", Action: "no.such", Handler: http.NotFoundHandler()}); err == nil {
		t.Fatal("a route with an unknown action was registered")
	}
	if err := d.Handle(door.Route{Method: "GET", Pattern: "/y", Handler: http.NotFoundHandler()}); err == nil {
		t.Fatal("a route without an action was registered")
	}
	if len(d.Routes()) != 3 {
		t.Fatalf("%d routes", len(d.Routes()))
	}
}

func TestEveryRequestIsDecided(t *testing.T) {
	t.Parallel()
	s := storetest.SQLite(t)
	d, ran := newDoor(t, s, false)
	for _, c := range []struct {
		name, method, path, token, host, origin, body string
		basic                                         bool
		status                                        int
		text                                          string
	}{
		{"no credentials", "GET", "/projects/flights/models", "", "", "", "", false, 401, ""},
		{"bad token", "GET", "/projects/flights/models", "mallory", "", "", "", false, 401, ""},
		{"viewer reads", "GET", "/projects/flights/models", "vera", "", "", "", false, 200, "flights user:vera"},
		{"viewer writes", "POST", "/runs", "vera", "", "", "", false, 403, "engineer"},
		{"engineer writes", "POST", "/runs", "amal", "", "", "x", false, 200, "default user:amal"},
		{"basic password", "POST", "/runs", "amal", "", "", "x", true, 200, "default user:amal"},
		{"prefix", "POST", "/p/flights/runs", "amal", "", "", "x", false, 200, "flights user:amal"},
		{"bad prefix", "POST", "/p/..%2f/runs", "amal", "", "", "x", false, 400, ""},
		{"token scope is the project", "POST", "/runs", "scoped", "", "", "x", false, 200, "loans user:amal"},
		{"token scope is a limit", "GET", "/projects/flights/models", "scoped", "", "", "", false, 403, "another project"},
		{"too large", "POST", "/runs", "amal", "", "", "12345678901", false, 413, ""},
		{"public", "GET", "/healthz", "", "", "", "", false, 200, ""},
		{"unknown route", "GET", "/nowhere", "amal", "", "", "", false, 404, "nowhere"},
		{"unknown method", "DELETE", "/runs", "amal", "", "", "", false, 405, "POST"},
		{"rebinding host", "GET", "/healthz", "", "evil.example", "", "", false, 403, "Host"},
		{"cross origin", "POST", "/runs", "amal", "", "https://evil.example", "x", false, 403, ""},
	} {
		before := *ran
		r := httptest.NewRequest(c.method, "http://127.0.0.1"+c.path, strings.NewReader(c.body))
		if c.host != "" {
			r.Host = c.host
		}
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
			r.Header.Set("Sec-Fetch-Site", "cross-site")
		}
		if c.basic {
			r.SetBasicAuth("anything", c.token)
		} else if c.token != "" {
			r.Header.Set("Authorization", "bearer "+c.token)
		}
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.text) {
			t.Errorf("%s: %d %s, want %d %q", c.name, w.Code, w.Body, c.status, c.text)
		}
		if (c.status == 200) != (*ran > before) && c.status != 413 {
			t.Errorf("%s: handler ran %v", c.name, *ran > before)
		}
		if c.status >= 400 {
			var p door.ProblemBody
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Next == "" || p.Detail == "" {
				t.Errorf("%s: problem %s (%v)", c.name, w.Body, err)
			}
		}
	}
	rows, err := s.Entries(context.Background(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	denied := 0
	for _, r := range rows {
		if r.Decision == "deny" {
			denied++
		}
	}
	if denied != 4 { // no credentials, bad token, viewer writes, token scope
		t.Errorf("%d refusals in the ledger, want 4", denied)
	}
}

func TestOpenModeIsLoopbackOnly(t *testing.T) {
	t.Parallel()
	d, _ := newDoor(t, storetest.SQLite(t), true)
	for addr, want := range map[string]int{"127.0.0.1:5": 403, "[::1]:5": 403, "192.0.2.7:5": 401} {
		r := httptest.NewRequest("GET", "http://127.0.0.1/projects/p/models", nil)
		r.RemoteAddr = addr
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r)
		// storetest's policy is not in open mode: what is tested is that only loopback callers are taken as open callers.
		if w.Code != want {
			t.Errorf("%s: %d %s", addr, w.Code, w.Body)
		}
	}
}

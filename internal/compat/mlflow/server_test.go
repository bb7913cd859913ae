package mlflow_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"falaj/internal/access"
	"falaj/internal/blob"
	"falaj/internal/blob/dir"
	"falaj/internal/compat/mlflow"
	"falaj/internal/door"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/seal"
	"falaj/internal/kernel/who"
	"falaj/internal/registry"
	"falaj/internal/store"
	"falaj/internal/store/postgres"
	"falaj/internal/store/sqlite"
	"falaj/internal/store/storetest"
	"falaj/internal/tracking"
)

// server is MLflow's API behind the real door, access and policy, with the token of amal, an engineer of project flights.
type server struct {
	*httptest.Server
	token    string
	viewer   string
	store    *store.Store
	registry *registry.Service
	tracking *tracking.Service
}

func each(t *testing.T, fn func(t *testing.T, s server)) {
	t.Helper()
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		d, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "falaj.db"))
		if err != nil {
			t.Fatal(err)
		}
		fn(t, start(t, d))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		d, err := postgres.Open(t.Context(), storetest.PostgresDSN(t))
		if err != nil {
			t.Fatal(err)
		}
		fn(t, start(t, d))
	})
}

func start(t testing.TB, d store.Driver) server {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	engine, err := policy.New()
	check(err)
	auth := access.NewAuthorizer(engine, "ae", false)
	st, err := store.Open(context.Background(), d, auth, "", log)
	check(err)
	t.Cleanup(func() { st.Close() })
	keys, err := seal.Open(filepath.Join(t.TempDir(), "keys"))
	check(err)
	folder, err := dir.Open(filepath.Join(t.TempDir(), "blobs"))
	check(err)
	t.Cleanup(func() { folder.Close() })
	people := access.New(st, auth, keys.MAC)
	bytes := blob.New(st, keys, folder)
	s := server{store: st, tracking: tracking.New(st, bytes)}
	s.registry = registry.New(st, s.tracking, bytes, nil)
	dr := door.New(st, people, door.Config{Known: auth.Known, Log: log})
	check(dr.Handle(mlflow.Routes(s.tracking, s.registry)...))
	s.Server = httptest.NewServer(dr)
	t.Cleanup(s.Close)

	const password = "a falaj flows downhill"
	link, err := people.SetupLink(context.Background())
	check(err)
	_, err = people.Setup(context.Background(), link, "root", password)
	check(err)
	session, err := people.Login(context.Background(), "root", password)
	check(err)
	actor, err := people.Session(context.Background(), session)
	check(err)
	root := who.With(context.Background(), actor)
	_, err = people.CreateProject(root, "flights", "", nil)
	check(err)
	for name, role := range map[string]policy.Role{"amal": policy.Engineer, "vera": policy.Viewer} {
		_, err = people.CreateUser(root, name, name, password, nil)
		check(err)
		for _, project := range []string{"flights", "default"} {
			check(people.Bind(root, access.Binding{Project: project, Role: role, Principal: "user:" + name}))
		}
	}
	_, s.token, err = people.CreateToken(root, access.TokenRequest{Principal: "user:amal"})
	check(err)
	_, s.viewer, err = people.CreateToken(root, access.TokenRequest{Principal: "user:vera"})
	check(err)
	return s
}

// call sends a request as amal in project flights and returns status and body.
func (s server) call(t testing.TB, method, path, body string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, s.URL+"/p/flights"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+s.token)
	if body != "" || method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// ok is call that must succeed; the answer is decoded into a map.
func (s server) ok(t testing.TB, method, path, body string, header ...string) map[string]any {
	t.Helper()
	status, text := s.call(t, method, path, body, header...)
	if status != http.StatusOK {
		t.Fatalf("%s %s %s: %d %s", method, path, body, status, text)
	}
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.UseNumber()
	out := map[string]any{}
	if err := d.Decode(&out); err != nil {
		t.Fatalf("%s %s: %v in %s", method, path, err, text)
	}
	return out
}

// dig walks a decoded answer.
func dig(v any, path ...any) any {
	for _, p := range path {
		switch k := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[k]
		case int:
			l, _ := v.([]any)
			if k >= len(l) {
				return nil
			}
			v = l[k]
		}
	}
	return v
}

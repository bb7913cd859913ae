// Package storetest runs store tests on SQLite and on a real PostgreSQL that it starts.
// It is imported by tests only; when PostgreSQL's server is missing the test fails and says how to get it.
package storetest

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"testing"

	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
	"falaj/internal/store/postgres"
	"falaj/internal/store/sqlite"
)

// Each runs fn twice: on a fresh SQLite file and on a fresh PostgreSQL database, both migrated.
func Each(t *testing.T, fn func(t *testing.T, s *store.Store)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		fn(t, SQLite(t))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		fn(t, Postgres(t))
	})
}

// SQLite opens a fresh SQLite store that is closed with the test.
func SQLite(t testing.TB) *store.Store {
	t.Helper()
	d, err := sqlite.Open(context.Background(), filepath.Join(t.TempDir(), "falaj.db"))
	if err != nil {
		t.Fatal(err)
	}
	return open(t, d)
}

// Postgres opens a fresh PostgreSQL database that is closed and dropped with the test.
func Postgres(t testing.TB) *store.Store {
	t.Helper()
	d, err := postgres.Open(context.Background(), PostgresDSN(t))
	if err != nil {
		t.Fatal(err)
	}
	return open(t, d)
}

func open(t testing.TB, d store.Driver) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), d, Roles{}, "", slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Roles is the real policy with fixed roles: user amal is engineer, badr approver (group ml-risk), root admin, vera viewer,
// service replay may also set event time.
type Roles struct{}

// Authorize decides by the real policy engine.
func (Roles) Authorize(ctx context.Context, _ store.Querier, action policy.Action, res policy.Resource) (policy.Decision, error) {
	e, err := engine()
	if err != nil {
		return policy.Decision{}, err
	}
	return e.Decide(policy.Input{Actor: who.From(ctx), Action: action, Resource: res, Regions: []string{"ae"}, Roles: policy.Bindings{
		policy.Viewer: {"user:vera"}, policy.Engineer: {"user:amal", "service:replay"}, policy.Approver: {"group:ml-risk"}, policy.Admin: {"user:root"}, policy.Replayer: {"service:replay"},
	}}), nil
}

// As returns a context whose actor is one of amal, badr, root, vera or replay; "system:STAGE" is a stage of the server.
func As(name string) context.Context {
	a := who.Actor{Kind: who.User, Name: name, Via: "test"}
	switch {
	case name == "badr":
		a.Groups = []string{"ml-risk"}
	case name == "replay":
		a.Kind = who.Service
	case len(name) > 7 && name[:7] == "system:":
		a = who.Actor{Kind: who.System, Name: name[7:], Via: "system"}
	}
	return who.With(context.Background(), a)
}

package app

import (
	"strings"
	"testing"

	"falaj/internal/kernel/fault"
)

// A database on another machine is asked for its certificate, unless the address says otherwise; one here is not.
func TestPostgresIsVerified(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[string]string{
		"":                              "",
		"postgres://falaj@127.0.0.1/db": "postgres://falaj@127.0.0.1/db",
		"postgres://falaj@localhost:5432/db?pool_max_conns=4": "postgres://falaj@localhost:5432/db?pool_max_conns=4",
		"host=/run/postgresql dbname=db":                      "host=/run/postgresql dbname=db",
		"postgres://falaj@db.example.com/db":                  "postgres://falaj@db.example.com/db?sslmode=verify-full",
		"postgres://falaj@127.0.0.1,db.example.com/db":        "postgres://falaj@127.0.0.1,db.example.com/db?sslmode=verify-full",
		"postgres://falaj@db.example.com/db?sslmode=require":  "postgres://falaj@db.example.com/db?sslmode=require",
		"host=db.example.com user=falaj":                      "host=db.example.com user=falaj sslmode=verify-full",
		"host=db.example.com sslmode=disable":                 "host=db.example.com sslmode=disable",
	} {
		if got, err := verified(dsn); err != nil || got != want {
			t.Errorf("%q became %q, want %q (%v)", dsn, got, want, err)
		}
	}
	if _, err := verified("postgres://u:hush@host:port/db"); !fault.Is(err, fault.Invalid) || strings.Contains(err.Error(), "hush") {
		t.Errorf("%v", err)
	}
}

package store

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"testing"

	"falaj/internal/store/sqlite"
)

// A database of an older version is copied before it is migrated, the copy still has the old schema, and a migration that
// fails half-way leaves the old schema in place.
func TestOlderDatabase(t *testing.T) {
	t.Parallel()
	ctx, log, dir := context.Background(), slog.New(slog.NewTextHandler(io.Discard, nil)), t.TempDir()
	all, err := migrations()
	if err != nil {
		t.Fatal(err)
	}
	version := func(path string) (v int64) {
		d, err := sqlite.Open(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err := d.Reader().QueryRow(`SELECT MAX(version) FROM schema_migrations`).Scan(&v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	step := func(list []migration) error {
		d, err := sqlite.Open(ctx, filepath.Join(dir, "falaj.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		return migrate(ctx, d, list, dir, log)
	}
	copies := func() []string {
		c, _ := filepath.Glob(filepath.Join(dir, "before-migration-*"))
		return c
	}
	if err := step(all[:1]); err != nil || len(copies()) != 0 {
		t.Fatal(err, copies())
	}
	bad := append(all[:1:1], migration{version: 2, name: "bad", sum: "x", text: "CREATE TABLE half (a TEXT);\nCREATE NONSENSE;"})
	if err := step(bad); err == nil || version(filepath.Join(dir, "falaj.db")) != 1 {
		t.Fatalf("a broken migration gave %v", err)
	}
	good := append(all[:1:1], migration{version: 2, name: "good", sum: "y", text: "CREATE TABLE half (a TEXT);"})
	if err := step(good); err != nil {
		t.Fatal(err)
	}
	c := copies()
	if len(c) == 0 || version(c[len(c)-1]) != 1 || version(filepath.Join(dir, "falaj.db")) != 2 {
		t.Fatalf("copies %v", c)
	}
}

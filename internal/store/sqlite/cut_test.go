package sqlite

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Two databases are written in turn, always a first and then b. Copies of one instant never show b ahead of a, nor a more
// than one ahead of b, and each copy is a whole database.
func TestCopiesAreOfOneInstant(t *testing.T) {
	t.Parallel()
	ctx, dir := t.Context(), t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	var dbs []*DB
	for _, name := range []string{"a.db", "b.db"} {
		d, err := Open(ctx, at(name))
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if _, err := d.Writer().Exec(`CREATE TABLE n (i INTEGER, pad TEXT)`); err != nil {
			t.Fatal(err)
		}
		dbs = append(dbs, d)
	}
	stop, writing := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; stop.Err() == nil; i++ {
			for _, d := range dbs {
				if _, err := d.Writer().Exec(`INSERT INTO n VALUES ($1, $2)`, i, fmt.Sprintf("%0500d", i)); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	for round := range 8 {
		to := []string{at(fmt.Sprintf("copy-a-%d", round)), at(fmt.Sprintf("copy-b-%d", round))}
		called := false
		err := CopyAll(ctx, []Pair{{at("a.db"), to[0]}, {at("b.db"), to[1]}}, func() error { called = true; return nil })
		if err != nil || !called {
			t.Fatal(err, called)
		}
		var n [2]int64
		for i, path := range to {
			db, err := OpenCopy(ctx, path)
			if err != nil {
				t.Fatal(err)
			}
			if err := db.QueryRow(`SELECT COUNT(*) FROM n`).Scan(&n[i]); err != nil {
				t.Fatal(err)
			}
			db.Close()
		}
		if n[0] != n[1] && n[0] != n[1]+1 {
			t.Errorf("the copies are of two instants: a has %d rows, b has %d", n[0], n[1])
		}
	}
	writing()
	wg.Wait()
	b, err := os.ReadFile(at("copy-a-7"))
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 8192 {
		copy(b[4096:], make([]byte, 4096))
		if err := os.WriteFile(at("damaged"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if db, err := OpenCopy(ctx, at("damaged")); err == nil {
			db.Close()
			t.Error("a damaged copy was opened")
		}
	}
}

// A copy waits for a writer that holds its lock, and lets the other file's writers work between its tries.
func TestCopyWaitsForAWriter(t *testing.T) {
	t.Parallel()
	ctx, dir := t.Context(), t.TempDir()
	var dbs []*DB
	var pairs []Pair
	for _, name := range []string{"a.db", "b.db"} {
		path := filepath.Join(dir, name)
		d, err := Open(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if _, err := d.Writer().Exec(`CREATE TABLE n (i INTEGER)`); err != nil {
			t.Fatal(err)
		}
		dbs, pairs = append(dbs, d), append(pairs, Pair{path, path + ".copy"})
	}
	tx, err := dbs[1].Writer().BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- CopyAll(ctx, pairs, nil) }()
	for i := range 20 {
		if _, err := dbs[0].Writer().Exec(`INSERT INTO n VALUES ($1)`, i); err != nil {
			t.Error("a writer was kept out of the other file:", err)
		}
	}
	if _, err := tx.Exec(`INSERT INTO n VALUES (1)`); err != nil {
		t.Error(err)
	}
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

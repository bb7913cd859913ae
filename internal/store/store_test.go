package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/ledger"
	"falaj/internal/kernel/policy"
	"falaj/internal/store"
	"falaj/internal/store/sqlite"
	"falaj/internal/store/storetest"
)

func res(id string) policy.Resource { return policy.Resource{Kind: "Thing", ID: id, Project: "p"} }

func count(n *int64) func(context.Context, *store.Tx) (event.Draft, error) {
	return func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		v, err := tx.Next(ctx, "things")
		*n = v
		tx.After(v)
		return event.Draft{Type: "thing.made", Subject: fmt.Sprint(v), Data: map[string]int64{"n": v}}, err
	}
}

func verify(t *testing.T, s *store.Store) []ledger.Row {
	t.Helper()
	rows, err := s.Entries(context.Background(), 0, 100000)
	if err != nil {
		t.Fatal(err)
	}
	var v ledger.Verifier
	for _, r := range rows {
		if err := v.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	return rows
}

// One change is one row, one event and one state change, or none of them.
func TestChangeIsAllOrNothing(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		amal := storetest.As("amal")
		base := len(verify(t, s))
		var n int64
		if err := s.Change(amal, "model.create", res("a"), count(&n)); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		boom := errors.New("boom")
		err := s.Change(amal, "model.create", res("b"), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
			if _, err := tx.Next(ctx, "things"); err != nil {
				return event.Draft{}, err
			}
			return event.Draft{Type: "thing.made"}, boom
		})
		if !errors.Is(err, boom) {
			t.Fatal(err)
		}
		rows := verify(t, s)
		if len(rows) != base+1 {
			t.Fatalf("%d rows, want %d", len(rows), base+1)
		}
		last := rows[len(rows)-1]
		if last.Actor != "user:amal" || last.Action != "model.create" || last.Resource != "Thing::p/a" || last.After == "" || last.Event == "" {
			t.Fatalf("%+v", last)
		}
		ev, err := s.Events(context.Background(), 0, 10)
		if err != nil || len(ev) != 1 || !strings.HasPrefix(last.Event, ev[0].ID+":") || ev[0].Source != "/falaj/p/p" || string(ev[0].Data) != `{"n":1}` {
			t.Fatalf("%+v %v", ev, err)
		}
		if err := s.Change(amal, "model.create", res("c"), count(&n)); err != nil || n != 2 {
			t.Fatalf("the failed change left its counter: n=%d %v", n, err)
		}
	})
}

// The newest event of a type is found among many, with the time of its recording.
func TestLatestOfEachType(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		past := time.Date(2013, 4, 1, 0, 0, 0, 0, time.UTC)
		for i, kind := range []string{"thing.made", "thing.made", "thing.sold", "thing.made"} {
			if err := s.Change(storetest.As("amal"), "model.create", res("a"), func(context.Context, *store.Tx) (event.Draft, error) {
				return event.Draft{Type: kind, Subject: fmt.Sprint(i), At: past}, nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		got, err := s.Latest(context.Background(), "p", []string{"thing.made", "thing.sold", "thing.lost"})
		if err != nil || len(got) != 2 || got["thing.made"].Subject != "3" || got["thing.sold"].Subject != "2" || time.Since(got["thing.made"].Time) > time.Hour {
			t.Fatalf("%+v %v", got, err)
		}
		if got, err := s.Latest(context.Background(), "q", []string{"thing.made"}); err != nil || len(got) != 0 {
			t.Fatalf("another project: %+v %v", got, err)
		}
	})
}

// A refusal changes nothing, says why and which role would allow it, and is a row of its own.
func TestRefusalIsRecorded(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		ran := false
		err := s.Change(storetest.As("vera"), "model.create", res("a"), func(context.Context, *store.Tx) (event.Draft, error) {
			ran = true
			return event.Draft{}, nil
		})
		if ran || !fault.Is(err, fault.Denied) || !strings.Contains(fault.From(err).Next, "engineer or admin") {
			t.Fatalf("ran=%v err=%v next=%q", ran, err, fault.From(err).Next)
		}
		if err := s.Change(context.Background(), "model.create", res("a"), count(new(int64))); !fault.Is(err, fault.Unauthenticated) {
			t.Fatal(err)
		}
		rows := verify(t, s)
		if l := rows[len(rows)-1]; l.Decision != "deny" || l.Actor != "anonymous" {
			t.Fatalf("%+v", l)
		}
		if l := rows[len(rows)-2]; l.Decision != "deny" || l.Actor != "user:vera" || l.Event != "" {
			t.Fatalf("%+v", l)
		}
	})
}

// A change inside a change joins its transaction with its own check, row and event; when the inner is refused nothing
// of the outer stays and the refusal does.
func TestNested(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		amal := storetest.As("amal")
		var n int64
		outer := func(inner policy.Action) error {
			return s.Change(amal, "model.create", res("outer"), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
				tx.After("outer")
				if err := s.Change(ctx, inner, res("inner"), count(&n)); err != nil {
					return event.Draft{}, err
				}
				return event.Draft{Type: "outer.done"}, nil
			})
		}
		if err := outer("release.create"); err != nil {
			t.Fatal(err)
		}
		rows := verify(t, s)
		if a, b := rows[len(rows)-2], rows[len(rows)-1]; a.Action != "release.create" || b.Action != "model.create" || a.After == b.After || b.After != ledger.Digest("outer") {
			t.Fatalf("%+v\n%+v", a, b)
		}
		if err := outer("user.create"); !fault.Is(err, fault.Denied) {
			t.Fatal(err)
		}
		after := verify(t, s)
		if len(after) != len(rows)+1 || after[len(after)-1].Decision != "deny" || after[len(after)-1].Action != "user.create" {
			t.Fatalf("%d rows, then %+v", len(after), after[len(after)-1])
		}
		ev, err := s.Events(context.Background(), 0, 10)
		if err != nil || len(ev) != 2 {
			t.Fatalf("%d events %v", len(ev), err)
		}
	})
}

// A change inside a high-rate write joins it, is chained and announced; both or none stay.
func TestChangeInsideWrite(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		boom := errors.New("boom")
		for _, end := range []error{nil, boom} {
			wake := s.Wake()
			before := len(verify(t, s))
			err := s.Write(storetest.As("amal"), func(ctx context.Context, tx *store.Tx) error {
				if err := s.Change(ctx, "model.create", res("w"), count(new(int64))); err != nil {
					return err
				}
				return end
			})
			if !errors.Is(err, end) {
				t.Fatal(err)
			}
			woken := false
			select {
			case <-wake:
				woken = true
			default:
			}
			if after := len(verify(t, s)); (after == before+1) != (end == nil) || woken != (end == nil) {
				t.Fatalf("end %v: %d rows before, %d after, woken %v", end, before, after, woken)
			}
		}
	})
}

// Many writers at once: every one lands, in one unbroken chain, and nobody is told "database is locked".
func TestConcurrentChanges(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		base := len(verify(t, s))
		var wg sync.WaitGroup
		errs := make(chan error, 400)
		for range 16 {
			wg.Go(func() {
				for range 20 {
					errs <- s.Change(storetest.As("amal"), "model.create", res("x"), count(new(int64)))
					errs <- s.Write(storetest.As("amal"), func(ctx context.Context, tx *store.Tx) error {
						_, err := tx.Next(ctx, "writes")
						return err
					})
				}
			})
		}
		go func() { wg.Wait(); close(errs) }()
		for err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
		rows := verify(t, s)
		if len(rows)-base != 320 {
			t.Fatalf("%d rows", len(rows)-base)
		}
		ev, err := s.Events(context.Background(), 0, 1000)
		if err != nil || len(ev) != 320 {
			t.Fatal(len(ev), err)
		}
		for i, e := range ev {
			if e.Seq != int64(i+1) {
				t.Fatalf("event %d has seq %d", i, e.Seq)
			}
		}
	})
}

// A request that is cancelled while others share its commit hurts only itself.
func TestCancelledCallerHurtsNobody(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		ctx, cancel := context.WithCancel(storetest.As("amal"))
		err := s.Change(ctx, "model.create", res("a"), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
			cancel()
			_, err := tx.Next(ctx, "x")
			if err == nil {
				err = ctx.Err()
			}
			return event.Draft{}, err
		})
		if err == nil {
			t.Fatal("a cancelled change succeeded")
		}
		if err := s.Change(storetest.As("amal"), "model.create", res("b"), count(new(int64))); err != nil {
			t.Fatal(err)
		}
		verify(t, s)
	})
}

// Placeholders bind by number, also when repeated or out of order, on both databases (STYLE.md trap 1).
func TestPlaceholders(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		err := s.View(context.Background(), func(ctx context.Context, q store.Querier) error {
			var a, b, c string
			if err := q.QueryRow(ctx, `SELECT CAST($2 AS TEXT), CAST($1 AS TEXT), CAST($2 AS TEXT)`, "x", "y").Scan(&a, &b, &c); err != nil {
				return err
			}
			if a+b+c != "yxy" {
				t.Errorf("got %s", a+b+c)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// A newer schema is refused, and so is a changed migration.
func TestMigrationGuards(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func() error {
		d, err := sqlite.Open(context.Background(), filepath.Join(dir, "falaj.db"))
		if err != nil {
			return err
		}
		s, err := store.Open(context.Background(), d, storetest.Roles{}, dir, slog.New(slog.NewTextHandler(io.Discard, nil)))
		if err == nil {
			err = s.Close()
		}
		return err
	}
	exec := func(q string) {
		t.Helper()
		d, err := sqlite.Open(context.Background(), filepath.Join(dir, "falaj.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if _, err := d.Writer().Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	if err := open(); err != nil {
		t.Fatal(err)
	}
	exec(`INSERT INTO schema_migrations VALUES (9999, 'future', 'x', 0)`)
	if err := open(); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "newer falaj") {
		t.Fatal(err)
	}
	exec(`DELETE FROM schema_migrations WHERE version = 9999`)
	exec(`UPDATE schema_migrations SET sha256 = 'other' WHERE version = 1`)
	if err := open(); !fault.Is(err, fault.Conflict) {
		t.Fatal(err)
	}
	if copies, _ := filepath.Glob(filepath.Join(dir, "before-migration-*")); len(copies) != 0 {
		t.Fatal("no migration ran, yet there is a copy")
	}
}

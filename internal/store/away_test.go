package store_test

import (
	"context"
	"io"
	"log/slog"
	"syscall"
	"testing"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/store"
	"falaj/internal/store/postgres"
	"falaj/internal/store/storetest"
)

// A change that finds nothing to do is no change: no row, no event, and no error.
func TestNoRowWithoutAChange(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		base := len(verify(t, s))
		same := func(context.Context, *store.Tx) (event.Draft, error) {
			return event.Draft{Type: "thing.made"}, store.ErrUnchanged
		}
		if err := s.Change(storetest.As("amal"), "model.create", res("a"), same); err != nil {
			t.Fatal(err)
		}
		var n int64
		err := s.Change(storetest.As("amal"), "model.create", res("a"), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
			if err := s.Change(ctx, "model.create", res("b"), same); err != nil {
				return event.Draft{}, err
			}
			return count(&n)(ctx, tx)
		})
		if err != nil || n != 1 {
			t.Fatal(n, err)
		}
		if got := len(verify(t, s)) - base; got != 1 {
			t.Errorf("%d rows for one change", got)
		}
	})
}

// A PostgreSQL that goes away is named as what is missing by everything that asks it, and is used again when it is back.
func TestADatabaseThatGoesAway(t *testing.T) {
	t.Parallel()
	pg := storetest.NewCluster(t)
	d, err := postgres.Open(t.Context(), pg.DSN())
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), d, storetest.Roles{}, "", slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	amal := storetest.As("amal")
	var n int64
	base := len(verify(t, s))
	change := func() error { return s.Change(amal, "model.create", res("a"), count(&n)) }
	view := func() error { _, err := s.Entries(amal, 0, 10); return err }
	for i, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		if err := change(); err != nil || n != int64(2*i+1) {
			t.Fatal(n, err)
		}
		err := s.Change(amal, "model.create", res("b"), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
			pg.Stop(sig)
			return count(&n)(ctx, tx)
		})
		for what, err := range map[string]error{"in the middle": err, "change": change(), "view": view()} {
			if !store.Away(err) || !fault.Is(err, fault.Unavailable) {
				t.Errorf("%v, %s: %v", sig, what, err)
			}
		}
		pg.Start()
		if err := view(); err != nil {
			t.Error(err)
		}
		if err := change(); err != nil || n != int64(2*i+2) {
			t.Fatal(n, err)
		}
	}
	if got := len(verify(t, s)) - base; got != 4 {
		t.Errorf("%d rows for 4 changes", got)
	}
}

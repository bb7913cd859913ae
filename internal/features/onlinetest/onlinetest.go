// Package onlinetest is the contract of features.OnlineStore, run by every driver's tests on the real engine.
// It compares each driver with the rule itself, spelled out over a plain slice.
package onlinetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/features"
)

func key(n int) (k [features.KeySize]byte) {
	binary.BigEndian.PutUint64(k[:], uint64(n))
	return k
}

// model answers by looking at everything; Until is the very next change.
func model(all []features.Version, k [features.KeySize]byte, at int64) features.Found {
	f := visible(all, k, at)
	f.Until = features.Forever
	for _, v := range all {
		eff := max(v.Event, v.Known)
		if later := visible(all, k, eff); v.Key == k && eff > at && (later.Event != f.Event || later.Known != f.Known || !f.OK) {
			f.Until = min(f.Until, eff)
		}
	}
	return f
}

func visible(all []features.Version, k [features.KeySize]byte, at int64) (f features.Found) {
	for _, v := range all {
		if v.Key == k && max(v.Event, v.Known) <= at && (!f.OK || v.Event > f.Event || v.Event == f.Event && v.Known > f.Known) {
			f = features.Found{OK: true, Event: v.Event, Known: v.Known, Sealed: v.Sealed}
		}
	}
	return f
}

// put applies Put to the slice: equals are replaced.
func put(all []features.Version, more []features.Version) []features.Version {
	for _, v := range more {
		kept := all[:0:0]
		for _, o := range all {
			if o.Key != v.Key || o.Event != v.Event || o.Known != v.Known {
				kept = append(kept, o)
			}
		}
		all = append(kept, v)
	}
	return all
}

// Run checks a driver. open opens a fresh store; reopen closes one and opens it again on the same data.
func Run(t *testing.T, open func(t *testing.T) features.OnlineStore, reopen func(t *testing.T, s features.OnlineStore) features.OnlineStore) {
	t.Run("random versions answer as the rule says, before and after trim and reopen", func(t *testing.T) {
		t.Parallel()
		random(t, open(t), reopen)
	})
	t.Run("tables are apart and drop forgets one", func(t *testing.T) { t.Parallel(); apart(t, open(t)) })
	t.Run("readers and writers at once", func(t *testing.T) { t.Parallel(); together(t, open(t)) })
	t.Run("a cancelled put leaves nothing", func(t *testing.T) { t.Parallel(); cancelled(t, open(t)) })
}

func same(t *testing.T, s features.OnlineStore, all []features.Version, from int64) {
	t.Helper()
	keys := [][features.KeySize]byte{key(0), key(1), key(2), key(3)} // the last is never put
	for at := from; at <= 45; at++ {
		asks := make([]features.Ask, len(keys))
		for i, k := range keys {
			asks[i] = features.Ask{Key: k, At: at}
		}
		got, err := s.At(t.Context(), "p/v@1", asks)
		if err != nil {
			t.Fatal(err)
		}
		for i, k := range keys {
			want := model(all, k, at)
			if until := got[i].Until; until <= at || until > want.Until || want.Until != features.Forever && until == features.Forever {
				t.Fatalf("key %d at %d holds until %d, the answer changes at %d", i, at, until, want.Until)
			}
			want.Until = got[i].Until
			if d := cmp.Diff(want, got[i]); d != "" {
				t.Fatalf("key %d at %d: %s", i, at, d)
			}
		}
	}
}

func random(t *testing.T, s features.OnlineStore, reopen func(*testing.T, features.OnlineStore) features.OnlineStore) {
	rng := rand.New(rand.NewPCG(5, 6))
	var all []features.Version
	for round := range 6 {
		var more []features.Version
		for n := range 25 {
			more = append(more, features.Version{Key: key(rng.IntN(3)), Event: rng.Int64N(40), Known: rng.Int64N(40), Sealed: fmt.Appendf(nil, "%d.%d", round, n)})
		}
		if err := s.Put(t.Context(), "p/v@1", more); err != nil {
			t.Fatal(err)
		}
		all = put(all, more)
		same(t, s, all, -1)
	}
	n, err := s.Trim(t.Context(), "p/v@1", 20)
	if err != nil || n == 0 {
		t.Fatal(n, err)
	}
	same(t, s, all, 20)
	if again, err := s.Trim(t.Context(), "p/v@1", 20); err != nil || again != 0 {
		t.Fatal("a second trim found", again, err)
	}
	s = reopen(t, s)
	same(t, s, all, 20)
}

func apart(t *testing.T, s features.OnlineStore) {
	ctx, ask := t.Context(), []features.Ask{{Key: key(1), At: 5}}
	for _, table := range []string{"p/v@1", "p/v@2", "q/v@1"} {
		if err := s.Put(ctx, table, []features.Version{{Key: key(1), Event: 1, Known: 1, Sealed: []byte(table)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Drop(ctx, "p/v@1"); err != nil {
		t.Fatal(err)
	}
	for table, want := range map[string]bool{"p/v@1": false, "p/v@2": true, "q/v@1": true, "never": false} {
		got, err := s.At(ctx, table, ask)
		if err != nil || got[0].OK != want || want && !bytes.Equal(got[0].Sealed, []byte(table)) {
			t.Fatal(table, got, err)
		}
	}
	if err := s.Put(ctx, "p/v@1", []features.Version{{Key: key(1), Event: 2, Known: 2, Sealed: []byte("new")}}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.At(ctx, "p/v@1", ask); err != nil || string(got[0].Sealed) != "new" {
		t.Fatal(got, err)
	}
}

func together(t *testing.T, s features.OnlineStore) {
	ctx := t.Context()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 30 {
				if err := s.Put(ctx, "p/v@1", []features.Version{{Key: key(w), Event: int64(i), Known: int64(i), Sealed: []byte{byte(i)}}}); err != nil {
					t.Error(err)
					return
				}
				got, err := s.At(ctx, "p/v@1", []features.Ask{{Key: key(w), At: 1000}})
				if err != nil || !got[0].OK || got[0].Event != int64(i) {
					t.Errorf("own write %d not seen: %+v %v", i, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func cancelled(t *testing.T, s features.OnlineStore) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Put(ctx, "p/v@1", []features.Version{{Key: key(1), Event: 1, Known: 1, Sealed: []byte("x")}}); err == nil {
		t.Fatal("a cancelled put was acknowledged")
	}
	if got, err := s.At(t.Context(), "p/v@1", []features.Ask{{Key: key(1), At: 5}}); err != nil || got[0].OK {
		t.Fatal(got, err)
	}
}

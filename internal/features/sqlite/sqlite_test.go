package sqlite_test

import (
	"context"
	"database/sql"
	"encoding/binary"
	"path/filepath"
	"testing"

	"falaj/internal/features"
	"falaj/internal/features/onlinetest"
	"falaj/internal/features/sqlite"
	"falaj/internal/kernel/fault"
)

func open(t testing.TB, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestContract(t *testing.T) {
	t.Parallel()
	paths := map[features.OnlineStore]string{}
	dirs := make(chan struct{}, 1) // guards paths: the parts of the contract run in parallel
	dirs <- struct{}{}
	onlinetest.Run(t,
		func(t *testing.T) features.OnlineStore {
			path := filepath.Join(t.TempDir(), "online.db")
			s := open(t, path)
			<-dirs
			paths[s] = path
			dirs <- struct{}{}
			return s
		},
		func(t *testing.T, s features.OnlineStore) features.OnlineStore {
			<-dirs
			path := paths[s]
			dirs <- struct{}{}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, path)
		})
}

func TestNewerFormatIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "online.db")
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`PRAGMA user_version = 2`); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(t.Context(), path); !fault.Is(err, fault.Unsupported) {
		t.Fatal(err)
	}
}

// A materialization comes sorted by key and time.
func BenchmarkPutSorted10000(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "online.db"))
	n := int64(0)
	for b.Loop() {
		n++
		vs := make([]features.Version, 10000)
		for i := range vs {
			binary.BigEndian.PutUint64(vs[i].Key[:], uint64(i/100))
			vs[i].Event = n*100 + int64(i%100)
			vs[i].Known, vs[i].Sealed = vs[i].Event, make([]byte, 120)
		}
		if err := s.Put(context.Background(), "p/v@1", vs); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPut1000(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "online.db"))
	n := int64(0)
	for b.Loop() {
		vs := make([]features.Version, 1000)
		for i := range vs {
			n++
			binary.BigEndian.PutUint64(vs[i].Key[:], uint64(n%300))
			vs[i].Event, vs[i].Known, vs[i].Sealed = n, n, make([]byte, 120)
		}
		if err := s.Put(context.Background(), "p/v@1", vs); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAt(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "online.db"))
	vs := make([]features.Version, 100000)
	for i := range vs {
		binary.BigEndian.PutUint64(vs[i].Key[:], uint64(i%300))
		vs[i].Event, vs[i].Known, vs[i].Sealed = int64(i), int64(i), make([]byte, 120)
	}
	if err := s.Put(context.Background(), "p/v@1", vs); err != nil {
		b.Fatal(err)
	}
	i := 0
	for b.Loop() {
		i++
		if _, err := s.At(context.Background(), "p/v@1", []features.Ask{{Key: vs[i%300].Key, At: int64(i * 7 % 100000)}}); err != nil {
			b.Fatal(err)
		}
	}
}

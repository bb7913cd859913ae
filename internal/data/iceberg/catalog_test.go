package iceberg_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	_ "github.com/jackc/pgx/v5/stdlib"

	"falaj/internal/blob"
	"falaj/internal/blob/dir"
	"falaj/internal/data"
	"falaj/internal/data/duckdb"
	"falaj/internal/data/duckdb/worker"
	"falaj/internal/data/iceberg"
	"falaj/internal/kernel/seal"
	"falaj/internal/store"
	"falaj/internal/store/storetest"
)

func TestMain(m *testing.M) {
	if slices.Equal(os.Args[1:], []string{"worker", "duckdb"}) {
		os.Exit(worker.Main())
	}
	os.Exit(m.Run())
}

type world struct {
	cat     *iceberg.Catalog
	w       *data.Warehouse
	blobs   *blob.Store
	engine  *duckdb.Engine
	folder  string // of the sealed files
	catalog string
}

// each runs fn on SQLite with catalog.db, and on PostgreSQL with the catalog in it.
func each(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Parallel()
	build := func(t *testing.T, db *store.Store) *world {
		w := &world{folder: filepath.Join(t.TempDir(), "blobs"), catalog: filepath.Join(t.TempDir(), "catalog.db")}
		keys, err := seal.Open(filepath.Join(t.TempDir(), "keys"))
		if err != nil {
			t.Fatal(err)
		}
		d, err := dir.Open(w.folder)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		w.blobs = blob.New(db, keys, d)
		w.w = data.NewWarehouse(db, w.blobs)
		if w.engine, err = duckdb.New(duckdb.Config{Scratch: filepath.Join(t.TempDir(), "scratch")}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.engine.Close() })
		return w
	}
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		w := build(t, storetest.SQLite(t))
		var err error
		if w.cat, err = iceberg.OpenSQLite(t.Context(), w.catalog, w.w); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.cat.Close() })
		fn(t, w)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		w := build(t, storetest.Postgres(t))
		db, err := sql.Open("pgx", storetest.PostgresDSN(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		if w.cat, err = iceberg.Open(t.Context(), db, iceberg.Postgres, w.w); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.cat.Close() })
		fn(t, w)
	})
}

const everyType = `SELECT i::BIGINT AS n, i::INTEGER AS i, i / 2 AS d, i::FLOAT AS f, i %% 2 = 0 AS b, CASE WHEN i %% 3 > 0 THEN 'secretcolumn' || i END AS secretcolumn,
	'x'::BLOB AS bin, DATE '2013-01-01' AS day, TIME '10:00:00' AS clock, to_timestamp(i) AS "at", i::DECIMAL(12,2) AS money FROM range(%d, %d) g(i)`

// put makes a Parquet file and keeps it as a blob.
func (w *world) put(t *testing.T, from, to int) (data.File, []data.Column) {
	t.Helper()
	r, err := w.engine.Room(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	res, err := w.engine.Transform(t.Context(), data.TransformJob{Dir: r.Dir, SQL: fmt.Sprintf(everyType, from, to), Out: r.Path("x.parquet")})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(r.Path("x.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ref, err := w.blobs.Put(t.Context(), "flights", f)
	if err != nil {
		t.Fatal(err)
	}
	return data.File{Digest: ref.Digest, Size: ref.Size, Rows: res.Rows}, res.Columns
}

func (w *world) commit(t *testing.T, parent int64, content string, cols []data.Column, files ...data.File) data.Snapshot {
	t.Helper()
	s, err := w.cat.Commit(t.Context(), data.Commit{Project: "flights", Table: "f", Columns: cols, Parent: parent, Files: files, Content: content})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (w *world) plan(t *testing.T, snapshot int64) []string {
	t.Helper()
	got, err := w.cat.Plan(t.Context(), "flights", "f", snapshot)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func digests(files ...data.File) (out []string) {
	for _, f := range files {
		out = append(out, f.Digest)
	}
	slices.Sort(out)
	return out
}

func TestSnapshots(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a, cols := w.put(t, 0, 100)
		b, _ := w.put(t, 100, 200)
		c, _ := w.put(t, 200, 300)
		first := w.commit(t, 0, "1", cols, a)
		second := w.commit(t, first.ID, "2", cols, a, b)
		whole := w.commit(t, second.ID, "3", cols, c) // the content of a derived dataset, replaced
		for snapshot, want := range map[int64][]string{first.ID: digests(a), second.ID: digests(a, b), whole.ID: digests(c)} {
			if d := cmp.Diff(want, w.plan(t, snapshot)); d != "" {
				t.Errorf("plan (-want +got) %s", d)
			}
		}
		if first.Table == "" || first.Table != whole.Table || !strings.HasPrefix(whole.Location, "falaj://") {
			t.Errorf("snapshots %+v %+v", first, whole)
		}
		// Nothing of it lies in clear on the disk, neither rows nor names nor metadata.
		files := 0
		err := filepath.WalkDir(w.folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			files++
			raw, err := os.ReadFile(path)
			for _, word := range []string{"PAR1", "secretcolumn", "snapshot", "Obj\x01"} {
				if bytes.Contains(raw, []byte(word)) {
					t.Errorf("a stored file holds %q in clear", word)
				}
			}
			return err
		})
		if err != nil || files < 9 {
			t.Errorf("%d files, %v", files, err)
		}
	})
}

// What an interrupted call left is found again, or dropped when something else is committed.
func TestCommitAfterACrash(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a, cols := w.put(t, 0, 10)
		b, _ := w.put(t, 10, 20)
		c, _ := w.put(t, 20, 30)
		lost := w.commit(t, 0, "a", cols, a) // no version was ever recorded for it
		if again := w.commit(t, 0, "a", cols, a); again.ID != lost.ID {
			t.Error("the same commit again made another snapshot")
		}
		first := w.commit(t, 0, "b", cols, b)
		if d := cmp.Diff(digests(b), w.plan(t, first.ID)); d != "" {
			t.Errorf("a lost snapshot without parent stays (-want +got) %s", d)
		}
		lost = w.commit(t, first.ID, "ba", cols, b, a)
		second := w.commit(t, first.ID, "bc", cols, b, c)
		if d := cmp.Diff(digests(b, c), w.plan(t, second.ID)); d != "" || second.ID == lost.ID {
			t.Errorf("a lost snapshot with parent stays (-want +got) %s", d)
		}
		third := w.commit(t, second.ID, "bca", cols, b, c, a)
		if d := cmp.Diff(digests(a, b, c), w.plan(t, third.ID)); d != "" {
			t.Errorf("(-want +got) %s", d)
		}
		if d := cmp.Diff(digests(b), w.plan(t, first.ID)); d != "" {
			t.Errorf("an older version changed (-want +got) %s", d)
		}
		if _, err := w.cat.Plan(t.Context(), "flights", "f", 12345); err == nil {
			t.Error("a snapshot that is not there was planned")
		}
	})
}

// Old metadata goes, and what Live lists is all that is needed.
func TestLive(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		var files []data.File
		var cols []data.Column
		var parent int64
		var ids []int64
		for i := range 14 {
			f, c := w.put(t, i, i+1)
			files, cols = append(files, f), c
			parent = w.commit(t, parent, fmt.Sprint(i), cols, files...).ID
			ids = append(ids, parent)
		}
		live, err := w.cat.Live(t.Context(), "flights", "f")
		if err != nil {
			t.Fatal(err)
		}
		meta := 0
		for _, p := range live {
			if strings.HasSuffix(p, ".metadata.json") {
				meta++
			}
			o, err := w.w.Open(t.Context(), "flights", p)
			if err != nil {
				t.Errorf("%s is named and not there: %v", p, err)
				continue
			}
			o.Close()
		}
		if meta > 11 {
			t.Errorf("%d metadata files are kept", meta)
		}
		for i, id := range ids {
			if got := w.plan(t, id); len(got) != i+1 {
				t.Errorf("snapshot %d plans %d files", i+1, len(got))
			}
		}
		if live, err := w.cat.Live(t.Context(), "flights", "none"); err != nil || live != nil {
			t.Errorf("%v, %v", live, err)
		}
	})
}

// The catalog is found again by another process with the same warehouse.
func TestReopen(t *testing.T) {
	t.Parallel()
	each := func(t *testing.T, w *world) {
		a, cols := w.put(t, 0, 10)
		s := w.commit(t, 0, "a", cols, a)
		if err := w.cat.Close(); err != nil {
			t.Fatal(err)
		}
		again, err := iceberg.OpenSQLite(context.Background(), w.catalog, w.w)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		got, err := again.Plan(t.Context(), "flights", "f", s.ID)
		if err != nil || cmp.Diff(digests(a), got) != "" {
			t.Errorf("%v, %v", got, err)
		}
	}
	db := storetest.SQLite(t)
	w := &world{catalog: filepath.Join(t.TempDir(), "catalog.db")}
	keys, err := seal.Open(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := dir.Open(filepath.Join(t.TempDir(), "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	w.blobs = blob.New(db, keys, d)
	w.w = data.NewWarehouse(db, w.blobs)
	if w.engine, err = duckdb.New(duckdb.Config{Scratch: filepath.Join(t.TempDir(), "scratch")}); err != nil {
		t.Fatal(err)
	}
	defer w.engine.Close()
	if w.cat, err = iceberg.OpenSQLite(t.Context(), w.catalog, w.w); err != nil {
		t.Fatal(err)
	}
	each(t, w)
}

package data

import (
	"context"
	"io"
	"io/fs"
	"strings"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/store"
)

// Tables keeps the snapshots of datasets. The one implementation is iceberg.Catalog. A snapshot that Commit made is
// nothing to anybody until a version names it.
type Tables interface {
	// Commit makes a snapshot of exactly these files on top of the parent. It is idempotent: the same parent and
	// content give the snapshot that an interrupted call left. What other interrupted calls left is dropped.
	Commit(ctx context.Context, c Commit) (Snapshot, error)
	// Plan lists the digests of the data files of a snapshot, sorted. A snapshot with delete files is refused.
	Plan(ctx context.Context, project, table string, snapshot int64) ([]string, error)
	// Live lists the paths of all files of the table format that a table still names; none when there is no table.
	Live(ctx context.Context, project, table string) ([]string, error)
}

// Commit asks for a snapshot. Parent 0 is an empty table. Content is the digest of the version to be.
type Commit struct {
	Project string
	Table   string
	Columns []Column
	Parent  int64
	Files   []File
	Content string
}

// Snapshot is a committed state of a table.
type Snapshot struct {
	ID       int64
	Table    string // the table's UUID
	Location string // of the metadata file, logical
}

// File is one Parquet file of a version, a blob of its project.
type File struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	Rows   int64  `json:"rows"`
}

// Object is an opened file of the warehouse in clear.
type Object interface {
	io.ReadSeekCloser
	io.ReaderAt
	Size() int64
}

// Warehouse gives the table format its files: sealed blobs of the project under logical paths. Data files carry their
// digest in the name and need no record; the others (metadata, manifests) have a row each.
// It is safe for concurrent use.
type Warehouse struct {
	db    *store.Store
	blobs Blobs
}

// NewWarehouse wires a warehouse.
func NewWarehouse(db *store.Store, blobs Blobs) *Warehouse { return &Warehouse{db: db, blobs: blobs} }

// DataPath is the path of a data file, below its project.
func DataPath(table, digest string) string {
	return table + "/data/" + strings.ReplaceAll(digest, ":", "-") + ".parquet"
}

// DataDigest reads the digest out of a path that ends like DataPath; "" for other files.
func DataDigest(path string) string {
	dir, name, _ := cutLast(path)
	hex, ok := strings.CutPrefix(strings.TrimSuffix(name, ".parquet"), "sha256-")
	if !ok || !strings.HasSuffix(dir, "/data") || len(hex) != 64 {
		return ""
	}
	return "sha256:" + hex
}

func cutLast(path string) (dir, name string, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

// Put keeps a file of the table format. Data files are put as blobs before and cannot be written here.
func (w *Warehouse) Put(ctx context.Context, project, path string, r io.Reader) error {
	if !fs.ValidPath(path) || DataDigest(path) != "" {
		return fault.New(fault.Internal, "A table wrote a file at a place that is not its own.", "Report this error.")
	}
	ref, err := w.blobs.Put(ctx, project, r)
	if err != nil {
		return err
	}
	return w.db.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		return putWarehouseFile(ctx, tx, project, path, ref.Digest, time.Now())
	})
}

// Open opens a file; fault.NotFound when there is none.
func (w *Warehouse) Open(ctx context.Context, project, path string) (Object, error) {
	digest := DataDigest(path)
	if digest == "" {
		err := w.db.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
			digest, err = warehouseFile(ctx, q, project, path)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return w.blobs.Open(ctx, project, digest)
}

// Remove forgets a file of the table format; a data file stays, for versions name it.
func (w *Warehouse) Remove(ctx context.Context, project, path string) error {
	if DataDigest(path) != "" {
		return nil
	}
	var digest string
	err := w.db.Write(ctx, func(ctx context.Context, tx *store.Tx) (err error) {
		digest, err = removeWarehouseFile(ctx, tx, project, path)
		return err
	})
	if err != nil || digest == "" {
		return err
	}
	return w.blobs.Discard(ctx, project, digest)
}

// ID names this warehouse in the locations of its tables; it is made on first use and never changes.
func (w *Warehouse) ID(ctx context.Context) (id string, err error) {
	err = w.db.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		id, err = warehouseID(ctx, tx)
		return err
	})
	return id, err
}

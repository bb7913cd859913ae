// Package iceberg keeps the snapshots of datasets as Apache Iceberg tables: iceberg-go with its SQL catalog, over files
// that are sealed blobs under logical falaj:// locations. It adds and replaces whole files only; iceberg-go's Delete and
// Overwrite are never called, for v0.7.0 loses rows with NULL in them.
package iceberg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	icebergsql "github.com/apache/iceberg-go/catalog/sql"
	"github.com/apache/iceberg-go/table"
	_ "modernc.org/sqlite" // the driver of catalog.db

	"falaj/internal/data"
	"falaj/internal/kernel/fault"
	"falaj/internal/store"
)

// The dialects of the catalog's database.
const (
	SQLite   = "sqlite"
	Postgres = "postgres"
)

// contentKey is the snapshot property that makes Commit idempotent.
const contentKey = "falaj.content"

// Catalog is data.Tables on iceberg-go. It is safe for concurrent use; commits to one table wait for each other.
type Catalog struct {
	cat  *icebergsql.Catalog
	db   *sql.DB
	owns bool
	host string

	mu    sync.Mutex // guards locks
	locks map[string]*sync.Mutex
}

// OpenSQLite opens or makes the catalog in a file, such as DATA/catalog.db.
func OpenSQLite(ctx context.Context, path string, w *data.Warehouse) (*Catalog, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate")
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "The table catalog cannot be opened.", "See `falaj doctor`.")
	}
	c, err := Open(ctx, db, SQLite, w)
	if err != nil {
		db.Close()
		return nil, err
	}
	c.owns = true
	return c, nil
}

// Open opens or makes the catalog in a database that the caller keeps; dialect is SQLite or Postgres.
func Open(ctx context.Context, db *sql.DB, dialect string, w *data.Warehouse) (*Catalog, error) {
	host, err := w.ID(ctx)
	if err != nil {
		return nil, err
	}
	d := icebergsql.SQLite
	if dialect == Postgres {
		d = icebergsql.Postgres
	}
	mount(host, w)
	cat, err := icebergsql.NewCatalog("falaj", db, d, iceberg.Properties{"warehouse": scheme + "://" + host})
	if err != nil {
		unmount(host)
		return nil, fault.Wrap(err, fault.Unavailable, "The table catalog cannot be opened.", "See `falaj doctor`; catalog.db may be damaged: restore it together with falaj.db.")
	}
	return &Catalog{cat: cat, db: db, host: host, locks: map[string]*sync.Mutex{}}, nil
}

// Close releases the catalog. Its database is closed when OpenSQLite opened it.
func (c *Catalog) Close() error {
	unmount(c.host)
	err := c.cat.Close()
	if c.owns {
		err = errors.Join(err, c.db.Close())
	}
	return err
}

func (c *Catalog) lock(project, table string) func() {
	c.mu.Lock()
	l := c.locks[project+"/"+table]
	if l == nil {
		l = &sync.Mutex{}
		c.locks[project+"/"+table] = l
	}
	c.mu.Unlock()
	l.Lock()
	return l.Unlock
}

func (c *Catalog) location(project, table, path string) string {
	return scheme + "://" + c.host + "/" + project + "/" + path
}

func (c *Catalog) dataLocation(project, table, digest string) string {
	return c.location(project, table, data.DataPath(table, digest))
}

func broken(err error) error {
	var known *fault.E
	if err == nil || errors.As(err, &known) {
		return err
	}
	if err = store.Lost(err); store.Away(err) {
		return err
	}
	return fault.Wrap(err, fault.Internal, "The table of the dataset could not be read or written.", "Run it again; if it happens again, run `falaj audit verify` and report it with the server's log.")
}

// Commit implements data.Tables.
func (c *Catalog) Commit(ctx context.Context, m data.Commit) (data.Snapshot, error) {
	defer c.lock(m.Project, m.Table)()
	t, err := c.open(ctx, m)
	if err != nil {
		return data.Snapshot{}, broken(err)
	}
	for _, s := range t.Metadata().Snapshots() {
		if s.Summary != nil && s.Summary.Properties[contentKey] == m.Content && parentOf(s) == m.Parent {
			return c.checked(ctx, t, s.SnapshotID, m)
		}
	}
	if t, err = c.rewind(ctx, t, m); err != nil {
		return data.Snapshot{}, broken(err)
	}
	before, err := c.plan(ctx, t, m.Parent)
	if err != nil {
		return data.Snapshot{}, broken(err)
	}
	want := digests(m.Files)
	var add, remove []string
	for _, d := range want {
		if !slices.Contains(before, d) {
			add = append(add, c.dataLocation(m.Project, m.Table, d))
		}
	}
	for _, d := range before {
		if !slices.Contains(want, d) {
			remove = append(remove, c.dataLocation(m.Project, m.Table, d))
		}
	}
	props := iceberg.Properties{contentKey: m.Content}
	tx := t.NewTransaction()
	if len(remove) == 0 {
		err = tx.AddFiles(ctx, add, props, true)
	} else {
		err = tx.ReplaceDataFiles(ctx, remove, add, props)
	}
	if err != nil {
		return data.Snapshot{}, broken(err)
	}
	if t, err = tx.Commit(ctx); err != nil {
		return data.Snapshot{}, broken(err)
	}
	return c.checked(ctx, t, t.CurrentSnapshot().SnapshotID, m)
}

// checked reads the snapshot back: what it plans must be exactly the files that were asked for.
func (c *Catalog) checked(ctx context.Context, t *table.Table, id int64, m data.Commit) (data.Snapshot, error) {
	got, err := c.plan(ctx, t, id)
	if err != nil {
		return data.Snapshot{}, broken(err)
	}
	if !slices.Equal(got, digests(m.Files)) {
		return data.Snapshot{}, fault.New(fault.Internal, "The table did not take the files of the version as given; the version is not made.", "Run it again; if it happens again, report it.")
	}
	return data.Snapshot{ID: id, Table: t.Metadata().TableUUID().String(), Location: t.MetadataLocation()}, nil
}

func parentOf(s table.Snapshot) int64 {
	if s.ParentSnapshotID == nil {
		return 0
	}
	return *s.ParentSnapshotID
}

// open loads the table or makes it.
func (c *Catalog) open(ctx context.Context, m data.Commit) (*table.Table, error) {
	ident := table.Identifier{m.Project, m.Table}
	t, err := c.cat.LoadTable(ctx, ident)
	if !errors.Is(err, catalog.ErrNoSuchTable) && !errors.Is(err, catalog.ErrNoSuchNamespace) {
		return t, err
	}
	if m.Parent != 0 {
		return nil, fault.New(fault.Internal, "The table of the dataset is gone from the catalog, while versions of it are recorded.", "Restore catalog.db from the backup that belongs to falaj.db.")
	}
	if err := c.cat.CreateNamespace(ctx, table.Identifier{m.Project}, nil); err != nil && !errors.Is(err, catalog.ErrNamespaceAlreadyExists) {
		return nil, err
	}
	return c.create(ctx, m)
}

func (c *Catalog) create(ctx context.Context, m data.Commit) (*table.Table, error) {
	fields := make([]iceberg.NestedField, len(m.Columns))
	for i, col := range m.Columns {
		t, err := typeOf(col)
		if err != nil {
			return nil, err
		}
		fields[i] = iceberg.NestedField{ID: i + 1, Name: col.Name, Type: t}
	}
	return c.cat.CreateTable(ctx, table.Identifier{m.Project, m.Table}, iceberg.NewSchema(0, fields...),
		catalog.WithLocation(c.location(m.Project, m.Table, m.Table)),
		catalog.WithProperties(iceberg.Properties{
			"write.metadata.delete-after-commit.enabled": "true", // each commit leaves a metadata file; ten tell enough
			"write.metadata.previous-versions-max":       "10",
		}))
}

// rewind brings the table back to the parent, when an interrupted commit left a snapshot on top of it that no version names.
func (c *Catalog) rewind(ctx context.Context, t *table.Table, m data.Commit) (*table.Table, error) {
	head := t.CurrentSnapshot()
	switch {
	case head == nil && m.Parent == 0, head != nil && head.SnapshotID == m.Parent:
		return t, nil
	case m.Parent == 0:
		if err := c.cat.DropTable(ctx, table.Identifier{m.Project, m.Table}); err != nil {
			return nil, err
		}
		return c.create(ctx, m)
	}
	tx := t.NewTransaction()
	if err := tx.RollbackToSnapshot(m.Parent); err != nil {
		return nil, err
	}
	return tx.Commit(ctx)
}

// Plan implements data.Tables.
func (c *Catalog) Plan(ctx context.Context, project, name string, snapshot int64) ([]string, error) {
	t, err := c.cat.LoadTable(ctx, table.Identifier{project, name})
	if err != nil {
		return nil, broken(err)
	}
	got, err := c.plan(ctx, t, snapshot)
	return got, broken(err)
}

func (c *Catalog) plan(ctx context.Context, t *table.Table, snapshot int64) ([]string, error) {
	if snapshot == 0 {
		return nil, nil
	}
	if t.SnapshotByID(snapshot) == nil {
		return nil, fault.New(fault.Internal, fmt.Sprintf("Snapshot %d is gone from the table of the dataset.", snapshot), "Restore catalog.db from the backup that belongs to falaj.db.")
	}
	tasks, err := t.Scan(table.WithSnapshotID(snapshot)).PlanFiles(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, task := range tasks {
		if len(task.DeleteFiles) > 0 || len(task.EqualityDeleteFiles) > 0 || len(task.DeletionVectorFiles) > 0 {
			return nil, fault.New(fault.Internal, "The table carries delete files, which falaj never writes and a plain read would ignore; it is not read.", "Somebody else wrote to the table: restore it from a backup.")
		}
		digest := data.DataDigest(task.File.FilePath())
		if digest == "" {
			return nil, fault.New(fault.Internal, "The table names a data file that is not falaj's; it is not read.", "Somebody else wrote to the table: restore it from a backup.")
		}
		out = append(out, digest)
	}
	slices.Sort(out)
	return slices.Compact(out), nil // a large file may be planned in several pieces
}

// Live implements data.Tables.
func (c *Catalog) Live(ctx context.Context, project, name string) ([]string, error) {
	defer c.lock(project, name)()
	t, err := c.cat.LoadTable(ctx, table.Identifier{project, name})
	if errors.Is(err, catalog.ErrNoSuchTable) || errors.Is(err, catalog.ErrNoSuchNamespace) {
		return nil, nil
	}
	if err != nil {
		return nil, broken(err)
	}
	locations := []string{t.MetadataLocation()}
	for m := range t.Metadata().PreviousFiles() {
		locations = append(locations, m.MetadataFile)
	}
	fsys, err := t.FS(ctx)
	if err != nil {
		return nil, broken(err)
	}
	for _, s := range t.Metadata().Snapshots() {
		locations = append(locations, s.ManifestList)
		manifests, err := s.Manifests(fsys)
		if err != nil {
			return nil, broken(err)
		}
		for _, m := range manifests {
			locations = append(locations, m.FilePath())
		}
	}
	prefix := c.location(project, name, "")
	for i, l := range locations {
		locations[i] = strings.TrimPrefix(l, prefix)
	}
	return locations, nil
}

func digests(files []data.File) []string {
	out := make([]string, len(files))
	for i, f := range files {
		out[i] = f.Digest
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// decimalType takes DECIMAL(precision,scale) apart.
var decimalType = regexp.MustCompile(`^DECIMAL\((\d+),(\d+)\)$`)

// typeOf maps the column types of a dataset.
func typeOf(c data.Column) (iceberg.Type, error) {
	switch c.Type {
	case "BIGINT":
		return iceberg.PrimitiveTypes.Int64, nil
	case "INTEGER":
		return iceberg.PrimitiveTypes.Int32, nil
	case "DOUBLE":
		return iceberg.PrimitiveTypes.Float64, nil
	case "FLOAT":
		return iceberg.PrimitiveTypes.Float32, nil
	case "BOOLEAN":
		return iceberg.PrimitiveTypes.Bool, nil
	case "VARCHAR":
		return iceberg.PrimitiveTypes.String, nil
	case "BLOB":
		return iceberg.PrimitiveTypes.Binary, nil
	case "DATE":
		return iceberg.PrimitiveTypes.Date, nil
	case "TIME":
		return iceberg.PrimitiveTypes.Time, nil
	case "TIMESTAMP WITH TIME ZONE":
		return iceberg.PrimitiveTypes.TimestampTz, nil
	}
	if m := decimalType.FindStringSubmatch(strings.ReplaceAll(c.Type, " ", "")); m != nil {
		p, _ := strconv.Atoi(m[1])
		s, _ := strconv.Atoi(m[2])
		return iceberg.DecimalTypeOf(p, s), nil
	}
	return nil, fault.Newf(fault.Invalid, "Column %s is %s, which a dataset does not hold.", c.Name, c.Type)
}

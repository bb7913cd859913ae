// Package sqlite opens falaj's database as one SQLite file: WAL, synchronous=FULL, one writing connection.
// It is the default of an installation on one machine; nothing has to be installed for it.
package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"

	_ "modernc.org/sqlite" // registers the driver with database/sql

	"falaj/internal/kernel/fault"
)

// DB is an open SQLite database.
type DB struct {
	write *sql.DB
	read  *sql.DB
}

// Open opens or creates the file.
func Open(ctx context.Context, path string) (*DB, error) {
	dsn := func(extra string) string {
		return "file:" + (&url.URL{Path: path}).EscapedPath() + "?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(10000)&_pragma=foreign_keys(ON)" + extra
	}
	w, err := sql.Open("sqlite", dsn("&_txlock=immediate"))
	if err != nil {
		return nil, err
	}
	w.SetMaxOpenConns(1)
	if err := w.PingContext(ctx); err != nil {
		w.Close()
		return nil, fault.Wrap(err, fault.Unavailable, fmt.Sprintf("The database %s could not be opened.", path), "Check that the folder exists and can be written, and that the file is a falaj database.")
	}
	if err := os.Chmod(path, 0o600); err != nil {
		w.Close()
		return nil, err
	}
	r, err := sql.Open("sqlite", dsn("&_pragma=query_only(ON)"))
	if err != nil {
		w.Close()
		return nil, err
	}
	r.SetMaxOpenConns(8)
	r.SetMaxIdleConns(8)
	return &DB{w, r}, nil
}

// Name is "sqlite".
func (d *DB) Name() string { return "sqlite" }

// Writer is the single writing connection.
func (d *DB) Writer() *sql.DB { return d.write }

// Reader is a pool of reading connections.
func (d *DB) Reader() *sql.DB { return d.read }

// Serial is true: SQLite has one writer.
func (d *DB) Serial() bool { return true }

// LockChain does nothing: the one writer is the lock.
func (d *DB) LockChain(context.Context, *sql.Tx) error { return nil }

// Snapshot copies the database with VACUUM INTO, which is consistent while readers work.
func (d *DB) Snapshot(ctx context.Context, path string) (string, error) {
	if _, err := d.write.ExecContext(ctx, `VACUUM INTO ?`, path); err != nil {
		return "", err
	}
	return path, os.Chmod(path, 0o600)
}

// Close closes both pools.
func (d *DB) Close() error {
	err := d.read.Close()
	if e := d.write.Close(); e != nil {
		err = e
	}
	return err
}

// Package postgres opens falaj's database on PostgreSQL 15 or newer through pgx, for installations that outgrow one machine.
// The database must sort text by bytes (C or C.UTF-8), else page tokens would skip rows.
package postgres

import (
	"context"
	"database/sql"
	"fmt"

	_ "github.com/jackc/pgx/v5/stdlib" // registers the driver with database/sql

	"falaj/internal/kernel/fault"
)

// DB is an open PostgreSQL database.
type DB struct{ pool *sql.DB }

// chainLock is the advisory lock that orders changes; any constant that nobody else in the database uses.
const chainLock = 0x66616c616a // "falaj"

// Open connects, and checks version and collation.
func Open(ctx context.Context, dsn string) (*DB, error) {
	pool, err := sql.Open("pgx", dsn)
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "The PostgreSQL address could not be read.", "Give it as postgres://user@host/database or as key=value pairs.")
	}
	pool.SetMaxOpenConns(16)
	pool.SetMaxIdleConns(8)
	var version int
	var sorted bool
	err = pool.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int, (SELECT array_agg(x ORDER BY x) FROM unnest(ARRAY['B','a','A','a1','a-1']) x) = ARRAY['A','B','a','a-1','a1']`).Scan(&version, &sorted)
	if err != nil {
		pool.Close()
		return nil, fault.Wrap(err, fault.Unavailable, "PostgreSQL does not answer.", "Check the address, the password and that the server runs.")
	}
	if version < 150000 {
		pool.Close()
		return nil, fault.New(fault.Unavailable, fmt.Sprintf("PostgreSQL %d is too old.", version/10000), "falaj needs PostgreSQL 15 or newer.")
	}
	if !sorted {
		pool.Close()
		return nil, fault.New(fault.Unavailable, "The PostgreSQL database sorts text by a language, not by bytes; page tokens would skip rows.", "Create it with: CREATE DATABASE falaj TEMPLATE template0 LOCALE 'C.UTF-8' ENCODING 'UTF8'.")
	}
	return &DB{pool}, nil
}

// Name is "postgres".
func (d *DB) Name() string { return "postgres" }

// Writer is the pool.
func (d *DB) Writer() *sql.DB { return d.pool }

// Reader is the same pool.
func (d *DB) Reader() *sql.DB { return d.pool }

// Serial is false: each change has its own connection.
func (d *DB) Serial() bool { return false }

// LockChain makes changes wait for one another until commit, so that ledger order is commit order.
func (d *DB) LockChain(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(chainLock))
	return err
}

// Snapshot does nothing: backups of PostgreSQL are the operator's (pg_dump); migrations run in one transaction.
func (d *DB) Snapshot(context.Context, string) (string, error) { return "", nil }

// Close closes the pool.
func (d *DB) Close() error { return d.pool.Close() }

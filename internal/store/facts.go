package store

import (
	"context"
	"database/sql"
)

// Facts is what a copy of the database says of itself.
type Facts struct {
	Schema int64  // newest migration applied
	Seq    int64  // newest ledger row
	Hash   string // of that row
}

// FactsOf reads a copy that no server has open.
func FactsOf(ctx context.Context, db *sql.DB) (f Facts, err error) {
	var schema sql.NullInt64
	if err := db.QueryRowContext(ctx, `SELECT MAX(version) FROM schema_migrations`).Scan(&schema); err != nil {
		return f, err
	}
	f.Schema = schema.Int64
	return f, db.QueryRowContext(ctx, `SELECT seq, hash FROM ledger_head WHERE id = 1`).Scan(&f.Seq, &f.Hash)
}

// KnownSchema is the newest migration that this binary knows.
func KnownSchema() (int64, error) {
	all, err := migrations()
	if err != nil {
		return 0, err
	}
	return all[len(all)-1].version, nil
}

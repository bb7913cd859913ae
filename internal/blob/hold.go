package blob

import (
	"context"
	"database/sql"
	"fmt"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
)

// Hold keeps every stored file that a row names from now on, also when its row goes meanwhile: a backup copies the rows
// first and the files after. Call release once; what would have been removed until then goes with a later Sweep.
func (s *Store) Hold() (release func()) {
	s.holds.Add(1)
	return func() { s.holds.Add(-1) }
}

// held is asked after a row is gone and before its file goes. A row that went before Hold is in no copy made after it.
func (s *Store) held() bool { return s.holds.Load() > 0 }

// forget removes the file of a row that is gone, unless somebody holds the files.
func (s *Store) forget(ctx context.Context, stored string) {
	if !s.held() {
		s.drop(ctx, stored)
	}
}

// OpenStored opens a stored file as it is, sealed.
func (s *Store) OpenStored(ctx context.Context, stored string) (File, error) {
	return s.driver.Open(ctx, stored)
}

// Named walks the rows of a copy of the database in order of the stored file's name, with the size that the sealed file
// must have.
func Named(ctx context.Context, db *sql.DB, fn func(stored string, size int64) error) error {
	rows, err := db.QueryContext(ctx, `SELECT stored, size FROM blobs ORDER BY stored`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var stored string
		var plain int64
		if err := rows.Scan(&stored, &plain); err != nil {
			return err
		}
		size, err := seal.SealedSize(plain)
		if err != nil {
			return fault.Wrap(err, fault.Internal, fmt.Sprintf("The row of stored file %s has a size that no file has.", stored), "Run `falaj audit verify`.")
		}
		if err := fn(stored, size); err != nil {
			return err
		}
	}
	return rows.Err()
}

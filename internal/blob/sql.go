package blob

import (
	"context"
	"fmt"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/store"
)

// row is one line of table blobs.
type row struct {
	project, digest, stored string
	size                    int64
	wrapped                 []byte
	created                 time.Time
}

const columns = `project, digest, stored, size, wrapped_key, created`

func scan(from interface{ Scan(...any) error }) (row, error) {
	var r row
	var created int64
	err := from.Scan(&r.project, &r.digest, &r.stored, &r.size, &r.wrapped, &created)
	r.created = store.Time(created)
	return r, err
}

// outside hides an enclosing transaction, so that a read sees only what is committed.
type outside struct{ context.Context }

func (outside) Value(any) any { return nil }

// projectKey returns the wrapped data key of a project and makes it when there is none; of two makers one wins.
// settled says that the key is committed.
func (s *Store) projectKey(ctx context.Context, project string) (wrapped []byte, settled bool, err error) {
	const find = `SELECT wrapped FROM project_keys WHERE project = $1`
	err = s.db.View(outside{ctx}, func(ctx context.Context, q store.Querier) error {
		return q.QueryRow(ctx, find, project).Scan(&wrapped)
	})
	if !store.NotFound(err) {
		return wrapped, true, err
	}
	fresh, err := s.keys.NewDataKey(projectAAD(project))
	if err != nil {
		return nil, false, err
	}
	err = s.db.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO project_keys (project, wrapped, created) VALUES ($1, $2, $3) ON CONFLICT (project) DO NOTHING`,
			project, fresh, store.Micros(time.Now()))
		if err != nil {
			return err
		}
		return tx.QueryRow(ctx, find, project).Scan(&wrapped)
	})
	return wrapped, false, err
}

// row finds one blob; fault.NotFound when there is none.
func (s *Store) row(ctx context.Context, project, digest string) (r row, err error) {
	err = s.db.View(ctx, func(ctx context.Context, q store.Querier) error {
		r, err = scan(q.QueryRow(ctx, `SELECT `+columns+` FROM blobs WHERE project = $1 AND digest = $2`, project, digest))
		return err
	})
	if store.NotFound(err) {
		return row{}, fault.New(fault.NotFound, fmt.Sprintf("Project %s holds no content %.80s.", project, digest), "Check the digest, or put the content again.")
	}
	return r, err
}

// insert adds the row, or returns the one that is already there.
func (s *Store) insert(ctx context.Context, r row) (old row, added bool, err error) {
	err = s.db.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		n, err := tx.Exec(ctx, `INSERT INTO blobs (`+columns+`) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (project, digest) DO NOTHING`,
			r.project, r.digest, r.stored, r.size, r.wrapped, store.Micros(r.created))
		if added = n == 1; err != nil || added {
			return err
		}
		old, err = scan(tx.QueryRow(ctx, `SELECT `+columns+` FROM blobs WHERE project = $1 AND digest = $2`, r.project, r.digest))
		return err
	})
	return old, added, err
}

// replace points the row at another file, if it still points at stored.
func (s *Store) replace(ctx context.Context, stored string, r row) (replaced bool, err error) {
	err = s.db.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE blobs SET stored = $1, size = $2, wrapped_key = $3 WHERE project = $4 AND digest = $5 AND stored = $6`,
			r.stored, r.size, r.wrapped, r.project, r.digest, stored)
		replaced = n == 1
		return err
	})
	return replaced, err
}

// remove deletes the row and returns the name of its file, "" when there was none.
func (s *Store) remove(ctx context.Context, project, digest string) (stored string, err error) {
	err = s.db.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		stored = ""
		err := tx.QueryRow(ctx, `SELECT stored FROM blobs WHERE project = $1 AND digest = $2`, project, digest).Scan(&stored)
		if store.NotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `DELETE FROM blobs WHERE project = $1 AND digest = $2`, project, digest)
		return err
	})
	return stored, err
}

// page lists up to limit rows after the given one, ordered by project and digest.
func (s *Store) page(ctx context.Context, after row, limit int) (rows []row, err error) {
	err = s.db.View(ctx, func(ctx context.Context, q store.Querier) error {
		rows = rows[:0]
		res, err := q.Query(ctx, `SELECT `+columns+` FROM blobs WHERE project > $1 OR project = $1 AND digest > $2
			ORDER BY project, digest LIMIT $3`, after.project, after.digest, limit)
		if err != nil {
			return err
		}
		defer res.Close()
		for res.Next() {
			r, err := scan(res)
			if err != nil {
				return err
			}
			rows = append(rows, r)
		}
		return res.Err()
	})
	return rows, err
}

// named says whether a row names the stored file.
func (s *Store) named(ctx context.Context, stored string) (yes bool, err error) {
	err = s.db.View(ctx, func(ctx context.Context, q store.Querier) error {
		var n int64
		err := q.QueryRow(ctx, `SELECT COUNT(*) FROM blobs WHERE stored = $1`, stored).Scan(&n)
		yes = n > 0
		return err
	})
	return yes, err
}

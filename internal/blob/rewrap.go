package blob

import (
	"context"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/seal"
	"falaj/internal/store"
)

// Rewrap wraps every project's data key again with the present key of keys, in one change; what the data keys sealed is
// not touched. It says how many there were. A data key that does not open stops it, and then none is changed.
func Rewrap(ctx context.Context, db *store.Store, keys *seal.Keys) (n int, err error) {
	res := policy.Resource{Kind: "Installation", ID: "*"}
	err = db.Change(ctx, "keys.rotate", res, func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		type row struct {
			project string
			wrapped []byte
		}
		rows, err := store.List(ctx, tx, func(s store.Scanner) (r row, err error) {
			err = s.Scan(&r.project, &r.wrapped)
			return r, err
		}, `SELECT project, wrapped FROM project_keys ORDER BY project`)
		if err != nil {
			return event.Draft{}, err
		}
		for _, r := range rows {
			fresh, err := keys.Rewrap(r.wrapped, projectAAD(r.project))
			if err != nil {
				return event.Draft{}, unopened(err, r.project)
			}
			if _, err := tx.Exec(ctx, `UPDATE project_keys SET wrapped = $1 WHERE project = $2`, fresh, r.project); err != nil {
				return event.Draft{}, err
			}
		}
		n = len(rows)
		return event.Draft{Type: "keys.rotated", Subject: keys.ID(), Data: map[string]any{"projects": n}}, nil
	})
	return n, err
}

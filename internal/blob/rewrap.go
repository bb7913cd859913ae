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
		rows, err := dataKeys(ctx, tx)
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

// CheckKeys says whether keys opens every project's data key.
func CheckKeys(ctx context.Context, db *store.Store, keys *seal.Keys) error {
	return db.View(ctx, func(ctx context.Context, q store.Querier) error {
		rows, err := dataKeys(ctx, q)
		for _, r := range rows {
			if _, err := keys.Box(r.wrapped, projectAAD(r.project)); err != nil {
				return unopened(err, r.project)
			}
		}
		return err
	})
}

type dataKey struct {
	project string
	wrapped []byte
}

func dataKeys(ctx context.Context, q store.Querier) ([]dataKey, error) {
	return store.List(ctx, q, func(s store.Scanner) (k dataKey, err error) {
		err = s.Scan(&k.project, &k.wrapped)
		return k, err
	}, `SELECT project, wrapped FROM project_keys ORDER BY project`)
}

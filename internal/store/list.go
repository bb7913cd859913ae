package store

import "context"

// Scanner is a row of a query: *sql.Row and *sql.Rows.
type Scanner interface{ Scan(dest ...any) error }

// List runs a query and scans every row. No rows is an empty result, not an error.
func List[T any](ctx context.Context, q Querier, scan func(Scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

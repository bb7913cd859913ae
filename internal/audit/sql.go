package audit

import (
	"context"
	"encoding/json"

	"falaj/internal/store"
)

// head compares the chain's end with what the next change would continue, which finds rows cut off at the end.
func (s *Service) head(ctx context.Context, r *Report) error {
	return s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		var seq int64
		var hash string
		if err := q.QueryRow(ctx, `SELECT seq, hash FROM ledger_head WHERE id = 1`).Scan(&seq, &hash); err != nil {
			return err
		}
		// Changes made since the walk only lengthen the chain.
		if seq < r.HeadSeq || (seq == r.HeadSeq && hash != r.HeadHash) {
			r.Broken = append(r.Broken, Broken{"ledger", seq, "head", "does not match the last row"})
		}
		if seq > r.HeadSeq {
			var n int64
			if err := q.QueryRow(ctx, `SELECT COUNT(*) FROM ledger WHERE seq > $1`, r.HeadSeq).Scan(&n); err != nil {
				return err
			}
			if n != seq-r.HeadSeq {
				r.Broken = append(r.Broken, Broken{"ledger", r.HeadSeq + 1, "end", "rows at the end are missing"})
			}
		}
		return nil
	})
}

type pair struct {
	seq  int64
	id   string
	data json.RawMessage
	row  int64
	want string
}

// pairs reads events with the ledger rows that name them.
func (s *Service) pairs(ctx context.Context, after int64) (out []pair, err error) {
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		rows, err := q.Query(ctx, `SELECT o.seq, o.id, o.data, COALESCE(l.seq, 0), COALESCE(l.event, '') FROM outbox o LEFT JOIN ledger l ON l.event_id = o.id WHERE o.seq > $1 ORDER BY o.seq LIMIT $2`, after, page)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var p pair
			var data string
			if err := rows.Scan(&p.seq, &p.id, &data, &p.row, &p.want); err != nil {
				return err
			}
			p.data = json.RawMessage(data)
			out = append(out, p)
		}
		return rows.Err()
	})
	return out, err
}

package flow

import (
	"context"
	"time"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

func (r *Relay) head(ctx context.Context) (seq int64, err error) {
	err = r.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		return q.QueryRow(ctx, `SELECT outbox FROM ledger_head WHERE id = 1`).Scan(&seq)
	})
	return seq, err
}

// place is where a subscriber goes on; a new one is put down at the end, or the beginning, of the outbox first, so that
// a restart does not lose what comes in between.
func (r *Relay) place(ctx context.Context, s *subscriber) (seq int64, err error) {
	first := int64(0)
	if !s.first {
		if first, err = r.head(ctx); err != nil {
			return 0, err
		}
	}
	err = r.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := newCursor(ctx, tx, s.name, first); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT seq FROM outbox_cursors WHERE name = $1`, s.name).Scan(&seq)
	})
	return seq, err
}

func newCursor(ctx context.Context, tx *store.Tx, name string, seq int64) error {
	_, err := tx.Exec(ctx, `INSERT INTO outbox_cursors (name, seq, updated) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING`, name, seq, store.Micros(time.Now()))
	return err
}

// keep writes a subscriber's place down; it never goes back.
func (r *Relay) keep(ctx context.Context, name string, seq int64) error {
	return r.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error { return advance(ctx, tx, name, seq) })
}

func advance(ctx context.Context, tx *store.Tx, name string, seq int64) error {
	_, err := tx.Exec(ctx, `UPDATE outbox_cursors SET seq = $2, updated = $3 WHERE name = $1 AND seq < $2`, name, seq, store.Micros(time.Now()))
	return err
}

// park puts an event aside and goes past it, in one transaction.
func (r *Relay) park(ctx context.Context, name string, e event.Event, tries int, reason string) error {
	return r.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO outbox_parked (name, seq, event, type, reason, tries, at) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (name, seq) DO UPDATE SET reason = $5, tries = outbox_parked.tries + $6, at = $7`,
			name, e.Seq, e.ID, e.Type, reason, tries, store.Micros(time.Now())); err != nil {
			return err
		}
		return advance(ctx, tx, name, e.Seq)
	})
}

// Parked is an event that a subscriber or webhook did not take. Reason is in public words.
type Parked struct {
	Subscriber string
	Seq        int64
	Event      string
	Type       string
	Reason     string
	Tries      int64
	At         time.Time
}

// Parked lists what was put aside, the newest first; an empty subscriber means all. limit 0 means 100.
func (r *Relay) Parked(ctx context.Context, subscriber string, limit int) ([]Parked, error) {
	if limit <= 0 {
		limit = 100
	}
	var out []Parked
	err := r.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		rows, err := q.Query(ctx, `SELECT name, seq, event, type, reason, tries, at FROM outbox_parked WHERE $1 = '' OR name = $1 ORDER BY at DESC, seq DESC LIMIT $2`, subscriber, limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var p Parked
			var at int64
			if err := rows.Scan(&p.Subscriber, &p.Seq, &p.Event, &p.Type, &p.Reason, &p.Tries, &at); err != nil {
				return err
			}
			p.At = store.Time(at)
			out = append(out, p)
		}
		return rows.Err()
	})
	return out, err
}

// Retry gives a parked event to its subscriber once more, now and out of order, and forgets it when it is taken.
func (r *Relay) Retry(ctx context.Context, subscriber string, seq int64) error {
	r.mu.Lock()
	s := r.subs[subscriber]
	r.mu.Unlock()
	var known int
	err := r.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		return q.QueryRow(ctx, `SELECT COUNT(*) FROM outbox_parked WHERE name = $1 AND seq = $2`, subscriber, seq).Scan(&known)
	})
	if err != nil {
		return err
	}
	if s == nil || known == 0 {
		return fault.Newf(fault.NotFound, "Nothing is parked for '%s' under %d.", subscriber, seq)
	}
	events, err := r.store.Events(ctx, seq-1, 1)
	if err != nil {
		return err
	}
	if len(events) == 0 || events[0].Seq != seq {
		return fault.Newf(fault.NotFound, "The event %d is no longer in the outbox.", seq)
	}
	if err := call(who.AsSystem(ctx, "flow"), s, events[0], r.log); err != nil {
		if e := r.park(ctx, s.name, events[0], 1, reason(err)); e != nil {
			return e
		}
		return fault.Wrap(err, fault.Unavailable, "The event was not taken: "+reason(err), "Correct the cause, then retry.")
	}
	return r.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM outbox_parked WHERE name = $1 AND seq = $2`, subscriber, seq)
		return err
	})
}

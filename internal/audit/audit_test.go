package audit_test

import (
	"context"
	"fmt"
	"testing"

	"falaj/internal/audit"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/policy"
	"falaj/internal/store"
	"falaj/internal/store/storetest"
)

// Every kind of tampering by somebody who can write to the database is found and named.
func TestTampering(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sql  string
		kind string
		seq  int64
	}{
		"edit a row":          {`UPDATE ledger SET actor = 'user:mallory' WHERE seq = (SELECT MAX(seq) - 3 FROM ledger)`, "ledger", -3},
		"flip a hash":         {`UPDATE ledger SET hash = CASE WHEN hash LIKE 'f%' THEN '0' ELSE 'f' END || SUBSTR(hash, 2) WHERE seq = (SELECT MAX(seq) - 3 FROM ledger)`, "ledger", -3},
		"delete a row":        {`DELETE FROM ledger WHERE seq = (SELECT MAX(seq) - 3 FROM ledger)`, "ledger", -3},
		"cut the end":         {`DELETE FROM ledger WHERE seq > (SELECT MAX(seq) - 2 FROM ledger)`, "ledger", -1},
		"edit an event":       {`UPDATE outbox SET data = '{"n":99}' WHERE seq = 2`, "event", 0},
		"invent an event":     {`INSERT INTO outbox (seq, id, type, source, subject, project, time, data) SELECT MAX(seq) + 1, 'evt_x', 't', 's', '', '', 0, '{}' FROM outbox`, "event", 0},
		"delete an event":     {`DELETE FROM outbox WHERE seq = 2`, "event", 0},
		"nothing is nothing":  {`SELECT 1`, "", 0},
		"change a decision":   {`UPDATE ledger SET decision = 'deny' WHERE seq = (SELECT MAX(seq) FROM ledger)`, "ledger", 0},
		"change the reasons":  {`UPDATE ledger SET reasons = '[]' WHERE seq = (SELECT MAX(seq) FROM ledger)`, "ledger", 0},
		"move a row in time":  {`UPDATE ledger SET time = time + 1 WHERE seq = (SELECT MAX(seq) FROM ledger)`, "ledger", 0},
		"blank the after row": {`UPDATE ledger SET after_digest = '' WHERE seq = (SELECT MAX(seq) FROM ledger)`, "ledger", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Each(t, func(t *testing.T, s *store.Store) {
				ctx := storetest.As("amal")
				for i := range 6 {
					err := s.Change(ctx, "model.create", policy.Resource{Kind: "Model", ID: fmt.Sprint(i), Project: "p"}, func(_ context.Context, tx *store.Tx) (event.Draft, error) {
						tx.After(i)
						return event.Draft{Type: "model.created", Data: map[string]int{"n": i}}, nil
					})
					if err != nil {
						t.Fatal(err)
					}
				}
				a := audit.New(s, nil)
				clean, err := a.Verify(ctx, true)
				if err != nil || !clean.OK || clean.Events != 6 {
					t.Fatalf("%+v %v", clean, err)
				}
				err = s.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
					_, err := tx.Exec(ctx, c.sql)
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				r, err := a.Verify(ctx, true)
				if err != nil {
					t.Fatal(err)
				}
				if c.kind == "" {
					if !r.OK {
						t.Fatalf("%+v", r)
					}
					return
				}
				if r.OK || r.Broken[0].Kind != c.kind {
					t.Fatalf("not found: %+v", r)
				}
				if c.kind == "ledger" && r.Broken[0].Seq != clean.HeadSeq+c.seq {
					t.Fatalf("row %d named, want %d: %s", r.Broken[0].Seq, clean.HeadSeq+c.seq, r.Summary())
				}
			})
		})
	}
}

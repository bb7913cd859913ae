package flow

import (
	"context"
	"encoding/json"

	"falaj/internal/store"
)

const webhookColumns = `id, project, url, types, secret, created, actor, region`

func scanWebhook(row interface{ Scan(...any) error }) (h Webhook, sealed []byte, err error) {
	var types string
	var created int64
	if err = row.Scan(&h.ID, &h.Project, &h.URL, &types, &sealed, &created, &h.Actor, &h.Region); err != nil {
		return h, nil, err
	}
	h.Created = store.Time(created)
	return h, sealed, json.Unmarshal([]byte(types), &h.Types)
}

func webhook(ctx context.Context, q store.Querier, project, id string) (Webhook, []byte, error) {
	h, sealed, err := scanWebhook(q.QueryRow(ctx, `SELECT `+webhookColumns+` FROM webhooks WHERE id = $1 AND project = $2`, id, project))
	return h, sealed, store.One(err, "webhook '"+id+"'")
}

func (w *Webhooks) all(ctx context.Context) ([]Webhook, error) {
	var out []Webhook
	err := w.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		rows, err := q.Query(ctx, `SELECT `+webhookColumns+` FROM webhooks ORDER BY id`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			h, _, err := scanWebhook(rows)
			if err != nil {
				return err
			}
			out = append(out, h)
		}
		return rows.Err()
	})
	return out, err
}

// secret opens the sealed secret for one request; it is never kept in memory between two.
func (w *Webhooks) secret(ctx context.Context, h Webhook) ([]byte, error) {
	var sealed []byte
	err := w.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		var err error
		_, sealed, err = webhook(ctx, q, h.Project, h.ID)
		return err
	})
	if err != nil {
		return nil, err
	}
	return w.box.Open(sealed, aad(h.ID))
}

// insertWebhook stores a webhook and its place at the end of the outbox.
func insertWebhook(ctx context.Context, tx *store.Tx, h Webhook, sealed []byte) error {
	types, err := json.Marshal(h.Types)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `INSERT INTO webhooks (`+webhookColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		h.ID, h.Project, h.URL, string(types), sealed, store.Micros(h.Created), h.Actor, h.Region); err != nil {
		return err
	}
	var head int64
	if err := tx.QueryRow(ctx, `SELECT outbox FROM ledger_head WHERE id = 1`).Scan(&head); err != nil {
		return err
	}
	return newCursor(ctx, tx, webhookPrefix+h.ID, head)
}

func deleteWebhook(ctx context.Context, tx *store.Tx, id string) error {
	for _, text := range []string{
		`DELETE FROM webhooks WHERE id = $2 AND $1 <> ''`,
		`DELETE FROM outbox_cursors WHERE name = $1 AND $2 <> ''`,
		`DELETE FROM outbox_parked WHERE name = $1 AND $2 <> ''`,
	} {
		if _, err := tx.Exec(ctx, text, webhookPrefix+id, id); err != nil {
			return err
		}
	}
	return nil
}

package access

import (
	"context"
	"time"

	"falaj/internal/store"
)

// noPassword stands where a password's hash would: no password has it, and it is not empty, which means a disabled user.
const noPassword = "!"

// account is what the database knows of an identity.
type account struct {
	name     string
	disabled bool
	claimed  time.Time // when the provider said the groups
	groups   []string
}

func selectAccount(ctx context.Context, q store.Querier, id Identity) (a account, err error) {
	var claimed int64
	err = q.QueryRow(ctx, `SELECT i.username, u.disabled, i.claimed FROM identities i JOIN users u ON u.name = i.username WHERE i.issuer = $1 AND i.subject = $2`, id.Issuer, id.Subject).
		Scan(&a.name, &a.disabled, &claimed)
	if err != nil {
		return a, err
	}
	a.claimed = store.Time(claimed)
	a.groups, err = selectGroups(ctx, q, a.name)
	return a, err
}

func insertIdentity(ctx context.Context, tx *store.Tx, id Identity, name string, now time.Time) error {
	_, err := tx.Exec(ctx, `INSERT INTO identities (issuer, subject, username, claimed, created) VALUES ($1, $2, $3, $4, $5)`, id.Issuer, id.Subject, name, store.Micros(id.Issued), store.Micros(now))
	return err
}

// claim moves the time of the provider's newest word forward, never back.
func claim(ctx context.Context, tx *store.Tx, id Identity) error {
	_, err := tx.Exec(ctx, `UPDATE identities SET claimed = $1 WHERE issuer = $2 AND subject = $3 AND claimed < $1`, store.Micros(id.Issued), id.Issuer, id.Subject)
	return err
}

// nameInUse says whether a user has the name, or rights wait for one: both were given to somebody else than who comes now.
func nameInUse(ctx context.Context, q store.Querier, name string) (taken, awaited bool, err error) {
	var users, rights int64
	err = q.QueryRow(ctx, `SELECT (SELECT COUNT(*) FROM users WHERE name = $1),
		(SELECT COUNT(*) FROM bindings WHERE principal = $2) + (SELECT COUNT(*) FROM group_members WHERE member = $1) + (SELECT COUNT(*) FROM tokens WHERE principal = $2)`, name, "user:"+name).Scan(&users, &rights)
	return users > 0, rights > 0, err
}

// federated says whether a user signs in at a provider.
func federated(ctx context.Context, q store.Querier, name string) (bool, error) {
	var n int64
	err := q.QueryRow(ctx, `SELECT COUNT(*) FROM identities WHERE username = $1`, name).Scan(&n)
	return n > 0, err
}

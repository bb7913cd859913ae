package access

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

func insertProject(ctx context.Context, tx *store.Tx, p Project) error {
	regions, err := json.Marshal(p.Regions)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO projects (name, description, regions, created) VALUES ($1, $2, $3, $4)`, p.Name, p.Description, string(regions), store.Micros(p.Created))
	if store.Unique(err) {
		return fault.New(fault.Exists, "Project '"+p.Name+"' exists.", "")
	}
	return err
}

const projectColumns = `name, description, regions, created`

func scanProject(r store.Scanner) (p Project, err error) {
	var regions string
	var created int64
	if err = r.Scan(&p.Name, &p.Description, &regions, &created); err == nil {
		p.Created = store.Time(created)
		err = json.Unmarshal([]byte(regions), &p.Regions)
	}
	return p, err
}

func selectProject(ctx context.Context, q store.Querier, name string) (Project, error) {
	p, err := scanProject(q.QueryRow(ctx, `SELECT `+projectColumns+` FROM projects WHERE name = $1`, name))
	return p, store.One(err, "project '"+name+"'")
}

func selectProjects(ctx context.Context, q store.Querier) ([]Project, error) {
	return store.List(ctx, q, scanProject, `SELECT `+projectColumns+` FROM projects ORDER BY name`)
}

func insertUser(ctx context.Context, tx *store.Tx, u User, password string) error {
	_, err := tx.Exec(ctx, `INSERT INTO users (name, full_name, password, disabled, created) VALUES ($1, $2, $3, FALSE, $4)`, u.Name, u.FullName, password, store.Micros(u.Created))
	if store.Unique(err) {
		return fault.New(fault.Exists, "User '"+u.Name+"' exists.", "")
	}
	if err != nil {
		return err
	}
	return replaceGroups(ctx, tx, u.Name, u.Groups)
}

func replaceGroups(ctx context.Context, tx *store.Tx, member string, groups []string) error {
	if _, err := tx.Exec(ctx, `DELETE FROM group_members WHERE member = $1`, member); err != nil {
		return err
	}
	for _, g := range groups {
		if _, err := tx.Exec(ctx, `INSERT INTO group_members (grp, member) VALUES ($1, $2) ON CONFLICT (grp, member) DO NOTHING`, g, member); err != nil {
			return err
		}
	}
	return nil
}

func selectGroups(ctx context.Context, q store.Querier, member string) ([]string, error) {
	scan := func(r store.Scanner) (g string, err error) {
		err = r.Scan(&g)
		return g, err
	}
	return store.List(ctx, q, scan, `SELECT grp FROM group_members WHERE member = $1 ORDER BY grp`, member)
}

func disableUser(ctx context.Context, tx *store.Tx, name string) error {
	n, err := tx.Exec(ctx, `UPDATE users SET disabled = TRUE WHERE name = $1`, name)
	if err == nil && n == 0 {
		return fault.New(fault.NotFound, "There is no user '"+name+"'.", "")
	}
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM sessions WHERE username = $1`, name); err != nil {
		return err
	}
	_, err = revokeTokens(ctx, tx, "principal", "user:"+name)
	return err
}

func updatePassword(ctx context.Context, tx *store.Tx, name, password string) error {
	n, err := tx.Exec(ctx, `UPDATE users SET password = $1 WHERE name = $2 AND NOT disabled`, password, name)
	if err == nil && n == 0 {
		return fault.New(fault.NotFound, "There is no user '"+name+"'.", "")
	}
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `DELETE FROM sessions WHERE username = $1`, name)
	return err
}

func selectUser(ctx context.Context, q store.Querier, name string) (u User, err error) {
	var created int64
	err = q.QueryRow(ctx, `SELECT name, full_name, disabled, created FROM users WHERE name = $1`, name).Scan(&u.Name, &u.FullName, &u.Disabled, &created)
	u.Created = store.Time(created)
	return u, store.One(err, "user '"+name+"'")
}

func selectUsers(ctx context.Context, q store.Querier) ([]User, error) {
	rows, err := q.Query(ctx, `SELECT u.name, u.full_name, u.disabled, u.created, COALESCE(g.grp, '') FROM users u LEFT JOIN group_members g ON g.member = u.name ORDER BY u.name, g.grp`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []User
	for rows.Next() {
		var u User
		var created int64
		var group string
		if err := rows.Scan(&u.Name, &u.FullName, &u.Disabled, &created, &group); err != nil {
			return nil, err
		}
		if n := len(out); n == 0 || out[n-1].Name != u.Name {
			u.Created = store.Time(created)
			out = append(out, u)
		}
		if group != "" {
			last := &out[len(out)-1]
			last.Groups = append(last.Groups, group)
		}
	}
	return out, rows.Err()
}

func countUsers(ctx context.Context, q store.Querier) (n int64, err error) {
	err = q.QueryRow(ctx, `SELECT COUNT(*) FROM users`).Scan(&n)
	return n, err
}

// selectPassword is "" for an unknown or disabled user.
func selectPassword(ctx context.Context, q store.Querier, name string) (string, error) {
	var phc string
	err := q.QueryRow(ctx, `SELECT password FROM users WHERE name = $1 AND NOT disabled`, name).Scan(&phc)
	if store.NotFound(err) {
		return "", nil
	}
	return phc, err
}

func insertBinding(ctx context.Context, tx *store.Tx, b Binding) (added int64, err error) {
	return tx.Exec(ctx, `INSERT INTO bindings (project, role, principal) VALUES ($1, $2, $3) ON CONFLICT (project, role, principal) DO NOTHING`, b.Project, string(b.Role), b.Principal)
}

func deleteBinding(ctx context.Context, tx *store.Tx, b Binding) error {
	n, err := tx.Exec(ctx, `DELETE FROM bindings WHERE project = $1 AND role = $2 AND principal = $3`, b.Project, string(b.Role), b.Principal)
	if err == nil && n == 0 {
		return fault.New(fault.NotFound, b.Principal+" has no role "+string(b.Role)+" there.", "")
	}
	return err
}

func selectBindings(ctx context.Context, q store.Querier, project string) ([]Binding, error) {
	scan := func(r store.Scanner) (b Binding, err error) {
		err = r.Scan(&b.Project, &b.Role, &b.Principal)
		return b, err
	}
	return store.List(ctx, q, scan, `SELECT project, role, principal FROM bindings WHERE project = $1 OR project = '*' ORDER BY project, role, principal`, project)
}

func insertToken(ctx context.Context, tx *store.Tx, t Token, hash []byte) error {
	_, err := tx.Exec(ctx, `INSERT INTO tokens (id, hash, principal, name, project, role, run, created, expires, revoked) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0)`,
		t.ID, hash, t.Principal, t.Name, t.Project, t.Role, t.Run, store.Micros(t.Created), store.Micros(t.Expires))
	return err
}

// revokeTokens revokes by one of the fixed columns id, run, principal.
func revokeTokens(ctx context.Context, tx *store.Tx, column, value string) (revoked int64, err error) {
	return tx.Exec(ctx, `UPDATE tokens SET revoked = $1 WHERE `+column+` = $2 AND revoked = 0`, store.Micros(time.Now()), value)
}

const tokenColumns = `id, principal, name, project, role, run, created, expires, revoked`

func scanToken(r store.Scanner) (t Token, err error) {
	var created, expires, revoked int64
	err = r.Scan(&t.ID, &t.Principal, &t.Name, &t.Project, &t.Role, &t.Run, &created, &expires, &revoked)
	t.Created, t.Expires, t.Revoked = store.Time(created), store.Time(expires), store.Time(revoked)
	return t, err
}

func selectToken(ctx context.Context, q store.Querier, where string, arg any) (Token, error) {
	return scanToken(q.QueryRow(ctx, `SELECT `+tokenColumns+` FROM tokens WHERE `+where, arg))
}

func selectTokens(ctx context.Context, q store.Querier, principal string) ([]Token, error) {
	return store.List(ctx, q, scanToken, `SELECT `+tokenColumns+` FROM tokens WHERE $1 = '' OR principal = $1 ORDER BY id`, principal)
}

// actor is who acts with the token.
func (t Token) actor() who.Actor {
	kind, name, _ := strings.Cut(t.Principal, ":")
	a := who.Actor{Kind: who.Kind(kind), Name: name, Via: "token", Scope: who.Scope{Project: t.Project, Role: t.Role, Run: t.Run}}
	if a.Kind == who.Run {
		a.Via = "run-token"
	}
	return a
}

func insertSession(ctx context.Context, tx *store.Tx, hash []byte, user string, expires time.Time) error {
	if _, err := tx.Exec(ctx, `DELETE FROM sessions WHERE expires < $1`, store.Micros(time.Now())); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO sessions (hash, username, created, expires) VALUES ($1, $2, $3, $4)`, hash, user, store.Micros(time.Now()), store.Micros(expires))
	return err
}

func selectSession(ctx context.Context, q store.Querier, hash []byte) (string, time.Time, error) {
	var user string
	var expires int64
	err := q.QueryRow(ctx, `SELECT s.username, s.expires FROM sessions s JOIN users u ON u.name = s.username WHERE s.hash = $1 AND NOT u.disabled`, hash).Scan(&user, &expires)
	return user, store.Time(expires), err
}

func deleteSession(ctx context.Context, tx *store.Tx, hash []byte) error {
	_, err := tx.Exec(ctx, `DELETE FROM sessions WHERE hash = $1`, hash)
	return err
}

func insertSetup(ctx context.Context, tx *store.Tx, hash []byte, expires time.Time) error {
	_, err := tx.Exec(ctx, `INSERT INTO setup_links (hash, expires, used) VALUES ($1, $2, 0)`, hash, store.Micros(expires))
	return err
}

// useSetup marks the link used and says whether it was good.
func useSetup(ctx context.Context, tx *store.Tx, hash []byte, now time.Time) (bool, error) {
	n, err := tx.Exec(ctx, `UPDATE setup_links SET used = $1 WHERE hash = $2 AND used = 0 AND expires > $1`, store.Micros(now), hash)
	return n == 1, err
}

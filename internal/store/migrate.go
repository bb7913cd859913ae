package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

type migration struct {
	version int64
	name    string
	sum     string
	text    string
}

// migrations lists the embedded files in order. A file is NNNN_stage.sql and is never edited once released.
func migrations() ([]migration, error) {
	names, err := fs.Glob(migrationFiles, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	out := make([]migration, len(names))
	for i, n := range names {
		b, err := migrationFiles.ReadFile(n)
		if err != nil {
			return nil, err
		}
		base := strings.TrimSuffix(filepath.Base(n), ".sql")
		num, name, _ := strings.Cut(base, "_")
		v, err := strconv.ParseInt(num, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("migration %s: %w", n, err)
		}
		sum := sha256.Sum256(b)
		out[i] = migration{v, name, hex.EncodeToString(sum[:]), string(b)}
	}
	return out, nil
}

// migrate brings the schema to this binary's version in one transaction, after a snapshot of a database that holds data.
// A database of a newer version is refused, as is one whose applied migrations differ from ours.
func migrate(ctx context.Context, d Driver, all []migration, snapshotDir string, log *slog.Logger) error {
	if _, err := d.Writer().ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_migrations (version BIGINT PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL, applied BIGINT NOT NULL)`); err != nil {
		return fault.Wrap(err, fault.Unavailable, "The database could not be opened for writing.", "Check the data directory's owner and free space, or the PostgreSQL user's rights.")
	}
	todo, fresh, err := pending(ctx, d, all)
	if err != nil || len(todo) == 0 {
		return err
	}
	if !fresh && snapshotDir != "" {
		to := filepath.Join(snapshotDir, fmt.Sprintf("before-migration-%04d-%s.db", todo[0].version, time.Now().UTC().Format("20060102T150405.000000")))
		path, err := d.Snapshot(ctx, to)
		if err != nil {
			return fault.Wrap(err, fault.Unavailable, "The copy before the schema migration failed; nothing was changed.", "Free space beside the database, then start again.")
		}
		if path != "" {
			log.Info("database copied before migration", "copy", path)
		}
	}
	tx, err := d.Writer().BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := d.LockChain(ctx, tx); err != nil {
		return err
	}
	w := &Tx{tx: tx, serial: d.Serial(), st: &state{}}
	ctx = who.With(ctx, who.Actor{Kind: who.System, Name: "store", Via: "system"})
	for _, m := range todo {
		for _, stmt := range statements(m.text) {
			if _, err := tx.ExecContext(ctx, stmt); err != nil {
				return fault.Wrap(err, fault.Internal, fmt.Sprintf("Schema migration %04d_%s failed; nothing was changed.", m.version, m.name), "Keep the database and the log, go back to the previous falaj, and report it.")
			}
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO schema_migrations (version, name, sha256, applied) VALUES ($1, $2, $3, $4)`, m.version, m.name, m.sum, Micros(time.Now())); err != nil {
			return err
		}
		w.after = m.sum
		res := policy.Resource{Kind: "Schema", ID: fmt.Sprintf("%04d_%s", m.version, m.name)}
		if err := w.record(ctx, "schema.migrate", res, policy.Decision{Allow: true}, event.Draft{}, "", m.sum); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func pending(ctx context.Context, d Driver, all []migration) (todo []migration, fresh bool, err error) {
	rows, err := d.Writer().QueryContext(ctx, `SELECT version, name, sha256 FROM schema_migrations ORDER BY version`)
	if err != nil {
		return nil, false, err
	}
	defer rows.Close()
	have := map[int64]string{}
	var newest int64
	for rows.Next() {
		var v int64
		var name, sum string
		if err := rows.Scan(&v, &name, &sum); err != nil {
			return nil, false, err
		}
		have[v], newest = sum, v
	}
	if err := rows.Err(); err != nil {
		return nil, false, err
	}
	if n := all[len(all)-1].version; newest > n {
		return nil, false, fault.New(fault.Conflict, fmt.Sprintf("The database has schema %d, this falaj knows %d: it was written by a newer falaj.", newest, n), "Start the newer falaj again, or restore the copy made before its migration.")
	}
	for _, m := range all {
		switch sum, ok := have[m.version]; {
		case !ok:
			todo = append(todo, m)
		case sum != m.sum:
			return nil, false, fault.New(fault.Conflict, fmt.Sprintf("Schema migration %04d_%s of the database differs from this falaj's.", m.version, m.name), "Use the falaj build that made this database.")
		}
	}
	return todo, len(have) == 0, nil
}

// statements splits a migration at semicolons that end a line; comments are dropped.
func statements(text string) []string {
	var out []string
	var b strings.Builder
	for _, line := range strings.Split(text, "\n") {
		if t := strings.TrimSpace(line); t == "" || strings.HasPrefix(t, "--") {
			continue
		}
		b.WriteString(line)
		b.WriteByte('\n')
		if strings.HasSuffix(strings.TrimSpace(line), ";") {
			out = append(out, strings.TrimSuffix(strings.TrimSpace(b.String()), ";"))
			b.Reset()
		}
	}
	if s := strings.TrimSpace(b.String()); s != "" {
		out = append(out, s)
	}
	return out
}

// SchemaVersion is the newest migration of the open database.
func (s *Store) SchemaVersion(ctx context.Context) (int64, error) {
	var v sql.NullInt64
	err := s.driver.Reader().QueryRowContext(ctx, `SELECT MAX(version) FROM schema_migrations`).Scan(&v)
	return v.Int64, err
}

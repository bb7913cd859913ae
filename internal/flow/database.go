package flow

import (
	"context"
	"database/sql"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// schemaName is where the engine's tables live on PostgreSQL; SQLite has the file to itself.
const schemaName = "falaj_flow"

// database is the engine's own handle: one of the two is set.
type database struct {
	lite *sql.DB
	pg   *pgxpool.Pool
}

func openDatabase(ctx context.Context, cfg Config) (database, error) {
	if cfg.PostgresDSN != "" {
		return openPostgres(ctx, cfg.PostgresDSN)
	}
	if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o700); err != nil {
		return database{}, err
	}
	// The library's default is synchronous=NORMAL, which may lose the last commits at power loss; a record of what was
	// promoted must not. Write locks are taken at BEGIN: a read that turns into a write would fail instead of waiting.
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(10000)", "foreign_keys(ON)", "journal_mode(WAL)", "synchronous(FULL)", "journal_size_limit(16777216)",
	}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: cfg.Path}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return database{}, err
	}
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(4)
	var mode string
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		db.Close()
		return database{}, err
	}
	return database{lite: db}, nil
}

func openPostgres(ctx context.Context, dsn string) (database, error) {
	c, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return database{}, err
	}
	if !strings.Contains(dsn, "pool_max_conns") {
		c.MaxConns = 10
	}
	c.ConnConfig.RuntimeParams["application_name"] = "falaj-flow"
	c.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = "60000"
	c.ConnConfig.ConnectTimeout = 10 * time.Second
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return database{}, err
	}
	return database{pg: pool}, nil
}

func (d database) close() {
	if d.lite != nil {
		d.lite.Close()
	}
	if d.pg != nil {
		d.pg.Close()
	}
}

// exec runs one statement with $n placeholders; table workflow_status is qualified by the caller through d.table.
func (d database) exec(ctx context.Context, text string, args ...any) (int64, error) {
	if d.pg != nil {
		tag, err := d.pg.Exec(ctx, text, args...)
		return tag.RowsAffected(), err
	}
	res, err := d.lite.ExecContext(ctx, text, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// strings runs a query whose only column is text.
func (d database) strings(ctx context.Context, text string, args ...any) ([]string, error) {
	var out []string
	if d.pg != nil {
		rows, err := d.pg.Query(ctx, text, args...)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				return nil, err
			}
			out = append(out, s)
		}
		return out, rows.Err()
	}
	rows, err := d.lite.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}

func (d database) table() string {
	if d.pg != nil {
		return schemaName + ".workflow_status"
	}
	return "workflow_status"
}

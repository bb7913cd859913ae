// Package sqlite keeps the online feature store in one SQLite file, online.db.
// It is the default driver: no server beside falaj, durable before it acknowledges, read by several connections at once.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"

	_ "modernc.org/sqlite" // registers the driver with database/sql

	"falaj/internal/features"
	"falaj/internal/kernel/fault"
)

// format is the version of the file's layout; files of a newer one are refused.
const format = 1

// eff is when a version becomes visible. The second index finds the next change of an answer.
const schema = `
CREATE TABLE tables (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE versions (
  tab INTEGER NOT NULL, key BLOB NOT NULL, event INTEGER NOT NULL, known INTEGER NOT NULL, eff INTEGER NOT NULL, sealed BLOB NOT NULL,
  PRIMARY KEY (tab, key, event, known)) WITHOUT ROWID;
CREATE INDEX versions_eff ON versions (tab, key, eff);
PRAGMA user_version = 1;`

// Store implements features.OnlineStore.
type Store struct {
	write, read *sql.DB
	newest      *sql.Stmt
	next        *sql.Stmt

	mu  sync.RWMutex     // guards ids
	ids map[string]int64 // table ids, which never change
}

// Open opens or makes the file.
func Open(ctx context.Context, path string) (*Store, error) {
	fail := func(err error) (*Store, error) {
		var e *fault.E
		if errors.As(err, &e) {
			return nil, err
		}
		return nil, fault.Wrap(err, fault.Unavailable, "The online feature store cannot be opened.", "Check owner, mode and free space of the data directory; `falaj doctor` names it.")
	}
	dsn := func(extra string) string {
		return (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)" + extra}).String()
	}
	s := &Store{ids: map[string]int64{}}
	var err error
	if s.write, err = sql.Open("sqlite", dsn("&_txlock=immediate&_pragma=cache_size(-16000)")); err != nil {
		return fail(err)
	}
	s.write.SetMaxOpenConns(1)
	if s.read, err = sql.Open("sqlite", dsn("&_pragma=query_only(1)&_pragma=cache_size(-4000)")); err != nil {
		s.write.Close()
		return fail(err)
	}
	s.read.SetMaxOpenConns(4)
	if err := s.prepare(ctx); err != nil {
		s.Close()
		return fail(err)
	}
	return s, nil
}

func (s *Store) prepare(ctx context.Context) error {
	var have int
	if err := s.write.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&have); err != nil {
		return err
	}
	if have > format {
		return fault.New(fault.Unsupported, fmt.Sprintf("The online feature store has format %d and this version knows %d.", have, format), "Start the newer falaj that wrote it.")
	}
	if have == 0 {
		err := s.inTx(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, schema)
			return err
		})
		if err != nil {
			return err
		}
	}
	var err error
	if s.newest, err = s.read.PrepareContext(ctx, `SELECT event, known, sealed FROM versions WHERE tab = ? AND key = ? AND event <= ? AND known <= ? ORDER BY event DESC, known DESC LIMIT 1`); err != nil {
		return err
	}
	s.next, err = s.read.PrepareContext(ctx, `SELECT min(eff) FROM versions WHERE tab = ? AND key = ? AND eff > ?`)
	return err
}

func (s *Store) inTx(ctx context.Context, fn func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// Put implements features.OnlineStore.
func (s *Store) Put(ctx context.Context, table string, versions []features.Version) error {
	if len(versions) == 0 {
		return nil
	}
	return unavailable(s.inTx(ctx, func(tx *sql.Tx) error {
		var id int64
		if err := tx.QueryRowContext(ctx, `INSERT INTO tables (name) VALUES (?) ON CONFLICT (name) DO UPDATE SET name = name RETURNING id`, table).Scan(&id); err != nil {
			return err
		}
		for len(versions) > 0 {
			n := min(len(versions), rowsPerInsert)
			if err := insert(ctx, tx, id, versions[:n]); err != nil {
				return err
			}
			versions = versions[n:]
		}
		return nil
	}), "written")
}

// rowsPerInsert rows go in one statement: most of the cost of a row is the call.
const rowsPerInsert = 100

func insert(ctx context.Context, tx *sql.Tx, id int64, versions []features.Version) error {
	args := make([]any, 0, 5*len(versions)+1)
	args = append(args, id)
	var b strings.Builder
	b.WriteString(`INSERT OR REPLACE INTO versions (tab, key, event, known, eff, sealed) VALUES `)
	for i := range versions {
		v := &versions[i]
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`(?1,?,?,?,?,?)`)
		args = append(args, v.Key[:], v.Event, v.Known, max(v.Event, v.Known), v.Sealed)
	}
	_, err := tx.ExecContext(ctx, b.String(), args...)
	return err
}

// id finds a table; 0 when nothing was ever put into it.
func (s *Store) id(ctx context.Context, table string) (int64, error) {
	s.mu.RLock()
	id := s.ids[table]
	s.mu.RUnlock()
	if id != 0 {
		return id, nil
	}
	err := s.read.QueryRowContext(ctx, `SELECT id FROM tables WHERE name = ?`, table).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	s.ids[table] = id
	s.mu.Unlock()
	return id, nil
}

// At implements features.OnlineStore. Each key is answered from one snapshot for row and Until together, because a
// change between the two reads would leave an Until beyond the change.
func (s *Store) At(ctx context.Context, table string, asks []features.Ask) ([]features.Found, error) {
	out := make([]features.Found, len(asks))
	id, err := s.id(ctx, table)
	if err != nil {
		return nil, unavailable(err, "read")
	}
	if id == 0 {
		for i := range out {
			out[i].Until = features.Forever
		}
		return out, nil
	}
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, unavailable(err, "read")
	}
	defer tx.Rollback()
	newest, next := tx.StmtContext(ctx, s.newest), tx.StmtContext(ctx, s.next)
	for i, a := range asks {
		f := &out[i]
		err := newest.QueryRowContext(ctx, id, a.Key[:], a.At, a.At).Scan(&f.Event, &f.Known, &f.Sealed)
		f.OK = err == nil
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, unavailable(err, "read")
		}
		var until sql.NullInt64
		if err := next.QueryRowContext(ctx, id, a.Key[:], a.At).Scan(&until); err != nil {
			return nil, unavailable(err, "read")
		}
		f.Until = features.Forever
		if until.Valid {
			f.Until = until.Int64
		}
	}
	return out, nil
}

// Trim implements features.OnlineStore: a version goes when one that is visible at floor beats it.
func (s *Store) Trim(ctx context.Context, table string, floor int64) (n int64, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, `DELETE FROM versions WHERE tab = (SELECT id FROM tables WHERE name = ?1) AND EXISTS (
SELECT 1 FROM versions w WHERE w.tab = versions.tab AND w.key = versions.key AND w.eff <= ?2 AND (w.event, w.known) > (versions.event, versions.known))`, table, floor)
		if err != nil {
			return err
		}
		n, err = r.RowsAffected()
		return err
	})
	return n, unavailable(err, "written")
}

// Drop implements features.OnlineStore. The table keeps its id, since readers remember it.
func (s *Store) Drop(ctx context.Context, table string) error {
	return unavailable(s.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM versions WHERE tab = (SELECT id FROM tables WHERE name = ?)`, table)
		return err
	}), "written")
}

// Close implements features.OnlineStore.
func (s *Store) Close() error {
	var errs []error
	for _, st := range []*sql.Stmt{s.newest, s.next} {
		if st != nil {
			errs = append(errs, st.Close())
		}
	}
	return errors.Join(append(errs, s.read.Close(), s.write.Close())...)
}

func unavailable(err error, done string) error {
	return fault.Wrap(err, fault.Unavailable, "The online feature store could not be "+done+".", "Try again; `falaj doctor` checks disk and files.")
}

package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"modernc.org/sqlite"

	"falaj/internal/kernel/fault"
)

// Pair is a database file in use and where its copy goes.
type Pair struct{ From, To string }

// A copy waits up to longWait for the first lock, while it holds no other, and up to shortWait for each further one, while the writers of
// the files that it holds wait too. A file that was not free is the first one of the next try.
const (
	longWait  = 5 * time.Second
	shortWait = 50 * time.Millisecond
	lockTries = 100
)

// CopyAll copies database files that others write to meanwhile, all as of one instant: it takes every file's write lock,
// begins a reading snapshot of each, calls cut, and lets the writers go on before it copies. What the copies hold together
// is what a kill -9 at that instant would have left. cut may be nil; it must be short, for all writers wait for it.
func CopyAll(ctx context.Context, pairs []Pair, cut func() error) (err error) {
	var sources []*source
	defer func() {
		for _, s := range sources {
			err = errors.Join(err, s.close())
		}
	}()
	for _, p := range pairs {
		s, err := openSource(ctx, p)
		if err != nil {
			return unusable(err)
		}
		sources = append(sources, s)
	}
	order := slices.Clone(sources)
	for tries := 1; ; tries++ {
		at, err := snapshots(ctx, order, cut)
		if err == nil {
			break
		}
		if ctx.Err() != nil || tries == lockTries || at == 0 {
			return unusable(err)
		}
		busy := order[at]
		order = slices.Insert(slices.Delete(order, at, at+1), 0, busy)
	}
	for _, s := range sources {
		if err := s.copy(ctx); err != nil {
			return unusable(err)
		}
	}
	return nil
}

func unusable(err error) error {
	var f *fault.E
	if errors.As(err, &f) || errors.Is(err, context.Canceled) {
		return err
	}
	return fault.Wrap(err, fault.Unavailable, "A database could not be copied.", "Check the free space beside the databases, then try again; nothing was changed.")
}

// source is one database with a connection that reads and one that holds the write lock.
type source struct {
	pair       Pair
	db         *sql.DB
	read, lock *sql.Conn
}

func fileURI(path, query string) string {
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + query
}

func openSource(ctx context.Context, p Pair) (*source, error) {
	db, err := sql.Open("sqlite", fileURI(p.From, fmt.Sprintf("mode=rw&_pragma=busy_timeout(%d)", longWait.Milliseconds())))
	if err != nil {
		return nil, err
	}
	s := &source{pair: p, db: db}
	if s.read, err = db.Conn(ctx); err == nil {
		s.lock, err = db.Conn(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// snapshots begins a reading transaction on every source while no writer can commit anywhere. at says whose lock was not free; 0 when
// trying again is of no use.
func snapshots(ctx context.Context, sources []*source, cut func() error) (at int, err error) {
	after := context.WithoutCancel(ctx)
	defer func() {
		for _, s := range sources {
			_, _ = s.lock.ExecContext(after, `ROLLBACK`) // that it holds none is no error
			if err != nil {
				_, _ = s.read.ExecContext(after, `ROLLBACK`)
			}
		}
	}()
	for i, s := range sources {
		wait := shortWait
		if i == 0 {
			wait = longWait
		}
		if _, err := s.lock.ExecContext(ctx, fmt.Sprintf(`PRAGMA busy_timeout(%d)`, wait.Milliseconds())); err != nil {
			return 0, err
		}
		if _, err := s.lock.ExecContext(ctx, `BEGIN IMMEDIATE`); err != nil {
			return i, err
		}
	}
	for _, s := range sources {
		if _, err := s.read.ExecContext(ctx, `BEGIN`); err != nil {
			return 0, err
		}
		var n int64 // the snapshot begins with the first read
		if err := s.read.QueryRowContext(ctx, `SELECT COUNT(*) FROM sqlite_master`).Scan(&n); err != nil {
			return 0, err
		}
	}
	if cut != nil {
		return 0, cut()
	}
	return 0, nil
}

// copy copies the pages of the snapshot.
func (s *source) copy(ctx context.Context) error {
	return s.read.Raw(func(c any) error {
		from, ok := c.(interface {
			NewBackup(dst string) (*sqlite.Backup, error)
		})
		if !ok {
			return fmt.Errorf("the SQLite driver %T copies no databases", c)
		}
		// The copy is no database in use: a half one is thrown away.
		b, err := from.NewBackup(fileURI(s.pair.To, "_pragma=journal_mode(OFF)&_pragma=synchronous(OFF)"))
		if err != nil {
			return err
		}
		for more := true; more && err == nil; {
			if more, err = b.Step(1024); err == nil {
				err = ctx.Err()
			}
		}
		return errors.Join(err, b.Finish())
	})
}

func (s *source) close() error {
	var errs []error
	for _, c := range []*sql.Conn{s.read, s.lock} {
		if c != nil {
			_, _ = c.ExecContext(context.Background(), `ROLLBACK`)
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(append(errs, s.db.Close())...)
}

// OpenCopy opens a copy for reading, and refuses one whose pages do not hold together.
func OpenCopy(ctx context.Context, path string) (*sql.DB, error) {
	// immutable: nobody else has it open, and nothing may be written beside it.
	db, err := sql.Open("sqlite", fileURI(path, "mode=ro&immutable=1"))
	if err != nil {
		return nil, err
	}
	var answer string
	if err = db.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&answer); err == nil && answer != "ok" {
		err = errors.New(answer)
	}
	if err != nil {
		db.Close()
		return nil, fault.Wrap(err, fault.Refused, "The copy of a database is damaged.", "Check the disk, then make the backup again; an older backup may be whole.")
	}
	return db, nil
}

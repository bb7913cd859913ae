package flow

import (
	"context"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"falaj/internal/kernel/fault"
)

// lease holds a PostgreSQL advisory lock on the executor's name for the life of the process: two live processes with
// one name would both recover its runs. The lock is the session's, so a killed process frees it at once.
type lease struct {
	dsn  string
	key  int64
	log  *slog.Logger
	lost chan struct{}
	stop context.CancelFunc
	done chan struct{}
	once sync.Once
}

func leaseKey(executor string) int64 {
	h := fnv.New64a()
	h.Write([]byte("falaj/flow/executor/" + executor))
	return int64(h.Sum64())
}

// heartbeat is how often the lease's connection is checked, and regained when it broke.
const heartbeat = 5 * time.Second

func takeLease(ctx context.Context, cfg Config, log *slog.Logger) (*lease, error) {
	l := &lease{dsn: cfg.PostgresDSN, key: leaseKey(cfg.Executor), log: log, lost: make(chan struct{}), done: make(chan struct{})}
	deadline := time.Now().Add(cfg.LeaseWait)
	for {
		conn, free, err := l.try(ctx)
		if err != nil {
			return nil, err
		}
		if free {
			var life context.Context
			life, l.stop = context.WithCancel(context.WithoutCancel(ctx))
			go l.keep(life, conn)
			return l, nil
		}
		if time.Now().After(deadline) {
			return nil, fault.New(fault.Conflict, "Another live process runs workflows as executor '"+cfg.Executor+"'.", "Stop it, or give this replica another executor name.")
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// try opens a session and asks for the lock; the session is closed again when somebody else holds it.
func (l *lease) try(ctx context.Context) (*pgx.Conn, bool, error) {
	conn, err := pgx.Connect(ctx, l.dsn)
	if err != nil {
		return nil, false, err
	}
	var free bool
	err = conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", l.key).Scan(&free)
	if err != nil || !free {
		conn.Close(context.WithoutCancel(ctx))
		return nil, false, err
	}
	return conn, true, nil
}

func (l *lease) keep(ctx context.Context, conn *pgx.Conn) {
	defer close(l.done)
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			if conn != nil {
				conn.Close(context.WithoutCancel(ctx))
			}
			return
		case <-tick.C:
		}
		if conn != nil {
			if err := conn.Ping(ctx); err == nil || ctx.Err() != nil {
				continue
			}
			l.log.Warn("the executor's lease lost its connection, taking it again")
			conn.Close(context.WithoutCancel(ctx))
			conn = nil
		}
		again, free, err := l.try(ctx)
		switch {
		case err != nil: // the database is down for everybody; nobody else can take the name either
			continue
		case !free:
			l.log.Error("another process took this executor's name while the database was away")
			close(l.lost)
			return
		}
		conn = again
	}
}

func (l *lease) release() {
	if l == nil {
		return
	}
	l.once.Do(func() {
		l.stop()
		<-l.done
	})
}

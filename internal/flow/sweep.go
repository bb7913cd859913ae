package flow

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
	"github.com/dbos-inc/dbos-transact-golang/dbos/internals"
	"github.com/jackc/pgx/v5"
)

// adopt puts unfinished runs of accepted older schema versions under this one, so that Launch recovers them.
func (e *Engine) adopt(ctx context.Context) error {
	for _, old := range e.cfg.Accepts {
		n, err := e.db.exec(ctx, "UPDATE "+e.db.table()+" SET application_version = $1 WHERE application_version = $2 AND status IN ('PENDING', 'ENQUEUED', 'DELAYED')", e.cfg.SchemaVersion, old)
		if err != nil {
			return err
		}
		if n > 0 {
			e.log.Info("runs of an older workflow version go on", "from", old, "to", e.cfg.SchemaVersion, "runs", n)
		}
	}
	left, err := e.db.strings(ctx, "SELECT DISTINCT application_version FROM "+e.db.table()+" WHERE application_version <> $1 AND status IN ('PENDING', 'ENQUEUED', 'DELAYED')", e.cfg.SchemaVersion)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		e.log.Warn("runs of other workflow versions stay where they are", "versions", strings.Join(left, " "), "next", "finish them with the falaj that started them, or cancel them")
	}
	return nil
}

func (e *Engine) sweepLoop() {
	tick := time.NewTicker(e.cfg.Sweep)
	defer tick.Stop()
	suspects := map[string]bool{}
	for {
		select {
		case <-e.root.Done():
			return
		case <-tick.C:
		}
		var err error
		if suspects, err = e.sweep(e.root, suspects); err != nil && e.root.Err() == nil {
			e.log.Warn("looking for stranded runs failed", "error", err)
		}
	}
}

// sweep starts again what nobody runs: runs of this executor that are not in this process (seen twice, for a run is
// claimed a moment before it is entered), and runs of executors whose lease is free because they died. It also
// interrupts runs that another replica cancelled. It returns the suspects for the next sweep.
//
// The library's own recovery must not be called for a live executor: it would take away the runs that are under way.
func (e *Engine) sweep(ctx context.Context, before map[string]bool) (map[string]bool, error) {
	pending, err := dbos.ListWorkflows(e.root, dbos.WithFilterStatus(dbos.WorkflowStatusPending), dbos.WithFilterAppVersion(e.cfg.SchemaVersion),
		dbos.WithFilterLoadInput(false), dbos.WithFilterLoadOutput(false))
	if err != nil {
		return before, err
	}
	claimed := make(map[string]bool, len(pending))
	foreign := map[string]bool{}
	suspects := map[string]bool{}
	var stranded []string
	e.mu.Lock()
	for _, w := range pending {
		if w.ExecutorID != e.cfg.Executor {
			foreign[w.ExecutorID] = true
			continue
		}
		claimed[w.ID] = true
		if e.running[w.ID] != nil {
			continue
		}
		if before[w.ID] {
			stranded = append(stranded, w.ID)
		} else {
			suspects[w.ID] = true
		}
	}
	var taken []string
	for id := range e.running {
		if !claimed[id] {
			taken = append(taken, id)
		}
	}
	e.mu.Unlock()

	if err := e.interruptCancelled(taken); err != nil {
		return suspects, err
	}
	if len(stranded) > 0 {
		e.log.Warn("starting stranded runs again", "runs", len(stranded))
		if _, err := dbos.ResumeWorkflows[json.RawMessage](e.root, stranded); err != nil {
			return before, fmt.Errorf("resuming stranded runs: %w", err)
		}
	}
	if e.db.pg == nil {
		return suspects, nil
	}
	for name := range foreign {
		if err := e.takeOver(ctx, name); err != nil {
			return suspects, err
		}
	}
	return suspects, nil
}

// interruptCancelled stops the steps of runs that are no longer this executor's.
func (e *Engine) interruptCancelled(ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	list, err := dbos.ListWorkflows(e.root, dbos.WithFilterWorkflowIDs(ids...), dbos.WithFilterLoadInput(false), dbos.WithFilterLoadOutput(false))
	if err != nil {
		return err
	}
	for _, w := range list {
		if w.Status == dbos.WorkflowStatusCancelled {
			e.interrupt(w.ID)
		}
	}
	return nil
}

// takeOver recovers the runs of a dead executor. Its lease is held meanwhile, so it cannot come back in the middle.
func (e *Engine) takeOver(ctx context.Context, executor string) error {
	l := &lease{dsn: e.cfg.PostgresDSN, key: leaseKey(executor), log: e.log}
	conn, free, err := l.try(ctx)
	if err != nil || !free {
		return err
	}
	defer func(c *pgx.Conn) { c.Close(context.WithoutCancel(ctx)) }(conn)
	rt, err := internals.RuntimeOf(e.root)
	if err != nil {
		return err
	}
	handles, err := rt.RecoverPendingWorkflows([]string{executor})
	if err != nil {
		return fmt.Errorf("recovering the runs of executor %s: %w", executor, err)
	}
	if len(handles) > 0 {
		e.log.Warn("took over the runs of a dead executor", "executor", executor, "runs", len(handles))
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"falaj/internal/access"
	"falaj/internal/data"
	"falaj/internal/data/duckdb"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
	"falaj/internal/store/sqlite"
)

// installation is a store on SQLite with the real authorizer and one admin.
func (b *bench) installation(ctx context.Context, name string) (*store.Store, *access.Authorizer, context.Context, *access.Service, error) {
	fail := func(err error) (*store.Store, *access.Authorizer, context.Context, *access.Service, error) {
		return nil, nil, nil, nil, err
	}
	e, err := policy.New()
	if err != nil {
		return fail(err)
	}
	d, err := sqlite.Open(ctx, filepath.Join(b.temp, name+".db"))
	if err != nil {
		return fail(err)
	}
	a := access.NewAuthorizer(e, "ae", false)
	s, err := store.Open(ctx, d, a, "", slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		return fail(err)
	}
	people := access.New(s, a, func(purpose string, msg []byte) []byte { return append([]byte(purpose), msg...) })
	link, err := people.SetupLink(ctx)
	if err != nil {
		return fail(err)
	}
	if _, err := people.Setup(ctx, link, "root", "a falaj flows downhill"); err != nil {
		return fail(err)
	}
	return s, a, who.With(ctx, who.Actor{Kind: who.User, Name: "root", Via: "bench"}), people, nil
}

// audit is the whole price of a change: policy, one row of the change, the ledger's row, the event, and the disk (synchronous=FULL).
func audit(ctx context.Context, b *bench) (rows []row, err error) {
	s, _, admin, people, err := b.installation(ctx, "audit")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if _, err := people.CreateProject(admin, "p", "", []string{"ae"}); err != nil {
		return nil, err
	}
	if err := people.Bind(admin, access.Binding{Project: "p", Role: "engineer", Principal: "user:amal"}); err != nil {
		return nil, err
	}
	amal := who.With(ctx, who.Actor{Kind: who.User, Name: "amal", Via: "bench"})
	const n = 2000
	before, begin := ownCPU(), time.Now()
	for i := range n {
		res := policy.Resource{Kind: "Model", ID: fmt.Sprint("m", i), Project: "p"}
		err := s.Change(amal, "model.create", res, func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
			tx.After(res.ID)
			return event.Draft{Type: "model.created", Subject: res.ID, Data: map[string]string{"name": res.ID}}, nil
		})
		if err != nil {
			return nil, err
		}
	}
	return []row{{What: "audited change on SQLite: policy, ledger row, event", N: n, Unit: "changes", CPU: ownCPU() - before, Wall: time.Since(begin), Note: "one after the other, each waits for the disk"}}, nil
}

// decide is one decision with reasons at 1000 projects of ten bindings each: the roles read from the database, then from memory.
func decide(ctx context.Context, b *bench) (rows []row, err error) {
	s, a, admin, people, err := b.installation(ctx, "policy")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	const projects = 1000
	for p := range projects {
		if _, err := people.CreateProject(admin, fmt.Sprint("p", p), "", []string{"ae"}); err != nil {
			return nil, err
		}
		for u := range 10 {
			if err := people.Bind(admin, access.Binding{Project: fmt.Sprint("p", p), Role: []policy.Role{policy.Viewer, policy.Engineer}[u%2], Principal: fmt.Sprint("user:u", u)}); err != nil {
				return nil, err
			}
		}
	}
	amal := who.With(ctx, who.Actor{Kind: who.User, Name: "u1", Via: "bench"})
	for round, what := range []string{"policy decision at 1000 projects, roles read from the database", "policy decision at 1000 projects, roles in memory"} {
		n := projects
		if round == 1 {
			n = 50 * projects
		}
		took := make([]time.Duration, 0, n)
		before, begin := ownCPU(), time.Now()
		err := s.View(ctx, func(_ context.Context, q store.Querier) error {
			for i := range n {
				at := time.Now()
				d, err := a.Authorize(amal, q, "run.log", policy.Resource{Kind: "Run", ID: "1", Project: fmt.Sprint("p", i%projects)})
				if err != nil {
					return err
				}
				if !d.Allow {
					return errors.New("an engineer was denied")
				}
				took = append(took, time.Since(at))
			}
			return nil
		})
		if err != nil {
			return rows, err
		}
		rows = append(rows, row{What: what, N: n, Unit: "decisions", CPU: ownCPU() - before, Wall: time.Since(begin), Note: "cedar, with reasons; " + percentiles(took)})
	}
	return rows, nil
}

// pit joins 100,000 entity rows with a view of a million, as of event time and knowledge time, in a locked-down worker.
func pit(ctx context.Context, b *bench) (rows []row, err error) {
	e, err := duckdb.New(duckdb.Config{Command: []string{b.binary, "worker", "duckdb"}, Scratch: filepath.Join(b.temp, "scratch")})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	room, err := e.Room(1 << 28)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, room.Close()) }()
	const asks, facts = 100_000, 1_000_000
	for name, sql := range map[string]string{
		"view": fmt.Sprintf("SELECT i %% 1000 AS k, to_timestamp(i) AS e, to_timestamp(i + i %% 600) AS known, i * 0.5 AS f FROM range(%d) t(i)", facts),
		"ask":  fmt.Sprintf("SELECT i %% 1000 AS k, to_timestamp(i * 10 + 7) AS at FROM range(%d) t(i)", asks),
	} {
		if _, err := e.Transform(ctx, data.TransformJob{Dir: room.Dir, SQL: sql, Out: room.Path(name), AsWritten: true}); err != nil {
			return nil, err
		}
	}
	const runs = 3
	before, begin := ownCPU(), time.Now()
	for i := range runs {
		res, err := e.PointInTime(ctx, data.PITJob{Dir: room.Dir, Spine: []string{room.Path("ask")}, At: "at", Out: room.Path(fmt.Sprint("out", i)),
			Views: []data.PITView{{Name: "v", Files: []string{room.Path("view")}, Keys: map[string]string{"k": "k"}, Event: "e", Known: "known", TTL: 3600 * 1e6, Features: []string{"f"}}}})
		if err != nil {
			return nil, err
		}
		if res.Rows != asks {
			return nil, fmt.Errorf("%d rows for %d entity rows", res.Rows, asks)
		}
	}
	return []row{{What: "point-in-time join, 100,000 rows with a view of 1,000,000", N: runs, Unit: "joins", CPU: ownCPU() - before, Wall: time.Since(begin), Note: "event and knowledge time, ttl; the worker's start included"}}, nil
}

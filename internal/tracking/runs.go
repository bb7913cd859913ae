package tracking

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/id"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
	"falaj/internal/tracking/filter"
)

// CreateRun starts a run in an active experiment. Experiment 0 is the project's Default, made on first use.
func (s *Service) CreateRun(ctx context.Context, project string, r NewRun) (Run, error) {
	if r.ID != "" && !hexID(r.ID) {
		return Run{}, invalidValue("run_id", Quote(r.ID), "")
	}
	e, err := s.ensureExperiment(ctx, project, r.Experiment)
	if err != nil {
		return Run{}, err
	}
	if err := e.mustBeActive(); err != nil {
		return Run{}, err
	}
	run := newRun(ctx, e, r)
	for i := range r.Tags {
		if err := checkTag(&r.Tags[i], fmt.Sprintf("tags[%d]", i)); err != nil {
			return Run{}, err
		}
	}
	named := ""
	for _, t := range r.Tags {
		switch t.Key {
		case TagRunName:
			named = t.Value
		case TagParentRun:
			run.Parent = t.Value
		}
	}
	if r.Name != "" && named != "" && r.Name != named {
		return Run{}, invalid("Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values (run_name='%s', mlflow.runName='%s').", r.Name, named)
	}
	if run.Name = r.Name; run.Name == "" {
		run.Name = named
	}
	if run.Name == "" {
		run.Name = randomName()
	}
	run.Tags = append([]Pair(nil), r.Tags...)
	if named == "" {
		run.Tags = append(run.Tags, Pair{TagRunName, run.Name})
	}
	err = s.store.Change(ctx, "run.create", runResource(run.RunInfo), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		if err := insertRun(ctx, tx, &run, who.From(ctx).String()); err != nil {
			return event.Draft{}, err
		}
		tx.After(run)
		return event.Draft{Type: "run.created", Subject: run.ID, Data: runEvent(run.RunInfo)}, nil
	})
	if store.Unique(err) {
		return Run{}, fault.Newf(fault.Exists, "Run with id=%s already exists.", run.ID)
	}
	return run, err
}

func newRun(ctx context.Context, e Experiment, r NewRun) Run {
	if r.ID == "" {
		r.ID = id.NewHex()
	}
	if r.User == "" {
		r.User = who.From(ctx).Name
	}
	return Run{RunInfo: RunInfo{ID: r.ID, Project: e.Project, Experiment: e.ID, User: r.User, Status: Running, StartMs: r.StartMs, Stage: Active,
		ArtifactURI: strings.TrimRight(e.ArtifactLocation, "/") + "/" + r.ID + "/artifacts"}}
}

func runEvent(r RunInfo) map[string]any {
	return map[string]any{"run": r.ID, "experiment": r.Experiment, "name": r.Name, "status": r.Status}
}

// Run gives a run with all it logged.
func (s *Service) Run(ctx context.Context, project, runID string) (Run, error) {
	var r Run
	err := s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		info, err := runInfo(ctx, q, project, runID)
		if err != nil {
			return err
		}
		list := []Run{{RunInfo: info}}
		if err := fillRuns(ctx, q, list); err != nil {
			return err
		}
		r = list[0]
		return nil
	})
	return r, err
}

// RunInfo gives the head of a run.
func (s *Service) RunInfo(ctx context.Context, project, runID string) (RunInfo, error) {
	var r RunInfo
	err := s.store.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		r, err = runInfo(ctx, q, project, runID)
		return err
	})
	return r, err
}

// UpdateRun changes status, end time and name of an active run. A run that reaches a final status announces "run.finished".
func (s *Service) UpdateRun(ctx context.Context, project, runID string, u RunUpdate) (RunInfo, error) {
	if u.Status != nil && !statusOK(*u.Status) {
		return RunInfo{}, invalidValue("status", Quote(*u.Status), "")
	}
	return s.changeRun(ctx, "run.update", "run.updated", project, runID, func(ctx context.Context, tx *store.Tx, r *RunInfo) error {
		if err := r.mustBeActive(); err != nil {
			return err
		}
		if u.Status != nil {
			r.Status = *u.Status
		}
		if u.EndMs != nil {
			r.EndMs = u.EndMs
		}
		if u.Name == nil || *u.Name == "" {
			return nil
		}
		r.Name = *u.Name
		return upsertPairs(ctx, tx, "run_tags", "run", r.key, []Pair{{TagRunName, r.Name}})
	})
}

// DeleteRun marks a run deleted; RestoreRun takes it back.
func (s *Service) DeleteRun(ctx context.Context, project, runID string) error {
	_, err := s.changeRun(ctx, "run.delete", "run.deleted", project, runID, func(_ context.Context, _ *store.Tx, r *RunInfo) error {
		r.Stage = Deleted
		return nil
	})
	return err
}

// RestoreRun makes a deleted run active again.
func (s *Service) RestoreRun(ctx context.Context, project, runID string) error {
	_, err := s.changeRun(ctx, "run.restore", "run.restored", project, runID, func(_ context.Context, _ *store.Tx, r *RunInfo) error {
		r.Stage = Active
		return nil
	})
	return err
}

func (s *Service) changeRun(ctx context.Context, action policy.Action, announce, project, runID string, fn func(context.Context, *store.Tx, *RunInfo) error) (RunInfo, error) {
	head, err := s.RunInfo(ctx, project, runID)
	if err != nil {
		return head, err
	}
	var r RunInfo
	err = s.store.Change(ctx, action, runResource(head), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		if r, err = runInfo(ctx, tx, project, runID); err != nil {
			return event.Draft{}, err
		}
		tx.Before(r)
		was := r.Status
		if err := fn(ctx, tx, &r); err != nil {
			return event.Draft{}, err
		}
		if err := updateRun(ctx, tx, r); err != nil {
			return event.Draft{}, err
		}
		tx.After(r)
		d := event.Draft{Type: announce, Subject: r.ID, Data: runEvent(r)}
		if was != r.Status && (r.Status == Finished || r.Status == Failed || r.Status == Killed) {
			d.Type = "run.finished"
		}
		return d, nil
	})
	return r, err
}

func (r RunInfo) mustBeActive() error {
	if r.Stage != Active {
		return invalid("The run %s must be in the 'active' state. Current state is %s.", r.ID, r.Stage)
	}
	return nil
}

func statusOK(s string) bool {
	switch s {
	case Running, Scheduled, Finished, Failed, Killed:
		return true
	}
	return false
}

// SearchRuns gives a page of runs of the given experiments that belong to the project. Max 0 is 1000.
func (s *Service) SearchRuns(ctx context.Context, project string, r Search) (Page[Run], error) {
	clauses, order, offset, err := r.parse(filter.Runs())
	if err != nil {
		return Page[Run]{}, err
	}
	if len(r.Experiments) > 10000 {
		return Page[Run]{}, invalid("A search can name at most 10000 experiments. Got %d.", len(r.Experiments))
	}
	if len(r.Experiments) == 0 {
		return Page[Run]{}, nil
	}
	var list []Run
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		list = nil
		ids, err := s.ownExperiments(ctx, q, project, r.Experiments)
		if err != nil || len(ids) == 0 {
			return err
		}
		query, args, err := s.runQuery(ctx, q, ids, r.View, clauses, order, r.Max+1, offset)
		if err != nil {
			return err
		}
		if list, err = selectRuns(ctx, q, query, args...); err != nil {
			return err
		}
		return fillRuns(ctx, q, list[:min(len(list), r.Max)])
	})
	return cutPage(list, offset, r.Max), err
}

// ownExperiments drops what belongs to other projects and turns 0 into the project's own Default.
func (s *Service) ownExperiments(ctx context.Context, q store.Querier, project string, ids []int64) ([]int64, error) {
	var out []int64
	err := inChunks(ids, func(part []int64) error {
		var a filter.Args
		where := "project = " + a.Add(project) + " AND (id IN " + filter.In(&a, part)
		for _, id := range part {
			if id == 0 && project != "default" {
				where += " OR name = " + a.Add(DefaultExperiment)
				break
			}
		}
		found, err := selectIDs(ctx, q, "SELECT id FROM experiments WHERE "+where+")", a.Values()...)
		out = append(out, found...)
		return err
	})
	return out, err
}

// randomName names a run that got no name: an adjective, a noun and a number.
func randomName() string {
	n := time.Now().UnixNano()
	adjectives := []string{"calm", "clear", "cool", "deep", "early", "fair", "fresh", "full", "gentle", "glad", "green", "high", "keen", "kind", "light", "mild", "noble", "open", "quiet", "steady"}
	nouns := []string{"basin", "bridge", "canal", "channel", "date", "dune", "field", "garden", "gate", "harbour", "oasis", "palm", "river", "shade", "source", "spring", "stone", "valley", "wadi", "well"}
	h := uint64(n) * 0x9e3779b97f4a7c15
	return adjectives[h>>32%20] + "-" + nouns[h>>40%20] + "-" + strconv.FormatUint(h>>17%1000, 10)
}

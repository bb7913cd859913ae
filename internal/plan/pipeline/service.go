package pipeline

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"time"

	"falaj/internal/access"
	"falaj/internal/blob"
	"falaj/internal/data"
	"falaj/internal/delivery"
	"falaj/internal/features"
	"falaj/internal/flow"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/id"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/lineage"
	"falaj/internal/monitoring"
	"falaj/internal/plan"
	"falaj/internal/registry"
	"falaj/internal/secret"
	"falaj/internal/serving"
	"falaj/internal/store"
	"falaj/internal/tracking"
	"falaj/internal/training"
)

// Config is what app gives the stage.
type Config struct {
	Store      *store.Store
	Flow       *flow.Engine
	Blobs      *blob.Store
	Access     *access.Service
	Data       *data.Service
	Features   *features.Service
	Tracking   *tracking.Service
	Training   *training.Service
	Registry   *registry.Service
	Delivery   func() *delivery.Service // delivery asks this stage for evidence, so it is made after it
	Serving    *serving.Service
	Monitoring *monitoring.Service
	Lineage    *lineage.Service
	Secrets    *secret.Service
	Rooms      data.Engine // private rooms in memory for what a training reads in clear
	Region     string      // of this installation
	Runtimes   *training.Runtimes
	Python     string
	Wheelhouse string
	Launcher   training.Launcher                                 // runs the project's own tests
	Work       string                                            // folder for code and outputs of running steps, emptied at start
	URL        func() string                                     // where jobs find the server
	CA         string                                            // file of the certificate that vouches for URL; "" without TLS
	Importance func(model io.Reader) (map[string]float64, error) // gain by feature; nil for a format it does not know
	Log        *slog.Logger
}

// Service is the plan stage's running half. It is safe for concurrent use.
type Service struct {
	Config
	store *store.Store
	blobs *blob.Store
}

// The workflows' names are recorded with every run of them: they never change.
const runWorkflow = "plan.run"

// New makes the stage and registers its workflow.
func New(c Config) *Service {
	s := &Service{Config: c, store: c.Store, blobs: c.Blobs}
	c.Flow.Register(runWorkflow, s.run)
	return s
}

func runResource(project, runID string) policy.Resource {
	return policy.Resource{Kind: "PipelineRun", ID: runID, Project: project}
}

// Start records a pipeline run and lets it begin. The same key gives the same run.
func (s *Service) Start(ctx context.Context, project string, req Request) (Run, error) {
	switch req.Pipeline {
	case "":
		req.Pipeline = RunPipeline
	case RunPipeline, IngestPipeline, RetrainPipeline, ChallengePipeline:
	default:
		return Run{}, fault.New(fault.Invalid, "There is no pipeline '"+req.Pipeline+"'.", "The pipelines are run, ingest, retrain and challenge.").At("pipeline")
	}
	action := policy.Action("pipeline.run")
	if req.Pipeline == RetrainPipeline || req.Pipeline == ChallengePipeline {
		action = "pipeline.retrain"
		if req.Model == "" {
			return Run{}, fault.New(fault.Invalid, "Which model?", "falaj retrain [PROJECT/]MODEL").At("model")
		}
	}
	if err := plan.CheckParams(req.Params); err != nil {
		return Run{}, err
	}
	box, err := s.blobs.Box(ctx, project)
	if err != nil {
		return Run{}, err
	}
	unfit := s.checkSources(ctx, project, req.Sources)
	r := Run{ID: id.New("pr"), Project: project, Pipeline: req.Pipeline, State: Waiting, Actor: who.From(ctx).Origin(), Model: req.Model, Request: req, Resumed: req.Resumes, Created: time.Now().UTC()}
	if req.Key != "" {
		r.ID = keyed(project, req.Key) // the ledger's row names the run by it
	}
	err = s.store.Change(ctx, action, runResource(project, r.ID), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		if req.Key != "" {
			old, err := selectRun(ctx, tx, box, project, r.ID)
			if err == nil {
				r = old
				return event.Draft{}, store.ErrUnchanged
			}
			if !fault.Is(err, fault.NotFound) {
				return event.Draft{}, err
			}
		}
		if unfit != nil {
			return event.Draft{}, unfit
		}
		a, found, err := selectApply(ctx, tx, project, 0)
		if err != nil {
			return event.Draft{}, err
		}
		if !found {
			return event.Draft{}, fault.New(fault.Conflict, "Project '"+project+"' was never applied.", "In the project's folder: falaj apply")
		}
		r.Apply = a.Seq
		if r.Seq, err = tx.Next(ctx, "pipeline_runs"); err != nil {
			return event.Draft{}, err
		}
		tx.After(r)
		return event.Draft{Type: "pipeline.requested", Subject: r.ID, Data: map[string]string{"run": r.ID, "pipeline": r.Pipeline, "model": r.Model, "actor": r.Actor}}, insertRun(ctx, tx, r)
	})
	return r, err
}

// checkSources refuses what a run would stumble over at its first step.
func (s *Service) checkSources(ctx context.Context, project string, sources map[string][]SourceFile) error {
	for dataset, files := range sources {
		for _, f := range files {
			if err := s.Data.CheckSource(ctx, project, dataset, f.Name, f.Digest); err != nil {
				return err
			}
		}
	}
	return nil
}

// keyed is the id of a run with an idempotency key: stable, and of the same form as the others.
func keyed(project, key string) string {
	return "pr_" + strings.ToLower(strings.NewReplacer("/", "-", ":", "-", " ", "-").Replace(project+"-"+key))
}

// Run returns a run with its steps.
func (s *Service) Run(ctx context.Context, project, runID string) (r Run, err error) {
	box, err := s.blobs.Box(ctx, project)
	if err != nil {
		return r, err
	}
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		if r, err = selectRun(ctx, q, box, project, runID); err != nil {
			return err
		}
		r.Steps, err = selectSteps(ctx, q, box, runID)
		return err
	})
	return r, err
}

// Runs lists runs with their steps, newest first.
func (s *Service) Runs(ctx context.Context, project, state string, before int64, limit int) (out []Run, err error) {
	box, err := s.blobs.Box(ctx, project)
	if err != nil {
		return nil, err
	}
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		if out, err = selectRuns(ctx, q, box, project, state, before, limit); err != nil {
			return err
		}
		for i := range out {
			if out[i].Steps, err = selectSteps(ctx, q, box, out[i].ID); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

// Cancel ends a run. What its finished steps made stays.
func (s *Service) Cancel(ctx context.Context, project, runID string) error {
	box, err := s.blobs.Box(ctx, project)
	if err != nil {
		return err
	}
	err = s.store.Change(ctx, "pipeline.cancel", runResource(project, runID), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		r, err := selectRun(ctx, tx, box, project, runID)
		if err != nil {
			return event.Draft{}, err
		}
		if r.State != Waiting && r.State != Running {
			return event.Draft{}, fault.New(fault.Conflict, "Run "+runID+" has ended.", "")
		}
		return event.Draft{Type: "pipeline.cancelled", Subject: runID}, updateRun(ctx, tx, box, runID, Cancelled, nil)
	})
	if err != nil {
		return err
	}
	if err := s.Flow.Cancel(ctx, project+"/"+runID); err != nil && !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Conflict) {
		return err
	}
	return nil
}

// AppliedAt is one recorded apply, the newest with seq 0.
func (s *Service) AppliedAt(ctx context.Context, project string, seq int64) (a Applied, err error) {
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		a, _, err = selectApply(ctx, q, project, seq)
		return err
	})
	return a, err
}

// Trained says how a release was made.
func (s *Service) Trained(ctx context.Context, project, release string) (t Trained, err error) {
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		t, err = selectTrained(ctx, q, project, release)
		return err
	})
	return t, err
}

// Candidate answers delivery: a version with its release, or why it cannot be promoted.
func (s *Service) Candidate(ctx context.Context, project, model string, version int64) (delivery.Candidate, error) {
	v, err := s.Registry.Version(ctx, project, model, version)
	if err != nil {
		return delivery.Candidate{}, err
	}
	if v.Release == "" {
		return delivery.Candidate{}, fault.New(fault.Conflict, v.Model+" has no release for this version: nobody can say what it was made of.", "Train it with `falaj run`; versions that only a client registered are not promoted.")
	}
	t, err := s.Trained(ctx, project, v.Release)
	return delivery.Candidate{Version: v.Number, Release: v.Release, Run: v.Run, Author: t.Author}, err
}

package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"falaj/internal/door"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/note"
	"falaj/internal/plan/pipeline"
	"falaj/internal/store"
)

// PipelineRunSummary is one line of the list of runs.
type PipelineRunSummary struct {
	ID        string     `json:"id"`
	Pipeline  string     `json:"pipeline"`
	State     string     `json:"state" enum:"waiting,running,done,failed,cancelled"`
	Actor     ActorRef   `json:"actor"`
	Trigger   note.Note  `json:"trigger"`
	Model     string     `json:"model"`
	CreatedAt int64      `json:"created_at"`
	StartedAt *int64     `json:"started_at"`
	EndedAt   *int64     `json:"ended_at"`
	Steps     StepCounts `json:"steps"`
}

// StepCounts says how far a run is.
type StepCounts struct {
	Total  int `json:"total"`
	Done   int `json:"done"`
	Cached int `json:"cached"`
	Failed int `json:"failed"`
}

// PipelineRun is a run with its steps.
type PipelineRun struct {
	PipelineRunSummary
	GitCommit   string            `json:"git_commit"`
	GitDirty    bool              `json:"git_dirty"`
	Error       *door.ProblemBody `json:"error"`
	ResumedFrom string            `json:"resumed_from"`
	StepList    []PipelineStep    `json:"step_list"`
}

// PipelineStep is one step with its cache verdict and the tail of its log.
type PipelineStep struct {
	Name       string            `json:"name"`
	Kind       string            `json:"kind"`
	State      string            `json:"state" enum:"waiting,running,done,cached,failed,skipped"`
	Needs      []string          `json:"needs"`
	Cache      *StepCache        `json:"cache"`
	StartedAt  *int64            `json:"started_at"`
	EndedAt    *int64            `json:"ended_at"`
	DurationMS *float64          `json:"duration_ms"`
	Attempt    int64             `json:"attempt"`
	Inputs     []pipeline.Ref    `json:"inputs"`
	Outputs    []pipeline.Ref    `json:"outputs"`
	LogTail    string            `json:"log_tail"`
	LogCut     bool              `json:"log_cut"`
	Error      *door.ProblemBody `json:"error"`
}

// StepCache says why a step ran or did not.
type StepCache struct {
	Hit    bool      `json:"hit"`
	Key    string    `json:"key"`
	Reason note.Note `json:"reason"`
}

// Applied is the answer of an apply.
type Applied struct {
	Seq     int64                 `json:"seq"`
	Digest  string                `json:"digest"`
	Changes []pipeline.Difference `json:"changes"`
}

type bundleIn struct {
	InProject
	Body struct {
		YAML   string            `json:"yaml" doc:"the text of falaj.yaml"`
		Files  map[string]string `json:"files" doc:"path -> sha256 digest of a blob uploaded before"`
		Commit string            `json:"commit,omitempty"`
		Dirty  bool              `json:"dirty,omitempty"`
	}
}

type startIn struct {
	InProject
	Body struct {
		Pipeline    string                           `json:"pipeline,omitempty" doc:"run (default), ingest, retrain or challenge"`
		Model       string                           `json:"model,omitempty"`
		Sources     map[string][]pipeline.SourceFile `json:"sources,omitempty" doc:"by dataset: files uploaded before"`
		Params      map[string]string                `json:"params,omitempty"`
		Since       int64                            `json:"since,omitempty" doc:"microseconds UTC"`
		Until       int64                            `json:"until,omitempty" doc:"microseconds UTC: train on what was known by then"`
		HistoryDays int                              `json:"history_days,omitempty"`
		NoCache     bool                             `json:"no_cache,omitempty"`
		Resumes     string                           `json:"resumes,omitempty"`
		Key         string                           `json:"key,omitempty" doc:"idempotency key"`
	}
}

type runsIn struct {
	InProject
	State     string `query:"state"`
	PageToken string `query:"page_token"`
	Limit     int    `query:"limit" default:"100" minimum:"1" maximum:"1000"`
}

type runIn struct {
	InProject
	ID string `path:"run"`
}

func (a *API) pipelines() {
	add(a, "POST", "/projects/{p}/plan", "planProject", "What an apply would change, and which models it reaches", "project.read", a.plan)
	add(a, "POST", "/projects/{p}/apply", "applyProject", "Make the project what its files say", "project.apply", a.apply)
	add(a, "GET", "/projects/{p}/pipelines/runs", "listPipelineRuns", "Pipeline runs, newest first", "pipeline.read", a.listRuns)
	add(a, "GET", "/projects/{p}/pipelines/runs/{run}", "getPipelineRun", "A pipeline run with its steps", "pipeline.read", a.getRun)
	add(a, "POST", "/projects/{p}/pipelines/runs", "startPipelineRun", "Start a pipeline", "pipeline.run", a.startRun, status(http.StatusCreated))
	add(a, "POST", "/projects/{p}/pipelines/runs/{run}/cancel", "cancelPipelineRun", "Cancel a pipeline run", "pipeline.cancel", a.cancelRun)
	add(a, "GET", "/projects/{p}/settled", "settled", "Whether everything that events set off has ended", "pipeline.read", a.settled)
}

func (a *API) bundle(in *bundleIn) pipeline.Bundle {
	return pipeline.Bundle{YAML: in.Body.YAML, Files: in.Body.Files, Commit: in.Body.Commit, Dirty: in.Body.Dirty}
}

func (a *API) plan(ctx context.Context, in *bundleIn) (*Out[Applied], error) {
	d, err := a.Pipelines.Plan(ctx, in.Project, a.bundle(in))
	return answer(Applied{Changes: d}), err
}

func (a *API) apply(ctx context.Context, in *bundleIn) (*Out[Applied], error) {
	ap, d, err := a.Pipelines.Apply(ctx, in.Project, a.bundle(in))
	return answer(Applied{Seq: ap.Seq, Digest: ap.Digest, Changes: d}), err
}

func fromMicros(us int64) time.Time { return store.Time(us) }

func (a *API) startRun(ctx context.Context, in *startIn) (*Out[PipelineRun], error) {
	b := in.Body
	r, err := a.Pipelines.Start(ctx, in.Project, pipeline.Request{Pipeline: b.Pipeline, Model: b.Model, Sources: b.Sources, Params: b.Params, Since: fromMicros(b.Since), Until: fromMicros(b.Until),
		History: time.Duration(b.HistoryDays) * 24 * time.Hour, NoCache: b.NoCache, Resumes: b.Resumes, Key: b.Key, Reason: note.New("trigger.manual", "asked for by hand")})
	if err != nil {
		return nil, err
	}
	return a.getRun(ctx, &runIn{in.InProject, r.ID})
}

func (a *API) listRuns(ctx context.Context, in *runsIn) (*Out[Page[PipelineRunSummary]], error) {
	before, err := pageSeq(in.PageToken)
	if err != nil {
		return nil, err
	}
	list, err := a.Pipelines.Runs(ctx, in.Project, in.State, before, in.Limit)
	if err != nil {
		return nil, err
	}
	p := Page[PipelineRunSummary]{Items: []PipelineRunSummary{}}
	for _, r := range list {
		p.Items = append(p.Items, runSummary(r))
	}
	if len(list) == in.Limit {
		p.NextPageToken = strconv.FormatInt(list[len(list)-1].Seq, 10)
	}
	return answer(p), nil
}

// pageSeq reads a page token that is a sequence number.
func pageSeq(token string) (int64, error) {
	if token == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(token, 10, 64)
	if err != nil {
		return 0, fault.New(fault.Invalid, "The page token is not one of ours.", "Take it from next_page_token.").At("page_token")
	}
	return n, nil
}

func microsOrNil(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	us := store.Micros(t)
	return &us
}

func runSummary(r pipeline.Run) PipelineRunSummary {
	s := PipelineRunSummary{ID: r.ID, Pipeline: r.Pipeline, State: string(r.State), Actor: actorRef(r.Actor), Trigger: r.Request.Reason, Model: r.Model,
		CreatedAt: store.Micros(r.Created), StartedAt: microsOrNil(r.Started), EndedAt: microsOrNil(r.Ended)}
	s.Steps.Total = len(r.Steps)
	for _, st := range r.Steps {
		switch st.State {
		case pipeline.Done:
			s.Steps.Done++
		case pipeline.Cached:
			s.Steps.Done++
			s.Steps.Cached++
		case pipeline.Failed:
			s.Steps.Failed++
		}
	}
	return s
}

func failure(f *pipeline.Failure) *door.ProblemBody {
	if f == nil {
		return nil
	}
	k := fault.Kind(f.Kind)
	return &door.ProblemBody{Title: http.StatusText(k.HTTP()), Detail: f.Public, Status: k.HTTP(), Next: f.Next, Code: f.Kind, Args: map[string]string{}}
}

func (a *API) getRun(ctx context.Context, in *runIn) (*Out[PipelineRun], error) {
	r, err := a.Pipelines.Run(ctx, in.Project, in.ID)
	if err != nil {
		return nil, err
	}
	ap, err := a.Pipelines.AppliedAt(ctx, in.Project, r.Apply)
	if err != nil {
		return nil, err
	}
	out := PipelineRun{PipelineRunSummary: runSummary(r), GitCommit: ap.Bundle.Commit, GitDirty: ap.Bundle.Dirty, Error: failure(r.Error), ResumedFrom: r.Resumed, StepList: []PipelineStep{}}
	for _, st := range r.Steps {
		v := PipelineStep{Name: st.Name, Kind: st.Kind, State: string(st.State), Needs: st.Needs, StartedAt: microsOrNil(st.Started), EndedAt: microsOrNil(st.Ended), Attempt: st.Attempt,
			Inputs: st.Inputs, Outputs: st.Outputs, LogTail: st.Log, LogCut: st.LogCut, Error: failure(st.Error)}
		if st.CacheReason != nil {
			v.Cache = &StepCache{Hit: st.CacheHit, Key: st.CacheKey, Reason: *st.CacheReason}
		}
		if !st.Started.IsZero() {
			end := st.Ended
			if end.IsZero() {
				end = time.Now()
			}
			ms := float64(end.Sub(st.Started).Microseconds()) / 1000
			v.DurationMS = &ms
		}
		out.StepList = append(out.StepList, v)
	}
	return answer(out), nil
}

func (a *API) cancelRun(ctx context.Context, in *runIn) (*Out[PipelineRun], error) {
	if err := a.Pipelines.Cancel(ctx, in.Project, in.ID); err != nil {
		return nil, err
	}
	return a.getRun(ctx, in)
}

// Settled says what still goes on. A canary that waits for traffic and a change that waits for a person do not count.
type Settled struct {
	Settled   bool     `json:"settled"`
	Events    int64    `json:"events_behind"`
	Runs      []string `json:"runs"`
	Changes   []string `json:"changes"`
	Watermark *int64   `json:"watermark" doc:"event time of the project"`
}

func (a *API) settled(ctx context.Context, in *InProject) (*Out[Settled], error) {
	s := Settled{Runs: []string{}, Changes: []string{}}
	var err error
	// The order matters: what an event sets off is seen only when the event is no longer under way.
	if s.Events, err = a.Relay.Behind(ctx); err != nil {
		return nil, err
	}
	for _, state := range []string{"waiting", "running"} {
		runs, err := a.Pipelines.Runs(ctx, in.Project, state, 0, 100)
		if err != nil {
			return nil, err
		}
		for _, r := range runs {
			s.Runs = append(s.Runs, r.ID)
		}
	}
	open, err := a.Delivery.Unsettled(ctx, in.Project)
	if err != nil {
		return nil, err
	}
	s.Changes = append(s.Changes, open...)
	if t, err := a.Pipelines.Watermark(ctx, in.Project); err == nil && !t.IsZero() {
		s.Watermark = microsOrNil(t)
	}
	s.Settled = s.Events == 0 && len(s.Runs) == 0 && len(s.Changes) == 0
	return answer(s), nil
}

package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"falaj/internal/flow"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/note"
	"falaj/internal/kernel/seal"
	"falaj/internal/kernel/who"
	"falaj/internal/plan"
	"falaj/internal/store"
)

type job struct {
	Project string `json:"project"`
	Run     string `json:"run"`
}

// OnEvent starts the workflow of a requested run. It is idempotent; app subscribes it to pipeline.requested.
func (s *Service) OnEvent(ctx context.Context, e event.Event) error {
	var d struct {
		Run   string `json:"run"`
		Actor string `json:"actor"`
	}
	if err := json.Unmarshal(e.Data, &d); err != nil {
		return err
	}
	return s.Flow.Start(s.system(ctx, d.Actor), runWorkflow, e.Project+"/"+d.Run, job{e.Project, d.Run})
}

// system acts for whoever asked for the run.
func (s *Service) system(ctx context.Context, actor string) context.Context {
	return who.With(ctx, who.Actor{Kind: who.System, Name: "plan", Via: "system", OnBehalfOf: actor})
}

// execution is one run under way: what its steps share. Everything in it comes from recorded step results, so that a
// replay after a kill builds the same.
type execution struct {
	s       *Service
	flow    *flow.Run
	run     Run
	idx     int
	plan    *plan.Project
	bundle  Bundle
	files   *files
	since   time.Time
	until   time.Time
	version map[string]int64 // dataset -> version of this run
	digest  map[string]string
}

// outcome is the recorded result of a step.
type outcome struct {
	Hit     bool            `json:"hit"`
	Reason  *note.Note      `json:"reason"`
	Value   json.RawMessage `json:"value"`
	Outputs []Ref           `json:"outputs"`
}

// run is the durable body of every pipeline.
func (s *Service) run(r *flow.Run, input json.RawMessage) (any, error) {
	var j job
	if err := json.Unmarshal(input, &j); err != nil {
		return nil, err
	}
	x := &execution{s: s, flow: r, version: map[string]int64{}, digest: map[string]string{}}
	begun, err := flow.Step(r, "begin", func(ctx context.Context, _ string) (begin, error) { return s.begin(ctx, j) })
	if err != nil {
		return nil, err
	}
	x.run, x.bundle, x.since, x.until = begun.Run, begun.Bundle, begun.Since, begun.Until
	err = x.all()
	_, e := flow.Step(r, "end", func(ctx context.Context, _ string) (bool, error) { return true, s.finish(ctx, x.run, err) })
	if err == nil {
		err = e
	}
	return nil, err
}

type begin struct {
	Run    Run       `json:"run"`
	Bundle Bundle    `json:"bundle"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"`
}

func (s *Service) begin(ctx context.Context, j job) (begin, error) {
	var b begin
	box, err := s.blobs.Box(ctx, j.Project)
	if err != nil {
		return b, err
	}
	err = s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := updateRun(ctx, tx, box, j.Run, Running, nil); err != nil {
			return err
		}
		r, err := selectRun(ctx, tx, box, j.Project, j.Run)
		if err != nil {
			return err
		}
		a, _, err := selectApply(ctx, tx, j.Project, r.Apply)
		b = begin{Run: r, Bundle: a.Bundle, Since: r.Request.Since, Until: r.Request.Until}
		return err
	})
	if err != nil {
		return b, err
	}
	if b.Run.Pipeline == RetrainPipeline && b.Until.IsZero() {
		// Train on what was known before the newest labelled window, so that the window can judge the new model fairly.
		w, ok, err := s.newestWindow(ctx, j.Project, b.Run.Model)
		if err != nil {
			return b, err
		}
		if ok {
			b.Until = w.From
		}
	}
	if h := b.Run.Request.History; h > 0 && !b.Until.IsZero() {
		b.Since = b.Until.Add(-h)
	}
	return b, nil
}

func (s *Service) finish(ctx context.Context, r Run, cause error) error {
	state, kind, code := Done, "pipeline.finished", "" // the words of a fault may quote data, so an event has its kind only
	var f *Failure
	if cause != nil {
		e := fault.From(cause)
		state, kind, code, f = Failed, "pipeline.failed", string(e.Kind), &Failure{string(e.Kind), e.Public, e.Next}
	}
	box, err := s.blobs.Box(ctx, r.Project)
	if err != nil {
		return err
	}
	return s.store.Change(ctx, "pipeline.finish", runResource(r.Project, r.ID), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		if err := updateRun(ctx, tx, box, r.ID, state, f); err != nil {
			return event.Draft{}, err
		}
		return event.Draft{Type: kind, Subject: r.ID, Data: map[string]any{"run": r.ID, "pipeline": r.Pipeline, "model": r.Model, "error": code}}, nil
	})
}

// all does the steps of the run's pipeline.
func (x *execution) all() error {
	// Parsing is pure and its input recorded: it is not a step.
	p, f, err := x.s.load(x.s.system(context.Background(), x.run.Actor), x.run.Project, x.bundle)
	if err != nil {
		return err
	}
	x.plan, x.files = p, f
	for _, name := range order(p, f) {
		if err := x.dataset(name, p.Datasets[name]); err != nil {
			return err
		}
	}
	if err := x.defineFeatures(); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(p.Features)) {
		if p.Features[name].SQL != "" {
			if err := x.materialize(name); err != nil {
				return err
			}
		}
	}
	if x.run.Pipeline == IngestPipeline {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(p.Models)) {
		if x.run.Model != "" && x.run.Model != name {
			continue
		}
		if err := x.model(name, p.Models[name]); err != nil {
			return err
		}
	}
	if x.run.Model != "" {
		if _, ok := p.Models[x.run.Model]; !ok {
			return fault.New(fault.NotFound, "The project has no model '"+x.run.Model+"'.", fmt.Sprintf("Its models are %v.", slices.Sorted(maps.Keys(p.Models))))
		}
	}
	return nil
}

// step runs one durable, recorded and possibly cached step. inputs is nil for a step that decides itself whether there is
// anything to do; fn gets a log and returns the value that is kept.
func (x *execution) step(name, kind string, needs []string, inputs parts, refs []Ref, fn func(ctx context.Context, key string, log func(string)) (outcome, error)) (outcome, error) {
	x.idx++
	idx, s, run := x.idx, x.s, x.run
	return flow.Step(x.flow, name, func(ctx context.Context, key string) (outcome, error) {
		ctx = s.system(ctx, run.Actor)
		st := Step{Name: name, Kind: kind, Needs: needs, Inputs: refs}
		if st.Needs == nil {
			st.Needs = []string{}
		}
		if st.Inputs == nil {
			st.Inputs = []Ref{}
		}
		box, err := s.blobs.Box(ctx, run.Project)
		if err != nil {
			return outcome{}, err
		}
		if err := s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error { return startStep(ctx, tx, run.ID, idx, st) }); err != nil {
			return outcome{}, err
		}
		out, err := s.attempt(ctx, run, box, &st, key, inputs, fn)
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		if store.Away(err) { // the workflow tries again when the database is back
			return out, err
		}
		st.State, st.Outputs = Done, out.Outputs
		if st.Outputs == nil {
			st.Outputs = []Ref{}
		}
		if out.Hit {
			st.State = Cached
		}
		if err != nil {
			e := fault.From(err)
			st.State, st.Error = Failed, &Failure{string(e.Kind), e.Public, e.Next}
			if e.Kind == fault.Internal {
				s.Log.Error("a pipeline step failed", "run", run.ID, "step", name, "err", err)
			}
		}
		e := s.store.Change(ctx, "pipeline.finish", runResource(run.Project, run.ID), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
			return event.Draft{Type: "pipeline.step." + string(st.State), Subject: run.ID, Data: map[string]any{"run": run.ID, "step": name, "reason": code(out.Reason)}}, endStep(ctx, tx, box, run.ID, st)
		})
		if err == nil {
			err = e
		}
		return out, err
	})
}

// code is what an event says of a reason: its words may quote data.
func code(n *note.Note) string {
	if n == nil {
		return ""
	}
	return n.Code
}

func (s *Service) attempt(ctx context.Context, run Run, box *seal.Box, st *Step, key string, inputs parts, fn func(context.Context, string, func(string)) (outcome, error)) (outcome, error) {
	log := s.newLog(ctx, box, run.ID, st.Name)
	defer log.close()
	noteIt := func(hit bool, why *note.Note) error {
		st.CacheHit, st.CacheReason = hit, why
		return s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error { return noteCache(ctx, tx, box, run.ID, *st) })
	}
	if inputs == nil {
		out, err := fn(ctx, key, log.add)
		if err == nil {
			err = noteIt(out.Hit, out.Reason)
		}
		return out, err
	}
	st.CacheKey = inputs.key()
	var hit, last *entry
	err := s.store.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		hit, last, err = selectCache(ctx, q, box, run.Project, st.Name, st.CacheKey)
		return err
	})
	if err != nil {
		return outcome{}, err
	}
	if hit != nil && !run.Request.NoCache {
		var out outcome
		if err := json.Unmarshal(hit.result, &out); err == nil {
			why := note.New("cache.hit", "same inputs as in run {run}", "run", hit.run)
			out.Hit, out.Reason = true, &why
			return out, noteIt(true, &why)
		}
	}
	why := inputs.why(last, run.Request.NoCache)
	if err := noteIt(false, &why); err != nil {
		return outcome{}, err
	}
	out, err := fn(ctx, key, log.add)
	if err != nil {
		return out, err
	}
	out.Reason = &why
	raw, err := json.Marshal(out)
	if err != nil {
		return out, err
	}
	return out, s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		return insertCache(ctx, tx, box, run.Project, st.Name, st.CacheKey, entry{inputs, raw, run.ID})
	})
}

const maxLog = 64 << 10

// liveLog keeps the newest 64 KiB of a step's lines in its row, written at most twice a second.
type liveLog struct {
	s         *Service
	box       *seal.Box
	ctx       context.Context
	run, step string

	mu    sync.Mutex // guards what follows
	text  string
	cut   bool
	dirty bool
	next  time.Time
}

func (s *Service) newLog(ctx context.Context, box *seal.Box, run, step string) *liveLog {
	return &liveLog{s: s, box: box, ctx: context.WithoutCancel(ctx), run: run, step: step}
}

func (l *liveLog) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text += strings.TrimRight(line, "\n") + "\n"
	if len(l.text) > maxLog {
		l.text, l.cut = l.text[len(l.text)-maxLog:], true
		if i := strings.IndexByte(l.text, '\n'); i >= 0 {
			l.text = l.text[i+1:]
		}
	}
	l.dirty = true
	if now := time.Now(); now.After(l.next) {
		l.next = now.Add(500 * time.Millisecond)
		l.write()
	}
}

func (l *liveLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dirty {
		l.write()
	}
}

// write is called with mu held. A log that cannot be kept must not fail the step.
func (l *liveLog) write() {
	l.dirty = false
	err := l.s.store.Write(l.ctx, func(ctx context.Context, tx *store.Tx) error {
		return setLog(ctx, tx, l.box, l.run, l.step, strings.ToValidUTF8(l.text, "?"), l.cut)
	})
	if err != nil {
		l.s.Log.Warn("a step's log could not be kept", "run", l.run, "step", l.step, "err", err)
	}
}

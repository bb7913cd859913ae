package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"falaj/internal/delivery"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/note"
	"falaj/internal/plan"
	"falaj/internal/store"
)

// challenge takes a retrained model through the gates: staging first, then production, where it has to beat the champion.
// A refusal ends the run well: the machinery worked, and the page says why the model lost.
func (x *execution) challenge(name string, t Trained) error {
	envs := environments(x.plan)
	for i, env := range envs {
		if i < len(envs)-1 && len(x.plan.Models[name].Gates[env]) == 0 {
			continue // an environment without gates is no hurdle
		}
		needs := []string{"register " + name}
		out, err := x.step("challenge in "+env, "gate", needs, nil, []Ref{{Kind: "release", ID: t.Release}}, func(ctx context.Context, key string, log func(string)) (outcome, error) {
			return x.s.challenged(ctx, x.run, name, t, env, log)
		})
		if err != nil {
			return err
		}
		var won bool
		if err := json.Unmarshal(out.Value, &won); err != nil || !won {
			return err
		}
	}
	return nil
}

// challenged asks for the promotion and waits until its gates are decided. A person's approval is not waited for.
func (s *Service) challenged(ctx context.Context, r Run, model string, t Trained, env string, log func(string)) (outcome, error) {
	reason := r.Request.Reason
	c, err := s.Delivery().Request(ctx, r.Project, delivery.PromoteRequest{Model: model, Version: t.Version, Environment: env, Reason: reason.Text, Note: &reason, Pipeline: r.ID, Key: r.ID + "/" + env})
	if err != nil {
		return outcome{}, err
	}
	log(fmt.Sprintf("change %s asks for %s@%d in %s", c.ID, model, t.Version, env))
	seen := 0
	for {
		wake := s.store.Wake()
		d, err := s.Delivery().Change(ctx, r.Project, c.ID)
		if err != nil {
			return outcome{}, err
		}
		for ; seen < len(d.Evidence); seen++ {
			ev := d.Evidence[seen]
			line := fmt.Sprintf("%s: %s", ev.Verdict, ev.Label.Text)
			if ev.Note != nil {
				line += " (" + ev.Note.Text + ")"
			}
			log(line)
		}
		switch {
		case d.State == delivery.Assessing, d.State == delivery.Approved, d.State == delivery.Implementing:
			select {
			case <-ctx.Done():
				return outcome{}, ctx.Err()
			case <-wake:
			case <-time.After(2 * time.Second): // a change by another replica wakes nobody here
			}
			continue
		}
		won := d.State == delivery.Closed || d.State == delivery.PendingApproval || d.State == delivery.RollingOut
		why := note.New("challenge."+string(d.State), "the change is {state}", "state", string(d.State))
		if d.Note != nil {
			why = *d.Note
		}
		log(why.Text)
		raw, err := json.Marshal(won)
		return outcome{Reason: &why, Value: raw, Outputs: []Ref{{Kind: "change", ID: c.ID}}}, err
	}
}

// shadow lets the new model run beside the champion of the last environment, unseen by callers.
func (x *execution) shadow(name string, t Trained) error {
	envs := environments(x.plan)
	last := envs[len(envs)-1]
	_, err := x.step("shadow in "+last, "gate", []string{"register " + name}, nil, []Ref{{Kind: "release", ID: t.Release}}, func(ctx context.Context, _ string, log func(string)) (outcome, error) {
		why := note.New("challenger.set", "{model}@{version} runs in the champion's shadow", "model", name, "version", t.Version)
		if err := x.s.Delivery().SetChallenger(ctx, x.run.Project, name, last, t.Version, why); err != nil {
			return outcome{}, err
		}
		log(why.Text)
		return outcome{Reason: &why, Value: json.RawMessage("true"), Outputs: []Ref{{Kind: "model_version", ID: name, Version: &t.Version}}}, nil
	})
	return err
}

// OnAlert answers monitoring: a declared trigger starts the retraining pipeline, at most once per cool-down of event time.
// app subscribes it to quality.degraded and drift.detected.
func (s *Service) OnAlert(ctx context.Context, e event.Event) error {
	var d struct {
		Model string         `json:"model"`
		Args  map[string]any `json:"args"`
	}
	if err := json.Unmarshal(e.Data, &d); err != nil {
		return err
	}
	a, found, err := s.applied(ctx, e.Project)
	if err != nil || !found {
		return err
	}
	p, _, err := s.load(s.system(ctx, a.Actor), e.Project, a.Bundle)
	if err != nil {
		return err
	}
	m, ok := p.Models[d.Model]
	if !ok {
		return nil
	}
	if gone, err := s.replaced(ctx, e.Project, d.Model, environments(p), d.Args); err != nil || gone {
		return err
	}
	switch e.Type {
	case "quality.degraded":
		if !wants(m.Retrain, "quality.degraded") {
			return nil
		}
		why := note.New("retrain.quality", "a model trained on newer data is better by {gap}", "gap", d.Args["gap"])
		return s.trigger(ctx, e, d.Model, "alert", m.Retrain.Cooldown.Std(), Request{Pipeline: RetrainPipeline, Model: d.Model, Reason: why})
	case "drift.detected":
		if !wants(m.Retrain, "drift.weighted") {
			return nil
		}
		why := note.New("retrain.drift", "the inputs drifted from the training data")
		return s.trigger(ctx, e, d.Model, "alert", m.Retrain.Cooldown.Std(), Request{Pipeline: RetrainPipeline, Model: d.Model, Reason: why})
	}
	return nil
}

// replaced says whether the release that an alert speaks of no longer is the champion: a window that ended before the
// change is judged after it, and what it asks for has been done.
func (s *Service) replaced(ctx context.Context, project, model string, envs []string, args map[string]any) (bool, error) {
	judged, _ := args["champion"].(string)
	if r, ok := args["release"].(string); ok {
		judged = r
	}
	all, err := s.Delivery().Pointers(ctx, project, model)
	if err != nil || judged == "" {
		return false, err
	}
	for _, p := range all {
		if p.Role == delivery.Champion && p.Environment == envs[len(envs)-1] {
			return p.Release != judged, nil
		}
	}
	return false, nil
}

func (s *Service) applied(ctx context.Context, project string) (a Applied, found bool, err error) {
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		a, found, err = selectApply(ctx, q, project, 0)
		return err
	})
	return a, found, err
}

func wants(r plan.Retrain, trigger string) bool {
	return slices.ContainsFunc(r.When, func(t plan.Trigger) bool { return t.Event == trigger })
}

// trigger starts a pipeline for an event, exactly once for it and at most once per gap of event time.
func (s *Service) trigger(ctx context.Context, e event.Event, model, name string, gap time.Duration, req Request) error {
	req.Key = e.ID + "-" + req.Pipeline
	return s.fire(ctx, e.Project, model, name, store.Micros(e.Time), gap, req)
}

// fire marks the trigger and starts the run in one transaction, so that a kill between the two loses neither.
func (s *Service) fire(ctx context.Context, project, model, name string, mark int64, gap time.Duration, req Request) error {
	return s.store.Write(s.system(ctx, ""), func(ctx context.Context, tx *store.Tx) error {
		fires, err := takeTrigger(ctx, tx, project, model, name, mark, gap)
		if err != nil || !fires {
			return err
		}
		_, err = s.Start(ctx, project, req)
		return err
	})
}

// Tick starts what is scheduled: when a model's event time has entered a new period, a challenger that learns from all
// that was known at its start. app calls it from time to time, and after a replay advanced the clock.
func (s *Service) Tick(ctx context.Context, project string) error {
	a, found, err := s.applied(ctx, project)
	if err != nil || !found {
		return err
	}
	p, _, err := s.load(s.system(ctx, a.Actor), project, a.Bundle)
	if err != nil {
		return err
	}
	for name, m := range p.Models {
		events, labels, err := s.Monitoring.Watermarks(ctx, project, name)
		if err != nil {
			return err
		}
		if events.IsZero() || labels.IsZero() {
			continue // nothing serves yet: there is nobody to challenge
		}
		now := events
		if labels.Before(now) {
			now = labels
		}
		for _, t := range m.Retrain.When {
			if t.Schedule == "" {
				continue
			}
			start := periodStart(t.Schedule, now)
			why := note.New("trigger.schedule", "{schedule}: a challenger on all that was known on {day}", "schedule", t.Schedule, "day", day(start))
			req := Request{Pipeline: ChallengePipeline, Model: name, Until: start, Reason: why, Key: fmt.Sprintf("%s-%s-%s", name, t.Schedule, day(start))}
			if err := s.tick(ctx, project, name, t.Schedule, start, req); err != nil {
				return err
			}
		}
	}
	return nil
}

// tick fires a schedule for a period, but not for the one in which the model began to serve: it was trained for that.
func (s *Service) tick(ctx context.Context, project, model, schedule string, start time.Time, req Request) error {
	moves, err := s.Delivery().Timeline(ctx, project, model)
	if err != nil {
		return err
	}
	served := false
	for _, m := range moves {
		if m.Kind != "promote" {
			continue
		}
		if served = true; !m.EventAt.Before(start) {
			return nil
		}
	}
	if !served { // nobody to challenge, though event time may have come: a replay sets the clock before the first promotion
		return nil
	}
	return s.fire(ctx, project, model, "schedule "+schedule, store.Micros(start), time.Microsecond, req)
}

// periodStart is the beginning of the day, week (Monday), month or quarter of t, UTC.
func periodStart(schedule string, t time.Time) time.Time {
	t = t.UTC()
	midnight := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	switch schedule {
	case "weekly":
		return midnight.AddDate(0, 0, -(int(t.Weekday())+6)%7)
	case "monthly":
		return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
	case "quarterly":
		return time.Date(t.Year(), (t.Month()-1)/3*3+1, 1, 0, 0, 0, 0, time.UTC)
	}
	return midnight
}

package pipeline

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"falaj/internal/data"
	"falaj/internal/delivery"
	"falaj/internal/features"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/ledger"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/monitoring"
	"falaj/internal/plan"
	"falaj/internal/store"
)

// Apply makes the project what its files say: datasets, features, services, gates, monitors. Applying the same again
// changes nothing. It stops at the first thing that is refused; what came before stays, and a corrected apply goes on.
func (s *Service) Apply(ctx context.Context, project string, b Bundle) (Applied, []Difference, error) {
	p, f, err := s.load(ctx, project, b)
	if err != nil {
		return Applied{}, nil, err
	}
	if _, err := s.Access.CreateProject(ctx, project, "", p.Residency); err != nil {
		return Applied{}, nil, err
	}
	diff, err := s.Plan(ctx, project, b)
	if err != nil {
		return Applied{}, nil, err
	}
	if err := s.define(ctx, p, f); err != nil {
		return Applied{}, nil, err
	}
	a := Applied{Project: project, At: time.Now().UTC(), Actor: who.From(ctx).String(), Digest: "sha256:" + ledger.Digest(b), Bundle: b}
	err = s.store.Change(ctx, "project.apply", policy.Resource{Kind: "Project", ID: project, Project: project}, func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		old, found, err := selectApply(ctx, tx, project, 0)
		if err != nil {
			return event.Draft{}, err
		}
		if found && old.Digest == a.Digest {
			a = old
			return event.Draft{}, nil
		}
		if a.Seq, err = tx.Next(ctx, "applies/"+project); err != nil {
			return event.Draft{}, err
		}
		tx.Before(old.Digest)
		tx.After(a.Digest)
		return event.Draft{Type: "project.applied", Subject: project, Data: map[string]any{"digest": a.Digest, "commit": b.Commit, "dirty": b.Dirty, "seq": a.Seq}}, insertApply(ctx, tx, a)
	})
	return a, diff, err
}

func (s *Service) define(ctx context.Context, p *plan.Project, f *files) error {
	specs, err := datasetSpecs(p, f)
	if err != nil {
		return err
	}
	for _, spec := range specs {
		if _, err := s.Data.Define(ctx, p.Name, spec); err != nil {
			return err
		}
	}
	if _, err := s.defineFeatures(ctx, p, f); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(p.Models)) {
		m := p.Models[name]
		if err := s.Delivery().Define(ctx, p.Name, name, deliveryPolicy(p, m)); err != nil {
			return err
		}
		if _, err := s.Monitoring.SetMonitor(ctx, s.watched(p, name), monitorOf(m.Monitor)); err != nil {
			return err
		}
	}
	return nil
}

// datasetSpecs come in an order in which each stands after those it reads.
func datasetSpecs(p *plan.Project, f *files) ([]data.Spec, error) {
	var out []data.Spec
	for _, name := range order(p, f) {
		d := p.Datasets[name]
		spec := data.Spec{Name: name, Key: d.Key, Time: data.Time{Event: d.Time.Event, Known: d.Time.Known}, DeriveRef: d.Derive, SQLRef: d.SQL}
		var err error
		if d.Derive != "" {
			if spec.Derive, err = f.text(d.Derive); err != nil {
				return nil, err
			}
		}
		if d.SQL != "" {
			if spec.SQL, err = f.text(d.SQL); err != nil {
				return nil, err
			}
		}
		if d.Source != nil {
			spec.Source = sourceOf(*d.Source)
		}
		if d.Contract != nil {
			spec.Contract = contractOf(*d.Contract)
		}
		out = append(out, spec)
	}
	return out, nil
}

func sourceOf(src plan.Source) *data.Source {
	out := &data.Source{Format: data.CSV, Patterns: src.CSV, Delim: src.Delim, Null: src.Null}
	switch {
	case len(src.Parquet) > 0:
		out.Format, out.Patterns = data.Parquet, src.Parquet
	case len(src.JSON) > 0:
		out.Format, out.Patterns = data.JSON, src.JSON
	}
	return out
}

func contractOf(c plan.Contract) data.Contract {
	out := data.Contract{Columns: map[string]data.Rule{}, OnViolation: c.OnViolation, MaxViolating: c.MaxViolating, Duplicates: c.Duplicates, Volume: data.Volume{Anomaly: c.Volume.Anomaly}}
	for name, r := range c.Columns {
		out.Columns[name] = data.Rule{Type: r.Type, In: r.In, Min: r.Min, Max: r.Max, NotNull: r.NotNull, Pattern: r.Pattern, Class: r.Class, Mask: r.Mask}
	}
	return out
}

func featureDefs(p *plan.Project, f *files) (views []features.View, services []features.ServiceDef, err error) {
	for _, name := range slices.Sorted(maps.Keys(p.Features)) {
		v := p.Features[name]
		out := features.View{Name: name, Entity: v.Entity, Event: v.Time.Event, Known: v.Time.Known, TTL: v.TTL.Std(), Columns: v.Columns}
		for _, r := range v.Request {
			out.Request = append(out.Request, features.Computed{Name: r.Name, Expr: r.Expr})
		}
		if v.SQL != "" {
			if out.SQL, err = f.text(v.SQL); err != nil {
				return nil, nil, err
			}
		}
		views = append(views, out)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		services = append(services, features.ServiceDef{Name: name, Views: p.Services[name]})
	}
	return views, services, nil
}

// defineFeatures records views and services. A view that does not list its columns has those of its SELECT, which can be
// bound only once its datasets have a version: before that nothing is recorded and false is returned; the run does it then.
func (s *Service) defineFeatures(ctx context.Context, p *plan.Project, f *files) (bool, error) {
	views, services, err := featureDefs(p, f)
	if err != nil {
		return false, err
	}
	for i := range views {
		v := &views[i]
		if v.SQL == "" {
			continue
		}
		file := p.Features[v.Name].SQL
		for _, name := range reads(p, f, file) {
			d, err := s.Data.Dataset(ctx, p.Name, name)
			if err != nil {
				return false, err
			}
			if d.Latest == nil {
				return false, nil
			}
		}
		res, err := s.Data.Trace(ctx, p.Name, v.SQL, file)
		if err != nil {
			return false, err
		}
		fill(v, res.Columns)
	}
	_, err = s.Features.Define(ctx, p.Name, views, services)
	return true, err
}

// fill gives a view the defaults of falaj.yaml: event_at and known_at as times, all other columns as features.
func fill(v *features.View, columns []data.Column) {
	has := func(name string) bool {
		return slices.ContainsFunc(columns, func(c data.Column) bool { return c.Name == name })
	}
	if v.Event == "" {
		v.Event = "event_at"
		if v.Known == "" && has("known_at") {
			v.Known = "known_at"
		}
	}
	if len(v.Columns) > 0 {
		return
	}
	for _, c := range columns {
		if c.Name != v.Event && c.Name != v.Known && !slices.Contains(v.Entity, c.Name) {
			v.Columns = append(v.Columns, c.Name)
		}
	}
}

// environments are the project's, in order.
func environments(p *plan.Project) []string {
	if len(p.Environments) == 0 {
		return plan.DefaultEnvironments()
	}
	return p.Environments
}

// watched is where a model is monitored: its last environment.
func (s *Service) watched(p *plan.Project, model string) monitoring.Key {
	envs := environments(p)
	return monitoring.Key{Project: p.Name, Model: model, Environment: envs[len(envs)-1]}
}

func deliveryPolicy(p *plan.Project, m plan.Model) delivery.Policy {
	out := delivery.Policy{Environments: environments(p), Gates: map[string][]delivery.Gate{}, Rollout: m.Serve.Rollout.Canary}
	metric := "auc"
	if m.Monitor.Quality != nil {
		metric = m.Monitor.Quality.Metric
	}
	for env, gates := range m.Gates {
		for _, g := range gates {
			d := delivery.Gate{Kind: g.Kind, Metric: g.Metric, Min: g.Min, Max: g.Max, On: g.On, Group: g.Group, NotAuthor: g.NotAuthor}
			if d.Kind == delivery.GateBeats && d.Metric == "" {
				d.Metric = metric
			}
			out.Gates[env] = append(out.Gates[env], d)
		}
	}
	return out
}

func monitorOf(m plan.Monitor) monitoring.Monitor {
	out := monitoring.Monitor{Drift: monitoring.DriftMonitor{Off: m.Drift == nil}, Quality: monitoring.QualityMonitor{Off: m.Quality == nil}}
	if d := m.Drift; d != nil {
		out.Drift = monitoring.DriftMonitor{Method: d.Method, Weigh: d.Weigh, Window: d.Window.Std()}
		if d.Weigh == "none" {
			out.Drift.Weigh = monitoring.WeighEqual
		}
		if d.Threshold != nil {
			out.Drift.Threshold = *d.Threshold
		}
	}
	if q := m.Quality; q != nil {
		out.Quality = monitoring.QualityMonitor{Metric: q.Metric, Window: q.Window.Std(), LabelsAfter: q.LabelsAfter.Std(), MinGap: q.MinGap}
	}
	return out
}

// order sorts datasets so that each comes after those its SQL names. plan.Load has refused cycles.
func order(p *plan.Project, f *files) []string {
	var out []string
	done := map[string]bool{}
	var visit func(string)
	visit = func(name string) {
		if done[name] {
			return
		}
		done[name] = true
		for _, dep := range reads(p, f, p.Datasets[name].SQL) {
			visit(dep)
		}
		out = append(out, name)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Datasets)) {
		visit(name)
	}
	return out
}

// reads lists the datasets of the project that an SQL file names, in order.
func reads(p *plan.Project, f *files, file string) []string {
	if file == "" {
		return nil
	}
	sql, err := f.text(file)
	if err != nil {
		return nil
	}
	var out []string
	for _, name := range plan.Tables(sql) {
		if _, ok := p.Datasets[name]; ok {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Plan says what an apply would change, and which models each change reaches. It changes nothing.
func (s *Service) Plan(ctx context.Context, project string, b Bundle) ([]Difference, error) {
	p, f, err := s.load(ctx, project, b)
	if err != nil {
		return nil, err
	}
	now, err := describe(p, f)
	if err != nil {
		return nil, err
	}
	var old Applied
	var found bool
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		old, found, err = selectApply(ctx, q, project, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	was, reach := map[thing]map[string]string{}, touched(p, f)
	if found {
		if q, g, err := s.load(ctx, project, old.Bundle); err == nil { // an older file that no longer parses counts as nothing
			if was, err = describe(q, g); err != nil {
				return nil, err
			}
			for t, models := range touched(q, g) {
				reach[t] = slices.Compact(slices.Sorted(slices.Values(append(reach[t], models...))))
			}
		}
	}
	return compare(was, now, reach), nil
}

// thing is one named part of a project.
type thing struct{ kind, name string }

func compare(was, now map[thing]map[string]string, reach map[thing][]string) []Difference {
	out := []Difference{}
	add := func(t thing, verb string, what []string) {
		models := reach[t]
		if models == nil {
			models = []string{}
		}
		out = append(out, Difference{Kind: t.kind, Name: t.name, Verb: verb, What: what, Models: models})
	}
	for t, n := range now {
		o, ok := was[t]
		if !ok {
			add(t, "add", []string{})
			continue
		}
		var what []string
		for k := range n {
			if n[k] != o[k] {
				what = append(what, k)
			}
		}
		for k := range o {
			if _, ok := n[k]; !ok {
				what = append(what, k)
			}
		}
		if len(what) > 0 {
			slices.Sort(what)
			add(t, "change", what)
		}
	}
	for t := range was {
		if _, ok := now[t]; !ok {
			add(t, "remove", []string{})
		}
	}
	rank := map[string]int{"dataset": 0, "feature_view": 1, "service": 2, "model": 3}
	slices.SortFunc(out, func(a, b Difference) int {
		if d := rank[a.Kind] - rank[b.Kind]; d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out
}

// describe breaks a project into its parts, each with the digests of what it consists of.
func describe(p *plan.Project, f *files) (map[thing]map[string]string, error) {
	out := map[thing]map[string]string{}
	specs, err := datasetSpecs(p, f)
	if err != nil {
		return nil, err
	}
	for _, d := range specs {
		out[thing{"dataset", d.Name}] = fields(d)
	}
	views, services, err := featureDefs(p, f)
	if err != nil {
		return nil, err
	}
	for _, v := range views {
		out[thing{"feature_view", v.Name}] = fields(v)
	}
	for _, v := range services {
		out[thing{"service", v.Name}] = fields(v)
	}
	for name, m := range p.Models {
		part := fields(m)
		for _, file := range f.of("models."+name, "") {
			part[file] = f.bundle.Files[file]
		}
		out[thing{"model", name}] = part
	}
	return out, nil
}

// fields is a struct's JSON fields with the digest of each.
func fields(v any) map[string]string {
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return nil
	}
	out := map[string]string{}
	for k, raw := range m {
		out[strings.ToLower(k)] = ledger.Digest(raw)
	}
	return out
}

// touched says which models each dataset, view and service reaches.
func touched(p *plan.Project, f *files) map[thing][]string {
	out := map[thing][]string{}
	for model, m := range p.Models {
		seen := map[thing]bool{{"model", model}: true}
		var dataset func(string)
		dataset = func(name string) {
			t := thing{"dataset", name}
			if seen[t] {
				return
			}
			seen[t] = true
			for _, dep := range reads(p, f, p.Datasets[name].SQL) {
				dataset(dep)
			}
		}
		for _, d := range reads(p, f, m.Train.Spine) {
			dataset(d)
		}
		if m.Train.Features != "" {
			seen[thing{"service", m.Train.Features}] = true
			for _, v := range p.Services[m.Train.Features] {
				seen[thing{"feature_view", v}] = true
				for _, d := range reads(p, f, p.Features[v].SQL) {
					dataset(d)
				}
			}
		}
		for t := range seen {
			out[t] = append(out[t], model)
		}
	}
	for t := range out {
		slices.Sort(out[t])
	}
	return out
}

package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"falaj/internal/data"
	"falaj/internal/features"
	"falaj/internal/kernel/note"
	"falaj/internal/lineage"
	"falaj/internal/plan"
)

// made is the value of a data step.
type made struct {
	Version int64  `json:"version"`
	Digest  string `json:"digest"`
}

// dataset ingests or derives one dataset; it is skipped quietly where there is nothing new, and says so.
func (x *execution) dataset(name string, d plan.Dataset) error {
	verb, needs := "ingest", []string(nil)
	if d.SQL != "" {
		verb = "derive"
		for _, dep := range reads(x.plan, x.files, d.SQL) {
			needs = append(needs, stepOf(x.plan, dep)+" "+dep)
		}
	}
	out, err := x.step(verb+" "+name, verb, needs, nil, nil, func(ctx context.Context, key string, log func(string)) (outcome, error) {
		var rep *data.Report
		var err error
		if d.SQL != "" {
			rep, err = x.s.Data.Derive(ctx, x.run.Project, name, data.DeriveRequest{IdempotencyKey: key, Progress: log})
		} else {
			for _, src := range x.run.Request.Sources[name] {
				if _, err := x.s.Data.AddSource(ctx, x.run.Project, name, src.Name, src.Digest); err != nil {
					return outcome{}, err
				}
			}
			rep, err = x.s.Data.Ingest(ctx, x.run.Project, name, data.IngestRequest{IdempotencyKey: key, Progress: log})
		}
		if err != nil {
			return outcome{}, err
		}
		return x.s.dataOutcome(ctx, name, rep, log)
	})
	if err != nil {
		return err
	}
	var v made
	if err := json.Unmarshal(out.Value, &v); err != nil {
		return err
	}
	x.version[name], x.digest[name] = v.Version, v.Digest
	return nil
}

func stepOf(p *plan.Project, dataset string) string {
	if p.Datasets[dataset].SQL != "" {
		return "derive"
	}
	return "ingest"
}

func (s *Service) dataOutcome(ctx context.Context, name string, rep *data.Report, log func(string)) (outcome, error) {
	v := rep.Version
	refused := ""
	for _, a := range rep.Asides {
		what := fmt.Sprintf("%d of %d rows of %s put aside", a.Rows, a.Read, a.Source)
		if a.Whole {
			what = fmt.Sprintf("file %s refused as a whole", a.Source)
			refused = a.Source + ": " + a.Reason
		}
		log(fmt.Sprintf("quarantine %s: %s: %s", a.ID, what, a.Reason))
	}
	// Also when nothing is new: a kill may have come between the version and its lineage.
	if err := s.recordVersion(ctx, v); err != nil {
		return outcome{}, err
	}
	why := note.New("data.nothing_new", "nothing new: {dataset}@{version} stands", "dataset", name, "version", v.N)
	if rep.New {
		why = note.New("data.new_version", "{dataset}@{version} has {rows} rows", "dataset", name, "version", v.N, "rows", v.Rows)
	}
	if refused != "" {
		why = note.New("data.refused", "{dataset}@{version} stands without the refused file {why}", "dataset", name, "version", v.N, "why", refused)
	}
	log(why.Text)
	raw, err := json.Marshal(made{v.N, v.Digest})
	return outcome{Hit: !rep.New && refused == "", Reason: &why, Value: raw, Outputs: []Ref{versionRef(name, v.N)}}, err
}

func versionRef(dataset string, n int64) Ref {
	return Ref{Kind: "dataset_version", ID: dataset, Version: &n}
}

// versionNode is the lineage id of a dataset version: the same spelling as the pages'.
func versionNode(dataset string, n int64) string {
	return fmt.Sprintf("dataset_version:%s@%d", dataset, n)
}

func (s *Service) recordVersion(ctx context.Context, v data.Version) error {
	me := lineage.Node{ID: versionNode(v.Dataset, v.N), Kind: lineage.Dataset, Label: fmt.Sprintf("%s@%d", v.Dataset, v.N), At: v.Created}
	nodes := []lineage.Node{me}
	var edges []lineage.Edge
	for _, src := range v.Sources {
		n := lineage.Node{ID: "source:" + v.Dataset + "/" + src.Name, Kind: lineage.Source, Label: src.Name, At: v.Created}
		nodes = append(nodes, n)
		edges = append(edges, lineage.Edge{From: n.ID, To: me.ID, Role: "read"})
	}
	for _, p := range v.Parents {
		edges = append(edges, lineage.Edge{From: versionNode(p.Dataset, p.N), To: me.ID, Role: "derived"})
	}
	return s.Lineage.Record(ctx, v.Project, nodes, edges)
}

// defineFeatures records the definitions that apply could not yet bind.
func (x *execution) defineFeatures() error {
	if len(x.plan.Features) == 0 {
		return nil
	}
	_, err := x.step("define features", "features", nil, nil, nil, func(ctx context.Context, _ string, log func(string)) (outcome, error) {
		before, _, err := x.s.Features.Definitions(ctx, x.run.Project)
		if err != nil {
			return outcome{}, err
		}
		if _, err := x.s.defineFeatures(ctx, x.plan, x.files); err != nil {
			return outcome{}, err
		}
		after, _, err := x.s.Features.Definitions(ctx, x.run.Project)
		if err != nil {
			return outcome{}, err
		}
		same := reflect.DeepEqual(before, after)
		why := note.New("features.defined", "{views} feature views are defined", "views", len(after))
		if same {
			why = note.New("features.same", "the {views} feature views are as they were", "views", len(after))
		}
		log(why.Text)
		return outcome{Hit: same, Reason: &why, Value: json.RawMessage("{}")}, nil
	})
	return err
}

// materialize brings a view's online rows up to the newest data.
func (x *execution) materialize(view string) error {
	var needs []string
	for _, d := range reads(x.plan, x.files, x.plan.Features[view].SQL) {
		needs = append(needs, stepOf(x.plan, d)+" "+d)
	}
	_, err := x.step("materialize "+view, "features", needs, nil, nil, func(ctx context.Context, key string, log func(string)) (outcome, error) {
		to, err := x.s.newest(ctx, x.run.Project, reads(x.plan, x.files, x.plan.Features[view].SQL))
		if err != nil {
			return outcome{}, err
		}
		w := features.Window{To: to}
		last, err := x.s.Features.Through(ctx, x.run.Project, view)
		if err != nil {
			return outcome{}, err
		}
		if last != nil {
			w.From = last.Window.To
		}
		if to.IsZero() || !w.From.Before(w.To) {
			why := note.New("data.nothing_new", "nothing newer than {at}", "at", w.From.Format(time.RFC3339))
			return outcome{Hit: true, Reason: &why, Value: json.RawMessage("{}")}, nil
		}
		m, err := x.s.Features.Materialize(ctx, x.run.Project, view, w, key)
		if err != nil {
			return outcome{}, err
		}
		why := note.New("features.materialized", "{rows} rows of {view} are online, up to {at}", "rows", m.Rows, "view", view, "at", w.To.Format(time.RFC3339))
		log(why.Text)
		raw, err := json.Marshal(m)
		return outcome{Reason: &why, Value: raw, Outputs: []Ref{{Kind: "feature_view", ID: view}}}, err
	})
	return err
}

// newest is the newest event time of some datasets.
func (s *Service) newest(ctx context.Context, project string, datasets []string) (time.Time, error) {
	var to time.Time
	for _, name := range datasets {
		d, err := s.Data.Dataset(ctx, project, name)
		if err != nil {
			return to, err
		}
		if d.Latest != nil && d.Latest.EventMax != nil {
			if t := time.UnixMicro(*d.Latest.EventMax).UTC(); t.After(to) {
				to = t
			}
		}
	}
	return to, nil
}

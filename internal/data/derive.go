package data

import (
	"context"
	"fmt"
	"slices"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/id"
)

// DeriveRequest asks for the version of an sql dataset that belongs to the latest versions of what it reads. Pins takes
// other versions of some of them.
type DeriveRequest struct {
	IdempotencyKey string
	Pins           map[string]int64
	Progress       func(string)
}

// Derive runs the SELECT of an sql dataset and commits its result, whole, as a version whose parents are the versions
// read. With the same parents and definition as the latest version it does nothing (New is false).
func (s *Service) Derive(ctx context.Context, project, dataset string, req DeriveRequest) (*Report, error) {
	if err := s.may(ctx, "dataset.version.create", project, dataset); err != nil {
		return nil, err
	}
	defer s.lock(project, dataset)()
	_, def, err := s.sources(ctx, project, dataset)
	if err != nil {
		return nil, err
	}
	spec := def.spec
	if spec.SQL == "" {
		return nil, fault.New(fault.Invalid, fmt.Sprintf("Dataset %s comes from source files.", dataset), "Ingest it instead.").At("dataset")
	}
	prev, done, err := s.before(ctx, project, dataset, req.IdempotencyKey)
	if err != nil {
		return nil, err
	}
	if done != nil {
		return &Report{Version: *done}, nil
	}
	trace, want, err := s.traceSQL(ctx, project, spec, req.Pins)
	if err != nil {
		return nil, err
	}
	laid, err := s.lay(ctx, project, want)
	if err != nil {
		return nil, err
	}
	defer laid.Close()
	if prev != nil && prev.Generation == def.generation && slices.Equal(prev.Parents, laid.Pins) {
		return &Report{Version: *prev}, nil
	}
	if req.Progress != nil {
		req.Progress(fmt.Sprintf("%s: computing", dataset))
	}
	out := laid.Room.Path("derived.parquet")
	if _, err := s.engine.Transform(ctx, TransformJob{Dir: laid.Room.Dir, SQL: spec.SQL, Ref: spec.SQLRef, Inputs: laid.Inputs, Out: out, Order: spec.Key, Hide: laid.Masked}); err != nil {
		return nil, err
	}
	// The contract applies to computed rows as to read ones.
	job := IngestJob{Dir: laid.Room.Dir, Path: out, Name: dataset, Format: Parquet, Key: spec.Key, Time: spec.Time, Contract: spec.Contract,
		Out: laid.Room.Path("good.parquet"), Bad: laid.Room.Path("bad.parquet")}
	res, err := s.engine.Ingest(ctx, job)
	if err != nil {
		return nil, err
	}
	s.maskChecks(project, spec.masks(), res.Checks)
	rep := &Report{}
	if res.Bad > 0 {
		if err := s.derivedAside(ctx, project, def, laid.Pins, job.Bad, res, rep); err != nil {
			return nil, err
		}
	}
	if !res.Accepted {
		return rep, fault.New(fault.Refused, fmt.Sprintf("The result of dataset %s breaks its contract: %s.", dataset, because(res.Refusal, res.Checks)), "Look at the rows put aside on the dataset's page, and correct the SQL or the contract.")
	}
	file, err := s.keep(ctx, project, job.Out)
	if err != nil {
		return nil, err
	}
	file.Rows = res.Good
	profile, err := s.engine.Profile(ctx, ProfileJob{Dir: laid.Room.Dir, Files: []string{job.Out}})
	if err != nil {
		return nil, err
	}
	s.maskProfile(project, spec, profile)
	v := Version{ID: id.New("dsv"), Project: project, Dataset: dataset, N: 1, Generation: def.generation, Definition: def.digest, Parents: laid.Pins, Columns: res.Columns,
		Files: []File{file}, Rows: res.Good, Checks: res.Checks, PutAside: res.Bad, Periods: res.Periods, EventMin: res.EventMin, EventMax: res.EventMax,
		Table: dataset, Created: time.Now().UTC().Truncate(time.Microsecond), By: by(ctx), Profile: profile, Lineage: trace}
	base := prev
	if prev != nil && prev.Generation != def.generation {
		base = nil
	}
	done, err = s.publish(ctx, v, prev, base, req.IdempotencyKey, nil)
	if err != nil {
		return nil, err
	}
	if req.Progress != nil {
		req.Progress(fmt.Sprintf("%s/%d: %d rows", dataset, done.N, done.Rows))
	}
	rep.Version, rep.New = *done, true
	return rep, nil
}

// traceSQL binds the SELECT and finds which versions it reads.
func (s *Service) traceSQL(ctx context.Context, project string, spec Spec, pins map[string]int64) (map[string][]string, map[string]int64, error) {
	in, versions, without, err := s.schemas(ctx, project, []string{spec.SQL}, pins)
	if err != nil {
		return nil, nil, err
	}
	delete(in, spec.Name)
	room, err := s.engine.Room(0)
	if err != nil {
		return nil, nil, err
	}
	defer room.Close()
	res, err := s.bind(ctx, room, spec.SQL, spec.SQLRef, in, without)
	if err != nil {
		return nil, nil, err
	}
	want := map[string]int64{}
	for _, t := range res.Tables {
		want[t] = versions[t].N
	}
	return res.From, want, nil
}

// Trace binds the SELECT of an sql dataset, or any one SELECT over datasets, and gives its columns and where each comes
// from, without reading a row.
func (s *Service) Trace(ctx context.Context, project, sql, ref string) (*ColumnsResult, error) {
	in, _, without, err := s.schemas(ctx, project, []string{sql}, nil)
	if err != nil {
		return nil, err
	}
	room, err := s.engine.Room(0)
	if err != nil {
		return nil, err
	}
	defer room.Close()
	return s.bind(ctx, room, sql, ref, in, without)
}

func (s *Service) derivedAside(ctx context.Context, project string, def definition, pins []Parent, rows string, res *IngestResult, rep *Report) error {
	digest := ""
	for _, p := range pins {
		digest += p.Dataset + "/" + fmt.Sprint(p.N) + " "
	}
	w := &work{s: s, project: project, def: def}
	reason := res.Refusal
	if res.Accepted {
		reason = fmt.Sprintf("%s of %s computed rows break the contract and were put aside", Grouped(res.Bad), Grouped(res.Read))
	}
	reason = because(reason, res.Checks)
	a, err := w.aside(ctx, SourceFile{Name: orSQL(def.spec.SQLRef), Digest: digest}, Aside{Reason: reason, Rows: res.Bad, Read: res.Read, Checks: broken(res.Checks), Masks: def.spec.masks()}, rows, !res.Accepted)
	if a != nil {
		rep.Asides = append(rep.Asides, *a)
	}
	return err
}

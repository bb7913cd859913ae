package data

import (
	"context"
	"fmt"
	"slices"
	"time"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/id"
	"falaj/internal/kernel/seal"
	"falaj/internal/store"
)

// IngestRequest asks for a version that covers all source files accepted so far. Sources narrows it to some files, nil
// takes all that are pending. IdempotencyKey makes a repeated call give the version of the first. Progress is told in
// words what happens; it may be nil.
type IngestRequest struct {
	Sources        []string
	IdempotencyKey string
	Progress       func(string)
}

// Report is what an ingest did. New is false when nothing was there to add: Version is then the latest there is.
// Asides are what this call put aside, files and rows.
type Report struct {
	Version Version `json:"version"`
	New     bool    `json:"new"`
	Asides  []Aside `json:"asides,omitempty"`
}

// Ingest reads the pending source files through the contract and commits one version over all accepted files. A file
// that cannot be read, lacks a column or breaks the contract too often is put aside and the others go on; when no file
// of the dataset was ever accepted, that is fault.Refused. A definition that does not fit the data (unknown column in
// the SQL, in the key ...) is fault.Invalid and nothing is kept. Repeating an interrupted call is safe.
func (s *Service) Ingest(ctx context.Context, project, dataset string, req IngestRequest) (*Report, error) {
	if err := s.may(ctx, "dataset.version.create", project, dataset); err != nil {
		return nil, err
	}
	defer s.lock(project, dataset)()
	all, def, err := s.sources(ctx, project, dataset)
	if err != nil {
		return nil, err
	}
	if def.spec.Source == nil {
		return nil, fault.New(fault.Invalid, fmt.Sprintf("Dataset %s is made by SQL and has no files to ingest.", dataset), "Derive it instead.").At("dataset")
	}
	prev, done, err := s.before(ctx, project, dataset, req.IdempotencyKey)
	if err != nil {
		return nil, err
	}
	if done != nil {
		return &Report{Version: *done}, nil
	}
	if len(all) == 0 {
		return nil, fault.New(fault.Invalid, fmt.Sprintf("Dataset %s has no source files: nothing matched %v.", dataset, def.spec.Source.Patterns), "Check the pattern; it is relative to falaj.yaml.").At("source")
	}
	todo, err := pendingOf(all, req.Sources, dataset)
	if err != nil {
		return nil, err
	}
	w, err := s.work(ctx, project, def, prev, todo)
	if err != nil {
		return nil, err
	}
	defer w.room.Close()
	rep := &Report{}
	for i, f := range todo {
		if req.Progress != nil {
			req.Progress(fmt.Sprintf("%s: reading %s (%d of %d)", dataset, f.Name, i+1, len(todo)))
		}
		aside, err := w.read(ctx, f)
		if err != nil {
			return nil, err
		}
		if aside != nil {
			rep.Asides = append(rep.Asides, *aside)
			if req.Progress != nil {
				req.Progress(fmt.Sprintf("%s: put aside: %s: %s", dataset, aside.Source, aside.Reason))
			}
		}
	}
	if len(w.added) == 0 {
		if w.base == nil {
			return rep, s.allRefused(ctx, project, dataset, def.generation, len(all))
		}
		rep.Version = *w.base
		return rep, nil
	}
	v, err := w.commit(ctx, req.IdempotencyKey)
	if err != nil {
		return nil, err
	}
	if req.Progress != nil {
		req.Progress(fmt.Sprintf("%s/%d: %d rows", dataset, v.N, v.Rows))
	}
	rep.Version, rep.New = *v, true
	return rep, nil
}

// before finds the latest version, and the one that an earlier call with this key made.
func (s *Service) before(ctx context.Context, project, dataset, key string) (prev, done *Version, err error) {
	err = s.view(ctx, project, func(ctx context.Context, q store.Querier, box *seal.Box) (err error) {
		if key != "" {
			if done, err = versionByKey(ctx, q, box, project, dataset, key); err != nil || done != nil {
				return err
			}
		}
		prev, err = latest(ctx, q, box, project, dataset)
		return err
	})
	return prev, done, err
}

func (s *Service) allRefused(ctx context.Context, project, dataset string, generation int64, n int) error {
	why := ""
	err := s.view(ctx, project, func(ctx context.Context, q store.Querier, box *seal.Box) error {
		asides, err := listAsides(ctx, q, box, project, dataset, 100)
		for _, a := range asides {
			if a.Generation == generation && a.Whole {
				why = a.Source + ": " + a.Reason
				break
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	return fault.New(fault.Refused, fmt.Sprintf("None of the %d source files of dataset %s was accepted, so there is no version. %s", n, dataset, why),
		"Look at the rows put aside on the dataset's page, correct the file or the contract, and run it again.")
}

// work is one ingest on its way.
type work struct {
	s        *Service
	project  string
	def      definition
	prev     *Version // the latest of all
	base     *Version // prev, when this ingest builds on it
	room     *Room
	existing []string // accepted files in clear, those of base first
	columns  []Column
	source   []Column
	added    []Ingested
	results  []*IngestResult
	periods  map[string]int64
	lineage  map[string][]string // of the derive SELECT, once it is known
}

func (s *Service) work(ctx context.Context, project string, def definition, prev *Version, todo []SourceFile) (*work, error) {
	w := &work{s: s, project: project, def: def, prev: prev, periods: map[string]int64{}}
	if prev != nil && prev.Generation == def.generation {
		w.base = prev
		w.lineage = prev.Lineage
		w.columns = prev.Columns
		for k, n := range prev.Periods {
			w.periods[k] = n
		}
		if len(prev.Sources) > 0 {
			w.source = prev.Sources[0].Source
		}
	}
	var need, largest int64
	for _, f := range todo {
		largest = max(largest, f.Size)
		need += f.Size // each leaves its rows in Parquet
	}
	if w.base != nil {
		for _, f := range w.base.Files {
			need += f.Size
		}
	}
	room, err := s.engine.Room(need + 4*largest + 16<<20)
	if err != nil {
		return nil, err
	}
	w.room = room
	if w.base != nil && len(todo) > 0 {
		for i, f := range w.base.Files {
			path, err := s.layOut(ctx, project, f.Digest, room, fmt.Sprintf("base-%d.parquet", i))
			if err != nil {
				room.Close()
				return nil, err
			}
			w.existing = append(w.existing, path)
		}
	}
	return w, nil
}

// read takes one source file through the contract. It returns what was put aside, if anything.
func (w *work) read(ctx context.Context, f SourceFile) (*Aside, error) {
	spec := w.def.spec
	n := len(w.added)
	job := IngestJob{Dir: w.room.Dir, Name: f.Name, Format: spec.Source.Format, Delim: spec.Source.Delim, Null: spec.Source.Null,
		Source: w.source, Derive: spec.Derive, DeriveRef: spec.DeriveRef, Expect: w.columns, Key: spec.Key, Time: spec.Time, Contract: spec.Contract,
		Existing: w.existing, Out: w.room.Path(fmt.Sprintf("new-%d.parquet", n)), Bad: w.room.Path("bad.parquet")}
	var res *IngestResult
	path, err := w.s.unpack(ctx, w.project, f, w.room)
	if err == nil {
		job.Path = path
		res, err = w.s.engine.Ingest(ctx, job)
	}
	removeAll(w.room.Path("source"))
	defer removeAll(job.Bad)
	if err != nil {
		if fl := fault.From(err); fl.Field == "source" && (fl.Kind == fault.Invalid || fl.Kind == fault.TooLarge) {
			return w.refuse(ctx, f, Aside{Reason: fl.Public, Next: fl.Next}, "")
		}
		return nil, err
	}
	masks, err := w.masks(ctx, res.Source)
	if err != nil {
		return nil, err
	}
	w.s.maskChecks(w.project, masks, res.Checks)
	aside := Aside{Reason: because(res.Refusal, res.Checks), Rows: res.Bad, Read: res.Read, Checks: broken(res.Checks), Masks: masks}
	if res.Accepted && spec.Contract.Volume.Anomaly == ByMonth {
		if check := w.volume(res); check.Rows > 0 {
			res.Checks = append(res.Checks, check)
			if !spec.Contract.Keeps() {
				res.Accepted = false
				aside.Reason, aside.Checks = check.Example, broken(res.Checks)
			}
		}
	}
	rows := ""
	if res.Bad > 0 {
		rows = job.Bad
	}
	if !res.Accepted {
		removeAll(job.Out)
		return w.refuse(ctx, f, aside, rows)
	}
	file, err := w.s.keep(ctx, w.project, job.Out)
	if err != nil {
		return nil, err
	}
	file.Rows = res.Good
	w.added = append(w.added, Ingested{Name: f.Name, Digest: f.Digest, Read: res.Read, Good: res.Good, Bad: res.Bad, File: file,
		Source: res.Source, Out: res.Columns, Period: res.Periods, Min: res.EventMin, Max: res.EventMax})
	w.results = append(w.results, res)
	w.existing = append(w.existing, job.Out)
	w.source, w.columns = res.Source, res.Columns
	for k, c := range res.Periods {
		w.periods[k] += c
	}
	if res.Bad == 0 {
		return nil, nil
	}
	words := "were put aside"
	if spec.Contract.Keeps() {
		words = "stay with a warning"
	}
	aside.Reason = because(fmt.Sprintf("%s of %s rows (%s) break the contract and %s", Grouped(res.Bad), Grouped(res.Read), Percent(float64(res.Bad)/float64(max(res.Read, 1))), words), res.Checks)
	return w.aside(ctx, f, aside, rows, false)
}

// masks gives the masks of the dataset and of the source columns behind them.
func (w *work) masks(ctx context.Context, source []Column) (map[string]string, error) {
	masks := w.def.spec.masks()
	if len(masks) == 0 || w.def.spec.Derive == "" {
		return masks, nil
	}
	err := w.trace(ctx, source)
	return sourceMasks(masks, w.lineage), err
}

// trace finds out once what the columns of the derive SELECT are made of.
func (w *work) trace(ctx context.Context, source []Column) error {
	if w.lineage != nil {
		return nil
	}
	bound, err := w.s.engine.Columns(ctx, ColumnsJob{Dir: w.room.Dir, SQL: w.def.spec.Derive, Ref: w.def.spec.DeriveRef, Inputs: map[string]Input{"source": {Columns: source}}})
	if err == nil {
		w.lineage = bound.From
	}
	return err
}

func broken(all []CheckResult) (out []CheckResult) {
	for _, c := range all {
		if c.Rows > 0 {
			out = append(out, c)
		}
	}
	return out
}

func (w *work) refuse(ctx context.Context, f SourceFile, a Aside, rows string) (*Aside, error) {
	return w.aside(ctx, f, a, rows, true)
}

// aside records what was put aside, once for each file and generation.
func (w *work) aside(ctx context.Context, f SourceFile, a Aside, rows string, whole bool) (*Aside, error) {
	var old *Aside
	if err := w.s.view(ctx, w.project, func(ctx context.Context, q store.Querier, box *seal.Box) (err error) {
		old, err = asideOf(ctx, q, box, w.project, w.def.spec.Name, w.def.generation, f.Name, f.Digest)
		return err
	}); err != nil || old != nil {
		return old, err
	}
	a.ID, a.Project, a.Dataset, a.Generation = id.New("qua"), w.project, w.def.spec.Name, w.def.generation
	a.Source, a.SourceDigest, a.Whole, a.Created, a.By = f.Name, f.Digest, whole, time.Now().UTC().Truncate(time.Microsecond), by(ctx)
	if rows != "" {
		file, err := w.s.keep(ctx, w.project, rows)
		if err != nil {
			return nil, err
		}
		a.RowsDigest = file.Digest
	}
	box, err := w.s.blobs.Box(ctx, w.project)
	if err != nil {
		return nil, err
	}
	err = w.s.db.Change(ctx, "dataset.quarantine.create", resource(w.project, a.Dataset), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		if err := insertAside(ctx, tx, box, a); err != nil {
			return event.Draft{}, err
		}
		if whole {
			if err := putIngest(ctx, tx, w.project, a.Dataset, a.Generation, Ingested{Name: f.Name, Digest: f.Digest, Read: a.Read, Bad: a.Rows}, Refused, 0); err != nil {
				return event.Draft{}, err
			}
		}
		tx.After(a)
		return event.Draft{Type: "data.quarantined", Subject: a.Dataset, Data: map[string]any{"id": a.ID, "source": a.Source, "whole": whole, "rows": a.Rows}}, nil
	})
	if err != nil {
		return nil, err
	}
	return &a, nil
}

// commit makes the version: profile, snapshot, then the row that makes both visible.
func (w *work) commit(ctx context.Context, key string) (*Version, error) {
	spec := w.def.spec
	v := Version{ID: id.New("dsv"), Project: w.project, Dataset: spec.Name, N: 1, Generation: w.def.generation, Definition: w.def.digest,
		Columns: w.columns, Table: spec.Name, Periods: w.periods, Created: time.Now().UTC().Truncate(time.Microsecond), By: by(ctx)}
	if w.base != nil {
		v.Sources = slices.Clone(w.base.Sources)
	}
	v.Sources = append(v.Sources, w.added...)
	for i, in := range v.Sources {
		if i > 0 {
			v.Sources[i].Source, v.Sources[i].Out = nil, nil // the first says it for all
		}
		v.Files, v.Rows = append(v.Files, in.File), v.Rows+in.File.Rows
		v.EventMin, v.EventMax = least(v.EventMin, in.Min, -1), least(v.EventMax, in.Max, 1)
	}
	for _, res := range w.results {
		v.Checks, v.PutAside = mergeChecks(v.Checks, res.Checks), v.PutAside+res.Bad
	}
	profile, err := w.s.engine.Profile(ctx, ProfileJob{Dir: w.room.Dir, Files: w.existing})
	if err != nil {
		return nil, err
	}
	w.s.maskProfile(w.project, spec, profile)
	v.Profile = profile
	if spec.Derive != "" {
		if err := w.trace(ctx, w.source); err != nil {
			return nil, err
		}
		v.Lineage = w.lineage
	}
	return w.s.publish(ctx, v, w.prev, w.base, key, func(ctx context.Context, tx *store.Tx) error {
		for _, f := range w.added {
			if err := putIngest(ctx, tx, w.project, spec.Name, w.def.generation, f, Accepted, v.N); err != nil {
				return err
			}
		}
		return nil
	})
}

func least(a, b *int64, sign int64) *int64 {
	if a == nil || (b != nil && sign**b > sign**a) {
		return b
	}
	return a
}

func mergeChecks(into, more []CheckResult) []CheckResult {
	for _, m := range more {
		i := slices.IndexFunc(into, func(c CheckResult) bool { return c.Check == m.Check && c.Column == m.Column && c.Rule == m.Rule })
		if i < 0 {
			into = append(into, m)
			continue
		}
		into[i].Rows += m.Rows
		if into[i].Example == "" {
			into[i].Example = m.Example
		}
	}
	return into
}

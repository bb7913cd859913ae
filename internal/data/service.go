package data

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"falaj/internal/blob"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/seal"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

// Blobs keeps sources, data files and rows put aside; *blob.Store.
type Blobs = *blob.Store

// Service is the stage. It is safe for concurrent use.
type Service struct {
	db     *store.Store
	blobs  Blobs
	engine Engine
	tables Tables
	mac    func(purpose string, msg []byte) []byte
	limits Limits

	mu    sync.Mutex // guards locks
	locks map[string]*sync.Mutex
}

// Limits bound what one source file may be, in bytes; zero values have defaults.
type Limits struct {
	Source   int64 // one source file as uploaded, default 8 GiB
	Unpacked int64 // one file out of a zip, default 32 GiB
	Ratio    int64 // unpacked to packed size of a zip beyond its first 16 MiB, default 200
}

// New wires the stage. mac is seal.Keys.MAC: it makes pseudonyms. The caller keeps ownership of everything.
func New(db *store.Store, blobs Blobs, engine Engine, tables Tables, mac func(purpose string, msg []byte) []byte, limits Limits) *Service {
	if limits.Source == 0 {
		limits.Source = 8 << 30
	}
	if limits.Unpacked == 0 {
		limits.Unpacked = 32 << 30
	}
	if limits.Ratio == 0 {
		limits.Ratio = 200
	}
	return &Service{db: db, blobs: blobs, engine: engine, tables: tables, mac: mac, limits: limits, locks: map[string]*sync.Mutex{}}
}

func resource(project, dataset string) policy.Resource {
	return policy.Resource{Kind: "dataset", ID: dataset, Project: project}
}

// may refuses work that policy would refuse at its end anyway.
func (s *Service) may(ctx context.Context, action policy.Action, project, dataset string) error {
	res := resource(project, dataset)
	d, err := s.db.Authorize(ctx, action, res)
	if err != nil {
		return err
	}
	if !d.Allow {
		if err := s.db.Deny(ctx, action, res, d); err != nil {
			return err
		}
		return store.Denied(ctx, action, res, d)
	}
	return nil
}

// lock lets one ingest of a dataset run at a time in this process; between processes the version number decides.
func (s *Service) lock(project, dataset string) func() {
	s.mu.Lock()
	l := s.locks[project+"/"+dataset]
	if l == nil {
		l = &sync.Mutex{}
		s.locks[project+"/"+dataset] = l
	}
	s.mu.Unlock()
	l.Lock()
	return l.Unlock
}

// Define records a definition. The same definition again changes nothing and leaves no ledger row. One that asks for
// other content starts a new generation: the next Ingest or Derive makes its version from all sources.
func (s *Service) Define(ctx context.Context, project string, spec Spec) (Dataset, error) {
	if err := spec.Check(); err != nil {
		return Dataset{}, err
	}
	var out Dataset
	same := false
	if err := s.db.View(ctx, func(ctx context.Context, q store.Querier) error {
		old, err := getDefinition(ctx, q, project, spec.Name)
		if fault.Is(err, fault.NotFound) {
			return nil
		}
		same, out = err == nil && old.digest == spec.digest(), old.dataset(project)
		return err
	}); err != nil || same {
		return out, err
	}
	err := s.db.Change(ctx, "dataset.define", resource(project, spec.Name), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		now := store.Micros(time.Now())
		d := definition{spec: spec, digest: spec.digest(), generation: 1, created: now, updated: now}
		old, err := getDefinition(ctx, tx, project, spec.Name)
		if err == nil {
			d.created, d.generation = old.created, old.generation
			if old.spec.content() != spec.content() {
				d.generation++
			}
			tx.Before(old.spec)
		} else if !fault.Is(err, fault.NotFound) {
			return event.Draft{}, err
		}
		tx.After(spec)
		if err := putDefinition(ctx, tx, project, d); err != nil {
			return event.Draft{}, err
		}
		out = d.dataset(project)
		return event.Draft{Type: "dataset.defined", Subject: spec.Name, Data: map[string]any{"generation": d.generation, "digest": d.digest}}, nil
	})
	return out, err
}

// view reads with the box that opens what is sealed of the project.
func (s *Service) view(ctx context.Context, project string, fn func(context.Context, store.Querier, *seal.Box) error) error {
	box, err := s.blobs.Box(ctx, project)
	if err != nil {
		return err
	}
	return s.db.View(ctx, func(ctx context.Context, q store.Querier) error { return fn(ctx, q, box) })
}

// Datasets lists the datasets of a project by name, each with its latest version (without profile).
func (s *Service) Datasets(ctx context.Context, project string) (out []Dataset, err error) {
	err = s.view(ctx, project, func(ctx context.Context, q store.Querier, box *seal.Box) error {
		defs, err := listDefinitions(ctx, q, project)
		for _, d := range defs {
			ds := d.dataset(project)
			if ds.Latest, err = latest(ctx, q, box, project, d.spec.Name); err != nil {
				return err
			}
			out = append(out, ds)
		}
		return err
	})
	return out, err
}

// Dataset gives one dataset with its latest version (without profile); fault.NotFound when it is not defined.
func (s *Service) Dataset(ctx context.Context, project, name string) (out Dataset, err error) {
	err = s.view(ctx, project, func(ctx context.Context, q store.Querier, box *seal.Box) error {
		d, err := getDefinition(ctx, q, project, name)
		if err != nil {
			return err
		}
		out = d.dataset(project)
		out.Latest, err = latest(ctx, q, box, project, name)
		return err
	})
	return out, err
}

// CheckSource says whether AddSource would take the file now.
func (s *Service) CheckSource(ctx context.Context, project, dataset, name, digest string) error {
	_, _, err := s.checkSource(ctx, project, dataset, name, digest)
	return err
}

// checkSource gives the size of the file, and the source that it is already.
func (s *Service) checkSource(ctx context.Context, project, dataset, name, digest string) (size int64, known *SourceFile, err error) {
	if err := checkSourceName(name); err != nil {
		return 0, nil, err
	}
	info, err := s.blobs.Stat(ctx, project, digest)
	if err != nil {
		return 0, nil, err
	}
	if info.Size > s.limits.Source {
		return 0, nil, fault.New(fault.TooLarge, fmt.Sprintf("%s has %d MiB; a source file may have %d MiB.", name, info.Size>>20, s.limits.Source>>20), "Split it into several files.").At("source")
	}
	sources, def, err := s.sources(ctx, project, dataset)
	if err != nil {
		return 0, nil, err
	}
	if def.spec.Source == nil {
		return 0, nil, fault.New(fault.Invalid, fmt.Sprintf("Dataset %s is made by SQL and takes no source files.", dataset), "").At("dataset")
	}
	for _, old := range sources {
		switch {
		case old.Name != name:
		case old.Digest == digest:
			return info.Size, &old, nil
		case old.State == Accepted:
			return 0, nil, fault.New(fault.Conflict, fmt.Sprintf("%s was accepted with other content in %s/%d, and versions do not change.", name, dataset, old.Version),
				"Give the corrected rows as a file with a new name, or change the definition so that everything is read again.").At("source")
		}
	}
	return info.Size, nil, nil
}

// AddSource names a blob of the project as a source file of a dataset. The same name and digest again is no change. A
// name may get another digest as long as the file was not accepted: accepted content is part of immutable versions.
func (s *Service) AddSource(ctx context.Context, project, dataset, name, digest string) (SourceFile, error) {
	size, known, err := s.checkSource(ctx, project, dataset, name, digest)
	if err != nil {
		return SourceFile{}, err
	}
	if known != nil {
		return *known, nil
	}
	f := SourceFile{Name: name, Digest: digest, Size: size, Added: time.Now().UTC().Truncate(time.Microsecond), State: Pending}
	err = s.db.Change(ctx, "source.upload", resource(project, dataset), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		tx.After(f)
		return event.Draft{Type: "source.added", Subject: dataset, Data: map[string]any{"name": name, "digest": digest, "size": size}}, putSource(ctx, tx, project, dataset, f)
	})
	return f, err
}

// Sources lists the source files of a dataset by name, with what became of each.
func (s *Service) Sources(ctx context.Context, project, dataset string) ([]SourceFile, error) {
	out, _, err := s.sources(ctx, project, dataset)
	return out, err
}

func (s *Service) sources(ctx context.Context, project, dataset string) (out []SourceFile, d definition, err error) {
	err = s.db.View(ctx, func(ctx context.Context, q store.Querier) error {
		if d, err = getDefinition(ctx, q, project, dataset); err != nil {
			return err
		}
		out, err = listSources(ctx, q, project, dataset, d.generation)
		return err
	})
	return out, d, err
}

// Versions lists versions newest first, without profiles; before a number, 0 for the newest.
func (s *Service) Versions(ctx context.Context, project, dataset string, before int64, limit int) (out []Version, err error) {
	if limit <= 0 || limit > 1000 {
		limit = 100
	}
	err = s.view(ctx, project, func(ctx context.Context, q store.Querier, box *seal.Box) error {
		if _, err := getDefinition(ctx, q, project, dataset); err != nil {
			return err
		}
		out, err = listVersions(ctx, q, box, project, dataset, before, limit)
		return err
	})
	return out, err
}

// Version gives one version with its profile; n 0 is the latest. In the profile, masked columns show pseudonyms or ***
// and no extremes.
func (s *Service) Version(ctx context.Context, project, dataset string, n int64) (Version, error) {
	return s.version(ctx, project, func(ctx context.Context, q store.Querier, box *seal.Box) (*Version, error) {
		if n == 0 {
			v, err := latest(ctx, q, box, project, dataset)
			if err != nil || v == nil {
				return v, err
			}
			n = v.N
		}
		return versionByN(ctx, q, box, project, dataset, n)
	}, fmt.Sprintf("version of dataset %s", dataset))
}

// VersionByID is Version by its id, for example "dsv_...".
func (s *Service) VersionByID(ctx context.Context, project, versionID string) (Version, error) {
	return s.version(ctx, project, func(ctx context.Context, q store.Querier, box *seal.Box) (*Version, error) {
		return versionByID(ctx, q, box, project, versionID)
	}, "dataset version "+versionID)
}

func (s *Service) version(ctx context.Context, project string, get func(context.Context, store.Querier, *seal.Box) (*Version, error), what string) (Version, error) {
	var v *Version
	var d definition
	err := s.view(ctx, project, func(ctx context.Context, q store.Querier, box *seal.Box) (err error) {
		if v, err = get(ctx, q, box); err != nil {
			return err
		}
		if v == nil {
			return fault.New(fault.NotFound, "There is no "+what+".", "Make one with `falaj run`.")
		}
		d, err = getDefinition(ctx, q, project, v.Dataset)
		return err
	})
	if err != nil {
		return Version{}, err
	}
	s.maskProfile(project, d.spec, v.Profile)
	return *v, nil
}

// Profile gives the profile of a version as it is kept, for figures such as drift, not for display: a mask declared
// after the version was made is not applied.
func (s *Service) Profile(ctx context.Context, project, dataset string, n int64) (p *Profile, err error) {
	err = s.view(ctx, project, func(ctx context.Context, q store.Querier, box *seal.Box) error {
		v, err := versionByN(ctx, q, box, project, dataset, n)
		if err != nil {
			return err
		}
		if v == nil {
			return fault.Newf(fault.NotFound, "There is no version %d of dataset %s.", n, dataset)
		}
		p = v.Profile
		return nil
	})
	return p, err
}

// by names the actor as the ledger does.
func by(ctx context.Context) string { return who.From(ctx).String() }

// pendingOf picks the sources to read: those named, else all, that were neither accepted nor refused.
func pendingOf(all []SourceFile, named []string, dataset string) ([]SourceFile, error) {
	for _, n := range named {
		if !slices.ContainsFunc(all, func(f SourceFile) bool { return f.Name == n }) {
			return nil, fault.New(fault.NotFound, fmt.Sprintf("%s is no source file of dataset %s.", n, dataset), "Upload it first.").At("sources")
		}
	}
	var out []SourceFile
	for _, f := range all {
		if f.State == Pending && (named == nil || slices.Contains(named, f.Name)) {
			out = append(out, f)
		}
	}
	return out, nil
}

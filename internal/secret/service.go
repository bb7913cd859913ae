package secret

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"falaj/internal/blob"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

// Config says what of the machine projects may refer to. The zero value allows nothing.
type Config struct {
	Env []string // names of variables of the server's environment
	Dir string   // folder of files
}

// Service keeps the secrets of projects and opens references. It is safe for concurrent use.
type Service struct {
	db        *store.Store
	blobs     *blob.Store
	resolvers map[string]Resolver // by scheme, never changed
}

// New wires the stage; mac is seal.Keys.MAC.
func New(db *store.Store, blobs *blob.Store, mac func(purpose string, msg []byte) []byte, cfg Config) *Service {
	s := &Service{db: db, blobs: blobs}
	s.resolvers = map[string]Resolver{
		Embedded: embedded{s},
		Env:      environment{allowed: cfg.Env, digest: mac},
		File:     folder{dir: cfg.Dir, digest: mac},
	}
	return s
}

// Open opens a reference for a step of the project that begins now.
func (s *Service) Open(ctx context.Context, project, reference string) (Value, error) {
	ref, err := ParseRef(reference)
	if err != nil {
		return Value{}, err
	}
	return s.resolvers[ref.Scheme].Resolve(ctx, project, ref.Name)
}

func resource(project, name string) policy.Resource {
	return policy.Resource{Kind: "Secret", ID: name, Project: project}
}

// place binds a sealed value to where it stands, so that it opens nowhere else and as no older version.
func place(project, name string, version int64) []byte {
	return []byte("secret|" + project + "|" + name + "|" + strconv.FormatInt(version, 10))
}

// Set gives a name its first or next value; the one before is forgotten. The next step that begins uses it.
func (s *Service) Set(ctx context.Context, project, name string, value []byte) (Info, error) {
	if !nameForm.MatchString(name) {
		return Info{}, fault.New(fault.Invalid, "A secret's name is letters, digits and _, at most 64, a letter first.", "falaj secret set DB_PASSWORD").At("name")
	}
	if len(value) < MinSize || len(value) > MaxSize {
		return Info{}, size(name)
	}
	info := Info{Name: name, Actor: who.From(ctx).String(), Created: time.Now().UTC().Truncate(time.Microsecond)}
	err := s.db.Change(ctx, "secret.set", resource(project, name), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		last, err := lastVersion(ctx, tx, project, name)
		if err != nil {
			return event.Draft{}, err
		}
		info.Version = last + 1
		box, err := s.blobs.Box(ctx, project)
		if err != nil {
			return event.Draft{}, err
		}
		sealed, err := box.Seal(value, place(project, name, info.Version))
		if err != nil {
			return event.Draft{}, err
		}
		tx.After(info)
		draft := event.Draft{Type: "secret.set", Subject: name, Data: map[string]any{"name": name, "version": info.Version}}
		return draft, insert(ctx, tx, project, info, sealed)
	})
	return info, err
}

// List is the project's secrets by name. The caller has asked policy for secret.read.
func (s *Service) List(ctx context.Context, project string) (out []Info, err error) {
	err = s.db.View(ctx, func(ctx context.Context, q store.Querier) error {
		out, err = list(ctx, q, project)
		return err
	})
	return out, err
}

// Remove forgets a value. Its name and versions stay on record: a secret set again goes on counting.
func (s *Service) Remove(ctx context.Context, project, name string) error {
	return s.db.Change(ctx, "secret.remove", resource(project, name), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		n, err := remove(ctx, tx, project, name, time.Now())
		if err == nil && n == 0 {
			err = missing(name)
		}
		return event.Draft{Type: "secret.removed", Subject: name, Data: map[string]any{"name": name}}, err
	})
}

func missing(name string) error {
	return fault.New(fault.NotFound, fmt.Sprintf("The project has no secret '%.64s'.", name), "An admin of the project sets it: falaj secret set "+name)
}

// embedded opens what Set has sealed.
type embedded struct{ s *Service }

func (e embedded) Resolve(ctx context.Context, project, name string) (Value, error) {
	ref := Ref{Embedded, name}
	var version int64
	var sealed []byte
	err := e.s.db.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		version, sealed, err = current(ctx, q, project, name)
		return err
	})
	if store.NotFound(err) {
		return Value{}, missing(name)
	}
	if err != nil {
		return Value{}, err
	}
	box, err := e.s.blobs.Box(ctx, project)
	if err != nil {
		return Value{}, err
	}
	b, err := box.Open(sealed, place(project, name, version))
	if err != nil {
		return Value{}, err
	}
	return checked(ref, "v"+strconv.FormatInt(version, 10), b)
}

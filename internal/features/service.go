package features

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"

	"falaj/internal/blob"
	"falaj/internal/data"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/seal"
	"falaj/internal/store"
)

// Tables are dataset versions laid out in clear in a private room, ready for an engine. Room.Close wipes them.
type Tables struct {
	Room   *data.Room
	Inputs map[string]data.Input
	Pins   []Pin
	Masked bool // some have masked columns: messages must quote no values
}

// Data is what this stage asks of the data stage. Tables lays out the datasets of a project that the SELECTs name, the
// newest versions unless pins names others; the caller closes the room.
type Data interface {
	Tables(ctx context.Context, project string, selects []string, pins map[string]int64) (*Tables, error)
}

// Engine runs SQL over files; data.Engine with its point-in-time join.
type Engine interface {
	Transform(ctx context.Context, job data.TransformJob) (*data.TransformResult, error)
	PointInTime(ctx context.Context, job data.PITJob) (*data.TransformResult, error)
}

// Blobs keeps training sets and gives the project's box for online values.
type Blobs interface {
	Put(ctx context.Context, project string, r io.Reader) (blob.Ref, error)
	Box(ctx context.Context, project string) (*seal.Box, error)
}

// Service is the stage. It is safe for concurrent use.
type Service struct {
	db     *store.Store
	blobs  Blobs
	data   Data
	engine Engine
	online OnlineStore

	mu     sync.RWMutex // guards plans and caches
	plans  map[string]*plan
	caches map[string]*cache // by online table
}

// New wires the stage. The caller keeps ownership of everything.
func New(db *store.Store, blobs Blobs, d Data, e Engine, online OnlineStore) *Service {
	return &Service{db: db, blobs: blobs, data: d, engine: e, online: online, plans: map[string]*plan{}, caches: map[string]*cache{}}
}

func resource(project, kind, id string) policy.Resource {
	return policy.Resource{Kind: kind, ID: id, Project: project}
}

// Define records views and services: each that differs from its current definition becomes a new version, all in one
// change; nothing new makes no change and no ledger row. The result lists all of them, views first, in the given order.
func (s *Service) Define(ctx context.Context, project string, views []View, services []ServiceDef) ([]Defined, error) {
	known := map[string]View{}
	for _, v := range views {
		if _, twice := known[v.Name]; twice {
			return nil, invalid("features", "View %s is defined twice.", v.Name)
		}
		if err := v.check(); err != nil {
			return nil, err
		}
		known[v.Name] = v
	}
	for _, d := range services {
		if !goodName.MatchString(d.Name) || len(d.Views) == 0 {
			return nil, invalid("services", "Service '%s' needs a name of letters, digits and _ and at least one view.", d.Name)
		}
	}
	out, fresh, err := s.compare(ctx, project, views, services)
	if err != nil || fresh == 0 {
		return out, err
	}
	err = s.db.Change(ctx, "feature.define", resource(project, "features", "definitions"), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		var changed []Defined
		out = out[:0]
		for _, v := range views {
			dg, doc, err := digest(v)
			if err != nil {
				return event.Draft{}, err
			}
			d, isNew, err := define(ctx, tx, "feature_views", project, v.Name, dg, doc)
			if err != nil {
				return event.Draft{}, err
			}
			if out = append(out, d); isNew {
				changed = append(changed, d)
			}
		}
		for _, sv := range services {
			doc, err := s.serviceDoc(ctx, tx, project, sv)
			if err != nil {
				return event.Draft{}, err
			}
			dg, text, err := digest(doc)
			if err != nil {
				return event.Draft{}, err
			}
			d, isNew, err := define(ctx, tx, "feature_services", project, sv.Name, dg, text)
			if err != nil {
				return event.Draft{}, err
			}
			if _, err := loadPlan(ctx, tx, project, d, doc); err != nil { // refuses views that do not fit together
				return event.Draft{}, err
			}
			if out = append(out, d); isNew {
				changed = append(changed, d)
			}
		}
		tx.After(changed)
		return event.Draft{Type: "feature.defined", Subject: project, Data: map[string]any{"definitions": changed}}, nil
	})
	return out, err
}

// compare finds what Define would change without writing. It leaves errors of services to the change.
func (s *Service) compare(ctx context.Context, project string, views []View, services []ServiceDef) (out []Defined, fresh int, err error) {
	err = s.db.View(ctx, func(ctx context.Context, q store.Querier) error {
		for _, v := range views {
			dg, _, err := digest(v)
			if err != nil {
				return err
			}
			have, _, err := current(ctx, q, "feature_views", project, v.Name, "")
			if err != nil && !fault.Is(err, fault.NotFound) {
				return err
			}
			if have.Digest != dg {
				fresh++
			}
			out = append(out, have)
		}
		for _, sv := range services {
			have, _, err := current(ctx, q, "feature_services", project, sv.Name, "")
			if err != nil && !fault.Is(err, fault.NotFound) {
				return err
			}
			doc, err := s.serviceDoc(ctx, q, project, sv)
			dg, _, derr := digest(doc)
			if err != nil || derr != nil || have.Digest != dg {
				fresh++
			}
			out = append(out, have)
		}
		return nil
	})
	return out, fresh, err
}

func (s *Service) serviceDoc(ctx context.Context, q store.Querier, project string, sv ServiceDef) (serviceDoc, error) {
	doc := serviceDoc{Name: sv.Name}
	for i, name := range sv.Views {
		if slices.Contains(sv.Views[:i], name) {
			return doc, invalid("services."+sv.Name, "Service %s names view %s twice.", sv.Name, name)
		}
		d, _, err := current(ctx, q, "feature_views", project, name, "")
		if err != nil {
			return doc, err
		}
		doc.Views = append(doc.Views, viewRef{name, d.Digest})
	}
	return doc, nil
}

// view gives a feature view by name (digest "": the current definition) and its digest.
func (s *Service) view(ctx context.Context, project, name, digest string) (v View, dg string, err error) {
	err = s.db.View(ctx, func(ctx context.Context, q store.Querier) error {
		d, text, err := current(ctx, q, "feature_views", project, name, digest)
		if err != nil {
			return err
		}
		dg = d.Digest
		return json.Unmarshal([]byte(text), &v)
	})
	if err == nil && len(v.Request) > 0 {
		err = fault.New(fault.Invalid, fmt.Sprintf("View '%s' holds request features: they come with each request and are never stored.", name), "Name a view that has sql.")
	}
	return v, dg, err
}

// Describe gives a service by name (the current definition) or by name@digest.
func (s *Service) Describe(ctx context.Context, project, service string) (ServiceInfo, error) {
	p, err := s.plan(ctx, project, service)
	if err != nil {
		return ServiceInfo{}, err
	}
	return p.info, nil
}

// Definitions lists the current views and services, by name.
func (s *Service) Definitions(ctx context.Context, project string) (views, services []Defined, err error) {
	err = s.db.View(ctx, func(ctx context.Context, q store.Querier) error {
		if views, err = list(ctx, q, "feature_views", project); err != nil {
			return err
		}
		services, err = list(ctx, q, "feature_services", project)
		return err
	})
	return views, services, err
}

// plan finds a compiled service. Pinned plans never change and are kept; a bare name is resolved in the database.
func (s *Service) plan(ctx context.Context, project, ref string) (*plan, error) {
	name, dg := splitRef(ref)
	id := project + "/" + ref
	if dg != "" {
		s.mu.RLock()
		p := s.plans[id]
		s.mu.RUnlock()
		if p != nil {
			return p, nil
		}
	}
	var p *plan
	err := s.db.View(ctx, func(ctx context.Context, q store.Querier) error {
		d, text, err := current(ctx, q, "feature_services", project, name, dg)
		if err != nil {
			return err
		}
		s.mu.RLock()
		p = s.plans[project+"/"+d.Name+"@"+d.Digest]
		s.mu.RUnlock()
		if p != nil {
			return nil
		}
		var doc serviceDoc
		if err := json.Unmarshal([]byte(text), &doc); err != nil {
			return fault.Wrap(err, fault.Internal, fmt.Sprintf("The definition of service '%s' is damaged.", name), "Define the service again with `falaj apply`.")
		}
		p, err = loadPlan(ctx, q, project, d, doc)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.plans[project+"/"+p.info.Ref()] = p
	s.mu.Unlock()
	return p, nil
}

func loadPlan(ctx context.Context, q store.Querier, project string, d Defined, doc serviceDoc) (*plan, error) {
	var views []View
	var digests []string
	for _, ref := range doc.Views {
		_, text, err := current(ctx, q, "feature_views", project, ref.Name, ref.Digest)
		if err != nil {
			return nil, err
		}
		var v View
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			return nil, err
		}
		views, digests = append(views, v), append(digests, ref.Digest)
	}
	return compile(project, d, views, digests)
}

package serving

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/id"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

// Config is what serving is built from. Every field but the last two is needed.
type Config struct {
	Store    *store.Store
	Features FeatureSource
	Models   ModelSource
	Sink     PredictionSink
	Loaders  map[string][]Loader // by flavor, in the order of preference
	Log      *slog.Logger

	ShadowQueue   int // shadow requests that may wait; 0: 256. What comes beyond is dropped and counted.
	ShadowWorkers int // 0: 1
}

// Service owns the endpoints of this process. It is safe for concurrent use.
type Service struct {
	cfg Config
	log *slog.Logger

	live atomic.Pointer[map[Key]*live] // replaced as a whole, so that Predict takes no lock

	configuring sync.Mutex // one configuration at a time; held over loading
	mu          sync.Mutex // guards engines and their refs
	engines     map[engineKey]*engine
	failures    map[failureKey]int64 // rows that a release failed to answer, since this process began; guarded by mu

	shadows *shadows
	closing sync.WaitGroup // engines being closed
}

type engineKey struct{ project, release string }

type failureKey struct {
	Key
	release string
}

// live is an endpoint that answers. It is immutable; refs counts its owner (the map) and the requests inside.
type live struct {
	Endpoint
	variants []*variant // in the order of buckets, shadows last
	service  *Service
	refs     atomic.Int64
}

type variant struct {
	Variant
	engine  *engine // nil when it could not be loaded
	problem error
}

// New builds the service. Load brings up what is configured; Close ends it.
func New(cfg Config) *Service {
	if cfg.ShadowQueue == 0 {
		cfg.ShadowQueue = 256
	}
	if cfg.ShadowWorkers == 0 {
		cfg.ShadowWorkers = 1
	}
	s := &Service{cfg: cfg, log: cfg.Log, engines: map[engineKey]*engine{}}
	s.live.Store(&map[Key]*live{})
	s.shadows = startShadows(s, cfg.ShadowQueue, cfg.ShadowWorkers)
	return s
}

// Close scores the shadows that wait, then ends every engine once the requests inside are answered. Predict finds no endpoint after it.
func (s *Service) Close() error {
	s.configuring.Lock()
	defer s.configuring.Unlock()
	s.shadows.close()
	for _, l := range *s.live.Load() {
		l.release()
	}
	s.live.Store(&map[Key]*live{})
	s.closing.Wait()
	return nil
}

// Load loads every configured endpoint that is not loaded, and announces what had not been announced. It is called at start, and may be called again when a load had failed.
// The error joins what could not be loaded; those endpoints answer with it, the others serve.
func (s *Service) Load(ctx context.Context) error {
	s.configuring.Lock()
	defer s.configuring.Unlock()
	var all []stored
	if err := s.cfg.Store.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		all, err = readEndpoints(ctx, q, "")
		return err
	}); err != nil {
		return err
	}
	var problems []error
	for _, e := range all {
		if l := (*s.live.Load())[e.Key]; l != nil && l.Ready && l.Generation == e.Generation {
			continue
		}
		l, err := s.bring(ctx, e.Endpoint)
		s.swap(e.Key, l)
		if err != nil {
			s.log.Error("endpoint does not serve", "endpoint", e.Key.String(), "err", err)
			problems = append(problems, err)
		}
		if err == nil {
			if err := s.announce(ctx, l, e.cause, e.announced); err != nil {
				problems = append(problems, err)
			}
		}
	}
	return errors.Join(problems...)
}

// bring loads the variants of an endpoint. A variant that fails keeps its problem and the first problem is returned.
func (s *Service) bring(ctx context.Context, e Endpoint) (*live, error) {
	l := &live{Endpoint: e, service: s}
	l.Variants = order(e.Variants)
	l.Ready = true
	l.refs.Store(1)
	var first error
	for _, v := range l.Variants {
		eng, err := s.acquire(ctx, e.Project, v.Release)
		if err != nil {
			err = fault.Wrap(err, fault.KindOf(err), fmt.Sprintf("Variant %q of %s: %s", v.Name, e.Key, fault.From(err).Public), fault.From(err).Next)
			first = cmpErr(first, err)
			if v.Role != Shadow {
				l.Ready, l.Problem = false, fault.From(err).Public
			}
		}
		l.variants = append(l.variants, &variant{Variant: v, engine: eng, problem: err})
	}
	return l, first
}

func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// acquire takes a reference to a loaded release, loading it when nobody has it. The caller holds configuring.
func (s *Service) acquire(ctx context.Context, project, release string) (*engine, error) {
	k := engineKey{project, release}
	s.mu.Lock()
	if e := s.engines[k]; e != nil {
		e.refs++
		s.mu.Unlock()
		return e, nil
	}
	s.mu.Unlock()
	e, err := s.load(ctx, project, release)
	if err != nil {
		return nil, err
	}
	e.refs = 1
	s.mu.Lock()
	s.engines[k] = e
	s.mu.Unlock()
	return e, nil
}

func (s *Service) drop(project string, e *engine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.refs--; e.refs > 0 {
		return
	}
	delete(s.engines, engineKey{project, e.release.Digest})
	s.closing.Go(func() {
		if err := e.Close(); err != nil {
			s.log.Error("engine did not close", "release", e.release.Digest, "err", err)
		}
	})
}

// hold takes a reference; false when the endpoint was retired meanwhile.
func (l *live) hold() bool {
	for {
		n := l.refs.Load()
		if n == 0 {
			return false
		}
		if l.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (l *live) release() {
	if l.refs.Add(-1) > 0 {
		return
	}
	for _, v := range l.variants {
		if v.engine != nil {
			l.service.drop(l.Project, v.engine)
		}
	}
}

// Failures counts the rows that a release failed to answer at an endpoint since this process began: its own faults, not
// those of requests.
func (s *Service) Failures(k Key, release string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failures[failureKey{k, release}]
}

func (s *Service) failed(k Key, release string, rows int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failures == nil {
		s.failures = map[failureKey]int64{}
	}
	s.failures[failureKey{k, release}] += int64(rows)
}

// find holds the live endpoint of a key, or is nil. The caller releases it.
func (s *Service) find(k Key) *live {
	for {
		l := (*s.live.Load())[k]
		if l == nil || l.hold() {
			return l
		}
	}
}

// swap puts l (nil: nothing) in place of the endpoint; requests inside the old one finish there. The caller holds configuring.
func (s *Service) swap(k Key, l *live) {
	next := maps.Clone(*s.live.Load())
	old := next[k]
	if l == nil {
		delete(next, k)
	} else {
		next[k] = l
	}
	s.live.Store(&next)
	if old != nil {
		old.release()
	}
}

// Configure makes an endpoint have exactly these variants: their releases are loaded and answer a row, then the change is recorded (action endpoint.configure),
// then traffic moves, then serving.activated announces it, once. When a release does not load nothing changes.
// The same variants again change nothing. It must not be called inside a store.Change: loading may take seconds.
func (s *Service) Configure(ctx context.Context, k Key, variants []Variant) (Endpoint, error) {
	return s.configure(ctx, k, variants, nil)
}

// configure with a cause announces that cause also when the variants are there already.
func (s *Service) configure(ctx context.Context, k Key, variants []Variant, why *cause) (Endpoint, error) {
	if k.Project == "" || k.Model == "" || k.Environment == "" || k.Environment == EphemeralEnvironment {
		return Endpoint{}, fault.New(fault.Invalid, fmt.Sprintf("%q is not an endpoint: it needs a project, a model and an environment other than %q.", k, EphemeralEnvironment), "")
	}
	if err := check(variants); err != nil {
		return Endpoint{}, err
	}
	variants = order(variants)
	if err := s.allowed(ctx, k); err != nil { // before a model is loaded for somebody who may not
		return Endpoint{}, err
	}
	s.configuring.Lock()
	defer s.configuring.Unlock()
	have, err := s.stored(ctx, k)
	if err != nil {
		return Endpoint{}, err
	}
	if cur := (*s.live.Load())[k]; cur != nil && cur.Ready && have != nil && cur.Generation == have.Generation && slices.Equal(cur.Variants, variants) {
		if why == nil {
			why = &have.cause
		}
		return cur.Endpoint, s.announce(ctx, cur, *why, have.announced)
	}
	l, err := s.bring(ctx, Endpoint{Key: k, Variants: variants})
	if err != nil {
		l.release()
		return Endpoint{}, err
	}
	if why == nil {
		why = &cause{}
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	err = s.cfg.Store.Change(ctx, "endpoint.configure", resource(k), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		before, err := one(ctx, tx, k)
		if err != nil {
			return event.Draft{}, err
		}
		if before != nil {
			tx.Before(before.Variants)
		}
		tx.After(variants)
		gen, err := writeEndpoint(ctx, tx, k, variants, *why, now)
		l.Generation, l.Configured = gen, now
		return event.Draft{Type: "endpoint.configured", Subject: subject(k), Data: map[string]any{"model": k.Model, "environment": k.Environment, "generation": gen, "variants": variants}}, err
	})
	if err != nil {
		l.release()
		return Endpoint{}, err
	}
	s.swap(k, l)
	return l.Endpoint, s.announce(ctx, l, *why, "")
}

// allowed asks policy; a refusal is recorded, as Change records it.
func (s *Service) allowed(ctx context.Context, k Key) error {
	d, err := s.cfg.Store.Authorize(ctx, "endpoint.configure", resource(k))
	if err == nil && !d.Allow {
		err = s.cfg.Store.Change(ctx, "endpoint.configure", resource(k), func(context.Context, *store.Tx) (event.Draft, error) { return event.Draft{}, nil })
	}
	return err
}

// Remove takes an endpoint away (action endpoint.configure). Removing what is not there is no error.
func (s *Service) Remove(ctx context.Context, k Key) error {
	s.configuring.Lock()
	defer s.configuring.Unlock()
	have, err := s.stored(ctx, k)
	if err != nil || have == nil {
		return err
	}
	err = s.cfg.Store.Change(ctx, "endpoint.configure", resource(k), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		before, err := one(ctx, tx, k)
		if err != nil {
			return event.Draft{}, err
		}
		if before != nil {
			tx.Before(before.Variants)
		}
		_, err = writeEndpoint(ctx, tx, k, nil, cause{}, time.Now())
		return event.Draft{Type: "endpoint.removed", Subject: subject(k), Data: map[string]any{"model": k.Model, "environment": k.Environment}}, err
	})
	if err == nil {
		s.swap(k, nil)
	}
	return err
}

// Desired is what an endpoint shall be; without variants it shall not be.
type Desired struct {
	Key
	Variants []Variant
}

// Reconcile makes each endpoint named in desired so, and leaves the others alone. The error joins what failed; the rest is done.
func (s *Service) Reconcile(ctx context.Context, desired []Desired) error {
	var problems []error
	for _, d := range desired {
		var err error
		if len(d.Variants) == 0 {
			err = s.Remove(ctx, d.Key)
		} else {
			_, err = s.Configure(ctx, d.Key, d.Variants)
		}
		if err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// announce tells by serving.activated that an endpoint answers, unless it was told: a crash in between loses nothing and doubles nothing.
func (s *Service) announce(ctx context.Context, l *live, why cause, announced string) error {
	if announced == announcement(l.Generation, why) {
		return nil
	}
	return s.cfg.Store.Change(who.AsSystem(ctx, "serving"), "endpoint.activate", resource(l.Key), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		first, err := markAnnounced(ctx, tx, l.Key, l.Generation, why)
		if err != nil || !first {
			return event.Draft{}, err
		}
		tx.After(l.Variants)
		return event.Draft{Type: "serving.activated", Subject: subject(l.Key), Data: Activated{l.Model, l.Environment, l.Generation, l.Variants, why.change, why.weight}}, nil
	})
}

// Activated is the data of the event serving.activated: these releases are loaded at an endpoint, have answered, and have the traffic.
// Change and Weight are those of delivery's move that asked for it.
type Activated struct {
	Model       string    `json:"model"`
	Environment string    `json:"environment"`
	Generation  int64     `json:"generation"`
	Variants    []Variant `json:"variants"`
	Change      string    `json:"change"`
	Weight      int64     `json:"weight"`
}

func resource(k Key) policy.Resource {
	return policy.Resource{Kind: "Endpoint", ID: subject(k), Project: k.Project}
}

func subject(k Key) string { return k.Model + "@" + k.Environment }

func (s *Service) stored(ctx context.Context, k Key) (out *stored, err error) {
	err = s.cfg.Store.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		out, err = one(ctx, q, k)
		return err
	})
	return out, err
}

func one(ctx context.Context, q store.Querier, k Key) (*stored, error) {
	all, err := readEndpoints(ctx, q, k.Project)
	for i := range all {
		if all[i].Key == k {
			return &all[i], err
		}
	}
	return nil, err
}

// Endpoints lists what is configured in a project ("": all), with readiness.
func (s *Service) Endpoints(ctx context.Context, project string) ([]Endpoint, error) {
	var all []stored
	if err := s.cfg.Store.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		all, err = readEndpoints(ctx, q, project)
		return err
	}); err != nil {
		return nil, err
	}
	out := make([]Endpoint, len(all))
	for i, e := range all {
		out[i] = e.Endpoint
		out[i].Variants = order(e.Variants)
		if l := (*s.live.Load())[e.Key]; l != nil && l.Generation == e.Generation {
			out[i].Ready, out[i].Problem = l.Ready, l.Problem
		} else {
			out[i].Problem = "It is being loaded."
		}
	}
	return out, nil
}

// Ephemeral serves a release on a throw-away endpoint that lives in memory only, for the tests before staging: Predict answers under its key until the returned function is called.
// It changes no state, so it is not recorded; the caller authorizes it.
func (s *Service) Ephemeral(ctx context.Context, project, release string) (*Endpoint, func() error, error) {
	s.configuring.Lock()
	defer s.configuring.Unlock()
	k := Key{project, id.New("try"), EphemeralEnvironment}
	l, err := s.bring(ctx, Endpoint{Key: k, Generation: 1, Configured: time.Now().UTC(), Variants: []Variant{{Name: string(Champion), Role: Champion, Weight: 100, Release: release}}})
	if err != nil {
		l.release()
		return nil, nil, err
	}
	s.swap(k, l)
	e := l.Endpoint
	return &e, sync.OnceValue(func() error {
		s.configuring.Lock()
		defer s.configuring.Unlock()
		s.swap(k, nil)
		return nil
	}), nil
}

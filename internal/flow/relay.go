package flow

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

// RelayConfig sets the pace of deliveries; zero values take the defaults.
type RelayConfig struct {
	Poll  time.Duration // looking for events of other processes; 0 means 1 s on PostgreSQL and 30 s on SQLite
	Tries int           // how often a subscriber is given an event before it is parked; 0 means 10
	Base  time.Duration // first pause between tries, doubled each time; 0 means 50 ms
	Max   time.Duration // longest pause; 0 means 30 s
	Log   *slog.Logger
}

// Relay carries the outbox on. Each subscriber has its own place in the outbox, kept in the database, and gets every
// event of its types at least once and in order, independent of the others. One relay runs per installation.
type Relay struct {
	store *store.Store
	cfg   RelayConfig
	log   *slog.Logger

	mu     sync.Mutex
	subs   map[string]*subscriber // guarded by mu
	ctx    context.Context        // nil before Start; guarded by mu
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

type subscriber struct {
	name   string
	types  []string
	fn     func(context.Context, event.Event) error
	first  bool          // a new subscriber gets the events since the beginning
	tries  int           // before parking
	base   time.Duration // pause
	max    time.Duration
	at     atomic.Int64 // events up to here are done with in this process
	hasty  bool         // after a parked event the next ones get one try, until one is taken
	cancel context.CancelFunc
	done   chan struct{}
}

// NewRelay makes a relay that delivers nothing yet.
func NewRelay(s *store.Store, cfg RelayConfig) *Relay {
	if cfg.Poll == 0 {
		cfg.Poll = 30 * time.Second
		if s.Name() != "sqlite" {
			cfg.Poll = time.Second
		}
	}
	if cfg.Tries == 0 {
		cfg.Tries = 10
	}
	if cfg.Base == 0 {
		cfg.Base = 50 * time.Millisecond
	}
	if cfg.Max == 0 {
		cfg.Max = 30 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Relay{store: s, cfg: cfg, log: cfg.Log.With("room", "flow"), subs: map[string]*subscriber{}}
}

// SubscribeOption changes a subscription.
type SubscribeOption func(*subscriber)

// FromStart gives a subscriber that was never seen before the whole outbox; without it, it begins with the next event.
func FromStart() SubscribeOption { return func(s *subscriber) { s.first = true } }

// Subscribe names a subscriber in this process. types are event types, or prefixes that end in ".*"; none means all.
// fn must be idempotent in the event's id: a kill between its return and the record of it delivers again. An error
// is tried again with growing pauses, then the event is parked under the subscriber's name (Parked) and the next one
// comes. ctx acts for system:flow. The same name twice panics: it is a mistake of the program.
func (r *Relay) Subscribe(name string, types []string, fn func(ctx context.Context, e event.Event) error, opts ...SubscribeOption) {
	s := &subscriber{name: name, types: types, fn: fn, tries: r.cfg.Tries, base: r.cfg.Base, max: r.cfg.Max}
	for _, o := range opts {
		o(s)
	}
	if !r.add(s) {
		panic("flow: subscriber '" + name + "' is subscribed twice")
	}
}

func (r *Relay) add(s *subscriber) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.subs[s.name] != nil {
		return false
	}
	r.subs[s.name] = s
	if r.ctx != nil {
		r.launch(s)
	}
	return true
}

// remove stops a subscriber and waits for the delivery under way.
func (r *Relay) remove(name string) {
	r.mu.Lock()
	s := r.subs[name]
	delete(r.subs, name)
	r.mu.Unlock()
	if s != nil && s.cancel != nil {
		s.cancel()
		<-s.done
	}
}

// Start begins to deliver; ctx only carries values, Close ends it. When it returns, every subscriber has its place: an
// event committed afterwards reaches also those that were never seen before.
func (r *Relay) Start(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx != nil {
		return nil
	}
	for _, s := range r.subs {
		if _, err := r.place(who.AsSystem(ctx, "flow"), s); err != nil {
			return err
		}
	}
	r.ctx, r.cancel = context.WithCancel(who.AsSystem(context.WithoutCancel(ctx), "flow"))
	for _, s := range r.subs {
		r.launch(s)
	}
	return nil
}

// launch needs r.mu held and r.ctx set.
func (r *Relay) launch(s *subscriber) {
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(r.ctx)
	s.done = make(chan struct{})
	r.wg.Go(func() {
		defer close(s.done)
		r.run(ctx, s)
	})
}

// Close interrupts the deliveries under way and waits for them.
func (r *Relay) Close() {
	r.mu.Lock()
	cancel := r.cancel
	r.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	r.wg.Wait()
}

func (s *subscriber) wants(e event.Event) bool { return matches(s.types, e.Type) }

func matches(types []string, t string) bool {
	if len(types) == 0 {
		return true
	}
	for _, want := range types {
		if prefix, ok := strings.CutSuffix(want, ".*"); want == t || ok && strings.HasPrefix(t, prefix+".") {
			return true
		}
	}
	return false
}

const (
	batch = 100
	// lag is how many events of other types may pass before a subscriber's place is written down.
	lag = 200
)

// run delivers to one subscriber until ctx ends. A failing database is waited for.
func (r *Relay) run(ctx context.Context, s *subscriber) {
	pause := r.cfg.Base
	for ctx.Err() == nil {
		err := r.follow(ctx, s, func() { pause = r.cfg.Base })
		if err == nil || ctx.Err() != nil {
			return
		}
		r.log.Warn("outbox cannot be read or a place in it not be kept, trying again", "subscriber", s.name, "error", err)
		if !sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, r.cfg.Max)
	}
}

func (r *Relay) follow(ctx context.Context, s *subscriber, alive func()) error {
	at, err := r.place(ctx, s)
	if err != nil {
		return err
	}
	kept := at
	s.at.Store(at)
	poll := time.NewTicker(r.cfg.Poll)
	defer poll.Stop()
	for {
		wake := r.store.Wake() // before reading: an event in between closes it
		events, err := r.store.Events(ctx, at, batch)
		if err != nil {
			return err
		}
		alive()
		for _, e := range events {
			if s.wants(e) {
				if err := r.deliver(ctx, s, e); err != nil {
					return err
				}
				kept = e.Seq
			}
			at = e.Seq
			s.at.Store(at)
		}
		if at-kept >= lag {
			if err := r.keep(ctx, s.name, at); err != nil {
				return err
			}
			kept = at
		}
		if len(events) == batch {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-poll.C:
		}
	}
}

// deliver gives one event to one subscriber until it takes it or the event is parked, and keeps its place.
func (r *Relay) deliver(ctx context.Context, s *subscriber, e event.Event) error {
	pause := s.base
	for n := 1; ; n++ {
		err := call(ctx, s, e, r.log)
		if ctx.Err() != nil {
			return ctx.Err() // a delivery cut short counts as none
		}
		if err == nil {
			s.hasty = false
			return r.keep(ctx, s.name, e.Seq)
		}
		if store.Away(err) { // not the subscriber's fault: run waits for the database and gives the event again
			return err
		}
		if n >= s.tries || s.hasty && strings.HasPrefix(s.name, webhookPrefix) {
			s.hasty = true
			r.log.Error("event parked", "subscriber", s.name, "event", e.ID, "type", e.Type, "seq", e.Seq, "tries", n, "error", err)
			return r.park(ctx, s.name, e, n, reason(err))
		}
		r.log.Info("event not taken, trying again", "subscriber", s.name, "event", e.ID, "type", e.Type, "try", n, "pause", pause, "error", err)
		if !sleep(ctx, pause) {
			return ctx.Err()
		}
		pause = min(2*pause, s.max)
	}
}

func call(ctx context.Context, s *subscriber, e event.Event, log *slog.Logger) (err error) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("subscriber panicked", "subscriber", s.name, "event", e.ID, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return s.fn(ctx, e)
}

// reason is what is kept with a parked event: public words, and the cause only when there are none.
func reason(err error) string {
	f := fault.From(err)
	text := f.Public
	if f.Kind == fault.Internal && f.Err != nil {
		text = f.Err.Error()
	}
	if len(text) > 500 {
		text = text[:500]
	}
	return strings.ToValidUTF8(text, "?")
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Behind is how many of the recorded events some subscriber in this process has not done with; webhooks, which may be
// down for long, do not count.
func (r *Relay) Behind(ctx context.Context) (int64, error) {
	head, err := r.head(ctx)
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var behind int64
	for name, s := range r.subs {
		if !strings.HasPrefix(name, webhookPrefix) {
			behind = max(behind, head-s.at.Load())
		}
	}
	return behind, nil
}

// Tail follows the outbox from after a sequence number (below 0: from now on) for a live page. An empty project means
// all. The channel is closed when ctx ends; a reader that is slow holds up only itself.
func (r *Relay) Tail(ctx context.Context, after int64, project string) <-chan event.Event {
	out := make(chan event.Event, 64)
	go func() {
		defer close(out)
		pause := r.cfg.Base
		for ctx.Err() == nil {
			var err error
			if after, err = r.tail(ctx, after, project, out); err != nil && ctx.Err() == nil {
				r.log.Warn("outbox cannot be read, trying again", "error", err)
			}
			if !sleep(ctx, pause) {
				return
			}
			pause = min(2*pause, r.cfg.Max)
		}
	}()
	return out
}

func (r *Relay) tail(ctx context.Context, after int64, project string, out chan<- event.Event) (int64, error) {
	if after < 0 {
		head, err := r.head(ctx)
		if err != nil {
			return after, err
		}
		after = head
	}
	poll := time.NewTicker(min(r.cfg.Poll, 5*time.Second))
	defer poll.Stop()
	for {
		wake := r.store.Wake()
		events, err := r.store.Events(ctx, after, batch)
		if err != nil {
			return after, err
		}
		for _, e := range events {
			if project == "" || e.Project == project {
				select {
				case out <- e:
				case <-ctx.Done():
					return after, nil
				}
			}
			after = e.Seq
		}
		if len(events) == batch {
			continue
		}
		select {
		case <-ctx.Done():
			return after, nil
		case <-wake:
		case <-poll.C:
		}
	}
}

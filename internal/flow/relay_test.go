package flow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
	"falaj/internal/store/sqlite"
	"falaj/internal/store/storetest"
)

// announce makes one change whose event has the type and subject.
func announce(t testing.TB, s *store.Store, project, kind, subject string) {
	t.Helper()
	err := s.Change(storetest.As("amal"), "source.upload", policy.Resource{Kind: "source", ID: subject, Project: project}, func(context.Context, *store.Tx) (event.Draft, error) {
		return event.Draft{Type: kind, Subject: subject, Data: map[string]string{"n": subject}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func newRelay(t *testing.T, s *store.Store) *Relay {
	r := NewRelay(s, RelayConfig{Poll: 50 * time.Millisecond, Tries: 3, Base: time.Millisecond, Max: 4 * time.Millisecond})
	t.Cleanup(r.Close)
	return r
}

// inbox gathers what a subscriber got.
type inbox struct {
	mu  sync.Mutex
	got []string
}

func (b *inbox) take(_ context.Context, e event.Event) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, e.Type+" "+e.Subject)
	return nil
}

func begin(t *testing.T, r *Relay) {
	t.Helper()
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (b *inbox) list() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.got)
}

func TestEachSubscriberGetsItsEventsInOrderOverRestarts(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		announce(t, s, "p", "drift.detected", "before")
		var all, drift, late inbox
		r := newRelay(t, s)
		r.Subscribe("all", nil, all.take, FromStart())
		r.Subscribe("drift", []string{"drift.*"}, drift.take)
		begin(t, r)
		if cursor(t, s, "drift") < 0 || cursor(t, s, "all") < 0 { // else what is announced next could go past them
			t.Error("a subscriber has no place when Start returns")
		}
		var want []string
		for i := range 120 {
			kind := []string{"drift.detected", "driftwood.found", "dataset.version.created"}[i%3]
			announce(t, s, "p", kind, strconv.Itoa(i))
			if i%3 == 0 {
				want = append(want, kind+" "+strconv.Itoa(i))
			}
		}
		eventually(t, "all deliveries", func() bool { return len(all.list()) == 121 && len(drift.list()) == len(want) })
		if diff := cmp.Diff(want, drift.list()); diff != "" {
			t.Error(diff)
		}
		r.Close()
		announce(t, s, "p", "drift.detected", "while down")
		r = newRelay(t, s)
		r.Subscribe("drift", []string{"drift.detected"}, late.take)
		begin(t, r)
		eventually(t, "what came while it was down", func() bool { return len(late.list()) > 0 })
		if diff := cmp.Diff([]string{"drift.detected while down"}, late.list()); diff != "" {
			t.Error(diff)
		}
	})
}

func cursor(t *testing.T, s *store.Store, name string) int64 {
	seq := int64(-1)
	err := s.View(t.Context(), func(ctx context.Context, q store.Querier) error {
		err := q.QueryRow(ctx, `SELECT seq FROM outbox_cursors WHERE name = $1`, name).Scan(&seq)
		if store.NotFound(err) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return seq
}

func TestAPoisonEventIsParkedNamedAndBlocksNobody(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		var good, bad inbox
		var tries, cure atomic.Int64
		r := newRelay(t, s)
		r.Subscribe("good", nil, good.take, FromStart())
		r.Subscribe("bad", nil, func(ctx context.Context, e event.Event) error {
			if a := who.From(ctx); a.Kind != who.System || a.Name != "flow" {
				t.Errorf("delivered as %s", a)
			}
			if e.Subject == "poison" && cure.Load() == 0 {
				if tries.Add(1) == 2 {
					panic("boom")
				}
				return fault.Wrap(errors.New("password=1"), fault.Unavailable, "The kitchen is closed.", "")
			}
			return bad.take(ctx, e)
		}, FromStart())
		begin(t, r)
		for _, subject := range []string{"a", "poison", "b"} {
			announce(t, s, "p", "x.y", subject)
		}
		eventually(t, "the deliveries", func() bool { return len(good.list()) == 3 && len(bad.list()) == 2 })
		if diff := cmp.Diff([]string{"x.y a", "x.y b"}, bad.list()); diff != "" {
			t.Error(diff)
		}
		parked, err := r.Parked(t.Context(), "bad", 0)
		if err != nil || len(parked) != 1 {
			t.Fatal(parked, err)
		}
		p := parked[0]
		if p.Tries != 3 || tries.Load() != 3 || p.Reason != "The kitchen is closed." || p.Type != "x.y" || p.Event == "" {
			t.Errorf("%+v after %d tries", p, tries.Load())
		}
		if err := r.Retry(t.Context(), "bad", p.Seq); !fault.Is(err, fault.Unavailable) {
			t.Errorf("retry of what still fails: %v", err)
		}
		cure.Store(1)
		if err := r.Retry(t.Context(), "bad", p.Seq); err != nil {
			t.Fatal(err)
		}
		if parked, _ := r.Parked(t.Context(), "", 0); len(parked) != 0 || len(bad.list()) != 3 {
			t.Errorf("%+v %v", parked, bad.list())
		}
		if err := r.Retry(t.Context(), "bad", p.Seq); !fault.Is(err, fault.NotFound) {
			t.Errorf("retry of nothing: %v", err)
		}
	})
}

func TestTailFollowsOneProject(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		announce(t, s, "p", "a.b", "old")
		announce(t, s, "q", "a.b", "other")
		r := newRelay(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		tail := r.Tail(ctx, 0, "p")
		if e := <-tail; e.Subject != "old" {
			t.Error(e)
		}
		announce(t, s, "q", "a.b", "other")
		announce(t, s, "p", "a.b", "new")
		e := <-tail
		if e.Subject != "new" || e.Source != "/falaj/p/p" {
			t.Error(e)
		}
		again := r.Tail(ctx, e.Seq-1, "")
		if e := <-again; e.Subject != "new" {
			t.Error(e)
		}
		cancel()
		for range tail {
		}
		for range again {
		}
	})
}

const relayEvents = 300

// relayChild makes changes and delivers them, appending what it got to a file, until it is killed or all are there.
func relayChild() int {
	f, err := os.OpenFile(os.Getenv("FLOW_CRASH_LOG"), os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return 3
	}
	d, err := sqlite.Open(context.Background(), os.Getenv("FLOW_CRASH_PATH"))
	if err != nil {
		return 4
	}
	s, err := store.Open(context.Background(), d, storetest.Roles{}, "", slog.New(slog.DiscardHandler))
	if err != nil {
		return 5
	}
	done := make(chan struct{})
	var once sync.Once
	r := NewRelay(s, RelayConfig{})
	r.Subscribe("log", []string{"a.b"}, func(_ context.Context, e event.Event) error {
		if _, err := fmt.Fprintln(f, e.Seq, e.ID); err != nil {
			return err
		}
		if e.Seq >= relayEvents {
			once.Do(func() { close(done) })
		}
		return nil
	}, FromStart())
	if r.Start(context.Background()) != nil {
		return 8
	}
	head, err := r.head(context.Background())
	if err != nil {
		return 6
	}
	for i := head; i < relayEvents; i++ {
		err := s.Change(storetest.As("amal"), "source.upload", policy.Resource{Kind: "source", ID: "x", Project: "p"}, func(context.Context, *store.Tx) (event.Draft, error) {
			return event.Draft{Type: "a.b", Subject: "x"}, nil
		})
		if err != nil {
			return 7
		}
	}
	if cursor, err := r.place(context.Background(), &subscriber{name: "log"}); err != nil || cursor < relayEvents {
		<-done
	}
	r.Close()
	if s.Close() != nil {
		return 8
	}
	return 0
}

func TestTheRelayLosesNoEventUnderKillNine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "delivered")
	spawn := func() *victim {
		v := &victim{cmd: exec.Command(os.Args[0]), end: make(chan error, 1)}
		v.cmd.Env = append(os.Environ(), "FLOW_RELAY_CHILD=1", "FLOW_CRASH_PATH="+filepath.Join(dir, "falaj.db"), "FLOW_CRASH_LOG="+log)
		v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := v.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { v.end <- v.cmd.Wait() }()
		return v
	}
	kills := 0
	for range 5 {
		if spawn().killAt(t, log, 30) {
			break
		}
		kills++
	}
	if kills == 0 {
		t.Fatal("no kill hit the child")
	}
	if err := <-spawn().end; err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	next, total := int64(1), 0
	ids := map[string]string{}
	for line := range strings.Lines(string(b)) {
		total++
		num, id, _ := strings.Cut(strings.TrimSpace(line), " ")
		seq, err := strconv.ParseInt(num, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if old := ids[num]; old != "" && old != id {
			t.Errorf("event %d came under two ids", seq)
		}
		ids[num] = id
		switch {
		case seq == next:
			next++
		case seq > next:
			t.Fatalf("event %d was delivered before %d", seq, next)
		}
	}
	if next != relayEvents+1 {
		t.Errorf("%d events were delivered, want %d", next-1, relayEvents)
	}
	t.Logf("%d kills: %d deliveries of %d events", kills, total, relayEvents)
}

package delivery_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"falaj/internal/delivery"
	"falaj/internal/flow"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/note"
	"falaj/internal/store"
	"falaj/internal/store/storetest"
)

// room is a delivery stage with its real engine, relay and store. The catalog and the evidence are the test's: they belong
// to other stages.
type room struct {
	*delivery.Service
	store *store.Store
	relay *flow.Relay

	mu      sync.Mutex // guards verdict, canary, loads
	verdict map[string]delivery.Verdict
	canary  delivery.Verdict
	loads   bool
}

func (r *room) Candidate(_ context.Context, _, model string, version int64) (delivery.Candidate, error) {
	if version == 0 {
		version = 1
	}
	return delivery.Candidate{Version: version, Release: fmt.Sprintf("sha256:%s%d", model, version), Author: "user:amal"}, nil
}

func (r *room) Evaluate(_ context.Context, _ delivery.Change, g delivery.Gate) (delivery.Evidence, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.verdict[g.Kind]
	if v == "" {
		v = delivery.Passed
	}
	n := note.New("test", "gate {gate} said {verdict}", "gate", g.Kind, "verdict", string(v))
	return delivery.Evidence{Verdict: v, Note: &n}, nil
}

func (r *room) Canary(context.Context, delivery.Change) (delivery.Evidence, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return delivery.Evidence{Verdict: r.canary}, nil
}

func (r *room) EventTime(context.Context, string) time.Time {
	return time.Date(2013, 7, 1, 0, 0, 0, 0, time.UTC)
}

// serve plays the serving stage: it answers a moved pointer with activated or failed.
func (r *room) serve(ctx context.Context, e event.Event) error {
	r.mu.Lock()
	ok := r.loads
	r.mu.Unlock()
	var m delivery.Moved
	if err := jsonInto(e.Data, &m); err != nil || m.Change == "" {
		return err
	}
	typ := "serving.activated"
	if !ok {
		typ = "serving.failed"
	}
	return r.store.Change(storetest.As("system:serving"), "endpoint.activate", res(e.Project), func(context.Context, *store.Tx) (event.Draft, error) {
		return event.Draft{Type: typ, Subject: m.Model, Data: delivery.Activation{Change: m.Change, Weight: m.Weight, Error: "no such file"}}, nil
	})
}

func open(t *testing.T, s *store.Store) *room {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	f, err := flow.Open(context.Background(), flow.Config{Path: filepath.Join(t.TempDir(), "flow.db"), Executor: "test", SchemaVersion: "1", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	r := &room{store: s, verdict: map[string]delivery.Verdict{}, canary: delivery.Passed, loads: true}
	r.Service = delivery.New(s, f, r, r)
	if err := f.Launch(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.relay = flow.NewRelay(s, flow.RelayConfig{Log: log})
	r.relay.Subscribe("delivery", []string{"change.*", "serving.*"}, r.OnEvent)
	r.relay.Subscribe("serving", []string{"delivery.moved"}, r.serve)
	if err := r.relay.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.relay.Close(); f.Close() })
	min := 0.6
	err = r.Define(storetest.As("amal"), "flights", "delay", delivery.Policy{Gates: map[string][]delivery.Gate{
		"staging":    {{Kind: "tests"}, {Kind: "metric", Metric: "auc", Min: &min}},
		"production": {{Kind: "beats", Metric: "auc"}, {Kind: "approval", Group: "ml-risk", NotAuthor: true}},
	}, Rollout: []int{10, 100}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// until waits for the change to reach a state; the story is told by events, so it looks again at each one.
func (r *room) until(t *testing.T, id string, want delivery.State) delivery.Detail {
	t.Helper()
	for deadline := time.After(time.Minute); ; {
		wake := r.store.Wake()
		d, err := r.Change(context.Background(), "flights", id)
		if err != nil {
			t.Fatal(err)
		}
		if d.State == want {
			return d
		}
		if d.State.Final() {
			t.Fatalf("change is %s (%v), want %s", d.State, d.Note, want)
		}
		select {
		case <-wake:
		case <-deadline:
			t.Fatalf("change is %s, want %s", d.State, want)
		}
	}
}

func (r *room) promote(t *testing.T, version int64, env string) delivery.Change {
	t.Helper()
	c, err := r.Request(storetest.As("amal"), "flights", delivery.PromoteRequest{Model: "delay", Version: version, Environment: env})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (r *room) champion(t *testing.T, env string) (version int64) {
	t.Helper()
	ps, err := r.Pointers(context.Background(), "flights", "delay")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ps {
		if p.Environment == env && p.Role == delivery.Champion {
			version = p.Version
		}
	}
	return version
}

func TestPromotionStory(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		r := open(t, s)
		amal, badr := storetest.As("amal"), storetest.As("badr")

		// Production comes after staging.
		if _, err := r.Request(amal, "flights", delivery.PromoteRequest{Model: "delay", Version: 1, Environment: "production"}); !fault.Is(err, fault.Conflict) || !strings.Contains(fault.From(err).Next, "promote") {
			t.Fatal(err)
		}
		d := r.until(t, r.promote(t, 1, "staging").ID, delivery.Closed)
		if len(d.Evidence) != 2 || d.Evidence[0].Verdict != delivery.Passed || d.Evidence[0].Digest == "" || r.champion(t, "staging") != 1 {
			t.Fatalf("%+v", d)
		}
		// Production waits for a second person.
		c := r.promote(t, 1, "production")
		d = r.until(t, c.ID, delivery.PendingApproval)
		if _, err := r.Approve(amal, "flights", c.ID, ""); !fault.Is(err, fault.Denied) {
			t.Fatalf("the author approved: %v", err)
		}
		if ok, why, err := r.MayDecide(amal, d.Change, "change.approve"); ok || why == nil || err != nil {
			t.Fatal(ok, why, err)
		}
		if ok, _, err := r.MayDecide(badr, d.Change, "change.approve"); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if r.champion(t, "production") != 0 {
			t.Fatal("moved before approval")
		}
		if _, err := r.Request(amal, "flights", delivery.PromoteRequest{Model: "delay", Version: 1, Environment: "production"}); !fault.Is(err, fault.Conflict) {
			t.Fatalf("a second open change: %v", err)
		}
		if _, err := r.Approve(badr, "flights", c.ID, "reviewed"); err != nil {
			t.Fatal(err)
		}
		d = r.until(t, c.ID, delivery.Closed)
		if r.champion(t, "production") != 1 || len(d.Approvals) != 1 || d.Approvals[0].Actor != "user:badr" {
			t.Fatalf("%+v", d)
		}
		// The next one rolls out by weights.
		r.until(t, r.promote(t, 2, "staging").ID, delivery.Closed)
		c = r.promote(t, 2, "production")
		r.until(t, c.ID, delivery.PendingApproval)
		if _, err := r.Approve(badr, "flights", c.ID, ""); err != nil {
			t.Fatal(err)
		}
		d = r.until(t, c.ID, delivery.Closed)
		moved := 0
		for _, e := range d.Events {
			if e.Type == "pointer.moved" {
				moved++
			}
		}
		if moved != 2 || r.champion(t, "production") != 2 {
			t.Fatalf("%d moves: %+v", moved, d.Events)
		}
		// Back in one call, to the one before.
		back, err := r.Rollback(amal, "flights", "delay", "production", 0, "worse", "")
		if err != nil || back.ToVersion != 1 || r.champion(t, "production") != 1 {
			t.Fatal(back, err)
		}
		if _, err := r.Rollback(amal, "flights", "delay", "production", 7, "", ""); !fault.Is(err, fault.NotFound) {
			t.Fatal(err)
		}
		if _, err := r.Rollback(amal, "flights", "delay", "production", 1, "", ""); !fault.Is(err, fault.Conflict) {
			t.Fatal("rolled back to what serves:", err)
		}
		moves, err := r.Timeline(context.Background(), "flights", "delay")
		if err != nil {
			t.Fatal(err)
		}
		var story []string
		for _, m := range moves {
			story = append(story, fmt.Sprintf("%s %s %d>%d", m.Kind, m.Environment, m.FromVersion, m.ToVersion))
		}
		want := "promote staging 0>1; promote production 0>1; promote staging 1>2; canary production 1>2; promote production 1>2; rollback production 2>1"
		if got := strings.Join(story, "; "); got != want {
			t.Fatalf("timeline\n%s\nwant\n%s", got, want)
		}
	})
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		r := open(t, s)
		badr := storetest.As("badr")
		r.set("metric", delivery.Failed)
		d := r.until(t, r.promote(t, 1, "staging").ID, delivery.Refused)
		if len(d.Evidence) != 2 || d.Note == nil || !strings.Contains(d.Note.Text, "metric") || r.champion(t, "staging") != 0 {
			t.Fatalf("%+v", d)
		}
		r.set("metric", delivery.Passed)
		r.until(t, r.promote(t, 1, "staging").ID, delivery.Closed)
		c := r.promote(t, 1, "production")
		r.until(t, c.ID, delivery.PendingApproval)
		if _, err := r.Reject(badr, "flights", c.ID, ""); !fault.Is(err, fault.Invalid) {
			t.Fatalf("rejected without a word: %v", err)
		}
		if _, err := r.Reject(badr, "flights", c.ID, "not before the audit"); err != nil {
			t.Fatal(err)
		}
		r.until(t, c.ID, delivery.Rejected)
		// What serving cannot load is backed out.
		r.mu.Lock()
		r.loads = false
		r.mu.Unlock()
		c = r.promote(t, 1, "production")
		r.until(t, c.ID, delivery.PendingApproval)
		if _, err := r.Approve(badr, "flights", c.ID, ""); err != nil {
			t.Fatal(err)
		}
		d = r.until(t, c.ID, delivery.FailedState)
		if r.champion(t, "production") != 0 || !strings.Contains(d.Note.Text, "no such file") {
			t.Fatalf("%+v", d)
		}
		// A canary that does worse goes back.
		r.mu.Lock()
		r.loads = true
		r.mu.Unlock()
		c = r.promote(t, 1, "production")
		r.until(t, c.ID, delivery.PendingApproval)
		if _, err := r.Approve(badr, "flights", c.ID, ""); err != nil {
			t.Fatal(err)
		}
		r.until(t, c.ID, delivery.Closed)
		r.until(t, r.promote(t, 2, "staging").ID, delivery.Closed)
		r.mu.Lock()
		r.canary = delivery.Failed
		r.mu.Unlock()
		c = r.promote(t, 2, "production")
		r.until(t, c.ID, delivery.PendingApproval)
		if _, err := r.Approve(badr, "flights", c.ID, ""); err != nil {
			t.Fatal(err)
		}
		r.until(t, c.ID, delivery.FailedState)
		if r.champion(t, "production") != 1 {
			t.Fatal("the failed canary stayed")
		}
		ps, err := r.Pointers(context.Background(), "flights", "delay")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range ps {
			if p.Role == delivery.Canary || (p.Environment == "production" && p.Weight != 100) {
				t.Fatalf("%+v", p)
			}
		}
	})
}

func (r *room) set(gate string, v delivery.Verdict) {
	r.mu.Lock()
	r.verdict[gate] = v
	r.mu.Unlock()
}

// A request that comes again under its key, because its answer got lost, gets the same change and leaves no second row.
func TestARepeatedRequestHasOneRow(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		r, amal := open(t, s), storetest.As("amal")
		promote := func(version int64, key string) string {
			c, err := r.Request(amal, "flights", delivery.PromoteRequest{Model: "delay", Version: version, Environment: "dev", Key: key})
			if err != nil {
				t.Fatal(err)
			}
			r.until(t, c.ID, delivery.Closed)
			return c.ID
		}
		want := map[string]int{promote(1, "a"): 1, promote(2, "b"): 1}
		promote(1, "a")
		promote(2, "b")
		for range 2 {
			c, err := r.Rollback(amal, "flights", "delay", "dev", 0, "", "back")
			if err != nil {
				t.Fatal(err)
			}
			want[c.ID] = 1
		}
		rows, err := s.Entries(context.Background(), 0, 10000)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int{}
		for _, e := range rows {
			if e.Action == "change.request" || e.Action == "delivery.rollback" {
				got[strings.TrimPrefix(e.Resource, "Change::flights/")]++
			}
		}
		if len(want) != 3 || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("rows %v, want %v", got, want)
		}
	})
}

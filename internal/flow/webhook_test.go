package flow

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
	"falaj/internal/store"
	"falaj/internal/store/storetest"
)

func newBox(t *testing.T) *seal.Box {
	t.Helper()
	box, err := testBox()
	if err != nil {
		t.Fatal(err)
	}
	return box
}

func loopback() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

// receiver is a webhook's other end: it checks each signature and answers as told.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	secret string
	answer func(n int) int // status of the n-th call, from 1
	got    []map[string]any
	calls  int
	bad    []string
}

func newReceiver(t *testing.T, answer func(n int) int) *receiver {
	r := &receiver{answer: answer}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		body, _ := io.ReadAll(req.Body)
		sig := req.Header.Get("Falaj-Signature")
		unix, _, _ := strings.Cut(strings.TrimPrefix(sig, "t="), ",")
		at, _ := strconv.ParseInt(unix, 10, 64)
		if sig != Sign([]byte(r.secret), time.Unix(at, 0), body) || time.Since(time.Unix(at, 0)) > time.Minute {
			r.bad = append(r.bad, "signature "+sig)
		}
		if ct := req.Header.Get("Content-Type"); ct != "application/cloudevents+json; charset=utf-8" {
			r.bad = append(r.bad, "content type "+ct)
		}
		r.calls++
		status := 200
		if r.answer != nil {
			status = r.answer(r.calls)
		}
		if status == 302 {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
		var e map[string]any
		if err := json.Unmarshal(body, &e); err != nil {
			r.bad = append(r.bad, err.Error())
		}
		if status == 200 {
			r.got = append(r.got, e)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) subjects() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []string{}
	for _, e := range r.got {
		out = append(out, e["subject"].(string))
	}
	return out
}

func (r *receiver) check(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.bad {
		t.Error(b)
	}
}

func newWebhooks(t *testing.T, s *store.Store, box *seal.Box, allow []netip.Prefix) (*Webhooks, *Relay) {
	t.Helper()
	r := newRelay(t, s)
	w := NewWebhooks(s, r, box, WebhookConfig{Allow: allow, AllowHTTP: true, Tries: 3, Base: time.Millisecond, Max: 2 * time.Millisecond, Timeout: 5 * time.Second})
	begin(t, r)
	if err := w.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w, r
}

func TestAWebhookGetsSignedEventsOfItsProject(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		box := newBox(t)
		in := newReceiver(t, func(n int) int {
			if n == 2 {
				return 503 // once: tried again
			}
			return 200
		})
		w, r := newWebhooks(t, s, box, loopback())
		in.mu.Lock()
		h, secret, err := w.Create(storetest.As("root"), NewWebhook{Project: "p", Region: "ae", URL: in.URL + "/hook?token=hush-hush", Types: []string{"drift.*"}})
		in.secret = secret
		in.mu.Unlock()
		if err != nil || len(secret) < 40 {
			t.Fatal(err, len(secret))
		}
		for _, e := range [][3]string{{"p", "drift.detected", "1"}, {"q", "drift.detected", "2"}, {"p", "model.created", "3"}, {"p", "drift.gone", "4"}} {
			announce(t, s, e[0], e[1], e[2])
		}
		eventually(t, "two deliveries", func() bool { return len(in.subjects()) == 2 })
		in.check(t)
		if diff := cmp.Diff([]string{"1", "4"}, in.subjects()); diff != "" {
			t.Error(diff)
		}
		e := in.got[0]
		if e["specversion"] != "1.0" || e["source"] != "/falaj/p/p" || e["type"] != "drift.detected" || e["id"] == "" {
			t.Errorf("%v", e)
		}
		// Nothing of the secret or the URL's token is left in clear where others can read.
		var stored []byte
		err = s.View(t.Context(), func(ctx context.Context, q store.Querier) error {
			return q.QueryRow(ctx, `SELECT secret FROM webhooks WHERE id = $1`, h.ID).Scan(&stored)
		})
		if err != nil || strings.Contains(string(stored), secret) {
			t.Errorf("the secret lies in clear: %v", err)
		}
		events, err := s.Events(t.Context(), 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if strings.Contains(string(e.Data), "hush-hush") || strings.Contains(string(e.Data), secret) {
				t.Errorf("event tells %s", e.Data)
			}
		}
		// A restart with the same keys goes on. What was delivered is written down first: a delivery cut short comes again.
		eventually(t, "the place of the webhook", func() bool { return cursor(t, s, webhookPrefix+h.ID) == events[len(events)-1].Seq })
		r.Close()
		announce(t, s, "p", "drift.detected", "5")
		w, r = newWebhooks(t, s, box, loopback())
		eventually(t, "the delivery after the restart", func() bool { return len(in.subjects()) == 3 })
		if err := w.Test(storetest.As("root"), "p", h.ID); err != nil {
			t.Error(err)
		}
		eventually(t, "the test event", func() bool { return len(in.subjects()) == 4 })
		if list, err := w.List(t.Context(), "p"); err != nil || len(list) != 1 || cmp.Diff(h, list[0]) != "" {
			t.Errorf("%+v %v", list, err)
		}
		if list, _ := w.List(t.Context(), "q"); len(list) != 0 {
			t.Errorf("%+v", list)
		}
		if err := w.Delete(storetest.As("root"), "p", h.ID); err != nil {
			t.Fatal(err)
		}
		announce(t, s, "p", "drift.detected", "6")
		if err := w.Delete(storetest.As("root"), "p", h.ID); !fault.Is(err, fault.NotFound) {
			t.Errorf("second delete: %v", err)
		}
		if n := len(in.subjects()); n != 4 || cursor(t, s, webhookPrefix+h.ID) != -1 {
			t.Errorf("%d deliveries after the delete", n)
		}
		in.check(t)
		r.Close()
	})
}

func TestADeadWebhookGetsDeadLettersAndBlocksNobody(t *testing.T) {
	t.Parallel()
	s := storetest.SQLite(t)
	dead := newReceiver(t, func(n int) int { return 302 })
	good := newReceiver(t, nil)
	w, r := newWebhooks(t, s, newBox(t), loopback())
	for _, in := range []*receiver{dead, good} {
		in.secret = "sixteen characters or more"
		if _, _, err := w.Create(storetest.As("root"), NewWebhook{Project: "p", Region: "ae", URL: in.URL, Secret: in.secret, Types: []string{"a.b"}}); err != nil {
			t.Fatal(err)
		}
	}
	announce(t, s, "p", "a.b", "1")
	announce(t, s, "p", "a.b", "2")
	var parked []Parked
	eventually(t, "the dead letters", func() bool {
		var err error
		parked, err = r.Parked(t.Context(), "", 0)
		return err == nil && len(parked) == 2 && len(good.subjects()) == 2
	})
	for _, p := range parked {
		if !strings.HasPrefix(p.Subscriber, webhookPrefix) || !strings.Contains(p.Reason, "302") {
			t.Errorf("%+v", p)
		}
	}
	dead.mu.Lock()
	defer dead.mu.Unlock()
	if dead.calls != 4 { // three tries of the first, then one each
		t.Errorf("a dead host was called %d times", dead.calls)
	}
}

func TestWebhooksReachNothingPrivate(t *testing.T) {
	t.Parallel()
	s := storetest.SQLite(t)
	in := newReceiver(t, nil)
	w, _ := newWebhooks(t, s, newBox(t), nil)
	port := in.URL[strings.LastIndex(in.URL, ":"):]
	for _, url := range []string{
		in.URL, "http://[::1]" + port, "http://169.254.169.254/latest/meta-data", "http://10.0.0.1/", "http://[::ffff:127.0.0.1]" + port,
		"ftp://example.org/", "http://user:pass@example.org/", "javascript:alert(1)", "http:///x", "", "http://exa mple.org",
	} {
		if _, _, err := w.Create(storetest.As("root"), NewWebhook{Project: "p", Region: "ae", URL: url}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", url, err)
		}
	}
	// A name passes the first check; what it resolves to is checked when it is dialled.
	h, _, err := w.Create(storetest.As("root"), NewWebhook{Project: "p", Region: "ae", URL: "http://localhost" + port})
	if err != nil {
		t.Fatal(err)
	}
	err = w.Test(storetest.As("root"), "p", h.ID)
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.From(err).Public, "private or reserved") {
		t.Errorf("localhost: %v", err)
	}
	if len(in.subjects()) != 0 || in.calls != 0 {
		t.Error("a private address was called")
	}
	if _, _, err := w.Create(storetest.As("amal"), NewWebhook{Project: "p", Region: "ae", URL: "http://example.org"}); !fault.Is(err, fault.Denied) {
		t.Errorf("an engineer: %v", err)
	}
	for _, types := range [][]string{{"a*b"}, {""}, {"*"}, {"a b"}} {
		if _, _, err := w.Create(storetest.As("root"), NewWebhook{Project: "p", Region: "ae", URL: "http://example.org", Types: types}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", types, err)
		}
	}
}

func TestReachable(t *testing.T) {
	t.Parallel()
	for ip, want := range map[string]bool{
		"93.184.216.34": true, "2606:2800:220:1::1": true, "127.0.0.1": false, "10.1.2.3": false, "172.31.0.1": false, "192.168.1.1": false,
		"169.254.169.254": false, "100.64.0.1": false, "0.0.0.0": false, "224.0.0.1": false, "255.255.255.255": false, "198.18.0.1": false,
		"::1": false, "::": false, "fe80::1": false, "fc00::1": false, "::ffff:10.0.0.1": false, "64:ff9b::a00:1": false, "2002:a00:1::": false,
		"2001:0:a00:1::": false, "ff02::1": false, "::10.0.0.1": false, "64:ff9b:1::1": false,
	} {
		if got := reachable(netip.MustParseAddr(ip), nil); got != want {
			t.Errorf("%s: %v", ip, got)
		}
	}
	if !reachable(netip.MustParseAddr("::ffff:10.1.0.1"), []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}) {
		t.Error("an allowed network is refused")
	}
}

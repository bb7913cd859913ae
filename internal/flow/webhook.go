package flow

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/id"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/seal"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

// WebhookConfig sets what webhooks may reach and how long they are tried; zero values take the defaults.
type WebhookConfig struct {
	Allow     []netip.Prefix // private networks that webhooks may reach; none by default
	AllowHTTP bool           // accept http:// URLs beside https://
	Tries     int            // per event, before it is dead-lettered; 0 means 8
	Base      time.Duration  // first pause, doubled each time; 0 means 1 s
	Max       time.Duration  // longest pause; 0 means 2 min
	Timeout   time.Duration  // per request; 0 means 10 s
}

// Webhook is a URL that gets a project's events. An empty Project means those of the whole installation; Types are as
// in Subscribe. Its secret is sealed in the database and shown once, at Create.
type Webhook struct {
	ID      string
	Project string
	URL     string
	Types   []string
	Region  string // where its host stands
	Created time.Time
	Actor   string // who created it
}

// Webhooks manages the webhooks and delivers to them. The body is a CloudEvent 1.0 in structured JSON. The header
//
//	Falaj-Signature: t=UNIX-SECONDS,v1=HEX
//
// is HMAC-SHA256 with the secret over "UNIX-SECONDS.BODY"; a receiver recomputes it, refuses old times, and drops
// events whose id it has seen, for a delivery may come twice.
type Webhooks struct {
	store  *store.Store
	relay  *Relay
	box    *seal.Box
	cfg    WebhookConfig
	client *http.Client
}

const webhookPrefix = "webhook:"

// NewWebhooks prepares the deliveries. box seals the secrets; it must be the same over restarts.
func NewWebhooks(s *store.Store, r *Relay, box *seal.Box, cfg WebhookConfig) *Webhooks {
	if cfg.Tries == 0 {
		cfg.Tries = 8
	}
	if cfg.Base == 0 {
		cfg.Base = time.Second
	}
	if cfg.Max == 0 {
		cfg.Max = 2 * time.Minute
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	return &Webhooks{store: s, relay: r, box: box, cfg: cfg, client: guardedClient(cfg.Allow, cfg.Timeout)}
}

// Start takes up the webhooks there are and follows those that come and go. Call it after Relay.Start.
func (w *Webhooks) Start(ctx context.Context) error {
	w.relay.Subscribe("flow.webhooks", []string{"webhook.created", "webhook.deleted"}, func(ctx context.Context, _ event.Event) error { return w.reload(ctx) })
	return w.reload(ctx)
}

func (w *Webhooks) reload(ctx context.Context) error {
	hooks, err := w.all(ctx)
	if err != nil {
		return err
	}
	now := map[string]bool{}
	for _, h := range hooks {
		name := webhookPrefix + h.ID
		now[name] = true
		w.relay.add(&subscriber{name: name, types: h.Types, tries: w.cfg.Tries, base: w.cfg.Base, max: w.cfg.Max, fn: func(ctx context.Context, e event.Event) error {
			if h.Project != "" && e.Project != h.Project {
				return nil
			}
			return w.send(ctx, h, e)
		}})
	}
	w.relay.mu.Lock()
	var gone []string
	for name := range w.relay.subs {
		if strings.HasPrefix(name, webhookPrefix) && !now[name] {
			gone = append(gone, name)
		}
	}
	w.relay.mu.Unlock()
	for _, name := range gone {
		w.relay.remove(name)
	}
	return nil
}

// NewWebhook is a request of Create. An empty Secret is made by falaj.
type NewWebhook struct {
	Project string
	URL     string
	Types   []string
	Secret  string // at least 16 characters
	Region  string // where the host stands; one that the project does not allow is refused, and none is outside of all
}

// Create stores a webhook; it gets the events from now on. The secret in the answer is shown this once.
func (w *Webhooks) Create(ctx context.Context, req NewWebhook) (Webhook, string, error) {
	if err := w.check(req); err != nil {
		return Webhook{}, "", err
	}
	if req.Secret == "" {
		b := make([]byte, 32)
		rand.Read(b) // never fails since Go 1.24
		req.Secret = "whsec_" + base64.RawURLEncoding.EncodeToString(b)
	}
	h := Webhook{ID: id.New("whk"), Project: req.Project, URL: req.URL, Types: req.Types, Region: req.Region, Created: time.Now().UTC().Truncate(time.Microsecond), Actor: who.From(ctx).String()}
	sealed, err := w.box.Seal([]byte(req.Secret), aad(h.ID))
	if err != nil {
		return Webhook{}, "", err
	}
	err = w.store.Change(ctx, "webhook.create", h.target(), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		if err := insertWebhook(ctx, tx, h, sealed); err != nil {
			return event.Draft{}, err
		}
		tx.After(h)
		return event.Draft{Type: "webhook.created", Subject: h.ID, Data: map[string]any{"id": h.ID, "host": hostOf(h.URL), "types": h.Types}}, nil
	})
	if err != nil {
		return Webhook{}, "", err
	}
	return h, req.Secret, w.reload(ctx)
}

func hookResource(project, id string) policy.Resource {
	return policy.Resource{Kind: "webhook", ID: id, Project: project}
}

// target is the webhook as a place that bytes leave for.
func (h Webhook) target() policy.Resource { return hookResource(h.Project, h.ID).In(h.Region) }

func aad(id string) []byte { return []byte("webhook/" + id) }

// Host is what may be told of the webhook's URL: path and query often hold a token.
func (h Webhook) Host() string { return hostOf(h.URL) }

// hostOf is what may be told of a URL: path and query often hold a token.
func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Host
}

func (w *Webhooks) check(req NewWebhook) error {
	bad := func(field, public, next string) error { return fault.New(fault.Invalid, public, next).At(field) }
	u, err := url.Parse(req.URL)
	switch {
	case err != nil || u.Host == "" || len(req.URL) > 2000 || u.Opaque != "":
		return bad("url", "The webhook's URL is not one.", "Write it as https://host/path.")
	case u.Scheme != "https" && !(u.Scheme == "http" && w.cfg.AllowHTTP):
		return bad("url", "A webhook's URL begins with https://.", "Use https, or let the administrator allow http (--webhook-network, which allows http too).")
	case u.User != nil || u.Fragment != "":
		return bad("url", "A webhook's URL holds no user, password or fragment.", "The signature header proves where the call comes from.")
	case req.Secret != "" && len(req.Secret) < 16:
		return bad("secret", "The webhook's secret is too short.", "Use at least 16 characters, or leave it out and falaj makes one.")
	case len(req.Types) > 100:
		return bad("types", "Too many event types.", "Use a prefix such as drift.*.")
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && !reachable(ip, w.cfg.Allow) {
		return bad("url", "The webhook's address is private or reserved, which is refused.", "Use a public host, or let the administrator allow the network (--webhook-network).")
	}
	for _, t := range req.Types {
		if t == "" || len(t) > 100 || strings.ContainsAny(t, " \t\n") || strings.Contains(strings.TrimSuffix(t, ".*"), "*") {
			return bad("types", fmt.Sprintf("'%s' is no event type.", t), "Types look like dataset.version.created or drift.*.")
		}
	}
	return nil
}

// List returns the webhooks of a project.
func (w *Webhooks) List(ctx context.Context, project string) ([]Webhook, error) {
	all, err := w.all(ctx)
	out := []Webhook{}
	for _, h := range all {
		if h.Project == project {
			out = append(out, h)
		}
	}
	return out, err
}

// Delete ends a webhook: the delivery under way is interrupted and its dead letters go too.
func (w *Webhooks) Delete(ctx context.Context, project, id string) error {
	err := w.store.Change(ctx, "webhook.delete", hookResource(project, id), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		h, _, err := webhook(ctx, tx, project, id)
		if err != nil {
			return event.Draft{}, err
		}
		tx.Before(h)
		if err := deleteWebhook(ctx, tx, id); err != nil {
			return event.Draft{}, err
		}
		return event.Draft{Type: "webhook.deleted", Subject: id, Data: map[string]any{"id": id, "host": hostOf(h.URL)}}, nil
	})
	if err != nil {
		return err
	}
	w.relay.remove(webhookPrefix + id)
	return nil
}

// Test sends one event of type webhook.tested now and says why it was not taken. The event is not in the outbox.
func (w *Webhooks) Test(ctx context.Context, project, hook string) error {
	var h Webhook
	err := w.store.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		h, _, err = webhook(ctx, q, project, hook)
		return err
	})
	if err != nil {
		return err
	}
	if err := w.store.Change(ctx, "webhook.test", h.target(), func(context.Context, *store.Tx) (event.Draft, error) { return event.Draft{}, nil }); err != nil {
		return err
	}
	source := "/falaj"
	if project != "" {
		source += "/p/" + project
	}
	return w.send(ctx, h, event.Event{ID: id.New("evt"), Source: source, Type: "webhook.tested", Subject: hook, Project: project, Time: time.Now().UTC(), Data: json.RawMessage(`{}`)})
}

// send makes one signed request. Any answer but 2xx is a failure.
func (w *Webhooks) send(ctx context.Context, h Webhook, e event.Event) error {
	// Asked each time: the project's regions may have changed since the webhook was made.
	if d, err := w.store.Authorize(ctx, "event.read", h.target()); err != nil || !d.Allow {
		if err == nil {
			err = store.Denied(ctx, "event.read", h.target(), d)
		}
		return err
	}
	secret, err := w.secret(ctx, h)
	if err != nil {
		return err
	}
	body, err := json.Marshal(e)
	if err != nil {
		return fault.Wrap(err, fault.Internal, "The event cannot be written as JSON.", "")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(body))
	if err != nil {
		return fault.Wrap(err, fault.Invalid, "The webhook's URL is not one.", "")
	}
	req.Header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	req.Header.Set("User-Agent", "falaj-webhook")
	req.Header.Set("Falaj-Signature", Sign(secret, time.Now(), body))
	resp, err := w.client.Do(req)
	if err != nil {
		return sendFault(err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	switch {
	case resp.StatusCode/100 == 2:
		return nil
	case resp.StatusCode/100 == 3:
		return fault.Newf(fault.Unavailable, "The webhook's host answered %d; redirects are not followed.", resp.StatusCode)
	}
	return fault.Newf(fault.Unavailable, "The webhook's host answered %d.", resp.StatusCode)
}

// Sign is the value of the header Falaj-Signature for a body sent at a time.
func Sign(secret []byte, at time.Time, body []byte) string {
	t := strconv.FormatInt(at.Unix(), 10)
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(t + "."))
	m.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(m.Sum(nil))
}

// Package door is the one way in: the route table, authentication, authorization and limits of every API, foreign ones included.
// A route without an action of the policy vocabulary does not register; what no route names does not exist.
package door

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"sort"
	"strings"
	"sync"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/id"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

// Route is one entry of the table.
type Route struct {
	Method  string
	Pattern string // net/http pattern without the method, e.g. /api/falaj/v1/projects/{p}/models
	Action  policy.Action
	// Resource names what is acted on; nil means the project of the request.
	Resource func(*http.Request) (policy.Resource, error)
	Public   bool  // no authorization: health, sign-in, static pages
	MaxBody  int64 // bytes; 0 means 8 MiB, -1 no limit (streamed uploads)
	// Fault writes an error in the dialect of the API; nil writes RFC 9457 problem JSON.
	Fault   func(http.ResponseWriter, *http.Request, *fault.E)
	Handler http.Handler
}

// Authenticator turns credentials into actors. access.Service fills it.
type Authenticator interface {
	Token(ctx context.Context, secret string) (who.Actor, error)
	Session(ctx context.Context, secret string) (who.Actor, error)
}

// Config of a door.
type Config struct {
	Open  bool     // anonymous callers on loopback act as `anonymous`
	Hosts []string // names accepted in the Host header beside loopback ones
	Known func(policy.Action) bool
	Log   *slog.Logger
	// Observe is told each finished request: pattern, status, duration.
	Observe func(pattern string, status int, d time.Duration)
}

// Door is the http.Handler of the whole server.
type Door struct {
	store *store.Store
	auth  Authenticator
	cfg   Config
	mux   *http.ServeMux
	cross *http.CrossOriginProtection

	mu     sync.Mutex // guards routes
	routes []Route

	refusals *limiter
}

const (
	defaultMaxBody = 8 << 20
	// SessionCookie holds a browser's session.
	SessionCookie = "falaj_session"
)

// New makes an empty door.
func New(s *store.Store, auth Authenticator, cfg Config) *Door {
	return &Door{store: s, auth: auth, cfg: cfg, mux: http.NewServeMux(), cross: http.NewCrossOriginProtection(), refusals: &limiter{}}
}

// Handle adds routes. A route whose action is not in the vocabulary is a programming error and stops the start.
func (d *Door) Handle(routes ...Route) error {
	for _, r := range routes {
		if r.Handler == nil || r.Method == "" || r.Pattern == "" {
			return fmt.Errorf("route %s %s is incomplete", r.Method, r.Pattern)
		}
		if !r.Public && !d.cfg.Known(r.Action) {
			return fmt.Errorf("route %s %s has action %q, which policy does not know", r.Method, r.Pattern, r.Action)
		}
		if r.Public && r.Action != "" {
			return fmt.Errorf("route %s %s is public and has an action", r.Method, r.Pattern)
		}
		if r.Fault == nil {
			r.Fault = Problem
		}
		d.mux.Handle(r.Method+" "+r.Pattern, d.guard(r))
		d.mu.Lock()
		d.routes = append(d.routes, r)
		d.mu.Unlock()
	}
	return nil
}

// Routes is the table, sorted by pattern and method.
func (d *Door) Routes() []Route {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := append([]Route(nil), d.routes...)
	sort.Slice(out, func(i, j int) bool {
		if out[i].Pattern != out[j].Pattern {
			return out[i].Pattern < out[j].Pattern
		}
		return out[i].Method < out[j].Method
	})
	return out
}

type projectKey struct{}

// Project is the project of the request: from the path, the /p/ prefix, MLflow's workspace header, the token, or "default".
func Project(ctx context.Context) string {
	p, _ := ctx.Value(projectKey{}).(string)
	if p == "" {
		return "default"
	}
	return p
}

// WithProject sets the project, for tests of routes.
func WithProject(ctx context.Context, p string) context.Context {
	return context.WithValue(ctx, projectKey{}, p)
}

var projectName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// ServeHTTP gives the request its id, checks host and origin, finds the project prefix, and routes.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	ctx := store.WithRequest(r.Context(), id.New("req"))
	rec := &recorder{ResponseWriter: w}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("X-Request-Id", store.RequestID(ctx))
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares it this way
				panic(p)
			}
			d.cfg.Log.Error("a request panicked", "request", store.RequestID(ctx), "path", r.URL.Path, "panic", fmt.Sprint(p))
			if rec.status == 0 {
				Problem(rec, r, fault.New(fault.Internal, "Something went wrong inside falaj.", ""))
			}
		}
		if d.cfg.Observe != nil {
			_, pattern := d.mux.Handler(r)
			d.cfg.Observe(pattern, rec.status, time.Since(start))
		}
	}()
	if !d.hostAllowed(r.Host) {
		Problem(rec, r, fault.New(fault.Denied, "The Host header '"+clip(r.Host)+"' is not this server's name.", "Start the server with --host NAME for each name it is reached by."))
		return
	}
	if err := d.cross.Check(r); err != nil {
		Problem(rec, r, fault.New(fault.Denied, "A page of another site may not do this.", "Open falaj's own page."))
		return
	}
	if rest, ok := strings.CutPrefix(r.URL.Path, "/p/"); ok {
		name, tail, _ := strings.Cut(rest, "/")
		if !projectName.MatchString(name) {
			Problem(rec, r, fault.New(fault.Invalid, "'"+clip(name)+"' is not a project name.", ""))
			return
		}
		ctx = WithProject(ctx, name)
		u := new(url.URL)
		*u = *r.URL
		u.Path = "/" + tail
		if raw, ok := strings.CutPrefix(r.URL.RawPath, "/p/"+name+"/"); ok {
			u.RawPath = "/" + raw
		}
		r = r.WithContext(ctx)
		r.URL = u
	} else {
		r = r.WithContext(ctx)
	}
	if h, pattern := d.mux.Handler(r); pattern == "" || (pattern == "GET /" && strings.HasPrefix(r.URL.Path, "/api/")) {
		d.nowhere(rec, r, h, pattern)
		return
	}
	d.mux.ServeHTTP(rec, r)
}

// nowhere answers what no route names in the dialect of errors, with the methods that the path would take.
func (d *Door) nowhere(w http.ResponseWriter, r *http.Request, h http.Handler, pattern string) {
	status := silent{header: http.Header{}}
	if pattern == "" {
		h.ServeHTTP(&status, r)
	}
	switch {
	case status.header.Get("Location") != "": // the mux cleans paths by redirecting
		http.Redirect(w, r, status.header.Get("Location"), status.code)
	case status.code == http.StatusMethodNotAllowed:
		w.Header().Set("Allow", status.header.Get("Allow"))
		f := fault.New(fault.Invalid, fmt.Sprintf("%s is not a method of %s.", clip(r.Method), clip(r.URL.Path)), "It takes "+status.header.Get("Allow")+".")
		problem(w, f, http.StatusMethodNotAllowed)
	default:
		Problem(w, r, fault.New(fault.NotFound, "There is nothing at "+clip(r.URL.Path)+".", "GET /api/falaj/v1/openapi.json lists what there is."))
	}
}

// silent keeps status and headers of an answer that is not sent.
type silent struct {
	header http.Header
	code   int
}

func (s *silent) Header() http.Header         { return s.header }
func (s *silent) Write(b []byte) (int, error) { return len(b), nil }
func (s *silent) WriteHeader(code int)        { s.code = code }

// guard is the order of every route: limit, authenticate, find the project, authorize, handle.
func (d *Door) guard(rt Route) http.Handler {
	max := rt.MaxBody
	if max == 0 {
		max = defaultMaxBody
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if max > 0 {
			if r.ContentLength > max {
				rt.Fault(w, r, fault.New(fault.TooLarge, fmt.Sprintf("The body has %d bytes; at most %d are taken here.", r.ContentLength, max), ""))
				return
			}
			r.Body = http.MaxBytesReader(w, r.Body, max)
		}
		actor, err := d.authenticate(r)
		if err != nil {
			if !rt.Public {
				f := fault.From(err)
				if f.Kind == fault.Unauthenticated || f.Kind == fault.Denied { // that the database did not answer is no refusal
					d.refuse(r, rt, policy.Resource{Kind: "Route", ID: rt.Method + " " + rt.Pattern}, policy.Decision{Reasons: []policy.Reason{{Policy: "credentials", Text: f.Public}}})
				} else {
					d.cfg.Log.Error("authentication failed", "request", store.RequestID(r.Context()), "err", err)
				}
				rt.Fault(w, r, f)
				return
			}
			actor = who.Actor{Kind: who.Anonymous, Name: "anonymous"}
		}
		ctx := who.With(r.Context(), actor)
		project := r.PathValue("p")
		if project == "" {
			project, _ = ctx.Value(projectKey{}).(string)
		}
		if project == "" {
			project = r.Header.Get("X-MLFLOW-WORKSPACE")
		}
		if project == "" {
			project = actor.Scope.Project
		}
		if project != "" && !projectName.MatchString(project) {
			rt.Fault(w, r, fault.New(fault.Invalid, "'"+clip(project)+"' is not a project name.", ""))
			return
		}
		ctx = WithProject(ctx, project)
		r = r.WithContext(ctx)
		if !rt.Public {
			if err := d.authorize(r, rt); err != nil {
				f := fault.From(err)
				if f.Kind == fault.Internal {
					d.cfg.Log.Error("authorization failed", "request", store.RequestID(ctx), "err", err)
				}
				rt.Fault(w, r, f)
				return
			}
		}
		rt.Handler.ServeHTTP(w, r)
	})
}

func (d *Door) authorize(r *http.Request, rt Route) error {
	res := policy.Resource{Kind: "Project", ID: Project(r.Context()), Project: Project(r.Context())}
	if rt.Resource != nil {
		var err error
		if res, err = rt.Resource(r); err != nil {
			return err
		}
	}
	dec, err := d.store.Authorize(r.Context(), rt.Action, res)
	if err != nil {
		return err
	}
	if !dec.Allow {
		d.refuse(r, rt, res, dec)
		return store.Denied(r.Context(), rt.Action, res, dec)
	}
	return nil
}

// refuse records a refusal in the ledger. A flood of them is bounded: the chain is not a place for an attacker to write.
func (d *Door) refuse(r *http.Request, rt Route, res policy.Resource, dec policy.Decision) {
	if !d.refusals.allow(time.Now()) {
		return
	}
	if err := d.store.Deny(r.Context(), rt.Action, res, dec); err != nil {
		d.cfg.Log.Error("a refusal could not be recorded", "request", store.RequestID(r.Context()), "err", err)
	}
}

// authenticate reads a bearer token, a basic password that is a token (MLflow's clients), or the session cookie.
func (d *Door) authenticate(r *http.Request) (who.Actor, error) {
	if h := r.Header.Get("Authorization"); h != "" {
		if tok, ok := cutFold(h, "Bearer "); ok {
			return d.auth.Token(r.Context(), strings.TrimSpace(tok))
		}
		if _, password, ok := r.BasicAuth(); ok {
			return d.auth.Token(r.Context(), password)
		}
		return who.Actor{}, fault.New(fault.Unauthenticated, "This kind of Authorization header is not understood.", "Send `Authorization: Bearer flj_...`, or basic auth with the token as password.")
	}
	if c, err := r.Cookie(SessionCookie); err == nil {
		return d.auth.Session(r.Context(), c.Value)
	}
	a := who.Actor{Kind: who.Anonymous, Name: "anonymous"}
	if d.cfg.Open && loopback(r.RemoteAddr) {
		a.Via = "open"
	}
	return a, nil
}

func cutFold(s, prefix string) (string, bool) {
	if len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		return s[len(prefix):], true
	}
	return "", false
}

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// hostAllowed answers DNS rebinding: a page elsewhere that resolves its own name to us sends that name.
func (d *Door) hostAllowed(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(strings.ToLower(host), "[]")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		return true
	}
	for _, h := range d.cfg.Hosts {
		if strings.EqualFold(h, host) {
			return true
		}
	}
	return false
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}

// ProblemBody is RFC 9457 with falaj's next step and message code. title: what; detail: why.
type ProblemBody struct {
	Type   string            `json:"type,omitempty"`
	Title  string            `json:"title"`
	Detail string            `json:"detail"`
	Status int               `json:"status"`
	Next   string            `json:"next"`
	Code   string            `json:"code"`
	Args   map[string]string `json:"args"`
	Field  string            `json:"field"`
}

// Problem writes a fault as application/problem+json.
func Problem(w http.ResponseWriter, _ *http.Request, f *fault.E) { problem(w, f, f.Kind.HTTP()) }

func problem(w http.ResponseWriter, f *fault.E, status int) {
	b := ProblemBody{Title: http.StatusText(status), Detail: f.Public, Status: status, Next: f.Next, Code: string(f.Kind), Args: map[string]string{}, Field: f.Field}
	w.Header().Set("Content-Type", "application/problem+json")
	if f.Kind == fault.Unauthenticated {
		w.Header().Set("WWW-Authenticate", `Bearer realm="falaj"`)
	}
	w.WriteHeader(b.Status)
	_ = json.NewEncoder(w).Encode(b) // the client is gone when this fails
}

// recorder remembers the status for metrics and keeps flushing possible.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(code int) {
	if r.status == 0 {
		r.status = code
	}
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Flush sends what is written, for server-sent events.
func (r *recorder) Flush() { _ = http.NewResponseController(r.ResponseWriter).Flush() }

// limiter lets 20 refusals a second into the ledger.
type limiter struct {
	mu     sync.Mutex
	second int64
	n      int
}

func (l *limiter) allow(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := now.Unix(); s != l.second {
		l.second, l.n = s, 0
	}
	l.n++
	return l.n <= 20
}

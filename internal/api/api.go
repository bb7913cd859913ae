// Package api is falaj's own HTTP API under /api/falaj/v1, code first: OpenAPI 3.1 is generated from it and kept as a golden file.
// It composes pages from several stages and holds no state; each operation is one entry of the door's route table.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"falaj/internal/door"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

// Base is where the API lives.
const Base = "/api/falaj/v1"

// API collects operations and hands them to the door as routes.
type API struct {
	Deps
	huma   huma.API
	next   entry // of the operation being registered
	routes []door.Route
}

type entry struct {
	action   policy.Action
	resource func(*http.Request) (policy.Resource, error)
	public   bool
	maxBody  int64
}

// New registers all operations.
func New(d Deps) *API {
	a := &API{Deps: d}
	cfg := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    &huma.Info{Title: "falaj", Version: "v1", Description: "The API of the falaj control plane. Times are microseconds UTC. Errors are RFC 9457 problems with `next`: what to do."},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"token":   {Type: "http", Scheme: "bearer", Description: "An flj_ token."},
					"session": {Type: "apiKey", In: "cookie", Name: door.SessionCookie},
				},
			},
			Security: []map[string][]string{{"token": {}}, {"session": {}}},
		},
		Formats:       map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat: "application/json",
		Transformers:  []huma.Transformer{problems},
	}
	a.huma = humago.New(a, cfg)
	a.session()
	a.oidc()
	a.people()
	a.audit()
	a.projects()
	a.changes()
	a.pipelines()
	a.whys()
	a.webhooks()
	a.residencyRoutes()
	a.secrets()
	a.pages()
	a.streams()
	return a
}

// OpenAPI is the document of all operations.
func (a *API) OpenAPI() ([]byte, error) {
	return json.MarshalIndent(a.huma.OpenAPI(), "", "  ")
}

// Routes is what the door has to register.
func (a *API) Routes() []door.Route { return a.routes }

// HandleFunc receives each operation from huma's adapter and files it under the entry of the operation being registered.
func (a *API) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	method, path, _ := strings.Cut(pattern, " ")
	e := a.next
	a.routes = append(a.routes, door.Route{Method: method, Pattern: path, Action: e.action, Resource: e.resource, Public: e.public, MaxBody: e.maxBody, Handler: http.HandlerFunc(h)})
}

// ServeHTTP is never called: the door routes.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }

type option func(*entry, *huma.Operation)

// public marks an operation that needs no credentials.
func public() option {
	return func(e *entry, op *huma.Operation) {
		e.public, e.action, op.Security = true, "", []map[string][]string{}
	}
}

// on names the resource by a path value; without it the resource is the project.
func on(kind, value string) option {
	return func(e *entry, _ *huma.Operation) {
		e.resource = func(r *http.Request) (policy.Resource, error) {
			return policy.Resource{Kind: kind, ID: r.PathValue(value), Project: r.PathValue("p")}, nil
		}
	}
}

// installation says that the resource is the installation itself.
func installation(kind string) option {
	return func(e *entry, _ *huma.Operation) {
		e.resource = func(*http.Request) (policy.Resource, error) { return policy.Resource{Kind: kind, ID: "*"}, nil }
	}
}

func status(code int) option { return func(_ *entry, op *huma.Operation) { op.DefaultStatus = code } }

func body(max int64) option {
	return func(e *entry, op *huma.Operation) { e.maxBody, op.MaxBodyBytes = max, max }
}

// add registers one operation. Path is below Base; id is the stable operation id, also the name in generated clients.
func add[I, O any](a *API, method, path, id, summary string, action policy.Action, h func(context.Context, *I) (*O, error), opts ...option) {
	op := huma.Operation{Method: method, Path: Base + path, OperationID: id, Summary: summary, MaxBodyBytes: 8 << 20}
	e := entry{action: action}
	for _, o := range opts {
		o(&e, &op)
	}
	a.next = e
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := h(ctx, in)
		if err != nil {
			return nil, toProblem(ctx, a.Log, err)
		}
		return out, nil
	})
}

// problem is a fault as huma writes it.
type problem struct {
	door.ProblemBody
	cause error
}

func (p *problem) Error() string             { return p.Detail }
func (p *problem) GetStatus() int            { return p.Status }
func (p *problem) ContentType(string) string { return "application/problem+json" }
func (p *problem) Unwrap() error             { return p.cause }
func newProblem(f *fault.E) *problem {
	return &problem{door.ProblemBody{Title: http.StatusText(f.Kind.HTTP()), Detail: f.Public, Status: f.Kind.HTTP(), Next: f.Next, Code: string(f.Kind), Args: map[string]string{}, Field: f.Field}, f}
}

// toProblem is the edge at which errors are logged, once.
func toProblem(ctx context.Context, log *slog.Logger, err error) error {
	f := fault.From(err)
	if f.Kind == fault.Internal || (f.Kind == fault.Unavailable && !errors.Is(err, context.Canceled)) {
		log.Error("a request failed", "request", store.RequestID(ctx), "actor", who.From(ctx).String(), "err", err)
	}
	return newProblem(f)
}

// problems turns huma's own validation errors into the same shape: the first field that is wrong, and why.
func problems(_ huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	kind := fault.Invalid
	switch m.Status {
	case http.StatusRequestEntityTooLarge:
		kind = fault.TooLarge
	case http.StatusNotFound:
		kind = fault.NotFound
	case http.StatusRequestTimeout:
		kind = fault.Unavailable
	}
	f := fault.New(kind, m.Detail, "")
	if len(m.Errors) > 0 {
		e := m.Errors[0]
		f = fault.New(kind, fmt.Sprintf("%s: %s.", strings.TrimPrefix(e.Location, "body."), e.Message), "").At(strings.TrimPrefix(e.Location, "body."))
	}
	p := newProblem(f)
	p.Status = m.Status // huma has decided the status line already
	return p, nil
}

// Page is a list with a token for the next page.
type Page[T any] struct {
	Items         []T    `json:"items"`
	NextPageToken string `json:"next_page_token"`
	Total         *int64 `json:"total"`
}

// Out is an answer with a JSON body.
type Out[T any] struct{ Body T }

func page[T any](items []T) *Out[Page[T]] {
	if items == nil {
		items = []T{}
	}
	n := int64(len(items))
	return &Out[Page[T]]{Page[T]{Items: items, Total: &n}}
}

func answer[T any](v T) *Out[T] { return &Out[T]{v} }

// InProject is the input of operations on a project.
type InProject struct {
	Project string `path:"p"`
}

// ActorRef names an actor for pages.
type ActorRef struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

func actorRef(s string) ActorRef {
	kind, name, ok := strings.Cut(s, ":")
	if !ok {
		return ActorRef{"anonymous", "anonymous"}
	}
	return ActorRef{kind, name}
}

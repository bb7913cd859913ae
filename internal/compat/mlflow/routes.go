// Package mlflow speaks MLflow's REST API (3.12 to 3.17) for the unmodified mlflow client. It translates and owns no state:
// tracking and registry do the work, the door authorizes every route; what is not built answers 501 in MLflow's error JSON.
package mlflow

import (
	"context"
	"net/http"
	"strings"

	"falaj/internal/compat/mlflow/wire"
	"falaj/internal/door"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/registry"
	"falaj/internal/tracking"
)

// Version is what GET /version answers: the newest MLflow whose client this package was tested with.
const Version = "3.17.2"

type api struct {
	tracking *tracking.Service
	registry *registry.Service
	rules    map[string][]wire.Rule
}

// Routes is MLflow's part of the route table.
func Routes(t *tracking.Service, r *registry.Service) []door.Route {
	a := &api{tracking: t, registry: r, rules: wire.Rules()}
	var out []door.Route
	for _, list := range [][]door.Route{a.experiments(), a.runs(), a.loggedModels(), a.models(), a.versions(), a.artifacts(), a.server()} {
		out = append(out, list...)
	}
	return append(out, a.missing()...)
}

// both gives a route under /api and under /ajax-api, the mirror that MLflow's pages use.
func both(method, path string, action policy.Action, maxBody int64, h http.HandlerFunc) []door.Route {
	var out []door.Route
	for _, prefix := range []string{"/api", "/ajax-api"} {
		out = append(out, door.Route{Method: method, Pattern: prefix + path, Action: action, Public: action == "", MaxBody: maxBody, Fault: writeFault, Handler: h})
	}
	return out
}

// call gives a JSON route of the 2.0 API: decode by the rules of the endpoint, call, encode. path is below /mlflow/.
func call[T any](a *api, method, path string, action policy.Action, fn func(ctx context.Context, project string, in *T) (any, error)) []door.Route {
	return route(a, method, path, path, action, 0, fn)
}

func callMax[T any](a *api, method, path string, action policy.Action, maxBody int64, fn func(ctx context.Context, project string, in *T) (any, error)) []door.Route {
	return route(a, method, path, path, action, maxBody, fn)
}

func callAs[T any](a *api, method, path, rules string, action policy.Action, fn func(ctx context.Context, project string, in *T) (any, error)) []door.Route {
	return route(a, method, path, rules, action, 0, fn)
}

func route[T any](a *api, method, path, name string, action policy.Action, maxBody int64, fn func(ctx context.Context, project string, in *T) (any, error)) []door.Route {
	rules := a.rules[name]
	return both(method, "/2.0/mlflow/"+path, action, maxBody, func(w http.ResponseWriter, r *http.Request) {
		in := new(T)
		if err := wire.Decode(r, rules, in); err != nil {
			writeFault(w, r, fault.From(err))
			return
		}
		out, err := fn(r.Context(), door.Project(r.Context()), in)
		if err != nil {
			writeFault(w, r, fault.From(err))
			return
		}
		wire.Write(w, http.StatusOK, out)
	})
}

// missing answers 501 for everything of MLflow that is not here.
func (a *api) missing() []door.Route {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writeFault(w, r, fault.New(fault.Unsupported, "falaj does not have the MLflow endpoint "+r.Method+" "+clip(r.URL.Path)+".", "docs/tracking.md lists what it has."))
	})
	var out []door.Route
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		for _, pattern := range []string{"/api/2.0/{rest...}", "/api/3.0/{rest...}", "/ajax-api/{rest...}", "/graphql"} {
			out = append(out, door.Route{Method: method, Pattern: pattern, Public: true, Fault: writeFault, Handler: h})
		}
	}
	return out
}

func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
	if len(s) > 120 {
		return s[:120] + "..."
	}
	return s
}

// writeFault writes a fault as MLflow's error JSON. Texts that MLflow has are sent alone; ours carry the next step.
func writeFault(w http.ResponseWriter, _ *http.Request, f *fault.E) {
	status, message := f.Kind.HTTP(), f.Public
	switch f.Kind {
	case fault.Exists:
		status = http.StatusBadRequest // MLflow's status for RESOURCE_ALREADY_EXISTS
	case fault.Invalid, fault.NotFound:
	default:
		if !strings.Contains(message, f.Next) {
			message += " " + f.Next
		}
	}
	if f.Kind == fault.Unauthenticated {
		w.Header().Set("WWW-Authenticate", `Basic realm="falaj"`)
	}
	wire.Write(w, status, wire.Error{Code: f.Kind.MLflow(), Message: message})
}

// Package oip speaks the Open Inference Protocol V2 over HTTP, JSON and the binary tensor extension, so that tritonclient and KServe's clients predict unchanged.
// It translates and owns no state: endpoints, traffic and the log are serving's.
package oip

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	"falaj/internal/door"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/serving"
	"falaj/internal/store"
)

// maxBody bounds an inference request, also after decompression.
const maxBody = 64 << 20

// Config is what the routes answer from.
type Config struct {
	Serving *serving.Service
	Store   *store.Store // asked for the right time.replay when a request sets event time
	Ready   func() error // whether the server can answer; nil: always
	Version string       // of falaj
	Log     *slog.Logger
}

type api struct {
	Config
	bodies sync.Pool // *[]byte
}

// Routes are the protocol's. Model name `m` is the endpoint in production, `m@staging` the one in staging.
func Routes(cfg Config) []door.Route {
	a := &api{Config: cfg}
	a.bodies.New = func() any { return new([]byte) }
	read := func(method, pattern string, h func(http.ResponseWriter, *http.Request) error) door.Route {
		return door.Route{Method: method, Pattern: pattern, Action: "endpoint.read", Resource: resource, Fault: Fault, Handler: a.handler(h)}
	}
	open := func(pattern string, h func(http.ResponseWriter, *http.Request) error) door.Route {
		return door.Route{Method: "GET", Pattern: pattern, Public: true, Fault: Fault, Handler: a.handler(h)}
	}
	infer := func(pattern string) door.Route {
		return door.Route{Method: "POST", Pattern: pattern, Action: "endpoint.predict", Resource: resource, MaxBody: maxBody, Fault: Fault, Handler: a.handler(a.infer)}
	}
	return []door.Route{
		open("/v2/health/live", a.live),
		open("/v2/health/ready", a.ready),
		read("GET", "/v2", a.server),
		read("POST", "/v2/repository/index", a.index),
		read("GET", "/v2/models/{model}", a.metadata),
		read("GET", "/v2/models/{model}/ready", a.modelReady),
		read("GET", "/v2/models/{model}/versions/{version}", a.metadata),
		read("GET", "/v2/models/{model}/versions/{version}/ready", a.modelReady),
		infer("/v2/models/{model}/infer"),
		infer("/v2/models/{model}/versions/{version}/infer"),
	}
}

// key is the endpoint that a request names.
func key(r *http.Request) serving.Key {
	model, environment, ok := strings.Cut(r.PathValue("model"), "@")
	if !ok {
		environment = "production"
	}
	return serving.Key{Project: door.Project(r.Context()), Model: model, Environment: environment}
}

func resource(r *http.Request) (policy.Resource, error) {
	k := key(r)
	if k.Model == "" {
		return policy.Resource{Kind: "Project", ID: k.Project, Project: k.Project}, nil
	}
	return policy.Resource{Kind: "Endpoint", ID: k.Model + "@" + k.Environment, Project: k.Project}, nil
}

func (a *api) handler(h func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			f := fault.From(err)
			if f.Kind == fault.Internal || f.Kind == fault.Unavailable {
				a.Log.Error("inference failed", "request", store.RequestID(r.Context()), "path", r.URL.Path, "err", err)
			}
			Fault(w, r, f)
		}
	})
}

// Fault writes an error as the protocol does: {"error": "what, why and the next step"}.
func Fault(w http.ResponseWriter, _ *http.Request, f *fault.E) {
	if f.Kind == fault.Unauthenticated {
		w.Header().Set("WWW-Authenticate", `Bearer realm="falaj"`)
	}
	text := f.Public
	if f.Next != "" {
		text += " " + f.Next
	}
	answer(w, f.Kind.HTTP(), map[string]string{"error": text})
}

func answer(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone when this fails
	return nil
}

func (a *api) live(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, http.StatusOK, map[string]bool{"live": true})
}

func (a *api) ready(w http.ResponseWriter, _ *http.Request) error {
	if a.Ready != nil {
		if err := a.Ready(); err != nil {
			return fault.Wrap(err, fault.Unavailable, "The server is not ready.", "")
		}
	}
	return answer(w, http.StatusOK, map[string]bool{"ready": true})
}

func (a *api) server(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, http.StatusOK, map[string]any{"name": "falaj", "version": a.Version, "extensions": []string{"binary_tensor_data", "model_repository"}})
}

// index is the model repository extension's list: every endpoint of the project.
func (a *api) index(w http.ResponseWriter, r *http.Request) error {
	all, err := a.Serving.Endpoints(r.Context(), door.Project(r.Context()))
	if err != nil {
		return err
	}
	type entry struct {
		Name    string `json:"name"`
		Version string `json:"version,omitempty"`
		State   string `json:"state"`
		Reason  string `json:"reason,omitempty"`
	}
	out := []entry{}
	for _, e := range all {
		name := e.Model
		if e.Environment != "production" {
			name += "@" + e.Environment
		}
		if !e.Ready {
			out = append(out, entry{Name: name, State: "UNAVAILABLE", Reason: e.Problem})
			continue
		}
		d, err := a.Serving.Describe(e.Key, "")
		if err != nil {
			return err
		}
		for _, v := range d.Versions {
			out = append(out, entry{Name: name, Version: v, State: "READY"})
		}
	}
	return answer(w, http.StatusOK, out)
}

func (a *api) modelReady(w http.ResponseWriter, r *http.Request) error {
	d, err := a.Serving.Describe(key(r), r.PathValue("version"))
	if err != nil {
		return err
	}
	if !d.Ready {
		return fault.New(fault.Unavailable, "The model is not ready. "+d.Problem, "")
	}
	return answer(w, http.StatusOK, map[string]any{"name": r.PathValue("model"), "ready": true})
}

// Tensor is the metadata of an input or output; -1 stands for the number of rows.
type Tensor struct {
	Name     string `json:"name"`
	Datatype string `json:"datatype"`
	Shape    []int  `json:"shape"`
}

// metadata lists the entity keys and request features when the model has a feature service, else the matrix. The matrix is always taken, too; parameters.features are its columns.
func (a *api) metadata(w http.ResponseWriter, r *http.Request) error {
	d, err := a.Serving.Describe(key(r), r.PathValue("version"))
	if err != nil {
		return err
	}
	var in []Tensor
	for _, list := range [][]serving.Input{d.Inputs.Entity, d.Inputs.Request} {
		for _, i := range list {
			in = append(in, Tensor{i.Name, datatypeOf(i.Type), []int{-1}})
		}
	}
	if in == nil {
		in = []Tensor{{"features", "FP64", []int{-1, len(d.Features)}}}
	}
	return answer(w, http.StatusOK, map[string]any{
		"name": r.PathValue("model"), "versions": d.Versions, "platform": "falaj_" + d.Flavor, "inputs": in,
		"outputs":    []Tensor{{predict, "FP64", []int{-1, d.Outputs}}, {predictionID, "BYTES", []int{-1}}, {variant, "BYTES", []int{-1}}, {release, "BYTES", []int{-1}}},
		"parameters": map[string]any{"environment": d.Environment, "release": d.Release, "feature_service": d.Service, "features": d.Features},
	})
}

func datatypeOf(kind string) string {
	switch kind {
	case "text", "timestamp": // RFC 3339
		return "BYTES"
	case "boolean":
		return "BOOL"
	}
	return "FP64"
}

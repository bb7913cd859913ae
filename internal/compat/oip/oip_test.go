package oip_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"falaj/internal/compat/oip"
	"falaj/internal/door"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/serving"
	"falaj/internal/serving/python/pythontest"
	"falaj/internal/serving/trees"
	"falaj/internal/store/storetest"
)

// world is a door with the protocol's routes over real endpoints: "delay" (binary) takes entities or a matrix, "kind" (multiclass) only a matrix; "kind@staging" too.
type world struct {
	url      string
	door     *door.Door
	models   map[string]*trees.Model
	mu       sync.Mutex
	recorded []serving.Prediction
	ready    error
}

const golden = "../../serving/trees/testdata/"

func (w *world) Open(_ context.Context, project, digest string) (serving.Release, error) {
	name, service, _ := strings.Cut(digest, "+")
	b, err := os.ReadFile(filepath.Join(golden, name+".txt"))
	if err != nil || project != "flights" {
		return serving.Release{}, fault.Newf(fault.NotFound, "There is no release %q.", digest)
	}
	sum := sha256.Sum256(b)
	return serving.Release{Digest: digest, Version: "7", Flavor: "lightgbm", Model: "model.lgb", Service: service,
		Files: []serving.File{{Path: "model.lgb", SHA256: hex.EncodeToString(sum[:]), Size: int64(len(b))}},
		Open:  func(context.Context, string) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}, nil
}

func (w *world) Record(_ context.Context, p []serving.Prediction) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.recorded = append(w.recorded, p...)
	return nil
}

func (w *world) last() serving.Prediction {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.recorded[len(w.recorded)-1]
}

func (w *world) Inputs(context.Context, string, string) (serving.Inputs, error) {
	return serving.Inputs{Entity: []serving.Input{{Name: "origin", Type: "text"}}, Request: []serving.Input{{Name: "hour", Type: "number"}, {Name: "load", Type: "number"}}}, nil
}

// Lookup: every feature is hour + load + the length of the origin; unknown load is NaN.
func (w *world) Lookup(_ context.Context, _, _ string, entities []map[string]any, at []time.Time, request []map[string]any) (serving.Features, error) {
	out := serving.Features{Names: w.models["delay"].FeatureNames()}
	for i, e := range entities {
		origin, ok := e["origin"].(string)
		hour, whole := request[i]["hour"].(int64)
		if !ok || !whole {
			return out, fault.New(fault.Invalid, "origin is text and hour a whole number.", "").At("hour")
		}
		v := float64(len(origin)) + float64(hour)
		if load, ok := request[i]["load"].(float64); ok {
			v += load
		} else {
			v = math.NaN()
		}
		out.Values = append(out.Values, slices.Repeat([]float64{v}, len(out.Names))...)
		out.Digests = append(out.Digests, fmt.Sprint(at[i].UnixMicro()))
	}
	return out, nil
}

// Token and Session make the actors of storetest's roles out of their names.
func (w *world) Token(_ context.Context, name string) (who.Actor, error) {
	if !slices.Contains([]string{"amal", "vera", "replay"}, name) {
		return who.Actor{}, fault.New(fault.Unauthenticated, "The token is not valid.", "")
	}
	return who.From(storetest.As(name)), nil
}

func (w *world) Session(context.Context, string) (who.Actor, error) {
	return who.Actor{}, errors.New("no sessions here")
}

func flights(model, environment string) serving.Key {
	return serving.Key{Project: "flights", Model: model, Environment: environment}
}

func newWorld(t testing.TB) *world {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	w := &world{models: map[string]*trees.Model{}}
	for model, name := range map[string]string{"delay": "binary", "kind": "multiclass"} {
		f, err := os.Open(filepath.Join(golden, name+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if w.models[model], err = trees.Parse(f); err != nil {
			t.Fatal(err)
		}
	}
	st := storetest.SQLite(t)
	s := serving.New(serving.Config{Store: st, Features: w, Models: w, Sink: w, Log: log, Loaders: map[string][]serving.Loader{"lightgbm": {trees.Loader{}}}})
	t.Cleanup(func() { s.Close() })
	for k, digest := range map[serving.Key]string{flights("delay", "production"): "binary+delay_v1", flights("kind", "production"): "multiclass+", flights("kind", "staging"): "multiclass+"} {
		if _, err := s.Configure(storetest.As("system:delivery"), k, []serving.Variant{{Name: "champion", Role: serving.Champion, Weight: 100, Release: digest}}); err != nil {
			t.Fatal(err)
		}
	}
	engine, err := policy.New()
	if err != nil {
		t.Fatal(err)
	}
	w.door = door.New(st, w, door.Config{Known: engine.Known, Log: log})
	if err := w.door.Handle(oip.Routes(oip.Config{Serving: s, Store: st, Version: "test", Log: log, Ready: func() error { return w.ready }})...); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(w.door)
	t.Cleanup(server.Close)
	w.url = server.URL
	return w
}

type reply struct {
	status int
	header http.Header
	body   []byte
}

// ask sends a request as somebody ("" is nobody).
func (w *world) ask(t testing.TB, as, method, path string, body []byte, header ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.url+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if as != "" {
		req.Header.Set("Authorization", "Bearer "+as)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, b}
}

type inference struct {
	Model      string `json:"model_name"`
	Version    string `json:"model_version"`
	ID         string `json:"id"`
	Parameters map[string]string
	Outputs    []struct {
		Name     string
		Datatype string
		Shape    []int
		Data     []any
	}
	Error string
}

func (r reply) inference(t testing.TB) inference {
	t.Helper()
	var out inference
	if err := json.Unmarshal(r.body, &out); err != nil {
		t.Fatalf("%s: %v", r.body, err)
	}
	return out
}

func (w *world) direct(model string, rows ...[]float64) []any {
	m := w.models[model]
	var out []any
	y := make([]float64, m.NumOutputs())
	for _, x := range rows {
		m.Predict(x, y)
		for _, v := range y {
			out = append(out, v)
		}
	}
	return out
}

func (w *world) ramp(model string, from float64) []float64 {
	x := make([]float64, w.models[model].NumFeatures())
	for i := range x {
		x[i] = from + float64(i)/8
	}
	return x
}

func matrixBody(name string, rows ...[]float64) []byte {
	b, _ := json.Marshal(map[string]any{"id": "mine", "inputs": []any{map[string]any{"name": name, "datatype": "FP64", "shape": []int{len(rows), len(rows[0])}, "data": rows}}})
	return b
}

func TestInfer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.ramp("kind", -1), w.ramp("kind", 2)
	got := w.ask(t, "vera", "POST", "/p/flights/v2/models/kind/infer", matrixBody("x", a, b))
	r := got.inference(t)
	if got.status != 200 || r.Model != "kind" || r.Version != "7" || r.ID != "mine" || r.Parameters["variant"] != "champion" || len(r.Outputs) != 1 ||
		r.Outputs[0].Name != "predict" || !slices.Equal(r.Outputs[0].Shape, []int{2, 4}) || !slices.Equal(r.Outputs[0].Data, w.direct("kind", a, b)) {
		t.Fatalf("%d %s", got.status, got.body)
	}
	if p := w.last(); p.RequestID != "mine" || p.Environment != "production" || p.Project != "flights" {
		t.Errorf("%+v", p)
	}

	// One tensor for each feature, in another order, of other datatypes.
	names := w.models["kind"].FeatureNames()
	var in []map[string]any
	for i, n := range slices.Backward(names) {
		in = append(in, map[string]any{"name": n, "datatype": "INT32", "shape": []int{2, 1}, "data": []int{i, -i}})
	}
	x, y := make([]float64, len(names)), make([]float64, len(names))
	for i := range names {
		x[i], y[i] = float64(i), float64(-i)
	}
	body, _ := json.Marshal(map[string]any{"inputs": in, "outputs": []any{map[string]any{"name": "variant"}, map[string]any{"name": "predict"}, map[string]any{"name": "prediction_id"}}})
	got = w.ask(t, "vera", "POST", "/p/flights/v2/models/kind@staging/versions/7/infer", body)
	r = got.inference(t)
	if got.status != 200 || len(r.Outputs) != 3 || r.Outputs[0].Data[1] != "champion" || !slices.Equal(r.Outputs[1].Data, w.direct("kind", x, y)) || r.Outputs[2].Data[1] != w.last().ID || w.last().Environment != "staging" {
		t.Fatalf("%d %s", got.status, got.body)
	}

	// gzip, and NaN as Python writes it.
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	fmt.Fprintf(z, `{"inputs":[{"name":"x","datatype":"FP64","shape":[1,%d],"data":[%s]}]}`, len(names), strings.Join(slices.Repeat([]string{"NaN"}, len(names)), ","))
	z.Close()
	got = w.ask(t, "vera", "POST", "/p/flights/v2/models/kind/infer", zipped.Bytes(), "Content-Encoding", "gzip")
	if r = got.inference(t); got.status != 200 || !slices.Equal(r.Outputs[0].Data, w.direct("kind", slices.Repeat([]float64{math.NaN()}, len(names)))) {
		t.Fatalf("%d %s", got.status, got.body)
	}
}

func TestInferByEntity(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := func(parameters string) []byte {
		return []byte(`{"parameters":` + parameters + `,"inputs":[
{"name":"origin","datatype":"BYTES","shape":[2],"data":["JFK","EWR7"]},
{"name":"hour","datatype":"INT64","shape":[2],"data":[4,5]},
{"name":"load","datatype":"FP32","shape":[2],"data":[0.5,null]}]}`)
	}
	row := func(v float64) []float64 {
		return slices.Repeat([]float64{v}, w.models["delay"].NumFeatures())
	}
	got := w.ask(t, "vera", "POST", "/p/flights/v2/models/delay/infer", body(`{"unit":["u1","u2"]}`))
	if r := got.inference(t); got.status != 200 || !slices.Equal(r.Outputs[0].Data, w.direct("delay", row(7.5), row(math.NaN()))) {
		t.Fatalf("%d %s", got.status, got.body)
	}
	if p := w.last(); p.Unit != "u2" || p.Entity["origin"] != "EWR7" || len(p.Entity) != 1 || time.Since(p.At) > time.Minute {
		t.Errorf("%+v", p)
	}
	// Event time is for those with the right to replay; a refusal is in the ledger.
	at := time.Date(2013, 5, 6, 7, 8, 9, 123000, time.UTC).UnixMicro()
	got = w.ask(t, "vera", "POST", "/p/flights/v2/models/delay/infer", body(fmt.Sprintf(`{"at":[%d,%d]}`, at, at+1)))
	if got.status != 403 || !strings.Contains(got.inference(t).Error, "replayer") {
		t.Fatalf("%d %s", got.status, got.body)
	}
	got = w.ask(t, "replay", "POST", "/p/flights/v2/models/delay/infer", body(fmt.Sprintf(`{"at":[%d,%d]}`, at, at+1)))
	if p := w.last(); got.status != 200 || p.At.UnixMicro() != at+1 || p.FeaturesDigest != fmt.Sprint(at+1) || p.Unit != "EWR7" {
		t.Fatalf("%d %s %+v", got.status, got.body, p)
	}
	// The matrix is taken by the same model.
	x := w.ramp("delay", 1)
	got = w.ask(t, "vera", "POST", "/p/flights/v2/models/delay/infer", matrixBody("features", x))
	if r := got.inference(t); got.status != 200 || !slices.Equal(r.Outputs[0].Data, w.direct("delay", x)) {
		t.Fatalf("%d %s", got.status, got.body)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.ramp("kind", 1)
	good := matrixBody("x", x)
	bin := `{"inputs":[{"name":"x","datatype":"FP64","shape":[1,1],"parameters":{"binary_data_size":8}}]}`
	for name, c := range map[string]struct {
		as, path string
		body     []byte
		header   []string
		status   int
		says     string
	}{
		"nobody":            {"", "kind/infer", good, nil, 401, "signed-in"},
		"bad token":         {"eve", "kind/infer", good, nil, 401, "token"},
		"no model":          {"vera", "none/infer", good, nil, 404, "none"},
		"no environment":    {"vera", "kind@dev/infer", good, nil, 404, "dev"},
		"no version":        {"vera", "kind/versions/8/infer", good, nil, 404, `"8"`},
		"not JSON":          {"vera", "kind/infer", []byte("<xml>"), nil, 400, "byte 0"},
		"narrow":            {"vera", "kind/infer", matrixBody("x", x[1:]), nil, 400, "columns"},
		"unknown feature":   {"vera", "kind/infer", []byte(`{"inputs":[{"name":"zz","datatype":"FP64","shape":[1],"data":[1]}]}`), nil, 400, "zz"},
		"text":              {"vera", "kind/infer", []byte(`{"inputs":[{"name":"x","datatype":"BYTES","shape":[1,1],"data":["a"]}]}`), nil, 400, "columns"},
		"rows differ":       {"vera", "kind/infer", []byte(`{"inputs":[{"name":"a","datatype":"FP64","shape":[1],"data":[1]},{"name":"b","datatype":"FP64","shape":[2],"data":[1,2]}]}`), nil, 400, "rows"},
		"no rows":           {"vera", "kind/infer", []byte(`{"inputs":[{"name":"a","datatype":"FP64","shape":[0],"data":[]}]}`), nil, 400, "rows"},
		"unknown output":    {"vera", "kind/infer", append([]byte(`{"outputs":[{"name":"y"}],`), good[1:]...), nil, 400, "prediction_id"},
		"not an input":      {"vera", "delay/infer", []byte(`{"inputs":[{"name":"origin","datatype":"BYTES","shape":[1],"data":["J"]},{"name":"x","datatype":"FP64","shape":[1],"data":[1]}]}`), nil, 400, "request feature"},
		"the lookup's word": {"vera", "delay/infer", []byte(`{"inputs":[{"name":"origin","datatype":"BYTES","shape":[1],"data":["J"]},{"name":"hour","datatype":"FP64","shape":[1],"data":[1]}]}`), nil, 400, "whole number"},
		"header beyond":     {"vera", "kind/infer", good, []string{"Inference-Header-Content-Length", "99999"}, 400, "99999"},
		"binary cut off":    {"vera", "kind/infer", []byte(bin + "1234"), []string{"Inference-Header-Content-Length", fmt.Sprint(len(bin))}, 400, "ends before"},
		"binary too long":   {"vera", "kind/infer", []byte(bin + "123456789"), []string{"Inference-Header-Content-Length", fmt.Sprint(len(bin))}, 400, "follow"},
		"not gzip":          {"vera", "kind/infer", good, []string{"Content-Encoding", "gzip"}, 400, "gzip"},
		"encoding":          {"vera", "kind/infer", good, []string{"Content-Encoding", "br"}, 501, "br"},
	} {
		got := w.ask(t, c.as, "POST", "/p/flights/v2/models/"+c.path, c.body, c.header...)
		if got.status != c.status || !strings.Contains(got.inference(t).Error, c.says) {
			t.Errorf("%s: %d %s, want %d saying %q", name, got.status, got.body, c.status, c.says)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.recorded) != 0 {
		t.Errorf("recorded %+v", w.recorded)
	}
}

func TestBodyLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := io.CopyN(z, blank{}, 65<<20); err != nil {
		t.Fatal(err)
	}
	z.Close()
	got := w.ask(t, "vera", "POST", "/p/flights/v2/models/kind/infer", zipped.Bytes(), "Content-Encoding", "gzip")
	if got.status != 413 {
		t.Errorf("a gzip of 65 MiB: %d %s", got.status, got.body)
	}
}

type blank struct{}

func (blank) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var meta struct {
		Name       string
		Versions   []string
		Platform   string
		Inputs     []oip.Tensor
		Outputs    []oip.Tensor
		Parameters struct{ Features []string }
		Error      string
	}
	get := func(path string, status int) {
		t.Helper()
		got := w.ask(t, "vera", "GET", "/p/flights"+path, nil)
		meta.Error, meta.Inputs = "", nil
		if err := json.Unmarshal(got.body, &meta); err != nil || got.status != status {
			t.Fatalf("%s: %d %s", path, got.status, got.body)
		}
	}
	get("/v2/models/delay", 200)
	if meta.Name != "delay" || !slices.Equal(meta.Versions, []string{"7"}) || len(meta.Inputs) != 3 || meta.Inputs[0].Name != "origin" || meta.Inputs[0].Datatype != "BYTES" ||
		meta.Inputs[1].Datatype != "FP64" || !slices.Equal(meta.Parameters.Features, w.models["delay"].FeatureNames()) || meta.Outputs[0].Name != "predict" {
		t.Errorf("%+v", meta)
	}
	get("/v2/models/kind@staging/versions/7", 200)
	if len(meta.Inputs) != 1 || !slices.Equal(meta.Inputs[0].Shape, []int{-1, w.models["kind"].NumFeatures()}) || !slices.Equal(meta.Outputs[0].Shape, []int{-1, 4}) {
		t.Errorf("%+v", meta)
	}
	get("/v2/models/none", 404)
	if !strings.Contains(meta.Error, "none") {
		t.Errorf("%+v", meta)
	}
	get("/v2/models/kind/ready", 200)
	get("/v2/models/none/ready", 404)
	if got := w.ask(t, "", "GET", "/p/flights/v2/models/kind", nil); got.status != 401 {
		t.Errorf("metadata for nobody: %d", got.status)
	}
	for path, status := range map[string]int{"/v2/health/live": 200, "/v2/health/ready": 200} {
		if got := w.ask(t, "", "GET", path, nil); got.status != status {
			t.Errorf("%s: %d", path, got.status)
		}
	}
	w.ready = errors.New("stopping")
	if got := w.ask(t, "", "GET", "/v2/health/ready", nil); got.status != 503 {
		t.Errorf("ready while stopping: %d", got.status)
	}
}

// TestTritonClient runs the real, unmodified tritonclient against the server.
func TestTritonClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	python := pythontest.Python(t, pythontest.Triton)
	var rows [][]float64
	for i := range 40 {
		rows = append(rows, w.ramp("kind", float64(i)-20))
	}
	in, _ := json.Marshal(map[string]any{"rows": rows, "want": w.direct("kind", rows...), "one": w.direct("delay", slices.Repeat([]float64{7.5}, w.models["delay"].NumFeatures()))})
	cmd := exec.CommandContext(t.Context(), python, "testdata/triton.py", strings.TrimPrefix(w.url, "http://")+"/p/flights", "vera")
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "all equal") {
		t.Fatalf("%v\n%s", err, out)
	}
}

func BenchmarkInfer(b *testing.B) {
	w := newWorld(b)
	for _, n := range []int{1, 32} {
		body := matrixBody("x", slices.Repeat([][]float64{w.ramp("kind", 0.123456789)}, n)...)
		b.Run(fmt.Sprint(n, " rows"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest("POST", "/p/flights/v2/models/kind/infer", bytes.NewReader(body))
				r.Host = "localhost"
				r.Header.Set("Authorization", "Bearer vera")
				rec := httptest.NewRecorder()
				w.door.ServeHTTP(rec, r)
				if rec.Code != 200 {
					b.Fatal(rec.Body.String())
				}
				w.mu.Lock()
				w.recorded = w.recorded[:0]
				w.mu.Unlock()
			}
		})
	}
}

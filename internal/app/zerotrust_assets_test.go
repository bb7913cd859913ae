package app

import (
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"falaj/internal/api"
	"falaj/internal/delivery"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/who"
	"falaj/internal/registry"
	"falaj/internal/serving"
	"falaj/internal/tracking"
)

const mlmodel = `flavors:
  lightgbm: {data: model.lgb, lgb_version: 4.6.0, model_class: lightgbm.basic.Booster}
  python_function: {loader_module: mlflow.lightgbm, data: model.lgb}
signature:
  inputs: '[{"type":"double","name":"Column_0","required":true},{"type":"double","name":"Column_1","required":true},{"type":"double","name":"Column_2","required":true},{"type":"double","name":"Column_3","required":true},{"type":"double","name":"Column_4","required":true}]'
`

// register makes a model version of files, as a client does.
func (w *trusted) register(model string, files map[string]string) registry.Version {
	t, ctx, st := w.t, w.root, w.app.stages
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	run, err := st.tracking.CreateRun(ctx, "flights", tracking.NewRun{Name: "train", StartMs: 1})
	must(err)
	m, err := st.tracking.CreateModel(ctx, "flights", tracking.NewLoggedModel{Name: "model", SourceRun: run.ID, Experiment: run.Experiment})
	must(err)
	at, err := tracking.ProxyPath(m.ArtifactURI)
	must(err)
	for name, text := range files {
		must(second(st.tracking.PutArtifact(ctx, "flights", at+"/"+name, strings.NewReader(text))))
	}
	must(second(st.registry.CreateModel(ctx, "flights", registry.NewModel{Name: model})))
	v, err := st.registry.CreateVersion(ctx, "flights", registry.NewVersion{Model: model, Source: "models:/" + m.ID, LoggedModel: m.ID})
	must(err)
	return v
}

func (w *trusted) release(v registry.Version) registry.Release {
	w.t.Helper()
	r, err := w.app.stages.registry.CreateRelease(w.root, "flights", registry.ReleaseRequest{Model: v.Model, Version: v.Number})
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// Tenet 5: the integrity of all assets is monitored. A model whose stored bytes were altered is not loaded and answers nobody,
// and the record's check names it; what cannot be shown to be harmless does not pass the scan; what nobody released is not
// promoted, and no alias is a way around delivery. Signatures of models are not built: the release's digests stand for them.
func TestZT_5(t *testing.T) {
	t.Parallel()
	w := newTrusted(t, nil)
	booster, err := os.ReadFile("../serving/trees/testdata/binary.txt")
	if err != nil {
		t.Fatal(err)
	}
	good := w.release(w.register("delay", map[string]string{"MLmodel": mlmodel, "model.lgb": string(booster)}))
	key := serving.Key{Project: "flights", Model: "delay", Environment: "production"}
	stage := who.AsSystem(t.Context(), "delivery")
	if _, err := w.app.stages.serving.Configure(w.root, key, []serving.Variant{{Name: "champion", Role: "champion", Release: good.Digest, Weight: 100}}); !fault.Is(err, fault.Denied) {
		t.Errorf("an admin brings a release to production without a change: %v", err)
	}
	if _, err := w.app.stages.serving.Configure(stage, key, []serving.Variant{{Name: "champion", Role: "champion", Release: good.Digest, Weight: 100}}); err != nil {
		t.Fatal(err)
	}
	row := map[string]any{"inputs": []any{map[string]any{"name": "x", "shape": []int{1, 5}, "datatype": "FP64", "data": []float64{0, 0, 0, 0, 0}}}}
	infer := func(a *App) *httptest.ResponseRecorder {
		b, err := json.Marshal(row)
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("POST", "http://127.0.0.1/p/flights/v2/models/delay/infer", strings.NewReader(string(b)))
		r.Header.Set("Authorization", "Bearer "+w.engineer)
		out := httptest.NewRecorder()
		a.door.ServeHTTP(out, r)
		return out
	}
	if a := infer(w.app); a.Code != 200 {
		t.Fatalf("the unaltered model: %d %s", a.Code, a.Body)
	}
	w.clean()

	t.Run("scan", func(t *testing.T) {
		scan := func(digest string) delivery.Evidence {
			t.Helper()
			ev, err := w.app.stages.pipelines.Evaluate(w.root, delivery.Change{Project: "flights", ToRelease: digest}, delivery.Gate{Kind: delivery.GateScan})
			if err != nil {
				t.Fatal(err)
			}
			return ev
		}
		if ev := scan(good.Digest); ev.Verdict != delivery.Passed {
			t.Errorf("LightGBM's text: %+v", ev)
		}
		const textual = "cposix\nsystem\n(S'id'\ntR."
		class := strings.Replace(mlmodel, "lightgbm.basic.Booster", "lightgbm.sklearn.LGBMClassifier", 1)
		for name, files := range map[string]map[string]string{
			"pickle":                   {"python_model.pkl": "\x80\x05\x95\x1f\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."},
			"pickle of text":           {"python_model.pkl": textual},
			"text as a function":       {"notes.txt": textual, "MLmodel": "flavors: {python_function: {loader_module: mlflow.pyfunc.model, python_model: notes.txt}}\n"},
			"text as a classifier":     {"model.lgb": "tree\n" + textual, "MLmodel": class},
			"another loader":           {"model.lgb": string(booster), "MLmodel": strings.Replace(mlmodel, "loader_module: mlflow.lightgbm", "loader_module: antigravity", 1)},
			"no model at all":          {"MLmodel": "flavors: {}\n"},
			"pickle under a good name": {"notes.txt": "\x80\x05\x95\x00"},
			"pickle behind text":       {"model.lgb": "tree\n\x00\x80\x05\x95"},
			"archive":                  {"model.zip": "PK\x03\x04"},
			"code":                     {"helper.py": "import os\n"},
		} {
			if files["MLmodel"] == "" {
				files["MLmodel"] = mlmodel
			}
			r := w.release(w.register("bad."+strings.ReplaceAll(name, " ", "-"), files))
			if ev := scan(r.Digest); ev.Verdict != delivery.Failed || ev.Note == nil {
				t.Errorf("%s passes the scan: %+v", name, ev)
			}
		}
	})
	t.Run("not released", func(t *testing.T) {
		v := w.register("unseen", map[string]string{"MLmodel": mlmodel, "model.lgb": string(booster)})
		if a := w.ask(w.engineer, "POST", api.Base+"/projects/flights/changes", map[string]any{"model": "unseen", "version": v.Number, "environment": "dev"}); a.Code != 409 || !strings.Contains(a.Body.String(), "no release") {
			t.Errorf("a version without a release is promoted: %d %s", a.Code, a.Body)
		}
		if a := w.ask(w.engineer, "POST", "/p/flights/api/2.0/mlflow/registered-models/alias", map[string]any{"name": "unseen", "alias": "production", "version": "1"}); a.Code < 400 {
			t.Errorf("an alias moves production: %d %s", a.Code, a.Body)
		}
		other := serving.Key{Project: "flights", Model: "unseen", Environment: "production"}
		if _, err := w.app.stages.serving.Configure(stage, other, []serving.Variant{{Name: "champion", Role: "champion", Release: "sha256:" + strings.Repeat("0", 64), Weight: 100}}); err == nil {
			t.Error("a release that nobody made is served")
		}
	})

	// One bit of the model's file, the server stopped and started again.
	cfg := w.app.cfg
	if err := w.app.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	file := largest(t, filepath.Join(cfg.Data, "blobs"))
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := New(context.Background(), cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := again.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := again.stages.serving.Load(w.root); err == nil {
		t.Error("an altered model is loaded")
	}
	if a := infer(again); a.Code < 400 {
		t.Errorf("an altered model answers: %d %s", a.Code, a.Body)
	}
	if _, err := again.stages.serving.Configure(stage, serving.Key{Project: "flights", Model: "delay", Environment: "staging"}, []serving.Variant{{Name: "champion", Role: "champion", Release: good.Digest, Weight: 100}}); err == nil || fault.From(err).Public == "" {
		t.Errorf("an altered model is brought to staging: %v", err)
	}
	w.app = again
	if a := w.ask(w.admin, "GET", api.Base+"/audit/verify", nil); !strings.Contains(a.Body.String(), `"ok":false`) || !strings.Contains(a.Body.String(), filepath.Base(file)) {
		t.Errorf("the record's check does not name the altered file: %d %s", a.Code, a.Body)
	}
}

func largest(t *testing.T, dir string) (name string) {
	t.Helper()
	var size int64
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if st, err := e.Info(); err == nil && st.Size() > size {
			name, size = path, st.Size()
		}
		return nil
	})
	if err != nil || size < 10_000 {
		t.Fatalf("the model's file is not found: %s of %d bytes, %v", name, size, err)
	}
	return name
}

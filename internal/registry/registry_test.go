package registry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/blob"
	"falaj/internal/blob/dir"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
	"falaj/internal/registry"
	"falaj/internal/store"
	"falaj/internal/store/storetest"
	"falaj/internal/tracking"
)

type world struct {
	*registry.Service
	tracking *tracking.Service
	store    *store.Store
}

func each(t *testing.T, fn func(t *testing.T, ctx context.Context, w world)) {
	t.Helper()
	t.Parallel()
	storetest.Each(t, func(t *testing.T, db *store.Store) {
		keys, err := seal.Open(filepath.Join(t.TempDir(), "keys"))
		if err != nil {
			t.Fatal(err)
		}
		d, err := dir.Open(filepath.Join(t.TempDir(), "blobs"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		b := blob.New(db, keys, d)
		tr := tracking.New(db, b)
		bound := func(_ context.Context, project string) ([]string, error) { return []string{"preprod"}, nil }
		fn(t, storetest.As("amal"), world{registry.New(db, tr, b, bound), tr, db})
	})
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func refused(t *testing.T, err error, kind fault.Kind, text string) {
	t.Helper()
	if fault.KindOf(err) != kind || !strings.Contains(fault.From(err).Public, text) {
		t.Errorf("got %v (%s), want %s: %s", err, fault.KindOf(err), kind, text)
	}
}

// logged makes a run that logged a model of two files and gives the model.
func (w world) logged(t *testing.T, ctx context.Context) (tracking.Run, tracking.LoggedModel) {
	t.Helper()
	r := must[tracking.Run](t)(w.tracking.CreateRun(ctx, "flights", tracking.NewRun{Name: "train", StartMs: 1}))
	if err := w.tracking.LogBatch(ctx, "flights", r.ID, tracking.Batch{Params: []tracking.Pair{{Key: "trees", Value: "200"}},
		Metrics: []tracking.Metric{{Key: "auc", Value: 0.75, TimestampMs: 1}, {Key: "odd", Value: math.NaN(), TimestampMs: 1}}}); err != nil {
		t.Fatal(err)
	}
	m := must[tracking.LoggedModel](t)(w.tracking.CreateModel(ctx, "flights", tracking.NewLoggedModel{Name: "model", SourceRun: r.ID, Experiment: r.Experiment}))
	at := must[string](t)(tracking.ProxyPath(m.ArtifactURI))
	for path, text := range map[string]string{
		"model.txt": "tree",
		"MLmodel":   "flavors: {lightgbm: {lgb_version: 4.6.0}}\nsignature:\n  inputs: '[{\"type\": \"double\", \"name\": \"x\", \"required\": true}]'\n  outputs: null\n  params: null\n",
	} {
		must[tracking.Artifact](t)(w.tracking.PutArtifact(ctx, "flights", at+"/"+path, strings.NewReader(text)))
	}
	return r, m
}

func (w world) version(t *testing.T, ctx context.Context, name string, m tracking.LoggedModel) registry.Version {
	t.Helper()
	return must[registry.Version](t)(w.CreateVersion(ctx, "flights", registry.NewVersion{Model: name, Source: "models:/" + m.ID, LoggedModel: m.ID}))
}

func TestModels(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, w world) {
		m := must[registry.Model](t)(w.CreateModel(ctx, "flights", registry.NewModel{Name: "delay", Description: "d", Tags: []tracking.Pair{{Key: "team", Value: "ops"}}}))
		if m.Author != "user:amal" || len(m.Tags) != 1 {
			t.Errorf("made %+v", m)
		}
		_, err := w.CreateModel(ctx, "flights", registry.NewModel{Name: "delay"})
		refused(t, err, fault.Exists, "Registered Model (name=delay) already exists.")
		_, err = w.CreateModel(ctx, "flights", registry.NewModel{Name: "delay", Tags: []tracking.Pair{{Key: registry.TagPrompt, Value: "true"}}})
		refused(t, err, fault.Exists, "Tried to create a prompt with name 'delay', but the name is already taken by a registered model.")
		must[registry.Model](t)(w.CreateModel(ctx, "other", registry.NewModel{Name: "delay"}))
		for name, text := range map[string]string{"": "Missing value for required parameter 'name'.", "a/b": "Invalid model name 'a/b'. Names cannot contain '/' or ':'.", "..": "must not resolve", "a@b": "cannot contain '@'"} {
			_, err := w.CreateModel(ctx, "flights", registry.NewModel{Name: name})
			refused(t, err, fault.Invalid, text)
		}
		if m := must[registry.Model](t)(w.DescribeModel(ctx, "flights", "delay", "new")); m.Description != "new" {
			t.Errorf("described %+v", m)
		}
		if err := w.SetModelTag(ctx, "flights", "delay", tracking.Pair{Key: "team", Value: "risk"}); err != nil {
			t.Fatal(err)
		}
		must[registry.Model](t)(w.CreateModel(ctx, "flights", registry.NewModel{Name: "prompt", Tags: []tracking.Pair{{Key: registry.TagPrompt, Value: "true"}}}))
		must[registry.Model](t)(w.CreateModel(ctx, "flights", registry.NewModel{Name: "other"}))
		for filter, want := range map[string]string{
			"": "delay other ", "name LIKE 'de%'": "delay ", "name ILIKE 'DE%'": "delay ", "tags.team = 'risk'": "delay ", "name IN ('other', 'x')": "other ",
			"tags.`mlflow.prompt.is_prompt` = 'true'": "prompt ", "tags.`mlflow.prompt.is_prompt` != 'true' AND name != 'other'": "delay ",
		} {
			got := ""
			for _, m := range must[tracking.Page[registry.Model]](t)(w.SearchModels(ctx, "flights", tracking.Search{Filter: filter})).Items {
				got += m.Name + " "
			}
			if got != want {
				t.Errorf("%q: got %s, want %s", filter, got, want)
			}
		}
		if m := must[registry.Model](t)(w.RenameModel(ctx, "flights", "delay", "late")); m.Name != "late" {
			t.Errorf("renamed %+v", m)
		}
		_, err = w.RenameModel(ctx, "flights", "late", "other")
		refused(t, err, fault.Exists, "Registered Model (name=other) already exists.")
		if err := w.DeleteModel(ctx, "flights", "late"); err != nil {
			t.Fatal(err)
		}
		_, err = w.Model(ctx, "flights", "late")
		refused(t, err, fault.NotFound, "Registered Model with name=late not found")
		must[registry.Model](t)(w.CreateModel(ctx, "flights", registry.NewModel{Name: "late"})) // the name is free again
		refused(t, w.DeleteModel(storetest.As("vera"), "flights", "late"), fault.Denied, "vera may not model.delete")
	})
}

func TestVersionsAndTheirSources(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, w world) {
		r, m := w.logged(t, ctx)
		must[registry.Model](t)(w.CreateModel(ctx, "flights", registry.NewModel{Name: "delay"}))
		v := w.version(t, ctx, "delay", m)
		if v.Number != 1 || v.Run != r.ID || v.Storage != m.ArtifactURI || v.Stage != registry.StageNone {
			t.Errorf("made %+v", v)
		}
		got := must[tracking.LoggedModel](t)(w.tracking.Model(ctx, "flights", m.ID, false))
		if d := cmp.Diff([]tracking.Pair{{Key: "mlflow.modelVersions", Value: `[{"name":"delay","version":"1"}]`}}, got.Tags); d != "" {
			t.Error(d)
		}
		other := must[tracking.Run](t)(w.tracking.CreateRun(ctx, "flights", tracking.NewRun{Name: "other"}))
		good := map[string]registry.NewVersion{
			"runs:/" + r.ID + "/model":    {Run: r.ID},
			r.ArtifactURI + "/model":      {Run: r.ID},
			m.ArtifactURI:                 {LoggedModel: m.ID},
			"models:/delay/1":             {},
			"s3://bucket/models/1":        {},
			"models:/delay@latest":        {},
			r.ArtifactURI + "/a%20b/c":    {Run: r.ID},
			"https://example.com/model/1": {},
		}
		for source, req := range good {
			req.Model, req.Source = "delay", source
			if _, err := w.CreateVersion(ctx, "flights", req); err != nil {
				t.Errorf("%s: %v", source, err)
			}
		}
		bad := map[string]registry.NewVersion{
			"/etc/passwd": {Run: r.ID}, "file:///etc/passwd": {Run: r.ID}, "model": {Run: r.ID}, "./x": {}, `C:\x`: {}, "FILE:/x": {}, "%66ile:///etc": {},
			"mlflow-artifacts:/../x":                        {Run: r.ID},
			r.ArtifactURI + "/../../" + other.ID:            {Run: r.ID},
			r.ArtifactURI + "/%2e%2e/x":                     {Run: r.ID},
			r.ArtifactURI + "/%252e%252e/x":                 {Run: r.ID},
			r.ArtifactURI + "/a#b":                          {Run: r.ID},
			r.ArtifactURI + "x":                             {Run: r.ID},
			other.ArtifactURI + "/model":                    {Run: r.ID},
			"runs:/" + other.ID + "/model":                  {Run: r.ID},
			"models:/" + m.ID:                               {},
			"models:/" + m.ID + "#":                         {LoggedModel: m.ID},
			"models://host/delay/1":                         {},
			"s3://bucket/../x":                              {},
			"s3://bucket/a/..%2fb":                          {},
			"http://h/api/2.0/mlflow-artifacts/artifacts/x": {Run: r.ID},
		}
		for source, req := range bad {
			req.Model, req.Source = "delay", source
			_, err := w.CreateVersion(ctx, "flights", req)
			refused(t, err, fault.Invalid, "Invalid model version source")
		}
		_, err := w.CreateVersion(ctx, "flights", registry.NewVersion{Model: "none", Source: "s3://b/x"})
		refused(t, err, fault.NotFound, "Registered Model with name=none not found")

		page := must[tracking.Page[registry.Version]](t)(w.SearchVersions(ctx, "flights", tracking.Search{Filter: "name = 'delay' AND run_id = '" + r.ID + "' AND version_number <= 2", OrderBy: []string{"version_number"}}))
		if len(page.Items) == 0 || page.Items[0].Number != 1 {
			t.Errorf("search: %+v", page)
		}
		if err := w.DeleteVersion(ctx, "flights", "delay", 2); err != nil {
			t.Fatal(err)
		}
		_, err = w.Version(ctx, "flights", "delay", 2)
		refused(t, err, fault.NotFound, "Model Version (name=delay, version=2) not found")
		if next := w.version(t, ctx, "delay", m); next.Number != int64(len(good)+2) {
			t.Errorf("numbers are never used again: %d", next.Number)
		}
	})
}

func TestVersionNumbersUnderConcurrency(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, w world) {
		must[registry.Model](t)(w.CreateModel(ctx, "flights", registry.NewModel{Name: "delay"}))
		seen := make([]int64, 12)
		var wg sync.WaitGroup
		for i := range seen {
			wg.Go(func() {
				v, err := w.CreateVersion(ctx, "flights", registry.NewVersion{Model: "delay", Source: fmt.Sprintf("s3://b/%d", i)})
				if err != nil {
					t.Error(err)
					return
				}
				seen[i] = v.Number
			})
		}
		wg.Wait()
		have := map[int64]bool{}
		for _, n := range seen {
			have[n] = true
		}
		for n := int64(1); n <= 12; n++ {
			if !have[n] {
				t.Errorf("number %d is missing in %v", n, seen)
			}
		}
	})
}

func TestAliasesRememberAndEnvironmentsAreDeliverys(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, w world) {
		_, m := w.logged(t, ctx)
		must[registry.Model](t)(w.CreateModel(ctx, "flights", registry.NewModel{Name: "delay"}))
		w.version(t, ctx, "delay", m)
		w.version(t, ctx, "delay", m)
		for _, n := range []int64{1, 2, 2, 1} {
			if err := w.SetAlias(ctx, "flights", "delay", "candidate", n, ""); err != nil {
				t.Fatal(err)
			}
		}
		if v := must[registry.Version](t)(w.VersionByAlias(ctx, "flights", "delay", "candidate")); v.Number != 1 || len(v.Aliases) != 1 {
			t.Errorf("candidate is %+v", v)
		}
		if err := w.DeleteAlias(ctx, "flights", "delay", "candidate", ""); err != nil {
			t.Fatal(err)
		}
		history := must[[]registry.PointerMove](t)(w.PointerHistory(ctx, "flights", "delay", "candidate"))
		var got []string
		for _, h := range history {
			if h.Actor != "user:amal" || h.At.IsZero() {
				t.Errorf("move without actor or time: %+v", h)
			}
			got = append(got, fmt.Sprintf("%d->%d", h.From, h.To))
		}
		if d := cmp.Diff([]string{"1->0", "2->1", "1->2", "0->1"}, got); d != "" {
			t.Error(d)
		}
		if n := must[int64](t)(w.PointedAt(ctx, "flights", "delay", "candidate", history[1].At)); n != 1 {
			t.Errorf("at %s it pointed to %d", history[1].At, n)
		}
		_, err := w.VersionByAlias(ctx, "flights", "delay", "candidate")
		refused(t, err, fault.Invalid, "Registered model alias candidate not found.")
		if v := must[registry.Version](t)(w.VersionByAlias(ctx, "flights", "delay", "LATEST")); v.Number != 2 {
			t.Errorf("latest is %d", v.Number)
		}
		for alias, text := range map[string]string{"latest": "'latest' alias name (case insensitive) is reserved.", "v12": "Version alias name 'v12' is reserved.", "a b": "Invalid alias name: 'a b'.", "": "cannot be empty"} {
			refused(t, w.SetAlias(ctx, "flights", "delay", alias, 1, ""), fault.Invalid, text)
		}

		for _, alias := range []string{"production", "Champion", "staging", "preprod"} {
			refused(t, w.SetAlias(ctx, "flights", "delay", alias, 1, ""), fault.Denied, "is bound to an environment and moves only by delivery. Use `falaj promote delay@1 "+strings.ToLower(alias)+"`.")
			refused(t, w.DeleteAlias(ctx, "flights", "delay", alias, ""), fault.Denied, "falaj rollback")
		}
		refused(t, w.SetAlias(storetest.As("root"), "flights", "delay", "production", 1, ""), fault.Denied, "moves only by delivery")
		delivery := storetest.As("system:delivery")
		if err := w.SetAlias(delivery, "flights", "delay", "production", 1, "chg_1"); err != nil {
			t.Fatal(err)
		}
		if h := must[[]registry.PointerMove](t)(w.PointerHistory(ctx, "flights", "delay", "production")); len(h) != 1 || h[0].Change != "chg_1" || h[0].Actor != "system:delivery" {
			t.Errorf("history %+v", h)
		}
		refused(t, w.DeleteVersion(ctx, "flights", "delay", 1), fault.Conflict, "delay@1 cannot be deleted: 'production' points to it.")
		refused(t, w.DeleteModel(ctx, "flights", "delay"), fault.Conflict, "delay cannot be deleted: 'production' points to it.")

		_, err = w.TransitionStage(ctx, "flights", "delay", 2, "production", false)
		refused(t, err, fault.Denied, "The stage 'Production' of delay is bound to an environment and moves only by delivery. Use `falaj promote delay@2 production`.")
		if v := must[registry.Version](t)(w.TransitionStage(ctx, "flights", "delay", 2, "archived", false)); v.Stage != registry.StageArchived {
			t.Errorf("stage %s", v.Stage)
		}
		must[registry.Version](t)(w.TransitionStage(delivery, "flights", "delay", 1, "Production", true))
		must[registry.Version](t)(w.TransitionStage(delivery, "flights", "delay", 2, "Production", true))
		latest := must[[]registry.Version](t)(w.LatestVersions(ctx, "flights", "delay", []string{"Production"}))
		if len(latest) != 1 || latest[0].Number != 2 || must[registry.Version](t)(w.Version(ctx, "flights", "delay", 1)).Stage != registry.StageArchived {
			t.Errorf("production is %+v", latest)
		}
		_, err = w.TransitionStage(ctx, "flights", "delay", 2, "None", false)
		refused(t, err, fault.Denied, "moves only by delivery")
		_, err = w.TransitionStage(ctx, "flights", "delay", 2, "Live", false)
		refused(t, err, fault.Invalid, "Invalid Model Version stage: Live. Value must be one of None, Staging, Production, Archived.")
	})
}

func TestRelease(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, w world) {
		r, m := w.logged(t, ctx)
		must[registry.Model](t)(w.CreateModel(ctx, "flights", registry.NewModel{Name: "delay"}))
		v := w.version(t, ctx, "delay", m)
		d := func(c string) string { return "sha256:" + strings.Repeat(c, 64) }
		req := registry.ReleaseRequest{Model: "delay", Version: v.Number,
			Data:     []registry.Ref{{Name: "weather", Version: "2", Digest: d("b")}, {Name: "flights", Version: "3", Digest: d("a")}},
			Features: []registry.Ref{{Name: "delay_v1", Digest: d("c")}},
			Code:     registry.Code{Digest: d("d"), Commit: "0123abcd", Dirty: true}, Runtime: d("e")}
		rel := must[registry.Release](t)(w.CreateRelease(ctx, "flights", req))
		want := `{"code":{"commit":"0123abcd","digest":"` + d("d") + `","dirty":true},"data":[{"digest":"` + d("a") + `","name":"flights","version":"3"},{"digest":"` + d("b") + `","name":"weather","version":"2"}],` +
			`"features":[{"digest":"` + d("c") + `","name":"delay_v1"}],"files":[{"digest":"` + rel.Manifest.Files[0].Digest + `","path":"MLmodel","size":148},{"digest":"sha256:dc9c5edb8b2d479e697b4b0b8ab874f32b325138598ce9e7b759eb8292110622","path":"model.txt","size":4}],` +
			`"metrics":{"auc":0.75,"odd":"NaN"},"model":"delay","parameters":{"trees":"200"},"project":"flights","run":"` + r.ID + `","runtime":"` + d("e") + `","schema":"falaj.release/1",` +
			`"signature":{"inputs":[{"name":"x","required":true,"type":"double"}]},"version":1}`
		if d := cmp.Diff(want, string(rel.JSON)); d != "" {
			t.Error(d)
		}
		if again := must[registry.Release](t)(w.CreateRelease(ctx, "flights", req)); again.Digest != rel.Digest {
			t.Error("the same content has another digest")
		}
		req.Code.Dirty = false
		_, err := w.CreateRelease(ctx, "flights", req)
		refused(t, err, fault.Conflict, "delay@1 already has release "+rel.Digest+", and a release never changes.")

		// The run's files may go: the release keeps its own.
		at := must[string](t)(tracking.ProxyPath(m.ArtifactURI))
		if err := w.tracking.DeleteArtifacts(ctx, "flights", at+"/model.txt"); err != nil {
			t.Fatal(err)
		}
		o, err := w.OpenFile(ctx, "flights", rel.Digest, "model.txt")
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		if b, err := io.ReadAll(o); err != nil || string(b) != "tree" {
			t.Errorf("%q %v", b, err)
		}
		_, err = w.OpenFile(ctx, "flights", rel.Digest, "../x")
		refused(t, err, fault.NotFound, "has no file '../x'")
		_, err = w.Release(ctx, "other", rel.Digest)
		refused(t, err, fault.NotFound, "There is no release")

		list := must[[]registry.Release](t)(w.Releases(ctx, "flights", "delay"))
		if len(list) != 1 || list[0].Digest != rel.Digest || list[0].Author != "user:amal" {
			t.Errorf("releases %+v", list)
		}
		if err := w.SetAlias(storetest.As("system:delivery"), "flights", "delay", "staging", 1, "c"); err != nil {
			t.Fatal(err)
		}
		for _, ref := range []string{"flights/delay@1", "flights/delay@staging", "flights/delay@" + rel.Digest, "flights/delay@latest"} {
			if got := must[registry.Resolved](t)(w.Resolve(ctx, ref)); got.Version.Number != 1 || got.Version.Release != rel.Digest || got.Project != "flights" {
				t.Errorf("%s is %+v", ref, got)
			}
		}
		for ref, kind := range map[string]fault.Kind{"delay": fault.Invalid, "delay@": fault.Invalid, "@1": fault.Invalid, "delay@1": fault.NotFound, "flights/delay@9": fault.NotFound, "flights/x@" + rel.Digest: fault.NotFound} {
			if _, err := w.Resolve(ctx, ref); fault.KindOf(err) != kind {
				t.Errorf("%s: %v", ref, err)
			}
		}
		// What is not in falaj cannot be vouched for.
		ext := must[registry.Version](t)(w.CreateVersion(ctx, "flights", registry.NewVersion{Model: "delay", Source: "s3://b/x"}))
		_, err = w.CreateRelease(ctx, "flights", registry.ReleaseRequest{Model: "delay", Version: ext.Number})
		refused(t, err, fault.Refused, "cannot be released: its files lie at 's3://b/x'")
		_, err = w.CreateRelease(ctx, "flights", registry.ReleaseRequest{Model: "delay", Version: 1, Data: []registry.Ref{{Name: "x", Digest: "md5:1"}}})
		refused(t, err, fault.Invalid, "which is not a digest")
	})
}

// A manifest that was changed in the database is found by its digest.
func TestTamperedReleaseIsFound(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, w world) {
		_, m := w.logged(t, ctx)
		must[registry.Model](t)(w.CreateModel(ctx, "flights", registry.NewModel{Name: "delay"}))
		w.version(t, ctx, "delay", m)
		rel := must[registry.Release](t)(w.CreateRelease(ctx, "flights", registry.ReleaseRequest{Model: "delay", Version: 1}))
		changed := strings.Replace(string(rel.JSON), `"auc":0.75`, `"auc":0.99`, 1)
		if err := w.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.Exec(ctx, `UPDATE releases SET manifest = $1 WHERE digest = $2`, changed, rel.Digest)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		_, err := w.Release(ctx, "flights", rel.Digest)
		refused(t, err, fault.Internal, "does not have that digest: the row was changed outside falaj")
	})
}

func TestCanonicalIsStable(t *testing.T) {
	t.Parallel()
	a, err := registry.Canonical(map[string]any{"b": 1.50, "a": []any{true, nil, "<&>\u00e9"}, "c": json.RawMessage(`{"z": 1, "y": [ 2 ]}`)})
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"a":[true,null,"<&>é"],"b":1.5,"c":{"y":[2],"z":1}}`; string(a) != want {
		t.Errorf("got %s, want %s", a, want)
	}
}

package mlflow

import (
	"context"
	"net/http"
	"slices"

	"falaj/internal/compat/mlflow/wire"
	"falaj/internal/door"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/tracking"
)

type loggedBox struct {
	Model wire.LoggedModel `json:"model"`
}

// ofModel gives a JSON route whose path names a logged model.
func ofModel[T any](a *api, method, tail, rules string, action policy.Action, fn func(ctx context.Context, project, model string, r *http.Request, in *T) (any, error)) []door.Route {
	return both(method, "/2.0/mlflow/logged-models/{model}"+tail, action, 0, func(w http.ResponseWriter, r *http.Request) {
		in := new(T)
		if err := wire.Decode(r, a.rules[rules], in); err != nil {
			writeFault(w, r, fault.From(err))
			return
		}
		out, err := fn(r.Context(), door.Project(r.Context()), r.PathValue("model"), r, in)
		if err != nil {
			writeFault(w, r, fault.From(err))
			return
		}
		wire.Write(w, http.StatusOK, out)
	})
}

func (a *api) loggedModels() []door.Route {
	t := a.tracking
	return slices.Concat(
		call(a, http.MethodPost, "logged-models", "run.log", func(ctx context.Context, p string, in *wire.CreateLoggedModel) (any, error) {
			id, err := tracking.ParseExperimentID(in.ExperimentID)
			if err != nil {
				return nil, err
			}
			m, err := t.CreateModel(ctx, p, tracking.NewLoggedModel{Experiment: id, Name: in.Name, Type: in.ModelType, SourceRun: in.SourceRunID, Params: pairsIn(in.Params), Tags: pairsIn(in.Tags)})
			return loggedBox{loggedOut(m)}, err
		}),
		call(a, http.MethodPost, "logged-models/search", "run.read", a.searchLogged),
		ofModel(a, http.MethodGet, "", "", "run.read", func(ctx context.Context, p, id string, r *http.Request, _ *empty) (any, error) {
			m, err := t.Model(ctx, p, id, r.URL.Query().Get("allow_deleted") == "true")
			return loggedBox{loggedOut(m)}, err
		}),
		ofModel(a, http.MethodPatch, "", "logged-models/finalize", "run.log", func(ctx context.Context, p, id string, _ *http.Request, in *wire.FinalizeLoggedModel) (any, error) {
			status := map[wire.Enum]tracking.ModelStatus{"1": tracking.ModelPending, "LOGGED_MODEL_PENDING": tracking.ModelPending, "2": tracking.ModelReady, "LOGGED_MODEL_READY": tracking.ModelReady,
				"3": tracking.ModelUploadFailed, "LOGGED_MODEL_UPLOAD_FAILED": tracking.ModelUploadFailed}[in.Status]
			m, err := t.FinalizeModel(ctx, p, id, status)
			return loggedBox{loggedOut(m)}, err
		}),
		ofModel(a, http.MethodDelete, "", "", "run.log", func(ctx context.Context, p, id string, _ *http.Request, _ *empty) (any, error) {
			return empty{}, t.DeleteModel(ctx, p, id)
		}),
		ofModel(a, http.MethodPost, "/params", "logged-models/params", "run.log", func(ctx context.Context, p, id string, _ *http.Request, in *wire.LoggedModelParams) (any, error) {
			return empty{}, t.LogModelParams(ctx, p, id, pairsIn(in.Params))
		}),
		ofModel(a, http.MethodPatch, "/tags", "logged-models/tags", "run.log", func(ctx context.Context, p, id string, _ *http.Request, in *wire.LoggedModelTags) (any, error) {
			_, err := t.SetModelTags(ctx, p, id, pairsIn(in.Tags))
			return empty{}, err
		}),
		ofModel(a, http.MethodDelete, "/tags/{tag}", "", "run.log", func(ctx context.Context, p, id string, r *http.Request, _ *empty) (any, error) {
			return empty{}, t.DeleteModelTag(ctx, p, id, r.PathValue("tag"))
		}),
		ofModel(a, http.MethodGet, "/artifacts/directories", "logged-models/directories", "artifact.read", func(ctx context.Context, p, id string, _ *http.Request, in *wire.Directory) (any, error) {
			m, list, err := t.ListModelArtifacts(ctx, p, id, in.Path)
			return fileList{Root: m.ArtifactURI, Files: filesOut(list, in.Path)}, err
		}),
	)
}

func (a *api) searchLogged(ctx context.Context, p string, in *wire.SearchLoggedModels) (any, error) {
	ids, err := experimentIDs(in.ExperimentIDs)
	if err != nil {
		return nil, err
	}
	s := tracking.ModelSearch{Experiments: ids, Filter: in.Filter, Max: clamp(in.MaxResults), Token: in.PageToken}
	for _, d := range in.Datasets {
		s.Datasets = append(s.Datasets, tracking.Pair{Key: d.Name, Value: d.Digest})
	}
	for _, o := range in.OrderBy {
		s.OrderBy = append(s.OrderBy, tracking.ModelOrder{Field: o.Field, Ascending: o.Ascending == nil || *o.Ascending, DatasetName: o.DatasetName, DatasetDigest: o.DatasetDigest})
	}
	page, err := a.tracking.SearchModels(ctx, p, s)
	out := struct {
		Models []wire.LoggedModel `json:"models,omitempty"`
		Next   string             `json:"next_page_token,omitempty"`
	}{Next: page.Next}
	for _, m := range page.Items {
		out.Models = append(out.Models, loggedOut(m))
	}
	return out, err
}

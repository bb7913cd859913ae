package mlflow

import (
	"context"
	"net/http"
	"slices"
	"strconv"

	"falaj/internal/compat/mlflow/wire"
	"falaj/internal/door"
	"falaj/internal/registry"
	"falaj/internal/tracking"
)

type modelBox struct {
	Model wire.RegisteredModel `json:"registered_model"`
}

type versionBox struct {
	Version wire.ModelVersion `json:"model_version"`
}

type versionList struct {
	Versions []wire.ModelVersion `json:"model_versions,omitempty"`
	Next     string              `json:"next_page_token,omitempty"`
}

func number(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, invalid("Parameter 'version' must be an integer, got '%s'.", s)
	}
	return n, nil
}

func (a *api) models() []door.Route {
	r := a.registry
	latest := func(method string) []door.Route {
		return call(a, method, "registered-models/get-latest-versions", "model.read", func(ctx context.Context, p string, in *wire.LatestVersions) (any, error) {
			list, err := r.LatestVersions(ctx, p, in.Name, in.Stages)
			return versionList{Versions: versionsOut(list)}, err
		})
	}
	setAlias := callAs(a, http.MethodPost, "registered-models/alias", "registered-models/alias set", "model.alias.set", func(ctx context.Context, p string, in *wire.ModelAlias) (any, error) {
		n, err := number(in.Version)
		if err != nil {
			return nil, err
		}
		return empty{}, r.SetAlias(ctx, p, in.Name, in.Alias, n, "")
	})
	return slices.Concat(
		call(a, http.MethodPost, "registered-models/create", "model.create", func(ctx context.Context, p string, in *wire.CreateModel) (any, error) {
			m, err := r.CreateModel(ctx, p, registry.NewModel{Name: in.Name, Description: in.Description, Tags: pairsIn(in.Tags)})
			return modelBox{modelOut(m)}, err
		}),
		call(a, http.MethodGet, "registered-models/get", "model.read", func(ctx context.Context, p string, in *wire.ModelName) (any, error) {
			m, err := r.Model(ctx, p, in.Name)
			return modelBox{modelOut(m)}, err
		}),
		call(a, http.MethodPatch, "registered-models/update", "model.update", func(ctx context.Context, p string, in *wire.UpdateModel) (any, error) {
			m, err := r.DescribeModel(ctx, p, in.Name, in.Description)
			return modelBox{modelOut(m)}, err
		}),
		call(a, http.MethodPost, "registered-models/rename", "model.update", func(ctx context.Context, p string, in *wire.RenameModel) (any, error) {
			m, err := r.RenameModel(ctx, p, in.Name, in.NewName)
			return modelBox{modelOut(m)}, err
		}),
		call(a, http.MethodDelete, "registered-models/delete", "model.delete", func(ctx context.Context, p string, in *wire.ModelName) (any, error) {
			return empty{}, r.DeleteModel(ctx, p, in.Name)
		}),
		call(a, http.MethodGet, "registered-models/search", "model.read", a.searchModels),
		latest(http.MethodPost), latest(http.MethodGet),
		call(a, http.MethodPost, "registered-models/set-tag", "model.update", func(ctx context.Context, p string, in *wire.ModelTag) (any, error) {
			return empty{}, r.SetModelTag(ctx, p, in.Name, tracking.Pair{Key: in.Key, Value: in.Value})
		}),
		call(a, http.MethodDelete, "registered-models/delete-tag", "model.update", func(ctx context.Context, p string, in *wire.ModelTag) (any, error) {
			return empty{}, r.DeleteModelTag(ctx, p, in.Name, in.Key)
		}),
		setAlias,
		call(a, http.MethodDelete, "registered-models/alias", "model.alias.delete", func(ctx context.Context, p string, in *wire.ModelAlias) (any, error) {
			return empty{}, r.DeleteAlias(ctx, p, in.Name, in.Alias, "")
		}),
		call(a, http.MethodGet, "registered-models/alias", "model.read", func(ctx context.Context, p string, in *wire.ModelAlias) (any, error) {
			v, err := r.VersionByAlias(ctx, p, in.Name, in.Alias)
			return versionBox{versionOut(v)}, err
		}),
	)
}

func (a *api) searchModels(ctx context.Context, p string, in *wire.Search) (any, error) {
	max, err := limit(in.MaxResults, notPositiveVersions)
	if err != nil {
		return nil, err
	}
	page, err := a.registry.SearchModels(ctx, p, tracking.Search{Filter: in.Filter, OrderBy: in.OrderBy, Max: max, Token: in.PageToken})
	out := struct {
		Models []wire.RegisteredModel `json:"registered_models,omitempty"`
		Next   string                 `json:"next_page_token,omitempty"`
	}{Next: page.Next}
	for _, m := range page.Items {
		out.Models = append(out.Models, modelOut(m))
	}
	return out, err
}

func (a *api) versions() []door.Route {
	r := a.registry
	return slices.Concat(
		call(a, http.MethodPost, "model-versions/create", "model.version.create", func(ctx context.Context, p string, in *wire.CreateVersion) (any, error) {
			v := registry.NewVersion{Model: in.Name, Source: in.Source, RunLink: in.RunLink, Description: in.Description, Tags: pairsIn(in.Tags), HasRun: in.RunID != nil, HasLoggedModel: in.ModelID != nil}
			if in.RunID != nil {
				v.Run = *in.RunID
			}
			if in.ModelID != nil {
				v.LoggedModel = *in.ModelID
			}
			out, err := r.CreateVersion(ctx, p, v)
			return versionBox{versionOut(out)}, err
		}),
		call(a, http.MethodGet, "model-versions/get", "model.read", func(ctx context.Context, p string, in *wire.Version) (any, error) {
			n, err := number(in.Version)
			if err != nil {
				return nil, err
			}
			v, err := r.Version(ctx, p, in.Name, n)
			return versionBox{versionOut(v)}, err
		}),
		call(a, http.MethodPatch, "model-versions/update", "model.version.update", func(ctx context.Context, p string, in *wire.UpdateVersion) (any, error) {
			n, err := number(in.Version)
			if err != nil {
				return nil, err
			}
			text := ""
			if in.Description != nil {
				text = *in.Description
			}
			v, err := r.DescribeVersion(ctx, p, in.Name, n, text)
			return versionBox{versionOut(v)}, err
		}),
		call(a, http.MethodPost, "model-versions/transition-stage", "model.version.update", func(ctx context.Context, p string, in *wire.Transition) (any, error) {
			n, err := number(in.Version)
			if err != nil {
				return nil, err
			}
			v, err := r.TransitionStage(ctx, p, in.Name, n, in.Stage, in.Archive)
			return versionBox{versionOut(v)}, err
		}),
		call(a, http.MethodDelete, "model-versions/delete", "model.version.delete", func(ctx context.Context, p string, in *wire.Version) (any, error) {
			n, err := number(in.Version)
			if err != nil {
				return nil, err
			}
			return empty{}, r.DeleteVersion(ctx, p, in.Name, n)
		}),
		call(a, http.MethodGet, "model-versions/get-download-uri", "model.read", func(ctx context.Context, p string, in *wire.Version) (any, error) {
			n, err := number(in.Version)
			if err != nil {
				return nil, err
			}
			v, err := r.Version(ctx, p, in.Name, n)
			return struct {
				URI string `json:"artifact_uri"`
			}{v.Storage}, err
		}),
		call(a, http.MethodGet, "model-versions/search", "model.read", func(ctx context.Context, p string, in *wire.Search) (any, error) {
			max, err := limit(in.MaxResults, notPositiveVersions)
			if err != nil {
				return nil, err
			}
			page, err := r.SearchVersions(ctx, p, tracking.Search{Filter: in.Filter, OrderBy: in.OrderBy, Max: max, Token: in.PageToken})
			return versionList{versionsOut(page.Items), page.Next}, err
		}),
		call(a, http.MethodPost, "model-versions/set-tag", "model.version.update", func(ctx context.Context, p string, in *wire.VersionTag) (any, error) {
			n, err := number(in.Version)
			if err != nil {
				return nil, err
			}
			return empty{}, r.SetVersionTag(ctx, p, in.Name, n, tracking.Pair{Key: in.Key, Value: in.Value})
		}),
		call(a, http.MethodDelete, "model-versions/delete-tag", "model.version.update", func(ctx context.Context, p string, in *wire.VersionTag) (any, error) {
			n, err := number(in.Version)
			if err != nil {
				return nil, err
			}
			return empty{}, r.DeleteVersionTag(ctx, p, in.Name, n, in.Key)
		}),
	)
}

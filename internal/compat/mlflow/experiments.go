package mlflow

import (
	"context"
	"net/http"
	"slices"

	"falaj/internal/compat/mlflow/wire"
	"falaj/internal/door"
	"falaj/internal/tracking"
)

type experimentBox struct {
	Experiment wire.Experiment `json:"experiment"`
}

func (a *api) experiments() []door.Route {
	const post, get = http.MethodPost, http.MethodGet
	search := func(method string) []door.Route {
		return call(a, method, "experiments/search", "experiment.read", a.searchExperiments)
	}
	byID := func(fn func(ctx context.Context, project string, id int64) error) func(context.Context, string, *wire.ExperimentID) (any, error) {
		return func(ctx context.Context, p string, in *wire.ExperimentID) (any, error) {
			id, err := tracking.ParseExperimentID(in.ID)
			if err != nil {
				return nil, err
			}
			return empty{}, fn(ctx, p, id)
		}
	}
	return slices.Concat(
		call(a, post, "experiments/create", "experiment.create", func(ctx context.Context, p string, in *wire.CreateExperiment) (any, error) {
			e, err := a.tracking.CreateExperiment(ctx, p, tracking.NewExperiment{Name: in.Name, ArtifactLocation: in.ArtifactLocation, Tags: pairsIn(in.Tags)})
			return struct {
				ID string `json:"experiment_id"`
			}{itoa(e.ID)}, err
		}),
		call(a, get, "experiments/get", "experiment.read", func(ctx context.Context, p string, in *wire.ExperimentID) (any, error) {
			id, err := tracking.ParseExperimentID(in.ID)
			if err != nil {
				return nil, err
			}
			e, err := a.tracking.Experiment(ctx, p, id)
			return experimentBox{experimentOut(e)}, err
		}),
		call(a, get, "experiments/get-by-name", "experiment.read", func(ctx context.Context, p string, in *wire.ExperimentName) (any, error) {
			e, err := a.tracking.ExperimentByName(ctx, p, in.Name)
			return experimentBox{experimentOut(e)}, err
		}),
		search(post), search(get),
		call(a, post, "experiments/delete", "experiment.delete", byID(a.tracking.DeleteExperiment)),
		call(a, post, "experiments/restore", "experiment.restore", byID(a.tracking.RestoreExperiment)),
		call(a, post, "experiments/update", "experiment.update", func(ctx context.Context, p string, in *wire.UpdateExperiment) (any, error) {
			id, err := tracking.ParseExperimentID(in.ID)
			if err != nil {
				return nil, err
			}
			return empty{}, a.tracking.RenameExperiment(ctx, p, id, in.NewName)
		}),
		call(a, post, "experiments/set-experiment-tag", "experiment.update", func(ctx context.Context, p string, in *wire.ExperimentTag) (any, error) {
			id, err := tracking.ParseExperimentID(in.ID)
			if err != nil {
				return nil, err
			}
			return empty{}, a.tracking.SetExperimentTag(ctx, p, id, tracking.Pair{Key: in.Key, Value: in.Value})
		}),
		call(a, post, "experiments/delete-experiment-tag", "experiment.update", func(ctx context.Context, p string, in *wire.ExperimentTag) (any, error) {
			id, err := tracking.ParseExperimentID(in.ID)
			if err != nil {
				return nil, err
			}
			return empty{}, a.tracking.DeleteExperimentTag(ctx, p, id, in.Key)
		}),
	)
}

func (a *api) searchExperiments(ctx context.Context, p string, in *wire.SearchExperiments) (any, error) {
	view, err := viewOf(in.ViewType)
	if err != nil {
		return nil, err
	}
	page, err := a.tracking.SearchExperiments(ctx, p, tracking.Search{Filter: in.Filter, OrderBy: in.OrderBy, View: view, Max: clamp(in.MaxResults), Token: in.PageToken})
	out := struct {
		Experiments []wire.Experiment `json:"experiments,omitempty"`
		Next        string            `json:"next_page_token,omitempty"`
	}{Next: page.Next}
	for _, e := range page.Items {
		out.Experiments = append(out.Experiments, experimentOut(e))
	}
	return out, err
}

package mlflow

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"falaj/internal/compat/mlflow/wire"
	"falaj/internal/door"
	"falaj/internal/tracking"
)

type runBox struct {
	Run wire.Run `json:"run"`
}

func (a *api) runs() []door.Route {
	const post, get = http.MethodPost, http.MethodGet
	return slices.Concat(
		call(a, post, "runs/create", "run.create", a.createRun),
		call(a, post, "runs/update", "run.update", a.updateRun),
		call(a, post, "runs/delete", "run.delete", func(ctx context.Context, p string, in *wire.RunID) (any, error) {
			return empty{}, a.tracking.DeleteRun(ctx, p, first(in.RunID, in.RunUUID))
		}),
		call(a, post, "runs/restore", "run.restore", func(ctx context.Context, p string, in *wire.RunID) (any, error) {
			return empty{}, a.tracking.RestoreRun(ctx, p, first(in.RunID, in.RunUUID))
		}),
		call(a, get, "runs/get", "run.read", func(ctx context.Context, p string, in *wire.RunID) (any, error) {
			r, err := a.tracking.Run(ctx, p, first(in.RunID, in.RunUUID))
			return runBox{runOut(r)}, err
		}),
		call(a, post, "runs/search", "run.read", a.searchRuns),
		call(a, post, "runs/log-metric", "run.log", func(ctx context.Context, p string, in *wire.LogMetric) (any, error) {
			m := metricsIn([]wire.Metric{{Key: in.Key, Value: in.Value, Timestamp: in.Timestamp, Step: in.Step, ModelID: in.ModelID, DatasetName: in.DatasetName, DatasetDigest: in.DatasetDigest}})
			return empty{}, a.tracking.LogMetric(ctx, p, first(in.RunID, in.RunUUID), m[0])
		}),
		call(a, post, "runs/log-parameter", "run.log", func(ctx context.Context, p string, in *wire.RunPair) (any, error) {
			return empty{}, a.tracking.LogParam(ctx, p, first(in.RunID, in.RunUUID), tracking.Pair{Key: in.Key, Value: in.Value})
		}),
		call(a, post, "runs/set-tag", "run.log", func(ctx context.Context, p string, in *wire.RunPair) (any, error) {
			return empty{}, a.tracking.SetTag(ctx, p, first(in.RunID, in.RunUUID), tracking.Pair{Key: in.Key, Value: in.Value})
		}),
		call(a, post, "runs/delete-tag", "run.log", func(ctx context.Context, p string, in *wire.RunPair) (any, error) {
			return empty{}, a.tracking.DeleteTag(ctx, p, first(in.RunID, in.RunUUID), in.Key)
		}),
		call(a, post, "runs/log-batch", "run.log", func(ctx context.Context, p string, in *wire.LogBatch) (any, error) {
			return empty{}, a.tracking.LogBatch(ctx, p, in.RunID, tracking.Batch{Metrics: metricsIn(in.Metrics), Params: pairsIn(in.Params), Tags: pairsIn(in.Tags)})
		}),
		callMax(a, post, "runs/log-inputs", "run.log", 64<<20, a.logInputs), // a dataset's profile may have 16 MB
		call(a, post, "runs/outputs", "run.log", func(ctx context.Context, p string, in *wire.LogOutputs) (any, error) {
			var links []tracking.ModelLink
			for _, m := range in.Models {
				links = append(links, tracking.ModelLink{Model: m.ModelID, Step: int64(m.Step)})
			}
			return empty{}, a.tracking.LogOutputs(ctx, p, in.RunID, links)
		}),
		call(a, post, "runs/log-model", "run.log", a.recordModel),
		call(a, get, "metrics/get-history", "run.read", a.history),
		call(a, get, "metrics/get-history-bulk-interval", "run.read", a.bulkInterval),
	)
}

func (a *api) createRun(ctx context.Context, p string, in *wire.CreateRun) (any, error) {
	if in.ExperimentID == "" {
		in.ExperimentID = "0"
	}
	id, err := tracking.ParseExperimentID(in.ExperimentID)
	if err != nil {
		return nil, err
	}
	r, err := a.tracking.CreateRun(ctx, p, tracking.NewRun{Experiment: id, Name: in.RunName, User: in.UserID, StartMs: int64(in.StartTime), Tags: pairsIn(in.Tags)})
	return runBox{runOut(r)}, err
}

func (a *api) updateRun(ctx context.Context, p string, in *wire.UpdateRun) (any, error) {
	u := tracking.RunUpdate{Name: in.RunName}
	if in.EndTime != nil {
		end := int64(*in.EndTime)
		u.EndMs = &end
	}
	if in.Status != nil {
		s := string(*in.Status)
		if name, ok := map[string]string{"1": tracking.Running, "2": tracking.Scheduled, "3": tracking.Finished, "4": tracking.Failed, "5": tracking.Killed}[s]; ok {
			s = name
		}
		u.Status = &s
	}
	r, err := a.tracking.UpdateRun(ctx, p, first(in.RunID, in.RunUUID), u)
	return struct {
		Info wire.RunInfo `json:"run_info"`
	}{infoOut(r)}, err
}

func (a *api) searchRuns(ctx context.Context, p string, in *wire.SearchRuns) (any, error) {
	view, err := viewOf(in.ViewType)
	if err != nil {
		return nil, err
	}
	most, err := limit(in.MaxResults, notPositive)
	if err != nil {
		return nil, err
	}
	ids, err := experimentIDs(in.ExperimentIDs)
	if err != nil {
		return nil, err
	}
	page, err := a.tracking.SearchRuns(ctx, p, tracking.Search{Experiments: ids, Filter: in.Filter, OrderBy: in.OrderBy, View: view, Max: most, Token: in.PageToken})
	out := struct {
		Runs []wire.Run `json:"runs,omitempty"`
		Next string     `json:"next_page_token,omitempty"`
	}{Next: page.Next}
	for _, r := range page.Items {
		out.Runs = append(out.Runs, runOut(r))
	}
	return out, err
}

func (a *api) logInputs(ctx context.Context, p string, in *wire.LogInputs) (any, error) {
	var datasets []tracking.DatasetInput
	for _, d := range in.Datasets {
		datasets = append(datasets, tracking.DatasetInput{Dataset: tracking.Dataset(d.Dataset), Tags: pairsIn(d.Tags)})
	}
	var models []tracking.ModelLink
	for _, m := range in.Models {
		models = append(models, tracking.ModelLink{Model: m.ModelID})
	}
	return empty{}, a.tracking.LogInputs(ctx, p, in.RunID, datasets, models)
}

// recordModel is what clients before MLflow 3 send after log_model.
func (a *api) recordModel(ctx context.Context, p string, in *wire.LogModel) (any, error) {
	var model map[string]json.RawMessage
	if json.Unmarshal([]byte(in.ModelJSON), &model) != nil {
		return nil, invalid("Malformed model info. \n %s \n is not a valid JSON.", in.ModelJSON)
	}
	var missing []string
	for _, f := range []string{"artifact_path", "flavors", "run_id", "utc_time_created"} {
		if _, ok := model[f]; !ok {
			missing = append(missing, "'"+f+"'")
		}
	}
	if len(missing) > 0 {
		return nil, invalid("Model json is missing mandatory fields: {%s}", strings.Join(missing, ", "))
	}
	kept := map[string]json.RawMessage{}
	for k, v := range model {
		if k != "signature" && k != "saved_input_example_info" {
			kept[k] = v
		}
	}
	b, err := json.Marshal(kept)
	if err != nil {
		return nil, err
	}
	return empty{}, a.tracking.RecordModel(ctx, p, in.RunID, string(b))
}

func (a *api) history(ctx context.Context, p string, in *wire.GetHistory) (any, error) {
	max, err := limit(in.MaxResults, notPositiveSentence)
	if err != nil {
		return nil, err
	}
	page, err := a.tracking.MetricHistory(ctx, p, first(in.RunID, in.RunUUID), in.MetricKey, max, in.PageToken)
	return struct {
		Metrics []wire.Metric `json:"metrics,omitempty"`
		Next    string        `json:"next_page_token,omitempty"`
	}{metricsOut(page.Items, false), page.Next}, err
}

const (
	bulkRuns   = 100
	bulkPoints = 2500
)

func (a *api) bulkInterval(ctx context.Context, p string, in *wire.BulkInterval) (any, error) {
	if len(in.RunIDs) > bulkRuns {
		return nil, invalid("GetMetricHistoryBulkInterval request must specify at most %d run_ids. Received %d run_ids. See the API docs for more information about request parameters.", bulkRuns, len(in.RunIDs))
	}
	max := bulkPoints
	if in.MaxResults != nil {
		if *in.MaxResults < 1 || *in.MaxResults > bulkPoints {
			return nil, invalid("max_results must be between 1 and %d. See the API docs for more information about request parameters.", bulkPoints)
		}
		max = int(*in.MaxResults)
	}
	var steps *[2]int64
	switch {
	case in.StartStep != nil && in.EndStep != nil:
		steps = &[2]int64{int64(*in.StartStep), int64(*in.EndStep)}
		if steps[0] > steps[1] {
			return nil, invalid("end_step must be greater than start_step. Found start_step=%d and end_step=%d.", steps[0], steps[1])
		}
	case in.StartStep != nil || in.EndStep != nil:
		return nil, invalid("If either start step or end step are specified, both must be specified.")
	}
	list, err := a.tracking.MetricSample(ctx, p, in.RunIDs, in.MetricKey, max, steps)
	return struct {
		Metrics []wire.Metric `json:"metrics,omitempty"`
	}{metricsOut(list, true)}, err
}

package api

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/note"
	"falaj/internal/tracking"
	"falaj/internal/tracking/filter"
)

// Experiment groups runs; ID is MLflow's integer as a text.
type Experiment struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Runs      int    `json:"runs"`
	LastRun   *int64 `json:"last_run"`
	CreatedAt int64  `json:"created_at"`
}

// Run is a run with the newest value of each metric; a value that is not finite is null.
type Run struct {
	ID           string              `json:"id"`
	Name         string              `json:"name"`
	ExperimentID string              `json:"experiment_id"`
	Experiment   string              `json:"experiment"`
	Status       string              `json:"status" enum:"scheduled,running,finished,failed,killed"`
	StartedAt    int64               `json:"started_at"`
	EndedAt      *int64              `json:"ended_at"`
	Actor        ActorRef            `json:"actor"`
	Params       map[string]string   `json:"params"`
	Metrics      map[string]*float64 `json:"metrics"`
	Tags         map[string]string   `json:"tags"`
	GitCommit    string              `json:"git_commit"`
	GitDirty     bool                `json:"git_dirty"`
	Model        *RunModel           `json:"model"`
}

// RunModel is the model version that a run registered.
type RunModel struct {
	Name    string `json:"name"`
	Version int64  `json:"version"`
}

// RunPage is a page of runs with the keys that the experiment's newest thousand runs use.
type RunPage struct {
	Page[Run]
	Experiment Experiment `json:"experiment"`
	ParamKeys  []string   `json:"param_keys"`
	MetricKeys []string   `json:"metric_keys"`
}

// How many keys, points and runs a page carries.
const (
	maxKeys   = 1000
	maxPoints = 2000
	keyRuns   = 1000
	maxRuns   = 50000
)

type experimentsIn struct {
	InProject
	Paged
}

type searchRunsIn struct {
	InProject
	Experiment string `path:"e"`
	Filter     string `query:"filter" doc:"MLflow's search grammar"`
	Order      string `query:"order" doc:"for example: metrics.auc DESC"`
	Paged
}

func (a *API) listExperiments(ctx context.Context, in *experimentsIn) (*Out[Page[Experiment]], error) {
	list, err := a.Tracking.SearchExperiments(ctx, in.Project, tracking.Search{Max: in.Limit, Token: in.PageToken})
	if err != nil {
		return nil, err
	}
	p := Page[Experiment]{Items: []Experiment{}, NextPageToken: list.Next}
	for _, e := range list.Items {
		v, err := a.experiment(ctx, e)
		if err != nil {
			return nil, err
		}
		p.Items = append(p.Items, v)
	}
	if n := int64(len(p.Items)); in.PageToken == "" && list.Next == "" {
		p.Total = &n
	}
	return answer(p), nil
}

func (a *API) experiment(ctx context.Context, e tracking.Experiment) (Experiment, error) {
	out := Experiment{ID: strconv.FormatInt(e.ID, 10), Name: e.Name, CreatedAt: microsOf(e.Created)}
	search := tracking.Search{Experiments: []int64{e.ID}, View: tracking.ActiveOnly, Max: maxRuns, OrderBy: []string{"start_time DESC"}}
	for {
		runs, err := a.Tracking.SearchRuns(ctx, e.Project, search)
		if err != nil {
			return out, err
		}
		if out.Runs += len(runs.Items); out.LastRun == nil && len(runs.Items) > 0 {
			at := milliMicros(runs.Items[0].StartMs)
			out.LastRun = &at
		}
		if search.Token = runs.Next; runs.Next == "" {
			return out, nil
		}
	}
}

func (a *API) searchRuns(ctx context.Context, in *searchRunsIn) (*Out[RunPage], error) {
	id, err := tracking.ParseExperimentID(in.Experiment)
	if err != nil {
		return nil, fault.From(err).At("experiment")
	}
	e, err := a.Tracking.Experiment(ctx, in.Project, id)
	if err != nil {
		return nil, err
	}
	search := tracking.Search{Experiments: []int64{e.ID}, View: tracking.ActiveOnly, Max: in.Limit, Token: in.PageToken, Filter: in.Filter}
	if in.Order != "" {
		search.OrderBy = []string{in.Order}
	}
	if _, err := filter.Runs().Parse(search.Filter); err != nil {
		return nil, fault.From(err).At("filter")
	}
	if _, err := filter.Runs().OrderBy(search.OrderBy); err != nil {
		return nil, fault.From(err).At("order")
	}
	found, err := a.Tracking.SearchRuns(ctx, in.Project, search)
	if err != nil {
		return nil, err
	}
	out := RunPage{Page: Page[Run]{NextPageToken: found.Next}}
	if out.Items, err = a.runViews(ctx, in.Project, found.Items, map[int64]string{e.ID: e.Name}); err != nil {
		return nil, err
	}
	all, err := a.Tracking.SearchRuns(ctx, in.Project, tracking.Search{Experiments: []int64{e.ID}, View: tracking.ActiveOnly, Max: keyRuns, OrderBy: []string{"start_time DESC"}})
	if err != nil {
		return nil, err
	}
	params, metrics := map[string]bool{}, map[string]bool{}
	for _, r := range all.Items {
		for _, p := range r.Params {
			params[p.Key] = true
		}
		for _, m := range r.Metrics {
			metrics[m.Key] = true
		}
	}
	out.ParamKeys, out.MetricKeys = keysOf(params), keysOf(metrics)
	if out.Experiment, err = a.experiment(ctx, e); err != nil {
		return nil, err
	}
	if total := int64(out.Experiment.Runs); in.Filter == "" {
		out.Total = &total
	}
	return answer(out), nil
}

func keysOf(m map[string]bool) []string {
	keys := slices.Sorted(maps.Keys(m))
	if keys == nil {
		keys = []string{}
	}
	return keys[:min(len(keys), maxKeys)]
}

// runViews composes runs with the model versions they registered, found in one search.
func (a *API) runViews(ctx context.Context, project string, runs []tracking.Run, experiments map[int64]string) ([]Run, error) {
	models := map[string]*RunModel{}
	for part := range slices.Chunk(runs, 200) {
		ids := make([]string, len(part))
		for i, r := range part {
			ids[i] = "'" + r.ID + "'"
		}
		found, err := a.Registry.SearchVersions(ctx, project, tracking.Search{Filter: "run_id IN (" + strings.Join(ids, ", ") + ")", OrderBy: []string{"version_number DESC"}})
		if err != nil {
			return nil, err
		}
		for _, v := range found.Items {
			if models[v.Run] == nil {
				models[v.Run] = &RunModel{v.Model, v.Number}
			}
		}
	}
	out := []Run{}
	for _, r := range runs {
		if _, ok := experiments[r.Experiment]; !ok {
			e, err := a.Tracking.Experiment(ctx, project, r.Experiment)
			if err != nil {
				return nil, err
			}
			experiments[r.Experiment] = e.Name
		}
		v := Run{ID: r.ID, Name: r.Name, ExperimentID: strconv.FormatInt(r.Experiment, 10), Experiment: experiments[r.Experiment], Status: strings.ToLower(r.Status), StartedAt: milliMicros(r.StartMs),
			Actor: tokenActor(r.User), Params: pairs(r.Params), Metrics: lastMetrics(r), Tags: pairs(r.Tags), Model: models[r.ID]}
		if r.EndMs != nil {
			at := milliMicros(*r.EndMs)
			v.EndedAt = &at
		}
		v.GitCommit, v.GitDirty = v.Tags["mlflow.source.git.commit"], v.Tags["mlflow.source.git.dirty"] == "true"
		out = append(out, v)
	}
	return out, nil
}

func pairs(list []tracking.Pair) map[string]string {
	out := map[string]string{}
	for _, p := range list {
		out[p.Key] = p.Value
	}
	return out
}

func lastMetrics(r tracking.Run) map[string]*float64 {
	out := map[string]*float64{}
	for _, m := range r.Metrics {
		out[m.Key] = finite(m.Value)
	}
	return out
}

// RunSeries is one metric over the steps.
type RunSeries struct {
	Key   string     `json:"key"`
	Step  []int64    `json:"step"`
	Value []*float64 `json:"value"`
}

// RunInput is a dataset that a run read.
type RunInput struct {
	Name    string    `json:"name"`
	Context string    `json:"context"`
	Digest  string    `json:"digest"`
	Ref     *note.Ref `json:"ref"`
}

// Artifact is a file that a run wrote.
type Artifact struct {
	Path   string  `json:"path"`
	Bytes  int64   `json:"bytes"`
	Digest *string `json:"digest"`
}

// RunDetail is a run's page.
type RunDetail struct {
	Run
	Series      []RunSeries `json:"series"`
	Inputs      []RunInput  `json:"inputs"`
	Artifacts   []Artifact  `json:"artifacts"`
	PipelineRun *string     `json:"pipeline_run"`
}

type runPageIn struct {
	InProject
	ID string `path:"id"`
}

func (a *API) runPage(ctx context.Context, in *runPageIn) (*Out[RunDetail], error) {
	r, err := a.Tracking.Run(ctx, in.Project, in.ID)
	if err != nil {
		return nil, err
	}
	views, err := a.runViews(ctx, in.Project, []tracking.Run{r}, map[int64]string{})
	if err != nil {
		return nil, err
	}
	out := RunDetail{Run: views[0], Series: []RunSeries{}, Inputs: []RunInput{}, Artifacts: []Artifact{}, PipelineRun: textOrNil(views[0].Tags["falaj.pipeline_run"])}
	for _, key := range slices.Sorted(maps.Keys(out.Metrics)) {
		points, err := a.Tracking.MetricSample(ctx, in.Project, []string{r.ID}, key, maxPoints, nil)
		if err != nil {
			return nil, err
		}
		s := RunSeries{Key: key, Step: []int64{}, Value: []*float64{}}
		for _, p := range points {
			s.Step, s.Value = append(s.Step, p.Step), append(s.Value, finite(p.Value))
		}
		out.Series = append(out.Series, s)
	}
	for _, d := range r.Datasets {
		v := RunInput{Name: d.Dataset.Name, Digest: d.Dataset.Digest, Ref: datasetRef(d.Dataset.Name)}
		for _, t := range d.Tags {
			if t.Key == tracking.TagContext {
				v.Context = t.Value
			}
		}
		out.Inputs = append(out.Inputs, v)
	}
	if out.Artifacts, err = a.artifacts(ctx, in.Project, r.RunInfo, out.Artifacts); err != nil {
		return nil, err
	}
	return answer(out), nil
}

// datasetRef understands names of dataset versions, "flights@3".
func datasetRef(name string) *note.Ref {
	dataset, v, ok := strings.Cut(name, "@")
	n, err := strconv.ParseInt(v, 10, 64)
	if !ok || err != nil {
		return nil
	}
	return versionRef("dataset_version", dataset, n)
}

// artifacts lists the files that falaj keeps; a run whose artifacts lie elsewhere has none here.
func (a *API) artifacts(ctx context.Context, project string, r tracking.RunInfo, out []Artifact) ([]Artifact, error) {
	at, err := tracking.ProxyPath(r.ArtifactURI)
	if err != nil {
		return out, nil //nolint:nilerr // not ours to list
	}
	files, err := a.Tracking.Files(ctx, project, at)
	for _, f := range files {
		out = append(out, Artifact{f.Path, f.Size, textOrNil(sha(f.Digest))})
	}
	return out, err
}

// Comparison is several runs side by side, in the order asked for.
type Comparison struct {
	Runs   []Run              `json:"runs"`
	Series []ComparisonSeries `json:"series"`
}

// ComparisonSeries is one metric of the runs that logged it.
type ComparisonSeries struct {
	Key  string             `json:"key"`
	Runs []ComparisonPoints `json:"runs"`
}

// ComparisonPoints is one run's part of a series.
type ComparisonPoints struct {
	RunID string     `json:"run_id"`
	Step  []int64    `json:"step"`
	Value []*float64 `json:"value"`
}

type compareIn struct {
	InProject
	IDs string `query:"ids" required:"true" doc:"2 to 100 run ids with commas"`
}

func (a *API) compareRuns(ctx context.Context, in *compareIn) (*Out[Comparison], error) {
	var ids []string
	for id := range strings.SplitSeq(in.IDs, ",") {
		if id = strings.TrimSpace(id); id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	if len(ids) < 2 || len(ids) > 100 {
		return nil, fault.Newf(fault.Invalid, "A comparison takes 2 to 100 different runs; %d were given.", len(ids)).At("ids")
	}
	runs := make([]tracking.Run, len(ids))
	keys := map[string]bool{}
	for i, id := range ids {
		var err error
		if runs[i], err = a.Tracking.Run(ctx, in.Project, id); err != nil {
			return nil, err
		}
		for _, m := range runs[i].Metrics {
			keys[m.Key] = true
		}
	}
	out := Comparison{Series: []ComparisonSeries{}}
	var err error
	if out.Runs, err = a.runViews(ctx, in.Project, runs, map[int64]string{}); err != nil {
		return nil, err
	}
	for _, key := range keysOf(keys) {
		points, err := a.Tracking.MetricSample(ctx, in.Project, ids, key, maxPoints/max(1, len(ids)/4), nil)
		if err != nil {
			return nil, err
		}
		by := map[string]*ComparisonPoints{}
		s := ComparisonSeries{Key: key, Runs: []ComparisonPoints{}}
		for _, p := range points {
			if by[p.Run] == nil {
				by[p.Run] = &ComparisonPoints{RunID: p.Run, Step: []int64{}, Value: []*float64{}}
			}
			by[p.Run].Step, by[p.Run].Value = append(by[p.Run].Step, p.Step), append(by[p.Run].Value, finite(p.Value))
		}
		for _, id := range ids {
			if by[id] != nil {
				s.Runs = append(s.Runs, *by[id])
			}
		}
		out.Series = append(out.Series, s)
	}
	return answer(out), nil
}

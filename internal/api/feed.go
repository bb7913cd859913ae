package api

import (
	"context"
	"time"

	"falaj/internal/monitoring"
)

// Label is the truth about one prediction, named by its id, by the request's id, or by unit and time.
type Label struct {
	ID        string  `json:"id,omitempty"`
	RequestID string  `json:"request_id,omitempty"`
	Unit      string  `json:"unit,omitempty"`
	At        int64   `json:"at,omitempty" doc:"event time of the prediction, microseconds UTC"`
	Value     float64 `json:"value"`
	KnownAt   int64   `json:"known_at,omitempty" doc:"microseconds UTC; setting it needs the right to replay; default: now"`
}

// Pushed says how many labels were kept.
type Pushed struct {
	Labels int `json:"labels"`
}

type labelsIn struct {
	InModel
	Body struct {
		Labels []Label `json:"labels" minItems:"1" maxItems:"10000" nullable:"false"`
	}
}

func (a *API) pushLabels(ctx context.Context, in *labelsIn) (*Out[Pushed], error) {
	if _, err := a.Registry.Model(ctx, in.Project, in.Model); err != nil {
		return nil, err
	}
	labels := make([]monitoring.Label, len(in.Body.Labels))
	for i, l := range in.Body.Labels {
		labels[i] = monitoring.Label{ID: l.ID, RequestID: l.RequestID, Unit: l.Unit, Value: l.Value, At: timeOrZero(l.At), KnownAt: timeOrZero(l.KnownAt)}
	}
	return answer(Pushed{len(labels)}), a.Monitoring.PushLabels(ctx, in.Project, in.Model, labels)
}

func timeOrZero(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

type clockIn struct {
	InProject
	Body struct {
		To int64 `json:"to" doc:"event time, microseconds UTC"`
	}
}

// Clock says how far event time has come.
type Clock struct {
	To int64 `json:"to"`
}

// advanceClock judges what is complete by then and starts what is scheduled. It answers when both are done.
func (a *API) advanceClock(ctx context.Context, in *clockIn) (*Out[Clock], error) {
	if err := a.Monitoring.Advance(ctx, in.Project, timeOrZero(in.Body.To)); err != nil {
		return nil, err
	}
	if err := a.Monitoring.Evaluate(ctx, in.Project, ""); err != nil {
		return nil, err
	}
	return answer(Clock{in.Body.To}), a.Pipelines.Tick(ctx, in.Project)
}

// Traffic counts by release since the beginning.
type Traffic struct {
	Environment string           `json:"environment"`
	Items       []ReleaseTraffic `json:"items"`
}

// ReleaseTraffic is one release. Labels counts those of judged windows.
type ReleaseTraffic struct {
	Release     string `json:"release"`
	Version     *int64 `json:"version"`
	Shadow      bool   `json:"shadow"`
	Predictions uint64 `json:"predictions"`
	Labels      int    `json:"labels"`
}

type trafficIn struct {
	InModel
	Environment string `query:"environment" doc:"default: the last one"`
}

func (a *API) traffic(ctx context.Context, in *trafficIn) (*Out[Traffic], error) {
	k, err := a.watchedKey(ctx, in.Project, in.Model, in.Environment)
	if err != nil {
		return nil, err
	}
	f, err := a.fleet(ctx, in.Project, in.Model)
	if err != nil {
		return nil, err
	}
	t, err := a.Monitoring.Telemetry(ctx, k, monitoring.Window{}, 1)
	if err != nil {
		return nil, err
	}
	windows, err := a.Monitoring.Quality(ctx, k, 10000)
	if err != nil {
		return nil, err
	}
	labels := map[string]int{}
	for _, w := range windows {
		for release, q := range w.ByRelease {
			labels[release] += q.Rows
		}
	}
	out := Traffic{Environment: k.Environment, Items: []ReleaseTraffic{}}
	for _, r := range t.ByRelease {
		out.Items = append(out.Items, ReleaseTraffic{r.Release, numberOrNil(f.number(r.Release)), r.Shadow, r.Total, labels[r.Release]})
	}
	return answer(out), nil
}

package api

import (
	"context"

	"falaj/internal/kernel/note"
	"falaj/internal/monitoring"
	"falaj/internal/registry"
	"falaj/internal/tracking"
)

// ModelSummary is one model on the home page. Tier and owners are the model's tags "tier" (a number) and "owners"
// (names with commas), which anybody who may update the model sets.
type ModelSummary struct {
	Name           string               `json:"name"`
	Description    string               `json:"description"`
	Tier           *int64               `json:"tier"`
	Health         string               `json:"health" enum:"healthy,degraded,failing,unknown"`
	HealthReason   *note.Note           `json:"health_reason"`
	Environments   []EnvironmentPointer `json:"environments"`
	OpenAlerts     int                  `json:"open_alerts"`
	PendingChanges int                  `json:"pending_changes"`
	Versions       int                  `json:"versions"`
	LastTrained    *int64               `json:"last_trained"`
	Quality        *ModelQuality        `json:"quality" doc:"newest labelled window in the last environment"`
	QualitySpark   []*float64           `json:"quality_spark"`
	TrafficSpark   []*float64           `json:"traffic_spark" doc:"predictions a day, the newest 60 days of event time"`
}

// ModelQuality is a measure with its 95 % interval; At is the end of its window, event time.
type ModelQuality struct {
	Metric string   `json:"metric"`
	Value  float64  `json:"value"`
	Low    *float64 `json:"low"`
	High   *float64 `json:"high"`
	At     int64    `json:"at"`
}

// EnvironmentPointer is what stands in an environment.
type EnvironmentPointer struct {
	Environment string    `json:"environment"`
	Version     *int64    `json:"version"`
	Release     *string   `json:"release"`
	Since       *int64    `json:"since"`
	Actor       *ActorRef `json:"actor"`
	State       string    `json:"state" enum:"serving,activating,empty,failed"`
	Variants    []Variant `json:"variants"`
}

// Variant is a version that takes part of the traffic; a shadow has weight 0.
type Variant struct {
	Version int64   `json:"version"`
	Role    string  `json:"role" enum:"champion,challenger,shadow"`
	Weight  float64 `json:"weight"`
}

type modelsIn struct {
	InProject
	Paged
}

func (a *API) listModels(ctx context.Context, in *modelsIn) (*Out[Page[ModelSummary]], error) {
	models, err := a.Registry.SearchModels(ctx, in.Project, tracking.Search{Max: in.Limit, Token: in.PageToken})
	if err != nil {
		return nil, err
	}
	f, err := a.fleet(ctx, in.Project, "")
	if err != nil {
		return nil, err
	}
	p := Page[ModelSummary]{Items: []ModelSummary{}, NextPageToken: models.Next}
	for _, m := range models.Items {
		s, _, err := a.modelSummary(ctx, f, m)
		if err != nil {
			return nil, err
		}
		p.Items = append(p.Items, s)
	}
	if n := int64(len(p.Items)); in.PageToken == "" && models.Next == "" {
		p.Total = &n
	}
	return answer(p), nil
}

// modelSummary composes one model and gives the key under which it is watched: its last environment.
func (a *API) modelSummary(ctx context.Context, f *fleet, m registry.Model) (ModelSummary, monitoring.Key, error) {
	s := ModelSummary{Name: m.Name, Description: m.Description, Tier: tierOf(m), Environments: []EnvironmentPointer{}, OpenAlerts: len(f.alerts[m.Name]), PendingChanges: f.pending[m.Name],
		Versions: len(f.versions[m.Name]), LastTrained: f.lastTrained(m.Name), QualitySpark: []*float64{}, TrafficSpark: []*float64{}}
	k := monitoring.Key{Project: m.Project, Model: m.Name}
	envs, err := a.environments(ctx, m.Project, m.Name)
	if err != nil {
		return s, k, err
	}
	for _, e := range envs {
		s.Environments = append(s.Environments, f.environment(m.Name, e))
		k.Environment = e
	}
	s.Health, s.HealthReason = f.health(m.Name, k.Environment)
	windows, err := a.Monitoring.Quality(ctx, k, sparkSize)
	if err != nil {
		return s, k, err
	}
	for _, w := range windows {
		v := qualityValue(w)
		s.QualitySpark = append(s.QualitySpark, v)
		if v != nil {
			low, high := w.ChampionFacts.Interval(w.Metric)
			s.Quality = &ModelQuality{w.Metric, *v, figure(low), figure(high), microsOf(w.To)}
		}
	}
	s.TrafficSpark, err = a.trafficSpark(ctx, k)
	return s, k, err
}

// trafficSpark is the predictions of each of the newest 60 days.
func (a *API) trafficSpark(ctx context.Context, k monitoring.Key) ([]*float64, error) {
	out := []*float64{}
	events, _, err := a.Monitoring.Watermarks(ctx, k.Project, k.Model)
	if err != nil || events.IsZero() {
		return out, err
	}
	const day = 24 * 3600 * 1e6
	end := (microsOf(events)/day + 1) * day
	t, err := a.Monitoring.Telemetry(ctx, k, monitoring.Window{From: fromMicros(end - sparkSize*day), To: fromMicros(end)}, sparkSize)
	if err != nil || len(t.Slots) == 0 {
		return out, err
	}
	for i := range t.Slots {
		n := float64(t.Slots[i].Count)
		out = append(out, &n)
	}
	return out, nil
}

// qualityValue is the champion's measure; nil when there were too few labels to say.
func qualityValue(w monitoring.QualityWindow) *float64 {
	if w.Verdict == monitoring.VerdictFewLabels {
		return nil
	}
	return figure(w.ChampionFacts.Metric(w.Metric))
}

package registry

import (
	"context"
	"encoding/json"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/who"
)

// Moved are the event types that Follow wants.
func Moved() []string { return []string{"delivery.moved"} }

// moved is what the registry needs of the data of delivery.moved.
type moved struct {
	Model       string `json:"model"`
	Environment string `json:"environment"`
	Change      string `json:"change"`
	Pointers    []struct {
		Environment string `json:"environment"`
		Role        string `json:"role"`
		Version     int64  `json:"version"`
		Actor       string `json:"actor"`
	} `json:"pointers"`
}

// Follow shows MLflow's clients what delivery decided: the alias of the environment points to its champion, and for staging and
// production the version has MLflow's stage of that name; production's champion is also the alias champion. It is idempotent.
func (s *Service) Follow(ctx context.Context, e event.Event) error {
	var m moved
	if err := json.Unmarshal(e.Data, &m); err != nil {
		return err
	}
	actor := who.Actor{Kind: who.System, Name: "delivery", Via: "system"}
	var version int64
	for _, p := range m.Pointers {
		if p.Environment == m.Environment && p.Role == "champion" {
			version, actor.OnBehalfOf = p.Version, p.Actor
		}
	}
	ctx = who.With(ctx, actor)
	aliases := []string{m.Environment}
	if m.Environment == "production" {
		aliases = append(aliases, "champion")
	}
	for _, alias := range aliases {
		if err := s.pointAlias(ctx, e.Project, m.Model, alias, version, m.Change); err != nil {
			return gone(err)
		}
	}
	stage := map[string]string{"staging": StageStaging, "production": StageProduction}[m.Environment]
	if stage == "" || version == 0 {
		return nil
	}
	v, err := s.Version(ctx, e.Project, m.Model, version)
	if err != nil {
		return gone(err)
	}
	if v.Stage == stage || v.Stage == StageProduction {
		return nil // a version has one stage; production is the higher one
	}
	_, err = s.TransitionStage(ctx, e.Project, m.Model, version, stage, true)
	return gone(err)
}

// gone forgives that the model was deleted since: there is nothing to point from any more.
func gone(err error) error {
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

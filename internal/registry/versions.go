package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
	"falaj/internal/tracking"
)

// CreateVersion registers the next version of a model. Where the files come from is checked: see checkSource.
func (s *Service) CreateVersion(ctx context.Context, project string, r NewVersion) (Version, error) {
	if err := checkModelName(r.Model); err != nil {
		return Version{}, err
	}
	if err := checkTags(r.Tags); err != nil {
		return Version{}, err
	}
	from, err := s.checkSource(ctx, project, r)
	if err != nil {
		return Version{}, err
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	v := Version{Project: project, Model: r.Model, Description: r.Description, Source: from.source, Storage: from.storage, Run: from.run, RunLink: r.RunLink,
		LoggedModel: from.model, Stage: StageNone, Author: who.From(ctx).Origin(), Created: now, Updated: now}
	err = s.store.Change(ctx, "model.version.create", modelResource(project, r.Model), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		m, err := s.Model(ctx, project, r.Model)
		if err != nil {
			return event.Draft{}, err
		}
		v.model = m.ID
		if v.Number, err = nextVersion(ctx, tx, m.ID, now); err != nil {
			return event.Draft{}, err
		}
		if err := insertVersion(ctx, tx, v, r.Tags); err != nil {
			return event.Draft{}, err
		}
		if from.model != "" && !isPrompt(r.Tags) {
			if err := s.markLoggedModel(ctx, project, v); err != nil {
				return event.Draft{}, err
			}
		}
		tx.After(v)
		return event.Draft{Type: "model.version.created", Subject: v.Ref(), Data: map[string]any{"model": v.Model, "version": v.Number, "run": v.Run, "source": v.Source}}, nil
	})
	if err != nil {
		return Version{}, err
	}
	return s.Version(ctx, project, r.Model, v.Number)
}

// Ref is model@version.
func (v Version) Ref() string { return fmt.Sprintf("%s@%d", v.Model, v.Number) }

// markLoggedModel lists the version in the logged model's tag mlflow.modelVersions, as MLflow does.
func (s *Service) markLoggedModel(ctx context.Context, project string, v Version) error {
	const key = "mlflow.modelVersions"
	type entry struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	}
	m, err := s.tracking.Model(ctx, project, v.LoggedModel, false)
	if err != nil {
		return err
	}
	var list []entry
	for _, t := range m.Tags {
		if t.Key == key && json.Unmarshal([]byte(t.Value), &list) != nil {
			list = nil // not ours: start over
		}
	}
	list = append(list, entry{v.Model, strconv.FormatInt(v.Number, 10)})
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	_, err = s.tracking.SetModelTags(ctx, project, v.LoggedModel, []tracking.Pair{{Key: key, Value: string(b)}})
	return err
}

// Version gives a version that is not deleted.
func (s *Service) Version(ctx context.Context, project, model string, n int64) (Version, error) {
	if err := checkModelName(model); err != nil {
		return Version{}, err
	}
	var v Version
	err := s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		list, err := selectVersions(ctx, q, `WHERE m.project = $1 AND m.name = $2 AND v.version = $3 AND v.deleted_at IS NULL AND m.deleted_at IS NULL`, project, model, n)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return notFound("Model Version (name=%s, version=%d) not found", model, n)
		}
		v = list[0]
		return nil
	})
	return v, err
}

func (s *Service) changeVersion(ctx context.Context, action policy.Action, announce, project, model string, n int64, fn func(context.Context, *store.Tx, *Version) error) (Version, error) {
	var v Version
	err := s.store.Change(ctx, action, versionResource(project, model, n), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		var err error
		if v, err = s.Version(ctx, project, model, n); err != nil {
			return event.Draft{}, err
		}
		tx.Before(v)
		if err := fn(ctx, tx, &v); err != nil {
			return event.Draft{}, err
		}
		v.Updated = time.Now().UTC().Truncate(time.Microsecond)
		if err := updateVersion(ctx, tx, v); err != nil {
			return event.Draft{}, err
		}
		tx.After(v)
		return event.Draft{Type: announce, Subject: v.Ref(), Data: map[string]any{"model": v.Model, "version": v.Number}}, nil
	})
	if err != nil {
		return Version{}, err
	}
	return s.Version(ctx, project, model, n)
}

// DescribeVersion replaces the description.
func (s *Service) DescribeVersion(ctx context.Context, project, model string, n int64, description string) (Version, error) {
	return s.changeVersion(ctx, "model.version.update", "", project, model, n, func(_ context.Context, _ *store.Tx, v *Version) error {
		v.Description = description
		return nil
	})
}

// SetVersionTag sets a tag.
func (s *Service) SetVersionTag(ctx context.Context, project, model string, n int64, t tracking.Pair) error {
	if err := checkTags([]tracking.Pair{t}); err != nil {
		return err
	}
	_, err := s.changeVersion(ctx, "model.version.update", "", project, model, n, func(ctx context.Context, tx *store.Tx, v *Version) error {
		return upsertVersionTags(ctx, tx, v.model, v.Number, []tracking.Pair{t})
	})
	return err
}

// DeleteVersionTag removes a tag; that it is not there is no error.
func (s *Service) DeleteVersionTag(ctx context.Context, project, model string, n int64, key string) error {
	_, err := s.changeVersion(ctx, "model.version.update", "", project, model, n, func(ctx context.Context, tx *store.Tx, v *Version) error {
		_, err := tx.Exec(ctx, `DELETE FROM model_version_tags WHERE model = $1 AND version = $2 AND key = $3`, v.model, v.Number, key)
		return err
	})
	return err
}

// DeleteVersion removes a version from view, with its free aliases. It is refused while an alias of an environment points to it.
// Its release stays: evidence is not deleted.
func (s *Service) DeleteVersion(ctx context.Context, project, model string, n int64) error {
	return s.store.Change(ctx, "model.version.delete", versionResource(project, model, n), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		v, err := s.Version(ctx, project, model, n)
		if err != nil {
			return event.Draft{}, err
		}
		m, err := s.Model(ctx, project, model)
		if err != nil {
			return event.Draft{}, err
		}
		if bound, err := s.pointed(ctx, project, m, n); err != nil || bound != "" {
			return event.Draft{}, refusePointed(err, v.Ref(), bound, "deleted")
		}
		tx.Before(v)
		for _, a := range v.Aliases {
			if err := s.moveAlias(ctx, tx, m.ID, PointerMove{Kind: "alias", Name: a, From: n, Actor: who.From(ctx).Origin()}); err != nil {
				return event.Draft{}, err
			}
		}
		if err := deleteVersion(ctx, tx, v); err != nil {
			return event.Draft{}, err
		}
		return event.Draft{Type: "model.version.deleted", Subject: v.Ref(), Data: map[string]any{"model": v.Model, "version": v.Number}}, nil
	})
}

// CanonicalStage reads a stage in any case.
func CanonicalStage(stage string) (string, error) {
	all := []string{StageNone, StageStaging, StageProduction, StageArchived}
	for _, s := range all {
		if strings.EqualFold(s, stage) {
			return s, nil
		}
	}
	return "", invalid("Invalid Model Version stage: %s. Value must be one of %s.", stage, strings.Join(all, ", "))
}

// TransitionStage is MLflow's old way to move a version. Staging and Production are environments: clients are refused there,
// as for their aliases, and a version that stands in one is not taken out by a client either.
func (s *Service) TransitionStage(ctx context.Context, project, model string, n int64, stage string, archive bool) (Version, error) {
	stage, err := CanonicalStage(stage)
	if err != nil {
		return Version{}, err
	}
	active := func(s string) bool { return s == StageStaging || s == StageProduction }
	if archive && !active(stage) {
		return Version{}, invalid("Model version transition cannot archive existing model versions because '%s' is not an Active stage. Valid stages are ['Staging', 'Production']", stage)
	}
	old, err := s.Version(ctx, project, model, n)
	if err != nil {
		return Version{}, err
	}
	action := policy.Action("model.version.update")
	if active(stage) || active(old.Stage) {
		action = "delivery.move"
	}
	v, err := s.changeVersion(ctx, action, "model.version.staged", project, model, n, func(ctx context.Context, tx *store.Tx, v *Version) error {
		if archive {
			if err := archiveOthers(ctx, tx, *v, stage); err != nil {
				return err
			}
		}
		if v.Stage == stage {
			return nil
		}
		move := PointerMove{Kind: "stage", Name: stage, To: n, Actor: who.From(ctx).Origin()}
		v.Stage = stage
		return insertMove(ctx, tx, v.model, move)
	})
	if fault.Is(err, fault.Denied) && action == "delivery.move" {
		return v, refuseBound(err, "stage", stage, model, n)
	}
	return v, err
}

// LatestVersions gives the newest version of each stage asked for; of every stage when none is.
func (s *Service) LatestVersions(ctx context.Context, project, model string, stages []string) ([]Version, error) {
	want := make([]string, len(stages))
	for i, st := range stages {
		c, err := CanonicalStage(st)
		if err != nil {
			return nil, err
		}
		want[i] = c
	}
	m, err := s.Model(ctx, project, model)
	if err != nil {
		return nil, err
	}
	if len(want) == 0 {
		return m.Latest, nil
	}
	return slices.DeleteFunc(m.Latest, func(v Version) bool { return !slices.Contains(want, v.Stage) }), nil
}

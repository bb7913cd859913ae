package tracking

import (
	"context"
	"fmt"
	"strings"
	"time"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/id"
	"falaj/internal/kernel/policy"
	"falaj/internal/store"
	"falaj/internal/tracking/filter"
)

// CreateModel registers that a model is about to be logged; it is pending until FinalizeModel.
func (s *Service) CreateModel(ctx context.Context, project string, r NewLoggedModel) (LoggedModel, error) {
	if strings.ContainsAny(r.Name, `/:.%"'`) {
		return LoggedModel{}, invalid(`Invalid model name (%s) provided. Model name must be a non-empty string and cannot contain the following characters: ('/', ':', '.', '%%', '"', "'")`, PyRepr(r.Name))
	}
	if err := checkLength("Logged model name", maxExpName, r.Name); err != nil {
		return LoggedModel{}, err
	}
	e, err := s.ensureExperiment(ctx, project, r.Experiment)
	if err != nil {
		return LoggedModel{}, err
	}
	if err := e.mustBeActive(); err != nil {
		return LoggedModel{}, err
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	m := LoggedModel{ID: "m-" + id.NewHex(), Project: project, Experiment: e.ID, Name: r.Name, Type: r.Type, SourceRun: r.SourceRun, Status: ModelPending, Stage: Active,
		Created: now, Updated: now, Params: r.Params, Tags: r.Tags}
	m.ArtifactURI = strings.TrimRight(e.ArtifactLocation, "/") + "/models/" + m.ID + "/artifacts"
	if m.Name == "" {
		m.Name = randomName()
	}
	res, err := s.modelResource(ctx, m)
	if err != nil {
		return LoggedModel{}, err
	}
	err = s.store.Change(ctx, "run.log", res, func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		if err := insertModel(ctx, tx, m); err != nil {
			return event.Draft{}, err
		}
		tx.After(m)
		return event.Draft{Type: "model.logged", Subject: m.ID, Data: map[string]any{"model": m.ID, "name": m.Name, "run": m.SourceRun, "experiment": m.Experiment}}, nil
	})
	return m, err
}

// modelResource carries the run that made the model, so that a run's token is held to its own.
func (s *Service) modelResource(ctx context.Context, m LoggedModel) (policy.Resource, error) {
	res := policy.Resource{Kind: "LoggedModel", ID: m.ID, Project: m.Project}
	if m.SourceRun == "" {
		return res, nil
	}
	r, err := s.RunInfo(ctx, m.Project, m.SourceRun)
	if err != nil {
		return res, err
	}
	res.Attrs = map[string]string{"run": r.ID, "parent": r.Parent}
	return res, nil
}

// Model gives a logged model; deleted ones only when asked.
func (s *Service) Model(ctx context.Context, project, modelID string, deleted bool) (LoggedModel, error) {
	missing := notFound("Logged model with ID '%s' not found.", modelID)
	var m LoggedModel
	err := s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		list, err := selectModels(ctx, q, `WHERE m.project = $1 AND m.id = $2`, project, modelID)
		if err != nil {
			return err
		}
		if len(list) == 0 || list[0].Stage == Deleted && !deleted {
			return missing
		}
		m = list[0]
		return nil
	})
	return m, err
}

func (s *Service) changeModel(ctx context.Context, project, modelID string, fn func(context.Context, *store.Tx, *LoggedModel) error) (LoggedModel, error) {
	m, err := s.Model(ctx, project, modelID, true)
	if err != nil {
		return m, err
	}
	res, err := s.modelResource(ctx, m)
	if err != nil {
		return m, err
	}
	err = s.store.Change(ctx, "run.log", res, func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		if m, err = s.Model(ctx, project, modelID, true); err != nil {
			return event.Draft{}, err
		}
		tx.Before(m)
		if err := fn(ctx, tx, &m); err != nil {
			return event.Draft{}, err
		}
		m.Updated = time.Now().UTC().Truncate(time.Microsecond)
		if err := updateModel(ctx, tx, m); err != nil {
			return event.Draft{}, err
		}
		if m, err = s.Model(ctx, project, modelID, true); err != nil {
			return event.Draft{}, err
		}
		tx.After(m)
		return event.Draft{}, nil
	})
	return m, err
}

// FinalizeModel says that the files are there, or that writing them failed.
func (s *Service) FinalizeModel(ctx context.Context, project, modelID string, status ModelStatus) (LoggedModel, error) {
	if status < ModelPending || status > ModelUploadFailed {
		return LoggedModel{}, invalidValue("status", fmt.Sprint(int(status)), "")
	}
	return s.changeModel(ctx, project, modelID, func(_ context.Context, _ *store.Tx, m *LoggedModel) error {
		m.Status = status
		return nil
	})
}

// DeleteModel marks a logged model deleted.
func (s *Service) DeleteModel(ctx context.Context, project, modelID string) error {
	_, err := s.changeModel(ctx, project, modelID, func(_ context.Context, _ *store.Tx, m *LoggedModel) error {
		m.Stage = Deleted
		return nil
	})
	return err
}

// SetModelTags sets tags of a logged model.
func (s *Service) SetModelTags(ctx context.Context, project, modelID string, tags []Pair) (LoggedModel, error) {
	for i := range tags {
		if err := checkTag(&tags[i], fmt.Sprintf("tags[%d]", i)); err != nil {
			return LoggedModel{}, err
		}
	}
	return s.changeModel(ctx, project, modelID, func(ctx context.Context, tx *store.Tx, m *LoggedModel) error {
		return upsertPairs(ctx, tx, "logged_model_tags", "model", m.ID, tags)
	})
}

// DeleteModelTag removes one tag of a logged model.
func (s *Service) DeleteModelTag(ctx context.Context, project, modelID, key string) error {
	_, err := s.changeModel(ctx, project, modelID, func(ctx context.Context, tx *store.Tx, m *LoggedModel) error {
		n, err := tx.Exec(ctx, `DELETE FROM logged_model_tags WHERE model = $1 AND key = $2`, m.ID, key)
		if err == nil && n == 0 {
			return notFound("No tag with key %s found for model with ID %s.", PyRepr(key), PyRepr(modelID))
		}
		return err
	})
	return err
}

// LogModelParams adds parameters to a logged model.
func (s *Service) LogModelParams(ctx context.Context, project, modelID string, params []Pair) error {
	_, err := s.changeModel(ctx, project, modelID, func(ctx context.Context, tx *store.Tx, m *LoggedModel) error {
		return upsertPairs(ctx, tx, "logged_model_params", "model", m.ID, params)
	})
	return err
}

// ModelOrder is one order_by item of SearchModels; Dataset fields narrow a metric to a dataset.
type ModelOrder struct {
	Field                      string
	Ascending                  bool
	DatasetName, DatasetDigest string
}

// ModelSearch asks for a page of logged models. Max 0 is 100. Datasets (name, digest or "") narrow metric clauses.
type ModelSearch struct {
	Experiments []int64
	Filter      string
	Datasets    []Pair
	OrderBy     []ModelOrder
	Max         int
	Token       string
}

// SearchModels gives a page of logged models that are not deleted.
func (s *Service) SearchModels(ctx context.Context, project string, r ModelSearch) (Page[LoggedModel], error) {
	clauses, err := filter.LoggedModels().Parse(r.Filter)
	if err != nil {
		return Page[LoggedModel]{}, err
	}
	offset, err := Offset(r.Token)
	if err != nil {
		return Page[LoggedModel]{}, err
	}
	if r.Max == 0 {
		r.Max = 100
	}
	if err := checkMax(r.Max, 10000); err != nil {
		return Page[LoggedModel]{}, err
	}
	for _, d := range r.Datasets {
		if d.Key == "" {
			return Page[LoggedModel]{}, invalid("`dataset_name` in the `datasets` clause must be specified.")
		}
	}
	if len(r.Experiments) == 0 {
		return Page[LoggedModel]{}, nil
	}
	var list []LoggedModel
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		list = nil
		ids, err := s.ownExperiments(ctx, q, project, r.Experiments)
		if err != nil || len(ids) == 0 {
			return err
		}
		tail, args, err := modelQuery(project, ids, clauses, r, offset)
		if err != nil {
			return err
		}
		list, err = selectModels(ctx, q, tail, args...)
		return err
	})
	return cutPage(list, offset, r.Max), err
}

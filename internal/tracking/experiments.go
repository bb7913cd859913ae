package tracking

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/store"
	"falaj/internal/tracking/filter"
)

// CreateExperiment makes one. fault.Exists when the project has one of that name, deleted ones included.
func (s *Service) CreateExperiment(ctx context.Context, project string, r NewExperiment) (Experiment, error) {
	if err := checkExperimentName(r.Name); err != nil {
		return Experiment{}, err
	}
	for _, t := range r.Tags {
		if err := checkExperimentTag(t); err != nil {
			return Experiment{}, err
		}
	}
	if err := checkLocation(r.ArtifactLocation); err != nil {
		return Experiment{}, err
	}
	var e Experiment
	err := s.store.Change(ctx, "experiment.create", experimentResource(project, 0), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		var err error
		e, err = insertExperiment(ctx, tx, project, r)
		if err != nil {
			return event.Draft{}, err
		}
		tx.After(e)
		return event.Draft{Type: "experiment.created", Subject: strconv.FormatInt(e.ID, 10), Data: map[string]any{"id": e.ID, "name": e.Name}}, nil
	})
	if store.Unique(err) {
		return Experiment{}, fault.Newf(fault.Exists, "Experiment(name=%s) already exists.", r.Name)
	}
	return e, err
}

func checkExperimentName(name string) error {
	if name == "" {
		return invalid("Invalid experiment name: ''")
	}
	return checkLength("name", maxExpName, name)
}

// checkLocation accepts the server's own proxy and the object stores that MLflow clients write to by themselves.
func checkLocation(uri string) error {
	if uri == "" {
		return nil
	}
	if strings.HasPrefix(uri, "runs:") {
		return invalid("Artifact location cannot be a runs:/ URI. Given: '%s'", uri)
	}
	scheme, _, ok := strings.Cut(uri, ":")
	if !ok || strings.ContainsAny(uri, "#?\\\x00") {
		return invalid("Invalid artifact_location: '%s'. It must be a URI such as mlflow-artifacts:/folder or s3://bucket/folder.", uri)
	}
	switch strings.ToLower(scheme) {
	case "mlflow-artifacts":
		if _, err := ProxyPath(uri); err != nil {
			return err
		}
	case "s3", "gs", "wasbs", "abfss", "hdfs":
		if strings.Contains("/"+strings.TrimPrefix(uri, scheme+":")+"/", "/../") {
			return invalid("Invalid artifact_location: '%s'. It must not hold relative path segments.", uri)
		}
	default:
		return invalid("Invalid artifact_location: '%s'. The scheme '%s' is not allowed: files are kept by the server (mlflow-artifacts:).", uri, scheme)
	}
	return checkLength("artifact_location", 2048, uri)
}

// Experiment gives one by id. In a project other than "default" id 0 stands for the project's own experiment "Default",
// because clients that name no experiment ask for 0.
func (s *Service) Experiment(ctx context.Context, project string, id int64) (Experiment, error) {
	if id == 0 && project != "default" {
		e, err := s.ExperimentByName(ctx, project, DefaultExperiment)
		if fault.Is(err, fault.NotFound) {
			return e, notFound("No Experiment with id=0 exists")
		}
		return e, err
	}
	return s.oneExperiment(ctx, notFound("No Experiment with id=%d exists", id), `project = $1 AND id = $2`, project, id)
}

// ExperimentByName gives one by name, deleted or not.
func (s *Service) ExperimentByName(ctx context.Context, project, name string) (Experiment, error) {
	return s.oneExperiment(ctx, notFound("Could not find experiment with name '%s'", name), `project = $1 AND name = $2`, project, name)
}

func (s *Service) oneExperiment(ctx context.Context, missing error, where string, args ...any) (Experiment, error) {
	var e Experiment
	err := s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		list, err := selectExperiments(ctx, q, where, args...)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return missing
		}
		e = list[0]
		return nil
	})
	return e, err
}

// ensureExperiment is Experiment that makes a project's Default on first use.
func (s *Service) ensureExperiment(ctx context.Context, project string, id int64) (Experiment, error) {
	e, err := s.Experiment(ctx, project, id)
	if id != 0 || !fault.Is(err, fault.NotFound) {
		return e, err
	}
	e, err = s.CreateExperiment(ctx, project, NewExperiment{Name: DefaultExperiment})
	if fault.Is(err, fault.Exists) {
		return s.Experiment(ctx, project, id)
	}
	return e, err
}

// SearchExperiments gives a page. Max 0 is 1000.
func (s *Service) SearchExperiments(ctx context.Context, project string, r Search) (Page[Experiment], error) {
	clauses, order, offset, err := r.parse(filter.Experiments())
	if err != nil {
		return Page[Experiment]{}, err
	}
	var a filter.Args
	where, err := experimentWhere(&a, project, r.View, clauses)
	if err != nil {
		return Page[Experiment]{}, err
	}
	tail := fmt.Sprintf(" ORDER BY %s LIMIT %d OFFSET %d", experimentOrder(order), r.Max+1, offset)
	var list []Experiment
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		list, err = selectExperiments(ctx, q, where+tail, a.Values()...)
		return err
	})
	return cutPage(list, offset, r.Max), err
}

// RenameExperiment gives an active experiment another name.
func (s *Service) RenameExperiment(ctx context.Context, project string, id int64, name string) error {
	if err := checkExperimentName(name); err != nil {
		return err
	}
	err := s.changeExperiment(ctx, "experiment.update", "experiment.renamed", project, id, func(ctx context.Context, tx *store.Tx, e *Experiment) error {
		if e.Stage != Active {
			return fault.New(fault.Conflict, "Cannot rename a non-active experiment.", "Restore the experiment first.")
		}
		e.Name = name
		return nil
	})
	if store.Unique(err) {
		return fault.Newf(fault.Exists, "Experiment(name=%s) already exists.", name)
	}
	return err
}

// DeleteExperiment marks an active experiment and its runs deleted; RestoreExperiment takes it back.
func (s *Service) DeleteExperiment(ctx context.Context, project string, id int64) error {
	return s.changeExperiment(ctx, "experiment.delete", "experiment.deleted", project, id, func(ctx context.Context, tx *store.Tx, e *Experiment) error {
		if e.Stage != Active {
			return notFound("No Experiment with id=%d exists", id)
		}
		e.Stage = Deleted
		return markRuns(ctx, tx, e.ID, Deleted)
	})
}

// RestoreExperiment makes a deleted experiment and its runs active again.
func (s *Service) RestoreExperiment(ctx context.Context, project string, id int64) error {
	return s.changeExperiment(ctx, "experiment.restore", "experiment.restored", project, id, func(ctx context.Context, tx *store.Tx, e *Experiment) error {
		if e.Stage != Deleted {
			return notFound("No Experiment with id=%d exists", id)
		}
		e.Stage = Active
		return markRuns(ctx, tx, e.ID, Active)
	})
}

// SetExperimentTag sets one tag of an active experiment.
func (s *Service) SetExperimentTag(ctx context.Context, project string, id int64, tag Pair) error {
	if err := checkExperimentTag(tag); err != nil {
		return err
	}
	return s.changeExperiment(ctx, "experiment.update", "", project, id, func(ctx context.Context, tx *store.Tx, e *Experiment) error {
		if err := e.mustBeActive(); err != nil {
			return err
		}
		return upsertPairs(ctx, tx, "experiment_tags", "experiment", e.ID, []Pair{tag})
	})
}

// DeleteExperimentTag removes one tag of an active experiment.
func (s *Service) DeleteExperimentTag(ctx context.Context, project string, id int64, key string) error {
	return s.changeExperiment(ctx, "experiment.update", "", project, id, func(ctx context.Context, tx *store.Tx, e *Experiment) error {
		if err := e.mustBeActive(); err != nil {
			return err
		}
		n, err := tx.Exec(ctx, `DELETE FROM experiment_tags WHERE experiment = $1 AND key = $2`, e.ID, key)
		if err == nil && n == 0 {
			return notFound("No tag with name: %s in experiment with id %d", key, id)
		}
		return err
	})
}

func (e Experiment) mustBeActive() error {
	if e.Stage != Active {
		return invalid("The experiment %d must be in the 'active' state. Current state is %s.", e.ID, e.Stage)
	}
	return nil
}

func (s *Service) changeExperiment(ctx context.Context, action, announce, project string, id int64, fn func(context.Context, *store.Tx, *Experiment) error) error {
	return s.store.Change(ctx, policyAction(action), experimentResource(project, id), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		e, err := s.Experiment(ctx, project, id)
		if err != nil {
			return event.Draft{}, err
		}
		tx.Before(e)
		if err := fn(ctx, tx, &e); err != nil {
			return event.Draft{}, err
		}
		e.Updated = time.Now()
		if err := updateExperiment(ctx, tx, e); err != nil {
			return event.Draft{}, err
		}
		if e, err = s.Experiment(ctx, project, id); err != nil {
			return event.Draft{}, err
		}
		tx.After(e)
		return event.Draft{Type: announce, Subject: strconv.FormatInt(e.ID, 10), Data: map[string]any{"id": e.ID, "name": e.Name}}, nil
	})
}

package tracking

import (
	"context"
	"encoding/json"

	"falaj/internal/store"
	"falaj/internal/tracking/filter"
)

// Sizes of datasets as MLflow limits them, in characters.
const (
	maxDatasetName   = 500
	maxDatasetDigest = 36
	maxDatasetSource = 65535
	maxDatasetSchema = 1048575
	maxProfile       = 16777215
	maxInputs        = 1000
)

// LogInputs ties datasets and logged models to an active run as what it read. Repeats are no error.
func (s *Service) LogInputs(ctx context.Context, project, runID string, datasets []DatasetInput, models []ModelLink) error {
	if !RunIDOK(runID) {
		return invalidValue("run_id", Quote(runID), "")
	}
	if len(datasets) > maxInputs || len(models) > maxInputs {
		return invalid("A run can take at most %d datasets and models at once.", maxInputs)
	}
	for _, d := range datasets {
		if err := checkDataset(d); err != nil {
			return err
		}
	}
	if err := s.hold(ctx, project, runID); err != nil {
		return err
	}
	return s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		r, err := activeRun(ctx, tx, project, runID)
		if err != nil {
			return err
		}
		for _, d := range datasets {
			if err := insertInput(ctx, tx, r, d); err != nil {
				return err
			}
		}
		return insertModelLinks(ctx, tx, r.key, "input", models)
	})
}

// LogOutputs ties logged models to an active run as what it made.
func (s *Service) LogOutputs(ctx context.Context, project, runID string, models []ModelLink) error {
	if len(models) > maxInputs {
		return invalid("A run can take at most %d models at once.", maxInputs)
	}
	if err := s.hold(ctx, project, runID); err != nil {
		return err
	}
	return s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		r, err := activeRun(ctx, tx, project, runID)
		if err != nil {
			return err
		}
		return insertModelLinks(ctx, tx, r.key, "output", models)
	})
}

func checkDataset(d DatasetInput) error {
	for _, f := range []struct {
		what  string
		value string
		max   int
	}{
		{"Dataset name", d.Dataset.Name, maxDatasetName}, {"Dataset digest", d.Dataset.Digest, maxDatasetDigest},
		{"Dataset source_type", d.Dataset.SourceType, maxDatasetName}, {"Dataset source", d.Dataset.Source, maxDatasetSource},
		{"Dataset schema", d.Dataset.Schema, maxDatasetSchema}, {"Dataset profile", d.Dataset.Profile, maxProfile},
	} {
		if err := checkLength(f.what, f.max, f.value); err != nil {
			return err
		}
	}
	switch {
	case d.Dataset.Name == "":
		return invalid("Dataset name cannot be None")
	case d.Dataset.Digest == "":
		return invalid("Dataset digest cannot be None")
	case d.Dataset.SourceType == "":
		return invalid("Dataset source_type cannot be None")
	}
	for _, t := range d.Tags {
		if err := checkLength("Input tag key", 255, t.Key); err != nil {
			return err
		}
		if err := checkLength("Input tag value", 500, t.Value); err != nil {
			return err
		}
	}
	return nil
}

func insertInput(ctx context.Context, tx *store.Tx, r RunInfo, d DatasetInput) error {
	var id int64
	find := func() error {
		return tx.QueryRow(ctx, `SELECT id FROM input_datasets WHERE experiment = $1 AND name = $2 AND digest = $3`, r.Experiment, d.Dataset.Name, d.Dataset.Digest).Scan(&id)
	}
	err := find()
	if store.NotFound(err) {
		next, e := tx.Next(ctx, "input_datasets")
		if e != nil {
			return e
		}
		if _, e := tx.Exec(ctx, `INSERT INTO input_datasets (id, experiment, name, digest, source_type, source, columns_schema, profile) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (experiment, name, digest) DO NOTHING`,
			next, r.Experiment, d.Dataset.Name, d.Dataset.Digest, d.Dataset.SourceType, d.Dataset.Source, d.Dataset.Schema, d.Dataset.Profile); e != nil {
			return e
		}
		err = find()
	}
	if err != nil {
		return err
	}
	tags, err := toJSON(d.Tags)
	if err != nil {
		return err
	}
	var use any
	for _, t := range d.Tags {
		if t.Key == TagContext {
			use = t.Value
		}
	}
	_, err = tx.Exec(ctx, `INSERT INTO run_inputs (run, dataset, context, tags) VALUES ($1, $2, $3, $4) ON CONFLICT (run, dataset) DO NOTHING`, r.key, id, use, tags)
	return err
}

func insertModelLinks(ctx context.Context, tx *store.Tx, run int64, direction string, models []ModelLink) error {
	for _, m := range models {
		if _, err := tx.Exec(ctx, `INSERT INTO run_models (run, direction, model, step) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`, run, direction, m.Model, m.Step); err != nil {
			return err
		}
	}
	return nil
}

func eachInput(ctx context.Context, q store.Querier, runs []int64, fn func(run int64, d DatasetInput)) error {
	return inChunks(runs, func(part []int64) error {
		var a filter.Args
		rows, err := q.Query(ctx, "SELECT i.run, d.name, d.digest, d.source_type, d.source, d.columns_schema, d.profile, i.tags FROM run_inputs i JOIN input_datasets d ON d.id = i.dataset WHERE i.run IN "+filter.In(&a, part)+" ORDER BY i.run, i.dataset", a.Values()...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var run int64
			var d DatasetInput
			var tags string
			if err := rows.Scan(&run, &d.Dataset.Name, &d.Dataset.Digest, &d.Dataset.SourceType, &d.Dataset.Source, &d.Dataset.Schema, &d.Dataset.Profile, &tags); err != nil {
				return err
			}
			if err := json.Unmarshal([]byte(tags), &d.Tags); err != nil {
				return err
			}
			fn(run, d)
		}
		return rows.Err()
	})
}

func eachModelLink(ctx context.Context, q store.Querier, runs []int64, fn func(run int64, direction string, l ModelLink)) error {
	return inChunks(runs, func(part []int64) error {
		var a filter.Args
		rows, err := q.Query(ctx, "SELECT run, direction, model, step FROM run_models WHERE run IN "+filter.In(&a, part)+" ORDER BY run, model, step", a.Values()...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var run int64
			var direction string
			var l ModelLink
			if err := rows.Scan(&run, &direction, &l.Model, &l.Step); err != nil {
				return err
			}
			fn(run, direction, l)
		}
		return rows.Err()
	})
}

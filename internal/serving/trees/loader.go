package trees

import (
	"context"
	"errors"
	"fmt"

	"falaj/internal/kernel/fault"
	"falaj/internal/serving"
)

// Loader makes serving engines of releases whose model is a LightGBM text file.
type Loader struct{}

// Load parses the release's model, digest checked. What Parse does not support matches serving.ErrUnsupported, so that the next loader is asked.
func (Loader) Load(ctx context.Context, r serving.Release) (serving.Engine, error) {
	in, err := r.OpenChecked(ctx, r.Model)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	m, err := Parse(in)
	switch {
	case errors.Is(err, ErrUnsupported):
		return nil, fmt.Errorf("%w: %w", serving.ErrUnsupported, err)
	case errors.Is(err, ErrMalformed):
		return nil, fault.Wrap(err, fault.Refused, "the model file is damaged: "+err.Error(), "Register the model again.")
	case err != nil:
		return nil, err
	}
	return engine{m}, nil
}

type engine struct{ m *Model }

func (e engine) Predict(_ context.Context, x []float64, rows int) ([]float64, error) {
	out := make([]float64, rows*e.m.NumOutputs())
	e.m.PredictBatch(x, rows, out)
	return out, nil
}

func (e engine) Features() []string { return e.m.FeatureNames() }

func (e engine) Close() error { return nil }

package serving

import (
	"context"
	"slices"
	"time"

	"falaj/internal/features"
)

// FromFeatures is the FeatureSource of the features stage. A release names its service pinned, as name@digest, so that a later definition does not change what it is given.
func FromFeatures(f *features.Service) FeatureSource { return fromFeatures{f} }

type fromFeatures struct{ stage *features.Service }

func (f fromFeatures) Inputs(ctx context.Context, project, service string) (Inputs, error) {
	info, err := f.stage.Describe(ctx, project, service)
	if err != nil {
		return Inputs{}, err
	}
	var out Inputs
	for _, name := range info.Entity {
		out.Entity = append(out.Entity, Input{Name: name, Type: string(features.Text)})
	}
	for _, in := range info.Request { // a request feature may read an entity key, which then comes once
		if !slices.Contains(info.Entity, in.Name) {
			out.Request = append(out.Request, Input{Name: in.Name, Type: string(in.Type)})
		}
	}
	return out, nil
}

func (f fromFeatures) Lookup(ctx context.Context, project, service string, entities []map[string]any, at []time.Time, request []map[string]any) (Features, error) {
	names, values, digests, err := f.stage.Lookup(ctx, project, service, entities, at, request)
	return Features{Names: names, Values: values, Digests: digests}, err
}

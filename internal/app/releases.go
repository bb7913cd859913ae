package app

import (
	"context"
	"io"
	"os"
	"strconv"
	"strings"

	"falaj/internal/kernel/fault"
	"falaj/internal/serving"
)

// releases opens what serving loads: the registry's files, with what the pipeline knows of features.
type releases struct{ app *App }

func (r releases) Open(ctx context.Context, project, digest string) (serving.Release, error) {
	rel, err := r.app.stages.registry.Release(ctx, project, digest)
	if err != nil {
		return serving.Release{}, err
	}
	out := serving.Release{Digest: rel.Digest, Version: strconv.FormatInt(rel.Version, 10), Runtime: rel.Manifest.Runtime}
	for _, f := range rel.Manifest.Files {
		out.Files = append(out.Files, serving.File{Path: f.Path, SHA256: strings.TrimPrefix(f.Digest, "sha256:"), Size: f.Size})
	}
	out.Open = func(ctx context.Context, path string) (io.ReadCloser, error) {
		return r.app.stages.registry.OpenFile(ctx, project, digest, path)
	}
	if out, err = serving.FromMLmodel(ctx, out); err != nil {
		return out, err
	}
	t, err := r.app.stages.pipelines.Trained(ctx, project, digest)
	if fault.Is(err, fault.NotFound) { // registered by a client: served with the features it is given
		return out, nil
	}
	if err != nil {
		return out, err
	}
	if t.Service != "" {
		info, err := r.app.stages.features.Describe(ctx, project, t.Service)
		if err != nil {
			return out, err
		}
		out.Service, out.Features = info.Ref(), info.Features
	}
	return out, nil
}

// fresh empties a folder of working files that an earlier process left.
func fresh(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.MkdirAll(dir, 0o700)
}

package app

import (
	"context"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"

	"falaj/internal/kernel/fault"
	"falaj/internal/registry"
	"falaj/internal/serving"
)

// releases opens what serving loads: the registry's files, with what the pipeline knows of features.
type releases struct{ app *App }

// mlmodel is the part of MLflow's MLmodel file that says how a model is loaded (mlflow.org, "MLmodel configuration").
type mlmodel struct {
	Flavors map[string]struct {
		Data string `yaml:"data"`
	} `yaml:"flavors"`
}

const maxMLmodel = 1 << 20

func (r releases) Open(ctx context.Context, project, digest string) (serving.Release, error) {
	rel, err := r.app.stages.registry.Release(ctx, project, digest)
	if err != nil {
		return serving.Release{}, err
	}
	out := serving.Release{Digest: rel.Digest, Version: strconv.FormatInt(rel.Version, 10), Flavor: "pyfunc", Runtime: rel.Manifest.Runtime}
	for _, f := range rel.Manifest.Files {
		out.Files = append(out.Files, serving.File{Path: f.Path, SHA256: strings.TrimPrefix(f.Digest, "sha256:"), Size: f.Size})
	}
	out.Open = func(ctx context.Context, path string) (io.ReadCloser, error) {
		return r.app.stages.registry.OpenFile(ctx, project, digest, path)
	}
	if err := r.flavor(ctx, rel, &out); err != nil {
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

func (r releases) flavor(ctx context.Context, rel registry.Release, out *serving.Release) error {
	for _, f := range rel.Manifest.Files {
		if path.Base(f.Path) != "MLmodel" || f.Size > maxMLmodel {
			continue
		}
		o, err := out.Open(ctx, f.Path)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(io.LimitReader(o, maxMLmodel))
		o.Close()
		if err != nil {
			return err
		}
		var m mlmodel
		if err := yaml.Unmarshal(b, &m); err != nil {
			return fault.Wrap(err, fault.Refused, "The model's MLmodel file cannot be read.", "Log the model with mlflow again.")
		}
		dir := path.Dir(f.Path)
		if lgb, ok := m.Flavors["lightgbm"]; ok && lgb.Data != "" && !strings.HasSuffix(lgb.Data, ".pkl") {
			out.Flavor, out.Model = "lightgbm", path.Join(dir, lgb.Data)
			return nil
		}
		if dir != "." {
			out.Model = dir
		}
		return nil
	}
	return nil
}

// fresh empties a folder of working files that an earlier process left.
func fresh(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.MkdirAll(dir, 0o700)
}

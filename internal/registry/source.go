package registry

import (
	"context"
	"net/url"
	"path"
	"strconv"
	"strings"

	"falaj/internal/kernel/fault"
	"falaj/internal/tracking"
)

// origin is where the files of a version come from, checked.
type origin struct{ source, storage, run, model string }

// checkSource holds a version's source to what the caller may name: files of the run or logged model that the request names,
// another version, or a remote store. Local paths and anything with relative segments, encoded or not, are refused.
func (s *Service) checkSource(ctx context.Context, project string, r NewVersion) (origin, error) {
	o := origin{source: r.Source, storage: r.Source, run: r.Run, model: r.LoggedModel}
	if r.Source == "" {
		return o, invalid("Missing value for required parameter 'source'.")
	}
	if isPrompt(r.Tags) {
		if r.Source != "prompt-template" && r.Source != "dummy-source" {
			return o, invalid("Invalid prompt source: '%s'. Prompt sources must use an MLflow placeholder.", r.Source)
		}
		return o, nil
	}
	plain, err := unquoteAll(r.Source)
	if err != nil {
		return o, err
	}
	scheme, rest, ok := strings.Cut(plain, ":")
	if !ok || strings.ContainsAny(scheme, "/\\") || len(scheme) < 2 || strings.EqualFold(scheme, "file") {
		name := "run_id"
		if r.LoggedModel != "" {
			name = "model_id"
		}
		return o, invalid("Invalid model version source: '%s'. To use a local path as a model version source, the %s request parameter has to be specified and the local path has to be contained within the artifact directory of the run specified by the %s.", r.Source, name, name)
	}
	if relative(rest) {
		return o, invalid("Invalid model version source: '%s'. If supplying a source as an http, https, local file path, ftp, objectstore, or mlflow-artifacts uri, an absolute path must be provided without relative path references present. Please provide an absolute path.", r.Source)
	}
	switch strings.ToLower(scheme) {
	case "models":
		return s.fromModels(ctx, project, r, o, rest)
	case "runs":
		id, _, _ := strings.Cut(strings.TrimLeft(rest, "/"), "/")
		if strings.HasPrefix(rest, "//") || o.model != "" || o.run == "" || id != o.run {
			return o, mismatch(r.Source, o.model)
		}
		run, err := s.tracking.RunInfo(ctx, project, o.run)
		if err != nil {
			return o, mismatch(r.Source, o.model)
		}
		_, sub, _ := strings.Cut(strings.TrimLeft(rest, "/"), "/")
		o.storage = strings.TrimRight(run.ArtifactURI+"/"+sub, "/")
		return o, nil
	case "mlflow-artifacts":
		return s.fromProxy(ctx, project, r, o)
	case "http", "https":
		if strings.Contains(rest, "api/2.0/mlflow-artifacts/artifacts") {
			return o, mismatch(r.Source, o.model)
		}
	}
	return s.named(ctx, project, o)
}

// named checks that the run and logged model that the request names exist, and takes the run from the logged model.
func (s *Service) named(ctx context.Context, project string, o origin) (origin, error) {
	if o.model != "" {
		m, err := s.tracking.Model(ctx, project, o.model, false)
		if err != nil {
			return o, err
		}
		if o.run == "" {
			o.run = m.SourceRun
		}
	}
	return o, nil
}

func unquoteAll(s string) (string, error) {
	for range 16 {
		next, err := url.QueryUnescape(s)
		if err != nil || next == s {
			return s, nil
		}
		s = next
	}
	return "", invalid("Invalid model version source: it is percent-encoded more than 16 times.")
}

func relative(rest string) bool {
	if strings.ContainsAny(rest, "\x00\\#") {
		return true
	}
	for _, seg := range strings.Split(rest, "/") {
		if seg == ".." || seg == "." {
			return true
		}
	}
	return false
}

func mismatch(source, model string) error {
	name := "run_id"
	if model != "" {
		name = "model_id"
	}
	return invalid("Invalid model version source: '%s'. The %s request parameter must identify the resource that contains the source.", source, name)
}

// fromModels reads models:/m-ID (a logged model) and models:/NAME/VERSION or NAME@ALIAS (a copy of another version).
func (s *Service) fromModels(ctx context.Context, project string, r NewVersion, o origin, rest string) (origin, error) {
	if strings.HasPrefix(rest, "//") {
		return o, invalid("Invalid model version source: '%s'. Registered model sources must use the active model registry.", r.Source)
	}
	spec := strings.Trim(rest, "/")
	if strings.HasPrefix(spec, "m-") && !strings.ContainsAny(spec, "/@") {
		if o.model == "" || o.model != spec {
			return o, invalid("Invalid model version source: '%s'. The model_id request parameter must identify the resource that contains the source.", r.Source)
		}
		m, err := s.tracking.Model(ctx, project, spec, false)
		if err != nil {
			return o, mismatch(r.Source, o.model)
		}
		o.storage = m.ArtifactURI
		if o.run == "" {
			o.run = m.SourceRun
		}
		return o, nil
	}
	from, err := s.versionOf(ctx, project, spec)
	if err != nil {
		return o, err
	}
	if isPrompt(from.Tags) {
		return o, invalid("Invalid model version source: '%s'. Prompt versions cannot be used as model version sources.", r.Source)
	}
	if r.HasRun && r.Run != from.Run || r.HasLoggedModel && r.LoggedModel != from.LoggedModel {
		return o, invalid("Invalid model version source: '%s'. The run_id and model_id request parameters must match the referenced model version.", r.Source)
	}
	return origin{source: "models:/" + from.Model + "/" + strconv.FormatInt(from.Number, 10), storage: from.Storage, run: from.Run, model: from.LoggedModel}, nil
}

// versionOf reads NAME/VERSION, NAME/STAGE, NAME@ALIAS.
func (s *Service) versionOf(ctx context.Context, project, spec string) (Version, error) {
	if name, alias, ok := strings.Cut(spec, "@"); ok {
		return s.VersionByAlias(ctx, project, name, alias)
	}
	name, tail, _ := strings.Cut(spec, "/")
	if n, err := strconv.ParseInt(tail, 10, 64); err == nil {
		return s.Version(ctx, project, name, n)
	}
	if strings.EqualFold(tail, "latest") {
		return s.VersionByAlias(ctx, project, name, "latest")
	}
	list, err := s.LatestVersions(ctx, project, name, []string{tail})
	if err != nil {
		return Version{}, err
	}
	if len(list) == 0 {
		return Version{}, notFound("No versions of model with name '%s' and stage '%s' found", name, tail)
	}
	return list[0], nil
}

// fromProxy holds an mlflow-artifacts: source to the folder of the run or logged model that the request names.
func (s *Service) fromProxy(ctx context.Context, project string, r NewVersion, o origin) (origin, error) {
	at, err := tracking.ProxyPath(r.Source)
	if err != nil {
		return o, invalid("Invalid model version source: '%s'. If supplying a source as an http, https, local file path, ftp, objectstore, or mlflow-artifacts uri, an absolute path must be provided without relative path references present. Please provide an absolute path.", r.Source)
	}
	var root string
	switch {
	case o.model != "":
		m, err := s.tracking.Model(ctx, project, o.model, false)
		if err != nil {
			return o, mismatchIfMissing(err, r.Source, o.model)
		}
		root = m.ArtifactURI
		if o.run == "" {
			o.run = m.SourceRun
		}
	case o.run != "":
		run, err := s.tracking.RunInfo(ctx, project, o.run)
		if err != nil {
			return o, mismatchIfMissing(err, r.Source, o.model)
		}
		root = run.ArtifactURI
	default:
		return o, mismatch(r.Source, o.model)
	}
	base, err := tracking.ProxyPath(root)
	if err != nil || at != base && !strings.HasPrefix(at, path.Clean(base)+"/") {
		return o, mismatch(r.Source, o.model)
	}
	return o, nil
}

func mismatchIfMissing(err error, source, model string) error {
	if fault.Is(err, fault.NotFound) {
		return mismatch(source, model)
	}
	return err
}

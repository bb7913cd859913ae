package serving

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"slices"
	"strings"

	"falaj/internal/kernel/fault"
)

// ErrUnsupported is what a Loader's error matches when another loader may know the model.
var ErrUnsupported = errors.New("model not supported by this engine")

// File finds a file of the release by path.
func (r Release) File(path string) (File, bool) {
	i := slices.IndexFunc(r.Files, func(f File) bool { return f.Path == path })
	if i < 0 {
		return File{}, false
	}
	return r.Files[i], true
}

// OpenChecked opens a file of the release. Its reader gives an error instead of io.EOF when size or SHA-256 are not the manifest's.
func (r Release) OpenChecked(ctx context.Context, path string) (io.ReadCloser, error) {
	f, ok := r.File(path)
	if !ok {
		return nil, fault.New(fault.Refused, fmt.Sprintf("Release %s has no file %q.", short(r.Digest), path), "Register the model again; a release lists every file of its model.")
	}
	in, err := r.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	return &checked{in: in, hash: sha256.New(), want: f, release: r.Digest}, nil
}

type checked struct {
	in      io.ReadCloser
	hash    hash.Hash
	size    int64
	want    File
	release string
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.hash.Write(p[:n])
	c.size += int64(n)
	if c.size > c.want.Size || err == io.EOF && (c.size != c.want.Size || hex.EncodeToString(c.hash.Sum(nil)) != c.want.SHA256) {
		return n, fault.New(fault.Refused, fmt.Sprintf("File %q of release %s is not the file that was registered: its size or digest differs.", c.want.Path, short(c.release)),
			"Nothing of it was loaded. `falaj audit verify` names damaged blobs; restore the blob or roll back.")
	}
	return n, err
}

func (c *checked) Close() error { return c.in.Close() }

// engine is a loaded release, shared by the endpoints that use it. refs is guarded by Service.mu.
type engine struct {
	Engine
	release  Release
	features []string // names in the order that Predict takes them
	columns  map[string]int
	inputs   Inputs // of the feature service
	version  string // the release's, else its digest
	outputs  int
	refs     int
}

// load opens a release, checks its digests, makes its engine and lets it answer one row.
func (s *Service) load(ctx context.Context, project, digest string) (*engine, error) {
	r, err := s.cfg.Models.Open(ctx, project, digest)
	if err != nil {
		return nil, err
	}
	if r.Digest != digest {
		return nil, fault.Newf(fault.Internal, "The registry answered release %s when asked for %s.", r.Digest, digest)
	}
	loaders := s.cfg.Loaders[r.Flavor]
	if len(loaders) == 0 {
		return nil, fault.New(fault.Unsupported, fmt.Sprintf("Release %s has the flavor %q, which this server does not serve.", short(digest), r.Flavor), "Log the model with mlflow.lightgbm or mlflow.pyfunc.")
	}
	var e Engine
	for _, l := range loaders {
		if e, err = l.Load(ctx, r); !errors.Is(err, ErrUnsupported) {
			break
		}
		s.log.Info("release goes to the next engine", "release", digest, "why", err)
	}
	if errors.Is(err, ErrUnsupported) {
		return nil, fault.Wrap(err, fault.Unsupported, fmt.Sprintf("No engine of this server serves release %s: %v.", short(digest), err), "Log the model as mlflow.pyfunc.")
	}
	if err != nil {
		return nil, err
	}
	out := &engine{Engine: e, release: r, columns: map[string]int{}, version: r.Version}
	if out.version == "" {
		out.version = digest
	}
	if out.features, err = agree(r.Features, e.Features()); err == nil {
		out.outputs, err = answers(ctx, e, len(out.features))
	}
	if err == nil && r.Service != "" {
		out.inputs, err = s.cfg.Features.Inputs(ctx, project, r.Service)
	}
	if err != nil {
		e.Close()
		return nil, fault.Wrap(err, fault.KindOf(err), fmt.Sprintf("Release %s cannot serve: %s", short(digest), fault.From(err).Public), fault.From(err).Next)
	}
	for i, n := range out.features {
		out.columns[n] = i
	}
	return out, nil
}

// answers scores a row of zeros: a release is active only once it has answered.
func answers(ctx context.Context, e Engine, width int) (outputs int, err error) {
	out, err := e.Predict(ctx, make([]float64, width), 1)
	if err == nil && len(out) == 0 {
		err = fault.New(fault.Refused, "the model answers a row with no value.", "")
	}
	return len(out), err
}

// agree settles the names and order of the columns: the model's order, the release's names.
// LightGBM writes Column_i for unnamed columns and "_" for characters that it does not allow; then columns are matched by place.
func agree(release, model []string) ([]string, error) {
	bad := func(format string, a ...any) error {
		return fault.New(fault.Refused, fmt.Sprintf(format, a...), "Train and register with the columns of the feature service.")
	}
	if len(release) == 0 && len(model) == 0 {
		return nil, bad("neither the release nor the model names the model's features.")
	}
	if dup := duplicate(release); dup != "" {
		return nil, bad("the release names the feature %q twice.", dup)
	}
	if len(release) == 0 {
		if dup := duplicate(model); dup != "" {
			return nil, bad("the model names the feature %q twice.", dup)
		}
		return model, nil
	}
	if len(model) == 0 || slices.Equal(release, model) {
		return release, nil
	}
	if len(release) != len(model) {
		return nil, bad("the release names %d features, the model takes %d.", len(release), len(model))
	}
	a, b := slices.Sorted(slices.Values(release)), slices.Sorted(slices.Values(model))
	if slices.Equal(a, b) {
		return model, nil
	}
	for i := range release {
		if model[i] != plain(release[i]) && model[i] != fmt.Sprintf("Column_%d", i) {
			return nil, bad("the release names the feature %q where the model has %q.", release[i], model[i])
		}
	}
	return release, nil
}

func duplicate(names []string) string {
	seen := make(map[string]bool, len(names))
	for _, n := range names {
		if seen[n] {
			return n
		}
		seen[n] = true
	}
	return ""
}

func plain(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r > 127 {
			return r
		}
		return '_'
	}, name)
}

func finite(values []float64) bool {
	for _, v := range values {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return false
		}
	}
	return true
}

func short(digest string) string {
	if i := strings.IndexByte(digest, ':'); i >= 0 && len(digest) > i+13 {
		return digest[:i+13]
	}
	if len(digest) > 12 {
		return digest[:12]
	}
	return digest
}

package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"falaj/internal/blob"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
	"falaj/internal/tracking"
)

func actorOf(ctx context.Context) string { return who.From(ctx).Origin() }

// Canonical is the JSON of v after RFC 8785: keys sorted (by UTF-8 bytes), no spaces, shortest numbers, nothing escaped but what
// JSON asks for and U+2028, U+2029. A verifier digests the stored bytes and needs no canonicalizer of its own.
func Canonical(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(tree); err != nil { // maps are written with sorted keys
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// CreateRelease freezes everything that made a registered version into a manifest and stores it under its digest. Asking again
// with the same content gives the same release; other content for a version that has one is refused (fault.Conflict).
func (s *Service) CreateRelease(ctx context.Context, project string, r ReleaseRequest) (Release, error) {
	v, err := s.Version(ctx, project, r.Model, r.Version)
	if err != nil {
		return Release{}, err
	}
	m, err := s.manifest(ctx, project, v, r)
	if err != nil {
		return Release{}, err
	}
	text, err := Canonical(m)
	if err != nil {
		return Release{}, fault.Wrap(err, fault.Invalid, "The release cannot be written as JSON.", "Correct the signature or the parameters.")
	}
	out := Release{Digest: digestOf(text), Project: project, Model: v.Model, Version: v.Number, Manifest: m, JSON: text, Author: actorOf(ctx), Created: time.Now().UTC().Truncate(time.Microsecond)}
	if v.Release != "" {
		if v.Release == out.Digest {
			return s.Release(ctx, project, out.Digest)
		}
		return Release{}, taken(v)
	}
	err = s.store.Change(ctx, "release.create", versionResource(project, v.Model, v.Number), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		now, err := s.Version(ctx, project, r.Model, r.Version)
		if err != nil {
			return event.Draft{}, err
		}
		if now.Release != "" && now.Release != out.Digest {
			return event.Draft{}, taken(now)
		}
		if _, err := tx.Exec(ctx, `INSERT INTO releases (project, digest, model, version, manifest, created_by, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			project, out.Digest, v.model, v.Number, string(text), out.Author, store.Micros(out.Created)); err != nil {
			return event.Draft{}, err
		}
		now.Release = out.Digest
		if err := updateVersion(ctx, tx, now); err != nil {
			return event.Draft{}, err
		}
		tx.After(m)
		return event.Draft{Type: "release.created", Subject: v.Ref(), Data: map[string]any{"model": v.Model, "version": v.Number, "release": out.Digest, "run": m.Run}}, nil
	})
	if store.Unique(err) { // somebody made it meanwhile: the same one, or another
		if now, e := s.Version(ctx, project, r.Model, r.Version); e != nil || now.Release != out.Digest {
			return Release{}, taken(now)
		}
		return s.Release(ctx, project, out.Digest)
	}
	if err != nil {
		return Release{}, err
	}
	return out, nil
}

func taken(v Version) error {
	return fault.New(fault.Conflict, fmt.Sprintf("%s already has release %s, and a release never changes.", v.Ref(), v.Release), "Register a new version for the new content.")
}

func (s *Service) manifest(ctx context.Context, project string, v Version, r ReleaseRequest) (Manifest, error) {
	files, err := s.files(ctx, project, v)
	if err != nil {
		return Manifest{}, err
	}
	m := Manifest{Schema: ManifestSchema, Project: project, Model: v.Model, Version: v.Number, Run: r.Run, Data: slices.Clone(r.Data), Features: slices.Clone(r.Features),
		Code: r.Code, Runtime: r.Runtime, Command: r.Command, Parameters: r.Parameters, Signature: r.Signature, Files: files}
	byName := func(a, b Ref) int { return strings.Compare(a.Name+"\x00"+a.Version, b.Name+"\x00"+b.Version) }
	slices.SortFunc(m.Data, byName)
	slices.SortFunc(m.Features, byName)
	for _, ref := range append(slices.Clone(m.Data), m.Features...) {
		if !blob.ValidDigest(ref.Digest) {
			return m, invalid("'%s' has digest '%s', which is not a digest.", ref.Name, ref.Digest).At("digest")
		}
	}
	for field, d := range map[string]string{"code": r.Code.Digest, "runtime": r.Runtime} {
		if d != "" && !blob.ValidDigest(d) {
			return m, invalid("'%s' is not a digest.", d).At(field)
		}
	}
	if m.Run == "" {
		m.Run = v.Run
	}
	metrics := r.Metrics
	if m.Run != "" && (m.Parameters == nil || metrics == nil) {
		run, err := s.tracking.Run(ctx, project, m.Run)
		if err != nil {
			return m, err
		}
		if m.Parameters == nil {
			m.Parameters = map[string]string{}
			for _, p := range run.Params {
				m.Parameters[p.Key] = p.Value
			}
		}
		if metrics == nil {
			metrics = map[string]float64{}
			for _, x := range run.Metrics {
				metrics[x.Key] = x.Value
			}
		}
	}
	if len(metrics) > 0 {
		m.Metrics = map[string]Number{}
		for k, x := range metrics {
			m.Metrics[k] = Number(x)
		}
	}
	if m.Signature == nil {
		if m.Signature, err = s.signature(ctx, project, files); err != nil {
			return m, err
		}
	}
	return m, nil
}

// files lists the model's files with their digests; falaj can only vouch for bytes that it keeps.
func (s *Service) files(ctx context.Context, project string, v Version) ([]File, error) {
	at, err := tracking.ProxyPath(v.Storage)
	if err != nil {
		return nil, fault.New(fault.Refused, fmt.Sprintf("%s cannot be released: its files lie at '%s', where falaj cannot check them.", v.Ref(), v.Storage), "Log the model through falaj (mlflow-artifacts:), then register it again.")
	}
	list, err := s.tracking.Files(ctx, project, at)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fault.New(fault.Refused, fmt.Sprintf("%s cannot be released: there are no files at '%s'.", v.Ref(), v.Storage), "Log the model's files first, then make the release.")
	}
	out := make([]File, len(list))
	for i, f := range list {
		out[i] = File{Path: f.Path, Digest: f.Digest, Size: f.Size}
	}
	slices.SortFunc(out, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// maxMLmodel is how large an MLmodel file may be to be read.
const maxMLmodel = 4 << 20

// signature reads the model's signature from its MLmodel file; nil when there is none.
func (s *Service) signature(ctx context.Context, project string, files []File) (*Signature, error) {
	i := slices.IndexFunc(files, func(f File) bool { return f.Path == "MLmodel" })
	if i < 0 || files[i].Size > maxMLmodel {
		return nil, nil
	}
	o, err := s.blobs.Open(ctx, project, files[i].Digest)
	if err != nil {
		return nil, err
	}
	defer o.Close()
	text, err := io.ReadAll(io.LimitReader(o, maxMLmodel))
	if err != nil {
		return nil, err
	}
	var doc struct {
		Signature *struct {
			Inputs  string `yaml:"inputs"`
			Outputs string `yaml:"outputs"`
			Params  string `yaml:"params"`
		} `yaml:"signature"`
	}
	if err := yaml.Unmarshal(text, &doc); err != nil || doc.Signature == nil {
		return nil, nil //nolint:nilerr // somebody's own MLmodel without a readable signature is still a model
	}
	pick := func(s string) json.RawMessage {
		if s == "" || s == "null" || !json.Valid([]byte(s)) {
			return nil
		}
		return json.RawMessage(s)
	}
	return &Signature{Inputs: pick(doc.Signature.Inputs), Outputs: pick(doc.Signature.Outputs), Params: pick(doc.Signature.Params)}, nil
}

// Release gives a release by its digest. The stored manifest is checked against it.
func (s *Service) Release(ctx context.Context, project, digest string) (Release, error) {
	list, err := s.selectReleases(ctx, `r.project = $1 AND r.digest = $2`, project, digest)
	if err != nil {
		return Release{}, err
	}
	if len(list) == 0 {
		return Release{}, notFound("There is no release %.80s in project %s.", digest, project)
	}
	return list[0], nil
}

// Releases gives the releases of a model, newest version first.
func (s *Service) Releases(ctx context.Context, project, model string) ([]Release, error) {
	return s.selectReleases(ctx, `r.project = $1 AND m.name = $2 AND m.deleted_at IS NULL`, project, model)
}

func (s *Service) selectReleases(ctx context.Context, where string, args ...any) ([]Release, error) {
	var out []Release
	err := s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		return each(ctx, q, `SELECT r.project, r.digest, r.version, r.manifest, r.created_by, r.created_at FROM releases r JOIN models m ON m.id = r.model WHERE `+where+` ORDER BY r.version DESC`, args, func(scan func(...any) error) error {
			var r Release
			var text string
			var created int64
			if err := scan(&r.Project, &r.Digest, &r.Version, &text, &r.Author, &created); err != nil {
				return err
			}
			r.Created, r.JSON = store.Time(created), json.RawMessage(text)
			if digestOf(r.JSON) != r.Digest {
				return corrupt(r.Digest)
			}
			if err := json.Unmarshal(r.JSON, &r.Manifest); err != nil {
				return fmt.Errorf("manifest of release %s: %w", r.Digest, err)
			}
			if r.Manifest.Schema != ManifestSchema {
				return fault.New(fault.Unsupported, "Release "+r.Digest+" has a format this falaj does not know: "+r.Manifest.Schema+".", "Use the falaj that made it, or a newer one.")
			}
			r.Model = r.Manifest.Model
			out = append(out, r)
			return nil
		})
	})
	return out, err
}

// OpenFile opens one file of a release by its path in the manifest, whatever happened to the run's artifacts since. Close it.
func (s *Service) OpenFile(ctx context.Context, project, digest, path string) (*blob.Object, error) {
	r, err := s.Release(ctx, project, digest)
	if err != nil {
		return nil, err
	}
	for _, f := range r.Manifest.Files {
		if f.Path == path {
			return s.blobs.Open(ctx, project, f.Digest)
		}
	}
	return nil, notFound("Release %.19s... has no file '%s'.", digest, path)
}

// Resolve reads "[project/]model@version|alias|digest": flights/delay@3, delay@production, delay@latest, delay@sha256:...
// Without a project it is "default".
func (s *Service) Resolve(ctx context.Context, ref string) (Resolved, error) {
	name, tail, ok := strings.Cut(ref, "@")
	if !ok || name == "" || tail == "" {
		return Resolved{}, fault.New(fault.Invalid, fmt.Sprintf("'%.200s' does not name a model version.", ref), "Write [project/]model@version, @alias or @digest, such as flights/delay@3.")
	}
	project, model, ok := strings.Cut(name, "/")
	if !ok {
		project, model = "default", name
	}
	var v Version
	var err error
	if strings.HasPrefix(tail, "sha256:") {
		r, e := s.Release(ctx, project, tail)
		if e != nil {
			return Resolved{}, e
		}
		if r.Model != model {
			return Resolved{}, notFound("Release %.19s... belongs to model %s, not %s.", tail, r.Model, model)
		}
		v, err = s.Version(ctx, project, model, r.Version)
	} else if n, e := strconv.ParseInt(tail, 10, 64); e == nil {
		v, err = s.Version(ctx, project, model, n)
	} else {
		v, err = s.VersionByAlias(ctx, project, model, tail)
	}
	return Resolved{Project: project, Model: model, Version: v}, err
}

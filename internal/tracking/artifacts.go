package tracking

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"falaj/internal/blob"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/store"
	"falaj/internal/tracking/filter"
)

// PutArtifact streams r into the file at a path of the artifact proxy, such as "3/RUN/artifacts/model/MLmodel".
// The file is there, whole, or nothing has changed. Bytes of an overwritten file stay in blobs as long as something names them.
func (s *Service) PutArtifact(ctx context.Context, project, path string, r io.Reader) (Artifact, error) {
	at, err := placeOf(path)
	if err != nil {
		return Artifact{}, err
	}
	res, err := s.artifactResource(ctx, project, at)
	if err != nil {
		return Artifact{}, err
	}
	// Asked before the body is read: a refused upload must not fill the disk.
	if err := s.permit(ctx, "artifact.write", res); err != nil {
		return Artifact{}, err
	}
	ref, err := s.blobs.Put(ctx, project, r)
	if err != nil {
		return Artifact{}, err
	}
	return s.keepArtifact(ctx, project, at, res, ref)
}

func placeOf(path string) (place, error) {
	p, err := SafePath(path)
	if err != nil {
		return place{}, err
	}
	at := locate(p)
	if at.path == "" {
		return place{}, invalid("Invalid path").At("path")
	}
	return at, nil
}

func (s *Service) keepArtifact(ctx context.Context, project string, at place, res policy.Resource, ref blob.Ref) (Artifact, error) {
	err := s.store.Change(ctx, "artifact.write", res, func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		if err := noClash(ctx, tx, project, at); err != nil {
			return event.Draft{}, err
		}
		tx.After(ref)
		_, err := tx.Exec(ctx, `INSERT INTO artifact_files (project, root, path, digest, size, updated_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (project, root, path) DO UPDATE SET digest = excluded.digest, size = excluded.size, updated_at = excluded.updated_at`,
			project, at.root, at.path, ref.Digest, ref.Size, store.Micros(time.Now()))
		return event.Draft{}, err
	})
	return Artifact{Path: at.path, Digest: ref.Digest, Size: ref.Size}, err
}

// noClash refuses a file where a folder is, and a folder where a file is.
func noClash(ctx context.Context, tx *store.Tx, project string, at place) error {
	var a filter.Args
	w := "project = " + a.Add(project) + " AND root = " + a.Add(at.root) + " AND (path > " + a.Add(at.path+"/") + " AND path < " + a.Add(at.path+"0")
	for p := at.path; strings.Contains(p, "/"); {
		p = p[:strings.LastIndex(p, "/")]
		w += " OR path = " + a.Add(p)
	}
	var other string
	err := tx.QueryRow(ctx, "SELECT path FROM artifact_files WHERE "+w+") LIMIT 1", a.Values()...).Scan(&other)
	if store.NotFound(err) {
		return nil
	}
	if err == nil {
		err = fault.New(fault.Invalid, fmt.Sprintf("'%s' cannot be written: '%s' is there, and a path is either a file or a folder.", at.path, other), "Choose another name, or delete the other one first.").At("path")
	}
	return err
}

// artifactResource names the file for policy, with the run it belongs to; the run or model must exist in the project.
func (s *Service) artifactResource(ctx context.Context, project string, at place) (policy.Resource, error) {
	kind, owner, _ := strings.Cut(at.root, "/")
	res := policy.Resource{Kind: "Artifact", ID: strings.TrimPrefix(at.root+"/"+at.path, "/"), Project: project}
	switch kind {
	case "runs":
		r, err := s.RunInfo(ctx, project, owner)
		if err != nil {
			return res, err
		}
		res.Attrs = map[string]string{"run": r.ID, "parent": r.Parent}
	case "models":
		m, err := s.Model(ctx, project, owner, true)
		if err != nil {
			return res, err
		}
		of, err := s.modelResource(ctx, m)
		if err != nil {
			return res, err
		}
		res.Attrs = of.Attrs
	default:
		// Nobody's folder: a run's token has no business there.
		res.Attrs = map[string]string{"run": "none"}
	}
	return res, nil
}

// OpenArtifact opens the file at a path of the proxy for reading at random. Close it.
func (s *Service) OpenArtifact(ctx context.Context, project, path string) (*blob.Object, error) {
	at, err := placeOf(path)
	if err != nil {
		return nil, err
	}
	var digest string
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		return q.QueryRow(ctx, `SELECT digest FROM artifact_files WHERE project = $1 AND root = $2 AND path = $3`, project, at.root, at.path).Scan(&digest)
	})
	if store.NotFound(err) {
		return nil, notFound("No such artifact: '%s'", path)
	}
	if err != nil {
		return nil, err
	}
	return s.blobs.Open(ctx, project, digest)
}

// ListArtifacts gives the files and folders directly in a folder of the proxy, by name; none when it does not exist.
// Paths in the answer are relative to that folder. The root of the proxy is "".
func (s *Service) ListArtifacts(ctx context.Context, project, path string) ([]Artifact, error) {
	at := place{}
	if path != "" {
		p, err := SafePath(path)
		if err != nil {
			return nil, err
		}
		at = locate(p)
	}
	return s.list(ctx, project, at)
}

// ListRunArtifacts lists a folder ("" for the top) of a run; ListModelArtifacts of a logged model.
func (s *Service) ListRunArtifacts(ctx context.Context, project, runID, path string) (RunInfo, []Artifact, error) {
	r, err := s.RunInfo(ctx, project, runID)
	if err != nil {
		return r, nil, err
	}
	list, err := s.listIn(ctx, project, "runs/"+r.ID, r.ArtifactURI, path)
	return r, list, err
}

// ListModelArtifacts lists a folder ("" for the top) of a logged model.
func (s *Service) ListModelArtifacts(ctx context.Context, project, modelID, path string) (LoggedModel, []Artifact, error) {
	m, err := s.Model(ctx, project, modelID, false)
	if err != nil {
		return m, nil, err
	}
	list, err := s.listIn(ctx, project, "models/"+m.ID, m.ArtifactURI, path)
	return m, list, err
}

func (s *Service) listIn(ctx context.Context, project, root, uri, path string) ([]Artifact, error) {
	if !strings.HasPrefix(uri, "mlflow-artifacts:") {
		return nil, fault.New(fault.Unsupported, fmt.Sprintf("The artifacts lie at '%s', which the client reads by itself.", uri), "List them with the client, or log with an experiment whose artifacts falaj keeps.")
	}
	if path != "" {
		p, err := SafePath(path)
		if err != nil {
			return nil, err
		}
		path = p
	}
	return s.list(ctx, project, place{root, path})
}

func (s *Service) list(ctx context.Context, project string, at place) ([]Artifact, error) {
	all, err := s.files(ctx, project, at)
	if err != nil {
		return nil, err
	}
	var out []Artifact
	folders := map[string]bool{} // "x-1" sorts between the folder "x" and its files, so one look back is not enough
	for _, f := range all {
		name, _, deeper := strings.Cut(f.Path, "/")
		switch {
		case !deeper:
			out = append(out, f)
		case !folders[name]:
			folders[name] = true
			out = append(out, Artifact{Path: name, Folder: true})
		}
	}
	slices.SortFunc(out, func(a, b Artifact) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// Files gives all files below a folder of the proxy, by path relative to it: what a release lists.
func (s *Service) Files(ctx context.Context, project, path string) ([]Artifact, error) {
	p, err := SafePath(path)
	if err != nil {
		return nil, err
	}
	return s.files(ctx, project, locate(p))
}

// files reads all files below a place, in byte order; paths are relative to it.
func (s *Service) files(ctx context.Context, project string, at place) ([]Artifact, error) {
	prefix := ""
	var a filter.Args
	w := "project = " + a.Add(project) + " AND root = " + a.Add(at.root)
	if at.path != "" {
		prefix = at.path + "/"
		w += " AND path > " + a.Add(prefix) + " AND path < " + a.Add(at.path+"0")
	}
	var out []Artifact
	err := s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		rows, err := q.Query(ctx, "SELECT path, digest, size FROM artifact_files WHERE "+w+" ORDER BY path", a.Values()...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var f Artifact
			if err := rows.Scan(&f.Path, &f.Digest, &f.Size); err != nil {
				return err
			}
			f.Path = strings.TrimPrefix(f.Path, prefix)
			out = append(out, f)
		}
		return rows.Err()
	})
	return out, err
}

// DeleteArtifacts removes a file, or a folder with all below it. Bytes that nothing names any more are swept later.
func (s *Service) DeleteArtifacts(ctx context.Context, project, path string) error {
	p, err := SafePath(path)
	if err != nil {
		return err
	}
	at := locate(p)
	res, err := s.artifactResource(ctx, project, at)
	if err != nil {
		return err
	}
	return s.store.Change(ctx, "artifact.delete", res, func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		var err error
		if at.path == "" {
			_, err = tx.Exec(ctx, `DELETE FROM artifact_files WHERE project = $1 AND root = $2`, project, at.root)
		} else {
			_, err = tx.Exec(ctx, `DELETE FROM artifact_files WHERE project = $1 AND root = $2 AND (path = $3 OR path > $4 AND path < $5)`, project, at.root, at.path, at.path+"/", at.path+"0")
		}
		return event.Draft{}, err
	})
}

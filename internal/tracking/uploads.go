package tracking

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"time"

	"falaj/internal/blob"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/id"
	"falaj/internal/store"
)

// MaxParts is how many parts an upload may have.
const MaxParts = 10000

// Upload is an upload in parts under way. Token lets send parts for a day without other credentials, because MLflow's client
// sends parts with only what the answer gave it; the database keeps its digest.
type Upload struct {
	ID    string
	Token string
}

const uploadLife = 24 * time.Hour

// CreateUpload begins an upload in parts to a path of the proxy. It changes nothing that others see.
func (s *Service) CreateUpload(ctx context.Context, project, path string) (Upload, error) {
	at, err := placeOf(path)
	if err != nil {
		return Upload{}, err
	}
	res, err := s.artifactResource(ctx, project, at)
	if err != nil {
		return Upload{}, err
	}
	if err := s.permit(ctx, "artifact.write", res); err != nil {
		return Upload{}, err
	}
	var secret [32]byte
	rand.Read(secret[:])
	u := Upload{ID: id.NewHex(), Token: base64.RawURLEncoding.EncodeToString(secret[:])}
	now := time.Now()
	err = s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM artifact_parts WHERE upload IN (SELECT id FROM artifact_uploads WHERE created_at < $1)`, store.Micros(now.Add(-uploadLife))); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM artifact_uploads WHERE created_at < $1`, store.Micros(now.Add(-uploadLife))); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO artifact_uploads (id, project, root, path, token_digest, created_at) VALUES ($1, $2, $3, $4, $5, $6)`,
			u.ID, project, at.root, at.path, tokenDigest(u.Token), store.Micros(now))
		return err
	})
	return u, err
}

func tokenDigest(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

func (s *Service) upload(ctx context.Context, project, uploadID string) (at place, digest string, err error) {
	var created int64
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		return q.QueryRow(ctx, `SELECT root, path, token_digest, created_at FROM artifact_uploads WHERE id = $1 AND project = $2`, uploadID, project).Scan(&at.root, &at.path, &digest, &created)
	})
	if store.NotFound(err) || err == nil && time.Since(store.Time(created)) > uploadLife {
		return at, "", notFound("There is no multipart upload '%s'.", uploadID)
	}
	return at, digest, err
}

// PutPart stores part number part (from 1) and returns its digest. The token stands for the right to write.
func (s *Service) PutPart(ctx context.Context, project, uploadID, token string, part int, r io.Reader) (blob.Ref, error) {
	_, digest, err := s.upload(ctx, project, uploadID)
	if err != nil {
		return blob.Ref{}, err
	}
	if subtle.ConstantTimeCompare([]byte(digest), []byte(tokenDigest(token))) != 1 {
		return blob.Ref{}, fault.New(fault.Unauthenticated, "The upload token does not belong to this upload.", "Begin the upload again.")
	}
	if part < 1 || part > MaxParts {
		return blob.Ref{}, invalid("Invalid part number %d: parts count from 1 to %d.", part, MaxParts).At("part")
	}
	ref, err := s.blobs.Put(ctx, project, r)
	if err != nil {
		return blob.Ref{}, err
	}
	err = s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO artifact_parts (upload, part, digest, size) VALUES ($1, $2, $3, $4) ON CONFLICT (upload, part) DO UPDATE SET digest = excluded.digest, size = excluded.size`,
			uploadID, part, ref.Digest, ref.Size)
		return err
	})
	return ref, err
}

// CompleteUpload joins the named parts, in order, into the file. Memory stays constant.
func (s *Service) CompleteUpload(ctx context.Context, project, uploadID string, parts []int) (Artifact, error) {
	at, _, err := s.upload(ctx, project, uploadID)
	if err != nil {
		return Artifact{}, err
	}
	res, err := s.artifactResource(ctx, project, at)
	if err != nil {
		return Artifact{}, err
	}
	have, err := s.parts(ctx, uploadID)
	if err != nil {
		return Artifact{}, err
	}
	if len(parts) == 0 || len(parts) > MaxParts || !slices.IsSorted(parts) {
		return Artifact{}, invalid("The parts of a multipart upload must be named in ascending order.").At("parts")
	}
	var refs []blob.Ref
	for _, p := range slices.Compact(slices.Clone(parts)) {
		ref, ok := have[p]
		if !ok {
			return Artifact{}, invalid("Part %d of the multipart upload was not received.", p).At("parts")
		}
		refs = append(refs, ref)
	}
	all := &joined{ctx: ctx, s: s, project: project, refs: refs}
	defer all.close()
	ref, err := s.blobs.Put(ctx, project, all)
	if err != nil {
		return Artifact{}, err
	}
	a, err := s.keepArtifact(ctx, project, at, res, ref)
	if err != nil {
		return a, err
	}
	return a, s.forgetUpload(ctx, uploadID)
}

// AbortUpload forgets an upload; that it is gone already is no error.
func (s *Service) AbortUpload(ctx context.Context, project, uploadID string) error {
	_, _, err := s.upload(ctx, project, uploadID)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.forgetUpload(ctx, uploadID)
}

func (s *Service) parts(ctx context.Context, uploadID string) (map[int]blob.Ref, error) {
	out := map[int]blob.Ref{}
	err := s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		rows, err := q.Query(ctx, `SELECT part, digest, size FROM artifact_parts WHERE upload = $1`, uploadID)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var n int
			var r blob.Ref
			if err := rows.Scan(&n, &r.Digest, &r.Size); err != nil {
				return err
			}
			out[n] = r
		}
		return rows.Err()
	})
	return out, err
}

// forgetUpload drops the rows.
// BUG(tracking): bytes of parts stay in blobs until a sweep knows the references of every stage; content is shared by digest,
// so no stage may discard by itself.
func (s *Service) forgetUpload(ctx context.Context, uploadID string) error {
	return s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM artifact_parts WHERE upload = $1`, uploadID); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `DELETE FROM artifact_uploads WHERE id = $1`, uploadID)
		return err
	})
}

// joined reads parts one after the other.
type joined struct {
	ctx     context.Context
	s       *Service
	project string
	refs    []blob.Ref
	open    *blob.Object
}

func (j *joined) Read(p []byte) (int, error) {
	for {
		if j.open == nil {
			if len(j.refs) == 0 {
				return 0, io.EOF
			}
			o, err := j.s.blobs.Open(j.ctx, j.project, j.refs[0].Digest)
			if err != nil {
				return 0, fmt.Errorf("part %s: %w", j.refs[0].Digest, err)
			}
			j.open, j.refs = o, j.refs[1:]
		}
		n, err := j.open.Read(p)
		if err == io.EOF {
			j.open.Close()
			j.open, err = nil, nil
			if n == 0 {
				continue
			}
		}
		return n, err
	}
}

func (j *joined) close() {
	if j.open != nil {
		j.open.Close()
	}
}

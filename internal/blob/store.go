package blob

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
	"falaj/internal/store"
)

// Store is the content-addressed store of all projects. It is safe for concurrent use.
//
// Order of a put: bytes durable in the driver, then the row. A crash between the two leaves a file without a row,
// which Sweep removes; a row without its file cannot come from a crash.
type Store struct {
	db     *store.Store
	keys   *seal.Keys
	driver Driver

	mu    sync.Mutex
	boxes map[string]*seal.Box // guarded by mu; one per project, opened once

	holds atomic.Int64 // how many hold the files (Hold)
}

// New wires a store. The caller keeps ownership of all three.
func New(s *store.Store, keys *seal.Keys, d Driver) *Store {
	return &Store{db: s, keys: keys, driver: d, boxes: map[string]*seal.Box{}}
}

// Digest is the spelling of a SHA-256 in falaj: "sha256:" and 64 hex digits.
func Digest(sum [sha256.Size]byte) string { return "sha256:" + hex.EncodeToString(sum[:]) }

// ValidDigest says whether d is spelled like a digest.
func ValidDigest(d string) bool {
	tail, ok := strings.CutPrefix(d, "sha256:")
	raw, err := hex.DecodeString(tail)
	return ok && err == nil && len(raw) == sha256.Size && strings.ToLower(d) == d
}

// Box returns the project's box, making its data key on first use. Other stages seal small values with it.
// Inside a store.Change a new key belongs to that transaction.
func (s *Store) Box(ctx context.Context, project string) (*seal.Box, error) {
	if project == "" {
		return nil, fault.New(fault.Invalid, "Bytes belong to a project, and none was named.", "Name the project.").At("project")
	}
	s.mu.Lock()
	box := s.boxes[project]
	s.mu.Unlock()
	if box != nil {
		return box, nil
	}
	wrapped, settled, err := s.projectKey(ctx, project)
	if err != nil {
		return nil, err
	}
	box, err = s.keys.Box(wrapped, projectAAD(project))
	if err != nil {
		return nil, unopened(err, project)
	}
	if settled { // a key whose transaction may still fail must not outlive it here
		s.mu.Lock()
		s.boxes[project] = box
		s.mu.Unlock()
	}
	return box, nil
}

func unopened(err error, project string) error {
	return fault.Wrap(err, fault.Internal, fmt.Sprintf("The key of project %s does not open with this keys folder.", project),
		"Start falaj with the keys folder that belongs to this data folder (--keys), or restore it from a backup.")
}

func projectAAD(project string) string { return "project|" + project }

func objectAAD(project, digest string) []byte { return []byte(project + "|" + digest) }

// Put stores everything r gives, sealed, and returns its address. The same content in the same project is kept once.
// At most a few 64 KiB packages are in memory. On any error nothing is stored.
func (s *Store) Put(ctx context.Context, project string, r io.Reader) (Ref, error) {
	return s.put(ctx, project, "", r)
}

// PutExpect is Put for content whose digest the caller knows; other content is refused (fault.Invalid) and leaves nothing.
func (s *Store) PutExpect(ctx context.Context, project, digest string, r io.Reader) (Ref, error) {
	if !ValidDigest(digest) {
		return Ref{}, fault.New(fault.Invalid, fmt.Sprintf("'%.80s' is not a digest.", digest), "Digests look like sha256: and 64 hex digits.").At("digest")
	}
	return s.put(ctx, project, digest, r)
}

func (s *Store) put(ctx context.Context, project, expect string, r io.Reader) (Ref, error) {
	box, err := s.Box(ctx, project)
	if err != nil {
		return Ref{}, err
	}
	var name [16]byte
	rand.Read(name[:])
	fresh := row{project: project, stored: hex.EncodeToString(name[:]), created: time.Now()}
	key := box.NewObjectKey()
	err = s.driver.Upload(ctx, fresh.stored, func(w io.Writer) (err error) {
		fresh.digest, fresh.size, err = sealInto(ctx, w, key, r)
		if err == nil && expect != "" && fresh.digest != expect {
			return fault.New(fault.Invalid, fmt.Sprintf("The content has digest %s and not %s.", fresh.digest, expect),
				"Send the bytes that the digest was computed from.").At("digest")
		}
		return err
	})
	if err != nil {
		return Ref{}, err
	}
	if fresh.wrapped, err = box.WrapObjectKey(key, objectAAD(project, fresh.digest)); err == nil {
		err = s.record(ctx, fresh)
	}
	if err != nil {
		s.drop(ctx, fresh.stored)
		return Ref{}, err
	}
	return Ref{Digest: fresh.digest, Size: fresh.size}, nil
}

// sealInto streams r through the digest and the cipher into w.
func sealInto(ctx context.Context, w io.Writer, key seal.ObjectKey, r io.Reader) (digest string, size int64, err error) {
	enc, err := seal.EncryptWriter(w, key)
	if err != nil {
		return "", 0, err
	}
	sum := sha256.New()
	// struct{} hides WriterTo and ReaderFrom: they could hand over the content in one piece.
	size, err = io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(sum, enc)}, struct{ io.Reader }{Watched(ctx, r)}, make([]byte, 128<<10))
	if err != nil {
		return "", 0, err
	}
	if err := enc.Close(); err != nil {
		return "", 0, err
	}
	return Digest([sha256.Size]byte(sum.Sum(nil))), size, nil
}

// Watched makes a long copy stop when ctx ends.
func Watched(ctx context.Context, r io.Reader) io.Reader { return watch{ctx, r} }

type watch struct {
	ctx context.Context
	r   io.Reader
}

func (w watch) Read(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.r.Read(p)
}

// record writes the row. When the content is already there, the new copy is dropped, unless the old file is lost or
// cut: then the new one takes its place, so that putting content again heals it.
func (s *Store) record(ctx context.Context, fresh row) error {
	for {
		old, added, err := s.insert(ctx, fresh)
		if err != nil || added {
			return err
		}
		if f, err := s.openFile(ctx, old); err == nil {
			f.Close()
			s.drop(ctx, fresh.stored)
			return nil
		} else if !errors.Is(err, seal.ErrDamaged) {
			return err
		}
		replaced, err := s.replace(ctx, old.stored, fresh)
		if err != nil {
			return err
		}
		if replaced {
			s.forget(ctx, old.stored)
			return nil
		}
		// Somebody else replaced or discarded it meanwhile: look again.
	}
}

// drop removes a file that no row names. Failing is harmless, Sweep comes later; cancellation must not stop it.
func (s *Store) drop(ctx context.Context, stored string) {
	_ = s.driver.Discard(context.WithoutCancel(ctx), stored)
}

// openFile opens the stored file of a row and checks that it has the size that the row promises.
func (s *Store) openFile(ctx context.Context, r row) (File, error) {
	f, err := s.driver.Open(ctx, r.stored)
	if fault.Is(err, fault.NotFound) {
		return nil, r.damaged("its file is missing")
	}
	if err != nil {
		return nil, err
	}
	if size, err := seal.PlainSize(f.Size()); err != nil || size != r.size {
		f.Close()
		return nil, r.damaged(fmt.Sprintf("its file of %d bytes does not hold %d plain bytes", f.Size(), r.size))
	}
	return f, nil
}

// damaged says which blob is damaged and where; errors.Is finds seal.ErrDamaged in it.
func (r row) damaged(problem string) error {
	return fault.Wrap(fmt.Errorf("blob file %s: %w", r.stored, seal.ErrDamaged), fault.Internal,
		fmt.Sprintf("Blob %s of project %s is damaged: %s (stored as %s).", r.digest, r.project, problem, r.stored),
		"Restore this file from a backup, or put the same content again: it heals by that.")
}

// Stat says what is stored; fault.NotFound when nothing is.
func (s *Store) Stat(ctx context.Context, project, digest string) (Info, error) {
	r, err := s.row(ctx, project, digest)
	if err != nil {
		return Info{}, err
	}
	return Info{Ref: Ref{Digest: r.digest, Size: r.size}, Created: r.created}, nil
}

// Discard forgets content: the row goes at once, the file soon. That it is not there is no error.
// Who refers to the digest elsewhere is the caller's to know.
func (s *Store) Discard(ctx context.Context, project, digest string) error {
	stored, err := s.remove(ctx, project, digest)
	if err == nil && stored != "" {
		s.forget(ctx, stored)
	}
	return err
}

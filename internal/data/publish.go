package data

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/ledger"
	"falaj/internal/store"
)

// publish commits the snapshot and then the version's row, which alone makes it visible. prev is the latest version
// that v was made on top of, base the one whose table it goes on with, nil for a table of its own.
func (s *Service) publish(ctx context.Context, v Version, prev, base *Version, key string, also func(context.Context, *store.Tx) error) (*Version, error) {
	digests := make([]string, len(v.Files))
	for i, f := range v.Files {
		digests[i] = f.Digest
	}
	slices.Sort(digests)
	v.Digest = "sha256:" + ledger.Digest(struct {
		Columns []Column `json:"columns"`
		Files   []string `json:"files"`
	}{v.Columns, digests})
	if prev != nil {
		v.N, v.Previous = prev.N+1, prev.N
	}
	c := Commit{Project: v.Project, Columns: v.Columns, Files: v.Files, Content: v.Digest}
	switch {
	case base != nil && slices.Equal(base.Columns, v.Columns):
		v.Table, c.Parent = base.Table, base.Snapshot
	case v.N > 1: // other columns or another generation: a table of its own, the old one keeps its snapshots
		v.Table = fmt.Sprintf("%s_v%d", v.Dataset, v.N)
	}
	c.Table = v.Table
	if base != nil && c.Parent != 0 && base.Digest == v.Digest {
		v.Snapshot, v.TableID, v.Location = base.Snapshot, base.TableID, base.Location // the same content is the same snapshot
	} else {
		snap, err := s.tables.Commit(ctx, c)
		if err != nil {
			return nil, err
		}
		v.Snapshot, v.TableID, v.Location = snap.ID, snap.Table, snap.Location
	}
	if key == "" {
		key = v.ID
	}
	box, err := s.blobs.Box(ctx, v.Project)
	if err != nil {
		return nil, err
	}
	err = s.db.Change(ctx, "dataset.version.create", resource(v.Project, v.Dataset), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		now, err := latest(ctx, tx, box, v.Project, v.Dataset)
		if err != nil {
			return event.Draft{}, err
		}
		if (now == nil) != (prev == nil) || (now != nil && now.N != prev.N) {
			return event.Draft{}, fault.New(fault.Conflict, fmt.Sprintf("Another version of dataset %s was made meanwhile.", v.Dataset), "Run it again: it builds on the new one.")
		}
		if err := insertVersion(ctx, tx, box, v, key); err != nil {
			return event.Draft{}, err
		}
		if also != nil {
			if err := also(ctx, tx); err != nil {
				return event.Draft{}, err
			}
		}
		tx.After(map[string]any{"id": v.ID, "n": v.N, "digest": v.Digest, "snapshot": v.Snapshot, "definition": v.Definition, "parents": v.Parents})
		return event.Draft{Type: "dataset.version.created", Subject: fmt.Sprintf("%s/%d", v.Dataset, v.N), Data: map[string]any{
			"id": v.ID, "dataset": v.Dataset, "n": v.N, "digest": v.Digest, "rows": v.Rows, "put_aside": v.PutAside, "generation": v.Generation, "parents": v.Parents}}, nil
	})
	if err != nil {
		return nil, err
	}
	return &v, nil
}

// keep puts a local file into the blob store and says so before, so that the sweep knows what never arrived anywhere.
func (s *Service) keep(ctx context.Context, project, path string) (File, error) {
	f, err := os.Open(path)
	if err != nil {
		return File{}, fault.Wrap(err, fault.Internal, "A file that the data engine wrote is not there.", "Run it again; if it happens again, report it.")
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return File{}, err
	}
	digest := "sha256:" + hex.EncodeToString(h.Sum(nil))
	if err := s.db.Write(ctx, func(ctx context.Context, tx *store.Tx) error { return putPending(ctx, tx, project, digest, time.Now()) }); err != nil {
		return File{}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return File{}, err
	}
	ref, err := s.blobs.PutExpect(ctx, project, digest, f)
	return File{Digest: ref.Digest, Size: ref.Size}, err
}

// layOut writes a blob in clear into a room.
func (s *Service) layOut(ctx context.Context, project, digest string, room *Room, name string) (string, error) {
	in, err := s.blobs.Open(ctx, project, digest)
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := room.Create(name)
	if err != nil {
		return "", fault.Wrap(err, fault.Unavailable, "The scratch folder cannot be written.", "See `falaj doctor`: it may be full.")
	}
	_, err = io.Copy(out, in)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", err
	}
	return room.Path(name), nil
}

// removeAll makes space in a room; the room itself is wiped in any case.
func removeAll(paths ...string) {
	for _, p := range paths {
		if p != "" {
			_ = os.Remove(p)
		}
	}
}

// Sweep removes data files that were put on the way to a version or quarantine which never came, older than grace (an
// hour is plenty), and files of the table format that no table names. It returns how many.
func (s *Service) Sweep(ctx context.Context, grace time.Duration) (removed int, err error) {
	before := time.Now().Add(-grace)
	var old [][2]string
	if err := s.db.View(ctx, func(ctx context.Context, q store.Querier) error {
		old, err = stale(ctx, q, before, 1000)
		return err
	}); err != nil {
		return 0, err
	}
	for _, p := range old {
		project, digest := p[0], p[1]
		orphan := false
		if err := s.db.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
			dropped, err := dropPending(ctx, tx, project, digest, before)
			if err != nil || !dropped {
				return err
			}
			named, err := isNamed(ctx, tx, project, digest)
			orphan = !named
			return err
		}); err != nil {
			return removed, err
		}
		if !orphan {
			continue
		}
		if err := s.blobs.Discard(ctx, project, digest); err != nil && !fault.Is(err, fault.NotFound) {
			return removed, err
		}
		removed++
	}
	n, err := s.sweepTables(ctx, before)
	return removed + n, err
}

func (s *Service) sweepTables(ctx context.Context, before time.Time) (removed int, err error) {
	var files []warehouseRow
	if err := s.db.View(ctx, func(ctx context.Context, q store.Querier) error {
		files, err = oldWarehouseFiles(ctx, q, before)
		return err
	}); err != nil {
		return 0, err
	}
	w := NewWarehouse(s.db, s.blobs)
	var key string
	live := map[string]bool{}
	for _, f := range files {
		if k := f.project + "/" + f.table(); k != key {
			paths, err := s.tables.Live(ctx, f.project, f.table())
			if err != nil {
				return removed, err
			}
			key, live = k, map[string]bool{}
			for _, p := range paths {
				live[p] = true
			}
		}
		if live[f.path] {
			continue
		}
		if err := w.Remove(ctx, f.project, f.path); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, nil
}

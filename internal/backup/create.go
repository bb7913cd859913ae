package backup

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"falaj/internal/blob"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/id"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/seal"
	"falaj/internal/store"
)

// Config of a service.
type Config struct {
	Store *store.Store
	Blobs *blob.Store
	Keys  *seal.Keys
	Data  string // the data directory
	Work  string // a folder for copies; emptied by New, for a killed backup leaves clear copies there
	// Copy copies databases in use, all as of one instant, and calls cut at that instant.
	Copy func(ctx context.Context, pairs [][2]string, cut func() error) error
	// Open opens a copy for reading and refuses a damaged one.
	Open       func(ctx context.Context, path string) (*sql.DB, error)
	Version    string
	DataFormat int
	Region     string // of the installation
}

// Service makes backups of the installation that it belongs to, one at a time.
type Service struct {
	cfg Config

	running sync.Mutex // held while a backup is made
}

// New takes the working folder and clears it.
func New(cfg Config) (*Service, error) {
	err := os.RemoveAll(cfg.Work)
	if err == nil {
		err = os.MkdirAll(cfg.Work, 0o700)
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "The working folder of backups cannot be used.", "Check owner and mode of the data directory.")
	}
	return &Service{cfg: cfg}, nil
}

// Job is one backup: the databases are copied and sealed, and the blobs they name are held until Close.
type Job struct {
	s        *Service
	work     string
	manifest Manifest
	keys     []byte
	sealed   []file // databases and spool
	db       *sql.DB
	release  func()
}

// file is a sealed part that waits on the disk.
type file struct {
	name, path string
	size       int64
}

// Prepare copies all databases as of this instant. keys, a keyset under a passphrase (seal.Wrap), is put into the file; nil
// leaves it out. The caller has been authorized for backup.create. Close the job.
func (s *Service) Prepare(ctx context.Context, keys []byte) (_ *Job, err error) {
	if s.cfg.Store.Name() != "sqlite" {
		return nil, fault.New(fault.Unsupported, "The metadata is in PostgreSQL, and backing that up is not available in this version.",
			"Use pg_dump for the database, then copy the data directory and the keys folder.")
	}
	if keys != nil {
		which, err := seal.EnvelopeID(keys)
		if err != nil {
			return nil, err
		}
		if which != s.cfg.Keys.ID() || len(keys) > MaxKeys {
			return nil, fault.New(fault.Invalid, "These keys are not this server's: they would not open its backup.", "Name the server's keys folder with --keys.").At("keys")
		}
	}
	if !s.running.TryLock() {
		return nil, fault.New(fault.Conflict, "Another backup is being made.", "Wait until it is done, then try again.")
	}
	j := &Job{s: s, keys: keys, release: s.cfg.Blobs.Hold()}
	defer func() {
		if err != nil {
			j.Close()
		}
	}()
	if j.work, err = os.MkdirTemp(s.cfg.Work, "backup-"); err != nil {
		return nil, full(err)
	}
	j.manifest = Manifest{Format: formatVersion, ID: id.New("bkp"), Falaj: s.cfg.Version, DataFormat: s.cfg.DataFormat, Region: s.cfg.Region, Keyset: s.cfg.Keys.ID(), WithKeys: keys != nil}
	return j, j.prepare(ctx)
}

func full(err error) error {
	var f *fault.E
	if err == nil || errors.As(err, &f) || errors.Is(err, context.Canceled) {
		return err
	}
	return fault.Wrap(err, fault.Unavailable, "The copies for the backup could not be written.", "A backup needs free space for the databases beside them: free some and try again.")
}

func (j *Job) prepare(ctx context.Context) error {
	spools, err := j.copy(ctx)
	defer func() {
		for _, f := range spools {
			f.Close()
		}
	}()
	if err != nil {
		return full(err)
	}
	for _, name := range Databases() {
		path := filepath.Join(j.work, name)
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return full(err)
		}
		err = errors.Join(j.seal(ctx, databaseDir+name, f), f.Close())
		if err == nil && name != mainDatabase {
			err = os.Remove(path)
		}
		if err != nil {
			return full(err)
		}
	}
	for _, f := range spools {
		if err := j.seal(ctx, spoolDir+"/"+filepath.Base(f.Name()), io.NewSectionReader(f, 0, f.size)); err != nil {
			return full(err)
		}
	}
	return j.facts(ctx)
}

// spool is an open spool file with the size that it had at the instant of the copy.
type spool struct {
	*os.File
	size int64
}

// copy copies the databases. The spool files are opened at the same instant: what is sealed into segments and removed
// later stays readable, and what is written later stands behind the size.
func (j *Job) copy(ctx context.Context) (spools []spool, err error) {
	var pairs [][2]string
	for _, name := range Databases() {
		from := filepath.Join(j.s.cfg.Data, name)
		if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		pairs = append(pairs, [2]string{from, filepath.Join(j.work, name)})
	}
	err = j.s.cfg.Copy(ctx, pairs, func() error {
		for _, f := range spools { // an earlier try
			f.Close()
		}
		var err error
		spools, err = j.s.spools()
		j.manifest.Created = micros(time.Now())
		return err
	})
	return spools, err
}

func (s *Service) spools() (out []spool, err error) {
	dir := filepath.Join(s.cfg.Data, spoolDir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !spoolForm.MatchString(spoolDir+"/"+e.Name()) {
			continue
		}
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // sealed into a segment before this instant, and removed just now
		}
		if err != nil {
			return out, err
		}
		st, err := f.Stat()
		if err != nil {
			return out, errors.Join(err, f.Close())
		}
		out = append(out, spool{f, st.Size()})
	}
	return out, err
}

func (j *Job) seal(ctx context.Context, name string, r io.Reader) error {
	path := filepath.Join(j.work, "sealed-"+filepath.Base(name))
	size, err := sealFile(path, j.s.cfg.Keys.BackupKey(j.manifest.ID, name), blob.Watched(ctx, r))
	j.sealed = append(j.sealed, file{name, path, size})
	return err
}

// facts reads from the copy what the manifest says.
func (j *Job) facts(ctx context.Context) (err error) {
	if j.db, err = j.s.cfg.Open(ctx, filepath.Join(j.work, mainDatabase)); err != nil {
		return err
	}
	f, err := store.FactsOf(ctx, j.db)
	if err != nil {
		return err
	}
	m := &j.manifest
	m.Schema, m.Ledger, m.Bytes = f.Schema, Head{f.Seq, f.Hash}, int64(len(j.keys))
	for _, f := range j.sealed {
		m.Bytes += f.size
	}
	return blob.Named(ctx, j.db, func(_ string, size int64) error {
		m.Blobs++
		m.Bytes += size
		return nil
	})
}

// Manifest is what the backup will say of itself.
func (j *Job) Manifest() Manifest { return j.manifest }

// Close drops the copies and lets blobs go again.
func (j *Job) Close() error {
	var errs []error
	if j.db != nil {
		errs = append(errs, j.db.Close())
	}
	if j.work != "" {
		errs = append(errs, os.RemoveAll(j.work))
	}
	j.release()
	j.s.running.Unlock()
	return errors.Join(errs...)
}

// Stream writes the file. Before its end is written the ledger records it: a backup that is whole is recorded. When it
// cannot be finished the file says why instead of its end, and is refused by every reader.
func (j *Job) Stream(ctx context.Context, w io.Writer) error {
	list, err := os.OpenFile(filepath.Join(j.work, partsName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return full(err)
	}
	defer list.Close()
	p := newPacker(w, list)
	if err := j.stream(ctx, p); err != nil {
		f := fault.From(err)
		b, e := json.Marshal(map[string]string{"kind": string(f.Kind), "error": f.Public, "next": f.Next})
		if e == nil && p.tar.Flush() == nil { // between two parts the reason can still be said
			e = p.raw(failedName, b)
		}
		_ = errors.Join(e, p.tar.Flush())
		return err
	}
	return nil
}

func (j *Job) stream(ctx context.Context, p *packer) error {
	m, err := json.MarshalIndent(j.manifest, "", " ")
	if err != nil {
		return err
	}
	if err := p.part(ctx, manifestName, int64(len(m)), bytes.NewReader(m)); err != nil {
		return err
	}
	if j.keys != nil {
		if err := p.part(ctx, keysName, int64(len(j.keys)), bytes.NewReader(j.keys)); err != nil {
			return err
		}
	}
	for _, f := range j.sealed {
		if err := j.file(ctx, p, f); err != nil {
			return err
		}
	}
	err = blob.Named(ctx, j.db, func(stored string, size int64) error { return j.blob(ctx, p, stored, size) })
	if err != nil {
		return err
	}
	mac := func(b []byte) []byte { return j.s.cfg.Keys.MAC(macPurpose, b) }
	return p.finish(ctx, mac, func(e end) error { return j.record(ctx, e) })
}

func (j *Job) file(ctx context.Context, p *packer, f file) error {
	r, err := os.Open(f.path)
	if err != nil {
		return full(err)
	}
	return errors.Join(p.part(ctx, f.name, f.size, r), r.Close())
}

// blob writes a stored file as it is. Its bytes are compared with their digest by `falaj audit verify`, not here.
func (j *Job) blob(ctx context.Context, p *packer, stored string, size int64) error {
	f, err := j.s.cfg.Blobs.OpenStored(ctx, stored)
	if err == nil && f.Size() != size {
		err = errors.Join(errors.New("its size differs"), f.Close())
	}
	if err != nil {
		return fault.Wrap(err, fault.Refused, "Stored file "+stored+" is lost or cut, so a backup would not be whole.",
			"`falaj audit verify` names the content; put it again, or restore it from an earlier backup, then back up again.")
	}
	return errors.Join(p.part(ctx, blobPath(stored), size, io.NewSectionReader(f, 0, size)), f.Close())
}

// blobPath is where the driver blob/dir keeps a stored file, below the data directory.
func blobPath(stored string) string { return blobDir + "/" + stored[:2] + "/" + stored }

func (j *Job) record(ctx context.Context, e end) error {
	m := j.manifest
	return j.s.cfg.Store.Change(ctx, "backup.create", policy.Resource{Kind: "Backup", ID: m.ID}, func(_ context.Context, tx *store.Tx) (event.Draft, error) {
		tx.After(e)
		return event.Draft{Type: "backup.created", Subject: m.ID, Data: map[string]any{"parts": e.Count, "parts_sha256": e.Parts, "bytes": m.Bytes, "ledger_seq": m.Ledger.Seq, "with_keys": m.WithKeys}}, nil
	})
}

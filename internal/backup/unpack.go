package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"falaj/internal/blob"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
	"falaj/internal/store"
)

// unpacker reads an archive once, in constant memory. Every byte of it is covered: parts by their digests, the list by its
// own and the keyset's MAC, headers, padding and end by the sum.
type unpacker struct {
	tools   Tools
	scratch string // a folder of this run; what is restored grows in restoredDir below it
	// keys answers with the keyset once the manifest and the envelope are known; nil when there is none to open with.
	keys func(m Manifest, envelope []byte) (*seal.Keys, error)
	// into makes the file that a part is restored to; nil where nothing is restored.
	into func(name string) (io.WriteCloser, error)

	report   Report
	opened   *seal.Keys
	asked    bool // keys was asked
	envelope []byte
	list     *os.File // our own list of parts, to name what differs
	lines    *bufio.Writer
	parts    hash.Hash
	last     string // name of the newest part
	end      end
	named    func() (namedBlob, error, bool) // next row of the database's blobs
	stop     func()
	db       *sql.DB
}

type namedBlob struct {
	stored string
	size   int64
}

// stages of the archive: an entry may stand in its own stage or a later one, never an earlier.
const (
	stageManifest = iota
	stageKeys
	stageDatabases
	stageSpool
	stageBlobs
	stageParts
	stageEnd
	stageSum
)

func stageOf(name string) (int, bool) {
	switch {
	case name == manifestName:
		return stageManifest, true
	case name == keysName:
		return stageKeys, true
	case name == partsName:
		return stageParts, true
	case name == endName:
		return stageEnd, true
	case name == sumName:
		return stageSum, true
	case slices.Contains(Databases(), filepath.Base(name)) && name == databaseDir+filepath.Base(name):
		return stageDatabases, true
	case spoolForm.MatchString(name):
		return stageSpool, true
	}
	if m := blobForm.FindStringSubmatch(name); m != nil && m[2][:2] == m[1] {
		return stageBlobs, true
	}
	return 0, false
}

func (u *unpacker) run(ctx context.Context, r io.Reader) (_ Report, err error) {
	if u.list, err = os.OpenFile(filepath.Join(u.scratch, partsName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return u.report, full(err)
	}
	defer u.list.Close()
	defer u.close()
	u.parts = sha256.New()
	u.lines = bufio.NewWriter(io.MultiWriter(u.list, u.parts))
	in := &lag{r: blob.Watched(ctx, r), sum: sha256.New()}
	t := tar.NewReader(in)
	for stage := -1; ; {
		h, err := t.Next()
		if err != nil {
			return u.report, u.broken(ctx, err, in)
		}
		next, ok := stageOf(h.Name)
		switch {
		case h.Name == failedName && h.Typeflag == tar.TypeReg:
			return u.report, serverFailed(t)
		case !ok || h.Typeflag != tar.TypeReg || len(h.PAXRecords) > 0 || h.Size < 0:
			return u.report, damaged(nil, fmt.Sprintf("it holds '%.80s', which is no part of a backup", h.Name))
		case next < stage, next > stageManifest && stage < stageManifest, next == stage && (stage < stageDatabases || stage > stageBlobs), next == stage && !u.follows(stage, h.Name):
			return u.report, damaged(nil, h.Name+" stands at the wrong place")
		}
		stage = next
		if stage == stageSum {
			return u.report, u.sum(in)
		}
		if err := u.entry(ctx, stage, h, t); err != nil {
			return u.report, u.broken(ctx, err, in)
		}
	}
}

// follows says whether an entry comes after the newest one of its own stage: nothing stands twice.
func (u *unpacker) follows(stage int, name string) bool {
	if stage == stageDatabases {
		return slices.Index(Databases(), filepath.Base(name)) > slices.Index(Databases(), filepath.Base(u.last))
	}
	return name > u.last
}

// broken explains an error of reading.
func (u *unpacker) broken(ctx context.Context, err error, in *lag) error {
	var f *fault.E
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &f):
		return err
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return damaged(err, fmt.Sprintf("it is cut short after %d bytes", in.bytes))
	case errors.Is(err, tar.ErrHeader):
		return damaged(err, fmt.Sprintf("what follows %s (before byte %d) is no part of a backup", first(u.last, "its start"), in.bytes))
	}
	return fault.Wrap(err, fault.Unavailable, "The backup could not be read or written: "+err.Error()+".", "Check the disks and their free space, then try again.")
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// serverFailed is the reason that the server wrote instead of an end.
func serverFailed(r io.Reader) error {
	var f struct{ Kind, Error, Next string }
	if err := json.NewDecoder(io.LimitReader(r, maxText)).Decode(&f); err != nil || f.Error == "" {
		return damaged(err, "the server gave it up without a reason")
	}
	for _, k := range fault.Kinds() {
		if string(k) == f.Kind {
			return fault.New(k, f.Error, f.Next)
		}
	}
	return fault.New(fault.Internal, f.Error, f.Next)
}

func (u *unpacker) entry(ctx context.Context, stage int, h *tar.Header, r io.Reader) error {
	switch stage {
	case stageParts:
		return u.compare(h.Size, r)
	case stageEnd:
		return u.finish(ctx, h.Size, r)
	}
	sum := sha256.New()
	body := io.TeeReader(r, sum)
	if err := u.part(ctx, stage, h, body); err != nil {
		return err
	}
	if _, err := io.Copy(struct{ io.Writer }{sum}, r); err != nil { // what the part's own format did not read
		return err
	}
	u.last = h.Name
	u.report.Parts++
	return writeLine(u.lines, Part{Name: h.Name, Size: h.Size, SHA256: hexOf(sum.Sum(nil))})
}

func (u *unpacker) part(ctx context.Context, stage int, h *tar.Header, r io.Reader) (err error) {
	switch stage {
	case stageManifest:
		b, err := small(h, r)
		if err != nil {
			return err
		}
		return u.manifest(b)
	case stageKeys:
		u.envelope, err = small(h, r)
		return err
	}
	if !u.asked {
		u.asked = true
		if u.opened, err = u.keys(u.report.Manifest, u.envelope); err != nil {
			return err
		}
		u.report.Opened = u.opened != nil
	}
	switch {
	case stage == stageBlobs:
		return u.blob(ctx, h, r)
	case u.opened == nil:
		_, err := io.Copy(io.Discard, r)
		return err
	}
	return u.sealed(ctx, stage, h.Name, r)
}

func small(h *tar.Header, r io.Reader) ([]byte, error) {
	if h.Size > maxText {
		return nil, damaged(nil, fmt.Sprintf("%s has %d bytes", h.Name, h.Size))
	}
	return io.ReadAll(r)
}

func (u *unpacker) manifest(b []byte) error {
	m := &u.report.Manifest
	if err := json.Unmarshal(b, m); err != nil || m.Format < 1 || m.ID == "" {
		return damaged(err, "its manifest is not readable")
	}
	if m.Format > formatVersion || m.DataFormat > u.tools.DataFormat || m.Schema > u.tools.Schema {
		return fault.New(fault.Conflict, fmt.Sprintf("The backup was made by a newer falaj (%.40s: format %d.%d, schema %d); this one knows format %d.%d, schema %d.",
			m.Falaj, m.Format, m.DataFormat, m.Schema, formatVersion, u.tools.DataFormat, u.tools.Schema), "Use the falaj that made it, or a newer one.")
	}
	return nil
}

// sealed opens a database or spool file, into the restored folder or, for the one that is looked into, the scratch.
func (u *unpacker) sealed(ctx context.Context, stage int, name string, r io.Reader) error {
	target := name
	if stage == stageDatabases {
		target = filepath.Base(name)
	}
	var w io.WriteCloser = discard{}
	var err error
	look := filepath.Join(u.scratch, mainDatabase)
	switch {
	case u.into != nil:
		w, err = u.into(target)
	case target == mainDatabase:
		w, err = os.OpenFile(look, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return full(err)
	}
	from := &watched{r: r}
	err = errors.Join(unseal(w, u.opened.BackupKey(u.report.Manifest.ID, name), from), w.Close())
	if errors.Is(err, seal.ErrDamaged) || err != nil && from.err == nil && !isDisk(err) {
		return damaged(err, name+" does not open: it was changed, or belongs to another backup")
	}
	if err != nil {
		return err
	}
	if target != mainDatabase {
		return nil
	}
	if u.into != nil {
		look = filepath.Join(u.scratch, restoredDir, mainDatabase)
	}
	return u.look(ctx, look)
}

// look compares the database with the manifest and starts the walk over the blobs it names.
func (u *unpacker) look(ctx context.Context, path string) (err error) {
	if u.db, err = u.tools.Open(ctx, path); err != nil {
		return err
	}
	f, err := store.FactsOf(ctx, u.db)
	if err != nil {
		return damaged(err, "its database cannot be read")
	}
	m := u.report.Manifest
	if f.Schema != m.Schema || f.Seq != m.Ledger.Seq || f.Hash != m.Ledger.Hash {
		return damaged(nil, fmt.Sprintf("the manifest names ledger row %d %.12s, and the database ends with row %d %.12s", m.Ledger.Seq, m.Ledger.Hash, f.Seq, f.Hash))
	}
	u.named, u.stop = iter.Pull2(func(yield func(namedBlob, error) bool) {
		done := errors.New("enough")
		err := blob.Named(ctx, u.db, func(stored string, size int64) error {
			if !yield(namedBlob{stored, size}, nil) {
				return done
			}
			return nil
		})
		if err != nil && !errors.Is(err, done) {
			yield(namedBlob{}, err)
		}
	})
	return nil
}

// blob holds the next stored file to the next row of the database: neither may be missing.
func (u *unpacker) blob(ctx context.Context, h *tar.Header, r io.Reader) error {
	if u.named != nil {
		want, err, ok := u.named()
		if err != nil {
			return err
		}
		if !ok || blobPath(want.stored) != h.Name || want.size != h.Size {
			return damaged(nil, fmt.Sprintf("stored file %s stands where the database names %s", h.Name, first(want.stored, "none")))
		}
	}
	if u.into == nil {
		_, err := io.Copy(io.Discard, r)
		return err
	}
	w, err := u.into(h.Name)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{blob.Watched(ctx, r)}, make([]byte, 128<<10))
	return errors.Join(err, w.Close())
}

// compare holds the list of the archive to what was read. The first line that differs names the damaged part.
func (u *unpacker) compare(size int64, r io.Reader) error {
	if err := u.lines.Flush(); err != nil {
		return err
	}
	if _, err := u.list.Seek(0, io.SeekStart); err != nil {
		return err
	}
	mine, theirs := bufio.NewReader(u.list), bufio.NewReader(io.LimitReader(r, size))
	for {
		a, errA := mine.ReadBytes('\n')
		b, errB := theirs.ReadSlice('\n')
		if errA != nil && !errors.Is(errA, io.EOF) {
			return errA
		}
		if errB != nil && !errors.Is(errB, io.EOF) && !errors.Is(errB, bufio.ErrBufferFull) { // a longer line differs from ours
			return errB
		}
		if !bytes.Equal(a, b) {
			var p Part
			if json.Unmarshal(a, &p) != nil {
				p.Name = "the list of parts"
			}
			return damaged(nil, p.Name+" has not the digest that the list of parts gives it")
		}
		if errA != nil {
			return nil
		}
	}
}

// finish checks the end: the digest of the list, the keyset's word for it, and that no blob is missing.
func (u *unpacker) finish(ctx context.Context, size int64, r io.Reader) error {
	b, err := small(&tar.Header{Name: endName, Size: size}, r)
	if err != nil {
		return err
	}
	digest := u.parts.Sum(nil)
	if err := json.Unmarshal(b, &u.end); err != nil || u.end.Parts != hexOf(digest) || u.end.Count != u.report.Parts {
		return damaged(err, "its end does not belong to its parts")
	}
	u.report.Digest = u.end.Parts
	if u.opened == nil {
		return nil
	}
	if mac, err := hex.DecodeString(u.end.MAC); err != nil || !hmac.Equal(mac, u.opened.MAC(macPurpose, digest)) {
		return damaged(err, "its list of parts was not made by the installation that owns the keyset")
	}
	if u.named == nil {
		return damaged(nil, "it holds no "+mainDatabase)
	}
	if want, err, ok := u.named(); ok || err != nil {
		return errors.Join(err, damaged(nil, "stored file "+want.stored+" is missing, and the database names it"))
	}
	return nil
}

// sum compares the rest of the file, byte by byte, with what must stand there.
func (u *unpacker) sum(in *lag) error {
	want, err := lastBlocks(in.sum.Sum(nil))
	if err != nil {
		return err
	}
	got := slices.Clone(in.tail)
	rest, err := io.ReadAll(io.LimitReader(in.r, int64(len(want))+1))
	if err != nil {
		return err
	}
	u.report.Bytes = in.bytes + int64(len(rest))
	if got = append(got, rest...); !bytes.Equal(got, want) {
		if len(got) < len(want) {
			return damaged(io.ErrUnexpectedEOF, fmt.Sprintf("it is cut short after %d bytes", u.report.Bytes))
		}
		return damaged(nil, "its bytes do not have the sum that stands at its end")
	}
	if u.end.Parts == "" {
		return damaged(nil, "it has no end")
	}
	return nil
}

func (u *unpacker) close() {
	if u.stop != nil {
		u.stop()
	}
	if u.db != nil {
		u.db.Close()
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }

// watched tells an error of the archive from one of what is written.
type watched struct {
	r   io.Reader
	err error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

func isDisk(err error) bool {
	var p *os.PathError
	return errors.As(err, &p)
}

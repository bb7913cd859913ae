package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"falaj/internal/blob"
	"falaj/internal/blob/dir"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/seal"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
	"falaj/internal/store/sqlite"
	"falaj/internal/store/storetest"
)

// canary must never lie in clear in a file.
const canary = "CANARY-7f3a-of-a-customer"

const phrase = "five words of a passphrase"

// site is a small installation: real databases, a spool file, stored files.
type site struct {
	*Service
	t     *testing.T
	data  string
	keys  string
	store *store.Store
	blobs *blob.Store
	refs  []blob.Ref
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, data: filepath.Join(t.TempDir(), "data"), keys: filepath.Join(t.TempDir(), "keys")}
	must(t, os.MkdirAll(filepath.Join(s.data, spoolDir), 0o700))
	keys, err := seal.Open(s.keys)
	must(t, err)
	d, err := sqlite.Open(t.Context(), filepath.Join(s.data, mainDatabase))
	must(t, err)
	s.store, err = store.Open(t.Context(), d, storetest.Roles{}, "", slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(func() { s.store.Close() })
	folder, err := dir.Open(filepath.Join(s.data, blobDir))
	must(t, err)
	t.Cleanup(func() { folder.Close() })
	s.blobs = blob.New(s.store, keys, folder)
	for _, name := range Databases()[1:] {
		other, err := sqlite.Open(t.Context(), filepath.Join(s.data, name))
		must(t, err)
		_, err = other.Writer().Exec(`CREATE TABLE kept AS SELECT '` + canary + `' AS word`)
		must(t, err)
		must(t, other.Close())
	}
	must(t, os.WriteFile(filepath.Join(s.data, spoolDir, "spl_a.spool"), []byte("frames "+canary), 0o600))
	for _, text := range []string{"first " + canary, "second", strings.Repeat("a longer one ", 9000)} {
		s.put(text)
	}
	must(t, s.store.Change(admin(t), "user.create", policy.Resource{Kind: "User", ID: canary}, func(context.Context, *store.Tx) (event.Draft, error) {
		return event.Draft{Type: "user.created", Subject: canary}, nil
	}))
	s.Service, err = New(Config{Store: s.store, Blobs: s.blobs, Keys: keys, Data: s.data, Work: filepath.Join(s.data, "run", "backup"), Version: "test", DataFormat: 1,
		Open: sqlite.OpenCopy, Copy: func(ctx context.Context, pairs [][2]string, cut func() error) error {
			var list []sqlite.Pair
			for _, p := range pairs {
				list = append(list, sqlite.Pair{From: p[0], To: p[1]})
			}
			return sqlite.CopyAll(ctx, list, cut)
		}})
	must(t, err)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func admin(t *testing.T) context.Context {
	return who.With(t.Context(), who.Actor{Kind: who.User, Name: "root", Via: "test"})
}

func (s *site) put(text string) blob.Ref {
	s.t.Helper()
	ref, err := s.blobs.Put(s.t.Context(), "p", strings.NewReader(text))
	must(s.t, err)
	s.refs = append(s.refs, ref)
	return ref
}

// make makes a backup; meanwhile runs between the copies and the stream.
func (s *site) make(keys []byte, meanwhile func()) ([]byte, error) {
	j, err := s.Prepare(admin(s.t), keys)
	if err != nil {
		return nil, err
	}
	defer func() { must(s.t, j.Close()) }()
	if meanwhile != nil {
		meanwhile()
	}
	var b bytes.Buffer
	err = j.Stream(admin(s.t), &b)
	return b.Bytes(), err
}

func tools(t *testing.T) Tools {
	t.Helper()
	schema, err := store.KnownSchema()
	must(t, err)
	return Tools{Open: sqlite.OpenCopy, Schema: schema, DataFormat: 1}
}

func (s *site) keyset() *seal.Keys {
	s.t.Helper()
	k, err := seal.Existing(s.keys)
	must(s.t, err)
	return k
}

// whole makes a backup that must succeed.
func (s *site) whole(keys []byte) []byte {
	s.t.Helper()
	b, err := s.make(keys, nil)
	must(s.t, err)
	return b
}

func refused(t *testing.T, what string, err error, kind fault.Kind, words ...string) {
	t.Helper()
	f := &fault.E{}
	if !errors.As(err, &f) || f.Kind != kind || f.Next == "" {
		t.Errorf("%s gives %v, want %s with a next step", what, err, kind)
		return
	}
	for _, w := range words {
		if !strings.Contains(f.Public+" "+f.Next, w) {
			t.Errorf("%s: the error does not say %q: %s", what, w, f.Public)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	file := s.whole(nil)
	if bytes.Contains(file, []byte("CANARY")) || bytes.Contains(file, []byte("SQLite format")) {
		t.Error("content lies in clear in the file")
	}
	rep, err := Verify(t.Context(), tools(t), bytes.NewReader(file), nil)
	if err != nil || rep.Opened || rep.Bytes != int64(len(file)) || rep.Manifest.Blobs != 3 {
		t.Fatalf("%+v %v", rep, err)
	}
	rep, err = Verify(t.Context(), tools(t), bytes.NewReader(file), s.keyset())
	if err != nil || !rep.Opened || rep.Manifest.Ledger.Seq == 0 {
		t.Fatalf("%+v %v", rep, err)
	}
	rows, err := s.store.Recent(t.Context(), "", "backup.create", "", 0, 10)
	if err != nil || len(rows) != 1 || rows[0].After == "" || rows[0].Seq <= rep.Manifest.Ledger.Seq {
		t.Errorf("the ledger says %+v, %v", rows, err)
	}
	if left, _ := os.ReadDir(filepath.Join(s.data, "run", "backup")); len(left) != 0 {
		t.Errorf("copies are left: %v", left)
	}
	to := filepath.Join(t.TempDir(), "new", "data")
	out, err := Restore(t.Context(), tools(t), bytes.NewReader(file), RestoreOptions{Data: to, Keys: s.keys})
	if err != nil || out.Keys != s.keys {
		t.Fatalf("%+v %v", out, err)
	}
	same(t, s, to)
	if beside, _ := os.ReadDir(filepath.Dir(to)); len(beside) != 1 {
		t.Errorf("the restore left %v", beside)
	}
	_, err = Restore(t.Context(), tools(t), bytes.NewReader(file), RestoreOptions{Data: to, Keys: s.keys})
	refused(t, "a filled folder", err, fault.Exists, "not empty")
}

// same opens a restored folder and compares it with the site.
func same(t *testing.T, s *site, to string) {
	t.Helper()
	d, err := sqlite.Open(t.Context(), filepath.Join(to, mainDatabase))
	must(t, err)
	db, err := store.Open(t.Context(), d, storetest.Roles{}, "", slog.New(slog.DiscardHandler))
	must(t, err)
	defer db.Close()
	folder, err := dir.Open(filepath.Join(to, blobDir))
	must(t, err)
	defer folder.Close()
	blobs := blob.New(db, s.keyset(), folder)
	n, err := blobs.VerifyAll(t.Context(), func(f blob.Finding) { t.Errorf("%+v", f) })
	if err != nil || n != 3 {
		t.Errorf("%d blobs, %v", n, err)
	}
	for _, ref := range s.refs[:3] {
		o, err := blobs.Open(t.Context(), "p", ref.Digest)
		must(t, err)
		if o.Size() != ref.Size {
			t.Errorf("%s has %d bytes", ref.Digest, o.Size())
		}
		o.Close()
	}
	if b, err := os.ReadFile(filepath.Join(to, spoolDir, "spl_a.spool")); err != nil || string(b) != "frames "+canary {
		t.Errorf("the spool is %q, %v", b, err)
	}
	for _, name := range Databases()[1:] {
		c, err := sqlite.OpenCopy(t.Context(), filepath.Join(to, name))
		must(t, err)
		var word string
		if err := c.QueryRow(`SELECT word FROM kept`).Scan(&word); err != nil || word != canary {
			t.Errorf("%s holds %q, %v", name, word, err)
		}
		c.Close()
	}
	must(t, Record(who.AsSystem(t.Context(), "app"), db, to))
	must(t, Record(who.AsSystem(t.Context(), "app"), db, to)) // nothing to record any more
	rows, err := db.Recent(t.Context(), "", "backup.restore", "", 0, 10)
	if err != nil || len(rows) != 1 {
		t.Errorf("the restore is recorded as %+v, %v", rows, err)
	}
}

func TestKeysInTheFile(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	wrapped, err := seal.Wrap(s.keys, phrase)
	must(t, err)
	file := s.whole(wrapped)
	asks := func(word string) func() (string, error) { return func() (string, error) { return word, nil } }
	to := filepath.Join(t.TempDir(), "data")
	_, err = Restore(t.Context(), tools(t), bytes.NewReader(file), RestoreOptions{Data: to, Passphrase: asks("another passphrase")})
	refused(t, "another passphrase", err, fault.Refused, "passphrase")
	out, err := Restore(t.Context(), tools(t), bytes.NewReader(file), RestoreOptions{Data: to, Passphrase: asks(phrase)})
	must(t, err)
	if k, err := seal.Existing(filepath.Join(to, "keys")); err != nil || k.ID() != s.keyset().ID() || out.Keys != filepath.Join(to, "keys") {
		t.Errorf("the keyset is not with the data: %v, %v", out, err)
	}
	elsewhere := filepath.Join(t.TempDir(), "volume", "keys")
	_, err = Restore(t.Context(), tools(t), bytes.NewReader(file), RestoreOptions{Data: filepath.Join(t.TempDir(), "data"), Keys: elsewhere, Passphrase: asks(phrase)})
	must(t, err)
	if _, err := seal.Existing(elsewhere); err != nil {
		t.Error(err)
	}
	foreign := filepath.Join(t.TempDir(), "keys")
	_, err = seal.Open(foreign)
	must(t, err)
	wrapped, err = seal.Wrap(foreign, phrase)
	must(t, err)
	_, err = s.Prepare(admin(t), wrapped)
	refused(t, "the keys of another server", err, fault.Invalid, "not this server's")
}

func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	file := s.whole(nil)
	foreign := filepath.Join(t.TempDir(), "keys")
	_, err := seal.Open(foreign)
	must(t, err)
	older, oldest := tools(t), tools(t)
	older.Schema--
	oldest.DataFormat--
	for what, c := range map[string]struct {
		tools Tools
		keys  string
		file  []byte
		kind  fault.Kind
		words string
	}{
		"no keys":           {tools(t), "", file, fault.Invalid, "--keys"},
		"a missing keyset":  {tools(t), filepath.Join(t.TempDir(), "none"), file, fault.NotFound, "no keyset"},
		"other keys":        {tools(t), foreign, file, fault.Refused, "keyset"},
		"a newer schema":    {older, s.keys, file, fault.Conflict, "newer falaj"},
		"a newer format":    {oldest, s.keys, file, fault.Conflict, "newer falaj"},
		"a cut file":        {tools(t), s.keys, file[:len(file)-1], fault.Refused, "cut short"},
		"half a file":       {tools(t), s.keys, file[:len(file)/2], fault.Refused, "cut short"},
		"an empty file":     {tools(t), s.keys, nil, fault.Refused, "cut short"},
		"more than a file":  {tools(t), s.keys, append(bytes.Clone(file), 0), fault.Refused, "sum"},
		"some other file":   {tools(t), s.keys, []byte(strings.Repeat("no archive at all ", 100)), fault.Refused, "no part of a backup"},
		"a path out of it":  {tools(t), s.keys, archive(t, "blobs/../../x"), fault.Refused, "no part of a backup"},
		"a link":            {tools(t), s.keys, archiveOf(t, &tar.Header{Typeflag: tar.TypeSymlink, Name: manifestName, Linkname: "/etc/passwd"}), fault.Refused, "no part of a backup"},
		"a huge manifest":   {tools(t), s.keys, archiveOf(t, &tar.Header{Typeflag: tar.TypeReg, Name: manifestName, Size: 1 << 40}), fault.Refused, manifestName},
		"no manifest first": {tools(t), s.keys, archive(t, partsName), fault.Refused, "wrong place"},
	} {
		to := filepath.Join(t.TempDir(), "data")
		_, err := Restore(t.Context(), c.tools, bytes.NewReader(c.file), RestoreOptions{Data: to, Keys: c.keys})
		refused(t, what, err, c.kind, c.words)
		if beside, _ := os.ReadDir(filepath.Dir(to)); len(beside) != 0 {
			t.Errorf("%s left %v", what, beside)
		}
	}
}

func archive(t *testing.T, name string) []byte {
	return archiveOf(t, &tar.Header{Typeflag: tar.TypeReg, Name: name})
}

func archiveOf(t *testing.T, h *tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	must(t, tar.NewWriter(&b).WriteHeader(h))
	return b.Bytes()
}

// Every byte of the file is covered: whichever is flipped, the file is refused, with and without keys, and nothing is restored.
func TestEveryFlippedByteIsFound(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	file := s.whole(nil)
	tools, keys := tools(t), s.keyset()
	try := func(at int) {
		file[at] ^= 0x20 // turns a space of a header into NUL, which tar's own checks take
		defer func() { file[at] ^= 0x20 }()
		if _, err := Verify(t.Context(), tools, bytes.NewReader(file), nil); err == nil {
			t.Errorf("byte %d of %d was flipped and not found", at, len(file))
		}
		if at%997 != 0 {
			return
		}
		if _, err := Verify(t.Context(), tools, bytes.NewReader(file), keys); err == nil {
			t.Errorf("byte %d of %d was flipped and not found with keys", at, len(file))
		}
		to := filepath.Join(t.TempDir(), "data")
		if _, err := Restore(t.Context(), tools, bytes.NewReader(file), RestoreOptions{Data: to, Keys: s.keys}); err == nil {
			t.Errorf("byte %d of %d was flipped and restored", at, len(file))
		}
		if _, err := os.Stat(to); err == nil {
			t.Errorf("a refused restore left %s", to)
		}
	}
	step := 1
	if testing.Short() {
		step = 37
	}
	for at := 0; at < len(file); at += step {
		if at > 3<<10 && at < len(file)-6<<10 && at%211 != 0 {
			continue // inside of parts one byte is as good as another
		}
		try(at)
	}
	if _, err := Verify(t.Context(), tools, bytes.NewReader(file), keys); err != nil {
		t.Error("the file itself is not whole any more:", err)
	}
	damagedAt := bytes.Index(file, []byte(blobDir+"/")) + block
	file[damagedAt] ^= 1
	_, err := Verify(t.Context(), tools, bytes.NewReader(file), nil)
	refused(t, "a damaged stored file", err, fault.Refused, blobDir+"/", "digest")
}

// Who has no keys can make digests and sum fit again, but not the keyset's word for them.
func TestForgedFileIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	file := s.whole(nil)
	forge := func(change func(name string, body []byte) []byte, mac func([]byte) []byte) []byte {
		list, err := os.Create(filepath.Join(t.TempDir(), "list"))
		must(t, err)
		defer list.Close()
		var out bytes.Buffer
		p := newPacker(&out, list)
		in := tar.NewReader(bytes.NewReader(file))
		for {
			h, err := in.Next()
			must(t, err)
			if h.Name == partsName {
				break
			}
			body, err := io.ReadAll(in)
			must(t, err)
			if body = change(h.Name, body); body != nil {
				must(t, p.part(t.Context(), h.Name, int64(len(body)), bytes.NewReader(body)))
			}
		}
		must(t, p.finish(t.Context(), mac, func(end) error { return nil }))
		return out.Bytes()
	}
	unable := func([]byte) []byte { return make([]byte, 32) }
	for what, c := range map[string]struct {
		change func(name string, body []byte) []byte
		word   string
	}{
		"nothing": {func(_ string, b []byte) []byte { return b }, "owns the keyset"},
		"a stored file": {func(name string, b []byte) []byte {
			if strings.HasPrefix(name, blobDir) {
				b[len(b)-1] ^= 1
			}
			return b
		}, "owns the keyset"},
		"the ledger's head": {func(name string, b []byte) []byte {
			if name == manifestName {
				return bytes.Replace(b, []byte(`"seq": `), []byte(`"seq": 1`), 1)
			}
			return b
		}, "manifest names ledger row"},
		"the databases swapped": {func(name string, b []byte) []byte {
			if name == databaseDir+"flow.db" {
				return nil
			}
			if name == databaseDir+mainDatabase {
				b[100] ^= 1
			}
			return b
		}, "does not open"},
	} {
		forged := forge(c.change, unable)
		if _, err := Verify(t.Context(), tools(t), bytes.NewReader(forged), nil); err != nil {
			t.Errorf("%s: the forgery is not good enough for this test: %v", what, err)
		}
		_, err := Verify(t.Context(), tools(t), bytes.NewReader(forged), s.keyset())
		refused(t, what, err, fault.Refused, c.word)
	}
	left := 0
	forged := forge(func(name string, b []byte) []byte {
		if strings.HasPrefix(name, blobDir) {
			if left++; left == 3 {
				return nil
			}
		}
		return b
	}, func(b []byte) []byte { return s.keyset().MAC(macPurpose, b) })
	_, err := Verify(t.Context(), tools(t), bytes.NewReader(forged), s.keyset())
	refused(t, "a stored file left out", err, fault.Refused, "the database names it")
}

// What is discarded, swept and written while the file streams changes nothing of it.
func TestBackupIsOfOneInstant(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	file, err := s.make(nil, func() {
		_, err := s.Prepare(admin(t), nil)
		refused(t, "a second backup", err, fault.Conflict, "Another backup")
		s.put("later")
		for _, ref := range s.refs[:2] {
			must(t, s.blobs.Discard(t.Context(), "p", ref.Digest))
		}
		_, err = s.blobs.Sweep(t.Context(), 0)
		must(t, err)
		must(t, os.Remove(filepath.Join(s.data, spoolDir, "spl_a.spool")))
	})
	must(t, err)
	to := filepath.Join(t.TempDir(), "data")
	_, err = Restore(t.Context(), tools(t), bytes.NewReader(file), RestoreOptions{Data: to, Keys: s.keys})
	must(t, err)
	same(t, s, to)
	n, err := s.blobs.Sweep(t.Context(), 0)
	if err != nil || n != 2 {
		t.Errorf("after the backup %d files were swept, want the 2 discarded ones: %v", n, err)
	}
}

// A lost stored file stops the backup with its name; the reader of the broken stream is told, and nothing is recorded.
func TestLostFileStopsTheBackup(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	files, err := filepath.Glob(filepath.Join(s.data, blobDir, "??", "*"))
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	must(t, os.Truncate(files[1], 10))
	file, err := s.make(nil, nil)
	refused(t, "a cut stored file", err, fault.Refused, filepath.Base(files[1]), "audit verify")
	_, err = Verify(t.Context(), tools(t), bytes.NewReader(file), nil)
	refused(t, "its stream", err, fault.Refused, filepath.Base(files[1]), "audit verify")
	rows, err := s.store.Recent(t.Context(), "", "backup.create", "", 0, 10)
	if err != nil || len(rows) != 0 {
		t.Errorf("recorded: %+v, %v", rows, err)
	}
}

// Copies that a killed backup left are gone with the next start.
func TestLeftCopiesAreCleared(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if _, err := s.Prepare(admin(t), nil); err != nil { // never closed: the process was killed
		t.Fatal(err)
	}
	if _, err := New(s.cfg); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(s.cfg.Work); err != nil || len(left) != 0 {
		t.Errorf("%v %v", left, err)
	}
}

// With PostgreSQL there is no half backup: it is refused with what to do instead.
func TestPostgresIsRefused(t *testing.T) {
	t.Parallel()
	db := storetest.Postgres(t)
	s, err := New(Config{Store: db, Work: filepath.Join(t.TempDir(), "work")})
	must(t, err)
	_, err = s.Prepare(admin(t), nil)
	refused(t, "PostgreSQL", err, fault.Unsupported, "not available in this version", "pg_dump")
}

package e2e

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // registers the driver that opens the ledger's file
)

// One flipped byte in the ledger's file, and one in a blob's, is found and named by `falaj audit verify`.
func TestFlippedByte(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.amal.ok("apply")
	w.amal.ok("run", "--ingest")
	w.clean()

	w.stop()
	seq, digest := ledgerDigest(t, filepath.Join(w.data, "falaj.db"))
	mend := flip(t, filepath.Join(w.data, "falaj.db"), digest)
	w.start()
	r := w.amal.falaj("audit", "verify")
	if r.code != 3 || !strings.Contains(r.out, "BROKEN") || !strings.Contains(r.out, fmt.Sprintf("ledger row %d (", seq)) || !strings.Contains(r.err, "broken in") {
		t.Errorf("a flipped byte in row %d of the ledger: exit %d: %s%s", seq, r.code, r.out, r.err)
	}
	w.stop()
	mend()
	w.start()
	w.clean()

	name := largestBlob(t, filepath.Join(w.data, "blobs"))
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	r = w.amal.falaj("audit", "verify")
	if r.code != 3 || !strings.Contains(r.out, "BROKEN") || !strings.Contains(r.out, filepath.Base(name)) || !strings.Contains(r.out, "tiny") {
		t.Errorf("a flipped byte in blob %s: exit %d: %s%s", name, r.code, r.out, r.err)
	}
	if a := w.call("", "GET", "/readyz", nil); a.status != 200 {
		t.Errorf("the server is not up: %d", a.status)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	w.clean()
}

// ledgerDigest brings everything from the log into the file and drops stale pages. It gives a row of the ledger, and the
// digest that this row alone keeps.
func ledgerDigest(t *testing.T, path string) (seq int64, digest string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, q := range []string{`VACUUM`, `PRAGMA wal_checkpoint(TRUNCATE)`} {
		if _, err := db.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	err = db.QueryRow(`SELECT seq, after_digest FROM ledger a WHERE length(after_digest) = 64 AND action <> 'schema.migrate'
		AND (SELECT count(*) FROM ledger b WHERE b.after_digest = a.after_digest OR b.before_digest = a.after_digest) = 1 ORDER BY seq LIMIT 1`).Scan(&seq, &digest)
	if err != nil {
		t.Fatal(err)
	}
	return seq, digest
}

// flip changes one byte of a text in a file, and gives the way back.
func flip(t *testing.T, path, text string) (mend func()) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(b, []byte(text))
	if i < 0 || bytes.Contains(b[i+1:], []byte(text)) {
		t.Fatalf("%s holds %q not exactly once", path, text)
	}
	put := func(c byte) {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte{c}, int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	put(b[i] ^ 1)
	return func() { put(b[i]) }
}

func largestBlob(t *testing.T, dir string) (name string) {
	t.Helper()
	var size int64
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err == nil && st.Size() > size {
			name, size = path, st.Size()
		}
		return err
	})
	if err != nil || name == "" {
		t.Fatalf("there are no blobs in %s: %v", dir, err)
	}
	return name
}

package seal

import (
	"bytes"
	"io"
	"path/filepath"
	"testing"

	"falaj/internal/kernel/fault"
)

// A keyset goes under a passphrase and comes back as the same keyset; nothing else opens it.
func TestKeysetUnderAPassphrase(t *testing.T) {
	t.Parallel()
	from, to := filepath.Join(t.TempDir(), "keys"), filepath.Join(t.TempDir(), "keys")
	if _, err := Existing(from); !fault.Is(err, fault.NotFound) {
		t.Errorf("a missing keyset gives %v", err)
	}
	keys, err := Open(from)
	if err != nil {
		t.Fatal(err)
	}
	const phrase = "five words of a passphrase"
	if _, err := Wrap(from, "short"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a short passphrase gives %v", err)
	}
	wrapped, err := Wrap(from, phrase)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(wrapped, keys.root) || bytes.Contains(wrapped, []byte("kek")) {
		t.Error("the keyset lies in clear in its envelope")
	}
	if id, err := EnvelopeID(wrapped); err != nil || id != keys.ID() {
		t.Errorf("the envelope names %q, %v", id, err)
	}
	if _, _, err := Unwrap(wrapped, phrase+"!"); !fault.Is(err, fault.Refused) {
		t.Errorf("another passphrase gives %v", err)
	}
	again, write, err := Unwrap(wrapped, phrase)
	if err != nil || again.ID() != keys.ID() {
		t.Fatal(again, err)
	}
	if err := write(to); err != nil {
		t.Fatal(err)
	}
	if err := write(to); err == nil {
		t.Error("a keyset was written over another")
	}
	third, err := Existing(to)
	if err != nil || third.ID() != keys.ID() {
		t.Fatal(third, err)
	}
	for _, hostile := range []string{`{}`, `{"format":1,"keyset":"x","argon2id_time":4,"argon2id_memory_kib":4000000000,"argon2id_lanes":2,"salt":"AAAAAAAAAAAAAAAAAAAAAA==","sealed":"AA=="}`} {
		if _, _, err := Unwrap([]byte(hostile), phrase); err == nil {
			t.Errorf("%s opened", hostile)
		}
	}
}

// A part opens only as the part of the backup that it was sealed for.
func TestBackupKeyBindsItsPlace(t *testing.T) {
	t.Parallel()
	keys, err := Open(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	var sealed bytes.Buffer
	w, err := EncryptWriter(&sealed, keys.BackupKey("b1", "db/a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("content")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for place, opens := range map[[2]string]bool{{"b1", "db/a"}: true, {"b1", "db/b"}: false, {"b2", "db/a"}: false} {
		r, err := DecryptReader(bytes.NewReader(sealed.Bytes()), keys.BackupKey(place[0], place[1]))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(r); (err == nil) != opens {
			t.Errorf("as %v it gives %v", place, err)
		}
	}
}

package seal_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
)

func open(t *testing.T, dir string) *seal.Keys {
	t.Helper()
	k, err := seal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestOpenCreatesPrivateFilesAndKeepsThem(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "keys")
	first := open(t, dir)
	if st, _ := os.Stat(dir); st.Mode().Perm() != 0o700 {
		t.Errorf("folder mode %o, want 700", st.Mode().Perm())
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v, %v, want exactly one", files, err)
	}
	if info, _ := files[0].Info(); info.Mode().Perm() != 0o600 {
		t.Errorf("file mode %o, want 600", info.Mode().Perm())
	}
	second := open(t, dir)
	if !bytes.Equal(first.MAC("t", []byte("m")), second.MAC("t", []byte("m"))) || first.ID() != second.ID() {
		t.Error("the second open gave another keyset")
	}
	wrapped, err := first.NewDataKey("flights")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Box(wrapped, "flights"); err != nil {
		t.Errorf("the second open cannot unwrap: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	file := func(dir string) string { return filepath.Join(dir, "keyset.json") }
	cases := map[string]struct {
		spoil func(t *testing.T, dir string)
		kind  fault.Kind
		says  string
	}{
		"open folder":  {func(t *testing.T, dir string) { chmod(t, dir, 0o750) }, fault.Refused, "mode 0750"},
		"open file":    {func(t *testing.T, dir string) { chmod(t, file(dir), 0o644) }, fault.Refused, "mode 0644"},
		"damaged":      {func(t *testing.T, dir string) { write(t, file(dir), `{"format":1,"kek":{},"root":""}`) }, fault.Internal, "damaged"},
		"not JSON":     {func(t *testing.T, dir string) { write(t, file(dir), "x") }, fault.Internal, "damaged"},
		"newer format": {func(t *testing.T, dir string) { write(t, file(dir), `{"format":99}`) }, fault.Unsupported, "format 99"},
		"lost keyset": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "other.txt"), "x")
			if err := os.Remove(file(dir)); err != nil {
				t.Fatal(err)
			}
		}, fault.Refused, "other.txt"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "keys")
			open(t, dir)
			c.spoil(t, dir)
			_, err := seal.Open(dir)
			f := fault.From(err)
			if f == nil || f.Kind != c.kind || !strings.Contains(f.Public, c.says) || f.Next == "" {
				t.Fatalf("got %#v, want kind %s saying %q", f, c.kind, c.says)
			}
		})
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFirstStartsAtTheSameTimeAgree(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "keys")
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			if k, err := seal.Open(dir); err != nil {
				t.Error(err)
			} else {
				ids[i] = k.ID()
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("different keysets: %v", ids)
		}
	}
}

func TestDerivedKeysAreSeparate(t *testing.T) {
	t.Parallel()
	k, other := open(t, filepath.Join(t.TempDir(), "k")), open(t, filepath.Join(t.TempDir(), "o"))
	mac := k.MAC("token", []byte("flj_x"))
	if len(mac) != 32 || !k.MACEqual("token", []byte("flj_x"), mac) {
		t.Fatalf("MAC of %d bytes does not verify", len(mac))
	}
	for name, differs := range map[string][]byte{
		"purpose": k.MAC("webhook", []byte("flj_x")),
		"message": k.MAC("token", []byte("flj_y")),
		"keyset":  other.MAC("token", []byte("flj_x")),
	} {
		if bytes.Equal(mac, differs) {
			t.Errorf("another %s gave the same MAC", name)
		}
	}
	s := k.Signer("checkpoint")
	sig := s.Sign([]byte("tree 7"))
	if !ed25519.Verify(s.Public(), []byte("tree 7"), sig) || ed25519.Verify(s.Public(), []byte("tree 8"), sig) {
		t.Error("the signature does not verify as it should")
	}
	if k.Signer("passport").Public().Equal(s.Public()) || other.Signer("checkpoint").Public().Equal(s.Public()) {
		t.Error("two purposes or keysets share a signing key")
	}
	block, _ := pem.Decode(s.PublicPEM())
	if pub, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil || !s.Public().Equal(pub.(ed25519.PublicKey)) {
		t.Errorf("PEM gives %v, %v", pub, err)
	}
}

func TestErrorsNeverShowTinksWords(t *testing.T) {
	t.Parallel()
	k := open(t, filepath.Join(t.TempDir(), "k"))
	wrapped, err := k.NewDataKey("flights")
	if err != nil {
		t.Fatal(err)
	}
	box, err := k.Box(wrapped, "flights")
	if err != nil {
		t.Fatal(err)
	}
	_, boxErr := k.Box(wrapped, "weather")
	_, openErr := box.Open([]byte("nonsense"), nil)
	_, keyErr := box.UnwrapObjectKey([]byte("nonsense"), nil)
	for _, err := range []error{boxErr, openErr, keyErr} {
		if !errors.Is(err, seal.ErrDamaged) || strings.Contains(err.Error(), "matching key") || fault.From(err).Next == "" {
			t.Errorf("got %v", err)
		}
	}
}

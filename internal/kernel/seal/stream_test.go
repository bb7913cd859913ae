package seal_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"falaj/internal/kernel/seal"

	"pgregory.net/rapid"
)

func newBox(t *testing.T) *seal.Box {
	t.Helper()
	k := open(t, filepath.Join(t.TempDir(), "keys"))
	wrapped, err := k.NewDataKey("flights")
	if err != nil {
		t.Fatal(err)
	}
	box, err := k.Box(wrapped, "flights")
	if err != nil {
		t.Fatal(err)
	}
	return box
}

type failer interface {
	Helper()
	Fatal(...any)
}

func sealed(t failer, key seal.ObjectKey, plain []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := seal.EncryptWriter(&out, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, bytes.NewReader(plain)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func openAll(key seal.ObjectKey, data []byte) ([]byte, error) {
	r, err := seal.DecryptReader(bytes.NewReader(data), key)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

const pack = 64 << 10

func TestStreamRoundTripAtEveryEdge(t *testing.T) {
	t.Parallel()
	box := newBox(t)
	for _, n := range []int{0, 1, pack - 2, pack - 1, pack, pack + 1, 2*pack - 1, 3*pack + 7} {
		plain, key := noise(n), box.NewObjectKey()
		data := sealed(t, key, plain)
		if got, err := openAll(key, data); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if size, err := seal.PlainSize(int64(len(data))); err != nil || size != int64(n) {
			t.Fatalf("%d bytes: PlainSize %d, %v", n, size, err)
		}
		if size, err := seal.SealedSize(int64(n)); err != nil || size != int64(len(data)) {
			t.Fatalf("%d bytes: SealedSize %d, %v, want %d", n, size, err, len(data))
		}
		if n > 16 && bytes.Contains(data, plain[:16]) {
			t.Fatal("plain bytes in the sealed stream")
		}
	}
}

func TestReaderAtReadsAnyRange(t *testing.T) {
	t.Parallel()
	box := newBox(t)
	key, plain := box.NewObjectKey(), noise(3*pack+100)
	at, err := seal.DecryptReaderAt(bytes.NewReader(sealed(t, key, plain)), key)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		off := rapid.IntRange(0, len(plain)+10).Draw(t, "off")
		n := rapid.IntRange(1, 2*pack).Draw(t, "n")
		want := plain[min(off, len(plain)):min(off+n, len(plain))]
		buf := make([]byte, n)
		got, err := at.ReadAt(buf, int64(off))
		if !bytes.Equal(buf[:got], want) {
			t.Fatalf("read %d bytes at %d: wrong content", got, off)
		}
		if got < n && err != io.EOF || got == n && err != nil && err != io.EOF {
			t.Fatalf("read %d of %d at %d: error %v", got, n, off, err)
		}
	})
	if _, err := at.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("a negative offset was accepted")
	}
}

func TestStreamRefusesEveryChange(t *testing.T) {
	t.Parallel()
	box := newBox(t)
	key := box.NewObjectKey()
	data := sealed(t, key, noise(3*pack+9))
	const size = pack + 32 // one sealed package
	flip := func(i int) func([]byte) []byte {
		return func(b []byte) []byte { b[i] ^= 1; return b }
	}
	changes := map[string]func([]byte) []byte{
		"truncated by one":        func(b []byte) []byte { return b[:len(b)-1] },
		"last package missing":    func(b []byte) []byte { return b[:3*size] },
		"truncated to nothing":    func(b []byte) []byte { return nil },
		"truncated to one header": func(b []byte) []byte { return b[:16] },
		"one byte more":           func(b []byte) []byte { return append(b, 0) },
		"packages swapped": func(b []byte) []byte {
			return slices.Concat(b[size:2*size], b[:size], b[2*size:])
		},
		"package repeated": func(b []byte) []byte { return slices.Concat(b[:size], b) },
		"package removed":  func(b []byte) []byte { return slices.Concat(b[:size], b[2*size:]) },
	}
	for _, i := range []int{0, 1, 2, 4, 8, 15, 16, 17, size - 1, size, size + 5, 2*size + 100, len(data) - 1} {
		changes[fmt.Sprintf("bit of byte %d", i)] = flip(i)
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := openAll(key, change(bytes.Clone(data))); !errors.Is(err, seal.ErrDamaged) {
				t.Errorf("got %v, want ErrDamaged", err)
			}
		})
	}
	if _, err := openAll(box.NewObjectKey(), data); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("another key: got %v", err)
	}
	swapped := slices.Concat(data[size:2*size], data[:size], data[2*size:])
	at, err := seal.DecryptReaderAt(bytes.NewReader(swapped), key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := at.ReadAt(make([]byte, 8), pack+100); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("random access into a moved package: got %v", err)
	}
}

func TestBoxBindsItsPlace(t *testing.T) {
	t.Parallel()
	k := open(t, filepath.Join(t.TempDir(), "keys"))
	wrapped, err := k.NewDataKey("flights")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Box(wrapped, "weather"); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("another project opened the data key: %v", err)
	}
	if _, err := open(t, filepath.Join(t.TempDir(), "other")).Box(wrapped, "flights"); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("another keyset opened the data key: %v", err)
	}
	box, err := k.Box(wrapped, "flights")
	if err != nil {
		t.Fatal(err)
	}
	value, err := box.Seal([]byte("secret"), []byte("hook|1"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := box.Open(value, []byte("hook|1")); err != nil || string(got) != "secret" {
		t.Fatalf("got %q, %v", got, err)
	}
	if _, err := box.Open(value, []byte("hook|2")); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("another place opened the value: %v", err)
	}
	for i := range value {
		changed := bytes.Clone(value)
		changed[i] ^= 1
		if _, err := box.Open(changed, []byte("hook|1")); !errors.Is(err, seal.ErrDamaged) {
			t.Errorf("flipped byte %d opened: %v", i, err)
		}
	}
	key := box.NewObjectKey()
	wk, err := box.WrapObjectKey(key, []byte("flights|d1"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := box.UnwrapObjectKey(wk, []byte("flights|d1")); err != nil || got != key {
		t.Fatalf("unwrap: %v", err)
	}
	if _, err := box.UnwrapObjectKey(wk, []byte("flights|d2")); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("another object's place opened the key: %v", err)
	}
	if _, err := box.Open(wk, []byte("flights|d1")); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("a wrapped key opened as a value: %v", err)
	}
}

func TestObjectKeyPrintsNothing(t *testing.T) {
	t.Parallel()
	key := newBox(t).NewObjectKey()
	for _, verb := range []string{"%v", "%+v", "%s", "%#v", "%q"} {
		if got := fmt.Sprintf(verb, key); !strings.Contains(got, "[secret]") {
			t.Errorf("%s prints %q", verb, got)
		}
	}
	if _, err := seal.EncryptWriter(io.Discard, seal.ObjectKey{}); err == nil {
		t.Error("the zero key was accepted")
	}
}

// closable counts closes, to show that sio's habit of closing what it writes to is contained.
type closable struct {
	bytes.Buffer
	closed int
}

func (c *closable) Close() error { c.closed++; return nil }

func TestWriterLeavesTheUnderlyingOpenAndEndsOnce(t *testing.T) {
	t.Parallel()
	var out closable
	w, err := seal.EncryptWriter(&out, newBox(t).NewObjectKey())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), w.Close()); err != nil || out.closed != 0 {
		t.Errorf("close: %v, underlying closed %d times", err, out.closed)
	}
	if _, err := w.Write([]byte("late")); err == nil {
		t.Error("a write after Close was accepted")
	}
}

// full fails after n bytes, as a disk does.
type full struct{ left int }

var errFull = errors.New("no space")

func (f *full) Write(p []byte) (int, error) {
	if len(p) > f.left {
		return 0, errFull
	}
	f.left -= len(p)
	return len(p), nil
}

func TestWriterStaysFailed(t *testing.T) {
	t.Parallel()
	w, err := seal.EncryptWriter(&full{left: pack + 32}, newBox(t).NewObjectKey())
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(noise(3 * pack))
	if !errors.Is(err, errFull) {
		t.Fatalf("write: %v", err)
	}
	if err := w.Close(); !errors.Is(err, errFull) {
		t.Errorf("close after a failed write: %v, want the same failure", err)
	}
}

func FuzzDecrypt(f *testing.F) {
	k, err := seal.Open(filepath.Join(f.TempDir(), "keys"))
	if err != nil {
		f.Fatal(err)
	}
	wrapped, _ := k.NewDataKey("p")
	box, _ := k.Box(wrapped, "p")
	key := box.NewObjectKey()
	good := sealed(f, key, []byte("hello"))
	f.Add(good)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := openAll(key, data)
		if err == nil && string(got) != "hello" {
			t.Fatalf("forged: %q", got)
		}
	})
}

package blob_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"falaj/internal/blob"
	"falaj/internal/blob/dir"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/seal"
	"falaj/internal/store"
	"falaj/internal/store/storetest"
)

// world is a blob store on a real database and a real folder.
type world struct {
	*blob.Store
	db     *store.Store
	keys   *seal.Keys
	driver *dir.Dir
	path   string
}

func build(t *testing.T, db *store.Store) world {
	t.Helper()
	w := world{db: db, path: filepath.Join(t.TempDir(), "blobs")}
	var err error
	if w.keys, err = seal.Open(filepath.Join(t.TempDir(), "keys")); err != nil {
		t.Fatal(err)
	}
	if w.driver, err = dir.Open(w.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.driver.Close() })
	w.Store = blob.New(db, w.keys, w.driver)
	return w
}

func each(t *testing.T, fn func(t *testing.T, w world)) {
	t.Helper()
	t.Parallel()
	storetest.Each(t, func(t *testing.T, db *store.Store) { fn(t, build(t, db)) })
}

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func (w world) put(t *testing.T, project string, data []byte) blob.Ref {
	t.Helper()
	ref, err := w.Put(t.Context(), project, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if want := (blob.Ref{Digest: blob.Digest(sha256.Sum256(data)), Size: int64(len(data))}); ref != want {
		t.Fatalf("got %v, want %v", ref, want)
	}
	return ref
}

func (w world) get(t *testing.T, project, digest string) ([]byte, error) {
	t.Helper()
	o, err := w.Open(t.Context(), project, digest)
	if err != nil {
		return nil, err
	}
	defer o.Close()
	return io.ReadAll(o)
}

// files lists the stored files, whole and partial.
func (w world) files(t *testing.T) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(w.path, func(p string, e fs.DirEntry, err error) error {
		if !e.IsDir() {
			paths = append(paths, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestPutAndRead(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		for _, n := range []int{0, 1, 64<<10 - 1, 64 << 10, 300_000} {
			data := noise(1, n)
			ref := w.put(t, "flights", data)
			if got, err := w.get(t, "flights", ref.Digest); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes: %v", n, err)
			}
			if info, err := w.Stat(t.Context(), "flights", ref.Digest); err != nil || info.Ref != ref || info.Created.IsZero() {
				t.Errorf("%d bytes: stat %v, %v", n, info, err)
			}
			if err := w.Verify(t.Context(), "flights", ref.Digest); err != nil {
				t.Errorf("%d bytes: verify: %v", n, err)
			}
		}
		if _, err := w.Stat(t.Context(), "flights", "sha256:00"); !fault.Is(err, fault.NotFound) {
			t.Errorf("stat of nothing gave %v", err)
		}
		if _, err := w.Put(t.Context(), "", strings.NewReader("x")); !fault.Is(err, fault.Invalid) {
			t.Errorf("no project gave %v", err)
		}
	})
}

func TestObjectIsAStandardReader(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		data := noise(2, 70_000) // two packages; TestReader reads byte by byte
		ref := w.put(t, "flights", data)
		o, err := w.Open(t.Context(), "flights", ref.Digest)
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		if err := iotest.TestReader(o, data); err != nil { // Read, Seek and ReadAt by the standard library's own test
			t.Error(err)
		}
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				buf := make([]byte, 1000)
				if _, err := o.ReadAt(buf, int64(i*8_000)); err != nil || !bytes.Equal(buf, data[i*8_000:][:1000]) {
					t.Errorf("concurrent ReadAt %d: %v", i, err)
				}
			})
		}
		wg.Wait()
	})
}

func TestSameContentIsKeptOnce(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		data := noise(3, 1000)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := w.Put(t.Context(), "flights", bytes.NewReader(data)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := w.files(t); len(got) != 1 {
			t.Errorf("%d files for one content", len(got))
		}
		ref := w.put(t, "weather", data)
		if got := w.files(t); len(got) != 2 {
			t.Errorf("two projects share a file: %v", got)
		}
		if err := w.Discard(t.Context(), "weather", ref.Digest); err != nil {
			t.Fatal(err)
		}
		if _, err := w.get(t, "weather", ref.Digest); !fault.Is(err, fault.NotFound) {
			t.Errorf("after discard: %v", err)
		}
		if _, err := w.get(t, "flights", ref.Digest); err != nil {
			t.Errorf("the other project's copy: %v", err)
		}
		if err := w.Discard(t.Context(), "weather", ref.Digest); err != nil {
			t.Errorf("discarding nothing: %v", err)
		}
	})
}

func TestPutExpectRefusesOtherContent(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		data := noise(4, 100_000)
		digest := blob.Digest(sha256.Sum256(data))
		for name, bad := range map[string]string{"other": blob.Digest(sha256.Sum256(nil)), "misspelt": "md5:abc", "upper case": strings.ToUpper(digest)} {
			if _, err := w.PutExpect(t.Context(), "flights", bad, bytes.NewReader(data)); !fault.Is(err, fault.Invalid) {
				t.Errorf("%s digest gave %v", name, err)
			}
		}
		if got := w.files(t); len(got) != 0 {
			t.Errorf("left %v", got)
		}
		if ref, err := w.PutExpect(t.Context(), "flights", digest, bytes.NewReader(data)); err != nil || ref.Digest != digest {
			t.Errorf("got %v, %v", ref, err)
		}
	})
}

func TestFailedPutLeavesNothing(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		broken := errors.New("the client went away")
		_, err := w.Put(t.Context(), "flights", io.MultiReader(bytes.NewReader(noise(5, 500_000)), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := w.Put(ctx, "flights", bytes.NewReader(noise(5, 10))); err == nil {
			t.Error("a cancelled put succeeded")
		}
		if got := w.files(t); len(got) != 0 {
			t.Errorf("left %v", got)
		}
		n, err := w.VerifyAll(t.Context(), func(f blob.Finding) { t.Errorf("finding %v", f) })
		if n != 0 || err != nil {
			t.Errorf("verified %d, %v", n, err)
		}
	})
}

func TestBytesAreSealed(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		canary := []byte("canary-7d1f-amal-tailnum-N12345")
		w.put(t, "flights", bytes.Repeat(canary, 5000))
		for _, p := range w.files(t) {
			if data, err := os.ReadFile(p); err != nil || bytes.Contains(data, canary) {
				t.Errorf("%s shows plain bytes (%v)", p, err)
			}
		}
	})
}

func TestBoxIsPerProjectAndSurvivesARestart(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		box, err := w.Box(t.Context(), "flights")
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := box.Seal([]byte("hook secret"), []byte("w1"))
		if err != nil {
			t.Fatal(err)
		}
		again, err := blob.New(w.db, w.keys, w.driver).Box(t.Context(), "flights")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := again.Open(sealed, []byte("w1")); err != nil || string(got) != "hook secret" {
			t.Errorf("after a restart: %q, %v", got, err)
		}
		other, err := w.Box(t.Context(), "weather")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.Open(sealed, []byte("w1")); !errors.Is(err, seal.ErrDamaged) {
			t.Errorf("another project opened it: %v", err)
		}
		foreign, err := seal.Open(filepath.Join(t.TempDir(), "keys"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = blob.New(w.db, foreign, w.driver).Box(t.Context(), "flights")
		if f := fault.From(err); f == nil || !strings.Contains(f.Public, "flights") || !strings.Contains(f.Next, "--keys") {
			t.Errorf("another keys folder gave %v", err)
		}
	})
}

// A key made inside a change that fails must not be used afterwards: nothing could ever open what it sealed.
func TestBoxOfAFailedChangeIsForgotten(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		abandoned := errors.New("abandoned")
		res := policy.Resource{Kind: "Run", ID: "r1", Project: "flights"}
		err := w.db.Change(storetest.As("amal"), "training.start", res, func(ctx context.Context, _ *store.Tx) (event.Draft, error) {
			if _, err := w.Box(ctx, "flights"); err != nil {
				return event.Draft{}, err
			}
			return event.Draft{}, abandoned
		})
		if !errors.Is(err, abandoned) {
			t.Fatalf("got %v", err)
		}
		ref := w.put(t, "flights", []byte("x"))
		fresh := blob.New(w.db, w.keys, w.driver)
		if err := fresh.Verify(t.Context(), "flights", ref.Digest); err != nil {
			t.Errorf("what was put afterwards does not open: %v", err)
		}
	})
}

// While the files are held a discarded blob's file stays, through a sweep too; after the release the sweep takes it.
func TestHoldKeepsFilesOfRowsThatGo(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		files := func() (n int) {
			if err := w.driver.List(t.Context(), func(blob.Entry) error { n++; return nil }); err != nil {
				t.Fatal(err)
			}
			return n
		}
		ref := w.put(t, "p", noise(1, 1000))
		release := w.Hold()
		if err := w.Discard(t.Context(), "p", ref.Digest); err != nil {
			t.Fatal(err)
		}
		if n, err := w.Sweep(t.Context(), 0); err != nil || n != 0 || files() != 1 {
			t.Errorf("swept %d (%v), %d files are left", n, err, files())
		}
		release()
		if n, err := w.Sweep(t.Context(), 0); err != nil || n != 1 || files() != 0 {
			t.Errorf("after the release: swept %d (%v), %d files are left", n, err, files())
		}
	})
}

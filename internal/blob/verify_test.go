package blob_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"falaj/internal/blob"
	"falaj/internal/kernel/seal"
	"falaj/internal/store"
	"falaj/internal/store/storetest"
)

// Every kind of damage is found, and the finding names project, digest and stored file.
func TestDamageIsFoundAndNamed(t *testing.T) {
	rewrite := func(change func([]byte) []byte) func(*testing.T, world, string) {
		return func(t *testing.T, _ world, path string) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, change(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	sql := func(text string) func(*testing.T, world, string) {
		return func(t *testing.T, w world, path string) {
			err := w.db.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
				_, err := tx.Exec(ctx, text, filepath.Base(path))
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	damages := map[string]func(*testing.T, world, string){
		"first byte":   rewrite(func(b []byte) []byte { b[0] ^= 1; return b }),
		"middle bit":   rewrite(func(b []byte) []byte { b[len(b)/2] ^= 0x10; return b }),
		"last byte":    rewrite(func(b []byte) []byte { b[len(b)-1] ^= 0x80; return b }),
		"one byte cut": rewrite(func(b []byte) []byte { return b[:len(b)-1] }),
		"emptied":      rewrite(func(b []byte) []byte { return nil }),
		"packages swapped": rewrite(func(b []byte) []byte {
			const p = 64<<10 + 32
			return append(append(append([]byte{}, b[p:2*p]...), b[:p]...), b[2*p:]...)
		}),
		"file gone": func(t *testing.T, _ world, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
		"another blob's file": func(t *testing.T, w world, path string) {
			w.put(t, "flights", noise(9, 200_000)) // same size, same project, other content
			for _, other := range w.files(t) {
				if other != path {
					rewrite(func([]byte) []byte { b, _ := os.ReadFile(other); return b })(t, w, path)
				}
			}
		},
		"size in the row":    sql(`UPDATE blobs SET size = size + 1 WHERE stored = $1`),
		"project in the row": sql(`UPDATE blobs SET project = 'flights', digest = 'sha256:` + strings.Repeat("0", 64) + `' WHERE stored = $1`),
	}
	each(t, func(t *testing.T, w world) {
		for name, damage := range damages {
			t.Run(name, func(t *testing.T) {
				w := build(t, w.db)
				ref := w.put(t, "flights", noise(8, 200_000))
				path := w.files(t)[0]
				damage(t, w, path)
				var found []blob.Finding
				if _, err := w.VerifyAll(t.Context(), func(f blob.Finding) { found = append(found, f) }); err != nil {
					t.Fatal(err)
				}
				if len(found) != 1 || found[0].Project != "flights" || found[0].Stored != filepath.Base(path) || !strings.Contains(found[0].Problem, found[0].Digest) {
					t.Fatalf("found %+v", found)
				}
				if found[0].Digest == ref.Digest {
					if err := w.Verify(t.Context(), "flights", ref.Digest); !errors.Is(err, seal.ErrDamaged) {
						t.Errorf("verify gave %v", err)
					}
					if _, err := w.get(t, "flights", ref.Digest); !errors.Is(err, seal.ErrDamaged) {
						t.Errorf("reading gave %v", err)
					}
				}
				clear(t, w)
			})
		}
	})
}

// clear empties the tables for the next damage on the same database.
func clear(t *testing.T, w world) {
	t.Helper()
	err := w.db.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM blobs`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `DELETE FROM project_keys`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPuttingAgainHealsALostFile(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		data := noise(6, 70_000)
		ref := w.put(t, "flights", data)
		if err := os.Remove(w.files(t)[0]); err != nil {
			t.Fatal(err)
		}
		w.put(t, "flights", data)
		if got, err := w.get(t, "flights", ref.Digest); err != nil || !bytes.Equal(got, data) {
			t.Errorf("after putting again: %v", err)
		}
	})
}

func TestSweepRemovesOnlyOrphans(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		kept := w.put(t, "flights", []byte("kept"))
		orphan, half := filepath.Join(w.path, "ab", "ab"+strings.Repeat("0", 30)), filepath.Join(w.path, "partial", strings.Repeat("c", 32))
		for _, p := range []string{orphan, half} {
			if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, []byte("x"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := w.Sweep(t.Context(), time.Hour); n != 0 || err != nil {
			t.Fatalf("young files were swept: %d, %v", n, err)
		}
		old := time.Now().Add(-2 * time.Hour)
		for _, p := range w.files(t) {
			if err := os.Chtimes(p, old, old); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := w.Sweep(t.Context(), time.Hour); n != 2 || err != nil {
			t.Fatalf("swept %d, %v, want 2", n, err)
		}
		if got, err := w.get(t, "flights", kept.Digest); err != nil || string(got) != "kept" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// pattern gives n bytes without holding them, and calls watch now and then.
type pattern struct {
	left  int64
	watch func()
}

func (p *pattern) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), p.left))
	for i := 0; i < n; i += 4096 {
		b[i] = byte(p.left >> 12)
	}
	if p.left>>22 != (p.left-int64(n))>>22 {
		p.watch()
	}
	p.left -= int64(n)
	return n, nil
}

// 300 MB go in and come out while the heap grows by less than 32 MiB. Not parallel: it measures the whole process.
func TestLargeContentIsNeverHeldInMemory(t *testing.T) {
	w := build(t, storetest.SQLite(t))
	w.put(t, "flights", []byte("warm"))
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	start, peak := m.HeapAlloc, m.HeapAlloc
	watch := func() {
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapAlloc)
	}
	const size = 300_000_000
	ref, err := w.Put(t.Context(), "flights", &pattern{left: size, watch: watch})
	if err != nil || ref.Size != size {
		t.Fatalf("put %v, %v", ref, err)
	}
	o, err := w.Open(t.Context(), "flights", ref.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	buf := make([]byte, 1<<20)
	var total int64
	for {
		n, err := o.Read(buf)
		if total += int64(n); total>>22 != (total-int64(n))>>22 {
			watch()
		}
		if err != nil {
			if err != io.EOF {
				t.Fatal(err)
			}
			break
		}
	}
	if total != size {
		t.Errorf("read %d bytes", total)
	}
	if grown := peak - start; grown >= 32<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	} else {
		t.Logf("the heap grew by %d KiB", grown>>10)
	}
}

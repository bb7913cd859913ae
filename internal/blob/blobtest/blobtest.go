// Package blobtest is the contract of blob.Driver as tests: a driver is done when Run passes on the real engine.
// It is imported by tests only.
package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"falaj/internal/blob"
	"falaj/internal/kernel/fault"
)

// Run holds a driver to its promises; open gives an empty one that is closed with the test.
func Run(t *testing.T, open func(t *testing.T) blob.Driver) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, blob.Driver){
		"round trip and random access":      roundTrip,
		"missing":                           missing,
		"a failed upload leaves nothing":    failedUpload,
		"a cancelled upload leaves nothing": cancelled,
		"names are used once":               usedOnce,
		"hostile names":                     hostileNames,
		"list":                              list,
		"many at once":                      manyAtOnce,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// name makes distinct names that differ in their first digits too.
func name(n int) string { return fmt.Sprintf("%02x%030x", n, n) }

func fill(data []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
}

func upload(t *testing.T, d blob.Driver, name string, data []byte) {
	t.Helper()
	if err := d.Upload(t.Context(), name, fill(data)); err != nil {
		t.Fatalf("upload %s: %v", name, err)
	}
}

func content(t *testing.T, d blob.Driver, name string) []byte {
	t.Helper()
	f, err := d.Open(t.Context(), name)
	if err != nil {
		t.Fatalf("open %s: %v", name, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
	return data
}

func names(t *testing.T, d blob.Driver) (out []string) {
	t.Helper()
	err := d.List(t.Context(), func(e blob.Entry) error {
		if e.Partial {
			out = append(out, "partial "+e.Name)
		} else {
			out = append(out, e.Name)
		}
		if time.Since(e.Modified).Abs() > time.Hour {
			t.Errorf("%s was modified %v", e.Name, e.Modified)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	slices.Sort(out)
	return out
}

func roundTrip(t *testing.T, d blob.Driver) {
	for i, data := range [][]byte{{}, []byte("x"), bytes.Repeat([]byte("0123456789"), 100_000)} {
		upload(t, d, name(i), data)
		if got := content(t, d, name(i)); !bytes.Equal(got, data) {
			t.Errorf("%d bytes came back as %d", len(data), len(got))
		}
	}
	f, err := d.Open(t.Context(), name(2))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 5)
	if n, err := f.ReadAt(buf, 777_777); n != 5 || err != nil || string(buf) != "78901" {
		t.Errorf("ReadAt gave %q, %d, %v", buf, n, err)
	}
	if n, err := f.ReadAt(buf, f.Size()-2); n != 2 || err != io.EOF {
		t.Errorf("ReadAt past the end gave %d, %v", n, err)
	}
}

func missing(t *testing.T, d blob.Driver) {
	if _, err := d.Open(t.Context(), name(1)); !fault.Is(err, fault.NotFound) {
		t.Errorf("open gave %v, want not found", err)
	}
	if err := d.Discard(t.Context(), name(1)); err != nil {
		t.Errorf("discard of nothing gave %v", err)
	}
	upload(t, d, name(1), []byte("x"))
	if err := d.Discard(t.Context(), name(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Open(t.Context(), name(1)); !fault.Is(err, fault.NotFound) {
		t.Errorf("open after discard gave %v", err)
	}
}

var errSource = errors.New("the source broke")

func failedUpload(t *testing.T, d blob.Driver) {
	err := d.Upload(t.Context(), name(1), func(w io.Writer) error {
		if err := fill(make([]byte, 1<<20))(w); err != nil {
			return err
		}
		if _, err := d.Open(context.Background(), name(1)); !fault.Is(err, fault.NotFound) {
			t.Errorf("half an upload is visible: %v", err)
		}
		return errSource
	})
	if !errors.Is(err, errSource) {
		t.Errorf("got %v, want fill's own error", err)
	}
	if got := names(t, d); len(got) != 0 {
		t.Errorf("left %v", got)
	}
	upload(t, d, name(1), []byte("again"))
	if got := content(t, d, name(1)); string(got) != "again" {
		t.Errorf("got %q", got)
	}
}

func cancelled(t *testing.T, d blob.Driver) {
	ctx, cancel := context.WithCancel(t.Context())
	err := d.Upload(ctx, name(1), func(w io.Writer) error {
		cancel()
		return fill([]byte("x"))(w)
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := names(t, d); len(got) != 0 {
		t.Errorf("left %v", got)
	}
}

func usedOnce(t *testing.T, d blob.Driver) {
	upload(t, d, name(1), []byte("first"))
	if err := d.Upload(t.Context(), name(1), fill([]byte("second"))); err == nil {
		t.Error("an existing file was replaced")
	}
	if got := content(t, d, name(1)); string(got) != "first" {
		t.Errorf("got %q", got)
	}
}

func hostileNames(t *testing.T, d blob.Driver) {
	for _, bad := range []string{"", "a", "../../../../etc/passwd", "/etc/passwd", "ab/cdef", "ABCDEF", "abc\x00def", "..", strings.Repeat("a", 300)} {
		if err := d.Upload(t.Context(), bad, fill([]byte("x"))); !fault.Is(err, fault.Invalid) {
			t.Errorf("upload %q gave %v", bad, err)
		}
		if _, err := d.Open(t.Context(), bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("open %q gave %v", bad, err)
		}
		if err := d.Discard(t.Context(), bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("discard %q gave %v", bad, err)
		}
	}
}

func list(t *testing.T, d blob.Driver) {
	var want []string
	for i := range 40 {
		upload(t, d, name(i), []byte("x"))
		want = append(want, name(i))
	}
	slices.Sort(want)
	if got := names(t, d); !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
	stop := errors.New("enough")
	calls := 0
	err := d.List(t.Context(), func(blob.Entry) error { calls++; return stop })
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("an error of fn gave %v after %d calls", err, calls)
	}
	err = d.Upload(t.Context(), name(99), func(w io.Writer) error {
		if got := names(t, d); !slices.Contains(got, "partial "+name(99)) && slices.Contains(got, name(99)) {
			t.Errorf("an upload in progress is listed as whole: %v", got)
		}
		return fill([]byte("x"))(w)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func manyAtOnce(t *testing.T, d blob.Driver) {
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			data := bytes.Repeat([]byte{byte(i)}, 100_000+i)
			if err := d.Upload(t.Context(), name(i), fill(data)); err != nil {
				t.Error(err)
				return
			}
			if got := content(t, d, name(i)); !bytes.Equal(got, data) {
				t.Errorf("file %d came back changed", i)
			}
		})
	}
	wg.Wait()
}

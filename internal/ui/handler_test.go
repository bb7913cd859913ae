package ui

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

func built() fstest.MapFS {
	return fstest.MapFS{
		".gitkeep":             {Data: []byte{}},
		"manifest.json":        {Data: []byte("{}")},
		"index.html":           {Data: []byte("<!doctype html><title>falaj</title>")},
		"assets/index-1a2b.js": {Data: []byte(strings.Repeat("let a = 1;\n", 200))},
		"assets/plex-3c.woff2": {Data: []byte(strings.Repeat("w", 2000))},
	}
}

func get(t *testing.T, h http.Handler, method, target string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestHandlerServesTheBuild(t *testing.T) {
	t.Parallel()
	h := handler(built())
	for _, c := range []struct {
		method, path string
		status       int
		kind, cache  string
	}{
		{"GET", "/", 200, "text/html; charset=utf-8", "no-cache"},
		{"HEAD", "/", 200, "text/html; charset=utf-8", "no-cache"},
		{"GET", "/index.html", 200, "text/html; charset=utf-8", "no-cache"},
		{"GET", "/assets/index-1a2b.js", 200, "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"},
		{"GET", "/assets/plex-3c.woff2", 200, "font/woff2", "public, max-age=31536000, immutable"},
		{"GET", "/.gitkeep", 404, "", "no-store"},
		{"GET", "/manifest.json", 404, "", "no-store"},
		{"GET", "/assets/", 404, "", "no-store"},
		{"GET", "/assets/../../handler.go", 404, "", "no-store"},
		{"GET", "/models", 404, "", "no-store"},
		{"POST", "/", 405, "", ""},
	} {
		r := get(t, h, c.method, c.path)
		if r.StatusCode != c.status {
			t.Errorf("%s %s: status %d, want %d", c.method, c.path, r.StatusCode, c.status)
		}
		if got := r.Header.Get("Cache-Control"); got != c.cache {
			t.Errorf("%s %s: Cache-Control %q, want %q", c.method, c.path, got, c.cache)
		}
		if got := r.Header.Get("Content-Type"); c.kind != "" && got != c.kind {
			t.Errorf("%s %s: Content-Type %q, want %q", c.method, c.path, got, c.kind)
		}
		if b := body(t, r); c.method == "HEAD" && b != "" {
			t.Errorf("%s %s: body of %d bytes", c.method, c.path, len(b))
		}
	}
}

func TestHandlerForbidsForeignCode(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/", "/assets/index-1a2b.js", "/missing"} {
		r := get(t, handler(built()), "GET", path)
		csp := r.Header.Get("Content-Security-Policy")
		if !strings.HasPrefix(csp, "default-src 'self';") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: Content-Security-Policy %q", path, csp)
		}
		if r.Header.Get("X-Content-Type-Options") != "nosniff" || r.Header.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s: headers %v", path, r.Header)
		}
	}
}

func TestHandlerRevalidatesAndCompresses(t *testing.T) {
	t.Parallel()
	h := handler(built())
	first := get(t, h, "GET", "/")
	if again := get(t, h, "GET", "/", "If-None-Match", first.Header.Get("ETag")); again.StatusCode != http.StatusNotModified {
		t.Errorf("same ETag: status %d, want 304", again.StatusCode)
	}
	packed := get(t, h, "GET", "/assets/index-1a2b.js", "Accept-Encoding", "br, gzip")
	if got := packed.Header.Get("Content-Encoding"); got != "gzip" {
		t.Fatalf("Content-Encoding %q, want gzip", got)
	}
	z, err := gzip.NewReader(packed.Body)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if want := body(t, get(t, h, "GET", "/assets/index-1a2b.js")); string(plain) != want {
		t.Errorf("unpacked %d bytes differ from the %d plain ones", len(plain), len(want))
	}
	if font := get(t, h, "GET", "/assets/plex-3c.woff2", "Accept-Encoding", "gzip"); font.Header.Get("Content-Encoding") != "" {
		t.Error("a woff2 file is compressed twice")
	}
}

func TestHandlerSaysThatNothingWasBuilt(t *testing.T) {
	t.Parallel()
	r := get(t, handler(fstest.MapFS{".gitkeep": {}}), "GET", "/")
	if r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %d, want 503", r.StatusCode)
	}
	if b := body(t, r); !strings.Contains(b, "UI not built: run make ui") {
		t.Errorf("page does not say what to do:\n%s", b)
	}
}

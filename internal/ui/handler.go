package ui

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"sync"
)

// Policy is the Content-Security-Policy of every page: own files only, no inline code or style,
// no evaluation, no frame around it, and HTML only through Svelte's own Trusted Types policy.
const Policy = "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; " +
	"object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; " +
	"require-trusted-types-for 'script'; trusted-types svelte-trusted-html"

// Built says whether the pages are in this binary.
func Built() bool {
	_, err := fs.Stat(files(), "index.html")
	return err == nil
}

// Handler serves the pages: GET and HEAD of "/" and of the files it names. Every other path is a
// plain 404, because the pages route by fragment and need no fallback. Files under assets/ carry
// their hash in the name and are cached for a year; everything else is revalidated by ETag.
func Handler() http.Handler { return handler(files()) }

func handler(root fs.FS) http.Handler {
	s := &site{root: root, pages: map[string]*page{}}
	return http.HandlerFunc(s.serve)
}

type site struct {
	root fs.FS
	mu   sync.Mutex
	// pages by name, read and compressed at first use; guarded by mu. The set is closed: only
	// names that exist in root get in.
	pages map[string]*page
}

type page struct {
	body, gzipped []byte
	kind, etag    string
}

func (s *site) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", Policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")

	name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
	if name == "" {
		name = "index.html"
	}
	p, err := s.page(name)
	switch {
	case err == nil:
	case name == "index.html":
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(http.StatusServiceUnavailable)
		if r.Method == http.MethodGet {
			_, _ = w.Write([]byte(notBuilt))
		}
		return
	default:
		h.Set("Cache-Control", "no-store")
		http.NotFound(w, r)
		return
	}

	h.Set("Content-Type", p.kind)
	h.Set("ETag", p.etag)
	h.Set("Vary", "Accept-Encoding")
	if strings.HasPrefix(name, "assets/") {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	} else {
		h.Set("Cache-Control", "no-cache")
	}
	if match := r.Header.Get("If-None-Match"); match == p.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := p.body
	if p.gzipped != nil && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = p.gzipped
	}
	if r.Method == http.MethodGet {
		_, _ = w.Write(body)
	}
}

// page reads one file of the build; hidden files and folders do not exist for the outside.
func (s *site) page(name string) (*page, error) {
	if strings.HasPrefix(path.Base(name), ".") || name == "manifest.json" {
		return nil, fs.ErrNotExist
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.pages[name]; ok {
		return p, nil
	}
	body, err := fs.ReadFile(s.root, name)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	p := &page{body: body, kind: contentType(name), etag: `"` + hex.EncodeToString(sum[:16]) + `"`}
	if !strings.HasSuffix(name, ".woff2") && len(body) > 512 {
		var packed bytes.Buffer
		z, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression) // the level is a constant: no error possible
		if _, err := z.Write(body); err != nil {
			return nil, err
		}
		if err := z.Close(); err != nil {
			return nil, err
		}
		p.gzipped = packed.Bytes()
	}
	s.pages[name] = p
	return p, nil
}

// contentType does not depend on the machine's mime tables for what the build contains.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".woff2":
		return "font/woff2"
	}
	if kind := mime.TypeByExtension(path.Ext(name)); kind != "" {
		return kind
	}
	return "application/octet-stream"
}

const notBuilt = `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>falaj: UI not built</title></head>
<body>
<h1>UI not built: run make ui</h1>
<p>This falaj was built without its pages. The server, its API and the command line work as usual; <code>make ui</code> (Node 20.19 or newer) followed by <code>make</code> puts the pages in.</p>
</body>
</html>
`

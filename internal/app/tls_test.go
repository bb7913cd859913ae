package app

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/pki"
	"falaj/internal/kernel/seal"
)

// Beyond loopback nothing listens without TLS, and open mode not at all; the error names the way out.
func TestBeyondLoopback(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		cfg  Config
		next string // "" is allowed
	}{
		"loopback":            {Config{Listen: "127.0.0.1:0"}, ""},
		"loopback off":        {Config{Listen: "[::1]:0", TLS: "off"}, ""},
		"loopback open":       {Config{Listen: "localhost:0", Open: true, TLS: "auto"}, ""},
		"everywhere":          {Config{Listen: "0.0.0.0:0"}, "Give --tls auto (a certificate by falaj's own CA) or --tls CERT.pem,KEY.pem, and --host NAME for each name that clients use; or listen on 127.0.0.1."},
		"everywhere, no host": {Config{Listen: ":0", TLS: "off"}, "Give --tls auto (a certificate by falaj's own CA) or --tls CERT.pem,KEY.pem, and --host NAME for each name that clients use; or listen on 127.0.0.1."},
		"address":             {Config{Listen: "10.0.0.5:0"}, "Give --tls auto (a certificate by falaj's own CA) or --tls CERT.pem,KEY.pem, and --host NAME for each name that clients use; or listen on 127.0.0.1."},
		"auto":                {Config{Listen: "0.0.0.0:0", TLS: "auto"}, ""},
		"files":               {Config{Listen: "10.0.0.5:0", TLS: "a.pem, b.pem"}, ""},
		"open":                {Config{Listen: "0.0.0.0:0", TLS: "auto", Open: true}, "Leave out --open, or listen on 127.0.0.1."},
		"half":                {Config{Listen: "127.0.0.1:0", TLS: "a.pem"}, "Give --tls auto, --tls CERT.pem,KEY.pem, or --tls off on loopback."},
		"three":               {Config{Listen: "127.0.0.1:0", TLS: "a,b,c"}, "Give --tls auto, --tls CERT.pem,KEY.pem, or --tls off on loopback."},
	} {
		tc.cfg.Data = t.TempDir()
		_, err := tc.cfg.Complete()
		if (err == nil) != (tc.next == "") || err != nil && fault.From(err).Next != tc.next {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNamesOfTheServer(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		listen string
		hosts  []string
		want   []string
	}{
		{"127.0.0.1:1", []string{"ml.example"}, []string{"ml.example"}},
		{"0.0.0.0:1", []string{"ml.example"}, []string{"ml.example"}},
		{"10.0.0.5:1", nil, []string{"10.0.0.5"}},
		{"[fd00::5]:1", []string{"ml.example"}, []string{"ml.example", "fd00::5"}},
	} {
		if got := (Config{Listen: tc.listen, Hosts: tc.hosts}).names(); !slices.Equal(got, tc.want) {
			t.Errorf("%s %v: %v", tc.listen, tc.hosts, got)
		}
	}
}

// The CA stays the same over starts, is public, and goes from the data directory when it vouches for nothing any more.
func TestAuthorityOfADataDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	public := filepath.Join(dir, CAFile)
	start := func(cfg Config) (*App, error) {
		cfg.Data, cfg.Listen = dir, "127.0.0.1:0"
		return New(context.Background(), cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
	}
	var first []byte
	for range 2 {
		a, err := start(Config{TLS: "auto"})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		a.door.ServeHTTP(w, httptest.NewRequest("GET", "https://127.0.0.1/ca.pem", nil))
		b, err := os.ReadFile(public)
		if err != nil || w.Code != 200 || !bytes.Equal(w.Body.Bytes(), b) {
			t.Errorf("/ca.pem: %d, %v", w.Code, err)
		}
		if first != nil && !bytes.Equal(first, b) {
			t.Error("another CA at the second start")
		}
		first = b
		if err := a.Stop(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	a, err := start(Config{})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	a.door.ServeHTTP(w, httptest.NewRequest("GET", "http://127.0.0.1/ca.pem", nil))
	if _, err := os.Stat(public); err == nil || w.Code != 404 {
		t.Errorf("without TLS there is a CA: %d", w.Code)
	}
	if err := a.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}

	keys, err := seal.Open(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "tls", "ca.json")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.OpenAuthority(file, envelope{keys}, time.Now().Add(-11*365*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if a, err := start(Config{TLS: "auto"}); err == nil || !bytes.Contains([]byte(err.Error()), []byte("expired on")) {
		if err == nil {
			a.Stop(context.Background())
		}
		t.Errorf("started with an expired CA: %v", err)
	}
}

package pki

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"falaj/internal/kernel/fault"
)

// box is a keyset of one key.
type box struct{ cipher.AEAD }

func newBox(t *testing.T) box {
	t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	b, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	a, err := cipher.NewGCMWithRandomNonce(b)
	if err != nil {
		t.Fatal(err)
	}
	return box{a}
}

func (b box) Seal(plain, aad []byte) ([]byte, error) {
	return b.AEAD.Seal(nil, nil, plain, aad), nil
}
func (b box) Open(sealed, aad []byte) ([]byte, error) {
	return b.AEAD.Open(nil, nil, sealed, aad)
}

func authority(t *testing.T, now time.Time) *Authority {
	t.Helper()
	a, err := OpenAuthority(filepath.Join(t.TempDir(), "tls", "ca.json"), newBox(t), now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// shake is one handshake over a pipe.
func shake(server, client *tls.Config) (tls.ConnectionState, error) {
	a, b := net.Pipe()
	done := make(chan error, 1)
	go func() {
		s := tls.Server(a, server)
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x")) // a client of TLS 1.3 is done before the server has answered
		}
		a.Close()
		done <- err
	}()
	c := tls.Client(b, client)
	err := c.Handshake()
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	b.Close()
	return c.ConnectionState(), errors.Join(err, <-done)
}

func pool(a *Authority) *x509.CertPool {
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(a.PEM())
	return p
}

// The CA vouches for its names and for no others, to those who know it, by TLS 1.3 only.
func TestHandshakes(t *testing.T) {
	t.Parallel()
	a := authority(t, time.Now())
	leaf, err := a.Leaf([]string{"localhost", "127.0.0.1", "ml.example"}, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	server, roots := Config(leaf.Certificate), pool(a)
	for _, c := range []struct {
		name   string
		client *tls.Config
		ok     bool
	}{
		{"localhost", &tls.Config{RootCAs: roots, ServerName: "localhost"}, true},
		{"address", &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}, true},
		{"name", &tls.Config{RootCAs: roots, ServerName: "ml.example"}, true},
		{"another name", &tls.Config{RootCAs: roots, ServerName: "other.example"}, false},
		{"another address", &tls.Config{RootCAs: roots, ServerName: "127.0.0.2"}, false},
		{"CA not known", &tls.Config{ServerName: "localhost"}, false},
		{"another CA of ours", &tls.Config{RootCAs: pool(authority(t, time.Now())), ServerName: "localhost"}, false},
		{"TLS 1.2", &tls.Config{RootCAs: roots, ServerName: "localhost", MaxVersion: tls.VersionTLS12}, false},
	} {
		state, err := shake(server, c.client)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil && state.Version != tls.VersionTLS13 {
			t.Errorf("%s: version %x", c.name, state.Version)
		}
	}
}

// A CA is read back as it was made; the key does not lie in clear; another keyset does not open it.
func TestAuthorityIsKept(t *testing.T) {
	t.Parallel()
	file, b := filepath.Join(t.TempDir(), "ca.json"), newBox(t)
	a, err := OpenAuthority(file, b, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenAuthority(file, b, time.Now())
	if err != nil || !bytes.Equal(a.PEM(), again.PEM()) {
		t.Fatalf("another CA after reading: %v", err)
	}
	plain, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil || bytes.Contains(text, plain[40:60]) {
		t.Errorf("the key lies in clear: %v", err)
	}
	st, err := os.Stat(file)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v", st.Mode(), err)
	}
	if _, err := OpenAuthority(file, newBox(t), time.Now()); !says(err, "does not open with this keyset", "Move "+file) {
		t.Errorf("another keyset: %v", err)
	}
	other := filepath.Join(t.TempDir(), "ca.json")
	if _, err := OpenAuthority(other, b, time.Now()); err != nil {
		t.Fatal(err)
	}
	// A key beside the certificate of another CA is bound to its own.
	foreign, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	mixed := strings.Replace(string(text), between(string(text), `"key": "`), between(string(foreign), `"key": "`), 1)
	put(t, other, mixed, 0o600)
	if _, err := OpenAuthority(other, b, time.Now()); !says(err, "does not open") {
		t.Errorf("a key of another certificate: %v", err)
	}
	for name, body := range map[string]string{"JSON": "{", "certificate": `{"format":1}`} {
		put(t, other, body, 0o600)
		if _, err := OpenAuthority(other, b, time.Now()); !says(err, "damaged", "Restore") {
			t.Errorf("%s: %v", name, err)
		}
	}
	put(t, other, `{"format":9}`, 0o600)
	if _, err := OpenAuthority(other, b, time.Now()); !says(err, "format 9") {
		t.Errorf("a newer format: %v", err)
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAuthority(file, b, time.Now()); !says(err, "open to other users", "chmod 0600") {
		t.Errorf("readable by others: %v", err)
	}
}

func between(s, from string) string {
	_, rest, _ := strings.Cut(s, from)
	out, _, _ := strings.Cut(rest, `"`)
	return out
}

func TestExpiredAuthorityIsRefused(t *testing.T) {
	t.Parallel()
	file, b, now := filepath.Join(t.TempDir(), "ca.json"), newBox(t), time.Now()
	if _, err := OpenAuthority(file, b, now.Add(-11*365*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAuthority(file, b, now); !says(err, "expired on", "Move "+file) {
		t.Errorf("%v", err)
	}
	if _, err := OpenAuthority(file, b, now.Add(-20*365*24*time.Hour)); !says(err, "Set the clock") {
		t.Errorf("%v", err)
	}
}

// A leaf is replaced in time, again and again, and every handshake in between sees a valid one; it never outlives its CA.
func TestLeafRenewsItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := authority(t, time.Now())
		var warned []error
		leaf, err := a.Leaf([]string{"localhost"}, func(err error) { warned = append(warned, err) })
		if err != nil {
			t.Fatal(err)
		}
		serials := map[string]bool{}
		for range 24 * 14 {
			state, err := shake(Config(leaf.Certificate), &tls.Config{RootCAs: pool(a), ServerName: "localhost"})
			if err != nil {
				t.Fatalf("at %s: %v", time.Now(), err)
			}
			c := state.PeerCertificates[0]
			if left := time.Until(c.NotAfter); left < renewBefore || left > leafLife {
				t.Fatalf("a certificate that lives %s more", left)
			}
			serials[c.SerialNumber.String()] = true
			time.Sleep(time.Hour)
		}
		if n := len(serials); n < 14*24/17 || n > 14*24/15+1 {
			t.Errorf("%d certificates in 14 days", n)
		}
		time.Sleep(time.Until(a.Expires().Add(-time.Hour)))
		c, err := leaf.Certificate(nil)
		if err != nil || c.Leaf.NotAfter.After(a.Expires()) {
			t.Errorf("outlives its CA: %v", err)
		}
		time.Sleep(2 * time.Hour)
		if _, err := leaf.Certificate(nil); !says(err, "expired on") {
			t.Errorf("after its CA: %v", err)
		}
		if len(warned) != 0 {
			t.Error(warned)
		}
	})
}

func TestNamesThatCannotStandInACertificate(t *testing.T) {
	t.Parallel()
	if _, err := authority(t, time.Now()).Leaf([]string{"مثال.example"}, nil); !says(err, "No certificate can be made", "xn--") {
		t.Error(err)
	}
}

// made is a certificate as somebody else would issue it.
type made struct {
	names    []string
	from, to time.Time
	use      []x509.ExtKeyUsage
}

func (m made) issue(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{Subject: pkix.Name{CommonName: "test"}, DNSNames: m.names, NotBefore: m.from, NotAfter: m.to, ExtKeyUsage: m.use}, &x509.Certificate{Subject: pkix.Name{CommonName: "test"}}, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(encode(raw)), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func good() made {
	return made{names: []string{"localhost"}, from: time.Now().Add(-time.Hour), to: time.Now().Add(48 * time.Hour), use: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
}

func put(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// says reads a fault: words in what and why or in the next step.
func says(err error, words ...string) bool {
	var f *fault.E
	if !errors.As(err, &f) || f.Next == "" {
		return false
	}
	for _, w := range words {
		if !strings.Contains(f.Public+" | "+f.Next, w) {
			return false
		}
	}
	return true
}

func TestBadFilesAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, k := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	cert, key := good().issue(t)
	_, otherKey := good().issue(t)
	old, young, nameless, client := good(), good(), good(), good()
	old.to = time.Now().Add(-time.Minute)
	young.from = time.Now().Add(time.Hour)
	nameless.names = nil
	client.use = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	oldCert, oldKey := old.issue(t)
	youngCert, youngKey := young.issue(t)
	namelessCert, namelessKey := nameless.issue(t)
	clientCert, clientKey := client.issue(t)
	oldCA := encode(authority(t, time.Now().Add(-11*365*24*time.Hour)).cert.Raw)
	for name, tc := range map[string]struct {
		cert, key string
		mode      os.FileMode
		words     []string
	}{
		"no certificate file": {"", key, 0o600, []string{"There is no file " + c, "--tls auto"}},
		"no key file":         {cert, "", 0o600, []string{"There is no file " + k, "--tls CERT.pem,KEY.pem"}},
		"another key":         {cert, otherKey, 0o600, []string{"does not belong to the certificate"}},
		"group can read":      {cert, key, 0o640, []string{"open to other users (mode 0640)", "chmod 0600 " + k}},
		"others can read":     {cert, key, 0o604, []string{"open to other users"}},
		"expired":             {oldCert, oldKey, 0o600, []string{"expired on"}},
		"expired CA in chain": {cert + string(oldCA), key, 0o600, []string{"The CA certificate 'falaj CA", "expired on"}},
		"not yet":             {youngCert, youngKey, 0o600, []string{"valid from"}},
		"no names":            {namelessCert, namelessKey, 0o600, []string{"subjectAltName"}},
		"for clients":         {clientCert, clientKey, 0o600, []string{"not for a server"}},
		"swapped":             {key, cert, 0o600, []string{"holds no certificate"}},
		"no key in it":        {cert, "hello", 0o600, []string{"holds no private key"}},
		"damaged key":         {cert, "-----BEGIN PRIVATE" + " KEY-----\naGVsbG8=\n-----END PRIVATE" + " KEY-----\n", 0o600, []string{"is damaged"}},
		"passphrase":          {cert, "-----BEGIN ENCRYPTED PRIVATE" + " KEY-----\naGVsbG8=\n-----END ENCRYPTED PRIVATE" + " KEY-----\n", 0o600, []string{"passphrase", "openssl pkey"}},
	} {
		os.Remove(c)
		os.Remove(k)
		if tc.cert != "" {
			put(t, c, tc.cert, 0o644)
		}
		if tc.key != "" {
			put(t, k, tc.key, tc.mode)
		}
		if _, err := OpenFiles(c, k, nil); !says(err, tc.words...) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// New files are taken without a restart, half of a replacement is waited out, and what is wrong is told once.
func TestFilesAreReadAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		c, k := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
		cert, key := good().issue(t)
		put(t, c, cert, 0o644)
		put(t, k, key, 0o600)
		var warned []error
		f, err := OpenFiles(c, k, func(err error) { warned = append(warned, err) })
		if err != nil {
			t.Fatal(err)
		}
		shown := func() string {
			got, err := f.Certificate(nil)
			if err != nil {
				t.Fatal(err)
			}
			return string(encode(got.Certificate[0]))
		}
		second, secondKey := good().issue(t)
		put(t, c, second, 0o644)
		for range 5 {
			time.Sleep(2 * time.Second)
			if shown() != cert {
				t.Fatal("a certificate without its key is shown")
			}
		}
		if len(warned) != 1 || !says(warned[0], "does not belong") {
			t.Errorf("told %d times: %v", len(warned), warned)
		}
		put(t, k, secondKey, 0o600)
		time.Sleep(time.Second)
		if shown() != second {
			t.Error("the new certificate is not shown a second later")
		}
		os.Remove(k)
		time.Sleep(time.Second)
		if shown() != second {
			t.Error("a file that went away takes the certificate away")
		}
		if len(warned) != 2 || !says(warned[1], "There is no file") {
			t.Errorf("told: %v", warned)
		}
		put(t, k, secondKey, 0o600)
		time.Sleep(72 * time.Hour)
		shown()
		if n := len(warned); n != 3 || !says(warned[2], "expired on") {
			t.Errorf("the end of the certificate is not told: %v", warned)
		}
	})
}

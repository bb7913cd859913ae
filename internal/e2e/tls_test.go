package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// secured makes a server with TLS that listens on every address and is asked on loopback.
func secured(t *testing.T, tlsFlag, ca string, flags ...string) *server {
	t.Helper()
	s := prepare(t, "", append([]string{"--tls", tlsFlag}, flags...)...)
	s.url, s.ca = "https://"+s.listen, ca
	if ca == "" {
		s.ca = filepath.Join(s.data, "ca.pem")
	}
	_, port, err := net.SplitHostPort(s.listen)
	if err != nil {
		t.Fatal(err)
	}
	s.listen = "0.0.0.0:" + port
	return s
}

// outside is an address of this machine that is not loopback; "" where it has none.
func outside(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	return ""
}

// The tiny story over https, by a server that everybody may reach: training, integration tests and predictions too.
func TestTLS(t *testing.T) {
	t.Parallel()
	flags := []string{"--host", "ml.example"}
	if ip := outside(t); ip != "" {
		flags = append(flags, "--host", ip)
	}
	s := secured(t, "auto", "", flags...)
	s.start()
	w := inhabit(s)
	promoted(w)
	if a := w.infer(w.amal.token, "production", "", time.Time{}); a.status != 200 {
		t.Errorf("predict: %d %s %v", a.status, a.body, a.err)
	}
	w.clean()
	_, port, err := net.SplitHostPort(s.listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("who trusts", func(t *testing.T) {
		v := w.in(t)
		if r := v.amal.ok("status"); !strings.Contains(r.out, "breaks") {
			t.Errorf("login does not remember the CA: %s", r.out)
		}
		v.refusal(v.command(v.dir, t.TempDir(), "", "status"), 3, "nothing was sent", "--ca FILE", "FALAJ_CA", "falaj ca")
		v.refusal(v.command(v.dir, t.TempDir(), "", "status", "--ca", filepath.Join(v.dir, "falaj.yaml")), 1, "holds no certificate", "--ca FILE")
		v.refusal(v.command(v.dir, t.TempDir(), "", "status", "--ca", "nowhere.pem"), 1, "nowhere.pem cannot be read", "--ca")
		v.refusal(v.command(v.dir, t.TempDir(), "", "status", "--server", "http://127.0.0.1:"+port), 1, "TLS only", "https://127.0.0.1:"+port)
		v.refusal(v.command(v.dir, t.TempDir(), "", "status", "--ca", v.ca, "--server", "http://127.0.0.1:"+port), 1, "without TLS", "--ca")
		v.refusal(v.command(v.dir, t.TempDir(), password+"\n", "login", "--user", "amal"), 3, "nothing was sent", "--ca")
		ca, err := os.ReadFile(v.ca)
		if err != nil {
			t.Fatal(err)
		}
		if r := v.command(v.dir, t.TempDir(), "", "ca", "--data", v.data); r.code != 0 || r.out != string(ca) {
			t.Errorf("falaj ca: %d %s%s", r.code, r.out, r.err)
		}
		if a := v.call("", "GET", "/ca.pem", nil); a.status != 200 || string(a.body) != string(ca) {
			t.Errorf("/ca.pem: %d %s", a.status, a.body)
		}
	})
	t.Run("how it speaks", func(t *testing.T) {
		v := w.in(t)
		if _, err := http.Get(v.url + "/healthz"); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("without the CA: %v", err)
		}
		onlyTLS13(t, "127.0.0.1:"+port)
		a := v.call("", "POST", apiBase+"/login", map[string]string{"user": "amal", "password": password})
		if c := a.header.Get("Set-Cookie"); !strings.Contains(c, "Secure") || !strings.Contains(c, "HttpOnly") {
			t.Errorf("the session's cookie: %q", c)
		}
	})
	t.Run("which names", func(t *testing.T) {
		v := w.in(t)
		if ip := outside(t); ip == "" {
			t.Log("this machine has no address beside loopback")
		} else {
			v.url = "https://" + net.JoinHostPort(ip, port)
			if a := v.call("", "GET", "/healthz", nil); a.status != 200 {
				t.Errorf("by its address: %d %s %v", a.status, a.body, a.err)
			}
			v.url = w.url
		}
		v.problem(v.request("", "GET", "/healthz", nil, "Host", "rebound.example"), 403, "rebound.example", "--host NAME")
		if a := v.request("", "GET", "/healthz", nil, "Host", "ml.example"); a.status != 200 {
			t.Errorf("by its name: %d %s %v", a.status, a.body, a.err)
		}
	})
	if text := s.out.String(); !strings.Contains(text, "https://ml.example:"+port+"/#/setup?token=") {
		t.Errorf("the first link is not for people elsewhere: %s", text)
	}
}

// onlyTLS13 demands of a listener that it answers nothing in clear, and no handshake below TLS 1.3, whoever vouches for it.
func onlyTLS13(t *testing.T, addr string) {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/healthz")
	if err != nil || resp.StatusCode != 400 || strings.Contains(string(readAll(t, resp.Body)), "ok\n") {
		t.Errorf("%s in clear: %v %v", addr, resp, err)
	}
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
		// What is asked is the version; who answers is TestTLS's.
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version}) //nolint:gosec // see above
		if err == nil {
			c.Close()
		}
		if (err == nil) != (version == tls.VersionTLS13) || err != nil && !strings.Contains(err.Error(), "protocol version") {
			t.Errorf("%s by %s: %v", addr, tls.VersionName(version), err)
		}
	}
}

// listeners are the TCP addresses that the server's process listens on, as the kernel knows them.
func (s *server) listeners() (out []string) {
	s.t.Helper()
	s.mu.Lock()
	pid := s.cmd.Process.Pid
	s.mu.Unlock()
	own := map[string]bool{}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil {
			own[to] = true
		}
	}
	for _, table := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			continue // no IPv6
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != "0A" || !own["socket:["+f[9]+"]"] {
				continue
			}
			_, hex, _ := strings.Cut(f[1], ":")
			port, err := strconv.ParseUint(hex, 16, 16)
			if err != nil {
				s.t.Fatal(err)
			}
			out = append(out, fmt.Sprintf("127.0.0.1:%d", port))
		}
	}
	return out
}

// Tenet 2 of NIST SP 800-207: all communication is secured, wherever it comes from. Every socket that a server with TLS listens
// on, also the one for its own jobs, refuses plaintext and everything below TLS 1.3; without TLS it does not start beyond
// loopback. Client certificates of workers are not built: a worker is a child that talks by pipes, or holds a run's token.
func TestZT_2(t *testing.T) {
	t.Parallel()
	ca, dir := newAuthority(t), t.TempDir()
	ca.issue(dir, time.Now().Add(48*time.Hour))
	for name, s := range map[string]struct {
		*server
		sockets int
	}{
		"auto":  {secured(t, "auto", ""), 1},
		"files": {secured(t, filepath.Join(dir, "cert.pem")+","+filepath.Join(dir, "key.pem"), ca.file, "--host", "ml.example"), 2},
	} {
		s.start()
		found := s.listeners()
		if len(found) != s.sockets {
			t.Errorf("%s: it listens on %v, want %d sockets", name, found, s.sockets)
		}
		for _, addr := range found {
			onlyTLS13(t, addr)
		}
	}
	for _, listen := range []string{"0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:0"} {
		refusedAtStart(t, []string{"--listen", listen}, []string{"not loopback", "--tls auto"})
	}
}

// authority is somebody else's CA, with certificates as it issues them.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{Subject: pkix.Name{CommonName: "Site CA"}, NotBefore: time.Now().Add(-1000 * time.Hour), NotAfter: time.Now().Add(1000 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	raw, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	a := authority{t, cert, key, filepath.Join(t.TempDir(), "site-ca.pem")}
	a.put(a.file, "CERTIFICATE", raw, 0o644)
	return a
}

func (a authority) put(path, kind string, der []byte, mode os.FileMode) {
	a.t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(path, text, mode); err != nil {
		a.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		a.t.Fatal(err)
	}
}

// issue writes DIR/cert.pem and DIR/key.pem and gives the serial number.
func (a authority) issue(dir string, until time.Time) *big.Int {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{"ml.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-900 * time.Hour), NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	raw, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.put(filepath.Join(dir, "cert.pem"), "CERTIFICATE", raw, 0o644)
	a.put(filepath.Join(dir, "key.pem"), "PRIVATE KEY", der, 0o600)
	return tmpl.SerialNumber
}

// A certificate by files: the server's own jobs get through although they do not know its CA, and new files are taken
// while it runs.
func TestTLSByFiles(t *testing.T) {
	t.Parallel()
	ca, dir := newAuthority(t), t.TempDir()
	first := ca.issue(dir, time.Now().Add(48*time.Hour))
	s := secured(t, filepath.Join(dir, "cert.pem")+","+filepath.Join(dir, "key.pem"), ca.file, "--host", "ml.example")
	s.start()
	w := inhabit(s)
	w.amal.ok("apply")
	w.amal.ok("run")
	w.amal.ok("promote", "breaks@1", "dev")
	w.amal.ok("promote", "breaks@1", "staging") // by its integration test
	if r := w.command(w.dir, t.TempDir(), "", "ca", "--data", w.data); r.code != 5 {
		t.Errorf("falaj ca of a server that has its certificate from elsewhere: %d %s%s", r.code, r.out, r.err)
	}
	shown := func() *big.Int {
		c, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), s.client().Transport.(*http.Transport).TLSClientConfig)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber
	}
	if shown().Cmp(first) != 0 {
		t.Error("another certificate than that of the file")
	}
	second := ca.issue(dir, time.Now().Add(48*time.Hour))
	await(t, "the new certificate", 20*time.Second, func() bool { return shown().Cmp(second) == 0 })
	if err := os.WriteFile(filepath.Join(dir, "key.pem"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, "a word about the broken key", 20*time.Second, func() bool {
		return shown().Cmp(second) == 0 && strings.Contains(s.out.String(), "holds no private key")
	})
	third := ca.issue(dir, time.Now().Add(48*time.Hour))
	await(t, "the mended certificate", 20*time.Second, func() bool { return shown().Cmp(third) == 0 })
	w.clean()
}

// What a client would refuse, what is no secret and what would speak in clear stops the start with one message of two
// lines: what and why, and what to type.
func TestTLSRefusedAtStart(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	pair := func(t *testing.T, until time.Duration) (cert, key string) {
		dir := t.TempDir()
		ca.issue(dir, time.Now().Add(until))
		return filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	}
	for name, tc := range map[string]struct {
		flags func(t *testing.T) []string
		words []string
	}{
		"plaintext beyond loopback": {func(*testing.T) []string { return []string{"--listen", "0.0.0.0:0"} }, []string{"not loopback", "--tls auto", "--tls CERT.pem,KEY.pem"}},
		"off beyond loopback":       {func(*testing.T) []string { return []string{"--listen", ":0", "--tls", "off"} }, []string{"not loopback", "--tls auto"}},
		"open beyond loopback":      {func(*testing.T) []string { return []string{"--listen", "0.0.0.0:0", "--tls", "auto", "--open"} }, []string{"Open mode", "Leave out --open"}},
		"half":                      {func(*testing.T) []string { return []string{"--tls", "cert.pem"} }, []string{"'cert.pem'", "--tls auto"}},
		"missing": {func(t *testing.T) []string {
			cert, key := pair(t, time.Hour)
			remove(t, key)
			return []string{"--tls", cert + "," + key}
		}, []string{"There is no file", "key.pem", "--tls auto"}},
		"mismatched": {func(t *testing.T) []string {
			cert, _ := pair(t, time.Hour)
			_, key := pair(t, time.Hour)
			return []string{"--tls", cert + "," + key}
		}, []string{"does not belong to the certificate", "Give the key"}},
		"readable by others": {func(t *testing.T) []string {
			cert, key := pair(t, time.Hour)
			if err := os.Chmod(key, 0o644); err != nil {
				t.Fatal(err)
			}
			return []string{"--tls", cert + "," + key}
		}, []string{"open to other users (mode 0644)", "chmod 0600"}},
		"expired": {func(t *testing.T) []string {
			cert, key := pair(t, -time.Hour)
			return []string{"--tls", cert + "," + key}
		}, []string{"expired on", "--tls auto"}},
	} {
		t.Run(name, func(t *testing.T) {
			refusedAtStart(t, tc.flags(t), tc.words)
		})
	}
}

// refusedAtStart demands that a server with these flags ends at once, with two lines that hold the words.
func refusedAtStart(t *testing.T, flags, words []string) {
	t.Helper()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"server", "--data", filepath.Join(t.TempDir(), "data"), "--listen", "127.0.0.1:0"}, flags...)
	cmd := exec.CommandContext(t.Context(), bin, args...)
	cmd.Env = environ()
	var said lines
	cmd.Stdout, cmd.Stderr = io.Discard, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	over := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	err = cmd.Wait()
	over.Stop()
	text := strings.TrimSpace(said.String())
	if err == nil || cmd.ProcessState.ExitCode() < 1 || strings.Count(text, "\n") != 1 {
		t.Errorf("%v, and it said:\n%s", err, text)
	}
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("it does not say %q:\n%s", word, text)
		}
	}
}

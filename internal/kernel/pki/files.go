package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"falaj/internal/kernel/fault"
)

// lookEvery is how often, at most, a handshake looks whether the files changed.
const lookEvery = time.Second

// Files is a certificate (PEM, with its chain) and a key that somebody else issues and replaces. It is read again when the
// files change; what is wrong then is told once and the old one goes on. It is safe for concurrent use.
type Files struct {
	cert, key string
	warn      func(error)

	mu      sync.Mutex // guards what follows
	current *tls.Certificate
	seen    [2]stamp
	looked  time.Time
	said    string // the last trouble, so that it is told once
}

// stamp is what changes when a file is replaced or written.
type stamp struct {
	mtime time.Time
	size  int64
	inode uint64
}

// OpenFiles reads both files and refuses what a client would refuse or what is not secret: a missing file, a key that does
// not belong to the certificate or that others can read, a certificate that is not valid now or is for no server.
func OpenFiles(cert, key string, warn func(error)) (*Files, error) {
	f := &Files{cert: cert, key: key, warn: warn}
	var err error
	if f.seen, err = f.stamps(); err != nil {
		return nil, err
	}
	if f.current, err = load(cert, key, time.Now()); err != nil {
		return nil, err
	}
	f.looked = time.Now()
	return f, nil
}

// Certificate is for tls.Config.GetCertificate.
func (f *Files) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if d := now.Sub(f.looked); d >= 0 && d < lookEvery {
		return f.current, nil
	}
	f.looked = now
	if err := f.reload(now); err != nil {
		// Two files are never replaced at one instant: what does not fit now may fit a second later.
		if said := err.Error(); said != f.said {
			f.said = said
			f.warn(err)
		}
	} else {
		f.said = ""
	}
	return f.current, nil
}

func (f *Files) reload(now time.Time) error {
	s, err := f.stamps()
	if err != nil {
		return err
	}
	if s == f.seen {
		if c := f.current.Leaf; now.After(c.NotAfter) {
			return fault.New(fault.Refused, "The certificate "+f.cert+" expired on "+day(c.NotAfter)+": clients refuse it.", "Replace both files; no restart is needed.")
		}
		return nil
	}
	c, err := load(f.cert, f.key, now)
	if err != nil {
		return err
	}
	f.current, f.seen = c, s
	return nil
}

func (f *Files) stamps() (out [2]stamp, err error) {
	for i, path := range []string{f.cert, f.key} {
		st, err := os.Stat(path) // through links: some tools replace a link
		if err != nil {
			return out, unreadable(path, err)
		}
		out[i] = stamp{mtime: st.ModTime(), size: st.Size()}
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			out[i].inode = sys.Ino
		}
	}
	return out, nil
}

func unreadable(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Invalid, "There is no file "+path+".", "Give --tls CERT.pem,KEY.pem with the two files, or --tls auto for a certificate by falaj's own CA.").At("tls")
	}
	return fault.New(fault.Invalid, "The file "+path+" cannot be read.", "Check its owner and mode: the server's user must be able to read it.").At("tls")
}

func load(certFile, keyFile string, now time.Time) (*tls.Certificate, error) {
	cert, err := os.ReadFile(certFile)
	if err != nil {
		return nil, unreadable(certFile, err)
	}
	st, err := os.Stat(keyFile)
	if err != nil {
		return nil, unreadable(keyFile, err)
	}
	if err := private(keyFile, st); err != nil {
		return nil, err
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, unreadable(keyFile, err)
	}
	chain, err := certificates(certFile, cert)
	if err != nil {
		return nil, err
	}
	if err := keyed(keyFile, key); err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil && !strings.Contains(err.Error(), "match") { // the parser's text could quote the key
		return nil, fault.New(fault.Invalid, "The key "+keyFile+" is damaged, or of a kind that TLS does not use.", "Give an ECDSA, Ed25519 or RSA key in PEM.").At("tls")
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "The key "+keyFile+" does not belong to the certificate "+certFile+".", "Give the key that the certificate was requested with; the server's own certificate stands first in the file.").At("tls")
	}
	for i, c := range chain {
		what := "The certificate " + certFile
		if i > 0 {
			what = "The CA certificate '" + c.Subject.CommonName + "' in " + certFile
		}
		if now.After(c.NotAfter) {
			return nil, fault.New(fault.Refused, what+" expired on "+day(c.NotAfter)+".", "Have a new one issued and put it there, or start with --tls auto.").At("tls")
		}
		if now.Before(c.NotBefore) {
			return nil, fault.New(fault.Refused, what+" is valid from "+day(c.NotBefore)+" only; this machine's clock says "+day(now)+".", "Wait, or set the clock.").At("tls")
		}
	}
	leaf := chain[0]
	if len(leaf.DNSNames)+len(leaf.IPAddresses) == 0 {
		return nil, fault.New(fault.Refused, "The certificate "+certFile+" names no host (subjectAltName), so every client refuses it.", "Have one issued for the names that clients use.").At("tls")
	}
	if use := leaf.ExtKeyUsage; len(use) > 0 && !slices.Contains(use, x509.ExtKeyUsageServerAuth) && !slices.Contains(use, x509.ExtKeyUsageAny) {
		return nil, fault.New(fault.Refused, "The certificate "+certFile+" is not for a server (extended key usage).", "Have one issued with serverAuth.").At("tls")
	}
	pair.Leaf = leaf
	return &pair, nil
}

// certificates parses the chain of a file, the server's own first.
func certificates(file string, b []byte) (out []*x509.Certificate, err error) {
	wrong := fault.New(fault.Invalid, "The file "+file+" holds no certificate in PEM.", "Give --tls CERT.pem,KEY.pem, the certificate first.").At("tls")
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, wrong
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, wrong
	}
	return out, nil
}

// keyed refuses a file without a key that can be used, before it is compared.
func keyed(file string, b []byte) error {
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			return fault.New(fault.Invalid, "The file "+file+" holds no private key in PEM.", "Give --tls CERT.pem,KEY.pem, the key second.").At("tls")
		}
		if strings.HasPrefix(block.Type, "ENCRYPTED") || block.Headers["DEK-Info"] != "" {
			return fault.New(fault.Unsupported, "The key "+file+" is locked with a passphrase.", "Give the key without one, 0600: openssl pkey -in OLD -out NEW").At("tls")
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return nil
		}
	}
}

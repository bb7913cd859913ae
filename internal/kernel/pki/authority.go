package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"falaj/internal/kernel/fault"
)

// How long certificates live. A leaf starts an hour early, for clients whose clock is behind.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 24 * time.Hour
	leafEarly     = time.Hour
)

// authorityFormat is raised when the layout of the file changes; an older binary refuses a newer one.
const authorityFormat = 1

// sealer seals a small value bound to aad and opens it only with the same aad.
type sealer interface {
	Seal(plain, aad []byte) ([]byte, error)
	Open(sealed, aad []byte) ([]byte, error)
}

// Authority is the internal CA of one data directory. It is immutable and safe for concurrent use.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
	file string
}

// authorityFile is what stands on disk, 0600: the key (PKCS #8) is sealed and bound to its certificate.
type authorityFile struct {
	Format      int    `json:"format"`
	Certificate string `json:"certificate"`
	Key         []byte `json:"key"`
}

// OpenAuthority reads the CA in file, and makes one of 10 years where there is none. It refuses one that is not valid now,
// that others can read, or whose key does not open.
func OpenAuthority(file string, box sealer, now time.Time) (*Authority, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return newAuthority(file, box, now)
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "The internal CA in "+file+" cannot be read.", "Check its owner and mode (0600).")
	}
	st, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if err := private(file, st); err != nil {
		return nil, err
	}
	return readAuthority(file, b, box, now)
}

// anew is what to do where a CA is past use.
func anew(file string) string {
	return "Move " + file + " away and start again: a new CA is made, and every client must be given the new one (`falaj ca`)."
}

func readAuthority(file string, b []byte, box sealer, now time.Time) (*Authority, error) {
	damaged := func(err error, why string) error {
		return fault.Wrap(err, fault.Refused, "The internal CA in "+file+" is damaged: "+why+".", "Restore the file from your backup. Or: "+anew(file))
	}
	var f authorityFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, damaged(errors.New("not valid JSON"), "it is not JSON")
	}
	if f.Format > authorityFormat {
		return nil, fault.New(fault.Unsupported, fmt.Sprintf("The internal CA in %s has format %d and this version knows %d.", file, f.Format, authorityFormat), "Start the newer falaj that wrote it.")
	}
	block, _ := pem.Decode([]byte(f.Certificate))
	if block == nil {
		return nil, damaged(errors.New("no PEM"), "it holds no certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || !cert.IsCA {
		return nil, damaged(errors.Join(err, errors.New("not a CA")), "its certificate is not one of a CA")
	}
	plain, err := box.Open(f.Key, bound(cert))
	if err != nil {
		return nil, fault.Wrap(err, fault.Refused, "The key of the internal CA in "+file+" does not open with this keyset.", "Put the old keys folder back. Or: "+anew(file))
	}
	parsed, err := x509.ParsePKCS8PrivateKey(plain)
	if err != nil {
		return nil, damaged(errors.New("the key does not parse"), "its key does not parse") // the parser's text could quote the key
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, damaged(errors.New("certificate and key differ"), "its key does not belong to its certificate")
	}
	a := &Authority{cert: cert, key: key, pem: encode(cert.Raw), file: file}
	return a, a.check(now)
}

// check refuses a CA that clients would refuse.
func (a *Authority) check(now time.Time) error {
	if now.After(a.cert.NotAfter) {
		return fault.New(fault.Refused, "The internal CA in "+a.file+" expired on "+day(a.cert.NotAfter)+".", anew(a.file)).At("tls")
	}
	if now.Before(a.cert.NotBefore) {
		return fault.New(fault.Refused, "The internal CA in "+a.file+" is valid from "+day(a.cert.NotBefore)+" only: the clock of this machine says "+day(now)+".", "Set the clock.").At("tls")
	}
	return nil
}

func newAuthority(file string, box sealer, now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	// A name of its own, so that a client that trusts two installations finds the right one.
	tmpl := &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{"falaj"}, CommonName: "falaj CA " + rand.Text()[:8]},
		NotBefore: now.Add(-leafEarly), NotAfter: now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, err
	}
	plain, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	sealed, err := box.Seal(plain, bound(cert))
	if err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(authorityFile{Format: authorityFormat, Certificate: string(encode(raw)), Key: sealed}, "", " ")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "The folder of "+file+" cannot be made.", "Check free space and that this user may write there.")
	}
	if err := Keep(file, b, 0o600); err != nil {
		return nil, err
	}
	return &Authority{cert: cert, key: key, pem: encode(raw), file: file}, nil
}

// Keep puts a whole file in place: a crash leaves the old one or the new one.
func Keep(file string, b []byte, mode fs.FileMode) (err error) {
	unavailable := func(err error) error {
		return fault.Wrap(err, fault.Unavailable, file+" cannot be written.", "Check free space and that this user may write there.")
	}
	temp := file + "." + rand.Text()
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return unavailable(err)
	}
	defer os.Remove(temp)
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return unavailable(err)
	}
	return unavailable(os.Rename(temp, file))
}

// PEM is the CA's certificate as clients take it.
func (a *Authority) PEM() []byte { return a.pem }

// Expires is when the CA stops being valid.
func (a *Authority) Expires() time.Time { return a.cert.NotAfter }

// issue signs a fresh key for names, each a DNS name or an IP address.
func (a *Authority) issue(names []string, now time.Time) (*tls.Certificate, error) {
	if err := a.check(now); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{"falaj"}, CommonName: "falaj server"},
		NotBefore: now.Add(-leafEarly), NotAfter: now.Add(leafLife),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if tmpl.NotAfter.After(a.cert.NotAfter) {
		tmpl.NotAfter = a.cert.NotAfter
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	raw, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "No certificate can be made for "+strings.Join(names, ", ")+".", "Give each --host as a plain name or address, without port, in ASCII (xn--...).")
	}
	leaf, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{raw, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// bound ties a sealed key to the certificate it belongs to.
func bound(cert *x509.Certificate) []byte {
	sum := sha256.Sum256(cert.Raw)
	return append([]byte("falaj/ca-key/1\x00"), sum[:]...)
}

func encode(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

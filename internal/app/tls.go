package app

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"falaj/internal/door"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/pki"
	"falaj/internal/kernel/seal"
)

// CAFile is the name, in a data directory, of the certificate that clients of --tls auto are given.
const CAFile = "ca.pem"

// authorityWarning is how long before its end the internal CA is spoken of at each start.
const authorityWarning = 90 * 24 * time.Hour

// security is what the listeners show. Without TLS both are nil.
type security struct {
	outer  *tls.Config // to people and clients
	inner  *tls.Config // to our own jobs, always by the internal CA: they trust jobCA and nothing else
	public []byte      // the CA that clients of outer need, in PEM; nil where the certificate is somebody else's
	jobCA  string      // file
}

func (s security) on() bool { return s.outer != nil }

// newSecurity opens the internal CA, and the two files where they are given. What a client would refuse stops the start.
func newSecurity(cfg Config, keys *seal.Keys, log *slog.Logger) (s security, err error) {
	public := filepath.Join(cfg.Data, CAFile)
	if cfg.TLS != tlsAuto { // what another start left would mislead
		if err := os.Remove(public); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return s, err
		}
	}
	if cfg.TLS == tlsOff {
		return s, nil
	}
	warn := func(err error) { log.Error("the certificate of the server", "err", err, "next", fault.From(err).Next) }
	var files *pki.Files
	if cert, key, ok := cfg.files(); ok {
		if files, err = pki.OpenFiles(cert, key, warn); err != nil {
			return s, err
		}
	}
	ca, err := pki.OpenAuthority(filepath.Join(cfg.Data, "tls", "ca.json"), envelope{keys}, time.Now())
	if err != nil {
		return s, err
	}
	if left := time.Until(ca.Expires()); left < authorityWarning {
		log.Warn("the internal CA ends soon", "days", int(left.Hours()/24))
	}
	names := append([]string{"localhost", "127.0.0.1", "::1"}, cfg.names()...)
	if host, _, err := net.SplitHostPort(cfg.Listen); err == nil && !everywhere(host) && !slices.Contains(names, host) {
		names = append(names, host) // another address of loopback
	} else if err == nil && everywhere(host) && len(cfg.Hosts) == 0 {
		log.Warn("every address is listened on, but only loopback ones are accepted as this server's name", "next", "give --host NAME for each name that clients use")
	}
	leaf, err := ca.Leaf(names, warn)
	if err != nil {
		return s, err
	}
	// Kept apart from the public file, which --tls CERT,KEY does not have. Jobs read it inside their sandbox.
	s.jobCA = filepath.Join(cfg.Data, "run", CAFile)
	if err := pki.Keep(s.jobCA, ca.PEM(), 0o644); err != nil {
		return s, err
	}
	s.inner = pki.Config(leaf.Certificate)
	if files != nil {
		s.outer = pki.Config(files.Certificate)
		return s, nil
	}
	s.outer, s.public = s.inner, ca.PEM()
	return s, pki.Keep(public, s.public, 0o644)
}

// serveCA hands out the CA's certificate. It is no secret; who takes it this way must compare it with `falaj ca`.
func (s security) serveCA(w http.ResponseWriter, r *http.Request) {
	if s.public == nil {
		door.Problem(w, r, fault.New(fault.NotFound, "This server has no certificate by a CA of its own.", "With --tls auto it has one; else ask whoever issued its certificate."))
		return
	}
	w.Header().Set("Content-Type", "application/x-pem-file")
	_, _ = w.Write(s.public)
}

// listen opens the address of the configuration and, where our own jobs could not trust what answers there, one more on
// loopback for them.
func (a *App) listen() error {
	l, err := net.Listen("tcp", a.cfg.Listen)
	if err != nil {
		return fault.Wrap(err, fault.Unavailable, "The address "+a.cfg.Listen+" cannot be listened on.", "Another program uses it, perhaps another falaj: give --listen 127.0.0.1:PORT.")
	}
	a.listener, a.inner = l, l
	if !a.tls.on() {
		return nil
	}
	a.listener = tls.NewListener(l, a.tls.outer)
	a.inner = a.listener
	host, _, err := net.SplitHostPort(a.cfg.Listen)
	if err != nil {
		return err
	}
	if a.tls.outer == a.tls.inner && (loopbackHost(host) || everywhere(host)) {
		return nil
	}
	if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		a.listener.Close()
		return fault.Wrap(err, fault.Unavailable, "There is no port on loopback for the server's own jobs.", "Check the limits of the server's user; falaj doctor names more.")
	}
	a.inner = tls.NewListener(l, a.tls.inner)
	return nil
}

// CA is the file of the CA that clients need, "" where they need none of ours.
func (a *App) CA() string {
	if a.tls.public == nil {
		return ""
	}
	return filepath.Join(a.cfg.Data, CAFile)
}

func (a *App) scheme() string {
	if a.tls.on() {
		return "https://"
	}
	return "http://"
}

// URL is where people find the server: by the first name given, where the address alone would not fit the certificate or
// says nothing to another machine.
func (a *App) URL() string {
	host, port, err := net.SplitHostPort(a.listener.Addr().String())
	if err != nil {
		return a.scheme() + a.listener.Addr().String()
	}
	_, _, files := a.cfg.files()
	if names := a.cfg.Hosts; len(names) > 0 && a.tls.on() && (files || !loopbackHost(host)) {
		host = names[0]
	} else if everywhere(host) {
		host = "127.0.0.1"
	}
	return a.scheme() + net.JoinHostPort(host, port)
}

// jobURL is where the server's own jobs find it, by an address that jobCA vouches for.
func (a *App) jobURL() string {
	host, port, err := net.SplitHostPort(a.inner.Addr().String())
	if err != nil || everywhere(host) {
		host = "127.0.0.1"
	}
	return a.scheme() + net.JoinHostPort(host, port)
}

// envelope seals the CA's key under a data key of its own, which the keyset wraps: one value holds both.
type envelope struct{ keys *seal.Keys }

type enveloped struct {
	Wrapped []byte `json:"wrapped"`
	Sealed  []byte `json:"sealed"`
}

const envelopeUse = "tls/ca"

func (e envelope) Seal(plain, aad []byte) ([]byte, error) {
	wrapped, err := e.keys.NewDataKey(envelopeUse)
	if err != nil {
		return nil, err
	}
	box, err := e.keys.Box(wrapped, envelopeUse)
	if err != nil {
		return nil, err
	}
	sealed, err := box.Seal(plain, aad)
	if err != nil {
		return nil, err
	}
	return json.Marshal(enveloped{wrapped, sealed})
}

func (e envelope) Open(b, aad []byte) ([]byte, error) {
	var v enveloped
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, err
	}
	box, err := e.keys.Box(v.Wrapped, envelopeUse)
	if err != nil {
		return nil, err
	}
	return box.Open(v.Sealed, aad)
}

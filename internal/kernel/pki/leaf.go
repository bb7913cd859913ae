package pki

import (
	"crypto/tls"
	"sync"
	"time"
)

// renewBefore is how long before its end a leaf is replaced: whoever keeps a connection's certificate still sees a valid one.
const renewBefore = 8 * time.Hour

// Leaf is the certificate of one listener by the internal CA. It replaces itself in a handshake before it expires, so
// nothing has to run beside the listener. It is safe for concurrent use.
type Leaf struct {
	ca    *Authority
	names []string
	warn  func(error)

	mu      sync.Mutex // guards what follows
	current *tls.Certificate
	warned  bool
}

// Leaf issues the first certificate for names. warn is told when a later one cannot be issued while the present one
// still holds.
func (a *Authority) Leaf(names []string, warn func(error)) (*Leaf, error) {
	l := &Leaf{ca: a, names: names, warn: warn}
	_, err := l.Certificate(nil)
	return l, err
}

// Certificate is for tls.Config.GetCertificate.
func (l *Leaf) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	// A clock that was set back makes the present leaf one of the future: it is replaced too.
	if c := l.current; c != nil && now.Before(c.Leaf.NotAfter.Add(-renewBefore)) && now.After(c.Leaf.NotBefore) {
		return c, nil
	}
	fresh, err := l.ca.issue(l.names, now)
	if err != nil {
		if l.current != nil && now.Before(l.current.Leaf.NotAfter) {
			if !l.warned {
				l.warned = true
				l.warn(err)
			}
			return l.current, nil
		}
		return nil, err
	}
	l.current = fresh
	return fresh, nil
}

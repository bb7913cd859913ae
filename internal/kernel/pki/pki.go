// Package pki gives a listener its certificate: from an internal CA, whose key is sealed at rest and whose leaves live a
// day, or from two files that may be replaced while the server runs. It opens no socket and knows no HTTP: it answers
// the handshake's one question, which certificate now.
package pki

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"falaj/internal/kernel/fault"
)

// Config is what every listener of falaj speaks: TLS 1.3 and nothing older, HTTP/2 before HTTP/1.1.
func Config(certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: certificate}
}

// private refuses a file with a key in it that others can read or that is not ours.
func private(path string, st fs.FileInfo) error {
	if mode := st.Mode().Perm(); mode&0o077 != 0 {
		return fault.New(fault.Refused, fmt.Sprintf("The key file %s is open to other users (mode %04o), so it is not secret.", path, mode), "Type: chmod 0600 "+path).At("tls")
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) != os.Geteuid() && sys.Uid != 0 {
		return fault.New(fault.Refused, fmt.Sprintf("The key file %s belongs to another user (uid %d).", path, sys.Uid), fmt.Sprintf("Type: chown %d %s", os.Geteuid(), path)).At("tls")
	}
	return nil
}

package cli

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"falaj/internal/app"
	"falaj/internal/kernel/fault"
)

func (e *env) caCmd() *cobra.Command {
	var cfg app.Config
	c := &cobra.Command{
		Use:   "ca",
		Short: "Print the CA certificate of a server that runs with --tls auto",
		Long:  "Print, in PEM, the CA certificate that clients of a server with --tls auto need. It is no secret: carry it to them by a way that\nnobody else can write to, and give it with --ca FILE or FALAJ_CA; `falaj login --ca FILE` remembers it.",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			full, err := cfg.Complete()
			if err != nil {
				return err
			}
			b, err := os.ReadFile(filepath.Join(full.Data, app.CAFile))
			if errors.Is(err, fs.ErrNotExist) {
				return fault.New(fault.NotFound, "The data directory "+full.Data+" has no CA.", "Start its server with --tls auto, or name another directory with --data.")
			}
			if err != nil {
				return fault.Wrap(err, fault.Unavailable, "The CA in "+full.Data+" cannot be read.", "Be the server's user, or fetch /ca.pem from the server and compare it.")
			}
			_, err = e.out.Write(b)
			return err
		},
	}
	c.Flags().StringVar(&cfg.Data, "data", "", "data directory")
	return c
}

// authority is the PEM of what vouches for a server: flag, environment, login's. Empty means what the system trusts.
func (e *env) authority(server string) (string, error) {
	file := first(e.ca, os.Getenv("FALAJ_CA"))
	if file == "" {
		if saved := loadCredentials(); saved.Server == server {
			return saved.CA, nil
		}
		return "", nil
	}
	if e.ca != "" && !strings.HasPrefix(server, "https://") {
		return "", fault.New(fault.Invalid, "A CA was given, but "+server+" is without TLS.", "Name the server https://HOST:PORT, or leave out --ca.").At("ca")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fault.Wrap(err, fault.Invalid, "The CA file "+file+" cannot be read.", "Check --ca or FALAJ_CA; on the server's machine `falaj ca --data DIR` prints it.")
	}
	return string(b), nil
}

// trusting makes a client believe servers that ca vouches for and no others; an empty ca leaves the system's. What is
// wrong with it stops the first call before anything is sent.
func (c *client) trusting(ca string, err error) *client {
	if err != nil {
		c.wrong = err
	}
	if ca == "" || err != nil {
		return c
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(ca)) {
		c.wrong = fault.New(fault.Invalid, "The CA given holds no certificate in PEM.", "Give the file that `falaj ca` prints: --ca FILE or FALAJ_CA.").At("ca")
		return c
	}
	if t, ok := http.DefaultTransport.(*http.Transport); ok {
		t = t.Clone()
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12} // 1.2 for a proxy in front
		c.http.Transport = t
	}
	return c
}

// distrust says why a certificate is not believed, nil when that is not the trouble.
func (c *client) distrust(err error) error {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return fault.Wrap(err, fault.Refused, "The certificate of "+c.base+" is by nobody that is trusted here, so nothing was sent.", "Get the server's CA from its admin (`falaj ca` prints it there) and give it with --ca FILE or FALAJ_CA; `falaj login --ca FILE` remembers it.")
	case errors.As(err, &name):
		return fault.Wrap(err, fault.Refused, "The certificate of "+c.base+" is not for that name, so nothing was sent.", "Use a name that the certificate has, or start the server with --host NAME; --ca FILE would not help.")
	case errors.As(err, &invalid):
		return fault.Wrap(err, fault.Refused, "The certificate of "+c.base+" is not valid, so nothing was sent: "+invalid.Error()+".", "Check the clock of this machine, the server's certificate, and the CA given with --ca.")
	case errors.Is(err, http.ErrSchemeMismatch):
		return fault.Wrap(err, fault.Invalid, "The server at "+c.base+" is without TLS.", "Start it with --tls auto, or name it http:// where that is meant.")
	}
	return nil
}

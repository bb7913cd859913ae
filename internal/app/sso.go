package app

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"syscall"

	"falaj/internal/access/oidc"
	"falaj/internal/api"
	"falaj/internal/kernel/fault"
)

var groupName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// federation checks what is configured of an identity provider, before anything is opened; nil when nothing is. The provider
// itself is asked later: a server starts without it.
func federation(c Config) (*oidc.Provider, map[string][]string, error) {
	if c.OIDCIssuer == "" {
		if c.OIDCClientID != "" || c.OIDCClientSecretFile != "" || c.OIDCAudience != "" || c.OIDCGroupsClaim != "" || len(c.OIDCMap) > 0 || c.OIDCName != "" {
			return nil, nil, fault.New(fault.Invalid, "OIDC is configured without an issuer.", "Give --oidc-issuer URL, or leave the other --oidc settings out.").At("oidc_issuer")
		}
		return nil, nil, nil
	}
	groups := map[string][]string{}
	for _, pair := range c.OIDCMap {
		i := strings.LastIndexByte(pair, '=') // names of a directory hold = themselves, falaj's never
		if i < 1 || !groupName.MatchString(pair[i+1:]) {
			return nil, nil, fault.New(fault.Invalid, "'"+pair+"' does not map a group.", "Write PROVIDERGROUP=GROUP, for example --oidc-map /ml-risk=ml-risk; falaj's group has 1 to 63 small letters, digits, '.', '_' or '-'.").At("oidc_map")
		}
		groups[pair[:i]] = append(groups[pair[:i]], pair[i+1:])
	}
	secret, err := secretFile(c.OIDCClientSecretFile)
	if err != nil {
		return nil, nil, err
	}
	p, err := oidc.New(oidc.Config{Issuer: c.OIDCIssuer, ClientID: c.OIDCClientID, Secret: secret, Audience: c.OIDCAudience, GroupsClaim: c.OIDCGroupsClaim})
	return p, groups, err
}

// secretFile reads a secret that nobody else may read.
func secretFile(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	wrong := func(err error) error {
		return fault.Wrap(err, fault.Invalid, "The OIDC client secret cannot be read from "+path+".", "Check --oidc-client-secret-file and that this user may read it.")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", wrong(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", wrong(err)
	}
	if mode := st.Mode().Perm(); !st.Mode().IsRegular() || mode != 0o600 && mode != 0o400 {
		return "", fault.New(fault.Refused, fmt.Sprintf("%s has the mode %04o, so the OIDC client secret may be read by others.", path, mode), "Type: chmod 0600 "+path)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) != os.Geteuid() && sys.Uid != 0 {
		return "", fault.New(fault.Refused, fmt.Sprintf("%s belongs to another user (uid %d), who can read the OIDC client secret.", path, sys.Uid), fmt.Sprintf("Type: chown %d %s", os.Geteuid(), path))
	}
	b, err := io.ReadAll(io.LimitReader(f, 4<<10))
	if err != nil {
		return "", wrong(err)
	}
	secret := strings.TrimSpace(string(b))
	if secret == "" {
		return "", fault.New(fault.Invalid, path+" is empty.", "Write the client's secret into it, or leave --oidc-client-secret-file out for a public client.").At("oidc_client_secret_file")
	}
	return secret, nil
}

// ssoButton is what the sign-in page shows.
func (a *App) ssoButton() *api.SSO {
	if a.sso == nil {
		return nil
	}
	return &api.SSO{Name: a.cfg.OIDCName}
}

// greet asks the identity provider once at the start, so that a wrong issuer stands in the log before somebody signs in.
func (a *App) greet(ctx context.Context) {
	if a.sso == nil {
		return
	}
	if err := a.sso.Ready(ctx); err != nil {
		a.log.Warn("the identity provider is not ready; it is asked again when somebody signs in", "issuer", a.cfg.OIDCIssuer, "next", fault.From(err).Next, "err", err)
	}
}

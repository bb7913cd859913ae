// Package oidc asks an OpenID Connect provider who somebody is: the authorization code flow with PKCE, and bearer tokens.
// It trusts only RS and ES signatures of the configured issuer, and finds the provider again by itself after it was away.
package oidc

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"falaj/internal/access"
	"falaj/internal/kernel/fault"
)

// Config of a provider.
type Config struct {
	Issuer      string // exactly as the provider spells it; https, or http on loopback
	ClientID    string
	Secret      string // empty: a public client, which PKCE alone protects
	Audience    string // accepted in bearer tokens beside ClientID
	GroupsClaim string // default "groups"
}

// Provider is a relying party of one issuer.
type Provider struct {
	cfg   Config
	http  *http.Client
	plain bool // the issuer is on loopback, so its addresses may be http there

	mu     sync.Mutex // guards the rest, and lets one caller at a time ask
	found  *found
	tried  time.Time // end of the last failed try
	failed error
}

// found is what the provider says of itself.
type found struct {
	endpoint oauth2.Endpoint
	scopes   []string
	idToken  *oidc.IDTokenVerifier
	bearer   *oidc.IDTokenVerifier
}

// New checks the configuration; nothing is asked of the provider yet.
func New(cfg Config) (*Provider, error) {
	u, err := url.Parse(cfg.Issuer)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fault.New(fault.Invalid, "'"+cfg.Issuer+"' is not the address of an OIDC issuer.", "Give the issuer as its /.well-known/openid-configuration spells it, for example https://sso.example.com/realms/main.").At("oidc_issuer")
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, fault.New(fault.Invalid, "The OIDC issuer "+cfg.Issuer+" is reached without TLS, so anybody on the way could sign in as anybody.", "Give its https address; plain http is for a provider on this machine.").At("oidc_issuer")
	}
	if cfg.ClientID == "" {
		return nil, fault.New(fault.Invalid, "An OIDC issuer is given without a client id.", "Register falaj at the provider and give --oidc-client-id ID.").At("oidc_client_id")
	}
	if cfg.GroupsClaim == "" {
		cfg.GroupsClaim = "groups"
	}
	p := &Provider{cfg: cfg, plain: u.Scheme == "http"}
	p.http = client(p.safe)
	return p, nil
}

// safe says whether an address may be asked: TLS, or loopback when the issuer itself is there.
func (p *Provider) safe(u *url.URL) bool {
	return u.Scheme == "https" || p.plain && u.Scheme == "http" && loopback(u.Hostname())
}

// Ready asks the provider for its addresses, unless they are known.
func (p *Provider) Ready(ctx context.Context) error {
	_, err := p.discover(ctx)
	return err
}

// discover finds the provider once. A failure is not kept: the next call tries again, and callers that waited for a try share
// its answer, so that a provider which hangs is not asked by each of them in turn.
func (p *Provider) discover(ctx context.Context) (*found, error) {
	asked := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found != nil {
		return p.found, nil
	}
	if p.tried.After(asked) {
		return nil, p.failed
	}
	f, err := p.ask(ctx)
	if err != nil {
		p.tried, p.failed = time.Now(), err
		return nil, err
	}
	p.found = f
	return f, nil
}

func (p *Provider) ask(ctx context.Context) (*found, error) {
	prov, err := oidc.NewProvider(oidc.ClientContext(ctx, p.http), p.cfg.Issuer)
	var other *oidc.IssuerMismatchError
	if errors.As(err, &other) {
		return nil, fault.Wrap(err, fault.Unavailable, "The identity provider calls itself '"+other.Discovered+"', and --oidc-issuer says '"+other.Provided+"'.", "Give --oidc-issuer exactly as the provider spells it, also the slash at the end.")
	}
	if err != nil {
		return nil, unreachable(err)
	}
	var more struct {
		JWKS    string   `json:"jwks_uri"`
		Scopes  []string `json:"scopes_supported"`
		Methods []string `json:"token_endpoint_auth_methods_supported"`
	}
	if err := prov.Claims(&more); err != nil {
		return nil, unreachable(err)
	}
	f := &found{endpoint: prov.Endpoint(), scopes: []string{oidc.ScopeOpenID, "profile", "email"}}
	for _, address := range []string{f.endpoint.AuthURL, f.endpoint.TokenURL, more.JWKS} {
		if u, err := url.Parse(address); err != nil || !p.safe(u) {
			return nil, fault.New(fault.Unavailable, "The identity provider names an address without TLS.", "Its admin sets its public https address.")
		}
	}
	if slices.Contains(more.Scopes, "groups") { // some give groups only when asked, others refuse a scope that they do not know
		f.scopes = append(f.scopes, "groups")
	}
	f.endpoint.AuthStyle = oauth2.AuthStyleInHeader
	if p.cfg.Secret == "" || len(more.Methods) > 0 && !slices.Contains(more.Methods, "client_secret_basic") {
		f.endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	keys := keySet{oidc.NewRemoteKeySet(oidc.ClientContext(context.Background(), p.http), more.JWKS)}
	// HS and none are left out whatever the provider offers: with HS a public key would be a password.
	algs := []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512}
	f.idToken = oidc.NewVerifier(p.cfg.Issuer, keys, &oidc.Config{ClientID: p.cfg.ClientID, SupportedSigningAlgs: algs})
	f.bearer = oidc.NewVerifier(p.cfg.Issuer, keys, &oidc.Config{SkipClientIDCheck: true, SupportedSigningAlgs: algs}) // audience: identity()
	return f, nil
}

func (p *Provider) oauth(f *found, back string) *oauth2.Config {
	return &oauth2.Config{ClientID: p.cfg.ClientID, ClientSecret: p.cfg.Secret, Endpoint: f.endpoint, RedirectURL: back, Scopes: f.scopes}
}

// SignIn implements access.Provider.
func (p *Provider) SignIn(ctx context.Context, back string, s access.Proofs) (string, error) {
	f, err := p.discover(ctx)
	if err != nil {
		return "", err
	}
	return p.oauth(f, back).AuthCodeURL(s.State, oidc.Nonce(s.Nonce), oauth2.S256ChallengeOption(s.Verifier)), nil
}

// Redeem implements access.Provider.
func (p *Provider) Redeem(ctx context.Context, back, code string, s access.Proofs) (access.Identity, error) {
	var none access.Identity
	f, err := p.discover(ctx)
	if err != nil {
		return none, err
	}
	tokens, err := p.oauth(f, back).Exchange(oidc.ClientContext(ctx, p.http), code, oauth2.VerifierOption(s.Verifier))
	if err != nil {
		return none, exchangeFault(err)
	}
	raw, _ := tokens.Extra("id_token").(string)
	if raw == "" {
		return none, fault.New(fault.Unauthenticated, "The identity provider gave no ID token.", "Its admin lets this client have the scope openid.")
	}
	return p.identity(ctx, f.idToken, raw, func(c *claims) error {
		switch {
		case c.Nonce != s.Nonce: // a token of another sign-in, perhaps of another person
			return fault.New(fault.Unauthenticated, "The identity provider's token belongs to another sign-in.", "Begin again on the sign-in page.")
		case c.Party != "" && c.Party != p.cfg.ClientID:
			return fault.New(fault.Unauthenticated, "The identity provider's token was made for another program.", "Begin again on the sign-in page.")
		}
		return nil
	})
}

// exchangeFault tells the browser's fault from ours and the provider's.
func exchangeFault(err error) error {
	var answer *oauth2.RetrieveError
	if !errors.As(err, &answer) {
		return unreachable(err)
	}
	switch answer.ErrorCode {
	case "invalid_client", "unauthorized_client":
		return fault.Wrap(err, fault.Unavailable, "The identity provider does not know this server: client id or secret is wrong.", "Who runs the server compares --oidc-client-id and --oidc-client-secret-file with the provider's, and restarts it.")
	case "":
		return unreachable(err)
	}
	return fault.Wrap(err, fault.Unauthenticated, "The identity provider did not take the code: it is used or too old.", "Begin again on the sign-in page.")
}

func unreachable(err error) error {
	return fault.Wrap(err, fault.Unavailable, "The identity provider does not answer.", "Try again in a moment, or sign in with a password; the server's log holds the cause.")
}

func loopback(host string) bool {
	return host == "localhost" || strings.HasPrefix(host, "127.") && parses(host) || host == "::1"
}

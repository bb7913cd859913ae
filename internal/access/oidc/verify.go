package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"falaj/internal/access"
	"falaj/internal/kernel/fault"
)

// maxToken bounds what is parsed before anything is proved.
const maxToken = 16 << 10

// skew is how far the provider's clock may be ahead of ours.
const skew = 5 * time.Minute

// claims are those that matter here.
type claims struct {
	Nonce    string          `json:"nonce"`
	Party    string          `json:"azp"`
	Username string          `json:"preferred_username"`
	Email    string          `json:"email"`
	Verified json.RawMessage `json:"email_verified"` // some providers say "true"
	FullName string          `json:"name"`
	Events   json.RawMessage `json:"events"` // of a logout token
	audience []string
}

// Bearer implements access.Provider.
func (p *Provider) Bearer(ctx context.Context, token string) (access.Identity, error) {
	if len(token) > maxToken {
		return access.Identity{}, fault.New(fault.Unauthenticated, "The token is longer than 16 KiB.", "Leave out what falaj does not need, such as other programs' roles.")
	}
	f, err := p.discover(ctx)
	if err != nil {
		return access.Identity{}, err
	}
	return p.identity(ctx, f.bearer, token, func(c *claims) error {
		if slices.Contains(c.audience, p.cfg.ClientID) || p.cfg.Audience != "" && slices.Contains(c.audience, p.cfg.Audience) {
			return nil
		}
		return fault.New(fault.Unauthenticated, "The token is for another program: its audience is not this server.", "Ask the provider for a token with the audience "+p.cfg.ClientID+".")
	})
}

// identity proves a token and reads it. more holds the checks of one kind of token.
func (p *Provider) identity(ctx context.Context, v *oidc.IDTokenVerifier, raw string, more func(*claims) error) (access.Identity, error) {
	var none access.Identity
	var fetch error
	token, err := v.Verify(context.WithValue(ctx, fetchKey{}, &fetch), raw)
	var old *oidc.TokenExpiredError
	switch {
	case fetch != nil:
		return none, unreachable(fetch)
	case errors.As(err, &old):
		return none, fault.Wrap(err, fault.Unauthenticated, "The identity provider's token has expired.", "Get a new one from the provider.")
	case err != nil:
		return none, fault.Wrap(err, fault.Unauthenticated, "The identity provider's token does not hold: its signature, issuer, audience or time is wrong.", "Get a new one from "+p.cfg.Issuer+" for "+p.cfg.ClientID+".")
	}
	c := claims{audience: token.Audience}
	var all map[string]json.RawMessage
	if err := errors.Join(token.Claims(&c), token.Claims(&all)); err != nil {
		return none, fault.Wrap(err, fault.Unauthenticated, "The identity provider's token holds claims of another type than the standard's.", "Its admin looks at the mapping of claims.")
	}
	switch {
	case token.Subject == "" || len(token.Subject) > 255:
		return none, fault.New(fault.Unauthenticated, "The identity provider's token names no person.", "Its admin adds the claim sub.")
	case token.IssuedAt.After(time.Now().Add(skew)):
		return none, fault.New(fault.Unauthenticated, "The identity provider's token comes from the future.", "Set the clocks of both machines.")
	case c.Events != nil: // it is signed, has our audience, and would be good for nothing else
		return none, fault.New(fault.Unauthenticated, "This is a logout token, which lets nobody in.", "Send an access or ID token.")
	}
	if err := more(&c); err != nil {
		return none, err
	}
	id := access.Identity{Issuer: p.cfg.Issuer, Subject: token.Subject, FullName: c.FullName, Issued: token.IssuedAt, Expires: token.Expiry}
	if c.Username != "" {
		id.Names = append(id.Names, c.Username)
	}
	if c.Email != "" && strings.Trim(string(c.Verified), `"`) != "false" { // an address that anybody may claim is no name
		id.Names = append(id.Names, c.Email)
	}
	if raw, ok := all[p.cfg.GroupsClaim]; ok && string(raw) != "null" {
		if id.Groups, err = words(raw); err != nil {
			return none, fault.Wrap(err, fault.Unauthenticated, "The claim "+p.cfg.GroupsClaim+" of the identity provider is no list of names.", "Its admin maps group names into it, or the server names another with --oidc-groups-claim.")
		}
		id.HasGroups = true
	}
	return id, nil
}

// words are a list of strings, or one string.
func words(raw json.RawMessage) ([]string, error) {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}, nil
	}
	var many []string
	if err := json.Unmarshal(raw, &many); err != nil {
		return nil, fmt.Errorf("groups: %w", err)
	}
	return many, nil
}

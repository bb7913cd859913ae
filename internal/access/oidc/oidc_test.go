package oidc_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"falaj/internal/access"
	"falaj/internal/access/oidc"
	"falaj/internal/access/oidctest"
	"falaj/internal/kernel/fault"
)

type claims = oidctest.Claims

func provider(t *testing.T, issuer string) *oidc.Provider {
	t.Helper()
	p, err := oidc.New(oidc.Config{Issuer: issuer, ClientID: oidctest.ClientID, Secret: oidctest.Secret, Audience: "falaj-api"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestConfiguration(t *testing.T) {
	t.Parallel()
	for issuer, ok := range map[string]bool{
		"https://sso.example.com/realms/main": true, "http://127.0.0.1:8080": true, "http://localhost:8080/realms/a": true, "http://[::1]:8080": true,
		"": false, "sso.example.com": false, "ftp://sso.example.com": false, "https://": false, "http://sso.example.com": false, "http://127.evil.example.com": false,
		"http://localhost.example.com": false, "https://a:b@sso.example.com": false, "https://sso.example.com?x=1": false, "://": false, "http://10.0.0.1": false,
	} {
		if _, err := oidc.New(oidc.Config{Issuer: issuer, ClientID: "falaj"}); (err == nil) != ok || err != nil && (!fault.Is(err, fault.Invalid) || fault.From(err).Next == "") {
			t.Errorf("%q: %v", issuer, err)
		}
	}
	if _, err := oidc.New(oidc.Config{Issuer: "https://sso.example.com"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("no client id: %v", err)
	}
}

// Each row is a token that somebody may send; only the good ones name a person.
func TestBearer(t *testing.T) {
	t.Parallel()
	idp, other := oidctest.Start(t), oidctest.Start(t)
	p := provider(t, idp.URL)
	who := claims{"sub": "1", "preferred_username": "amal", "groups": []string{"/ml"}}
	with := func(k string, v any) claims {
		c := claims{k: v}
		for n, x := range who {
			if n != k {
				c[n] = x
			}
		}
		return c
	}
	now := time.Now()
	good := idp.Token(t, who)
	parts := strings.Split(good, ".")
	for name, c := range map[string]struct {
		token string
		want  string // "" = good, else a word of the refusal
	}{
		"good":             {good, ""},
		"ES256":            {idp.Sign(t, "ES256", idp.Claims(who)), ""},
		"second audience":  {idp.Token(t, with("aud", []string{"account", "falaj-api"})), ""},
		"nearly valid":     {idp.Token(t, with("nbf", now.Add(time.Minute).Unix())), ""},
		"other audience":   {idp.Token(t, with("aud", "grafana")), "audience"},
		"no audience":      {idp.Token(t, with("aud", nil)), "audience"},
		"expired":          {idp.Token(t, with("exp", now.Add(-time.Second).Unix())), "expired"},
		"never expires":    {idp.Token(t, with("exp", nil)), "expired"},
		"not yet":          {idp.Token(t, with("nbf", now.Add(time.Hour).Unix())), "does not hold"},
		"from the future":  {idp.Token(t, with("iat", now.Add(time.Hour).Unix())), "future"},
		"other issuer":     {idp.Token(t, with("iss", other.URL)), "does not hold"},
		"other keys":       {other.Token(t, with("iss", idp.URL)), "does not hold"},
		"no person":        {idp.Token(t, with("sub", nil)), "no person"},
		"logout token":     {idp.Token(t, with("events", claims{"http://schemas.openid.net/event/backchannel-logout": claims{}})), "logout"},
		"groups of no use": {idp.Token(t, with("groups", 7)), "list of names"},
		"none":             {idp.Sign(t, "none", idp.Claims(who)), "does not hold"},
		"HS256, public":    {idp.Sign(t, "HS256", idp.Claims(who)), "does not hold"},
		"no signature":     {parts[0] + "." + parts[1] + ".", "does not hold"},
		"other claims":     {parts[0] + "." + strings.Split(idp.Token(t, with("sub", "2")), ".")[1] + "." + parts[2], "does not hold"},
		"nothing":          {"..", "does not hold"},
		"too long":         {idp.Token(t, with("x", strings.Repeat("x", 17<<10))), "16 KiB"},
	} {
		id, err := p.Bearer(context.Background(), c.token)
		if c.want == "" {
			if err != nil || id.Subject != "1" || id.Issuer != idp.URL || !slices.Equal(id.Names, []string{"amal"}) || !slices.Equal(id.Groups, []string{"/ml"}) || id.Expires.Before(now) {
				t.Errorf("%s: %+v %v", name, id, err)
			}
			continue
		}
		if !fault.Is(err, fault.Unauthenticated) || !strings.Contains(fault.From(err).Public, c.want) || id.Subject != "" {
			t.Errorf("%s: %+v %v", name, id, err)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	idp := oidctest.Start(t)
	p := provider(t, idp.URL)
	for _, c := range []struct {
		claims claims
		want   []string
	}{
		{claims{"preferred_username": "amal", "email": "a@x.example", "email_verified": true}, []string{"amal", "a@x.example"}},
		{claims{"email": "a@x.example"}, []string{"a@x.example"}},
		{claims{"email": "a@x.example", "email_verified": "true"}, []string{"a@x.example"}},
		{claims{"email": "a@x.example", "email_verified": false}, nil},
		{claims{"email": "a@x.example", "email_verified": "false"}, nil},
	} {
		c.claims["sub"] = "1"
		if id, err := p.Bearer(context.Background(), idp.Token(t, c.claims)); err != nil || !slices.Equal(id.Names, c.want) || id.HasGroups {
			t.Errorf("%v: %+v %v", c.claims, id, err)
		}
	}
}

// New keys are found by themselves; a flood of made-up key ids does not become a flood on the provider.
func TestRotation(t *testing.T) {
	t.Parallel()
	idp := oidctest.Start(t)
	p := provider(t, idp.URL)
	before := idp.Token(t, claims{"sub": "1"})
	ask := func(token string) error {
		_, err := p.Bearer(context.Background(), token)
		return err
	}
	if err := ask(before); err != nil {
		t.Fatal(err)
	}
	idp.Rotate(t)
	if err := ask(idp.Token(t, claims{"sub": "1"})); err != nil {
		t.Fatalf("a new key: %v", err)
	}
	if err := ask(before); !fault.Is(err, fault.Unauthenticated) {
		t.Fatalf("a key that was withdrawn: %v", err)
	}
	good, reads := idp.Token(t, claims{"sub": "1"}), idp.Reads("/keys")
	for range 100 {
		if err := ask(before); err == nil {
			t.Fatal("a withdrawn key works")
		}
	}
	if n := idp.Reads("/keys") - reads; n > 20 {
		t.Errorf("%d fetches for 100 unknown keys", n)
	}
	if err := ask(good); err != nil {
		t.Errorf("during the flood: %v", err)
	}
}

func TestOutage(t *testing.T) {
	t.Parallel()
	idp := oidctest.Start(t)
	p := provider(t, idp.URL)
	proofs := access.Proofs{State: "s", Nonce: "n", Verifier: strings.Repeat("v", 43)}
	idp.Down(true)
	if _, err := p.SignIn(t.Context(), "http://127.0.0.1/back", proofs); !fault.Is(err, fault.Unavailable) {
		t.Fatal(err)
	}
	if _, err := p.Bearer(t.Context(), idp.Token(t, claims{"sub": "1"})); !fault.Is(err, fault.Unavailable) {
		t.Fatal(err)
	}
	idp.Down(false)
	if _, err := p.SignIn(t.Context(), "http://127.0.0.1/back", proofs); err != nil {
		t.Fatalf("after the outage: %v", err)
	}
	idp.Down(true) // its address is known now, its keys are not
	if _, err := p.Bearer(t.Context(), idp.Token(t, claims{"sub": "1"})); !fault.Is(err, fault.Unavailable) {
		t.Fatalf("keys that cannot be fetched are no wrong signature: %v", err)
	}
	idp.Down(false)
	if _, err := p.Bearer(t.Context(), idp.Token(t, claims{"sub": "1"})); err != nil {
		t.Fatal(err)
	}
	idp.Down(true) // keys are known: tokens work through an outage
	if _, err := p.Bearer(t.Context(), idp.Token(t, claims{"sub": "2"})); err != nil {
		t.Fatal(err)
	}
}

// What a provider says of itself is not believed beyond its configuration.
func TestDiscoveryIsChecked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit func(claims)
		want string
	}{
		"another issuer": {func(d claims) { d["issuer"] = "http://127.0.0.1:1/other" }, "calls itself"},
		"plain keys":     {func(d claims) { d["jwks_uri"] = "http://keys.example.com/" }, "without TLS"},
		"plain tokens":   {func(d claims) { d["token_endpoint"] = "http://sso.example.com/" }, "without TLS"},
		"no pages":       {func(d claims) { delete(d, "authorization_endpoint") }, "without TLS"},
		"script":         {func(d claims) { d["authorization_endpoint"] = "javascript:alert(1)" }, "without TLS"},
	} {
		idp := oidctest.Start(t)
		idp.Edit(c.edit)
		if err := provider(t, idp.URL).Ready(t.Context()); !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.From(err).Public, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	away := httptest.NewServer(http.RedirectHandler("http://sso.example.com/", http.StatusFound))
	t.Cleanup(away.Close)
	if err := provider(t, away.URL).Ready(t.Context()); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "has no TLS") {
		t.Errorf("led away from TLS: %v", err)
	}
	idp := oidctest.Start(t)
	idp.Edit(func(d claims) { d["scopes_supported"] = []string{"openid", "groups"} })
	if at, err := provider(t, idp.URL).SignIn(t.Context(), "http://127.0.0.1/back", access.Proofs{Verifier: "v"}); err != nil || !strings.Contains(at, "groups") {
		t.Errorf("%s %v", at, err)
	}
}

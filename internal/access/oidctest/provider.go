// Package oidctest is an OpenID Connect provider in the test's process: discovery, keys, authorization with PKCE, and tokens.
// It is small and ours, because a test needs what a real provider refuses to do: wrong nonces, foreign algorithms, outages.
package oidctest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// The client that the provider knows.
const (
	ClientID = "falaj"
	Secret   = "a secret & with signs="
)

// Claims of a token.
type Claims = map[string]any

// Provider is a running provider. Its fields may be set between requests.
type Provider struct {
	URL string

	mu     sync.Mutex // guards all below
	person Claims
	mangle func(Claims)
	down   bool
	edit   func(discovery Claims)
	codes  map[string]grant
	rsa    *rsa.PrivateKey
	ec     *ecdsa.PrivateKey
	kid    int
	reads  map[string]int
}

type grant struct{ back, challenge, nonce string }

// Start runs a provider until the test ends.
func Start(t testing.TB) *Provider {
	t.Helper()
	p := &Provider{codes: map[string]grant{}, reads: map[string]int{}}
	p.Rotate(t)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("GET /keys", p.keys)
	mux.HandleFunc("GET /authorize", p.authorize)
	mux.HandleFunc("POST /token", p.token)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		down := p.down
		p.reads[r.URL.Path]++
		p.mu.Unlock()
		if down {
			http.Error(w, "out of order", http.StatusServiceUnavailable)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	p.URL = s.URL
	t.Cleanup(s.Close)
	return p
}

func (p *Provider) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// SignsIn says who sits before the browser: sub, preferred_username, groups and so on.
func (p *Provider) SignsIn(person Claims) { p.set(func() { p.person = person }) }

// Mangle changes the claims of ID tokens before they are signed; nil ends it.
func (p *Provider) Mangle(f func(Claims)) { p.set(func() { p.mangle = f }) }

// Down takes the provider out of order, or back.
func (p *Provider) Down(down bool) { p.set(func() { p.down = down }) }

// Edit changes the discovery document.
func (p *Provider) Edit(f func(discovery Claims)) { p.set(func() { p.edit = f }) }

// Reads counts the requests to a path.
func (p *Provider) Reads(path string) (n int) {
	p.set(func() { n = p.reads[path] })
	return n
}

// Rotate puts new keys in the place of the old ones, under a new id.
func (p *Provider) Rotate(t testing.TB) {
	t.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p.set(func() { p.rsa, p.ec, p.kid = r, e, p.kid+1 })
}

// Claims are good ones for an hour, with changes; a nil value takes a claim away.
func (p *Provider) Claims(changes Claims) Claims {
	c := Claims{"iss": p.URL, "aud": ClientID, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	for k, v := range changes {
		if c[k] = v; v == nil {
			delete(c, k)
		}
	}
	return c
}

// Token is a good bearer token with changes.
func (p *Provider) Token(t testing.TB, changes Claims) string {
	return p.Sign(t, "RS256", p.Claims(changes))
}

// Sign makes a token of one of RS256, ES256, none, and HS256 with the public key as the secret.
func (p *Provider) Sign(t testing.TB, alg string, claims Claims) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, err := p.sign(alg, claims)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (p *Provider) sign(alg string, claims Claims) (string, error) {
	head, err := json.Marshal(Claims{"alg": alg, "typ": "JWT", "kid": fmt.Sprint(strings.ToLower(alg[:2]), p.kid)})
	if err != nil {
		return "", err
	}
	if alg == "HS256" { // under the id of the RSA key, so that a careless verifier finds it
		head = []byte(fmt.Sprintf(`{"alg":"HS256","typ":"JWT","kid":"rs%d"}`, p.kid))
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	text := encode(head) + "." + encode(body)
	sum := sha256.Sum256([]byte(text))
	var sig []byte
	switch alg {
	case "RS256":
		sig, err = rsa.SignPKCS1v15(rand.Reader, p.rsa, crypto.SHA256, sum[:])
	case "ES256":
		var r, s *big.Int
		if r, s, err = ecdsa.Sign(rand.Reader, p.ec, sum[:]); err == nil {
			sig = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		}
	case "HS256":
		der, e := x509.MarshalPKIXPublicKey(p.rsa.Public())
		h := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		h.Write([]byte(text))
		sig, err = h.Sum(nil), e
	case "none":
	}
	return text + "." + encode(sig), err
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (p *Provider) discovery(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := Claims{"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
		"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256", "ES256", "HS256", "none"}}
	if p.edit != nil {
		p.edit(d)
	}
	answer(w, http.StatusOK, d)
}

func (p *Provider) keys(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	point, err := p.ec.PublicKey.Bytes() // 4, x, y
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, http.StatusOK, Claims{"keys": []Claims{
		{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": fmt.Sprint("rs", p.kid), "n": encode(p.rsa.N.Bytes()), "e": encode(big.NewInt(int64(p.rsa.E)).Bytes())},
		{"kty": "EC", "use": "sig", "alg": "ES256", "crv": "P-256", "kid": fmt.Sprint("es", p.kid), "x": encode(point[1:33]), "y": encode(point[33:])},
	}})
}

// authorize signs the person in at once and sends the browser back with a code.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := r.URL.Query()
	back, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || q.Get("client_id") != ClientID || q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" || !strings.Contains(q.Get("scope"), "openid") {
		http.Error(w, "a wrong request: "+r.URL.RawQuery, http.StatusBadRequest)
		return
	}
	v := back.Query()
	v.Set("state", q.Get("state"))
	if p.person == nil {
		v.Set("error", "access_denied")
	} else {
		code := rand.Text()
		p.codes[code] = grant{q.Get("redirect_uri"), q.Get("code_challenge"), q.Get("nonce")}
		v.Set("code", code)
	}
	back.RawQuery = v.Encode()
	http.Redirect(w, r, back.String(), http.StatusFound)
}

// token gives an ID token for a code, once, to the browser's server that began.
func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id, secret, _ := r.BasicAuth()
	id, _ = url.QueryUnescape(id)
	secret, _ = url.QueryUnescape(secret)
	if id != ClientID || secret != Secret {
		answer(w, http.StatusUnauthorized, Claims{"error": "invalid_client"})
		return
	}
	g, ok := p.codes[r.FormValue("code")]
	delete(p.codes, r.FormValue("code"))
	sum := sha256.Sum256([]byte(r.FormValue("code_verifier")))
	if !ok || r.FormValue("grant_type") != "authorization_code" || g.back != r.FormValue("redirect_uri") || g.challenge != encode(sum[:]) {
		answer(w, http.StatusBadRequest, Claims{"error": "invalid_grant"})
		return
	}
	c := p.Claims(Claims{"nonce": g.nonce})
	maps.Copy(c, p.person)
	if p.mangle != nil {
		p.mangle(c)
	}
	raw, err := p.sign("RS256", c)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, http.StatusOK, Claims{"access_token": "opaque", "token_type": "Bearer", "expires_in": 300, "id_token": raw})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone when this fails
}

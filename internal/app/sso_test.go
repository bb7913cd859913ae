package app

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"falaj/internal/access"
	"falaj/internal/access/oidctest"
	"falaj/internal/api"
	"falaj/internal/door"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
)

// site is a server with a provider beside it, behind the real door.
type site struct {
	t    *testing.T
	app  *App
	idp  *oidctest.Provider
	url  string
	root context.Context
}

func newSite(t *testing.T, change func(*Config)) *site {
	t.Helper()
	s := &site{t: t, idp: oidctest.Start(t)}
	secret := filepath.Join(t.TempDir(), "secret")
	writeFile(t, secret, oidctest.Secret+"\n")
	cfg := Config{OIDCIssuer: s.idp.URL, OIDCClientID: oidctest.ClientID, OIDCClientSecretFile: secret, OIDCMap: []string{"/ml=ds", "CN=risk,OU=x=ml-risk"}, Hosts: []string{"falaj.example.com"}}
	if change != nil {
		change(&cfg)
	}
	s.app = newApp(t, cfg)
	server := httptest.NewServer(s.app.door)
	t.Cleanup(server.Close)
	s.url = server.URL
	link, err := s.app.access.SetupLink(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.app.access.Setup(t.Context(), link, "root", "a falaj flows downhill"); err != nil {
		t.Fatal(err)
	}
	s.root = who.With(t.Context(), who.Actor{Kind: who.User, Name: "root"})
	if _, err := s.app.access.CreateProject(s.root, "flights", "", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.app.access.Bind(s.root, access.Binding{Project: "flights", Role: policy.Engineer, Principal: "group:ds"}); err != nil {
		t.Fatal(err)
	}
	return s
}

// browser is a client with cookies that stops where falaj's pages begin.
func (s *site) browser() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if r.URL.Path == "/" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
}

type reply struct {
	status int
	head   http.Header
	body   string
}

func (s *site) get(c *http.Client, path string, header ...string) reply {
	s.t.Helper()
	r, err := http.NewRequest("GET", s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if r.Header.Set(header[i], header[i+1]); header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	resp, err := c.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(b)}
}

const start = api.Base + "/oidc/start?next=%23%2Fp%2Fflights"

// page is the Accept header of a person's browser.
var page = []string{"Accept", "text/html,application/xhtml+xml"}

func (s *site) enter(c *http.Client) string {
	s.t.Helper()
	return s.get(c, start, page...).head.Get("Location")
}

func (s *site) me(c *http.Client, header ...string) (m api.Me) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.get(c, api.Base+"/me", header...).body), &m); err != nil {
		s.t.Fatal(err)
	}
	return m
}

func TestBrowserSignsInAtTheProvider(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *Config) { c.OIDCName = "Company login" })
	c := s.browser()
	if m := s.me(c); m.SSO == nil || m.SSO.Name != "Company login" || m.Actor.Kind != "anonymous" {
		t.Fatalf("%+v", m)
	}
	const models = api.Base + "/projects/flights/models"
	amal := oidctest.Claims{"sub": "1", "preferred_username": "amal", "groups": []string{"/ml"}}
	s.idp.SignsIn(amal)
	end := s.get(c, start, page...)
	cookies := strings.Join(end.head.Values("Set-Cookie"), "\n")
	if end.status != 302 || end.head.Get("Location") != "/#/p/flights" || end.head.Get("Cache-Control") != "no-store" {
		t.Fatalf("%+v", end)
	}
	if !strings.Contains(cookies, door.SessionCookie+"=") || strings.Count(cookies, "HttpOnly") != 2 || !strings.Contains(cookies, "SameSite=Strict") || !strings.Contains(cookies, ticketGone) {
		t.Errorf("cookies: %s", cookies)
	}
	if m := s.me(c); m.Actor.Name != "amal" || len(m.Groups) != 1 || m.Groups[0] != "ds" {
		t.Fatalf("%+v", m)
	}
	if r := s.get(c, models); r.status != 200 {
		t.Fatalf("%+v", r)
	}
	// Rights follow the groups at the next sign-in.
	amal["groups"] = []string{"/nothing"}
	if at := s.enter(c); at != "/#/p/flights" {
		t.Fatal(at)
	}
	if r := s.get(c, models); r.status != 403 {
		t.Fatalf("%+v", r)
	}
	// What did not begin in this browser does not end in it, and a code is good once.
	var callback string
	watcher := s.browser()
	follow := watcher.CheckRedirect
	watcher.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if strings.HasSuffix(r.URL.Path, "/callback") {
			callback = r.URL.RequestURI()
		}
		return follow(r, via)
	}
	jar := watcher.Jar
	if at := s.enter(watcher); at != "/#/p/flights" {
		t.Fatal(at)
	}
	if at := s.get(s.browser(), callback, page...).head.Get("Location"); at != "/#/login?sso=stale" {
		t.Errorf("another browser: %s", at)
	}
	if r := s.get(s.browser(), callback); r.status != 401 || !strings.Contains(r.body, "not begun in this browser") {
		t.Errorf("another program: %+v", r)
	}
	watcher.Jar = keep{jar}
	if at := s.enter(watcher); at != "/#/p/flights" {
		t.Fatal(at)
	}
	watcher.CheckRedirect = follow
	if at := s.get(watcher, callback, page...).head.Get("Location"); at != "/#/login?sso=rejected" {
		t.Errorf("a code of before, in its own browser: %s", at)
	}
	s.idp.Mangle(func(c oidctest.Claims) { c["nonce"] = "another" })
	if at := s.enter(s.browser()); at != "/#/login?sso=rejected" {
		t.Errorf("a wrong nonce: %s", at)
	}
	s.idp.Mangle(nil)
	s.idp.SignsIn(oidctest.Claims{"sub": "2", "preferred_username": "root"})
	clash := s.browser()
	if at := s.enter(clash); at != "/#/login?sso=name_taken" || s.me(clash).Actor.Kind != "anonymous" {
		t.Errorf("a local name: %s", at)
	}
	s.idp.SignsIn(nil)
	if at := s.enter(s.browser()); at != "/#/login?sso=rejected" {
		t.Errorf("refused there: %s", at)
	}
	if err := s.app.access.DisableUser(s.root, "amal"); err != nil {
		t.Fatal(err)
	}
	s.idp.SignsIn(amal)
	if at := s.enter(s.browser()); at != "/#/login?sso=disabled" || s.me(c).Actor.Kind != "anonymous" {
		t.Errorf("disabled: %s", at)
	}
}

// keep is a jar that forgets nothing: a browser in which a finished sign-in can be played again.
type keep struct{ http.CookieJar }

func (k keep) SetCookies(u *url.URL, cookies []*http.Cookie) {
	var kept []*http.Cookie
	for _, c := range cookies {
		if c.MaxAge >= 0 {
			kept = append(kept, c)
		}
	}
	k.CookieJar.SetCookies(u, kept)
}

const ticketGone = "falaj_sso=; Path=/api/falaj/v1/oidc; Max-Age=0"

// The provider's tokens open every API that falaj's own do, and only the good ones.
func TestProvidersTokensOpenTheDoor(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *Config) { c.OIDCAudience = "falaj-api" })
	person := oidctest.Claims{"sub": "7", "preferred_username": "badr", "groups": []string{"/ml"}}
	with := func(k string, v any) oidctest.Claims {
		c := oidctest.Claims{k: v}
		for n, x := range person {
			if n != k {
				c[n] = x
			}
		}
		return c
	}
	good := s.idp.Token(t, person)
	c := http.DefaultClient
	const models, mlflow = api.Base + "/projects/flights/models", "/p/flights/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
	own := s.get(c, mlflow, "Authorization", "Bearer "+good)
	if r := s.get(c, models, "Authorization", "Bearer "+good); r.status != 200 || own.status == 401 || own.status == 403 {
		t.Fatalf("%+v\n%+v", r, own)
	}
	basic, err := http.NewRequest("GET", s.url+mlflow, nil)
	if err != nil {
		t.Fatal(err)
	}
	basic.SetBasicAuth("badr", good)
	if resp, err := c.Do(basic); err != nil || resp.StatusCode != own.status {
		t.Fatalf("basic auth as MLflow's clients do: %v %v", resp, err)
	}
	if m := s.me(c, "Authorization", "Bearer "+good); m.Actor.Name != "badr" || len(m.Groups) != 1 {
		t.Fatalf("%+v", m)
	}
	for name, c2 := range map[string]struct {
		token  string
		status int
	}{
		"second audience": {s.idp.Token(t, with("aud", "falaj-api")), 200},
		"ES256":           {s.idp.Sign(t, "ES256", s.idp.Claims(person)), 200},
		"other audience":  {s.idp.Token(t, with("aud", "grafana")), 401},
		"expired":         {s.idp.Token(t, with("exp", time.Now().Add(-time.Minute).Unix())), 401},
		"none":            {s.idp.Sign(t, "none", s.idp.Claims(person)), 401},
		"HS256":           {s.idp.Sign(t, "HS256", s.idp.Claims(person)), 401},
		"other issuer":    {s.idp.Token(t, with("iss", "http://127.0.0.1:1")), 401},
		"local name":      {s.idp.Token(t, oidctest.Claims{"sub": "8", "preferred_username": "root"}), 403},
		"no groups":       {s.idp.Token(t, with("groups", nil)), 403},
	} {
		for _, path := range []string{models, mlflow} {
			r := s.get(c, path, "Authorization", "Bearer "+c2.token)
			if got := r.status; got != c2.status && (c2.status != 200 || path != mlflow || got != own.status) {
				t.Errorf("%s: %s: %d %s", name, path, got, r.body)
			}
			if strings.Contains(r.body, "oidc:") || strings.Contains(r.body, "jose") {
				t.Errorf("%s shows a library's words: %s", name, r.body)
			}
		}
	}
	s.idp.Rotate(t)
	if r := s.get(c, models, "Authorization", "Bearer "+s.idp.Token(t, person)); r.status != 200 {
		t.Errorf("a new key: %+v", r)
	}
	if err := s.app.access.DisableUser(s.root, "badr"); err != nil {
		t.Fatal(err)
	}
	if r := s.get(c, models, "Authorization", "Bearer "+s.idp.Token(t, person)); r.status != 401 || !strings.Contains(r.body, "disabled") {
		t.Errorf("disabled: %+v", r)
	}
}

// A provider that is away stops neither the start nor passwords, and is found again without a restart.
func TestProviderAway(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.idp.SignsIn(oidctest.Claims{"sub": "1", "preferred_username": "amal"})
	s.idp.Down(true)
	c := s.browser()
	if at := s.enter(c); at != "/#/login?sso=unreachable" {
		t.Fatal(at)
	}
	if r := s.get(c, start); r.status != 503 || !strings.Contains(r.body, "does not answer") {
		t.Fatalf("%+v", r)
	}
	if r := s.get(c, api.Base+"/projects", "Authorization", "Bearer "+s.idp.Token(t, oidctest.Claims{"sub": "1"})); r.status != 503 {
		t.Fatalf("%+v", r)
	}
	if _, err := s.app.access.Login(t.Context(), "root", "a falaj flows downhill"); err != nil {
		t.Fatal(err)
	}
	s.idp.Down(false)
	if at := s.enter(c); at != "/#/p/flights" || s.me(c).Actor.Name != "amal" {
		t.Fatal(at)
	}
}

// Behind a proxy with TLS the browser comes back by https, and its cookies never travel without.
func TestTheWayBackIsTheBrowsersAddress(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for host, want := range map[string]string{
		"falaj.example.com": "https://falaj.example.com/api/falaj/v1/oidc/callback", "localhost:7420": "http://localhost:7420/api/falaj/v1/oidc/callback", "[::1]:7420": "http://[::1]:7420/api/falaj/v1/oidc/callback",
	} {
		r := s.get(c, start, "Host", host)
		u, err := url.Parse(r.head.Get("Location"))
		if err != nil || u.Query().Get("redirect_uri") != want || u.Query().Get("code_challenge_method") != "S256" || u.Query().Get("nonce") == "" {
			t.Errorf("%s: %v %v", host, u, err)
		}
		cookie := r.head.Get("Set-Cookie")
		if !strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Lax") || strings.Contains(cookie, "Secure") != strings.HasPrefix(want, "https") {
			t.Errorf("%s: %s", host, cookie)
		}
		for _, secret := range []string{u.Query().Get("state"), u.Query().Get("nonce")} {
			if strings.Contains(cookie, secret) {
				t.Errorf("the ticket holds what it is to prove: %s", cookie)
			}
		}
	}
	if r := s.get(c, start, "Host", "evil.example.com"); r.status != 403 {
		t.Errorf("%+v", r)
	}
}

func TestWrongOIDCStopsTheStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name string, mode os.FileMode, text string) string {
		p := filepath.Join(dir, name)
		writeFile(t, p, text)
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	good := Config{OIDCIssuer: "http://127.0.0.1:1", OIDCClientID: "falaj", OIDCClientSecretFile: file("good", 0o400, "s")}
	for name, c := range map[string]struct {
		change func(*Config)
		want   string // "" starts
	}{
		"unreachable":       {func(*Config) {}, ""},
		"public client":     {func(c *Config) { c.OIDCClientSecretFile = "" }, ""},
		"no issuer":         {func(c *Config) { c.OIDCIssuer = "" }, "without an issuer"},
		"map alone":         {func(c *Config) { *c = Config{OIDCMap: []string{"a=b"}} }, "without an issuer"},
		"malformed":         {func(c *Config) { c.OIDCIssuer = "sso" }, "not the address"},
		"plain":             {func(c *Config) { c.OIDCIssuer = "http://sso.example.com" }, "without TLS"},
		"no client":         {func(c *Config) { c.OIDCClientID = "" }, "client id"},
		"no file":           {func(c *Config) { c.OIDCClientSecretFile = dir + "/none" }, "cannot be read"},
		"a folder":          {func(c *Config) { c.OIDCClientSecretFile = dir }, "mode"},
		"others read":       {func(c *Config) { c.OIDCClientSecretFile = file("open", 0o644, "s") }, "read by others"},
		"the group reads":   {func(c *Config) { c.OIDCClientSecretFile = file("group", 0o640, "s") }, "read by others"},
		"empty":             {func(c *Config) { c.OIDCClientSecretFile = file("empty", 0o600, " \n") }, "is empty"},
		"map without group": {func(c *Config) { c.OIDCMap = []string{"ml"} }, "does not map"},
		"map to a bad name": {func(c *Config) { c.OIDCMap = []string{"ml=ML Risk"} }, "does not map"},
	} {
		cfg := good
		c.change(&cfg)
		cfg.Data, cfg.Listen = t.TempDir(), "127.0.0.1:0"
		a, err := New(context.Background(), cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
		if err == nil {
			a.Stop(context.Background())
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(fault.From(err).Public, c.want) || fault.From(err).Next == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

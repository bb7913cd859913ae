package uitest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"falaj/internal/access/oidctest"
	"falaj/internal/app"
)

// A real browser, a real server, and a provider on another site: the cookies' rules for strangers' pages let the way there and
// back through, and the page that was wanted opens.
func TestSignInAtTheIdentityProvider(t *testing.T) {
	t.Parallel()
	idp := oidctest.Start(t)
	idp.URL = strings.Replace(idp.URL, "127.0.0.1", "localhost", 1) // another site than the server's
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte(oidctest.Secret), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := app.New(t.Context(), app.Config{Data: filepath.Join(dir, "data"), Listen: "127.0.0.1:0", OIDCIssuer: idp.URL, OIDCClientID: oidctest.ClientID, OIDCClientSecretFile: secret}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop(context.Background()) })
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	link, err := s.SetupLink(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, token, _ := strings.Cut(link, "token=")
	body, err := json.Marshal(map[string]string{"token": token, "user": "root", "password": "a falaj flows downhill"})
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := http.Post(s.URL()+"/api/falaj/v1/setup", "application/json", bytes.NewReader(body)); err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	idp.SignsIn(oidctest.Claims{"sub": "1", "preferred_username": "root"})
	b := Start(t)
	p := b.Open(t, s.URL(), "", View{})
	p.Visit("#/p/default/audit")
	if !strings.HasPrefix(p.Hash(), "#/login") {
		t.Fatalf("not signed in, yet at %s", p.Hash())
	}
	// The link leaves the page, so the browser waits for an element of the one that comes.
	leave := func(until string) {
		p.do(chromedp.Click(`a[href*="/oidc/start"]`, chromedp.NodeVisible), chromedp.WaitVisible(until))
	}
	if text := p.Text("main"); !strings.Contains(text, "Sign in with SSO") {
		t.Errorf("the sign-in page: %s", text)
	}
	leave(".error")
	p.WaitText("Your name belongs to a local account here")
	if p.Hash() != "#/login?sso=name_taken" {
		t.Errorf("refused at %s", p.Hash())
	}
	idp.SignsIn(oidctest.Claims{"sub": "2", "preferred_username": "amal"})
	p.Visit("#/login?next=" + url.QueryEscape("#/p/default/audit"))
	leave(`button[title="Sign out"]`)
	p.WaitText("amal")
	if p.Hash() != "#/p/default/audit" {
		t.Errorf("after signing in at %s", p.Hash())
	}
	p.Reload()
	p.WaitText("amal")
	ar := b.Open(t, s.URL(), "", View{Language: "ar"})
	ar.Visit("#/login?sso=disabled")
	if text := run(ar, chromedp.Evaluate[string](`document.body.innerText`)); !strings.Contains(text, "الدخول الموحّد (SSO)") || !strings.Contains(text, "حسابك معطّل هنا") {
		t.Errorf("in Arabic: %s", text)
	}
}

package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"falaj/internal/access"
	"falaj/internal/door"
	"falaj/internal/kernel/fault"
	"falaj/internal/store"
)

// ticketCookie is what a browser keeps while its person is at the identity provider.
const ticketCookie = "falaj_sso"

const ssoPath = Base + "/oidc"

// caller is where a browser thinks that this server is. The door has checked the name.
type caller struct {
	host   string
	secure bool
	page   bool // a person looks at the answer
}

// Resolve implements huma.Resolver.
func (c *caller) Resolve(ctx huma.Context) []error {
	c.host, c.secure = ctx.Host(), true
	name, _, err := net.SplitHostPort(c.host)
	if err != nil {
		name = c.host
	}
	name = strings.Trim(name, "[]")
	ip := net.ParseIP(name)
	// This server speaks plain HTTP on loopback; by any other name it stands behind a proxy with TLS.
	if ctx.TLS() == nil && (name == "localhost" || strings.HasSuffix(name, ".localhost") || ip != nil && ip.IsLoopback()) {
		c.secure = false
	}
	c.page = strings.Contains(ctx.Header("Accept"), "text/html")
	return nil
}

// back is the redirect URI to register at the provider.
func (c *caller) back() string {
	scheme := "http://"
	if c.secure {
		scheme = "https://"
	}
	return scheme + c.host + ssoPath + "/callback"
}

type ssoBegin struct {
	caller
	Next string `query:"next" maxLength:"1000" doc:"fragment of the page to come back to, such as #/p/flights"`
}

type ssoEnd struct {
	caller
	Code   string `query:"code" maxLength:"8000"`
	State  string `query:"state" maxLength:"200"`
	Error  string `query:"error" maxLength:"200" doc:"the provider's refusal"`
	Ticket string `cookie:"falaj_sso"`
}

type elsewhere struct {
	Location string   `header:"Location"`
	Cache    string   `header:"Cache-Control"`
	Cookies  []string `header:"Set-Cookie"`
}

func (a *API) oidc() {
	add(a, "GET", "/oidc/start", "startSSO", "Sign in at the identity provider: leads the browser there", "", a.startSSO, public(), status(http.StatusFound))
	add(a, "GET", "/oidc/callback", "endSSO", "Come back from the identity provider with a session", "", a.endSSO, public(), status(http.StatusFound))
}

func (a *API) startSSO(ctx context.Context, in *ssoBegin) (*elsewhere, error) {
	address, ticket, err := a.Access.BeginSSO(ctx, in.back(), in.Next)
	if err != nil {
		return a.turnedAway(ctx, in.caller, err)
	}
	return lead(address, in.ticket(ticket)), nil
}

func (a *API) endSSO(ctx context.Context, in *ssoEnd) (*elsewhere, error) {
	secret, next, err := a.Access.EndSSO(ctx, access.Return{Back: in.back(), Ticket: in.Ticket, State: in.State, Code: in.Code, Error: in.Error})
	if err != nil {
		return a.turnedAway(ctx, in.caller, err)
	}
	session := http.Cookie{Name: door.SessionCookie, Value: secret, Path: "/", HttpOnly: true, Secure: in.secure, SameSite: http.SameSiteStrictMode, Expires: time.Now().Add(access.SessionTTL)}
	return lead("/"+next, in.ticket(""), session), nil
}

// turnedAway leads a person back to the sign-in page with one of a few words: no text of a stranger's address is shown there.
func (a *API) turnedAway(ctx context.Context, c caller, err error) (*elsewhere, error) {
	if !c.page {
		return nil, err
	}
	_ = toProblem(ctx, a.Log, err) // logs what a person cannot mend
	a.Log.Debug("a sign-in at the identity provider was refused", "request", store.RequestID(ctx), "err", err)
	word := string(access.Rejected)
	var r access.Refusal
	switch {
	case errors.As(err, &r):
		word = string(r)
	case fault.Is(err, fault.Unavailable), fault.Is(err, fault.Internal):
		word = string(access.Unreachable)
	}
	return lead("/#/login?sso="+word, c.ticket("")), nil
}

// ticket is Lax, for the way back begins at the provider's page. An empty one takes it from the browser.
func (c *caller) ticket(value string) http.Cookie {
	age := int(access.SSOTTL / time.Second)
	if value == "" {
		age = -1
	}
	return http.Cookie{Name: ticketCookie, Value: value, Path: ssoPath, HttpOnly: true, Secure: c.secure, SameSite: http.SameSiteLaxMode, MaxAge: age}
}

func lead(to string, cookies ...http.Cookie) *elsewhere {
	out := &elsewhere{Location: to, Cache: "no-store"}
	for _, c := range cookies {
		out.Cookies = append(out.Cookies, c.String())
	}
	return out
}

package api

import (
	"context"
	"net/http"
	"time"

	"falaj/internal/access"
	"falaj/internal/door"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

// Me is who the caller is.
type Me struct {
	Actor         ActorRef `json:"actor"`
	Groups        []string `json:"groups"`
	Open          bool     `json:"open" doc:"open mode: no sign-in is asked for on loopback"`
	SetupRequired bool     `json:"setup_required"`
	SSO           *SSO     `json:"sso" doc:"null: people have passwords only"`
	Version       string   `json:"version"`
	ServerTime    int64    `json:"server_time"`
	ExpiresAt     *int64   `json:"expires_at"`
}

// SSO is an identity provider at which people sign in: /oidc/start leads there.
type SSO struct {
	Name string `json:"name" doc:"what the button says; empty: the page's own words"`
}

type credentials struct {
	Body struct {
		User     string `json:"user" maxLength:"63"`
		Password string `json:"password" maxLength:"1024"`
	}
}

type signedIn struct {
	Cookie http.Cookie `header:"Set-Cookie"`
	Body   Me
}

func (a *API) session() {
	add(a, "GET", "/me", "me", "Who am I", "", a.me, public())
	add(a, "POST", "/login", "login", "Sign in with a password", "", a.login, public())
	add(a, "POST", "/logout", "logout", "Sign out", "session.delete", a.logout, installation("Session"), status(http.StatusNoContent))
	add(a, "POST", "/setup", "setup", "Create the first admin with the one-use link", "", a.setup, public())
}

func (a *API) me(ctx context.Context, _ *struct{}) (*Out[Me], error) {
	m, err := a.describe(ctx, who.From(ctx))
	return answer(m), err
}

func (a *API) describe(ctx context.Context, actor who.Actor) (Me, error) {
	users, err := a.Access.Users(who.AsSystem(ctx, "api"))
	if err != nil {
		return Me{}, err
	}
	kind, name := string(actor.Kind), actor.Name
	if name == "" {
		kind, name = "anonymous", "anonymous"
	}
	groups := actor.Groups
	if groups == nil {
		groups = []string{}
	}
	return Me{Actor: ActorRef{kind, name}, Groups: groups, Open: a.Open && actor.Via == "open", SetupRequired: len(users) == 0, SSO: a.SSO, Version: a.Version, ServerTime: store.Micros(time.Now())}, nil
}

func (a *API) login(ctx context.Context, in *credentials) (*signedIn, error) {
	secret, err := a.Access.Login(ctx, in.Body.User, in.Body.Password)
	if err != nil {
		return nil, err
	}
	return a.signedIn(ctx, secret)
}

func (a *API) signedIn(ctx context.Context, secret string) (*signedIn, error) {
	actor, err := a.Access.Session(ctx, secret)
	if err != nil {
		return nil, err
	}
	me, err := a.describe(ctx, actor)
	if err != nil {
		return nil, err
	}
	expires := time.Now().Add(access.SessionTTL)
	us := store.Micros(expires)
	me.ExpiresAt = &us
	return &signedIn{Cookie: http.Cookie{Name: door.SessionCookie, Value: secret, Path: "/", HttpOnly: true, Secure: a.Secure, SameSite: http.SameSiteStrictMode, Expires: expires}, Body: me}, nil
}

type cookieIn struct {
	Session string `cookie:"falaj_session"`
}

type signedOut struct {
	Cookie http.Cookie `header:"Set-Cookie"`
}

func (a *API) logout(ctx context.Context, in *cookieIn) (*signedOut, error) {
	if in.Session == "" {
		return nil, fault.New(fault.Unauthenticated, "You are not signed in.", "")
	}
	if err := a.Access.Logout(ctx, in.Session); err != nil {
		return nil, err
	}
	return &signedOut{http.Cookie{Name: door.SessionCookie, Path: "/", MaxAge: -1, HttpOnly: true, Secure: a.Secure, SameSite: http.SameSiteStrictMode}}, nil
}

type setupIn struct {
	Body struct {
		Token    string `json:"token" maxLength:"200"`
		User     string `json:"user" maxLength:"63"`
		Password string `json:"password" maxLength:"1024"`
	}
}

func (a *API) setup(ctx context.Context, in *setupIn) (*signedIn, error) {
	if _, err := a.Access.Setup(ctx, in.Body.Token, in.Body.User, in.Body.Password); err != nil {
		return nil, err
	}
	secret, err := a.Access.Login(ctx, in.Body.User, in.Body.Password)
	if err != nil {
		return nil, err
	}
	return a.signedIn(ctx, secret)
}

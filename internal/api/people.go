package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"falaj/internal/access"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

func (a *API) people() {
	add(a, "GET", "/users", "listUsers", "List people", "user.update", a.users, installation("User"))
	add(a, "POST", "/users", "createUser", "Create a person", "user.create", a.createUser, installation("User"), status(http.StatusCreated))
	add(a, "PUT", "/users/{user}/groups", "setGroups", "Replace a person's groups", "group.update", a.setGroups, installation("User"), status(http.StatusNoContent))
	add(a, "PUT", "/users/{user}/password", "setPassword", "Set a password: one's own with the old one, or as admin", "me.read", a.setPassword, installation("User"), status(http.StatusNoContent))
	add(a, "DELETE", "/users/{user}", "disableUser", "Disable a person; sessions and tokens end at once", "user.update", a.disableUser, installation("User"), status(http.StatusNoContent))
	add(a, "POST", "/bindings", "bindRole", "Give a principal a role", "role.bind", a.bind, bindingProject(), status(http.StatusNoContent))
	add(a, "POST", "/bindings/remove", "unbindRole", "Take a role away", "role.unbind", a.unbind, bindingProject(), status(http.StatusNoContent))
	add(a, "GET", "/projects/{p}/bindings", "listBindings", "Who holds which role", "project.read", a.bindings)
	add(a, "GET", "/tokens", "listTokens", "The caller's tokens", "me.read", a.tokens, installation("Token"))
	add(a, "POST", "/tokens", "createToken", "Make a token; its secret is shown once", "me.read", a.createToken, installation("Token"), status(http.StatusCreated))
	add(a, "DELETE", "/tokens/{token}", "revokeToken", "Revoke a token at once", "me.read", a.revokeToken, installation("Token"), status(http.StatusNoContent))
	add(a, "GET", "/policy/why", "policyWhy", "Explain a decision", "me.read", a.policyWhy, installation("Policy"))
}

// bindingProject leaves the decision to the change itself, which knows the project from the body; the door asks only for a known caller.
func bindingProject() option {
	return func(e *entry, _ *huma.Operation) {
		e.action = "me.read"
		e.resource = func(*http.Request) (policy.Resource, error) { return policy.Resource{Kind: "Binding", ID: "*"}, nil }
	}
}

func (a *API) users(ctx context.Context, _ *struct{}) (*Out[Page[access.User]], error) {
	u, err := a.Access.Users(ctx)
	return page(u), err
}

type userIn struct {
	Body struct {
		Name     string   `json:"name" maxLength:"63"`
		FullName string   `json:"full_name,omitempty" maxLength:"200"`
		Password string   `json:"password" maxLength:"1024"`
		Groups   []string `json:"groups,omitempty"`
	}
}

func (a *API) createUser(ctx context.Context, in *userIn) (*Out[access.User], error) {
	u, err := a.Access.CreateUser(ctx, in.Body.Name, in.Body.FullName, in.Body.Password, in.Body.Groups)
	return answer(u), err
}

type groupsIn struct {
	User string `path:"user"`
	Body struct {
		Groups []string `json:"groups"`
	}
}

func (a *API) setGroups(ctx context.Context, in *groupsIn) (*struct{}, error) {
	return nil, a.Access.SetGroups(ctx, in.User, in.Body.Groups)
}

type passwordIn struct {
	User string `path:"user"`
	Body struct {
		Old string `json:"old,omitempty" maxLength:"1024" doc:"needed for one's own"`
		New string `json:"new" maxLength:"1024"`
	}
}

func (a *API) setPassword(ctx context.Context, in *passwordIn) (*struct{}, error) {
	return nil, a.Access.SetPassword(ctx, in.User, in.Body.Old, in.Body.New)
}

func (a *API) disableUser(ctx context.Context, in *struct {
	User string `path:"user"`
}) (*struct{}, error) {
	return nil, a.Access.DisableUser(ctx, in.User)
}

type bindingIn struct{ Body access.Binding }

func (a *API) bind(ctx context.Context, in *bindingIn) (*struct{}, error) {
	return nil, a.Access.Bind(ctx, in.Body)
}

func (a *API) unbind(ctx context.Context, in *bindingIn) (*struct{}, error) {
	return nil, a.Access.Unbind(ctx, in.Body)
}

func (a *API) bindings(ctx context.Context, in *InProject) (*Out[Page[access.Binding]], error) {
	b, err := a.Access.Bindings(ctx, in.Project)
	return page(b), err
}

func (a *API) tokens(ctx context.Context, _ *struct{}) (*Out[Page[access.Token]], error) {
	actor := who.From(ctx)
	if actor.Kind == who.Anonymous {
		return nil, fault.New(fault.Unauthenticated, "Sign in first.", "")
	}
	t, err := a.Access.Tokens(ctx, actor.String())
	return page(t), err
}

type tokenIn struct {
	Body struct {
		Principal string      `json:"principal,omitempty" doc:"user:NAME or service:NAME; default: the caller"`
		Name      string      `json:"name,omitempty" maxLength:"200"`
		Project   string      `json:"project,omitempty"`
		Role      policy.Role `json:"role,omitempty"`
		TTL       int64       `json:"ttl_seconds,omitempty" doc:"at most 90 days; default 30 days"`
	}
}

// NewToken is a token with its secret, which is shown once.
type NewToken struct {
	access.Token
	Secret string `json:"secret" doc:"shown once"`
}

func (a *API) createToken(ctx context.Context, in *tokenIn) (*Out[NewToken], error) {
	if who.From(ctx).Kind == who.Anonymous {
		return nil, fault.New(fault.Unauthenticated, "Sign in first.", "")
	}
	t, secret, err := a.Access.CreateToken(ctx, access.TokenRequest{Principal: in.Body.Principal, Name: in.Body.Name, Project: in.Body.Project, Role: in.Body.Role, TTL: time.Duration(in.Body.TTL) * time.Second})
	return answer(NewToken{t, secret}), err
}

func (a *API) revokeToken(ctx context.Context, in *struct {
	Token string `path:"token"`
}) (*struct{}, error) {
	return nil, a.Access.RevokeToken(ctx, in.Token)
}

type whyIn struct {
	Principal string `query:"principal" doc:"default: the caller"`
	Action    string `query:"action" required:"true"`
	Resource  string `query:"resource" doc:"Kind::project/id"`
}

// Why is a decision with its reasons.
type Why struct {
	Principal string          `json:"principal"`
	Action    string          `json:"action"`
	Resource  string          `json:"resource"`
	Allow     bool            `json:"allow"`
	Reasons   []policy.Reason `json:"reasons"`
	Missing   []policy.Role   `json:"missing" doc:"roles that would allow it"`
}

func (a *API) policyWhy(ctx context.Context, in *whyIn) (*Out[Why], error) {
	kind, rest, ok := strings.Cut(in.Resource, "::")
	if !ok {
		kind, rest = "Project", in.Resource
	}
	project, id, ok := strings.Cut(rest, "/")
	if !ok {
		project, id = rest, rest
	}
	if in.Principal == "" {
		in.Principal = who.From(ctx).String()
	}
	res := policy.Resource{Kind: kind, ID: id, Project: project}
	if kind == "Change" { // who asked for it and who made the model decide too
		read := policy.Resource{Kind: "Project", ID: project, Project: project}
		if d, err := a.Store.Authorize(ctx, "change.read", read); err != nil || !d.Allow {
			if err == nil {
				err = store.Denied(ctx, "change.read", read, d)
			}
			return nil, err
		}
		c, err := a.Delivery.Change(ctx, project, id)
		if err != nil {
			return nil, err
		}
		res = c.Resource()
	}
	d, err := a.Access.Explain(ctx, in.Principal, policy.Action(in.Action), res)
	if err != nil {
		return nil, err
	}
	w := Why{Principal: in.Principal, Action: in.Action, Resource: res.String(), Allow: d.Allow, Reasons: d.Reasons, Missing: d.Missing}
	if w.Reasons == nil {
		w.Reasons = []policy.Reason{}
	}
	if w.Missing == nil {
		w.Missing = []policy.Role{}
	}
	return answer(w), nil
}

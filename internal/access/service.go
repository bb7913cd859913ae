package access

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/id"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

// Service is the access stage.
type Service struct {
	store *store.Store
	auth  *Authorizer
	mac   func(purpose string, msg []byte) []byte // keyed hash under the server's pepper

	mu    sync.Mutex // guards known
	known map[string]cachedActor

	attempts   *throttle
	federation Federation // set before the first request
}

type cachedActor struct {
	actor who.Actor
	until time.Time
}

// New makes the stage. mac is a keyed hash whose key is not in the database (kernel/seal's Keys.MAC).
func New(s *store.Store, a *Authorizer, mac func(purpose string, msg []byte) []byte) *Service {
	return &Service{store: s, auth: a, mac: mac, known: map[string]cachedActor{}, attempts: newThrottle()}
}

func (s *Service) hash(kind, secret string) []byte { return s.mac("access/"+kind, []byte(secret)) }

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

func checkName(field, name string) error {
	if !validName.MatchString(name) {
		return fault.New(fault.Invalid, "'"+name+"' is not a valid "+field+".", "Use 1 to 63 small letters, digits, '.', '_' or '-', starting with a letter or digit.").At(field)
	}
	return nil
}

func installation(kind, name string) policy.Resource { return policy.Resource{Kind: kind, ID: name} }

// CreateProject makes a project and gives its creator the engineer and admin roles in it. Doing it again is no error.
func (s *Service) CreateProject(ctx context.Context, name, description string, regions []string) (Project, error) {
	if err := checkName("project", name); err != nil {
		return Project{}, err
	}
	if p, err := s.Project(ctx, name); err == nil {
		return p, nil
	}
	if len(regions) > 0 && !slices.Contains(regions, s.auth.region) {
		return Project{}, fault.New(fault.Invalid, "Residency "+strings.Join(regions, ", ")+" leaves out this installation's region, '"+s.auth.region+"'.", "Add '"+s.auth.region+"' to residency, or start the server with --region "+regions[0]+" where it really stands there.").At("residency")
	}
	p := Project{Name: name, Description: description, Regions: regions, Created: time.Now().UTC()}
	err := s.store.Change(ctx, "project.create", installation("Project", name), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		if err := insertProject(ctx, tx, p); err != nil {
			return event.Draft{}, err
		}
		tx.After(p)
		if a := who.From(ctx); a.Kind == who.User || a.Kind == who.Service {
			for _, r := range []policy.Role{policy.Engineer, policy.Admin} {
				if _, err := insertBinding(ctx, tx, Binding{name, r, a.String()}); err != nil {
					return event.Draft{}, err
				}
			}
		}
		return event.Draft{Type: "project.created", Subject: name, Data: p}, nil
	})
	s.auth.forget()
	return p, err
}

// Project returns one project.
func (s *Service) Project(ctx context.Context, name string) (p Project, err error) {
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error { p, err = selectProject(ctx, q, name); return err })
	return p, err
}

// Projects lists the projects in which the actor may read.
func (s *Service) Projects(ctx context.Context) ([]Project, error) {
	var all, out []Project
	err := s.store.View(ctx, func(ctx context.Context, q store.Querier) (err error) { all, err = selectProjects(ctx, q); return err })
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		d, err := s.store.Authorize(ctx, "project.read", policy.Resource{Kind: "Project", ID: p.Name, Project: p.Name})
		if err != nil {
			return nil, err
		}
		if d.Allow {
			out = append(out, p)
		}
	}
	return out, nil
}

// CreateUser makes a person who can sign in. groups may be empty.
func (s *Service) CreateUser(ctx context.Context, name, fullName, password string, groups []string) (User, error) {
	if err := checkName("user", name); err != nil {
		return User{}, err
	}
	if err := checkNewPassword(password); err != nil {
		return User{}, err
	}
	for _, g := range groups {
		if err := checkName("group", g); err != nil {
			return User{}, err
		}
	}
	hash := hashPassword(password)
	u := User{Name: name, FullName: fullName, Groups: groups, Created: time.Now().UTC()}
	err := s.store.Change(ctx, "user.create", installation("User", name), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		if err := insertUser(ctx, tx, u, hash); err != nil {
			return event.Draft{}, err
		}
		tx.After(u)
		return event.Draft{Type: "user.created", Subject: name}, nil
	})
	return u, err
}

// SetGroups replaces the groups of a user.
func (s *Service) SetGroups(ctx context.Context, user string, groups []string) error {
	return s.changed(s.store.Change(ctx, "group.update", installation("User", user), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		before, err := selectGroups(ctx, tx, user)
		if err != nil {
			return event.Draft{}, err
		}
		tx.Before(before)
		tx.After(groups)
		return event.Draft{Type: "user.updated", Subject: user}, replaceGroups(ctx, tx, user, groups)
	}))
}

// SetPassword changes a password: one's own, with the old one, or anybody's as an admin. Sessions of the user end.
func (s *Service) SetPassword(ctx context.Context, name, old, password string) error {
	if err := checkNewPassword(password); err != nil {
		return err
	}
	action := policy.Action("user.update")
	if actor := who.From(ctx); actor.Kind == who.User && actor.Name == name && actor.Scope == (who.Scope{}) {
		if !s.attempts.allow(name) {
			return fault.New(fault.Limited, "Too many attempts for this name.", "Wait a minute and try again.")
		}
		var phc string
		if err := s.store.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
			phc, err = selectPassword(ctx, q, name)
			return err
		}); err != nil {
			return err
		}
		if !checkPassword(phc, old) {
			return fault.New(fault.Denied, "The old password is wrong.", "Try again, or ask an admin to set a new one.").At("old")
		}
		action = "session.create"
	}
	hash := hashPassword(password)
	return s.changed(s.store.Change(ctx, action, installation("User", name), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		// A password would let a person in whom the provider has sent away.
		if yes, err := federated(ctx, tx, name); err != nil {
			return event.Draft{}, err
		} else if yes {
			return event.Draft{}, fault.New(fault.Conflict, "'"+name+"' signs in at the identity provider and has no password here.", "Change it there.")
		}
		return event.Draft{Type: "user.updated", Subject: name}, updatePassword(ctx, tx, name, hash)
	}))
}

// DisableUser ends a person's sessions and tokens at once.
func (s *Service) DisableUser(ctx context.Context, name string) error {
	return s.changed(s.store.Change(ctx, "user.update", installation("User", name), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		return event.Draft{Type: "user.disabled", Subject: name}, disableUser(ctx, tx, name)
	}))
}

// Users lists people.
func (s *Service) Users(ctx context.Context) (out []User, err error) {
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error { out, err = selectUsers(ctx, q); return err })
	return out, err
}

// Bind gives a principal a role in a project, or everywhere with project "*". Doing it again is no error.
func (s *Service) Bind(ctx context.Context, b Binding) error {
	if !slices.Contains(policy.Roles(), b.Role) {
		return fault.New(fault.Invalid, "There is no role '"+string(b.Role)+"'.", "The roles are viewer, engineer, approver, admin and replayer.").At("role")
	}
	kind, name, ok := strings.Cut(b.Principal, ":")
	if !ok || name == "" || !slices.Contains([]string{"user", "group", "service"}, kind) {
		return fault.New(fault.Invalid, "'"+b.Principal+"' is not a principal.", "Write user:NAME, group:NAME or service:NAME.").At("principal")
	}
	return s.changed(s.store.Change(ctx, "role.bind", bindingResource(b), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		tx.After(b)
		return event.Draft{Type: "role.bound", Subject: b.Principal, Data: b}, changedAny(insertBinding(ctx, tx, b))
	}))
}

// Unbind takes a role away. It works from the next call on.
func (s *Service) Unbind(ctx context.Context, b Binding) error {
	return s.changed(s.store.Change(ctx, "role.unbind", bindingResource(b), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		tx.Before(b)
		return event.Draft{Type: "role.unbound", Subject: b.Principal, Data: b}, deleteBinding(ctx, tx, b)
	}))
}

// changedAny turns a statement that touched no row into store.ErrUnchanged.
func changedAny(rows int64, err error) error {
	if err == nil && rows == 0 {
		return store.ErrUnchanged
	}
	return err
}

func bindingResource(b Binding) policy.Resource {
	r := policy.Resource{Kind: "Binding", ID: b.Principal, Project: b.Project}
	if b.Project == "*" {
		r.Project = ""
	}
	return r
}

// Bindings lists the roles of a project.
func (s *Service) Bindings(ctx context.Context, project string) (out []Binding, err error) {
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		out, err = selectBindings(ctx, q, project)
		return err
	})
	return out, err
}

// changed forgets cached actors and roles, so that a revocation works at once on this server.
func (s *Service) changed(err error) error {
	s.auth.forget()
	s.mu.Lock()
	clear(s.known)
	s.mu.Unlock()
	return err
}

// Explain answers `policy why`: may this principal do this action on this resource, and why.
func (s *Service) Explain(ctx context.Context, principal string, action policy.Action, res policy.Resource) (policy.Decision, error) {
	actor := who.From(ctx)
	if principal != "" && principal != actor.String() {
		if err := s.require(ctx, "policy.explain", policy.Resource{Kind: "Policy", ID: principal, Project: res.Project}); err != nil {
			return policy.Decision{}, err
		}
		kind, name, _ := strings.Cut(principal, ":")
		actor = who.Actor{Kind: who.Kind(kind), Name: name}
	}
	var d policy.Decision
	err := s.store.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		if actor.Kind == who.User && len(actor.Groups) == 0 {
			if actor.Groups, err = selectGroups(ctx, q, actor.Name); err != nil {
				return err
			}
		}
		d, err = s.auth.Explain(ctx, q, actor, action, res)
		return err
	})
	return d, err
}

func (s *Service) require(ctx context.Context, action policy.Action, res policy.Resource) error {
	d, err := s.store.Authorize(ctx, action, res)
	if err == nil && !d.Allow {
		err = store.Denied(ctx, action, res, d)
	}
	return err
}

// CreateToken makes an API token and returns its secret, which is never shown again.
func (s *Service) CreateToken(ctx context.Context, req TokenRequest) (Token, string, error) {
	actor := who.From(ctx)
	if req.Principal == "" {
		req.Principal = actor.String()
	}
	if req.TTL == 0 {
		req.TTL = DefaultTokenTTL
	}
	if req.TTL < 0 || req.TTL > MaxTokenTTL {
		return Token{}, "", fault.New(fault.Invalid, "A token lives at most 90 days.", "Give --expires between 1m and 2160h.").At("expires")
	}
	if req.Role != "" && !slices.Contains(policy.Roles(), req.Role) {
		return Token{}, "", fault.New(fault.Invalid, "There is no role '"+string(req.Role)+"'.", "").At("role")
	}
	kind, name, _ := strings.Cut(req.Principal, ":")
	if (kind != "user" && kind != "service") || checkName("principal", name) != nil {
		return Token{}, "", fault.New(fault.Invalid, "'"+req.Principal+"' cannot hold a token.", "Write user:NAME or service:NAME.").At("principal")
	}
	action := policy.Action("token.create")
	if req.Principal == actor.String() && actor.Scope == (who.Scope{}) {
		action = "session.create" // everybody may make tokens for themselves; a limited token makes none
	}
	return s.mint(ctx, action, Token{Principal: req.Principal, Name: req.Name, Project: req.Project, Role: string(req.Role)}, req.TTL)
}

// RunToken makes the token of one training run: only its project, only its run, dead when the run ends or after ttl.
func (s *Service) RunToken(ctx context.Context, project, run string, ttl time.Duration) (string, error) {
	_, secret, err := s.mint(ctx, "training.start", Token{Principal: "run:" + run, Name: "training run", Project: project, Run: run}, ttl)
	return secret, err
}

func (s *Service) mint(ctx context.Context, action policy.Action, t Token, ttl time.Duration) (Token, string, error) {
	secret := newToken()
	now := time.Now().UTC()
	t.ID, t.Created, t.Expires = id.New("tok"), now, now.Add(ttl)
	res := policy.Resource{Kind: "Token", ID: t.ID, Project: t.Project}
	err := s.store.Change(ctx, action, res, func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		if kind, name, _ := strings.Cut(t.Principal, ":"); kind == "user" {
			if _, err := selectUser(ctx, tx, name); err != nil {
				return event.Draft{}, err
			}
		}
		tx.After(t)
		return event.Draft{Type: "token.created", Subject: t.ID, Data: map[string]string{"principal": t.Principal}}, insertToken(ctx, tx, t, s.hash("token", secret))
	})
	return t, secret, err
}

// RevokeToken kills a token at once. Its owner may, and whoever may revoke tokens.
func (s *Service) RevokeToken(ctx context.Context, tokenID string) error {
	t, err := s.token(ctx, tokenID)
	if err != nil {
		return err
	}
	action := policy.Action("token.revoke")
	if t.Principal == who.From(ctx).String() {
		action = "session.delete"
	}
	return s.changed(s.store.Change(ctx, action, policy.Resource{Kind: "Token", ID: tokenID, Project: t.Project}, func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		return event.Draft{Type: "token.revoked", Subject: tokenID}, changedAny(revokeTokens(ctx, tx, "id", tokenID))
	}))
}

// RevokeRun kills the tokens of a training run: called when the run ends, however it ends.
func (s *Service) RevokeRun(ctx context.Context, project, run string) error {
	return s.changed(s.store.Change(ctx, "training.finish", policy.Resource{Kind: "Token", ID: "run:" + run, Project: project}, func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		return event.Draft{}, changedAny(revokeTokens(ctx, tx, "run", run))
	}))
}

func (s *Service) token(ctx context.Context, tokenID string) (t Token, err error) {
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		t, err = selectToken(ctx, q, `id = $1`, tokenID)
		return store.One(err, "token '"+tokenID+"'")
	})
	return t, err
}

// Tokens lists the tokens of a principal, or all with "".
func (s *Service) Tokens(ctx context.Context, principal string) (out []Token, err error) {
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		out, err = selectTokens(ctx, q, principal)
		return err
	})
	return out, err
}

package access

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

// Provider is an identity provider that people sign in at. Every Identity it gives is proved by the provider's signature, meant
// for this installation and valid now. It answers fault.Unavailable while the provider cannot be asked, and asks again at the
// next call. It is safe for concurrent use.
type Provider interface {
	// SignIn is the address at the provider that a browser goes to; it returns to back.
	SignIn(ctx context.Context, back string, p Proofs) (string, error)
	// Redeem turns the code that the browser brought back into the person, once. The token must hold the nonce.
	Redeem(ctx context.Context, back, code string, p Proofs) (Identity, error)
	// Bearer reads a token of the provider that a client sent.
	Bearer(ctx context.Context, token string) (Identity, error)
}

// Proofs tie the answers of the provider to the browser that began: state in the address, nonce in the token, verifier (PKCE) at
// the exchange.
type Proofs struct{ State, Nonce, Verifier string }

// Identity is a person as the provider knows them.
type Identity struct {
	Issuer, Subject string
	Names           []string // wishes for a name here, the best first
	FullName        string
	Groups          []string // of the provider
	HasGroups       bool     // the token speaks of groups at all
	Issued, Expires time.Time
}

// Federation lets a provider vouch for people.
type Federation struct {
	Provider Provider
	// Groups are falaj's groups for each group of the provider. When empty, groups stay as admins set them; else those of the
	// provider's people come from it alone.
	Groups map[string][]string
}

// Refusal is why somebody whom the provider sent does not come in: a word that pages translate.
type Refusal string

// The refusals.
const (
	NameTaken   Refusal = "name_taken"  // a local account, or rights given to one, bear the name
	NoName      Refusal = "no_name"     // the provider gave nothing that can be a name here
	NotSetUp    Refusal = "not_set_up"  // the first admin comes first
	Disabled    Refusal = "disabled"    // by an admin here
	Stale       Refusal = "stale"       // not begun in this browser, or too long ago
	Rejected    Refusal = "rejected"    // by the provider, or its answer does not hold
	Unreachable Refusal = "unreachable" // the provider does not answer
)

// Error is the word.
func (r Refusal) Error() string { return string(r) }

// Federate lets the provider's people in. It is called before the first request.
func (s *Service) Federate(f Federation) { s.federation = f }

// bearer turns a provider's token into the same person that its sign-in makes.
func (s *Service) bearer(ctx context.Context, token string) (who.Actor, error) {
	return s.cached("j"+string(s.hash("bearer", token)), func() (a who.Actor, until time.Time, err error) {
		id, err := s.federation.Provider.Bearer(ctx, token)
		if err != nil {
			return a, until, err
		}
		a, err = s.admit(ctx, id, false)
		return a, id.Expires, err
	})
}

// admit finds the person of an identity, makes them on the first time, and takes over the groups. fresh: the person has just
// signed in. A token may be hours old, so it changes groups only when it is newer than the last word of the provider; without
// a word on groups it gives none.
func (s *Service) admit(ctx context.Context, id Identity, fresh bool) (who.Actor, error) {
	want, managed := s.groupsOf(id)
	var a account
	err := s.store.View(ctx, func(ctx context.Context, q store.Querier) (err error) { a, err = selectAccount(ctx, q, id); return err })
	if store.NotFound(err) {
		a, err = s.enrol(ctx, id, want)
	}
	if err != nil {
		return who.Actor{}, err
	}
	if a.disabled {
		return who.Actor{}, fault.Wrap(Disabled, fault.Unauthenticated, "The user '"+a.name+"' is disabled here.", "Ask an admin of this installation.")
	}
	if managed && (fresh || id.HasGroups && id.Issued.After(a.claimed)) {
		if a.groups, err = s.regroup(ctx, id, a, want, fresh); err != nil {
			return who.Actor{}, err
		}
	}
	if managed && !fresh && !id.HasGroups {
		a.groups = nil
	}
	return who.Actor{Kind: who.User, Name: a.name, Groups: a.groups, Via: "oidc"}, nil
}

// groupsOf are falaj's groups for those of the provider; a group that nobody mapped gives nothing, whatever its name.
func (s *Service) groupsOf(id Identity) (groups []string, managed bool) {
	for _, g := range id.Groups {
		groups = append(groups, s.federation.Groups[g]...)
	}
	slices.Sort(groups)
	return slices.Compact(groups), len(s.federation.Groups) > 0
}

// enrol makes the person of a new identity. A name that anybody had, or was given rights by, before is never handed over.
func (s *Service) enrol(ctx context.Context, id Identity, groups []string) (a account, err error) {
	name := ""
	if i := slices.IndexFunc(id.Names, func(wish string) bool { name = nameFrom(wish); return name != "" }); i < 0 {
		return a, fault.Wrap(NoName, fault.Denied, "The identity provider gave no name in Latin letters or digits.", "Ask its admin for a preferred_username or a verified email in Latin letters.")
	}
	u := User{Name: name, FullName: clip(id.FullName, 200), Groups: groups, Created: time.Now().UTC()}
	err = s.store.Change(who.AsSystem(ctx, "access"), "user.admit", installation("User", name), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		// Two first requests of one person: the second finds what the first made.
		a, err = selectAccount(ctx, tx, id)
		if !store.NotFound(err) {
			return event.Draft{}, err
		}
		n, err := countUsers(ctx, tx)
		if err != nil {
			return event.Draft{}, err
		}
		if n == 0 { // a person without rights would use up the set-up link, and nobody could be admin
			return event.Draft{}, fault.Wrap(NotSetUp, fault.Denied, "This installation has no admin yet.", "Use the one-use link that the server's first start printed, then sign in here.")
		}
		taken, awaited, err := nameInUse(ctx, tx, name)
		switch {
		case err != nil:
			return event.Draft{}, err
		case taken:
			return event.Draft{}, fault.Wrap(NameTaken, fault.Denied, "An account '"+name+"' of somebody else is here already, and it is not yours at the identity provider.", "Sign in to it with its password, or ask the provider's admin for another preferred_username.")
		case awaited:
			return event.Draft{}, fault.Wrap(NameTaken, fault.Denied, "Rights were given to 'user:"+name+"' before anybody had that name, so nobody may claim it by signing in.", "An admin takes them away (`falaj role list`, `falaj role unbind`), lets you sign in, and binds roles to a group or to you.")
		}
		if err := insertUser(ctx, tx, u, noPassword); err != nil {
			return event.Draft{}, err
		}
		a = account{name: name, claimed: id.Issued, groups: groups}
		tx.After(u)
		return event.Draft{Type: "user.created", Subject: name}, insertIdentity(ctx, tx, id, name, u.Created)
	})
	return a, s.changed(err)
}

// regroup takes over what the provider says and gives the groups that hold now. What only confirms them moves a cursor and
// changes nobody's rights.
func (s *Service) regroup(ctx context.Context, id Identity, a account, want []string, fresh bool) (groups []string, err error) {
	if slices.Equal(a.groups, want) {
		return want, s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error { return claim(ctx, tx, id) })
	}
	err = s.store.Change(who.AsSystem(ctx, "access"), "user.admit", installation("User", a.name), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		now, err := selectAccount(ctx, tx, id)
		if err != nil {
			return event.Draft{}, err
		}
		if groups = now.groups; !fresh && !id.Issued.After(now.claimed) { // a newer word came in between
			return event.Draft{}, nil
		}
		groups = want
		tx.Before(now.groups)
		tx.After(want)
		if err := replaceGroups(ctx, tx, a.name, want); err != nil {
			return event.Draft{}, err
		}
		return event.Draft{Type: "user.updated", Subject: a.name}, claim(ctx, tx, id)
	})
	return groups, s.changed(err)
}

// nameFrom makes a wish a valid name, or "". Letters of other scripts are not guessed at: two people would look alike.
func nameFrom(wish string) string {
	out := strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r > 126:
			return 0
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
			return r
		}
		return '-'
	}, wish)
	out = clip(strings.TrimLeft(out, "._-"), 63)
	if !validName.MatchString(out) { // a 0 marks a foreign letter
		return ""
	}
	return out
}

func clip(s string, n int) string {
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return s
}

// refusalOf is the word for an error of a sign-in.
func refusalOf(err error) Refusal {
	var r Refusal
	switch {
	case errors.As(err, &r):
		return r
	case fault.Is(err, fault.Unavailable):
		return Unreachable
	}
	return Rejected
}

// refused records a sign-in that ended without a session: at most ten a minute of one person, so that nobody fills the chain.
func (s *Service) refused(ctx context.Context, id Identity, err error) error {
	// No name has a space, so this throttle is nobody's password.
	if !s.attempts.allow("oidc " + id.Subject) {
		return nil
	}
	name := "unknown"
	if i := slices.IndexFunc(id.Names, func(w string) bool { return nameFrom(w) != "" }); i >= 0 {
		name = nameFrom(id.Names[i])
	}
	return s.store.Deny(ctx, "session.create", installation("User", name), policy.Decision{Reasons: []policy.Reason{{Policy: "oidc", Text: string(refusalOf(err)) + ": " + fault.From(err).Public}}})
}

package access

import (
	"context"
	"strings"
	"sync"
	"time"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

// badCredentials is one text for an unknown user, a wrong password and a disabled user, so that names cannot be probed.
func badCredentials() error {
	return fault.New(fault.Unauthenticated, "The name or the password is wrong.", "Try again, or ask an admin to reset the password.")
}

// SetupLink makes a one-use secret for creating the first admin, when there is no user yet; else "".
func (s *Service) SetupLink(ctx context.Context) (string, error) {
	secret := ""
	ctx = who.AsSystem(ctx, "access")
	err := s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		n, err := countUsers(ctx, tx)
		if err != nil || n > 0 {
			return err
		}
		secret = randomSecret()
		return insertSetup(ctx, tx, s.hash("setup", secret), time.Now().Add(SetupTTL))
	})
	return secret, err
}

// Setup uses the link: it creates the first admin, once.
func (s *Service) Setup(ctx context.Context, secret, name, password string) (User, error) {
	if err := checkName("user", name); err != nil {
		return User{}, err
	}
	if err := checkNewPassword(password); err != nil {
		return User{}, err
	}
	hash := hashPassword(password)
	u := User{Name: name, Created: time.Now().UTC()}
	err := s.store.Change(ctx, "setup.complete", installation("User", name), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		ok, err := useSetup(ctx, tx, s.hash("setup", secret), time.Now())
		if err != nil {
			return event.Draft{}, err
		}
		n, err := countUsers(ctx, tx)
		if err != nil {
			return event.Draft{}, err
		}
		if !ok || n > 0 {
			return event.Draft{}, fault.New(fault.Unauthenticated, "This set-up link is used, expired or wrong.", "Restart the server to print a new link; it works while there is no user.")
		}
		if err := insertUser(ctx, tx, u, hash); err != nil {
			return event.Draft{}, err
		}
		for _, r := range []policy.Role{policy.Admin, policy.Engineer} {
			if _, err := insertBinding(ctx, tx, Binding{"*", r, "user:" + name}); err != nil {
				return event.Draft{}, err
			}
		}
		tx.After(u)
		return event.Draft{Type: "user.created", Subject: name}, nil
	})
	return u, s.changed(err)
}

// Login checks a password and opens a session; the secret goes into a cookie. Attempts are throttled per name.
func (s *Service) Login(ctx context.Context, name, password string) (secret string, err error) {
	if !s.attempts.allow(name) {
		return "", fault.New(fault.Limited, "Too many sign-in attempts for this name.", "Wait a minute and try again.")
	}
	var phc string
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error { phc, err = selectPassword(ctx, q, name); return err })
	if err != nil {
		return "", err
	}
	if phc == noPassword {
		phc = ""
	}
	if phc == "" {
		// Spend the same time as for a known name.
		checkPassword("$argon2id$v=19$m=65536,t=3,p=2$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", password)
	}
	if phc == "" || !checkPassword(phc, password) {
		res := installation("User", name)
		if e := s.store.Deny(ctx, "session.create", res, policy.Decision{Reasons: []policy.Reason{{Policy: "password", Text: "wrong name or password"}}}); e != nil {
			return "", e
		}
		return "", badCredentials()
	}
	s.attempts.reset(name)
	secret = randomSecret()
	ctx = who.With(ctx, who.Actor{Kind: who.User, Name: name, Via: "session"})
	err = s.store.Change(ctx, "session.create", installation("User", name), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		return event.Draft{}, insertSession(ctx, tx, s.hash("session", secret), name, time.Now().Add(SessionTTL))
	})
	return secret, err
}

// Logout ends a session.
func (s *Service) Logout(ctx context.Context, secret string) error {
	return s.changed(s.store.Change(ctx, "session.delete", installation("User", who.From(ctx).Name), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		return event.Draft{}, deleteSession(ctx, tx, s.hash("session", secret))
	}))
}

// Session turns a cookie into an actor.
func (s *Service) Session(ctx context.Context, secret string) (who.Actor, error) {
	h := s.hash("session", secret)
	return s.cached("s"+string(h), func() (a who.Actor, until time.Time, err error) {
		err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
			name, expires, err := selectSession(ctx, q, h)
			if store.NotFound(err) || (err == nil && !expires.After(time.Now())) {
				return fault.New(fault.Unauthenticated, "The session has ended.", "Sign in again.")
			}
			if err != nil {
				return err
			}
			groups, err := selectGroups(ctx, q, name)
			a, until = who.Actor{Kind: who.User, Name: name, Groups: groups, Via: "session"}, expires
			return err
		})
		return a, until, err
	})
}

// Token turns an flj_ secret into an actor.
func (s *Service) Token(ctx context.Context, secret string) (who.Actor, error) {
	if s.federation.Provider != nil && strings.Count(secret, ".") == 2 && !wellFormed(secret) {
		return s.bearer(ctx, secret)
	}
	if !wellFormed(secret) {
		return who.Actor{}, fault.New(fault.Unauthenticated, "This is not a falaj token.", "Tokens start with flj_; make one with `falaj login`.")
	}
	h := s.hash("token", secret)
	return s.cached("t"+string(h), func() (a who.Actor, until time.Time, err error) {
		err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
			t, err := selectToken(ctx, q, `hash = $1`, h)
			switch {
			case store.NotFound(err):
				return fault.New(fault.Unauthenticated, "The token is unknown.", "Make a new one with `falaj login`.")
			case err != nil:
				return err
			case !t.Revoked.IsZero():
				return fault.New(fault.Unauthenticated, "The token was revoked.", "Make a new one with `falaj login`.")
			case !t.Expires.After(time.Now()):
				return fault.New(fault.Unauthenticated, "The token has expired.", "Make a new one with `falaj login`.")
			}
			a, until = t.actor(), t.Expires
			if a.Kind == who.User {
				if phc, err := selectPassword(ctx, q, a.Name); err != nil {
					return err
				} else if phc == "" {
					return fault.New(fault.Unauthenticated, "The user of this token is disabled.", "")
				}
				a.Groups, err = selectGroups(ctx, q, a.Name)
			} else {
				a.Groups, err = selectGroups(ctx, q, a.String())
			}
			return err
		})
		return a, until, err
	})
}

// cached keeps an actor for at most a second, so that a revocation elsewhere works within that time.
func (s *Service) cached(key string, load func() (who.Actor, time.Time, error)) (who.Actor, error) {
	now := time.Now()
	s.mu.Lock()
	c, ok := s.known[key]
	s.mu.Unlock()
	if ok && now.Before(c.until) {
		return c.actor, nil
	}
	a, until, err := load()
	if err != nil {
		return who.Actor{}, err
	}
	if limit := now.Add(cacheTTL); until.After(limit) {
		until = limit
	}
	s.mu.Lock()
	if len(s.known) > 10000 {
		clear(s.known)
	}
	s.known[key] = cachedActor{a, until}
	s.mu.Unlock()
	return a, nil
}

// throttle allows ten attempts a minute for a name.
type throttle struct {
	mu    sync.Mutex
	tries map[string][]time.Time
}

func newThrottle() *throttle { return &throttle{tries: map[string][]time.Time{}} }

func (t *throttle) allow(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if len(t.tries) > 10000 {
		clear(t.tries)
	}
	recent := t.tries[name][:0]
	for _, at := range t.tries[name] {
		if now.Sub(at) < time.Minute {
			recent = append(recent, at)
		}
	}
	t.tries[name] = append(recent, now)
	return len(recent) < 10
}

func (t *throttle) reset(name string) {
	t.mu.Lock()
	delete(t.tries, name)
	t.mu.Unlock()
}

package access_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"falaj/internal/access"
	"falaj/internal/access/oidc"
	"falaj/internal/access/oidctest"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

const back = "http://127.0.0.1:7420/api/falaj/v1/oidc/callback"

// sso lets the people of a running provider in.
func sso(t *testing.T, s *access.Service, groups map[string][]string) *oidctest.Provider {
	t.Helper()
	idp := oidctest.Start(t)
	p, err := oidc.New(oidc.Config{Issuer: idp.URL, ClientID: oidctest.ClientID, Secret: oidctest.Secret})
	if err != nil {
		t.Fatal(err)
	}
	s.Federate(access.Federation{Provider: p, Groups: groups})
	return idp
}

// visit goes to the provider and comes back with what a browser would.
func visit(t *testing.T, s *access.Service) access.Return {
	t.Helper()
	address, ticket, err := s.BeginSSO(context.Background(), back, "#/p/flights")
	if err != nil {
		t.Fatal(err)
	}
	c := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	u, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || !strings.HasPrefix(u.String(), back) {
		t.Fatal(resp.Status, u, err)
	}
	return access.Return{Back: back, Ticket: ticket, State: u.Query().Get("state"), Code: u.Query().Get("code"), Error: u.Query().Get("error")}
}

// enter signs in and says who that is.
func enter(t *testing.T, s *access.Service) (who.Actor, error) {
	t.Helper()
	secret, next, err := s.EndSSO(context.Background(), visit(t, s))
	if err != nil {
		return who.Actor{}, err
	}
	if next != "#/p/flights" {
		t.Errorf("the way back is %q", next)
	}
	a, err := s.Session(context.Background(), secret)
	if err != nil {
		t.Fatal(err)
	}
	return a, nil
}

func refusal(err error) access.Refusal {
	var r access.Refusal
	errors.As(err, &r)
	return r
}

// rows of the ledger: action, decision, actor.
func rows(t *testing.T, st *store.Store) (out []string) {
	t.Helper()
	entries, err := st.Entries(context.Background(), 0, 10000)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range entries {
		out = append(out, r.Actor+" "+r.Action+" "+r.Resource+" "+r.Decision+" "+r.Via)
	}
	return out
}

func holds(t *testing.T, st *store.Store, text string) {
	t.Helper()
	if all := rows(t, st); !slices.ContainsFunc(all, func(r string) bool { return strings.Contains(r, text) }) {
		t.Errorf("the ledger holds no %q:\n%s", text, strings.Join(all, "\n"))
	}
}

func TestSignInAtTheProvider(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *access.Service, st *store.Store) {
		idp := sso(t, s, map[string][]string{"/ml": {"ds"}, "CN=risk,OU=x": {"ml-risk", "ds"}})
		amal := oidctest.Claims{"sub": "1", "preferred_username": "Amal", "name": "Amal A.", "groups": []string{"/ml", "admins"}}
		idp.SignsIn(amal)
		if _, err := enter(t, s); refusal(err) != access.NotSetUp {
			t.Fatalf("before there is an admin: %v", err)
		}
		root := admin(t, s)
		a, err := enter(t, s)
		if err != nil || a.String() != "user:amal" || a.Via != "session" || !slices.Equal(a.Groups, []string{"ds"}) {
			t.Fatalf("%+v %v", a, err)
		}
		holds(t, st, "system:access user.admit User::amal allow")
		holds(t, st, "user:amal session.create User::amal allow oidc")
		ctx := func(a who.Actor) context.Context { return who.With(context.Background(), a) }
		if _, err := s.CreateProject(root, "flights", "", nil); err != nil {
			t.Fatal(err)
		}
		if err := try(st, ctx(a), "flights"); !fault.Is(err, fault.Denied) {
			t.Fatal(err)
		}
		if err := s.Bind(root, access.Binding{Project: "flights", Role: policy.Engineer, Principal: "group:ds"}); err != nil {
			t.Fatal(err)
		}
		if err := try(st, ctx(a), "flights"); err != nil {
			t.Fatal(err)
		}
		// A token of falaj's own that they made, and the provider's: the same person.
		_, own, err := s.CreateToken(ctx(a), access.TokenRequest{})
		if err != nil {
			t.Fatal(err)
		}
		issued := time.Now().Add(-time.Minute).Unix()
		older := idp.Token(t, oidctest.Claims{"sub": "1", "groups": []string{"/ml"}, "iat": issued})
		b, err := s.Token(context.Background(), older)
		if err != nil || b.String() != "user:amal" || b.Via != "oidc" || !slices.Equal(b.Groups, []string{"ds"}) {
			t.Fatalf("%+v %v", b, err)
		}
		// The provider takes the group away: from the next sign-in on nothing keeps it, not the older token either.
		delete(amal, "groups")
		amal["preferred_username"] = "amal-renamed"
		if a, err = enter(t, s); err != nil || a.Name != "amal" || len(a.Groups) != 0 {
			t.Fatalf("%+v %v", a, err)
		}
		if err := try(st, ctx(a), "flights"); !fault.Is(err, fault.Denied) {
			t.Fatal(err)
		}
		for _, secret := range []string{own, older} {
			if b, err := s.Token(context.Background(), secret); err != nil || len(b.Groups) != 0 {
				t.Fatalf("%+v %v", b, err)
			}
		}
		// A newer token is a newer word.
		newer := oidctest.Claims{"sub": "1", "groups": []string{"CN=risk,OU=x"}, "iat": time.Now().Add(2 * time.Second).Unix()}
		if b, err := s.Token(context.Background(), idp.Token(t, newer)); err != nil || !slices.Equal(b.Groups, []string{"ds", "ml-risk"}) {
			t.Fatalf("%+v %v", b, err)
		}
		if b, err := s.Token(context.Background(), own); err != nil || !slices.Equal(b.Groups, []string{"ds", "ml-risk"}) {
			t.Fatalf("%+v %v", b, err)
		}
		newer["groups"] = nil
		if b, err := s.Token(context.Background(), idp.Token(t, newer)); err != nil || len(b.Groups) != 0 {
			t.Fatalf("a token without groups acted with some: %+v %v", b, err)
		}
		if b, err := s.Token(context.Background(), own); err != nil || len(b.Groups) != 2 {
			t.Fatalf("a token without groups took some away: %+v %v", b, err)
		}
		// They have no password here, and none can be set.
		if _, err := s.Login(context.Background(), "amal", "!"); !fault.Is(err, fault.Unauthenticated) {
			t.Fatal(err)
		}
		if err := s.SetPassword(root, "amal", "", password); !fault.Is(err, fault.Conflict) {
			t.Fatal(err)
		}
		if err := s.DisableUser(root, "amal"); err != nil {
			t.Fatal(err)
		}
		if _, err := enter(t, s); refusal(err) != access.Disabled {
			t.Fatalf("a disabled user came in: %v", err)
		}
		holds(t, st, "anonymous session.create User::amal-renamed deny")
		for _, secret := range []string{own, older} {
			if _, err := s.Token(context.Background(), secret); !fault.Is(err, fault.Unauthenticated) {
				t.Fatalf("a disabled user's token works: %v", err)
			}
		}
	})
}

// A name belongs to whom it was given: nobody takes over an account, or rights that wait for one.
func TestNamesAreNotTakenOver(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *access.Service, st *store.Store) {
		root := admin(t, s)
		idp := sso(t, s, nil)
		if _, err := s.CreateUser(root, "amal", "", password, []string{"ds"}); err != nil {
			t.Fatal(err)
		}
		if err := s.Bind(root, access.Binding{Project: "*", Role: policy.Approver, Principal: "user:badr"}); err != nil {
			t.Fatal(err)
		}
		if err := s.SetGroups(root, "careem", []string{"ml-risk"}); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]access.Refusal{"amal": access.NameTaken, "AMAL": access.NameTaken, "badr": access.NameTaken, "careem": access.NameTaken, "root": access.NameTaken,
			"أمل": access.NoName, "": access.NoName, "аmal": access.NoName /* Cyrillic а */, "..": access.NoName, "amal\u200b": access.NoName} {
			claims := oidctest.Claims{"sub": "of " + name, "preferred_username": name}
			idp.SignsIn(claims)
			if _, err := enter(t, s); refusal(err) != want || !fault.Is(err, fault.Denied) {
				t.Errorf("%q signs in: %v", name, err)
			}
			if a, err := s.Token(context.Background(), idp.Token(t, claims)); !fault.Is(err, fault.Denied) {
				t.Errorf("%q by token: %+v %v", name, a, err)
			}
		}
		holds(t, st, "anonymous session.create User::badr deny")
		// The same name of two people at the provider: the first has it.
		idp.SignsIn(oidctest.Claims{"sub": "1", "preferred_username": "dana"})
		if a, err := enter(t, s); err != nil || a.Name != "dana" {
			t.Fatal(a, err)
		}
		idp.SignsIn(oidctest.Claims{"sub": "2", "preferred_username": "dana"})
		if _, err := enter(t, s); refusal(err) != access.NameTaken {
			t.Fatal(err)
		}
		// No local account may be made in its place, and another name in Latin letters helps.
		if _, err := s.CreateUser(root, "dana", "", password, nil); !fault.Is(err, fault.Exists) {
			t.Fatal(err)
		}
		idp.SignsIn(oidctest.Claims{"sub": "3", "preferred_username": "أمل", "email": "Amal.B@x.example"})
		if a, err := enter(t, s); err != nil || a.Name != "amal.b-x.example" {
			t.Fatal(a, err)
		}
		// Without a map groups stay as admins set them.
		if err := s.SetGroups(root, "dana", []string{"ds"}); err != nil {
			t.Fatal(err)
		}
		idp.SignsIn(oidctest.Claims{"sub": "1", "preferred_username": "dana", "groups": []string{"admins"}})
		if a, err := enter(t, s); err != nil || !slices.Equal(a.Groups, []string{"ds"}) {
			t.Fatal(a, err)
		}
		// A person may come first by a token, too; by twenty at once they are one.
		raw := idp.Token(t, oidctest.Claims{"sub": "9", "preferred_username": "omar"})
		errs := make(chan error)
		for range 20 {
			go func() {
				a, err := s.Token(context.Background(), raw)
				if err == nil && a.String() != "user:omar" {
					err = errors.New(a.String())
				}
				errs <- err
			}()
		}
		for range 20 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}

// What comes back must be what went out, from the same browser, once.
func TestTicketsAndProofs(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *access.Service, st *store.Store) {
		admin(t, s)
		idp := sso(t, s, nil)
		idp.SignsIn(oidctest.Claims{"sub": "1", "preferred_username": "amal"})
		other := visit(t, s)
		for name, c := range map[string]struct {
			change func(*access.Return)
			want   access.Refusal
		}{
			"no ticket":        {func(r *access.Return) { r.Ticket = "" }, access.Stale},
			"another ticket":   {func(r *access.Return) { r.Ticket = other.Ticket }, access.Stale},
			"forged ticket":    {func(r *access.Return) { r.Ticket = "x" + r.Ticket }, access.Stale},
			"no state":         {func(r *access.Return) { r.State = "" }, access.Stale},
			"another state":    {func(r *access.Return) { r.State = other.State }, access.Stale},
			"another's code":   {func(r *access.Return) { r.Code = visit(t, s).Code }, access.Rejected}, // PKCE
			"made-up code":     {func(r *access.Return) { r.Code = "x" }, access.Rejected},
			"no code":          {func(r *access.Return) { r.Code = "" }, access.Rejected},
			"provider refuses": {func(r *access.Return) { r.Error = "access_denied" }, access.Rejected},
			"another return":   {func(r *access.Return) { r.Back = "http://127.0.0.1:1/" }, access.Rejected},
		} {
			r := visit(t, s)
			c.change(&r)
			if secret, _, err := s.EndSSO(context.Background(), r); refusal(err) != c.want || secret != "" || !fault.Is(err, fault.Unauthenticated) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for name, mangle := range map[string]func(oidctest.Claims){
			"wrong nonce":  func(c oidctest.Claims) { c["nonce"] = "x" },
			"no nonce":     func(c oidctest.Claims) { delete(c, "nonce") },
			"wrong aud":    func(c oidctest.Claims) { c["aud"] = "grafana" },
			"expired":      func(c oidctest.Claims) { c["exp"] = time.Now().Add(-time.Minute).Unix() },
			"other issuer": func(c oidctest.Claims) { c["iss"] = "http://127.0.0.1:1" },
			"other party":  func(c oidctest.Claims) { c["aud"], c["azp"] = []string{"grafana", oidctest.ClientID}, "grafana" },
		} {
			idp.Mangle(mangle)
			if _, err := enter(t, s); refusal(err) != access.Rejected {
				t.Errorf("%s: %v", name, err)
			}
		}
		idp.Mangle(nil)
		r := visit(t, s)
		if _, _, err := s.EndSSO(context.Background(), r); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.EndSSO(context.Background(), r); refusal(err) != access.Rejected {
			t.Fatalf("a code worked twice: %v", err)
		}
		// A ticket of eleven minutes ago, signed by the server itself.
		mac := func(use, text string) string {
			h := hmac.New(sha256.New, []byte("pepperaccess/sso/"+use))
			h.Write([]byte(text))
			return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
		}
		for text, want := range map[string]access.Refusal{"id." + strconv.FormatInt(time.Now().Add(-time.Minute).Unix(), 10) + ".Iy8": access.Stale, "id." + strconv.FormatInt(time.Now().Add(time.Minute).Unix(), 10) + ".Iy8": access.Rejected} {
			if _, _, err := s.EndSSO(context.Background(), access.Return{Back: back, Ticket: text + "." + mac("ticket", text), State: mac("state", text), Code: "x"}); refusal(err) != want {
				t.Errorf("ticket %s: %v", text, err)
			}
		}
		r = visit(t, s)
		idp.Down(true)
		if _, _, err := s.EndSSO(context.Background(), r); refusal(err) != access.Unreachable || !fault.Is(err, fault.Unavailable) {
			t.Fatal(err)
		}
		// Only our own pages are on the way back.
		idp.Down(false)
		for _, next := range []string{"https://evil.example", "//evil.example", "javascript:x", "", "#/" + strings.Repeat("x", 2000)} {
			_, ticket, err := s.BeginSSO(context.Background(), back, next)
			if err != nil {
				t.Fatal(err)
			}
			if _, got, _ := s.EndSSO(context.Background(), access.Return{Ticket: ticket}); got != "#/" {
				t.Errorf("%q leads to %q", next, got)
			}
		}
		denied := 0
		for _, row := range rows(t, st) {
			if strings.Contains(row, "session.create") && strings.Contains(row, " deny ") {
				denied++
			}
		}
		if denied == 0 || denied > 10 {
			t.Errorf("%d refusals of nobody known are in the ledger", denied)
		}
	})
}

package access_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"io"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"falaj/internal/access"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
	"falaj/internal/store/postgres"
	"falaj/internal/store/sqlite"
	"falaj/internal/store/storetest"
)

const password = "a falaj flows downhill"

// each opens the real authorizer on both databases; storetest's own has fixed roles, which is what is tested here.
func each(t *testing.T, fn func(t *testing.T, s *access.Service, st *store.Store)) {
	run := func(t *testing.T, d store.Driver, err error) {
		if err != nil {
			t.Fatal(err)
		}
		e, err := policy.New()
		if err != nil {
			t.Fatal(err)
		}
		a := access.NewAuthorizer(e, "ae", false)
		st, err := store.Open(context.Background(), d, a, "", slog.New(slog.NewTextHandler(io.Discard, nil)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { st.Close() })
		fn(t, access.New(st, a, func(purpose string, msg []byte) []byte {
			h := hmac.New(sha256.New, []byte("pepper"+purpose))
			h.Write(msg)
			return h.Sum(nil)
		}), st)
	}
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		d, err := sqlite.Open(context.Background(), filepath.Join(t.TempDir(), "a.db"))
		run(t, d, err)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		d, err := postgres.Open(context.Background(), storetest.PostgresDSN(t))
		run(t, d, err)
	})
}

func admin(t *testing.T, s *access.Service) context.Context {
	t.Helper()
	link, err := s.SetupLink(context.Background())
	if err != nil || link == "" {
		t.Fatal(link, err)
	}
	if _, err := s.Setup(context.Background(), link, "root", password); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Setup(context.Background(), link, "root2", password); !fault.Is(err, fault.Unauthenticated) {
		t.Fatalf("the link worked twice: %v", err)
	}
	if again, err := s.SetupLink(context.Background()); err != nil || again != "" {
		t.Fatalf("a link with a user present: %q %v", again, err)
	}
	secret, err := s.Login(context.Background(), "root", password)
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.Session(context.Background(), secret)
	if err != nil {
		t.Fatal(err)
	}
	return who.With(context.Background(), a)
}

func try(st *store.Store, ctx context.Context, project string) error {
	return st.Change(ctx, "model.create", policy.Resource{Kind: "Model", ID: "m", Project: project}, func(context.Context, *store.Tx) (event.Draft, error) {
		return event.Draft{}, nil
	})
}

func TestFirstStartToRoles(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *access.Service, st *store.Store) {
		root := admin(t, s)
		if _, err := s.CreateProject(root, "flights", "", []string{"ae"}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.CreateProject(root, "else", "", []string{"us"}); !fault.Is(err, fault.Invalid) {
			t.Fatalf("a foreign region was taken: %v", err)
		}
		if _, err := s.CreateUser(root, "amal", "Amal", password, []string{"ds"}); err != nil {
			t.Fatal(err)
		}
		_, secret, err := s.CreateToken(root, access.TokenRequest{Principal: "user:amal"})
		if err != nil {
			t.Fatal(err)
		}
		as := func() context.Context {
			a, err := s.Token(context.Background(), secret)
			if err != nil {
				t.Fatal(err)
			}
			return who.With(context.Background(), a)
		}
		if err := try(st, as(), "flights"); !fault.Is(err, fault.Denied) {
			t.Fatal(err)
		}
		b := access.Binding{Project: "flights", Role: policy.Engineer, Principal: "group:ds"}
		if err := s.Bind(root, b); err != nil {
			t.Fatal(err)
		}
		if err := try(st, as(), "flights"); err != nil {
			t.Fatalf("bound by group: %v", err)
		}
		if err := try(st, as(), "default"); !fault.Is(err, fault.Denied) {
			t.Fatalf("another project: %v", err)
		}
		if err := try(st, root, "nowhere"); !fault.Is(err, fault.NotFound) {
			t.Fatalf("a change in a project that is not there: %v", err)
		}
		if err := try(st, as(), "nowhere"); !fault.Is(err, fault.Denied) {
			t.Fatalf("who may not know is told: %v", err)
		}
		if err := s.Unbind(root, b); err != nil {
			t.Fatal(err)
		}
		if err := try(st, as(), "flights"); !fault.Is(err, fault.Denied) {
			t.Fatalf("unbound: %v", err)
		}
		if err := s.Bind(as(), b); !fault.Is(err, fault.Denied) {
			t.Fatalf("an engineer bound a role: %v", err)
		}
		d, err := s.Explain(root, "user:amal", "run.log", policy.Resource{Kind: "Run", ID: "1", Project: "flights"})
		if err != nil || d.Allow || len(d.Missing) == 0 {
			t.Fatalf("%+v %v", d, err)
		}
		if _, err := s.Explain(as(), "user:root", "run.log", policy.Resource{Kind: "Run", ID: "1", Project: "flights"}); !fault.Is(err, fault.Denied) {
			t.Fatalf("explaining somebody else: %v", err)
		}
	})
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *access.Service, st *store.Store) {
		root := admin(t, s)
		if _, err := s.CreateUser(root, "amal", "", "short", nil); !fault.Is(err, fault.Invalid) {
			t.Fatal(err)
		}
		if _, err := s.CreateUser(root, "amal", "", password, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := s.CreateUser(root, "amal", "", password, nil); !fault.Is(err, fault.Exists) {
			t.Fatal(err)
		}
		_, err1 := s.Login(context.Background(), "amal", "wrong password")
		_, err2 := s.Login(context.Background(), "nobody", "wrong password")
		if err1 == nil || err2 == nil || fault.From(err1).Public != fault.From(err2).Public {
			t.Fatalf("names can be probed: %v / %v", err1, err2)
		}
		for range 12 {
			_, err1 = s.Login(context.Background(), "nobody", "x")
		}
		if !fault.Is(err1, fault.Limited) {
			t.Fatalf("no throttle: %v", err1)
		}
		tok, secret, err := s.CreateToken(root, access.TokenRequest{Principal: "user:amal"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Token(context.Background(), secret); err != nil {
			t.Fatal(err)
		}
		other := "x"
		if secret[10] == 'x' {
			other = "y"
		}
		for _, bad := range []string{"", "flj_", secret[:len(secret)-1], secret[:10] + other + secret[11:], "x" + secret} {
			if _, err := s.Token(context.Background(), bad); !fault.Is(err, fault.Unauthenticated) {
				t.Errorf("%q: %v", bad, err)
			}
		}
		if err := s.RevokeToken(root, tok.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Token(context.Background(), secret); !fault.Is(err, fault.Unauthenticated) {
			t.Fatalf("a revoked token works: %v", err)
		}
		if _, _, err := s.CreateToken(root, access.TokenRequest{Principal: "user:amal", TTL: 91 * 24 * time.Hour}); !fault.Is(err, fault.Invalid) {
			t.Fatal(err)
		}
		_, secret, err = s.CreateToken(root, access.TokenRequest{Principal: "user:amal"})
		if err != nil {
			t.Fatal(err)
		}
		session, err := s.Login(context.Background(), "amal", password)
		if err != nil {
			t.Fatal(err)
		}
		a, err := s.Session(context.Background(), session)
		if err != nil {
			t.Fatal(err)
		}
		amal := who.With(context.Background(), a)
		const next = "another sentence to say"
		if err := s.SetPassword(amal, "amal", "not the old one", next); !fault.Is(err, fault.Denied) {
			t.Fatalf("a password changed without the old one: %v", err)
		}
		if err := s.SetPassword(amal, "root", password, next); !fault.Is(err, fault.Denied) {
			t.Fatalf("somebody else's password changed: %v", err)
		}
		if err := s.SetPassword(amal, "amal", password, next); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Session(context.Background(), session); !fault.Is(err, fault.Unauthenticated) {
			t.Fatalf("a session outlived the password: %v", err)
		}
		if _, err := s.Login(context.Background(), "amal", password); !fault.Is(err, fault.Unauthenticated) {
			t.Fatalf("the old password works: %v", err)
		}
		if session, err = s.Login(context.Background(), "amal", next); err != nil {
			t.Fatal(err)
		}
		if err := s.DisableUser(root, "amal"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Token(context.Background(), secret); !fault.Is(err, fault.Unauthenticated) {
			t.Fatalf("a disabled user's token works: %v", err)
		}
		if _, err := s.Session(context.Background(), session); !fault.Is(err, fault.Unauthenticated) {
			t.Fatalf("a disabled user's session works: %v", err)
		}
	})
}

func TestRunTokenDiesWithTheRun(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *access.Service, st *store.Store) {
		root := admin(t, s)
		secret, err := s.RunToken(root, "default", "r1", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		a, err := s.Token(context.Background(), secret)
		if err != nil || a.Kind != who.Run || a.Scope.Run != "r1" || a.Scope.Project != "default" {
			t.Fatalf("%+v %v", a, err)
		}
		if _, _, err := s.CreateToken(who.With(context.Background(), a), access.TokenRequest{}); err == nil {
			t.Fatal("a run made itself a token")
		}
		if err := s.RevokeRun(root, "default", "r1"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Token(context.Background(), secret); !fault.Is(err, fault.Unauthenticated) {
			t.Fatal(err)
		}
	})
}

package access

import (
	"context"
	"crypto/hmac"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"time"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

// SSOTTL is how long a person may take at the provider.
const SSOTTL = 10 * time.Minute

// Return is what the browser brings back from the provider.
type Return struct {
	Back   string // this server's address of return, as it was given to the provider
	Ticket string // the cookie
	State  string
	Code   string
	Error  string // the provider's word instead of a code
}

// BeginSSO gives the address at the provider and the ticket, a cookie of SSOTTL that knows the way back: next is a fragment of
// the pages. The ticket is signed and holds no secret: state, nonce and verifier are keyed hashes of it.
func (s *Service) BeginSSO(ctx context.Context, back, next string) (address, ticket string, err error) {
	if s.federation.Provider == nil {
		return "", "", noProvider()
	}
	if !strings.HasPrefix(next, "#/") || len(next) > 1000 {
		next = "#/"
	}
	text := randomSecret() + "." + strconv.FormatInt(time.Now().Add(SSOTTL).Unix(), 10) + "." + encode([]byte(next))
	address, err = s.federation.Provider.SignIn(ctx, back, s.proofs(text))
	return address, text + "." + encode(s.hash("sso/ticket", text)), err
}

// EndSSO opens a session for the person that the provider vouches for. Every refusal is a ledger row; its error is a Refusal.
func (s *Service) EndSSO(ctx context.Context, r Return) (secret, next string, err error) {
	if s.federation.Provider == nil {
		return "", "", noProvider()
	}
	var id Identity
	secret, next, id, err = s.endSSO(ctx, r)
	if err == nil {
		return secret, next, nil
	}
	var known Refusal
	if f := *fault.From(err); !errors.As(err, &known) && f.Kind != fault.Internal {
		f.Err = errors.Join(refusalOf(err), f.Err)
		err = &f
	}
	return "", next, errors.Join(err, s.refused(ctx, id, err))
}

func (s *Service) endSSO(ctx context.Context, r Return) (secret, next string, id Identity, err error) {
	text, next, err := s.openTicket(r.Ticket)
	if err != nil {
		return "", "", id, err
	}
	p := s.proofs(text)
	if !hmac.Equal([]byte(r.State), []byte(p.State)) {
		return "", next, id, stale()
	}
	if r.Error != "" || r.Code == "" {
		return "", next, id, fault.New(fault.Unauthenticated, "The identity provider refused the sign-in: "+clip(strconv.QuoteToASCII(r.Error), 80)+".", "Try again; when it stays, its admin knows whom it lets in.")
	}
	if id, err = s.federation.Provider.Redeem(ctx, r.Back, r.Code, p); err != nil {
		return "", next, id, err
	}
	actor, err := s.admit(ctx, id, true)
	if err != nil {
		return "", next, id, err
	}
	secret = randomSecret()
	err = s.store.Change(who.With(ctx, actor), "session.create", installation("User", actor.Name), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		return event.Draft{}, insertSession(ctx, tx, s.hash("session", secret), actor.Name, time.Now().Add(SessionTTL))
	})
	return secret, next, id, err
}

func (s *Service) openTicket(ticket string) (text, next string, err error) {
	i := strings.LastIndexByte(ticket, '.')
	if i < 0 || len(ticket) > 4000 {
		return "", "", stale()
	}
	text = ticket[:i]
	if !hmac.Equal([]byte(ticket[i+1:]), []byte(encode(s.hash("sso/ticket", text)))) {
		return "", "", stale()
	}
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return "", "", stale()
	}
	until, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil || time.Now().Unix() > until {
		return "", "", stale()
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return "", "", stale()
	}
	return text, string(b), nil
}

func (s *Service) proofs(text string) Proofs {
	return Proofs{State: encode(s.hash("sso/state", text)), Nonce: encode(s.hash("sso/nonce", text)), Verifier: encode(s.hash("sso/verifier", text))}
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func stale() error {
	return fault.Wrap(Stale, fault.Unauthenticated, "This sign-in was not begun in this browser, or more than ten minutes ago.", "Begin again on the sign-in page.")
}

func noProvider() error {
	return fault.New(fault.NotFound, "No identity provider is set up on this server.", "Sign in with a password, or ask who runs the server for --oidc-issuer.")
}

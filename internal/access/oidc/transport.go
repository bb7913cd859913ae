package oidc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

const (
	answerTimeout = 10 * time.Second
	maxAnswer     = 1 << 20
	// readsPerMinute bounds how often addresses and keys are fetched: a stranger's token with an unknown key id causes a fetch.
	readsPerMinute = 20
)

// client asks the provider with bounds: time, size, TLS also after a redirect, and reads per minute.
func client(safe func(*url.URL) bool) *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	return &http.Client{
		Timeout:   answerTimeout,
		Transport: &bounded{next: t, safe: safe},
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if len(via) > 3 {
				return errors.New("more than three redirects")
			}
			return nil
		},
	}
}

type bounded struct {
	next http.RoundTripper
	safe func(*url.URL) bool

	mu    sync.Mutex // guards reads
	reads []time.Time
}

// fetchError marks that the provider was not heard, which is not the fault of the token at hand.
type fetchError struct{ err error }

func (e *fetchError) Error() string { return e.err.Error() }
func (e *fetchError) Unwrap() error { return e.err }

func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if !b.safe(r.URL) {
		return nil, &fetchError{fmt.Errorf("%s has no TLS", r.URL.Host)}
	}
	read := r.Method == http.MethodGet
	if read && !b.allow(time.Now()) {
		return nil, &fetchError{errors.New("the provider was asked too often in this minute")}
	}
	resp, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, &fetchError{err}
	}
	if read && resp.StatusCode >= http.StatusBadRequest {
		resp.Body.Close()
		return nil, &fetchError{fmt.Errorf("%s says %s", r.URL, resp.Status)}
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	return resp, nil
}

func (b *bounded) allow(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.reads) > 0 && now.Sub(b.reads[0]) > time.Minute {
		b.reads = b.reads[1:]
	}
	if len(b.reads) >= readsPerMinute {
		return false
	}
	b.reads = append(b.reads, now)
	return true
}

type fetchKey struct{}

// keySet tells a signature that is wrong from keys that could not be fetched: the verifier makes both one text.
type keySet struct{ remote *oidc.RemoteKeySet }

func (k keySet) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	payload, err := k.remote.VerifySignature(ctx, jwt)
	var f *fetchError
	if held, ok := ctx.Value(fetchKey{}).(*error); ok && errors.As(err, &f) {
		*held = f
	}
	return payload, err
}

func parses(ip string) bool { return net.ParseIP(ip) != nil }

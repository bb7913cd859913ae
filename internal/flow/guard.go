package flow

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"falaj/internal/kernel/fault"
)

// closedNets is what a URL from a user must never reach although it is neither private nor loopback by the standard
// library's words: shared, reserved and benchmarking ranges, and IPv6 ranges that hide an IPv4 address or a tunnel.
func closedNets() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
		netip.MustParsePrefix("192.88.99.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"),
		netip.MustParsePrefix("::/96"), netip.MustParsePrefix("64:ff9b::/32"), netip.MustParsePrefix("100::/64"),
		netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("fec0::/10"),
	}
}

// reachable says whether a request on a user's behalf may go to ip: public unicast addresses, and what allow holds.
func reachable(ip netip.Addr, allow []netip.Prefix) bool {
	ip = ip.Unmap().WithZone("")
	for _, p := range allow {
		if p.Contains(ip) {
			return true
		}
	}
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() {
		return false
	}
	for _, p := range closedNets() {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}

var errClosed = errors.New("address is not reachable by policy")

// guardedClient speaks HTTP to URLs from users. The check is on the address that is dialled, after the name was
// resolved, so a name that changes its answer gains nothing. Redirects are not followed and no proxy is used, for both
// would dial for somebody else.
func guardedClient(allow []netip.Prefix, timeout time.Duration) *http.Client {
	d := &net.Dialer{Timeout: 5 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil || !reachable(ap.Addr(), allow) {
			return errClosed
		}
		return nil
	}}
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			DialContext: d.DialContext, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute,
			TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: timeout, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// sendFault puts the failure of a request into public words; the cause may hold the URL and stays in the log.
func sendFault(err error) error {
	public, next := "The webhook's host did not answer.", "Check the URL and that the host is up."
	var timeout interface{ Timeout() bool }
	var dns *net.DNSError
	switch {
	case errors.Is(err, errClosed):
		public, next = "The webhook's host resolves to a private or reserved address, which is refused.", "Use a public host, or let the administrator allow the network (--webhook-network)."
	case errors.As(err, &dns):
		public = "The webhook's host name cannot be resolved."
	case errors.As(err, &timeout) && timeout.Timeout():
		public = "The webhook's host did not answer in time."
	}
	return fault.Wrap(err, fault.Unavailable, public, next)
}

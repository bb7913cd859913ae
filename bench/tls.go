package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"time"
)

// transport measures what TLS adds to a request that does nothing else (/healthz): by kept connections, and with a handshake
// for each.
func transport(ctx context.Context, b *bench) (rows []row, err error) {
	const kept, fresh = 20000, 1000
	var plain [2]time.Duration
	for _, mode := range []string{"off", "auto"} {
		data := filepath.Join(b.temp, "tls-"+mode)
		s, err := b.serve(ctx, data, "--tls", mode)
		if err != nil {
			return rows, err
		}
		for i, n := range []int{kept, fresh} {
			c := trusting(data)
			c.Transport.(*http.Transport).DisableKeepAlives = n == fresh
			ask := func() error {
				resp, err := c.Get(s.base + "/healthz")
				if err != nil {
					return err
				}
				_, err = io.Copy(io.Discard, resp.Body)
				return errors.Join(err, resp.Body.Close())
			}
			if err := ask(); err != nil {
				return rows, errors.Join(err, s.stop())
			}
			before, begin := s.cpu(), time.Now()
			for range n {
				if err := ask(); err != nil {
					return rows, errors.Join(err, s.stop())
				}
			}
			cpu := s.cpu() - before
			what := []string{"a kept connection", "a connection for each"}[i]
			if mode == "off" {
				plain[i] = cpu
				rows = append(rows, row{What: "request without TLS, " + what, N: n, Unit: "requests", CPU: cpu, Wall: time.Since(begin), Note: "/healthz"})
				continue
			}
			rows = append(rows, row{What: "request by TLS 1.3, " + what, N: n, Unit: "requests", CPU: cpu, Wall: time.Since(begin), Note: fmt.Sprintf("%.0f us more than without", float64((cpu-plain[i]).Microseconds())/float64(n))})
			c.CloseIdleConnections()
		}
		if err := s.stop(); err != nil {
			return rows, err
		}
	}
	return rows, nil
}

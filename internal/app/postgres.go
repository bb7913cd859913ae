package app

import (
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"falaj/internal/kernel/fault"
)

var saysSSLMode = regexp.MustCompile(`(^|\s)sslmode\s*=`)

// verified is the address of a PostgreSQL on another machine with TLS and its certificate checked, unless the address itself
// says otherwise: PostgreSQL's own default would speak in clear to whoever answers.
func verified(dsn string) (string, error) {
	if dsn == "" {
		return "", nil
	}
	c, err := pgconn.ParseConfig(dsn)
	if err != nil { // its text may hold parts of the address
		return "", fault.New(fault.Invalid, "The address of the PostgreSQL database is not one.", "Write --postgres postgres://USER@HOST/DATABASE, and give the password by PGPASSFILE.").At("postgres")
	}
	near := local(c.Host)
	for _, f := range c.Fallbacks {
		near = near && local(f.Host)
	}
	u, err := url.Parse(dsn)
	isURL := err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql")
	switch {
	case near, os.Getenv("PGSSLMODE") != "", isURL && u.Query().Has("sslmode"), !isURL && saysSSLMode.MatchString(dsn):
		return dsn, nil
	case isURL:
		q := u.Query()
		q.Set("sslmode", "verify-full")
		u.RawQuery = q.Encode()
		return u.String(), nil
	}
	return dsn + " sslmode=verify-full", nil
}

func local(host string) bool {
	ip := net.ParseIP(host)
	return strings.HasPrefix(host, "/") || host == "localhost" || ip != nil && ip.IsLoopback()
}

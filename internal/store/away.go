package store

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"

	"falaj/internal/kernel/fault"
)

// ErrUnchanged is returned by the function of a Change that found nothing to do: the same request came again.
var ErrUnchanged = errors.New("what is asked for is so already")

// away marks the loss of the database itself: it says nothing about the request, and passes by itself.
type away struct{ error }

func (a away) Unwrap() error { return a.error }

// Away says whether err is that the database was not there, as while PostgreSQL is restarted.
func Away(err error) bool {
	var a away
	return errors.As(err, &a)
}

// Lost makes of a lost connection the fault that Away knows; any other error passes. A stage whose driver has connections of
// its own to the same database gives their errors to it.
func Lost(err error) error {
	if Away(err) || !gone(err) {
		return err
	}
	return fault.Wrap(away{err}, fault.Unavailable, "The database does not answer: nothing was changed.", "Try again in a moment: falaj goes on by itself when the database is back. `falaj doctor` names what is wrong.")
}

// gone recognises a lost or refused connection, and a server that is stopping or starting. SQLite has none of these.
func gone(err error) bool {
	var st sqlState
	if errors.As(err, &st) {
		switch code := st.SQLState(); code {
		case "57P01", "57P02", "57P03": // stopped by its administrator, crashed, not up yet
			return true
		default:
			return strings.HasPrefix(code, "08")
		}
	}
	var network *net.OpError
	switch {
	case err == nil:
		return false
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.As(err, &network):
		return true
	}
	return strings.HasSuffix(err.Error(), "conn closed") // pgx has no name for it
}

// Package fault is the one error shape of falaj: what happened and why in public words, and what to do next.
// One table maps each kind to its HTTP status, process exit code and MLflow error code, so every edge agrees.
package fault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Kind classifies an error for every edge. The list is append-only: clients store the words.
type Kind string

// The kinds, in the order of the table below.
const (
	Invalid         Kind = "invalid"         // the request is wrong; Field says where
	Unauthenticated Kind = "unauthenticated" // no or bad credentials
	Denied          Kind = "denied"          // policy refused
	NotFound        Kind = "not_found"
	Exists          Kind = "exists"
	Conflict        Kind = "conflict" // the state does not allow it now
	Refused         Kind = "refused"  // a gate or contract refused
	Pending         Kind = "pending"  // waits for somebody
	TooLarge        Kind = "too_large"
	Limited         Kind = "limited" // rate or quota
	Unavailable     Kind = "unavailable"
	Unsupported     Kind = "unsupported" // not built in this version
	Internal        Kind = "internal"
)

type codes struct {
	http   int
	exit   int
	mlflow string
	next   string // said when the error itself has no next step
}

func table(k Kind) codes {
	switch k {
	case Invalid:
		return codes{http.StatusBadRequest, 1, "INVALID_PARAMETER_VALUE", "Correct the named value and try again."}
	case Unauthenticated:
		return codes{http.StatusUnauthorized, 4, "UNAUTHENTICATED", "Sign in with `falaj login`, or send a valid flj_ token."}
	case Denied:
		return codes{http.StatusForbidden, 3, "PERMISSION_DENIED", "Ask a project admin for a role that allows it; `falaj policy why` shows the decision."}
	case NotFound:
		return codes{http.StatusNotFound, 5, "RESOURCE_DOES_NOT_EXIST", "Check the name; the list commands show what exists."}
	case Exists:
		return codes{http.StatusConflict, 1, "RESOURCE_ALREADY_EXISTS", "Choose another name, or use the one that exists."}
	case Conflict:
		return codes{http.StatusConflict, 1, "INVALID_STATE", "Look at the current state with `falaj status`, then try again."}
	case Refused:
		return codes{http.StatusUnprocessableEntity, 3, "INVALID_STATE", "See the evidence on the change's page."}
	case Pending:
		return codes{http.StatusConflict, 8, "INVALID_STATE", "Wait for the approval, or ask an approver."}
	case TooLarge:
		return codes{http.StatusRequestEntityTooLarge, 1, "INVALID_PARAMETER_VALUE", "Send less at once."}
	case Limited:
		return codes{http.StatusTooManyRequests, 1, "REQUEST_LIMIT_EXCEEDED", "Wait a moment and try again."}
	case Unavailable:
		return codes{http.StatusServiceUnavailable, 1, "TEMPORARILY_UNAVAILABLE", "Try again in a moment; `falaj doctor` names what is wrong."}
	case Unsupported:
		return codes{http.StatusNotImplemented, 1, "NOT_IMPLEMENTED", "docs/status.md lists what this version does."}
	}
	return codes{http.StatusInternalServerError, 1, "INTERNAL_ERROR", "The server's log holds the cause under the request id; `falaj doctor` helps to find it."}
}

// E is an error for a person: Public says what and why, Next what to type or do, Field which input.
// Err is the cause for the log; its text never reaches a user.
type E struct {
	Kind   Kind
	Public string
	Next   string
	Field  string
	Err    error
}

// Error gives the public text and the cause: it is for logs, edges print Public and Next.
func (e *E) Error() string {
	if e.Err != nil {
		return e.Public + ": " + e.Err.Error()
	}
	return e.Public
}

// Unwrap returns the cause.
func (e *E) Unwrap() error { return e.Err }

// New makes a fault. An empty next takes the kind's own next step, so that no fault is without one.
func New(k Kind, public, next string) *E {
	if next == "" {
		next = table(k).next
	}
	return &E{Kind: k, Public: public, Next: next}
}

// Newf is New with a formatted public text and the kind's next step.
func Newf(k Kind, format string, args ...any) *E {
	return New(k, fmt.Sprintf(format, args...), "")
}

// Wrap gives err a kind and public words. A nil err gives nil.
func Wrap(err error, k Kind, public, next string) error {
	if err == nil {
		return nil
	}
	e := New(k, public, next)
	e.Err = err
	return e
}

// At returns a copy that names the input field.
func (e *E) At(field string) *E {
	c := *e
	c.Field = field
	return &c
}

// From finds the fault in err. Anything else is Internal and its text is withheld.
func From(err error) *E {
	if err == nil {
		return nil
	}
	var e *E
	if errors.As(err, &e) {
		return e
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		f := New(Unavailable, "The request was cancelled or took too long.", "")
		f.Err = err
		return f
	}
	f := New(Internal, "Something went wrong inside falaj.", "")
	f.Err = err
	return f
}

// KindOf is From(err).Kind, and "" for nil.
func KindOf(err error) Kind {
	if e := From(err); e != nil {
		return e.Kind
	}
	return ""
}

// Is says whether err is of kind k.
func Is(err error, k Kind) bool { return err != nil && KindOf(err) == k }

// HTTP is the status of the kind.
func (k Kind) HTTP() int { return table(k).http }

// Exit is the process exit code of the kind (STYLE.md section 4).
func (k Kind) Exit() int { return table(k).exit }

// MLflow is the error_code of MLflow's REST API for the kind.
func (k Kind) MLflow() string { return table(k).mlflow }

// Kinds lists all kinds, for tests and documentation.
func Kinds() []Kind {
	return []Kind{Invalid, Unauthenticated, Denied, NotFound, Exists, Conflict, Refused, Pending, TooLarge, Limited, Unavailable, Unsupported, Internal}
}

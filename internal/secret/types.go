// Package secret keeps what a job must know and nobody else may see: falaj.yaml holds references, and a step opens them when it begins.
// A reference names a value sealed in the database, one of the server's environment, or a file; what opens them is a Resolver.
package secret

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"falaj/internal/kernel/fault"
)

// The sizes of a value in bytes. A shorter one could not be told from ordinary text in a log, so it could not be hidden there.
const (
	MinSize = 8
	MaxSize = 64 << 10
)

// Resolver opens the names of one kind of reference. Implementations are safe for concurrent use and keep no value: each
// call reads anew, so that a value set again is used by the next step. A name that is not there is fault.NotFound, one
// that the administrator does not allow fault.Denied, a value outside MinSize and MaxSize fault.Invalid; no fault and no
// log holds a value. The contract is tested on all of them by TestResolvers.
type Resolver interface {
	Resolve(ctx context.Context, project, name string) (Value, error)
}

// Value is an opened secret. It prints as "[secret]".
type Value struct {
	// Version tells one value of a name from the next and nothing about either: a number, or a keyed digest.
	Version string
	bytes   []byte
}

// Bytes is the value itself. It belongs in a file of the job's own room, and nowhere else.
func (v Value) Bytes() []byte { return v.bytes }

func (Value) String() string               { return "[secret]" }
func (Value) GoString() string             { return "[secret]" }
func (Value) LogValue() slog.Value         { return slog.StringValue("[secret]") }
func (Value) MarshalJSON() ([]byte, error) { return []byte(`"[secret]"`), nil }

// Info is what may be told of a secret.
type Info struct {
	Name    string    `json:"name"`
	Version int64     `json:"version"`
	Actor   string    `json:"actor"` // who set this version
	Created time.Time `json:"created"`
}

// Ref is a parsed reference: SCHEME://NAME.
type Ref struct{ Scheme, Name string }

func (r Ref) String() string { return r.Scheme + "://" + r.Name }

// The schemes.
const (
	Embedded = "secret" // in the database, sealed under the project's key
	Env      = "env"    // of the server's environment
	File     = "file"   // under the folder that the administrator allows
	Vault    = "vault"  // parsed, not built
)

// NameForm is the form of names: of secrets, of variables, and of the files that a job finds them in.
const NameForm = `^[A-Za-z_][A-Za-z0-9_]{0,63}$`

var nameForm = regexp.MustCompile(NameForm)

// ParseRef reads a reference. What is none may be a secret itself, so a refusal does not repeat it.
func ParseRef(s string) (Ref, error) {
	scheme, name, ok := strings.Cut(s, "://")
	if !ok || !slices.Contains([]string{Embedded, Env, File, Vault}, scheme) {
		return Ref{}, fault.New(fault.Invalid, "This is no reference to a secret.", "Write secret://NAME, env://NAME or file://PATH. A value itself is given to falaj secret set NAME.")
	}
	switch scheme {
	case Vault:
		return Ref{}, fault.New(fault.Unsupported, "References to a Vault are not available in this version.", "Use secret://NAME, env://NAME or file://PATH.")
	case File:
		if name == "" || len(name) > 400 || strings.ContainsAny(name, "\x00\n\\") || slices.Contains(strings.Split(name, "/"), "..") {
			return Ref{}, fault.New(fault.Invalid, "The path of this reference to a secret leads nowhere that is allowed.", "Write file://PATH, with PATH below the folder of falaj server --secret-dir and without '..'.")
		}
	default:
		if !nameForm.MatchString(name) {
			return Ref{}, fault.New(fault.Invalid, "The name in this reference to a secret is none.", "Names are letters, digits and _, a letter first: "+scheme+"://DB_PASSWORD.")
		}
	}
	return Ref{scheme, name}, nil
}

// checked bounds a value and gives it its version.
func checked(ref Ref, version string, b []byte) (Value, error) {
	if len(b) < MinSize || len(b) > MaxSize {
		return Value{}, size(ref.String())
	}
	return Value{Version: version, bytes: b}, nil
}

func size(what string) error {
	return fault.New(fault.Invalid, fmt.Sprintf("The value of %s does not have %d bytes to %d KiB; a shorter one could not be hidden in logs.", what, MinSize, MaxSize>>10), "Use a longer value, or a file of the project for what is no secret.")
}

package secret

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"falaj/internal/kernel/fault"
)

// digest makes versions of values that have no number: keyed, so that nobody without the keyset can try guesses on it.
type digest func(purpose string, msg []byte) []byte

func (d digest) of(project string, ref Ref, b []byte) string {
	return hex.EncodeToString(d("secret version|"+project+"|"+ref.String(), b)[:8])
}

// environment opens variables of the server that the administrator has named.
type environment struct {
	allowed []string
	digest  digest
}

func (e environment) Resolve(_ context.Context, project, name string) (Value, error) {
	ref := Ref{Env, name}
	if !slices.Contains(e.allowed, name) {
		return Value{}, fault.New(fault.Denied, fmt.Sprintf("%s is not among the variables that projects may use.", ref), "Ask the administrator to start the server with --secret-env "+name+", or use secret://"+name+".")
	}
	text, ok := os.LookupEnv(name)
	if !ok {
		return Value{}, fault.New(fault.NotFound, fmt.Sprintf("%s is not set in the server's environment.", ref), "Ask the administrator to set it where the server is started, or use secret://"+name+".")
	}
	return checked(ref, e.digest.of(project, ref, []byte(text)), []byte(text))
}

var errOutside = errors.New("outside of the folder of secrets")

// folder opens files below the folder that the administrator has named; links in it lead nowhere else.
type folder struct {
	dir    string // "" allows none
	digest digest
}

func (f folder) Resolve(_ context.Context, project, name string) (Value, error) {
	ref := Ref{File, name}
	if f.dir == "" {
		return Value{}, fault.New(fault.Denied, fmt.Sprintf("%s cannot be read: this server allows no folder of secrets.", ref), "Ask the administrator to start the server with --secret-dir DIR, or use secret://NAME.")
	}
	denied := func(err error) error {
		return fault.Wrap(err, fault.Denied, fmt.Sprintf("%s does not lie below the folder that the administrator allows.", ref), "Move it below the folder of falaj server --secret-dir, or use secret://NAME.")
	}
	inside := name
	if filepath.IsAbs(name) {
		rest, ok := strings.CutPrefix(filepath.Clean(name), strings.TrimSuffix(filepath.Clean(f.dir), "/")+"/")
		if !ok {
			return Value{}, denied(errOutside)
		}
		inside = rest
	}
	if !filepath.IsLocal(inside) {
		return Value{}, denied(errOutside)
	}
	root, err := os.OpenRoot(f.dir)
	if err != nil {
		return Value{}, fault.Wrap(err, fault.Unavailable, "The server's folder of secrets cannot be opened.", "Ask the administrator to check --secret-dir.")
	}
	defer root.Close()
	file, err := root.OpenFile(inside, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not hold the step
	if errors.Is(err, fs.ErrNotExist) {
		return Value{}, fault.New(fault.NotFound, fmt.Sprintf("There is no file for %s.", ref), "Ask the administrator to put it into the folder of falaj server --secret-dir.")
	}
	if err != nil {
		return Value{}, denied(err)
	}
	defer file.Close()
	if st, err := file.Stat(); err != nil || !st.Mode().IsRegular() {
		return Value{}, denied(errors.Join(err, errors.New("not a regular file")))
	}
	b, err := io.ReadAll(io.LimitReader(file, MaxSize+1))
	if err != nil {
		return Value{}, fault.Wrap(err, fault.Unavailable, fmt.Sprintf("%s cannot be read.", ref), "Ask the administrator to check the file.")
	}
	return checked(ref, f.digest.of(project, ref, b), b)
}

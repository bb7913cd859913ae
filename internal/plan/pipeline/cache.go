package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"falaj/internal/kernel/note"
)

// parts is everything that a step's result depends on, by name: "command", "param trees", "input flights", "code train.py",
// "runtime", "platform". Values are texts or digests, never secrets.
type parts map[string]string

// key is the digest of the parts in canonical JSON (encoding/json sorts map keys).
func (p parts) key() string {
	b, err := json.Marshal(p)
	if err != nil { // a map of strings always marshals
		panic(err)
	}
	h := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(h[:])
}

// entry is what the cache remembers of a step.
type entry struct {
	inputs parts
	result json.RawMessage
	run    string
}

// why explains a miss by the first part that differs from the newest entry of the same step.
func (p parts) why(last *entry, noCache bool) note.Note {
	if noCache {
		return note.New("cache.disabled", "the cache was switched off for this run")
	}
	if last == nil {
		return note.New("cache.first_time", "this step never ran before")
	}
	names := slices.Sorted(maps.Keys(p))
	for name := range last.inputs {
		if _, ok := p[name]; !ok {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if p[name] == last.inputs[name] {
			continue
		}
		kind, what, _ := strings.Cut(name, " ")
		switch kind {
		case "input":
			return note.New("cache.input_changed", "input {input} changed", "input", what)
		case "code":
			return note.New("cache.code_changed", "code {file} changed", "file", what)
		case "param":
			return note.New("cache.params_changed", "parameter {param} changed", "param", what)
		case "runtime":
			return note.New("cache.runtime_changed", "the runtime changed")
		}
		return note.New("cache.changed", "{what} changed", "what", name)
	}
	return note.New("cache.evicted", "its result is no longer kept")
}

package flow

import (
	"encoding/gob"
	"encoding/json"

	"github.com/dbos-inc/dbos-transact-golang/dbos"

	"falaj/internal/kernel/seal"
)

// sealed is the form in which inputs, results and signals lie in the workflow database: what a step returns may hold users'
// data. It is gob, which keeps the types that the library asks for, sealed under the engine's box.
type sealed struct {
	dbos.Serializer[any]
	box *seal.Box
}

// place binds sealed values to this database; the library does not say which run or step a value belongs to.
const place = "flow.db"

func newSealed(box *seal.Box) dbos.Serializer[any] {
	// A second registration of the same type is no error.
	gob.Register(outcome{})
	gob.Register(envelope{})
	gob.Register(json.RawMessage{})
	return sealed{dbos.NewGobSerializer(), box}
}

// Name is recorded with every value and never changes.
func (sealed) Name() string { return "FALAJ_SEALED_GOB" }

func (s sealed) Encode(v any) (*string, error) {
	plain, err := s.Serializer.Encode(v)
	if err != nil {
		return nil, err
	}
	out, err := s.box.SealText(*plain, place)
	return &out, err
}

func (s sealed) Decode(text *string) (any, error) {
	if text == nil {
		return nil, nil
	}
	plain, err := s.box.OpenText(*text, place)
	if err != nil {
		return nil, err
	}
	return s.Serializer.Decode(&plain)
}

// listed reads a value of a listing: decoded already when it was sealed, else JSON text.
func listed[T any](v any) (out T, ok bool) {
	switch v := v.(type) {
	case T:
		return v, true
	case string:
		return out, json.Unmarshal([]byte(v), &out) == nil
	}
	return out, false
}

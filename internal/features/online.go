package features

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"falaj/internal/kernel/fault"
)

// KeySize is the length of an entity's key in the online store: the start of the SHA-256 of its canonical text.
const KeySize = 16

// Forever is the Until of an answer that nothing stored will change.
const Forever = math.MaxInt64

// Version is one row of a view about one entity. Times are microseconds UTC. Sealed is opaque to the store.
type Version struct {
	Key    [KeySize]byte
	Event  int64
	Known  int64
	Sealed []byte
}

// Ask is one question: what was known of the entity at an instant.
type Ask struct {
	Key [KeySize]byte
	At  int64
}

// Found is the answer for one question. With OK false nothing was known. The same answer holds from the asked instant until
// Until (excluded), which is never later than the next change of the answer; Forever when nothing stored changes it.
type Found struct {
	OK     bool
	Event  int64
	Known  int64
	Sealed []byte
	Until  int64
}

// OnlineStore keeps the versions of entities by table (a view of a project under its digest). It is safe for concurrent
// use; the contract is tested by onlinetest.Run. A version is visible at an instant when its event and known times are
// both at or before it; of the visible ones the newest event wins, then the newest known: exactly the offline join.
type OnlineStore interface {
	// Put keeps all versions durably before it returns, or none. One with equal table, key, event and known replaces
	// the older; of equals in one call the last wins.
	Put(ctx context.Context, table string, versions []Version) error
	// At answers each question, in their order.
	At(ctx context.Context, table string, asks []Ask) ([]Found, error)
	// Trim forgets versions that no At from floor on can give, and says how many.
	Trim(ctx context.Context, table string, floor int64) (int64, error)
	// Drop forgets a table.
	Drop(ctx context.Context, table string) error
	Close() error
}

// canonical is the text of a key value: what DuckDB's CAST AS VARCHAR gives for text, integers, booleans and dates.
func canonical(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case int:
		return strconv.Itoa(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case json.Number:
		f, err := v.Float64()
		if err != nil {
			return "", false
		}
		return canonical(f)
	case float64:
		if v != math.Trunc(v) || math.Abs(v) > 1<<53 {
			return "", false
		}
		return strconv.FormatInt(int64(v), 10), true
	}
	return "", false
}

// EntityKey hashes the canonical texts, each with its length, so that no two entities share a text.
func EntityKey(parts ...string) (key [KeySize]byte) {
	var buf [128]byte
	b := buf[:0]
	for _, p := range parts {
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	sum := sha256.Sum256(b)
	copy(key[:], sum[:])
	return key
}

// keyOf finds the key of a view's entity among a row's columns.
func keyOf(v View, row map[string]any, i int) (key [KeySize]byte, err error) {
	var buf [4]string
	parts := buf[:0]
	for _, c := range v.Entity {
		text, ok := canonical(row[c])
		if !ok {
			return key, fault.New(fault.Invalid, fmt.Sprintf("Row %d brings no usable '%s': view %s is looked up by it.", i+1, c, v.Name),
				"Send "+c+" as text, a whole number or a boolean.").At(c)
		}
		parts = append(parts, text)
	}
	return EntityKey(parts...), nil
}

// VectorDigest identifies the values that a service gave: equal digests, equal inputs to the model. 32 hex digits.
func VectorDigest(serviceDigest string, values []float64) string {
	b := make([]byte, 0, len(serviceDigest)+8*len(values))
	b = append(b, serviceDigest...)
	for _, v := range values {
		if math.IsNaN(v) { // one null, whatever the payload of the NaN
			v = math.NaN()
		}
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// requestRow gives the request columns in the types that the service's expressions read.
func (p *plan) requestRow(row map[string]any, i int) (Row, error) {
	out := make(Row, len(p.inputs))
	for name, t := range p.inputs {
		v, err := coerce(row[name], t)
		if err != nil {
			return nil, fault.New(fault.Invalid, fmt.Sprintf("Column '%s' of row %d is not a %s.", name, i+1, t), "Send it as "+spelling(t)+", or null when it is not known.").At(name)
		}
		out[name] = v
	}
	return out, nil
}

func spelling(t Type) string {
	switch t {
	case Text:
		return "a JSON string"
	case Timestamp:
		return "an RFC 3339 time such as 2013-06-01T14:00:00Z"
	}
	return "a JSON number or boolean"
}

func coerce(v any, t Type) (any, error) {
	bad := fmt.Errorf("a %T", v)
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		if t == Text {
			return v, nil
		}
		if at, err := time.Parse(time.RFC3339, v); t == Timestamp && err == nil {
			return at.UTC(), nil
		}
	case time.Time:
		if t == Timestamp {
			return v.UTC(), nil
		}
	case bool:
		if t == Number {
			return v, nil
		}
	case float64:
		if t == Number {
			return v, nil
		}
	case int:
		return coerce(float64(v), t)
	case int64:
		return coerce(float64(v), t)
	case json.Number:
		if f, err := v.Float64(); err == nil {
			return coerce(f, t)
		}
	}
	return nil, bad
}

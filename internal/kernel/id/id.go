// Package id makes the identifiers of falaj: a prefix that names the kind and 26 base32 characters of a UUIDv7.
// The same 16 bytes are MLflow's 32 hex digits, so one thing has one id in two spellings.
package id

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"strings"

	"github.com/google/uuid"

	"falaj/internal/kernel/fault"
)

// Crockford's alphabet in lower case: sorts like the bytes, has no look-alikes.
const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"

// crockford is immutable; building it anew for every id cost more than the id.
var crockford = base32.NewEncoding(alphabet).WithPadding(base32.NoPadding)

// New returns prefix_ and 26 base32 characters. Ids made later sort later.
func New(prefix string) string {
	u := uuid.Must(uuid.NewV7())
	return prefix + "_" + crockford.EncodeToString(u[:])
}

// Of returns prefix_ and 26 base32 characters that the parts alone decide: what happens again has the id it had.
func Of(prefix string, parts ...string) string {
	h := sha256.New()
	var size [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(size[:], uint64(len(p)))
		h.Write(size[:])
		h.Write([]byte(p))
	}
	return prefix + "_" + crockford.EncodeToString(h.Sum(nil)[:16])
}

// NewHex returns 32 hex digits, MLflow's spelling of a new id.
func NewHex() string {
	u := uuid.Must(uuid.NewV7())
	return hex.EncodeToString(u[:])
}

// Hex gives the MLflow spelling of a falaj id.
func Hex(id string) (string, error) {
	_, tail, ok := strings.Cut(id, "_")
	b, err := crockford.DecodeString(tail)
	if !ok || err != nil || len(b) != 16 {
		return "", fault.New(fault.Invalid, "'"+id+"' is not an id.", "Ids look like run_ and 26 letters and digits.")
	}
	return hex.EncodeToString(b), nil
}

// FromHex gives the falaj spelling of an MLflow id.
func FromHex(prefix, h string) (string, error) {
	b, err := hex.DecodeString(h)
	if err != nil || len(b) != 16 {
		return "", fault.New(fault.Invalid, "'"+h+"' is not an id of 32 hex digits.", "")
	}
	return prefix + "_" + crockford.EncodeToString(b), nil
}

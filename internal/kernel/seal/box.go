package seal

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"falaj/internal/kernel/fault"
)

// ErrDamaged is what errors.Is finds in every refusal to open: bytes changed, cut, moved or sealed for elsewhere.
// Which of these it was cannot be told apart, by design of authenticated encryption.
var ErrDamaged = errors.New("sealed data does not authenticate")

func damaged(what string) error {
	return fault.Wrap(ErrDamaged, fault.Internal,
		"The "+what+" does not open: it was changed, cut short, or sealed for another project or object.",
		"Run falaj audit verify to name what is damaged, then restore it from a backup; if the keys folder was replaced, put the old one back.")
}

// Domain words keep the three uses of associated data apart: a sealed value never opens as a wrapped key.
const (
	domainDataKey   = "falaj/data-key/1\x00"
	domainObjectKey = "falaj/object-key/1\x00"
	domainValue     = "falaj/value/1\x00"
)

// Box seals values and object keys under one data key. It is immutable and safe for concurrent use.
type Box struct{ aead tink.AEAD }

// NewDataKey makes a fresh data key and returns it wrapped by the keyset and bound to aad, for example the
// project's name. The result is about 150 bytes, safe to keep in a database, and opens only with the same aad.
func (k *Keys) NewDataKey(aad string) (wrapped []byte, err error) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fault.Wrap(err, fault.Internal, "A data key could not be made.", "")
	}
	var buf bytes.Buffer
	if err := handle.WriteWithAssociatedData(keyset.NewBinaryWriter(&buf), k.kek, []byte(domainDataKey+aad)); err != nil {
		return nil, fault.Wrap(err, fault.Internal, "A data key could not be wrapped.", "")
	}
	return buf.Bytes(), nil
}

// Box opens a wrapped data key. Another aad, another keyset or a changed byte gives ErrDamaged.
func (k *Keys) Box(wrapped []byte, aad string) (*Box, error) {
	handle, err := keyset.ReadWithAssociatedData(keyset.NewBinaryReader(bytes.NewReader(wrapped)), k.kek, []byte(domainDataKey+aad))
	if err != nil {
		return nil, damaged("data key") // tink's own text would mislead ("no matching key found")
	}
	a, err := aead.New(handle)
	if err != nil {
		return nil, damaged("data key")
	}
	return &Box{aead: a}, nil
}

// Seal encrypts a small value (held in memory) bound to aad; the result is 33 bytes longer than plain.
func (b *Box) Seal(plain, aad []byte) ([]byte, error) { return b.seal(domainValue, plain, aad) }

// Open reverses Seal, and gives ErrDamaged unless sealed and aad are exactly those of Seal.
func (b *Box) Open(sealed, aad []byte) ([]byte, error) {
	plain, err := b.aead.Decrypt(sealed, append([]byte(domainValue), aad...))
	if err != nil {
		return nil, damaged("sealed value")
	}
	return plain, nil
}

// SealText is Seal for a text column, bound to the place where it is kept; OpenText reverses it.
func (b *Box) SealText(plain, place string) (string, error) {
	sealed, err := b.Seal([]byte(plain), []byte(place))
	return base64.RawStdEncoding.EncodeToString(sealed), err
}

// OpenText gives ErrDamaged for what SealText did not make for this place.
func (b *Box) OpenText(sealed, place string) (string, error) {
	raw, err := base64.RawStdEncoding.DecodeString(sealed)
	if err != nil {
		return "", damaged("sealed value")
	}
	plain, err := b.Open(raw, []byte(place))
	return string(plain), err
}

// SealJSON is SealText of a value's JSON; OpenJSON reverses it, and an empty text leaves v as it is.
func (b *Box) SealJSON(v any, place string) (string, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	return b.SealText(string(plain), place)
}

// OpenJSON gives ErrDamaged for what SealJSON did not make for this place.
func (b *Box) OpenJSON(sealed, place string, v any) error {
	if sealed == "" {
		return nil
	}
	plain, err := b.OpenText(sealed, place)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(plain), v)
}

func (b *Box) seal(domain string, plain, aad []byte) ([]byte, error) {
	sealed, err := b.aead.Encrypt(plain, append([]byte(domain), aad...))
	if err != nil {
		return nil, fault.Wrap(err, fault.Internal, "A value could not be sealed.", "")
	}
	return sealed, nil
}

// ObjectKey is the 256-bit key of exactly one object's stream; it prints as "[secret]". The zero value is refused.
type ObjectKey struct{ b [32]byte }

func (ObjectKey) String() string               { return "[secret]" }
func (ObjectKey) GoString() string             { return "[secret]" }
func (ObjectKey) LogValue() slog.Value         { return slog.StringValue("[secret]") }
func (ObjectKey) MarshalJSON() ([]byte, error) { return []byte(`"[secret]"`), nil }

// NewObjectKey returns a fresh random key. Use it for one stream only.
func (b *Box) NewObjectKey() ObjectKey {
	var k ObjectKey
	rand.Read(k.b[:]) // never fails since Go 1.24
	return k
}

// WrapObjectKey seals key under the box and binds it to aad, for example project and digest. Wrap at the end of
// a stream, when its digest is known: DARE itself takes no associated data, so this is where an object gets its place.
func (b *Box) WrapObjectKey(key ObjectKey, aad []byte) ([]byte, error) {
	if key == (ObjectKey{}) {
		return nil, fault.New(fault.Internal, "An empty object key was to be wrapped.", "")
	}
	return b.seal(domainObjectKey, key.b[:], aad)
}

// UnwrapObjectKey reverses WrapObjectKey, and gives ErrDamaged unless wrapped and aad are exactly those.
func (b *Box) UnwrapObjectKey(wrapped, aad []byte) (ObjectKey, error) {
	plain, err := b.aead.Decrypt(wrapped, append([]byte(domainObjectKey), aad...))
	if err != nil || len(plain) != len(ObjectKey{}.b) {
		return ObjectKey{}, damaged("object key")
	}
	return ObjectKey{b: [32]byte(plain)}, nil
}

package seal

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
)

// derive gives 32 bytes for one use; two different uses or purposes give independent keys.
func (k *Keys) derive(use, purpose string) []byte {
	key, err := hkdf.Key(sha256.New, k.root, nil, "falaj/"+use+"/1\x00"+purpose, 32)
	if err != nil {
		panic("seal: HKDF of 32 bytes cannot fail: " + err.Error())
	}
	return key
}

// MAC returns the HMAC-SHA256 (32 bytes) of msg under the server's pepper for this purpose: token digests,
// pseudonyms, webhook signatures. The same purpose and msg give the same digest for the life of the keyset.
func (k *Keys) MAC(purpose string, msg []byte) []byte {
	m := hmac.New(sha256.New, k.derive("mac", purpose))
	m.Write(msg)
	return m.Sum(nil)
}

// MACEqual reports in constant time whether mac is MAC(purpose, msg).
func (k *Keys) MACEqual(purpose string, msg, mac []byte) bool {
	return hmac.Equal(k.MAC(purpose, msg), mac)
}

// ID names the keyset without telling anything about it (16 hex digits). Keep it beside the data, so that a data
// folder started with another keys folder can say so before anything fails to open.
func (k *Keys) ID() string { return hex.EncodeToString(k.MAC("keyset id", nil)[:8]) }

// Signer is an Ed25519 key for one purpose, derived from the keyset and never stored.
type Signer struct{ key ed25519.PrivateKey }

// Signer returns the signing key for a purpose, for example "checkpoint". It is the same for the life of the keyset.
func (k *Keys) Signer(purpose string) Signer {
	return Signer{key: ed25519.NewKeyFromSeed(k.derive("sign", purpose))}
}

// Sign returns the 64-byte Ed25519 signature of msg.
func (s Signer) Sign(msg []byte) []byte { return ed25519.Sign(s.key, msg) }

// Public returns the 32-byte public key.
func (s Signer) Public() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

// PublicPEM returns the public key as PKIX in PEM, the form openssl and verifiers read.
func (s Signer) PublicPEM() []byte {
	der, err := x509.MarshalPKIXPublicKey(s.Public())
	if err != nil {
		panic("seal: an Ed25519 public key always encodes: " + err.Error())
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// Private returns the key itself, for formats that sign by their own code (signed notes). Never print or store it.
func (s Signer) Private() ed25519.PrivateKey { return s.key }

func (Signer) String() string   { return "[secret]" }
func (Signer) GoString() string { return "[secret]" }

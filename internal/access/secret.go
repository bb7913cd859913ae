package access

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"math/big"
	"strings"

	"golang.org/x/crypto/argon2"

	"falaj/internal/kernel/fault"
)

// tokenPrefix lets secret scanners recognise our tokens.
const tokenPrefix = "flj_"

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// newToken is flj_, 43 base62 digits of 32 random bytes and 6 of their CRC-32, so that a typing error is told from a revoked token.
func newToken() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails since Go 1.24
	body := digits(new(big.Int).SetBytes(b), 43)
	return tokenPrefix + body + checksum(body)
}

func checksum(body string) string {
	return digits(big.NewInt(int64(crc32.ChecksumIEEE([]byte(body)))), 6)
}

func digits(n *big.Int, width int) string {
	out := make([]byte, width)
	base, m := big.NewInt(62), new(big.Int)
	for i := width - 1; i >= 0; i-- {
		n.DivMod(n, base, m)
		out[i] = base62[m.Int64()]
	}
	return string(out)
}

// wellFormed says whether s can be a token of ours.
func wellFormed(s string) bool {
	body, ok := strings.CutPrefix(s, tokenPrefix)
	return ok && len(body) == 49 && checksum(body[:43]) == body[43:]
}

func randomSecret() string {
	b := make([]byte, 32)
	rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

// Parameters of argon2id: RFC 9106's second recommendation scaled to 64 MiB, 3 passes.
const (
	argonTime   = 3
	argonMemory = 64 * 1024
	argonLanes  = 2
)

// hashPassword makes an argon2id hash in the PHC string form.
func hashPassword(password string) string {
	salt := make([]byte, 16)
	rand.Read(salt)
	key := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonLanes, 32)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonLanes,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key))
}

func checkPassword(phc, password string) bool {
	parts := strings.Split(phc, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false
	}
	var m, t uint32
	var p uint8
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &m, &t, &p); err != nil || m > 1<<20 || t > 100 {
		return false
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	want, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil {
		return false
	}
	got := argon2.IDKey([]byte(password), salt, t, m, p, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1
}

func checkNewPassword(password string) error {
	if len(password) < 12 {
		return fault.New(fault.Invalid, "The password is too short.", "Use at least 12 characters; a sentence is fine.").At("password")
	}
	if len(password) > 1024 {
		return fault.New(fault.Invalid, "The password is longer than 1024 bytes.", "").At("password")
	}
	return nil
}

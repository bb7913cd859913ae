package secret

import (
	"math"
	"regexp"
	"strings"
	"unicode"
)

// Shapes are texts that are secrets wherever they stand. What is put there by a placeholder ({x}, $X, <x>) is none.
var shapes = []struct {
	what string
	form *regexp.Regexp
}{
	{"a token of falaj", regexp.MustCompile(`\bflj_[A-Za-z0-9]{20,}`)},
	{"an access key of AWS", regexp.MustCompile(`\b(AKIA|ASIA)[0-9A-Z]{16}\b`)},
	{"a token of a forge", regexp.MustCompile(`\b(gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,}|glpat-[A-Za-z0-9_-]{20})`)},
	{"a signed token (JWT)", regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}`)},
	{"a private key", regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----`)},
	{"a URL with a password", regexp.MustCompile(`\b[a-z][a-z0-9+.-]*://[^\s/:@'"]*:[^\s/@'"{}$<>]+@`)},
}

// named finds NAME=VALUE and --NAME VALUE inside a text, such as a command or the query of a URL.
var named = regexp.MustCompile(`(?i)([A-Za-z0-9_-]*(?:password|passwd|pwd|secret|token|key))(?:=|\s+)["']?([^\s&;"']+)`)

var (
	secretKey   = regexp.MustCompile(`(?i)(password|passwd|passphrase|secret|token|credential|(^|[_-]|api|access|private)key($|[_-]))`)
	passwordKey = regexp.MustCompile(`(?i)(password|passwd|passphrase|(^|_)pwd$)`)
	plainWord   = regexp.MustCompile(`^[a-z_]+$|^[A-Z_]+$`)
	pieces      = regexp.MustCompile(`[A-Za-z0-9+=]+`)
	reference   = regexp.MustCompile(`^(` + Embedded + `|` + Env + `|` + File + `|` + Vault + `)://`)
)

// Literal says what kind of secret a text holds that stands under a key, "" for none. A key such as password, secret, token
// or key makes it suspicious of random-looking text; names, paths and placeholders are none.
func Literal(key, text string) string {
	if reference.MatchString(text) {
		return ""
	}
	for _, s := range shapes {
		if s.form.MatchString(text) {
			return s.what
		}
	}
	if secretKey.MatchString(key) && random(key, text) {
		return "a value that looks like a secret"
	}
	for _, m := range named.FindAllStringSubmatch(text, 20) {
		name := strings.TrimLeft(m[1], "-")
		if secretKey.MatchString(name) && random(name, m[2]) {
			return "a value that looks like a secret"
		}
	}
	return ""
}

// random says whether a value under a suspicious key looks made up by a machine, or for a password by a person.
func random(key, text string) bool {
	text = strings.Trim(text, `"' `)
	if strings.ContainsAny(text, "{}$<>") || plainWord.MatchString(text) || strings.HasPrefix(text, "-") {
		return false
	}
	if passwordKey.MatchString(key) {
		letters := strings.ContainsFunc(text, unicode.IsLetter)
		return len(text) >= MinSize && letters && !strings.ContainsAny(text, "/ ") // a path or a sentence is no password here
	}
	for _, p := range pieces.FindAllString(text, 20) {
		digits := strings.ContainsFunc(p, unicode.IsDigit)
		letters := strings.ContainsFunc(p, unicode.IsLetter)
		if len(p) >= 16 && digits && letters && entropy(p) >= 3 {
			return true
		}
	}
	return false
}

// entropy of the letters of a text, in bits a letter: English words have about 3 only when they are long, hexadecimal
// digits up to 4, Base64 up to 6.
func entropy(s string) (bits float64) {
	count := map[rune]float64{}
	for _, r := range s {
		count[r]++
	}
	for _, n := range count {
		p := n / float64(len(s))
		bits -= p * math.Log2(p)
	}
	return bits
}

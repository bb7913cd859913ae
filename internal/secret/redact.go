package secret

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

// Hidden is what stands in a log where a value was.
const Hidden = "***"

// Redactor takes values out of text. The zero value changes nothing; it is immutable and safe for concurrent use.
//
// It knows a value as it is, each line of one with several, and the spellings that programs make of it by themselves:
// quoted, in a URL, in Base64. It does not know what a program makes of it on purpose.
type Redactor struct {
	replace *strings.Replacer
	longest int
}

// NewRedactor hides values. Lines shorter than MinSize are left, they would hide ordinary text.
func NewRedactor(values ...[]byte) Redactor {
	var words []string
	add := func(s string) {
		if s = strings.TrimSpace(s); len(s) >= MinSize && !slices.Contains(words, s) {
			words = append(words, s)
		}
	}
	for _, v := range values {
		s := string(v)
		for line := range strings.Lines(s) {
			line = strings.TrimSpace(line)
			add(line)
			if quoted, err := json.Marshal(line); err == nil {
				add(strings.Trim(string(quoted), `"`))
			}
			add(url.QueryEscape(line))
			add(url.PathEscape(line))
		}
		for _, whole := range []string{s, strings.TrimSpace(s)} {
			add(base64.StdEncoding.EncodeToString([]byte(whole)))
			add(base64.URLEncoding.EncodeToString([]byte(whole)))
			add(base64.RawURLEncoding.EncodeToString([]byte(whole)))
		}
	}
	if len(words) == 0 {
		return Redactor{}
	}
	// The longest first: a value that begins like another must not leave its tail.
	slices.SortFunc(words, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	r := Redactor{longest: len(words[0])}
	var pairs []string
	for _, w := range words {
		pairs = append(pairs, w, Hidden)
	}
	r.replace = strings.NewReplacer(pairs...)
	return r
}

// Text is s without the values.
func (r Redactor) Text(s string) string {
	if r.replace == nil {
		return s
	}
	return r.replace.Replace(s)
}

// Cut takes the values out of a piece of a longer text and says up to where it may be shown: what follows that may be the
// beginning of a value that goes on in the next piece, and belongs in front of it.
func (r Redactor) Cut(piece string) (text, rest string) {
	text = r.Text(piece)
	if r.longest == 0 {
		return text, ""
	}
	at := max(0, len(text)-r.longest+1)
	return text[:at], text[at:]
}

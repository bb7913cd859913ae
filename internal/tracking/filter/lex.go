package filter

import "strings"

type kind int

const (
	word      kind = iota // identifier path, keyword: metrics.loss, tags.`a b`, AND
	text                  // '...'
	number                // 1, -0.5, 1e-3
	operator              // = != < <= > >= and other runs of <>=~!
	list                  // ( ... ), balanced, raw
	semicolon             // ;
	other                 // anything else, one rune
)

type token struct {
	kind kind
	raw  string
}

func (t token) is(keyword string) bool { return t.kind == word && strings.EqualFold(t.raw, keyword) }

func letter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// lex cuts a filter into tokens. It never fails: what it does not know becomes a token of kind other,
// which the parser reports by its text.
func lex(s string) []token {
	var out []token
	for i := 0; i < len(s); {
		c := s[i]
		start := i
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
			continue
		case c == ';':
			i++
			out = append(out, token{semicolon, ";"})
			continue
		case c == '\'':
			i = quoted(s, i)
			out = append(out, token{text, s[start:i]})
			continue
		case c == '(':
			i = balanced(s, i)
			out = append(out, token{list, s[start:i]})
			continue
		case letter(c) || c == '"' || c == '`':
			i = path(s, i)
			out = append(out, token{word, s[start:i]})
			continue
		case strings.IndexByte("<>=~!", c) >= 0:
			for i < len(s) && strings.IndexByte("<>=~!", s[i]) >= 0 {
				i++
			}
			out = append(out, token{operator, s[start:i]})
			continue
		}
		if n := numeral(s[i:]); n > 0 {
			i += n
			out = append(out, token{number, s[start:i]})
			continue
		}
		i++
		out = append(out, token{other, s[start:i]})
	}
	return out
}

// quoted returns the index behind the quoted text that starts at i; an unclosed quote ends with the string.
func quoted(s string, i int) int {
	q := s[i]
	for i++; i < len(s); i++ {
		if s[i] == q {
			if q == '\'' && i+1 < len(s) && s[i+1] == q { // '' stays inside, as in MLflow
				i++
				continue
			}
			return i + 1
		}
	}
	return i
}

func balanced(s string, i int) int {
	depth := 0
	for i < len(s) {
		switch s[i] {
		case '\'', '"', '`':
			i = quoted(s, i)
			continue
		case '(':
			depth++
		case ')':
			depth--
		}
		i++
		if depth == 0 {
			break
		}
	}
	return i
}

// path reads name, name.name, name."any text", name.`any text`.
func path(s string, i int) int {
	for i < len(s) {
		switch {
		case s[i] == '"' || s[i] == '`':
			i = quoted(s, i)
		case letter(s[i]) || digit(s[i]) && i > 0:
			for i < len(s) && (letter(s[i]) || digit(s[i])) {
				i++
			}
		default:
			return i
		}
		if i+1 < len(s) && s[i] == '.' && (letter(s[i+1]) || digit(s[i+1]) || s[i+1] == '"' || s[i+1] == '`') {
			i++
			continue
		}
		return i
	}
	return i
}

// numeral returns the length of the number at the start of s, 0 when there is none.
func numeral(s string) int {
	i := 0
	if i < len(s) && s[i] == '-' {
		i++
	}
	digits := 0
	for i < len(s) && digit(s[i]) {
		i, digits = i+1, digits+1
	}
	if i < len(s) && s[i] == '.' {
		i++
		for i < len(s) && digit(s[i]) {
			i, digits = i+1, digits+1
		}
	}
	if digits == 0 {
		return 0
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		j := i + 1
		if j < len(s) && (s[j] == '-' || s[j] == '+') {
			j++
		}
		if j < len(s) && digit(s[j]) {
			for j < len(s) && digit(s[j]) {
				j++
			}
			i = j
		}
	}
	if i < len(s) && letter(s[i]) {
		return 0
	}
	return i
}

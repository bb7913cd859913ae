package oip

import (
	"fmt"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads JSON in one pass over the body, because a general decoder spends most of an inference request on numbers.
// It accepts what encoding/json accepts, and NaN, Infinity and -Infinity as Python's json writes them. After an error it must not be used.
type scanner struct {
	b   []byte
	at  int
	buf []byte // for strings with escapes
}

// maxDepth bounds nesting in what is skipped and in tensor data.
const maxDepth = 32

type syntaxError struct {
	at  int
	why string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("%s at byte %d", e.why, e.at) }

func (s *scanner) bad(why string) error { return &syntaxError{s.at, why} }

func (s *scanner) space() {
	for s.at < len(s.b) {
		switch s.b[s.at] {
		case ' ', '\n', '\r', '\t':
			s.at++
		default:
			return
		}
	}
}

// peek is the next byte that is no space, 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	if s.at == len(s.b) {
		return 0
	}
	return s.b[s.at]
}

func (s *scanner) expect(c byte) error {
	if s.peek() != c {
		return s.bad("expected " + strconv.QuoteRune(rune(c)))
	}
	s.at++
	return nil
}

// object calls f for each key; f reads the value.
func (s *scanner) object(f func(key []byte) error) error {
	return s.list('{', '}', func() error {
		key, err := s.string()
		if err != nil {
			return err
		}
		if err := s.expect(':'); err != nil {
			return err
		}
		return f(key)
	})
}

// array calls f for each element; f reads it.
func (s *scanner) array(f func() error) error { return s.list('[', ']', f) }

func (s *scanner) list(open, end byte, f func() error) error {
	if err := s.expect(open); err != nil {
		return err
	}
	if s.peek() == end {
		s.at++
		return nil
	}
	for {
		if err := f(); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.at++
		case end:
			s.at++
			return nil
		default:
			return s.bad("expected ',' or " + strconv.QuoteRune(rune(end)))
		}
	}
}

// string reads a string. The bytes are valid until the next call.
func (s *scanner) string() ([]byte, error) {
	if err := s.expect('"'); err != nil {
		return nil, err
	}
	start := s.at
	for s.at < len(s.b) {
		switch c := s.b[s.at]; {
		case c == '"':
			out := s.b[start:s.at]
			s.at++
			if !utf8.Valid(out) {
				return nil, s.bad("a string is not UTF-8")
			}
			return out, nil
		case c == '\\':
			return s.escaped(start)
		case c < ' ':
			return nil, s.bad("a control character in a string")
		}
		s.at++
	}
	return nil, s.bad("a string has no end")
}

func (s *scanner) escaped(start int) ([]byte, error) {
	s.buf = append(s.buf[:0], s.b[start:s.at]...)
	for s.at < len(s.b) {
		c := s.b[s.at]
		s.at++
		switch {
		case c == '"':
			if !utf8.Valid(s.buf) {
				return nil, s.bad("a string is not UTF-8")
			}
			return s.buf, nil
		case c < ' ':
			return nil, s.bad("a control character in a string")
		case c != '\\':
			s.buf = append(s.buf, c)
			continue
		}
		if s.at == len(s.b) {
			break
		}
		c = s.b[s.at]
		s.at++
		switch c {
		case '"', '\\', '/':
			s.buf = append(s.buf, c)
		case 'b':
			s.buf = append(s.buf, '\b')
		case 'f':
			s.buf = append(s.buf, '\f')
		case 'n':
			s.buf = append(s.buf, '\n')
		case 'r':
			s.buf = append(s.buf, '\r')
		case 't':
			s.buf = append(s.buf, '\t')
		case 'u':
			r, err := s.hex4()
			if err != nil {
				return nil, err
			}
			if utf16.IsSurrogate(r) {
				low := rune(utf8.RuneError)
				if s.at+1 < len(s.b) && s.b[s.at] == '\\' && s.b[s.at+1] == 'u' {
					mark := s.at
					s.at += 2
					if low, err = s.hex4(); err != nil {
						return nil, err
					}
					if utf16.DecodeRune(r, low) == utf8.RuneError {
						s.at = mark
					}
				}
				r = utf16.DecodeRune(r, low)
			}
			s.buf = utf8.AppendRune(s.buf, r)
		default:
			return nil, s.bad("an unknown escape in a string")
		}
	}
	return nil, s.bad("a string has no end")
}

func (s *scanner) hex4() (rune, error) {
	if s.at+4 > len(s.b) {
		return 0, s.bad("a \\u escape is cut off")
	}
	var r rune
	for range 4 {
		c := s.b[s.at]
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, s.bad("a \\u escape needs four hex digits")
		}
		r = r<<4 | rune(c)
		s.at++
	}
	return r, nil
}

// pow10 are the powers of ten that a float64 holds exactly.
var pow10 = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// number reads a JSON number; null and NaN are a missing value. The result is the float64 nearest to the text, always:
// up to 2^53 and 22 decimal places one division of exact values is correctly rounded, the rest goes to strconv.
func (s *scanner) number() (float64, error) {
	switch s.peek() {
	case 'n':
		return math.NaN(), s.word("null")
	case 'N':
		return math.NaN(), s.word("NaN")
	case 'I':
		return math.Inf(1), s.word("Infinity")
	}
	start := s.at
	neg := false
	if s.at < len(s.b) && s.b[s.at] == '-' {
		neg = true
		if s.at++; s.at < len(s.b) && s.b[s.at] == 'I' {
			return math.Inf(-1), s.word("Infinity")
		}
	}
	var mantissa uint64
	digits, places := 0, 0
	first := s.at
	for ; s.at < len(s.b) && s.b[s.at]-'0' <= 9; s.at++ {
		mantissa = mantissa*10 + uint64(s.b[s.at]-'0') // may wrap: then digits > 19 and the value is not used
		digits++
	}
	if digits == 0 || digits > 1 && s.b[first] == '0' {
		s.at = start
		return 0, s.bad("expected a number")
	}
	plain := true
	if s.at < len(s.b) && s.b[s.at] == '.' {
		s.at++
		for ; s.at < len(s.b) && s.b[s.at]-'0' <= 9; s.at++ {
			mantissa = mantissa*10 + uint64(s.b[s.at]-'0')
			places++
		}
		if places == 0 {
			return 0, s.bad("a number ends with a point")
		}
	}
	if s.at < len(s.b) && (s.b[s.at] == 'e' || s.b[s.at] == 'E') {
		plain = false
		if s.at++; s.at < len(s.b) && (s.b[s.at] == '+' || s.b[s.at] == '-') {
			s.at++
		}
		exp := s.at
		for ; s.at < len(s.b) && s.b[s.at]-'0' <= 9; s.at++ {
		}
		if s.at == exp {
			return 0, s.bad("a number has an empty exponent")
		}
	}
	if plain && digits+places <= 19 && mantissa <= 1<<53 && places < len(pow10) {
		v := float64(mantissa) / pow10[places]
		if neg {
			v = -v
		}
		return v, nil
	}
	v, err := strconv.ParseFloat(string(s.b[start:s.at]), 64)
	if err != nil {
		return 0, s.bad("a number is out of range")
	}
	return v, nil
}

// integer reads a whole number that fits an int64.
func (s *scanner) integer() (int64, error) {
	s.space()
	start := s.at
	if s.at < len(s.b) && s.b[s.at] == '-' {
		s.at++
	}
	first := s.at
	for ; s.at < len(s.b) && s.b[s.at]-'0' <= 9; s.at++ {
	}
	if s.at == first || s.at-first > 1 && s.b[first] == '0' {
		return 0, s.bad("expected a whole number")
	}
	if s.at < len(s.b) && (s.b[s.at] == '.' || s.b[s.at] == 'e' || s.b[s.at] == 'E') {
		return 0, s.bad("expected a whole number")
	}
	v, err := strconv.ParseInt(string(s.b[start:s.at]), 10, 64)
	if err != nil {
		return 0, s.bad("a whole number is out of range")
	}
	return v, nil
}

func (s *scanner) bool() (bool, error) {
	if s.peek() == 't' {
		return true, s.word("true")
	}
	return false, s.word("false")
}

func (s *scanner) word(w string) error {
	if len(s.b)-s.at < len(w) || string(s.b[s.at:s.at+len(w)]) != w {
		return s.bad("expected " + w)
	}
	s.at += len(w)
	return nil
}

// skip reads any value.
func (s *scanner) skip(depth int) error {
	if depth > maxDepth {
		return s.bad("nested too deep")
	}
	var err error
	switch s.peek() {
	case '{':
		return s.object(func([]byte) error { return s.skip(depth + 1) })
	case '[':
		return s.array(func() error { return s.skip(depth + 1) })
	case '"':
		_, err = s.string()
	case 't', 'f':
		_, err = s.bool()
	case 0:
		err = s.bad("the text ends")
	default:
		_, err = s.number()
	}
	return err
}

// end says whether only space is left.
func (s *scanner) end() error {
	if s.peek() != 0 || s.at != len(s.b) {
		return s.bad("something follows the JSON text")
	}
	return nil
}

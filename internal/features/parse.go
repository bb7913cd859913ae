package features

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"falaj/internal/kernel/fault"
)

// The limits of an expression: enough for a list of all airports, too little to exhaust a stack.
const (
	maxExprBytes = 64 << 10
	maxExprDepth = 100
)

// ParseExpr reads an expression of the language of Expr. Anything else is refused with the place and what is allowed.
func ParseExpr(text string) (Expr, error) {
	p := &parser{in: text}
	fail := func(err error) (Expr, error) {
		f := fault.New(fault.Invalid,
			fmt.Sprintf("The expression '%s' is not one that falaj can compute the same way in training and in serving: %s.", short(text), err),
			"Use columns, numbers, + - * /, list_position(['a', 'b'], column), CASE with =, hour(), weekday(), month(); move anything else into a feature view's SQL.")
		f.Err = err
		return Expr{}, f
	}
	if len(text) > maxExprBytes {
		return fail(fmt.Errorf("it is longer than %d bytes", maxExprBytes))
	}
	p.next()
	root, err := p.sum(0)
	if err == nil && p.tok.kind != endToken {
		err = p.unexpected("the end")
	}
	if err == nil {
		err = root.columns(map[string]Type{})
	}
	if err != nil {
		return fail(err)
	}
	return Expr{root: root, text: text}, nil
}

func short(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}

type tokenKind int

const (
	endToken tokenKind = iota
	wordToken
	quotedToken // "name"
	textToken   // 'text'
	numberToken
	signToken
	badToken
)

type token struct {
	kind tokenKind
	text string
	at   int
}

type parser struct {
	in  string
	pos int
	tok token
}

func wordByte(c byte, first bool) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || !first && c >= '0' && c <= '9'
}

func (p *parser) next() {
	for p.pos < len(p.in) && strings.IndexByte(" \t\r\n", p.in[p.pos]) >= 0 {
		p.pos++
	}
	start := p.pos
	emit := func(k tokenKind, text string) { p.tok = token{k, text, start} }
	if p.pos == len(p.in) {
		emit(endToken, "")
		return
	}
	c := p.in[p.pos]
	switch {
	case wordByte(c, true):
		for p.pos < len(p.in) && wordByte(p.in[p.pos], false) {
			p.pos++
		}
		emit(wordToken, p.in[start:p.pos])
	case c >= '0' && c <= '9' || c == '.':
		for p.pos < len(p.in) && (p.in[p.pos] >= '0' && p.in[p.pos] <= '9' || strings.IndexByte(".eE", p.in[p.pos]) >= 0 ||
			strings.IndexByte("+-", p.in[p.pos]) >= 0 && strings.IndexByte("eE", p.in[p.pos-1]) >= 0) {
			p.pos++
		}
		emit(numberToken, p.in[start:p.pos])
	case c == '\'' || c == '"':
		var b strings.Builder
		for p.pos++; ; p.pos++ {
			if p.pos >= len(p.in) {
				emit(badToken, "an unclosed quote")
				return
			}
			if p.in[p.pos] == c {
				if p.pos+1 >= len(p.in) || p.in[p.pos+1] != c {
					break
				}
				p.pos++
			}
			b.WriteByte(p.in[p.pos])
		}
		p.pos++
		kind := textToken
		if c == '"' {
			kind = quotedToken
		}
		emit(kind, b.String())
	case strings.IndexByte("+-*/()[],=", c) >= 0:
		p.pos++
		emit(signToken, string(c))
	default:
		emit(badToken, fmt.Sprintf("%q", c))
	}
}

func (p *parser) unexpected(want string) error {
	what := "'" + short(p.tok.text) + "'"
	if p.tok.kind == endToken {
		what = "the end"
	}
	return fmt.Errorf("%s at character %d where %s is expected", what, p.tok.at+1, want)
}

func (p *parser) sign(s string) bool {
	if p.tok.kind == signToken && p.tok.text == s {
		p.next()
		return true
	}
	return false
}

func (p *parser) word(w string) bool {
	if p.tok.kind == wordToken && strings.EqualFold(p.tok.text, w) {
		p.next()
		return true
	}
	return false
}

func (p *parser) expect(s string) error {
	if !p.sign(s) {
		return p.unexpected("'" + s + "'")
	}
	return nil
}

func (p *parser) sum(depth int) (node, error) {
	if depth > maxExprDepth {
		return nil, fmt.Errorf("it is nested deeper than %d", maxExprDepth)
	}
	return p.chain("+-", depth, func(d int) (node, error) { return p.chain("*/", d, p.unary) })
}

// chain reads left-associative operators; a long chain counts as depth, since its tree is as deep as it is long.
func (p *parser) chain(ops string, depth int, operand func(int) (node, error)) (node, error) {
	left, err := operand(depth)
	for n := 0; err == nil && p.tok.kind == signToken && strings.Contains(ops, p.tok.text); n++ {
		if n > maxExprDepth {
			return nil, fmt.Errorf("it has more than %d operators in a row", maxExprDepth)
		}
		op := p.tok.text[0]
		p.next()
		var right node
		if right, err = operand(depth); err == nil {
			left = binaryNode{op, left, right}
		}
	}
	return left, err
}

func (p *parser) unary(depth int) (node, error) {
	if depth > maxExprDepth {
		return nil, fmt.Errorf("it is nested deeper than %d", maxExprDepth)
	}
	if p.sign("-") {
		if p.tok.kind == signToken && p.tok.text == "-" { // SQL reads -- as a comment
			return nil, p.unexpected("a value")
		}
		a, err := p.unary(depth + 1)
		return negateNode{a}, err
	}
	return p.primary(depth + 1)
}

func (p *parser) primary(depth int) (node, error) {
	switch p.tok.kind {
	case numberToken:
		v, err := p.number()
		return literalNode{v}, err
	case quotedToken:
		return p.columnRef()
	case signToken:
		if p.sign("(") {
			n, err := p.sum(depth)
			if err == nil {
				err = p.expect(")")
			}
			return n, err
		}
	case wordToken:
		switch strings.ToLower(p.tok.text) {
		case "case":
			p.next()
			return p.caseExpr(depth)
		case "when", "then", "else", "end", "null", "and", "or", "not", "in", "is", "select", "from":
			return nil, p.unexpected("a value")
		}
		name := p.tok.text
		p.next()
		if !p.sign("(") {
			return columnNode{name}, nil
		}
		return p.call(strings.ToLower(name))
	}
	return nil, p.unexpected("a value")
}

func (p *parser) number() (float64, error) {
	v, err := strconv.ParseFloat(p.tok.text, 64)
	if err != nil || math.IsInf(v, 0) || p.tok.text[len(p.tok.text)-1] == '.' {
		return 0, p.unexpected("a number")
	}
	p.next()
	return v, nil
}

func (p *parser) columnRef() (node, error) {
	name, err := p.column()
	return columnNode{name}, err
}

func (p *parser) column() (string, error) {
	if p.tok.kind != quotedToken && p.tok.kind != wordToken || p.tok.text == "" {
		return "", p.unexpected("a column")
	}
	name := p.tok.text
	p.next()
	return name, nil
}

func (p *parser) call(name string) (node, error) {
	switch name {
	case "hour", "weekday", "month":
		c, err := p.column()
		if err == nil {
			err = p.expect(")")
		}
		return partNode{name, c}, err
	case "list_position":
		return p.position()
	}
	return nil, fmt.Errorf("the function %s is not in the language", name)
}

func (p *parser) position() (node, error) {
	if err := p.expect("["); err != nil {
		return nil, err
	}
	n := positionNode{}
	for {
		c, err := p.constant()
		if err != nil {
			return nil, err
		}
		if slices.Contains(n.list, c) {
			return nil, fmt.Errorf("the list has %s twice", c)
		}
		if len(n.list) > 0 && n.list[0].isText != c.isText {
			return nil, fmt.Errorf("the list mixes text and numbers")
		}
		n.list = append(n.list, c)
		if p.sign("]") {
			break
		}
		if err := p.expect(","); err != nil {
			return nil, err
		}
	}
	if err := p.expect(","); err != nil {
		return nil, err
	}
	var err error
	if n.column, err = p.column(); err != nil {
		return nil, err
	}
	return n, p.expect(")")
}

func (p *parser) constant() (constant, error) {
	if p.tok.kind == textToken {
		c := constant{text: p.tok.text, isText: true}
		p.next()
		return c, nil
	}
	neg := p.sign("-")
	if p.tok.kind != numberToken {
		return constant{}, p.unexpected("a text or a number")
	}
	v, err := p.number()
	if neg {
		v = -v
	}
	return constant{number: v + 0}, err // + 0 turns -0 into 0: SQL has one zero
}

func (p *parser) caseExpr(depth int) (node, error) {
	if depth > maxExprDepth {
		return nil, fmt.Errorf("it is nested deeper than %d", maxExprDepth)
	}
	n, operand := caseNode{}, ""
	var err error
	if !(p.tok.kind == wordToken && strings.EqualFold(p.tok.text, "when")) {
		if operand, err = p.column(); err != nil {
			return nil, err
		}
	}
	for p.word("when") {
		w := when{column: operand}
		if operand == "" {
			if w.column, err = p.column(); err != nil {
				return nil, err
			}
			if err := p.expect("="); err != nil {
				return nil, err
			}
		}
		if w.equals, err = p.constant(); err != nil {
			return nil, err
		}
		if !p.word("then") {
			return nil, p.unexpected("THEN")
		}
		if w.then, err = p.sum(depth + 1); err != nil {
			return nil, err
		}
		n.whens = append(n.whens, w)
	}
	if len(n.whens) == 0 {
		return nil, p.unexpected("WHEN")
	}
	if p.word("else") {
		if n.otherwise, err = p.sum(depth + 1); err != nil {
			return nil, err
		}
	}
	if !p.word("end") {
		return nil, p.unexpected("END")
	}
	return n, nil
}

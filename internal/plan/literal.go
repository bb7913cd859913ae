package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"falaj/internal/kernel/fault"
	"falaj/internal/secret"
)

const literalNext = "Remove it, and change it wherever it is used: a copy may lie in Git already. Then give the new one to falaj secret set NAME, and write secrets: {NAME: secret://NAME} under train."

// literals finds what looks like a secret in the text itself: the file is kept, sent and shown, so none may stand in it.
// Values are judged with their keys, and each line alone, for the sake of comments.
func literals(data []byte, body ast.Node) []problem {
	var out []problem
	found := func(pos Position, path, what string) {
		if what == "" || len(out) >= maxProblems || slices.ContainsFunc(out, func(p problem) bool { return p.pos.Line == pos.Line }) {
			return
		}
		text := "This line holds " + what + "; secrets never stand in falaj.yaml."
		if path != "" {
			text = fmt.Sprintf("%s holds %s; secrets never stand in falaj.yaml.", path, what)
		}
		out = append(out, problem{pos, path, fault.Invalid, text, literalNext})
	}
	var walk func(n ast.Node, key, path string, depth int)
	walk = func(n ast.Node, key, path string, depth int) {
		if depth > 2*maxDepth { // the decoder refuses it
			return
		}
		switch t := n.(type) {
		case *ast.MappingNode:
			for _, e := range t.Values {
				walk(e, key, path, depth+1)
			}
		case *ast.MappingValueNode:
			if k := t.Key.GetToken(); k != nil {
				walk(t.Value, k.Value, join(path, k.Value), depth+1)
			}
		case *ast.SequenceNode:
			for _, e := range t.Values {
				walk(e, key, path, depth+1)
			}
		default:
			if s, ok := text(n); ok {
				found(positionOf(n), path, secret.Literal(key, s))
			}
		}
	}
	walk(body, "", "", 0)
	for i, line := range strings.Split(string(data), "\n") {
		found(Position{i + 1, 1}, "", secret.Literal("", line))
	}
	return out
}

// CheckParams refuses parameters of a run that look like secrets: they are recorded and shown.
func CheckParams(params map[string]string) error {
	for _, k := range sorted(params) {
		if what := secret.Literal(k, params[k]); what != "" {
			return fault.New(fault.Invalid, fmt.Sprintf("The parameter %s holds %s; parameters are recorded and shown.", k, what), literalNext).At("params." + k)
		}
	}
	return nil
}

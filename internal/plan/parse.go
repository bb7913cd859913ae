// Package plan reads falaj.yaml, says what would change, does it and runs it, and owns every workflow that crosses stages.
// The file is read strictly: an unknown key, a reference to nothing or a promise that this version cannot keep is an error with its line, never ignored.
package plan

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"falaj/internal/kernel/fault"
)

// MaxFile is the largest falaj.yaml in bytes. Together with the limits below it keeps the YAML library, whose time and
// memory grow with the square of some texts and whose recursion with the brackets, far from harm: a file of 3000 lines
// (25 models) takes 25 ms, the worst within the limits well below a second.
const MaxFile = 256 << 10

const (
	maxLines = 6000
	maxLine  = 4000 // bytes
	maxOpen  = 64   // brackets open at once
)

// outsize says what of the text is too much, or "".
func outsize(data []byte) (Position, string) {
	if len(data) > MaxFile {
		return Position{1, 1}, fmt.Sprintf("The file is larger than %d KiB", MaxFile>>10)
	}
	line, start, open := 1, 0, 0
	for i, c := range data {
		switch c {
		case '\n', '\r':
			line, start = line+1, i+1
		case '[', '{':
			open++
		case ']', '}':
			open = max(open-1, 0)
		}
		switch {
		case line > maxLines:
			return Position{line, 1}, fmt.Sprintf("The file has more than %d lines", maxLines)
		case i-start >= maxLine:
			return Position{line, 1}, fmt.Sprintf("The line is longer than %d bytes", maxLine)
		case open > maxOpen:
			return Position{line, i - start + 1}, fmt.Sprintf("More than %d brackets are open", maxOpen)
		}
	}
	return Position{}, ""
}

// Parse reads the text of a falaj.yaml and checks all that can be checked without the files it names. The error is one
// fault that names every problem with its line and column, the first one's path in Field; it is fault.Unsupported when
// all that is wrong is what this version does not do yet.
func Parse(data []byte) (*Project, error) {
	p, problems := parse(data)
	if err := report("falaj.yaml", problems); err != nil {
		return nil, err
	}
	return p, nil
}

func parse(data []byte) (*Project, []problem) {
	one := func(pos Position, format string, args ...any) []problem {
		return []problem{{pos, "", fault.Invalid, fmt.Sprintf(format, args...), "The shape of falaj.yaml is in docs/falaj.schema.json."}}
	}
	if pos, say := outsize(data); say != "" {
		return nil, one(pos, "%s.", say)
	}
	if i := slices.IndexFunc([]byte(data), func(b byte) bool { return b == 0 }); i >= 0 || !validText(data) {
		return nil, one(Position{1, 1}, "The file is not UTF-8 text.")
	}
	file, err := parseTree(data)
	if err != nil {
		var syntax yaml.Error
		if errors.As(err, &syntax) {
			pos := place(syntax.GetToken())
			return nil, one(pos, "The file is not valid YAML: %s.", strings.TrimSuffix(syntax.GetMessage(), "."))
		}
		return nil, one(Position{1, 1}, "The file is not valid YAML.")
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			return nil, one(positionOf(doc.Body), "The file holds more than one YAML document.")
		}
		body = doc.Body
	}
	switch body.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
	case nil, *ast.CommentGroupNode:
		return nil, one(Position{1, 1}, "The file is empty.")
	default:
		return nil, one(positionOf(body), "The file is a mapping that begins with project: NAME.")
	}
	if found := literals(data, body); len(found) > 0 {
		return nil, found // alone: what else is wrong would be said with the texts of the file
	}
	d := &decoder{at: map[string]Position{}}
	p := &Project{at: d.at}
	d.value(body, reflect.ValueOf(p).Elem(), "", 0)
	if len(d.problems) == 0 {
		p.defaults()
		p.check(d)
	}
	return p, d.problems
}

// parseTree keeps a panic of the YAML library on hostile input from being ours.
func parseTree(data []byte) (f *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: %v", r)
		}
	}()
	return parser.ParseBytes(data, 0)
}

// report makes one fault of all problems, in the order of the file.
func report(file string, problems []problem) error {
	if len(problems) == 0 {
		return nil
	}
	slices.SortStableFunc(problems, func(a, b problem) int {
		if a.pos.Line != b.pos.Line {
			return a.pos.Line - b.pos.Line
		}
		return a.pos.Column - b.pos.Column
	})
	kind := fault.Unsupported
	lines := make([]string, len(problems))
	for i, p := range problems {
		lines[i] = fmt.Sprintf("%s:%d:%d: %s", file, p.pos.Line, p.pos.Column, p.text)
		if p.kind != fault.Unsupported {
			kind = p.kind
		}
		if i > 0 && p.next != "" {
			lines[i] += " " + p.next
		}
	}
	next := problems[0].next
	if next == "" {
		next = "Correct " + file + "; its shape is in docs/falaj.schema.json."
	}
	return fault.New(kind, strings.Join(lines, "\n"), next).At(problems[0].path)
}

// defaults fills in what the file leaves out, so that every reader sees the same values.
func (p *Project) defaults() {
	if p.Environments == nil {
		p.Environments = DefaultEnvironments()
	}
	or := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	for name, ds := range p.Datasets {
		if ds.Contract != nil {
			or(&ds.Contract.OnViolation, "quarantine")
		}
		p.Datasets[name] = ds
	}
	for name, v := range p.Features {
		if v.SQL != "" {
			or(&v.Time.Event, "event_at")
		}
		p.Features[name] = v
	}
	for name, m := range p.Models {
		or(&m.Train.Label, "label")
		or(&m.Train.Time.Event, "at")
		or(&m.Serve.Profile, "cpu")
		if d := m.Monitor.Drift; d != nil {
			or(&d.Against, "training")
			or(&d.Weigh, "importance")
			or(&d.Method, "psi")
			if d.Threshold == nil {
				v := 0.2
				d.Threshold = &v
			}
			if d.Window == 0 {
				d.Window = Duration(14 * day)
			}
		}
		if q := m.Monitor.Quality; q != nil {
			or(&q.Against, "challenger")
		}
		or(&m.Retrain.Then, "challenge")
		for env, gates := range m.Gates {
			for i := range gates {
				if gates[i].Kind == "beats" && gates[i].Metric == "" && m.Monitor.Quality != nil {
					gates[i].Metric = m.Monitor.Quality.Metric
				}
			}
			m.Gates[env] = gates
		}
		p.Models[name] = m
	}
}

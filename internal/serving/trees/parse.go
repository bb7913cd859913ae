package trees

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// Limits of a file. LightGBM itself caps num_leaves at 131072; the rest is far above any model seen.
const (
	maxBytes    = 1 << 30
	maxLine     = 64 << 20
	maxBlock    = 128 << 20 // one tree of maxLeaves takes about 40 MB of text
	maxFeatures = 1 << 20
	maxClasses  = 1 << 14
	maxTrees    = 1 << 20
	maxLeaves   = 131072
)

// Parse reads a LightGBM text model, format v3 or v4, as Booster.save_model writes it.
// The error matches ErrUnsupported (a key this engine does not evaluate, named), ErrMalformed (broken, cut off or over the limits), or is the reader's own.
func Parse(r io.Reader) (*Model, error) {
	limited := &io.LimitedReader{R: r, N: maxBytes + 1}
	p := &parser{in: bufio.NewScanner(limited), model: &Model{}}
	p.in.Buffer(make([]byte, 0, 64<<10), maxLine)
	err := p.run()
	if limited.N <= 0 {
		return nil, p.bad("the file is larger than %d bytes", maxBytes)
	}
	if err != nil {
		return nil, err
	}
	return p.model, nil
}

type parser struct {
	in    *bufio.Scanner
	line  int
	model *Model
	sizes int // number of tree_sizes = number of trees announced
}

func (p *parser) bad(format string, a ...any) error {
	return &MalformedError{Line: p.line, Why: fmt.Sprintf(format, a...)}
}

func (p *parser) unsupported(key, format string, a ...any) error {
	return &UnsupportedError{Key: key, Line: p.line, Why: fmt.Sprintf(format, a...)}
}

// next gives the next line without its end, or io.EOF.
func (p *parser) next() (string, error) {
	if p.in.Scan() {
		p.line++
		return strings.TrimSuffix(p.in.Text(), "\r"), nil
	}
	if err := p.in.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			return "", p.bad("a line is longer than %d bytes", maxLine)
		}
		return "", err
	}
	return "", io.EOF
}

func (p *parser) run() error {
	if l, err := p.next(); err != nil && err != io.EOF {
		return err
	} else if l != "tree" {
		return p.bad("the first line is not \"tree\"")
	}
	header, last, err := p.block()
	if err != nil {
		return err
	}
	if err := p.header(header); err != nil {
		return err
	}
	for i := 0; ; i++ {
		if last == "end of trees" {
			if i != p.sizes {
				return p.bad("%d trees, but tree_sizes announces %d", i, p.sizes)
			}
			break
		}
		if last != "Tree="+strconv.Itoa(i) {
			return p.bad("expected Tree=%d or \"end of trees\", found %q", i, clip(last))
		}
		if i >= p.sizes {
			return p.bad("more trees than the %d that tree_sizes announces", p.sizes)
		}
		var b block
		if b, last, err = p.block(); err != nil {
			return err
		}
		if err := p.tree(b); err != nil {
			return err
		}
	}
	m := p.model
	if len(m.trees)%m.outputs != 0 {
		return p.bad("%d trees are not a multiple of num_tree_per_iteration=%d", len(m.trees), m.outputs)
	}
	if m.iterations = len(m.trees) / m.outputs; m.iterations == 0 {
		return p.bad("the model holds no tree")
	}
	return p.trailer()
}

// block is the key=value lines up to a line that is none, with the line number of each key.
type block struct {
	keys  []string // in the order of the file, so that an error names the first culprit
	value map[string]string
	line  map[string]int
}

// block reads key=value lines and bare flags; it stops at, and returns, "Tree=i" or "end of trees".
func (p *parser) block() (block, string, error) {
	b := block{value: map[string]string{}, line: map[string]int{}}
	size := 0
	for {
		l, err := p.next()
		if err == io.EOF {
			return b, "", p.bad("the file ends before \"end of trees\"")
		}
		if err != nil {
			return b, "", err
		}
		if l == "" {
			continue
		}
		if l == "end of trees" || strings.HasPrefix(l, "Tree=") {
			return b, l, nil
		}
		k, v, _ := strings.Cut(l, "=")
		if _, twice := b.value[k]; twice {
			return b, "", p.bad("key %q stands twice", clip(k))
		}
		if size += len(l); size > maxBlock || len(b.value) > 64 {
			return b, "", p.bad("a block has more than 64 keys or %d bytes", maxBlock)
		}
		b.keys = append(b.keys, k)
		b.value[k], b.line[k] = v, p.line
	}
}

func (p *parser) header(b block) error {
	m := p.model
	for _, k := range b.keys {
		switch k {
		case "version", "num_class", "num_tree_per_iteration", "label_index", "max_feature_idx", "objective",
			"average_output", "feature_names", "monotone_constraints", "feature_infos", "tree_sizes":
		default:
			p.line = b.line[k]
			return p.unsupported(clip(k), "unknown key in the header")
		}
	}
	if v := b.value["version"]; v != "v3" && v != "v4" {
		p.line = b.line["version"]
		return p.unsupported("version", "format %q, known are v3 and v4", clip(v))
	}
	classes, err := p.int(b, "num_class", 1, maxClasses)
	if err != nil {
		return err
	}
	if m.outputs, err = p.int(b, "num_tree_per_iteration", 1, maxClasses); err != nil {
		return err
	}
	if classes != m.outputs {
		return p.unsupported("num_tree_per_iteration", "%d, but num_class is %d", m.outputs, classes)
	}
	top, err := p.int(b, "max_feature_idx", 0, maxFeatures-1)
	if err != nil {
		return err
	}
	if v, ok := b.value["average_output"]; ok {
		if p.line = b.line["average_output"]; v != "" {
			return p.unsupported("average_output", "a value %q where the flag has none", clip(v))
		}
		m.average = true
	}
	if m.names, err = p.fields(b, "feature_names", top+1); err != nil {
		return err
	}
	m.gain, m.split = make([]float64, len(m.names)), make([]float64, len(m.names))
	if line, ok := b.value["objective"]; ok {
		var why string
		p.line = b.line["objective"]
		if m.finish, why = transform(line, m.outputs); why != "" {
			return p.unsupported("objective", "%s", clip(why))
		}
		m.objective = line
	}
	p.line = b.line["tree_sizes"]
	for range strings.FieldsSeq(b.value["tree_sizes"]) {
		p.sizes++
	}
	if p.sizes == 0 || p.sizes > maxTrees {
		return p.bad("tree_sizes announces %d trees, allowed are 1 to %d", p.sizes, maxTrees)
	}
	return nil
}

// trailer reads what follows the trees: importances and parameters change no prediction, a pandas category mapping does.
func (p *parser) trailer() error {
	inside := ""
	for {
		l, err := p.next()
		if err == io.EOF {
			if inside == "parameters:" {
				return p.bad("the file ends inside its parameters")
			}
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case l == "":
		case l == "feature_importances:" || l == "parameters:":
			inside = l
		case l == "end of parameters" && inside == "parameters:":
			inside = ""
		case inside == "feature_importances:" && strings.Contains(l, "="):
		case inside == "parameters:" && strings.HasPrefix(l, "[") && strings.HasSuffix(l, "]"):
		case strings.HasPrefix(l, "pandas_categorical:"):
			inside = ""
			if v := strings.TrimPrefix(l, "pandas_categorical:"); v != "null" && v != "[]" {
				return p.unsupported("pandas_categorical", "the caller's columns are to be mapped to category codes first")
			}
		default:
			key, _, _ := strings.Cut(l, "=")
			return p.unsupported(clip(key), "unknown line after the trees")
		}
	}
}

func (p *parser) int(b block, key string, low, high int) (int, error) {
	v, ok := b.value[key]
	if l := b.line[key]; l > 0 {
		p.line = l
	}
	if !ok {
		return 0, p.bad("key %s is missing", key)
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < low || n > high {
		return 0, p.bad("%s=%q is not a whole number from %d to %d", key, clip(v), low, high)
	}
	return n, nil
}

// floats parses want numbers; bits is 32 where LightGBM keeps a float32.
func (p *parser) floats(b block, key string, want, bits int) ([]float64, error) {
	fields, err := p.fields(b, key, want)
	if err != nil {
		return nil, err
	}
	out := make([]float64, len(fields))
	for i, f := range fields {
		if strings.ContainsAny(f, "xX_pP") { // Go's spellings, not LightGBM's
			return nil, p.bad("%s: %q is not a number", key, clip(f))
		}
		v, err := strconv.ParseFloat(f, bits)
		if err != nil && !(errors.Is(err, strconv.ErrRange) && bits == 32) || math.IsNaN(v) {
			return nil, p.bad("%s: %q is not a number", key, clip(f))
		}
		out[i] = v
	}
	return out, nil
}

func (p *parser) ints(b block, key string, want, low, high int) ([]int32, error) {
	fields, err := p.fields(b, key, want)
	if err != nil {
		return nil, err
	}
	out := make([]int32, len(fields))
	for i, f := range fields {
		v, err := strconv.Atoi(f)
		if err != nil || v < low || v > high {
			return nil, p.bad("%s: %q is not a whole number from %d to %d", key, clip(f), low, high)
		}
		out[i] = int32(v)
	}
	return out, nil
}

// fields splits a value into exactly want words; it stops at the first one too many, so that a long line costs no more memory than itself.
func (p *parser) fields(b block, key string, want int) ([]string, error) {
	v, ok := b.value[key]
	if !ok {
		return nil, p.bad("key %s is missing", key)
	}
	p.line = b.line[key]
	var fields []string
	for f := range strings.FieldsSeq(v) {
		if len(fields) == want {
			return nil, p.bad("%s has more than the %d values expected", key, want)
		}
		fields = append(fields, f)
	}
	if len(fields) < want {
		return nil, p.bad("%s has %d values, expected %d", key, len(fields), want)
	}
	return fields, nil
}

// clip keeps a hostile line out of an error message.
func clip(s string) string {
	if len(s) > 60 {
		return string(bytes.ToValidUTF8([]byte(s[:60]), nil)) + "..."
	}
	return s
}

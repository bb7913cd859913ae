package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// gateShape is one kind of gate: its first key with the value that key must have ("" for a free one), the keys beside it,
// and an example that people see.
type gateShape struct {
	kind    string
	value   string
	beside  []string
	example string
	doc     string
}

func gateShapes() []gateShape {
	return []gateShape{
		{"tests", "passed", nil, "{tests: passed}", "All suites under tests pass on the packaged release."},
		{"metric", "", []string{"min", "max"}, "{metric: test_auc, min: 0.65}", "A metric of the training run is at least min and at most max."},
		{"beats", "champion", []string{"on", "metric"}, "{beats: champion, on: latest_labelled_window}", "Better than what serves now, on the newest window whose labels have come."},
		{"parity", "offline_online", nil, "{parity: offline_online}", "Features looked up online equal those joined offline."},
		{"scan", "clean", nil, "{scan: clean}", "The model's files are of known, safe formats."},
		{"latency_p99_ms", "", nil, "{latency_p99_ms: 20}", "99 of 100 predictions are answered within so many milliseconds."},
		{"approval", "", nil, "{approval: {group: ml-risk, not: author}}", "A member of the group, other than the author, approves."},
	}
}

func (g *Gate) decode(d *decoder, n ast.Node, path string) {
	m, ok := n.(*ast.MappingNode)
	if !ok || len(m.Values) == 0 {
		d.bad(positionOf(n), path, "A gate is a mapping such as {metric: test_auc, min: 0.65}.")
		return
	}
	values := map[string]ast.Node{}
	var keys []string
	for _, e := range m.Values {
		k, ok := d.key(e, path)
		if !ok {
			return
		}
		d.at[join(path, k)] = positionOf(e.Key)
		if values[k] != nil {
			d.bad(positionOf(e.Key), path, "%s is written twice.", k)
			return
		}
		values[k] = e.Value
		keys = append(keys, k)
	}
	shapes := gateShapes()
	i := slices.IndexFunc(shapes, func(s gateShape) bool { return s.kind == keys[0] })
	for _, s := range shapes { // beats has a metric beside it
		if s.kind == "beats" && values["beats"] != nil {
			i = slices.IndexFunc(shapes, func(o gateShape) bool { return o.kind == "beats" })
		}
	}
	if i < 0 {
		for _, k := range keys {
			if j := slices.IndexFunc(shapes, func(s gateShape) bool { return s.kind == k }); j >= 0 {
				i = j
			}
		}
	}
	if i < 0 {
		fields := make([]field, len(shapes))
		for j, s := range shapes {
			fields[j] = field{key: s.kind}
		}
		d.unknown(positionOf(m.Values[0].Key), path, keys[0], fields)
		return
	}
	s := shapes[i]
	g.Kind = s.kind
	for _, k := range keys {
		if k != s.kind && !slices.Contains(s.beside, k) {
			d.bad(d.at[join(path, k)], join(path, k), "'%s' does not belong to a %s gate; it looks like %s.", k, s.kind, s.example)
		}
	}
	g.fill(d, s, values, path)
}

func (g *Gate) fill(d *decoder, s gateShape, values map[string]ast.Node, path string) {
	main := values[s.kind]
	word, _ := text(main)
	if s.value != "" && word != s.value {
		d.bad(positionOf(main), join(path, s.kind), "A %s gate looks like %s.", s.kind, s.example)
	}
	num := func(k string) *float64 {
		n, ok := values[k]
		if !ok {
			return nil
		}
		f, ok := number(n, mustText(n))
		if !ok {
			d.bad(positionOf(n), join(path, k), "%s is a number, not '%s'.", k, mustText(n))
			return nil
		}
		return &f
	}
	switch s.kind {
	case "metric":
		g.Metric, g.Min, g.Max = word, num("min"), num("max")
		if word == "" {
			d.bad(positionOf(main), path, "A metric gate names a metric: %s.", s.example)
		}
		if values["min"] == nil && values["max"] == nil {
			d.bad(positionOf(main), path, "A metric gate needs min or max: %s.", s.example)
		}
		if g.Min != nil && g.Max != nil && *g.Min > *g.Max {
			d.bad(positionOf(values["min"]), path, "min %v is above max %v.", *g.Min, *g.Max)
		}
	case "beats":
		g.On = "latest_labelled_window"
		if n, ok := values["on"]; ok {
			if got, _ := text(n); got != g.On {
				d.bad(positionOf(n), join(path, "on"), "A beats gate compares on latest_labelled_window.")
			}
		}
		if n, ok := values["metric"]; ok {
			if g.Metric, _ = text(n); !slices.Contains(QualityMetrics(), g.Metric) {
				d.bad(positionOf(n), join(path, "metric"), "A beats gate compares by %s.", strings.Join(QualityMetrics(), ", "))
			}
		}
	case "latency_p99_ms":
		if g.Max = num(s.kind); g.Max != nil && *g.Max <= 0 {
			d.bad(positionOf(main), path, "latency_p99_ms is above 0.")
		}
	case "approval":
		g.approval(d, main, join(path, s.kind), s.example)
	}
}

func (g *Gate) approval(d *decoder, n ast.Node, path, example string) {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		d.bad(positionOf(n), path, "An approval gate looks like %s.", example)
		return
	}
	for _, e := range m.Values {
		k, _ := d.key(e, path)
		v, _ := text(e.Value)
		switch {
		case k == "group" && v != "":
			g.Group = v
		case k == "not" && v == "author":
			g.NotAuthor = true
		default:
			d.bad(positionOf(e.Key), path, "An approval gate looks like %s.", example)
		}
	}
	if g.Group == "" {
		d.bad(positionOf(n), path, "An approval gate names a group: %s.", example)
	}
}

func mustText(n ast.Node) string {
	s, ok := text(n)
	if !ok {
		return fmt.Sprintf("a %s", strings.ToLower(n.Type().String()))
	}
	return s
}

// QualityMetrics are the figures that labelled windows are judged by.
func QualityMetrics() []string { return []string{"auc", "brier", "log_loss"} }

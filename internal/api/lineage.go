package api

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"falaj/internal/data"
	"falaj/internal/delivery"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/note"
	"falaj/internal/lineage"
)

// Lineage is a drawing in pixels, left to right.
type Lineage struct {
	Focus     string        `json:"focus"`
	Width     int           `json:"width"`
	Height    int           `json:"height"`
	Nodes     []LineageNode `json:"nodes"`
	Edges     []LineageEdge `json:"edges"`
	Truncated bool          `json:"truncated"`
}

// LineageNode is one box; Key is what focus= takes.
type LineageNode struct {
	Key   string     `json:"key"`
	X     int        `json:"x"`
	Y     int        `json:"y"`
	W     int        `json:"w"`
	H     int        `json:"h"`
	Kind  string     `json:"kind"`
	Label string     `json:"label"`
	Sub   *note.Note `json:"sub"`
	Ref   note.Ref   `json:"ref"`
	State string     `json:"state" enum:"ok,warn,bad,"`
}

// LineageEdge is one line.
type LineageEdge struct {
	From   string   `json:"from"`
	To     string   `json:"to"`
	Points [][2]int `json:"points"`
}

type lineageIn struct {
	InProject
	Focus string `query:"focus" doc:"kind:id or kind:id@version; empty: the releases in the last environment"`
	Depth int    `query:"depth" default:"4" minimum:"1" maximum:"12"`
}

// versionKey is the lineage id of a version, in the spelling that pipelines record.
func versionKey(kind, name string, version int64) string {
	return fmt.Sprintf("%s:%s@%d", kind, name, version)
}

// splitKey takes a lineage id apart; version is nil where the part after @ is no number.
func splitKey(id string) (kind, name string, version *int64) {
	kind, name, _ = strings.Cut(id, ":")
	if at := strings.LastIndexByte(name, '@'); at > 0 {
		if n, err := strconv.ParseInt(name[at+1:], 10, 64); err == nil {
			return kind, name[:at], &n
		}
	}
	return kind, name, nil
}

const maxLabel = 28

func (a *API) lineage(ctx context.Context, in *lineageIn) (*Out[Lineage], error) {
	f, err := a.fleet(ctx, in.Project, "")
	if err != nil {
		return nil, err
	}
	v := &view{api: a, ctx: ctx, project: in.Project, fleet: f, rows: map[string]string{}, versions: map[string][]data.Version{}, last: map[string]string{}}
	for model := range f.pointers {
		envs, err := a.environments(ctx, in.Project, model)
		if err != nil {
			return nil, err
		}
		v.last[model] = envs[len(envs)-1]
	}
	g, err := v.graph(in.Focus, in.Depth)
	if err != nil {
		return nil, err
	}
	d := lineage.Layout(g)
	out := Lineage{Focus: g.Focus, Width: d.Width, Height: d.Height, Nodes: []LineageNode{}, Edges: []LineageEdge{}, Truncated: d.Truncated}
	for _, b := range d.Boxes {
		n, err := v.node(b)
		if err != nil {
			return nil, err
		}
		out.Nodes = append(out.Nodes, n)
	}
	for _, l := range d.Lines {
		out.Edges = append(out.Edges, LineageEdge{l.From, l.To, l.Points})
	}
	return answer(out), nil
}

// view gathers one drawing.
type view struct {
	api      *API
	ctx      context.Context
	project  string
	fleet    *fleet
	last     map[string]string         // last environment by model
	rows     map[string]string         // label of the training set by run
	versions map[string][]data.Version // by dataset
}

// graph is what is recorded around a focus, without training sets and with changes and deployments.
func (v *view) graph(focus string, depth int) (lineage.Graph, error) {
	out := lineage.Graph{Project: v.project}
	roots, focus, err := v.roots(focus)
	if err != nil {
		return out, err
	}
	out.Focus = focus
	if len(roots) == 0 { // nothing serves yet: the newest things of the project
		g, err := v.api.Lineage.Graph(v.ctx, v.project, "", 0)
		if err != nil {
			return out, err
		}
		g = v.contract(g)
		g.Focus = focus
		return v.deploy(g), nil
	}
	nodes, edges := map[string]bool{}, map[lineage.Edge]bool{}
	for _, root := range roots {
		g, err := v.api.Lineage.Graph(v.ctx, v.project, root, depth+2) // a training set is no step of its own, and one more tells whether there is more
		if fault.Is(err, fault.NotFound) && len(roots) > 1 {
			continue // registered by a client: nobody knows what it was made of
		}
		if err != nil {
			return out, err
		}
		g = within(v.contract(g), root, depth)
		out.Truncated = out.Truncated || g.Truncated
		for _, n := range g.Nodes {
			if !nodes[n.ID] && len(out.Nodes) < lineage.MaxNodes {
				nodes[n.ID] = true
				out.Nodes = append(out.Nodes, n)
			}
		}
		for _, e := range g.Edges {
			if !edges[e] {
				edges[e] = true
				out.Edges = append(out.Edges, e)
			}
		}
	}
	out.Truncated = out.Truncated || len(out.Nodes) == lineage.MaxNodes
	return v.deploy(out), nil
}

// roots turns a focus into recorded nodes, and spells it as a node of the drawing.
func (v *view) roots(focus string) ([]string, string, error) {
	kind, name, version := splitKey(focus)
	lost := fault.New(fault.NotFound, fmt.Sprintf("The lineage of project %s has no '%s'.", v.project, focus), "Take the focus from a box of the drawing, e.g. dataset_version:flights@3.").At("focus")
	switch {
	case focus == "":
		var out []string
		for model, last := range v.last {
			if p, ok := v.fleet.pointer(model, last, delivery.Champion); ok {
				out = append(out, versionKey("model_version", model, p.Version))
			}
		}
		slices.Sort(out)
		return out, "", nil
	case kind == "deployment":
		at := strings.LastIndexByte(name, '@')
		if at < 0 {
			return nil, focus, lost
		}
		p, ok := v.fleet.pointer(name[:at], name[at+1:], delivery.Champion)
		if !ok {
			return nil, focus, lost
		}
		return []string{versionKey("model_version", p.Model, p.Version)}, focus, nil
	case kind == "change":
		c, err := v.api.Delivery.Change(v.ctx, v.project, name)
		if err != nil {
			return nil, focus, err
		}
		return []string{versionKey("model_version", c.Model, c.ToVersion)}, focus, nil
	case kind == "release":
		r, ok := v.fleet.release[name]
		if !ok {
			return nil, focus, lost
		}
		key := versionKey("model_version", r.Model, r.Number)
		return []string{key}, key, nil
	case kind == "model" && version == nil:
		if len(v.fleet.versions[name]) == 0 {
			return nil, focus, lost
		}
		n := v.fleet.versions[name][0].Number
		if p, ok := v.fleet.pointer(name, v.last[name], delivery.Champion); ok {
			n = p.Version
		}
		key := versionKey("model_version", name, n)
		return []string{key}, key, nil
	case kind == "dataset" && version == nil:
		d, err := v.api.Data.Dataset(v.ctx, v.project, name)
		if err != nil {
			return nil, focus, err
		}
		if d.Latest == nil {
			return nil, focus, lost
		}
		key := versionKey("dataset_version", name, d.Latest.N)
		return []string{key}, key, nil
	}
	return []string{focus}, focus, nil
}

// contract joins what a training set was made of directly to the runs that learned from it, and keeps its label for them.
func (v *view) contract(g lineage.Graph) lineage.Graph {
	from, to, label := map[string][]string{}, map[string][]string{}, map[string]string{}
	out := g
	out.Nodes, out.Edges = nil, nil
	for _, n := range g.Nodes {
		if n.Kind == lineage.TrainingSet {
			label[n.ID] = n.Label
		} else {
			out.Nodes = append(out.Nodes, n)
		}
	}
	for _, e := range g.Edges {
		_, cut1 := label[e.From]
		_, cut2 := label[e.To]
		switch {
		case cut1:
			to[e.From] = append(to[e.From], e.To)
			v.rows[e.To] = label[e.From]
		case cut2:
			from[e.To] = append(from[e.To], e.From)
		default:
			out.Edges = append(out.Edges, e)
		}
	}
	for set, runs := range to {
		for _, run := range runs {
			for _, made := range from[set] {
				out.Edges = append(out.Edges, lineage.Edge{From: made, To: run, Role: "joined"})
			}
		}
	}
	slices.SortFunc(out.Edges, func(a, b lineage.Edge) int {
		if c := strings.Compare(a.From, b.From); c != 0 {
			return c
		}
		return strings.Compare(a.To, b.To)
	})
	return out
}

// within keeps what is at most depth edges up or down from root.
func within(g lineage.Graph, root string, depth int) lineage.Graph {
	keep := map[string]bool{root: true}
	for _, up := range []bool{true, false} {
		next := map[string][]string{}
		for _, e := range g.Edges {
			if up {
				next[e.To] = append(next[e.To], e.From)
			} else {
				next[e.From] = append(next[e.From], e.To)
			}
		}
		layer := []string{root}
		seen := map[string]bool{root: true}
		for range depth {
			var ring []string
			for _, id := range layer {
				for _, n := range next[id] {
					if !seen[n] {
						seen[n], keep[n] = true, true
						ring = append(ring, n)
					}
				}
			}
			layer = ring
		}
	}
	n := len(g.Nodes)
	g.Nodes = slices.DeleteFunc(g.Nodes, func(n lineage.Node) bool { return !keep[n.ID] })
	g.Truncated = g.Truncated || len(g.Nodes) < n
	g.Edges = slices.DeleteFunc(g.Edges, func(e lineage.Edge) bool { return !keep[e.From] || !keep[e.To] })
	return g
}

// deploy adds where the model versions of the drawing serve, and the change that brought each there.
func (v *view) deploy(g lineage.Graph) lineage.Graph {
	there := map[string]bool{}
	for _, n := range g.Nodes {
		there[n.ID] = true
	}
	add := func(n lineage.Node) {
		if !there[n.ID] {
			there[n.ID] = true
			g.Nodes = append(g.Nodes, n)
		}
	}
	for model, pointers := range v.fleet.pointers {
		for _, p := range pointers {
			made := versionKey("model_version", model, p.Version)
			if !there[made] || p.Role == delivery.Challenger {
				continue
			}
			d := lineage.Node{ID: "deployment:" + model + "@" + p.Environment, Kind: lineage.Deployment, Label: model + "/" + p.Environment, At: p.Since}
			add(d)
			if p.Change == "" {
				g.Edges = append(g.Edges, lineage.Edge{From: made, To: d.ID, Role: "served"})
				continue
			}
			c := lineage.Node{ID: "change:" + p.Change, Kind: lineage.Change, Label: shortID(p.Change), At: p.Since}
			add(c)
			g.Edges = append(g.Edges, lineage.Edge{From: made, To: c.ID, Role: "promoted"}, lineage.Edge{From: c.ID, To: d.ID, Role: "served"})
		}
	}
	return g
}

// shortID keeps the prefix and the end of an id, which tell ids apart.
func shortID(id string) string {
	if len(id) <= 16 {
		return id
	}
	return id[:4] + "…" + id[len(id)-8:]
}

// node describes one box.
func (v *view) node(b lineage.Box) (LineageNode, error) {
	kind, name, version := splitKey(b.ID)
	n := LineageNode{Key: b.ID, X: b.X, Y: b.Y, W: b.W, H: b.H, Kind: kind, Label: clip(b.Label, maxLabel), Ref: note.Ref{Kind: kind, ID: name, Version: version}}
	switch kind {
	case "dataset_version":
		if version == nil {
			break
		}
		dv, ok, err := v.dataset(name, *version)
		if err != nil {
			return n, err
		}
		if ok {
			n.Sub = rowsNote(dv.Rows)
			n.State = map[string]string{"passed": "ok", "warned": "warn"}[contractOf(dv)]
		}
	case "run":
		n.State = "ok" // only runs that made a release are recorded
		var rows int64
		if _, err := fmt.Sscanf(v.rows[b.ID], "%d rows", &rows); err == nil {
			n.Sub = rowsNote(rows)
		}
	case "model_version":
		if version != nil {
			n.Sub, n.State = v.version(name, *version)
		}
	case "deployment":
		at := strings.LastIndexByte(name, '@')
		n.Ref = note.Ref{Kind: kind, ID: name[:at]}
		n.State = map[string]string{"serving": "ok", "failed": "bad"}[v.fleet.serves(place{name[:at], name[at+1:]})]
		if p, ok := v.fleet.pointer(name[:at], name[at+1:], delivery.Champion); ok {
			n.Ref.Version = &p.Version
			if h, _ := v.fleet.health(p.Model, p.Environment); h == degraded {
				n.State = "warn"
			}
		}
	case "change":
		n.State = "ok"
	case "view":
		n.Kind, n.Ref.Kind = "feature_view", "feature_view"
	}
	return n, nil
}

func rowsNote(rows int64) *note.Note {
	n := note.New("rows", thousands(rows)+" rows")
	n.Args["rows"] = rows
	return &n
}

func (v *view) dataset(name string, version int64) (data.Version, bool, error) {
	list, ok := v.versions[name]
	if !ok {
		var err error
		if list, err = v.api.Data.Versions(v.ctx, v.project, name, 0, 1000); err != nil && !fault.Is(err, fault.NotFound) {
			return data.Version{}, false, err
		}
		v.versions[name] = list
	}
	i := slices.IndexFunc(list, func(d data.Version) bool { return d.N == version })
	if i < 0 {
		return data.Version{}, false, nil
	}
	return list[i], true, nil
}

// version says in which environment a model version serves, the last one first, and how it is there.
func (v *view) version(model string, version int64) (*note.Note, string) {
	where := ""
	for _, p := range v.fleet.pointers[model] {
		if p.Version == version && p.Role == delivery.Champion && (where == "" || p.Environment == v.last[model]) {
			where = p.Environment
		}
	}
	if where == "" {
		return nil, ""
	}
	n := note.New("in_environment", "in {environment}", "environment", where)
	state := map[string]string{"serving": "ok", "failed": "bad"}[v.fleet.serves(place{model, where})]
	if h, _ := v.fleet.health(model, where); h == degraded {
		state = "warn"
	}
	return &n, state
}

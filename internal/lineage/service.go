package lineage

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"falaj/internal/kernel/fault"
	"falaj/internal/store"
)

// MaxNodes is the most nodes a Graph, Upstream or Downstream holds.
const MaxNodes = 2000

// Service records and reads lineage. It is safe for concurrent use.
type Service struct{ store *store.Store }

// New returns the service over a store.
func New(s *store.Store) *Service { return &Service{store: s} }

// Record adds nodes and edges to a project. Called inside a store.Change with its ctx it is part of that change, so
// that nothing exists without its origin. It is idempotent: what is there already stays, a node's label and time are
// those of the last call. An edge whose ends are neither given nor recorded is fault.Invalid.
func (s *Service) Record(ctx context.Context, project string, nodes []Node, edges []Edge) error {
	known := map[string]bool{}
	for _, n := range nodes {
		if n.ID == "" || n.Label == "" || n.Kind.rank() < 0 || n.At.IsZero() {
			return fault.New(fault.Invalid, fmt.Sprintf("A lineage node needs an id, a known kind, a label and a time; got %q of kind %q.", n.ID, n.Kind), "")
		}
		known[n.ID] = true
	}
	var others []string
	for _, e := range edges {
		if e.From == e.To || e.Role == "" {
			return fault.New(fault.Invalid, fmt.Sprintf("A lineage edge joins two things by a role; got %q to %q.", e.From, e.To), "")
		}
		for _, end := range []string{e.From, e.To} {
			if !known[end] {
				known[end] = true
				others = append(others, end)
			}
		}
	}
	return s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		found, err := loadNodes(ctx, tx, project, others)
		if err != nil {
			return err
		}
		for _, id := range others {
			if _, ok := found[id]; !ok {
				return fault.New(fault.Invalid, fmt.Sprintf("The lineage of project %s has no '%s' to join.", project, id), "Record the thing itself before what is made from it.")
			}
		}
		if err := insertNodes(ctx, tx, project, nodes); err != nil {
			return err
		}
		return insertEdges(ctx, tx, project, edges)
	})
}

// Graph returns what is upstream and downstream of focus within depth edges (0: all the way), not its siblings. An
// empty focus returns the newest nodes of the project. An unknown focus is fault.NotFound.
func (s *Service) Graph(ctx context.Context, project, focus string, depth int) (Graph, error) {
	g := Graph{Project: project, Focus: focus}
	err := s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		var nodes map[string]Node
		if focus == "" {
			var err error
			if nodes, err = newest(ctx, q, project, MaxNodes+1); err != nil {
				return err
			}
			g.Truncated = len(nodes) > MaxNodes
		} else {
			up, cutUp, err := walk(ctx, q, project, focus, depth, upstream)
			if err != nil {
				return err
			}
			down, cutDown, err := walk(ctx, q, project, focus, depth, downstream)
			if err != nil {
				return err
			}
			g.Truncated = cutUp || cutDown
			nodes = map[string]Node{}
			for _, r := range append(up, down...) {
				nodes[r.ID] = r.Node
			}
			focused, err := loadNodes(ctx, q, project, []string{focus})
			if err != nil {
				return err
			}
			nodes[focus] = focused[focus]
		}
		for _, n := range nodes {
			g.Nodes = append(g.Nodes, n)
		}
		slices.SortFunc(g.Nodes, byTime)
		if len(g.Nodes) > MaxNodes { // the newest stay, and what is asked about always
			g.Truncated = true
			cut := g.Nodes[:len(g.Nodes)-MaxNodes]
			g.Nodes = slices.Clone(g.Nodes[len(g.Nodes)-MaxNodes:])
			for _, n := range cut {
				if n.ID == focus {
					g.Nodes[0] = n
				}
			}
			clear(nodes)
			for _, n := range g.Nodes {
				nodes[n.ID] = n
			}
		}
		var err error
		g.Edges, err = edgesAmong(ctx, q, project, nodes)
		return err
	})
	return g, err
}

func byTime(a, b Node) int {
	if c := a.At.Compare(b.At); c != 0 {
		return c
	}
	return strings.Compare(a.ID, b.ID)
}

// Upstream lists everything id was made from, the nearest first, of the given kinds (none: all). It answers `why`.
func (s *Service) Upstream(ctx context.Context, project, id string, kinds ...Kind) ([]Reached, error) {
	return s.reach(ctx, project, id, upstream, kinds)
}

// Downstream lists everything made from id, the nearest first, of the given kinds (none: all). It answers what a change
// of data touches.
func (s *Service) Downstream(ctx context.Context, project, id string, kinds ...Kind) ([]Reached, error) {
	return s.reach(ctx, project, id, downstream, kinds)
}

func (s *Service) reach(ctx context.Context, project, id string, dir direction, kinds []Kind) (out []Reached, err error) {
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		all, _, err := walk(ctx, q, project, id, 0, dir)
		for _, r := range all {
			if len(kinds) == 0 || slices.Contains(kinds, r.Kind) {
				out = append(out, r)
			}
		}
		return err
	})
	return out, err
}

// walk visits breadth first; cut says that MaxNodes stopped it.
func walk(ctx context.Context, q store.Querier, project, id string, depth int, dir direction) (out []Reached, cut bool, err error) {
	start, err := loadNodes(ctx, q, project, []string{id})
	if err != nil {
		return nil, false, err
	}
	if _, ok := start[id]; !ok {
		return nil, false, fault.New(fault.NotFound, fmt.Sprintf("The lineage of project %s has no '%s'.", project, id), "Ids are those of files, dataset versions, runs, releases, changes and deployments.")
	}
	seen := map[string]bool{id: true}
	layer := []string{id}
	for d := 1; len(layer) > 0 && (depth <= 0 || d <= depth); d++ {
		ends, err := neighbours(ctx, q, project, layer, dir)
		if err != nil {
			return nil, false, err
		}
		layer = layer[:0]
		for _, end := range ends {
			if !seen[end] {
				seen[end] = true
				layer = append(layer, end)
			}
		}
		nodes, err := loadNodes(ctx, q, project, layer)
		if err != nil {
			return nil, false, err
		}
		ring := make([]Reached, 0, len(nodes))
		for _, n := range nodes {
			ring = append(ring, Reached{n, d})
		}
		slices.SortFunc(ring, func(a, b Reached) int { return byTime(a.Node, b.Node) })
		out = append(out, ring...)
		if len(out) > MaxNodes {
			return out[:MaxNodes], true, nil
		}
	}
	return out, false, nil
}

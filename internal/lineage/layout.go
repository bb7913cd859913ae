package lineage

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
)

// Drawing is a laid-out graph in pixels, left to right. It is the same for the same graph, always.
type Drawing struct {
	Project   string
	Width     int
	Height    int
	Boxes     []Box
	Lines     []Line
	Crossings int
	Truncated bool
}

// Box is a node's place.
type Box struct {
	Node
	X, Y, W, H int
	Focus      bool
}

// Line is an edge's way: from the right middle of one box to the left middle of another, through the gaps between.
type Line struct {
	Edge
	Points [][2]int
}

// Sizes of the drawing in pixels.
const (
	boxW, boxH = 208, 44
	gapX, gapY = 64, 16
	laneH      = 14 // room of a line that passes a column
	margin     = 16
)

// restarts is from how many fixed beginnings the order is improved; fewer for graphs where that would be felt.
const restarts = 40

// effort is about how many places 40 restarts may have before their number is lowered.
const effort = 700

// Layout ranks the nodes by stage (within a stage by what was made from what), orders each column for few crossings by
// barycentres and exchanges of neighbours from 40 fixed-seed beginnings, and straightens the lines.
func Layout(g Graph) Drawing {
	d := Drawing{Project: g.Project, Truncated: g.Truncated}
	nodes := slices.Clone(g.Nodes)
	slices.SortFunc(nodes, byTime)
	s := newSheet(nodes, g.Edges)
	n := restarts
	if len(s.at) > effort {
		n = max(1, restarts*effort/len(s.at)*effort/len(s.at))
	}
	s.order(n)
	d.Crossings = s.crossings()
	y := s.straighten()
	for i, n := range nodes {
		d.Boxes = append(d.Boxes, Box{Node: n, X: margin + s.at[i].col*(boxW+gapX), Y: y[i], W: boxW, H: boxH, Focus: n.ID == g.Focus && g.Focus != ""})
	}
	for i := range s.at {
		h := boxH
		if i >= len(nodes) {
			h = laneH
		}
		d.Width = max(d.Width, 2*margin+s.at[i].col*(boxW+gapX)+boxW)
		d.Height = max(d.Height, y[i]+h+margin)
	}
	for _, w := range s.ways {
		d.Lines = append(d.Lines, s.line(w, y, len(nodes)))
	}
	return d
}

func (s *sheet) line(w way, y []int, real int) Line {
	l := Line{Edge: w.edge}
	for k, p := range w.places {
		x, mid := margin+s.at[p].col*(boxW+gapX), y[p]+boxH/2
		if p >= real {
			mid = y[p] + laneH/2
		}
		if k > 0 {
			l.Points = append(l.Points, [2]int{x, mid})
		}
		if k < len(w.places)-1 {
			l.Points = append(l.Points, [2]int{x + boxW, mid})
		}
	}
	return l
}

// sheet is the working state: places are nodes first, then the passing points of long edges.
type sheet struct {
	at     []place
	cols   [][]int // places of each column, in order
	ways   []way
	prev   [][]int // neighbours in the column before
	next   [][]int
	pos    []int // index in its column
	height func(p int) int
}

type place struct{ col int }

type way struct {
	edge   Edge
	places []int // from, passing points, to
}

func newSheet(nodes []Node, edges []Edge) *sheet {
	s := &sheet{}
	index := make(map[string]int, len(nodes))
	for i, n := range nodes {
		index[n.ID] = i
	}
	var ends [][2]int
	for _, e := range edges {
		from, ok1 := index[e.From]
		to, ok2 := index[e.To]
		if ok1 && ok2 && from != to {
			ends = append(ends, [2]int{from, to})
			s.ways = append(s.ways, way{edge: e})
		}
	}
	for _, c := range columns(nodes, ends) {
		s.at = append(s.at, place{c})
	}
	real := len(nodes)
	s.height = func(p int) int {
		if p < real {
			return boxH + gapY
		}
		return laneH
	}
	for i, e := range ends {
		a, b := e[0], e[1]
		s.ways[i].places = []int{a}
		if s.at[a].col < s.at[b].col { // an edge within a column or against the water is one straight line
			for c := s.at[a].col + 1; c < s.at[b].col; c++ {
				s.at = append(s.at, place{c})
				s.ways[i].places = append(s.ways[i].places, len(s.at)-1)
			}
		}
		s.ways[i].places = append(s.ways[i].places, b)
	}
	s.prev, s.next, s.pos = make([][]int, len(s.at)), make([][]int, len(s.at)), make([]int, len(s.at))
	width := 0
	for _, p := range s.at {
		width = max(width, p.col+1)
	}
	s.cols = make([][]int, width)
	for i, p := range s.at {
		s.cols[p.col] = append(s.cols[p.col], i)
	}
	for _, w := range s.ways {
		for k := 1; k < len(w.places); k++ {
			if a, b := w.places[k-1], w.places[k]; s.at[a].col+1 == s.at[b].col {
				s.next[a] = append(s.next[a], b)
				s.prev[b] = append(s.prev[b], a)
			}
		}
	}
	s.index()
	return s
}

// columns gives each node a column: stages in the order of the water, and within a stage the longest way of edges
// inside it. Empty columns are left out. A cycle inside a stage is cut where it is met.
func columns(nodes []Node, ends [][2]int) []int {
	inside := make([][]int, len(nodes))
	for _, e := range ends {
		if nodes[e[0]].Kind == nodes[e[1]].Kind {
			inside[e[1]] = append(inside[e[1]], e[0])
		}
	}
	level := make([]int, len(nodes))
	state := make([]int8, len(nodes)) // 0 new, 1 open, 2 done
	var visit func(i int) int
	visit = func(i int) int {
		state[i] = 1
		for _, j := range inside[i] {
			if state[j] == 0 {
				visit(j)
			}
			if state[j] == 2 {
				level[i] = max(level[i], level[j]+1)
			}
		}
		state[i] = 2
		return level[i]
	}
	type key struct{ rank, level int }
	used := map[key]bool{}
	for i, n := range nodes {
		if state[i] == 0 {
			visit(i)
		}
		used[key{n.Kind.rank(), level[i]}] = true
	}
	keys := make([]key, 0, len(used))
	for k := range used {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.level, b.level))
	})
	col := make(map[key]int, len(keys))
	for i, k := range keys {
		col[k] = i
	}
	out := make([]int, len(nodes))
	for i, n := range nodes {
		out[i] = col[key{n.Kind.rank(), level[i]}]
	}
	return out
}

func (s *sheet) index() {
	for _, c := range s.cols {
		for i, p := range c {
			s.pos[p] = i
		}
	}
}

// order tries n beginnings and keeps the order with the fewest crossings.
func (s *sheet) order(n int) {
	best, least := s.snapshot(), s.crossings()
	for r := range n {
		if r > 0 {
			rng := rand.New(rand.NewPCG(20130101, uint64(r)))
			for _, c := range s.cols {
				rng.Shuffle(len(c), func(i, j int) { c[i], c[j] = c[j], c[i] })
			}
			s.index()
		}
		last := math.MaxInt
		for range 12 {
			s.sweep()
			now := s.crossings()
			if now < least {
				best, least = s.snapshot(), now
			}
			if now >= last {
				break
			}
			last = now
		}
		s.exchange()
		if now := s.crossings(); now < least {
			best, least = s.snapshot(), now
		}
		if least == 0 {
			break
		}
	}
	for i, c := range best {
		copy(s.cols[i], c)
	}
	s.index()
}

func (s *sheet) snapshot() [][]int {
	out := make([][]int, len(s.cols))
	for i, c := range s.cols {
		out[i] = slices.Clone(c)
	}
	return out
}

// sweep orders each column by the barycentres of the column before, then each by those of the column after.
func (s *sheet) sweep() {
	for c := 1; c < len(s.cols); c++ {
		s.sortColumn(c, s.prev)
	}
	for c := len(s.cols) - 2; c >= 0; c-- {
		s.sortColumn(c, s.next)
	}
}

func (s *sheet) sortColumn(c int, side [][]int) {
	col := s.cols[c]
	type weighed struct {
		p int
		w float64
	}
	ws := make([]weighed, len(col))
	for i, p := range col {
		w := float64(i)
		if n := len(side[p]); n > 0 {
			sum := 0
			for _, q := range side[p] {
				sum += s.pos[q]
			}
			w = float64(sum) / float64(n)
		}
		ws[i] = weighed{p, w}
	}
	slices.SortStableFunc(ws, func(a, b weighed) int { return cmp.Compare(a.w, b.w) })
	for i, w := range ws {
		col[i], s.pos[w.p] = w.p, i
	}
}

// exchange swaps neighbours as long as that lowers the crossings.
func (s *sheet) exchange() {
	for range 10 {
		better := false
		for _, col := range s.cols {
			for i := 1; i < len(col); i++ {
				a, b := col[i-1], col[i]
				if s.between(b, a) < s.between(a, b) {
					col[i-1], col[i] = b, a
					s.pos[a], s.pos[b] = i, i-1
					better = true
				}
			}
		}
		if !better {
			return
		}
	}
}

// between counts the crossings of the edges of a and b when a stands above b.
func (s *sheet) between(a, b int) int {
	n := 0
	for _, side := range [][][]int{s.prev, s.next} {
		for _, x := range side[a] {
			for _, y := range side[b] {
				if s.pos[x] > s.pos[y] {
					n++
				}
			}
		}
	}
	return n
}

// crossings counts all crossings: inversions between each two columns, by a Fenwick tree.
func (s *sheet) crossings() int {
	total := 0
	var targets, tree []int
	for c := 0; c+1 < len(s.cols); c++ {
		size := len(s.cols[c+1])
		tree = slices.Grow(tree[:0], size+1)[:size+1]
		clear(tree)
		seen := 0
		for _, p := range s.cols[c] {
			targets = targets[:0]
			for _, q := range s.next[p] {
				targets = append(targets, s.pos[q])
			}
			for _, t := range targets { // those before with a target further down
				upTo := 0
				for i := t + 1; i > 0; i -= i & -i {
					upTo += tree[i]
				}
				total += seen - upTo
			}
			for _, t := range targets {
				for i := t + 1; i <= size; i += i & -i {
					tree[i]++
				}
				seen++
			}
		}
	}
	return total
}

// straighten gives each place its upper edge: as near to its neighbours' middle as the order and the sizes allow.
func (s *sheet) straighten() []int {
	y := make([]float64, len(s.at)) // middles
	for _, col := range s.cols {
		at := 0.0
		for _, p := range col {
			h := float64(s.height(p))
			y[p] = at + h/2
			at += h
		}
	}
	for range 6 {
		for c := 1; c < len(s.cols); c++ {
			s.pull(s.cols[c], s.prev, y)
		}
		for c := len(s.cols) - 2; c >= 0; c-- {
			s.pull(s.cols[c], s.next, y)
		}
	}
	top := math.Inf(1)
	for p := range y {
		top = min(top, y[p]-float64(s.height(p))/2)
	}
	out := make([]int, len(y))
	for p := range y {
		free := 0.0
		if s.height(p) > laneH {
			free = gapY
		}
		out[p] = margin + int(math.Round(y[p]-float64(s.height(p))/2-top+free/2))
	}
	return out
}

// pull moves a column towards its neighbours: the least squares under "stays in order and does not touch", which is an
// isotonic regression of the wishes less the room taken above (pool adjacent violators).
func (s *sheet) pull(col []int, side [][]int, y []float64) {
	type pool struct {
		sum, weight float64
		n           int
	}
	var pools []pool
	offset := make([]float64, len(col))
	at := 0.0
	for i, p := range col {
		h := float64(s.height(p))
		offset[i] = at + h/2
		at += h
		wish, weight := y[p], 0.25
		if n := len(side[p]); n > 0 {
			sum := 0.0
			for _, q := range side[p] {
				sum += y[q]
			}
			wish, weight = sum/float64(n), 1
		}
		pools = append(pools, pool{(wish - offset[i]) * weight, weight, 1})
		for len(pools) > 1 {
			a, b := pools[len(pools)-2], pools[len(pools)-1]
			if a.sum/a.weight <= b.sum/b.weight {
				break
			}
			pools = append(pools[:len(pools)-2], pool{a.sum + b.sum, a.weight + b.weight, a.n + b.n})
		}
	}
	i := 0
	for _, p := range pools {
		for range p.n {
			y[col[i]] = p.sum/p.weight + offset[i]
			i++
		}
	}
}

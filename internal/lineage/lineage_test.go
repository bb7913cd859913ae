package lineage

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/store"
	"falaj/internal/store/storetest"
)

var update = flag.Bool("update", false, "write the golden files anew")

func day(n int) time.Time { return time.Date(2013, 1, n, 0, 0, 0, 0, time.UTC) }

// flights is the story's graph: two months of files, versions, features, one run, its release and where it went.
func flights() ([]Node, []Edge) {
	nodes := []Node{
		{"file:1", Source, "data/flights/2013-01.csv", day(1)}, {"file:2", Source, "data/flights/2013-02.csv", day(2)}, {"file:w", Source, "data/weather/2013-01.csv", day(3)},
		{"dsv_f1", Dataset, "flights@1", day(4)}, {"dsv_f2", Dataset, "flights@2", day(5)}, {"dsv_w1", Dataset, "weather@1", day(6)}, {"dsv_d1", Dataset, "departures@1", day(7)},
		{"fv_delay", View, "airport_delay", day(8)}, {"fv_weather", View, "weather", day(9)},
		{"ts_1", TrainingSet, "delay_v1 training set 1", day(10)}, {"run_1", Run, "delay #1", day(11)}, {"rel_1", Release, "delay@1", day(12)},
		{"chg_1", Change, "delay@1 to staging", day(13)}, {"chg_2", Change, "delay@1 to production", day(14)}, {"dep_1", Deployment, "production", day(15)},
	}
	edges := []Edge{
		{"file:1", "dsv_f1", "read"}, {"file:1", "dsv_f2", "read"}, {"file:2", "dsv_f2", "read"}, {"file:w", "dsv_w1", "read"}, {"dsv_f2", "dsv_d1", "derived"},
		{"dsv_d1", "fv_delay", "computed"}, {"dsv_w1", "fv_weather", "computed"}, {"fv_delay", "ts_1", "joined"}, {"fv_weather", "ts_1", "joined"}, {"dsv_f2", "ts_1", "spine"},
		{"ts_1", "run_1", "trained"}, {"run_1", "rel_1", "packaged"}, {"rel_1", "chg_1", "moved"}, {"rel_1", "chg_2", "moved"}, {"chg_2", "dep_1", "served"},
	}
	return nodes, edges
}

func record(t *testing.T, s *store.Store) *Service {
	t.Helper()
	l := New(s)
	nodes, edges := flights()
	for range 2 { // the second time changes nothing
		if err := l.Record(t.Context(), "flights", nodes, edges); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func ids[T any](list []T, id func(T) string) []string {
	out := []string{}
	for _, v := range list {
		out = append(out, id(v))
	}
	return out
}

func TestWalksAnswerWhatAChangeTouchesAndWhy(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		l := record(t, s)
		of := func(r Reached) string { return fmt.Sprintf("%s %d", r.ID, r.Distance) }
		down, err := l.Downstream(t.Context(), "flights", "file:2", Release, Deployment)
		if err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff([]string{"rel_1 4", "dep_1 6"}, ids(down, of)); diff != "" {
			t.Error(diff)
		}
		up, err := l.Upstream(t.Context(), "flights", "rel_1")
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"run_1 1", "ts_1 2", "dsv_f2 3", "fv_delay 3", "fv_weather 3", "file:1 4", "file:2 4", "dsv_w1 4", "dsv_d1 4", "file:w 5"}
		if diff := gocmp.Diff(want, ids(up, of)); diff != "" {
			t.Error(diff)
		}
		if _, err := l.Upstream(t.Context(), "weather", "rel_1"); !fault.Is(err, fault.NotFound) {
			t.Errorf("another project: %v", err)
		}
	})
}

func TestGraphIsAncestorsAndDescendantsWithinDepth(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		l := record(t, s)
		g, err := l.Graph(t.Context(), "flights", "ts_1", 1)
		if err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff([]string{"dsv_f2", "fv_delay", "fv_weather", "ts_1", "run_1"}, ids(g.Nodes, func(n Node) string { return n.ID })); diff != "" {
			t.Error(diff)
		}
		if len(g.Edges) != 4 || g.Truncated {
			t.Errorf("%+v", g.Edges)
		}
		all, err := l.Graph(t.Context(), "flights", "", 0)
		nodes, edges := flights()
		slices.SortFunc(edges, func(a, b Edge) int { return strings.Compare(a.From+a.To, b.From+b.To) })
		if diff := gocmp.Diff(Graph{Project: "flights", Nodes: nodes, Edges: edges}, all); err != nil || diff != "" {
			t.Error(err, diff)
		}
		if _, err := l.Graph(t.Context(), "flights", "nothing", 0); !fault.Is(err, fault.NotFound) {
			t.Error(err)
		}
	})
}

func TestRecordIsPartOfItsChangeOrDidNotHappen(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		l := New(s)
		n := Node{"dsv_1", Dataset, "flights@1", day(1)}
		change := func(end error) error {
			return s.Change(storetest.As("amal"), "dataset.version.create", policy.Resource{Kind: "dataset", ID: "x", Project: "p"}, func(ctx context.Context, _ *store.Tx) (event.Draft, error) {
				return event.Draft{}, errors.Join(l.Record(ctx, "p", []Node{n}, nil), end)
			})
		}
		if err := change(io.ErrUnexpectedEOF); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
		if g, err := l.Graph(t.Context(), "p", "", 0); err != nil || len(g.Nodes) != 0 {
			t.Errorf("a change that failed left %v %v", g.Nodes, err)
		}
		if err := change(nil); err != nil {
			t.Fatal(err)
		}
		if g, err := l.Graph(t.Context(), "p", "dsv_1", 0); err != nil || len(g.Nodes) != 1 {
			t.Error(g, err)
		}
		for name, err := range map[string]error{
			"no end":       l.Record(t.Context(), "p", nil, []Edge{{"dsv_1", "gone", "read"}}),
			"itself":       l.Record(t.Context(), "p", nil, []Edge{{"dsv_1", "dsv_1", "read"}}),
			"no role":      l.Record(t.Context(), "p", nil, []Edge{{"dsv_1", "x", ""}}),
			"unknown kind": l.Record(t.Context(), "p", []Node{{"x", "thing", "x", day(1)}}, nil),
			"no time":      l.Record(t.Context(), "p", []Node{{"x", Run, "x", time.Time{}}}, nil),
		} {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestAGreatGraphIsCutAndKeepsItsFocus(t *testing.T) {
	t.Parallel()
	s := storetest.SQLite(t)
	l := New(s)
	nodes := []Node{{"root", Source, "root", day(1)}}
	var edges []Edge
	for i := range MaxNodes + 50 {
		id := fmt.Sprint("d", i)
		nodes = append(nodes, Node{id, Dataset, id, day(2).Add(time.Duration(i) * time.Second)})
		edges = append(edges, Edge{"root", id, "read"})
	}
	if err := l.Record(t.Context(), "p", nodes, edges); err != nil {
		t.Fatal(err)
	}
	g, err := l.Graph(t.Context(), "p", "root", 0)
	if err != nil || !g.Truncated || len(g.Nodes) != MaxNodes || len(g.Edges) != MaxNodes-1 || g.Nodes[0].ID != "root" {
		t.Error(len(g.Nodes), len(g.Edges), g.Truncated, err)
	}
	if g, err = l.Graph(t.Context(), "p", "", 0); err != nil || !g.Truncated || len(g.Nodes) != MaxNodes {
		t.Error(len(g.Nodes), g.Truncated, err)
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got) {
		t.Errorf("%s differs; look at it and run with -update\n%s", name, gocmp.Diff(string(want), string(got)))
	}
}

func TestTheFlightsDrawing(t *testing.T) {
	t.Parallel()
	nodes, edges := flights()
	shuffled := slices.Clone(nodes)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	d := Layout(Graph{Focus: "rel_1", Nodes: nodes, Edges: edges})
	if diff := gocmp.Diff(d, Layout(Graph{Focus: "rel_1", Nodes: shuffled, Edges: edges})); diff != "" {
		t.Errorf("the order of the nodes changed the drawing: %s", diff)
	}
	if d.Crossings != 0 {
		t.Errorf("%d crossings where none is needed", d.Crossings)
	}
	link := func(n Node) string { return "#/lineage/" + n.ID }
	golden(t, "flights.svg", SVG(d, SVGOptions{Title: "Lineage of delay@1", Link: link}))
	golden(t, "flights.ar.svg", SVG(d, SVGOptions{RightToLeft: true, Title: "نسب delay@1", Words: map[Kind]string{Source: "مصدر", Dataset: "مجموعة بيانات"}}))
}

func TestBoxesNeverTouchAndLinesGoDownstream(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		d := Layout(random(120, seed))
		for i, a := range d.Boxes {
			if a.X < 0 || a.Y < 0 || a.X+a.W > d.Width || a.Y+a.H > d.Height {
				t.Fatalf("seed %d: %+v is outside %dx%d", seed, a, d.Width, d.Height)
			}
			for _, b := range d.Boxes[:i] {
				if a.X == b.X && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
					t.Fatalf("seed %d: %s and %s touch", seed, a.ID, b.ID)
				}
			}
		}
		for _, l := range d.Lines {
			for k := 1; k < len(l.Points); k++ {
				if l.Points[k][0] <= l.Points[k-1][0] {
					t.Fatalf("seed %d: line %s to %s goes back", seed, l.From, l.To)
				}
			}
		}
	}
}

func TestCyclesAndBackwardEdgesAreDrawn(t *testing.T) {
	t.Parallel()
	g := Graph{Nodes: []Node{{"a", Dataset, "a", day(1)}, {"b", Dataset, "b", day(2)}, {"c", Run, "c", day(3)}}, Edges: []Edge{{"a", "b", "x"}, {"b", "a", "x"}, {"c", "a", "labels"}, {"a", "gone", "x"}}}
	if d := Layout(g); len(d.Boxes) != 3 || len(d.Lines) != 3 {
		t.Errorf("%+v", d)
	}
	if d := Layout(Graph{}); len(SVG(d, SVGOptions{})) == 0 {
		t.Error("an empty graph has no picture")
	}
}

func TestHostileLabelsStayText(t *testing.T) {
	t.Parallel()
	label := "</text><script>alert(1)</script>\x00\"&' \u202emoc"
	g := Graph{Nodes: []Node{{label, Dataset, label, day(1)}}}
	svg := SVG(Layout(g), SVGOptions{Link: func(n Node) string { return n.Label }, Title: label})
	dec := xml.NewDecoder(bytes.NewReader(svg))
	for {
		tok, err := dec.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if el, ok := tok.(xml.StartElement); ok && (el.Name.Local == "script" || el.Name.Local == "style") {
			t.Error("an element came out of a label")
		}
	}
	if strings.Contains(string(svg), "style=") {
		t.Error("a style attribute needs a weaker content security policy")
	}
}

// random is a graph of n nodes with two edges each, through all stages, some of them long.
func random(n int, seed uint64) Graph {
	rng := rand.New(rand.NewPCG(7, seed))
	kinds := Kinds()
	var g Graph
	for i := range n {
		g.Nodes = append(g.Nodes, Node{fmt.Sprintf("n%04d", i), kinds[i*len(kinds)/n], fmt.Sprintf("node %d", i), day(1).Add(time.Duration(i) * time.Minute)})
	}
	for i := n / len(kinds); i < n; i++ {
		for range 2 {
			from := max(0, i-n/len(kinds)-rng.IntN(n/len(kinds)))
			g.Edges = append(g.Edges, Edge{g.Nodes[from].ID, g.Nodes[i].ID, "made"})
		}
	}
	return g
}

func BenchmarkLayout(b *testing.B) {
	for _, n := range []int{100, 500, 2000} {
		b.Run(fmt.Sprintf("nodes=%d", n), func(b *testing.B) {
			g := random(n, 1)
			var d Drawing
			for b.Loop() {
				d = Layout(g)
			}
			b.ReportMetric(float64(d.Crossings), "crossings")
		})
	}
}

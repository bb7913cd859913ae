package process_test

import (
	"bytes"
	"flag"
	"os"
	"slices"
	"testing"

	"falaj/internal/process"
)

var update = flag.Bool("update", false, "draw docs/img anew")

// TestDrawingIsTheOneInTheDocs keeps the pictures that the README shows.
func TestDrawingIsTheOneInTheDocs(t *testing.T) {
	t.Parallel()
	for file, d := range map[string]process.Drawing{"process.svg": process.Wide(), "process-narrow.svg": process.Narrow()} {
		got, path := process.SVG(d), "../../docs/img/"+file
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from the declared process; if that is meant: go test ./internal/process -update", path)
		}
	}
}

// TestDrawingsShowEverything: both drawings name every stage, every drawn event and every edge, inside their frame, and the wide one
// lays no box over another.
func TestDrawingsShowEverything(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]process.Drawing{"wide": process.Wide(), "narrow": process.Narrow()} {
		rows, edges := map[string][]string{}, map[string]bool{}
		for i, b := range d.Boxes {
			if b.X < 0 || b.Y < 0 || b.X+b.W > d.Width || b.Y+b.H > d.Height {
				t.Errorf("%s: %s stands outside", name, b.Stage)
			}
			for _, o := range d.Boxes[:i] {
				if b.X < o.X+o.W && o.X < b.X+b.W && b.Y < o.Y+o.H && o.Y < b.Y+b.H {
					t.Errorf("%s: %s lies over %s", name, b.Stage, o.Stage)
				}
			}
			for _, r := range b.Rows {
				if r.X < b.X || r.Y < b.Y || r.X > b.X+b.W || r.Y > b.Y+b.H {
					t.Errorf("%s: %s leaves the box of %s", name, r.Text, b.Stage)
				}
				if r.To == "" {
					rows[b.Stage] = append(rows[b.Stage], r.Text)
				} else {
					edges[b.Stage+r.To+r.Text] = true
				}
			}
		}
		for _, l := range d.Lines {
			for _, n := range l.Names {
				edges[l.From+l.To+n] = true
			}
		}
		for _, s := range process.Stages() {
			if !slices.Equal(rows[s.Name], s.Events) {
				t.Errorf("%s: the box of %s names %q, want %q", name, s.Name, rows[s.Name], s.Events)
			}
		}
		for _, e := range process.Edges() {
			for _, n := range e.Names {
				if e.From != e.To && !edges[e.From+e.To+n] {
					t.Errorf("%s: %s from %s to %s is not drawn", name, n, e.From, e.To)
				}
			}
		}
	}
}

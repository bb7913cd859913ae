package process

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
)

// SVG writes a drawing in English as a file that stands alone, such as the one that opens the README: it brings its own colours for
// light and dark pages, and its letters can be selected. The process page draws the same places in the reader's language.
func SVG(d Drawing) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="t d" width="%d" height="%d" viewBox="0 0 %d %d" font-family="'IBM Plex Sans', system-ui, sans-serif" font-size="12.5">`+"\n", d.Width, d.Height, d.Width, d.Height)
	b.WriteString(`<title id="t">The process of falaj</title>` + "\n")
	fmt.Fprintf(&b, `<desc id="d">%s</desc>`+"\n", esc(inWords()))
	b.WriteString(`<style>
:root { --text: #14201e; --muted: #52615e; --surface: #ffffff; --line: #c3cdca; --event: #0b6a71; --call: #7a8794; }
@media (prefers-color-scheme: dark) { :root { --text: #e3eaea; --muted: #9aa9aa; --surface: #151b1e; --line: #3a474d; --event: #5cc9cc; --call: #93a1a8; } }
text { fill: var(--text); } .says { fill: var(--muted); } .event { fill: var(--event); } .call { fill: var(--muted); }
rect { fill: var(--surface); stroke: var(--line); } path { fill: none; stroke-width: 1.5; stroke: var(--line); }
path.event { fill: none; stroke: var(--event); } path.call { fill: none; stroke: var(--call); stroke-dasharray: 4 3; }
path.tip { stroke: none; fill: var(--line); } path.tip.event { fill: var(--event); } path.tip.call { fill: var(--call); }
</style>
`)
	for _, l := range d.Lines {
		fmt.Fprintf(&b, `<path class="%s" d="%s"/><path class="tip %s" d="%s"/>`+"\n", l.Kind, along(l.Points), l.Kind, tip(l.Points))
	}
	words := map[string][2]string{}
	for _, s := range Stages() {
		words[s.Name] = s.Says
	}
	for _, box := range d.Boxes {
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" rx="8"/>`, box.X, box.Y, box.W, box.H)
		fmt.Fprintf(&b, `<text x="%d" y="%d" font-size="16" font-weight="600">%s</text>`, box.X+pad, box.Y+24, esc(box.Stage))
		for i, line := range words[box.Stage] {
			fmt.Fprintf(&b, `<text class="says" x="%d" y="%d">%s</text>`, box.X+pad, box.Y+43+16*i, esc(line))
		}
		b.WriteString("\n")
		for _, r := range box.Rows {
			text := r.Text
			switch {
			case r.To != "":
				text = "→ " + r.To + ": " + r.Text
			case r.Own:
				text += " ↻"
			}
			fmt.Fprintf(&b, `<text class="%s" x="%d" y="%d">%s</text>`+"\n", r.Kind, r.X, r.Y, esc(text))
		}
	}
	for _, l := range d.Lines {
		for i, name := range l.Names {
			fmt.Fprintf(&b, `<text class="%s" x="%d" y="%d" text-anchor="%s">%s</text>`+"\n", l.Kind, l.Label[0], l.Label[1]+step*i, l.Anchor, esc(name))
		}
	}
	if d.Width > 1000 { // there is room for what the lines mean
		y := d.Height - 20
		fmt.Fprintf(&b, `<path class="event" d="M2 %d H34"/><text class="event" x="42" y="%d">event, followed</text>`, y, y+4)
		fmt.Fprintf(&b, `<path class="call" d="M158 %d H190"/><text class="call" x="198" y="%d">call</text><text class="event" x="244" y="%d">↻ follows itself</text>`+"\n", y, y+4, y+4)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// along joins the points with straight lines.
func along(points [][2]int) string {
	var s strings.Builder
	for i, p := range points {
		fmt.Fprintf(&s, "%c%d %d", "ML"[min(i, 1)], p[0], p[1])
	}
	return s.String()
}

// tip is the arrow at the last point, in the direction of the last stretch; stretches are level or upright.
func tip(points [][2]int) string {
	to, from := points[len(points)-1], points[len(points)-2]
	dx, dy := sign(to[0]-from[0]), sign(to[1]-from[1])
	return fmt.Sprintf("M%d %dL%d %dL%d %dZ", to[0], to[1], to[0]-8*dx-4*dy, to[1]-8*dy-4*dx, to[0]-8*dx+4*dy, to[1]-8*dy+4*dx)
}

func sign(n int) int { return max(-1, min(1, n)) }

// inWords is the drawing for those who do not see it.
func inWords() string {
	var s strings.Builder
	for _, e := range Edges() {
		verb := "calls"
		if e.Kind == Event {
			verb = "tells"
		}
		fmt.Fprintf(&s, "%s %s %s: %s. ", e.From, verb, e.To, strings.Join(e.Names, ", "))
	}
	return strings.TrimSpace(s.String())
}

func esc(s string) string {
	var b bytes.Buffer
	xml.EscapeText(&b, []byte(s)) // writing to a buffer cannot fail
	return b.String()
}

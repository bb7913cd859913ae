package lineage

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
	"unicode/utf8"
)

// SVGOptions changes how a drawing is written; the zero value is a plain English picture.
type SVGOptions struct {
	RightToLeft bool              // mirror: the water runs from the right, as on an Arabic page
	Title       string            // what the picture is, for screen readers; "" means "Lineage"
	Words       map[Kind]string   // the kinds in the reader's language
	Link        func(Node) string // where a node leads; nil or "" for none
}

// SVG writes a drawing that stands alone and fits light and dark pages: lines and letters take the text colour of the
// page. It holds no style element and no style attribute, so the strictest content security policy shows it whole.
// Every label is isolated and read left to right, whatever it holds, so that ids and versions are never reordered.
func SVG(d Drawing, o SVGOptions) []byte {
	var b bytes.Buffer
	if o.Title == "" {
		o.Title = "Lineage"
	}
	w, h := max(d.Width, 2*margin), max(d.Height, 2*margin)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" class="lineage" role="group" aria-label="%s" width="%d" height="%d" viewBox="0 0 %d %d" font-family="'IBM Plex Sans', 'IBM Plex Sans Arabic', sans-serif" font-size="13" fill="currentColor">`+"\n",
		esc(o.Title), w, h, w, h)
	flip := func(x int) int {
		if o.RightToLeft {
			return w - x
		}
		return x
	}
	b.WriteString(`<g fill="none" stroke="currentColor" stroke-opacity="0.45" stroke-width="1.5">` + "\n")
	for _, l := range d.Lines {
		fmt.Fprintf(&b, `<path d="%s" data-role="%s"/>`+"\n", curve(l.Points, flip), esc(l.Role))
	}
	b.WriteString("</g>\n")
	for _, box := range d.Boxes {
		writeBox(&b, box, o, flip)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// curve joins the points: straight through boxes' gaps, bent between columns.
func curve(points [][2]int, flip func(int) int) string {
	var s strings.Builder
	for i, p := range points {
		x, y := flip(p[0]), p[1]
		switch {
		case i == 0:
			fmt.Fprintf(&s, "M%d %d", x, y)
		case i%2 == 0: // along a lane, through a column
			fmt.Fprintf(&s, "H%d", x)
		default:
			px, py := flip(points[i-1][0]), points[i-1][1]
			mid := (px + x) / 2
			fmt.Fprintf(&s, "C%d %d %d %d %d %d", mid, py, mid, y, x, y)
		}
	}
	return s.String()
}

func writeBox(b *bytes.Buffer, box Box, o SVGOptions, flip func(int) int) {
	x, text, anchor := box.X, box.X+14, "start"
	stripe := box.X
	if o.RightToLeft {
		x = flip(box.X + box.W)
		text, anchor, stripe = x+box.W-14, "end", x+box.W-4
	}
	href := ""
	if o.Link != nil {
		href = o.Link(box.Node)
	}
	if href != "" {
		fmt.Fprintf(b, `<a href="%s">`, esc(href))
	}
	class, width := "node", "1"
	if box.Focus {
		class, width = "node focus", "2.5"
	}
	word := o.Words[box.Kind]
	if word == "" {
		word = strings.ReplaceAll(string(box.Kind), "_", " ")
	}
	fmt.Fprintf(b, `<g class="%s" data-kind="%s" data-id="%s"><title>%s</title>`, class, esc(string(box.Kind)), esc(box.ID), esc(word+" "+box.Label))
	fmt.Fprintf(b, `<rect x="%d" y="%d" width="%d" height="%d" rx="6" fill="currentColor" fill-opacity="0.05" stroke="currentColor" stroke-opacity="0.6" stroke-width="%s"/>`, x, box.Y, box.W, box.H, width)
	fmt.Fprintf(b, `<rect x="%d" y="%d" width="4" height="%d" rx="2" fill="%s"/>`, stripe, box.Y, box.H, colour(box.Kind))
	dir := "ltr"
	if o.RightToLeft {
		dir = "rtl"
		anchor = "start" // of a right-to-left word
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" font-size="11" fill-opacity="0.85" direction="%s" unicode-bidi="isolate" text-anchor="%s">%s</text>`, text, box.Y+17, dir, anchor, esc(word))
	if o.RightToLeft {
		anchor = "end"
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" direction="ltr" unicode-bidi="isolate" text-anchor="%s">%s</text></g>`, text, box.Y+34, anchor, esc(short(box.Label)))
	if href != "" {
		b.WriteString(`</a>`)
	}
	b.WriteString("\n")
}

// short keeps a label inside its box; the title holds it whole.
func short(s string) string {
	const most = 24
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	r := []rune(s)
	return string(r[:most-9]) + "…" + string(r[len(r)-8:]) // the end tells versions apart
}

// colour of a stage: middle tones that stand on light and dark.
func colour(k Kind) string {
	switch k {
	case Source:
		return "#7a8794"
	case Dataset:
		return "#2f80c3"
	case View:
		return "#1f9aa8"
	case TrainingSet:
		return "#2f9e6b"
	case Run:
		return "#9a7d0a"
	case Release:
		return "#b4621b"
	case Change:
		return "#a3478f"
	}
	return "#c0392b"
}

// esc is for text and attributes; what XML cannot hold becomes U+FFFD.
func esc(s string) string {
	var b bytes.Buffer
	xml.EscapeText(&b, []byte(s)) // writing to a buffer cannot fail
	return b.String()
}

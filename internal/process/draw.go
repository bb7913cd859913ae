package process

import "slices"

// Drawing is the process laid out in pixels, origin top left, the water running from left to right; pages mirror it for Arabic.
type Drawing struct {
	Width  int    `json:"width"`
	Height int    `json:"height"`
	Boxes  []Box  `json:"boxes" nullable:"false"`
	Lines  []Line `json:"lines" nullable:"false"`
}

// Box is a stage. Its name stands at Y+24, two short lines below at Y+43 and Y+59, and the rows where they say.
type Box struct {
	Stage string `json:"stage"`
	X     int    `json:"x"`
	Y     int    `json:"y"`
	W     int    `json:"w"`
	H     int    `json:"h"`
	Rows  []Row  `json:"rows" nullable:"false"`
}

// Row is one name in a box: an event of the stage, or, where no lines can be drawn, what goes to another stage. Own says that the
// stage follows it itself.
type Row struct {
	X    int    `json:"x"`
	Y    int    `json:"y"`
	Text string `json:"text"`
	To   string `json:"to"`
	Kind Kind   `json:"kind"`
	Own  bool   `json:"own"`
}

// Line is an edge: along the points, arrow at the last. Its names stand one below the other from Label on.
type Line struct {
	Edge
	Points [][2]int `json:"points" nullable:"false"`
	Label  [2]int   `json:"label"`
	Anchor string   `json:"anchor" enum:"start,middle,end"`
}

// The measures of both drawings. Letters are at least 12 px high at full size.
const (
	head = 84 // from a box's edge to its first row
	step = 17 // from row to row, and from name to name of a line
	pad  = 14
)

// Wide is the drawing for a page of about 1,080 px: the water runs along the top from data to training, down to the registry and back
// along the bottom, and plan stands in the middle, because it calls everybody. The lifecycle is fixed, and so are the places.
func Wide() Drawing {
	const (
		width, pitch, box = 1084, 298, 184
		top, middle, low  = 2, 226, 416
		tall, bar, deep   = 136, 100, 240
	)
	column := func(i int) int { return 2 + pitch*i }
	places := map[string]Box{
		Data: {X: column(0), Y: top, W: box, H: tall}, Features: {X: column(1), Y: top, W: box, H: tall},
		Tracking: {X: column(2), Y: top, W: box, H: tall}, Training: {X: column(3), Y: top, W: box, H: tall},
		Plan:       {X: column(0), Y: middle, W: width - 4, H: bar},
		Monitoring: {X: column(0), Y: low, W: box, H: deep}, Serving: {X: column(1), Y: low, W: box, H: deep},
		Delivery: {X: column(2), Y: low, W: box, H: deep}, Registry: {X: column(3), Y: low, W: box, H: deep},
	}
	d := Drawing{Width: width, Height: low + deep + 46}
	for _, s := range Stages() {
		b := places[s.Name]
		b.Stage, b.Rows = s.Name, []Row{}
		for i, name := range s.Events {
			r := Row{X: b.X + pad, Y: b.Y + head + step*i, Text: name, Kind: Event, Own: followed(s.Name, name)}
			if s.Name == Plan { // two rows beside its words
				r.X, r.Y = b.X+340+184*(i/2), b.Y+43+24*(i%2)
			}
			b.Rows = append(b.Rows, r)
		}
		d.Boxes = append(d.Boxes, b)
	}
	up, down := top+tall, middle+bar // the two edges that face each other above and below plan's
	line := func(from, to string, kind Kind, label [2]int, anchor string, points ...[2]int) {
		d.Lines = append(d.Lines, Line{edge(from, to, kind), points, label, anchor})
	}
	// Calls of plan go up and down from it; what it is told or asked comes back beside them.
	above := [2]int{12, up + 42}
	for i, stage := range []string{Data, Features, Tracking, Training} {
		x := column(i) + 92
		if stage == Features {
			x += 34
		}
		line(Plan, stage, Call, [2]int{x + above[0], above[1]}, "start", [2]int{x, middle}, [2]int{x, up})
	}
	below := down + 42
	line(Plan, Registry, Call, [2]int{column(3) + 80, below}, "end", [2]int{column(3) + 92, down}, [2]int{column(3) + 92, low})
	line(Plan, Delivery, Call, [2]int{column(2) + 40, below}, "start", [2]int{column(2) + 28, down}, [2]int{column(2) + 28, low})
	line(Delivery, Plan, Call, [2]int{column(2) + 160, below}, "start", [2]int{column(2) + 148, low}, [2]int{column(2) + 148, down})
	line(Plan, Serving, Call, [2]int{column(1) + 134, below}, "start", [2]int{column(1) + 122, down}, [2]int{column(1) + 122, low})
	line(Plan, Monitoring, Call, [2]int{column(0) + 176, below}, "start", [2]int{column(0) + 164, down}, [2]int{column(0) + 164, low})
	line(Monitoring, Plan, Event, [2]int{column(0) + 40, below}, "start", [2]int{column(0) + 28, low}, [2]int{column(0) + 28, down})
	// The lookup at serving's time passes behind plan, which has no part in it.
	line(Serving, Features, Call, [2]int{column(1) + 42, up + 42}, "end", [2]int{column(1) + 54, low}, [2]int{column(1) + 54, up})
	// Neighbours speak across the gaps.
	gap := func(i int) int { return column(i) + box + (pitch-box)/2 }
	y := top + 58
	line(Features, Data, Call, [2]int{gap(0), y - 9}, "middle", [2]int{column(1), y}, [2]int{column(0) + box, y})
	line(Training, Tracking, Call, [2]int{gap(2), y - 9}, "middle", [2]int{column(3), y}, [2]int{column(2) + box, y})
	y = low + 58
	line(Serving, Monitoring, Call, [2]int{gap(0), y - 9}, "middle", [2]int{column(1), y}, [2]int{column(0) + box, y})
	line(Delivery, Serving, Event, [2]int{gap(1), y - 9}, "middle", [2]int{column(2), y}, [2]int{column(1) + box, y})
	line(Delivery, Registry, Event, [2]int{gap(2), y - 9}, "middle", [2]int{column(2) + box, y}, [2]int{column(3), y})
	line(Serving, Delivery, Event, [2]int{gap(1), y + 60}, "middle", [2]int{column(1) + box, y + 86}, [2]int{column(2), y + 86})
	under := low + deep + 22
	line(Serving, Registry, Call, [2]int{column(2) + 88, under + 17}, "middle",
		[2]int{column(1) + 88, low + deep}, [2]int{column(1) + 88, under}, [2]int{column(3) + 88, under}, [2]int{column(3) + 88, low + deep})
	return d
}

// Narrow is the drawing for a phone of 352 px: the stages below one another, each with what goes from it.
func Narrow() Drawing {
	const width, half, space = 352, 172, 22
	d := Drawing{Width: width, Lines: []Line{}}
	y := 2
	for i, s := range Stages() {
		b := Box{Stage: s.Name, X: 2, Y: y, W: width - 4, Rows: []Row{}}
		for i, name := range s.Events {
			b.Rows = append(b.Rows, Row{X: b.X + pad + half*(i%2), Y: y + head + step*(i/2), Text: name, Kind: Event, Own: followed(s.Name, name)})
		}
		at := y + head + step*((len(s.Events)+1)/2) + 6
		for _, e := range Edges() {
			if e.From != s.Name || e.To == s.Name {
				continue
			}
			for _, name := range e.Names {
				b.Rows = append(b.Rows, Row{X: b.X + pad, Y: at, Text: name, To: e.To, Kind: e.Kind})
				at += step
			}
		}
		b.H = at - y - 2
		if i > 0 {
			d.Lines = append(d.Lines, Line{Edge: Edge{From: d.Boxes[i-1].Stage, To: s.Name, Names: []string{}}, Anchor: "middle", Points: [][2]int{{width / 2, y - space}, {width / 2, y}}})
		}
		d.Boxes = append(d.Boxes, b)
		y += b.H + space
	}
	d.Height = y - space + 2
	return d
}

// edge finds the edge that a line draws.
func edge(from, to string, kind Kind) Edge {
	all := Edges()
	i := slices.IndexFunc(all, func(e Edge) bool { return e.From == from && e.To == to && e.Kind == kind })
	if i < 0 {
		return Edge{From: from, To: to, Kind: kind, Names: []string{}}
	}
	return all[i]
}

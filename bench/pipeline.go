package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

var cachedOf = regexp.MustCompile(`(\d+) steps, (\d+) cached`)

// cached runs a pipeline of ten steps again when nothing changed: the server's cost of each step that it does not run.
func cached(ctx context.Context, b *bench) (rows []row, err error) {
	w, err := b.world(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	dir := filepath.Join(b.demo, "demo", "flights")
	again := func() (int, error) {
		out, err := w.falaj(ctx, dir, w.layla, "run", "delay", "--until", "2013-04-01")
		if err != nil {
			return 0, err
		}
		m := cachedOf.FindStringSubmatch(out)
		if m == nil || m[1] != m[2] {
			return 0, fmt.Errorf("not every step was cached:\n%s", out)
		}
		return strconv.Atoi(m[1])
	}
	if _, err := again(); err != nil {
		return nil, err
	}
	const runs = 10
	before, begin, steps := w.cpu(), time.Now(), 0
	for range runs {
		n, err := again()
		if err != nil {
			return nil, err
		}
		steps += n
	}
	return []row{{What: "cached pipeline step, request, key and record included", N: steps, Unit: "steps", CPU: w.cpu() - before, Wall: time.Since(begin), Note: fmt.Sprintf("%d runs of `falaj run`; the client's CPU is not counted", runs)}}, nil
}

const benchProject = `project: %s
residency: [ae]
datasets:
  flights:
    source: {csv: data/flights.csv, null: NA}
    derive: sql/flights.sql
    key: [carrier, flight, origin, sched_dep_at]
    time: {event: sched_dep_at, known: arr_at}
    contract:
      columns:
        origin: {in: [EWR, JFK, LGA]}
        distance: {min: 1}
        tailnum: {class: identifier, mask: pseudonym}
      on_violation: quarantine
`

// csv takes the whole file of flights to a dataset version: upload, digest, contract, derive, profile, Iceberg snapshot, ledger.
func csv(ctx context.Context, b *bench) (rows []row, err error) {
	w, err := b.world(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	const flights = 336776
	project := "bench" + strconv.FormatInt(time.Now().Unix(), 36)
	dir := filepath.Join(b.temp, project)
	for from, to := range map[string]string{filepath.Join(b.flights, "flights.csv"): "data/flights.csv", filepath.Join(b.demo, "demo", "flights", "sql", "flights.sql"): "sql/flights.sql"} {
		text, err := os.ReadFile(from)
		if err != nil {
			return nil, err
		}
		if err := keep(filepath.Join(dir, to), text); err != nil {
			return nil, err
		}
	}
	if err := keep(filepath.Join(dir, "falaj.yaml"), fmt.Appendf(nil, benchProject, project)); err != nil {
		return nil, err
	}
	if err := w.post(ctx, "/projects", w.admin, map[string]any{"name": project, "residency": []string{"ae"}}); err != nil {
		return nil, err
	}
	if err := w.post(ctx, "/bindings", w.admin, map[string]string{"project": project, "role": "engineer", "principal": "user:layla"}); err != nil {
		return nil, err
	}
	if _, err := w.falaj(ctx, dir, w.layla, "apply"); err != nil {
		return nil, err
	}
	before, begin := w.cpu(), time.Now()
	out, err := w.falaj(ctx, dir, w.layla, "run", "--ingest")
	if err != nil {
		return nil, err
	}
	took, wall := w.cpu()-before, time.Since(begin)
	return []row{
		{What: "CSV to version: flights.csv, 31 MB", N: 1, Unit: "file", CPU: took, Wall: wall, Note: "contract, derived times, profile, encryption; workers included"},
		{What: "the same, per row", N: flights, Unit: "rows", CPU: took, Wall: wall, Note: firstCount(out)},
	}, nil
}

var rowCount = regexp.MustCompile(`[\d,]+ rows`)

// firstCount is what the run said of its rows.
func firstCount(out string) string { return rowCount.FindString(out) }

func keep(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

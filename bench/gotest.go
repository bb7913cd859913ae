package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// engine is a durable step that does nothing, synchronous=FULL: the benchmark beside the code measures its own CPU.
func engine(ctx context.Context, _ *bench) ([]row, error) {
	out, err := goBench(ctx, "./internal/flow", "BenchmarkStep", "2000x")
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, m := range regexp.MustCompile(`runs=(\d+)\S*\s+(\d+)\s+([\d.]+) ns/op\s+([\d.]+) cpu-ms/step`).FindAllStringSubmatch(out, -1) {
		r, err := line("engine overhead of a durable step, "+m[1]+" run(s) at once", m[2], "steps", m[4], time.Millisecond, m[3])
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, some(rows, out)
}

// trees scores one row with the pure-Go tree engine, nothing around it.
func trees(ctx context.Context, _ *bench) ([]row, error) {
	out, err := goBench(ctx, "./internal/serving/trees", "BenchmarkPredict", "1s")
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, m := range regexp.MustCompile(`BenchmarkPredict/(\S+?)(?:-\d+)?\s+(\d+)\s+([\d.]+) ns/op`).FindAllStringSubmatch(out, -1) {
		r, err := line("tree engine, "+map[string]string{"row": "one row", "batch1024": "1024 rows in one call"}[m[1]], m[2], "calls", m[3], time.Nanosecond, m[3])
		if err != nil {
			return nil, err
		}
		r.Note = "the small committed LightGBM model, in process, one thread: wall stands for CPU"
		rows = append(rows, r)
	}
	return rows, some(rows, out)
}

// line makes a row out of a line of go test: count, CPU of one in a unit, wall of one in ns.
func line(what, count, unit, cpu string, of time.Duration, wall string) (row, error) {
	n, err := strconv.Atoi(count)
	if err != nil {
		return row{}, err
	}
	c, err := strconv.ParseFloat(cpu, 64)
	if err != nil {
		return row{}, err
	}
	w, err := strconv.ParseFloat(wall, 64)
	if err != nil {
		return row{}, err
	}
	return row{What: what, N: n, Unit: unit, CPU: time.Duration(c * float64(of) * float64(n)), Wall: time.Duration(w * float64(n))}, nil
}

func some(rows []row, out string) error {
	if len(rows) == 0 {
		return fmt.Errorf("no line of the benchmark was understood:\n%s", out)
	}
	return nil
}

func goBench(ctx context.Context, pkg, name, count string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^"+name+"$", "-benchtime", count, pkg).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("go test -bench %s %s: %w\n%s", name, pkg, err, out)
	}
	return string(out), err
}

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// start measures the first start on an empty folder, later ones, and a server that has nothing to do.
func start(ctx context.Context, b *bench) (rows []row, err error) {
	data := filepath.Join(b.temp, "start")
	const again = 5
	var cpu, wall time.Duration
	for i := range 1 + again {
		s, err := b.serve(ctx, data)
		if err != nil {
			return rows, err
		}
		took := s.cpu()
		switch i {
		case 0:
			rows = append(rows, row{What: "start on an empty folder, to /readyz", N: 1, Unit: "start", CPU: took, Wall: s.ready, Note: "migrations, keys, ledger"})
		default:
			cpu, wall = cpu+took, wall+s.ready
		}
		if i == again {
			time.Sleep(5 * time.Second) // what the start put off is done
			before, at := s.cpu(), time.Now()
			time.Sleep(10 * time.Second)
			idle := s.cpu() - before
			bytes, n := treeMemory(s.cmd.Process.Pid)
			rows = append(rows,
				row{What: "start on a used folder, to /readyz", N: again, Unit: "starts", CPU: cpu, Wall: wall},
				row{What: "idle", N: 10, Unit: "seconds", CPU: idle, Wall: time.Since(at), Note: fmt.Sprintf("%.0f MiB in %d process(es)", float64(bytes)/(1<<20), n)})
		}
		if err := s.stop(); err != nil {
			return rows, err
		}
	}
	return rows, nil
}

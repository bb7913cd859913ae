package flow

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

func cpu(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func benchEngine(b *testing.B, w Workflow) *Engine {
	e, err := Open(b.Context(), Config{Path: b.TempDir() + "/flow.db", Executor: "one", SchemaVersion: "1"})
	if err != nil {
		b.Fatal(err)
	}
	e.Register("w", w)
	if err := e.Launch(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { e.Close() })
	return e
}

// BenchmarkStep is the cost of a durable no-op step with synchronous=FULL: one run alone, and 16 runs at once.
func BenchmarkStep(b *testing.B) {
	for _, runs := range []int{1, 16} {
		b.Run(fmt.Sprintf("runs=%d", runs), func(b *testing.B) {
			e := benchEngine(b, func(c *Run, in json.RawMessage) (any, error) {
				var n int
				if err := json.Unmarshal(in, &n); err != nil {
					return nil, err
				}
				for range n {
					if _, err := Step(c, "nothing", func(context.Context, string) (int, error) { return 1, nil }); err != nil {
						return nil, err
					}
				}
				return n, nil
			})
			before := cpu(b)
			b.ResetTimer()
			var wg sync.WaitGroup
			for i := range runs {
				wg.Go(func() {
					id := fmt.Sprint("r", i)
					if err := e.Start(b.Context(), "w", id, max(b.N/runs, 1)); err != nil {
						b.Error(err)
					}
					if _, _, err := e.Wait(b.Context(), id); err != nil {
						b.Error(err)
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(cpu(b)-before)/1e6/float64(b.N), "cpu-ms/step")
		})
	}
}

// BenchmarkWaitingApprovals is what a thousand runs that wait for somebody cost: memory each, and CPU while nothing happens.
func BenchmarkWaitingApprovals(b *testing.B) {
	const n = 1000
	e := benchEngine(b, func(c *Run, _ json.RawMessage) (any, error) {
		_, _, err := c.Await("approval", 0)
		return 1, err
	})
	var m0, m1 runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m0)
	for i := range n {
		if err := e.Start(b.Context(), "w", fmt.Sprint("r", i), nil); err != nil {
			b.Fatal(err)
		}
	}
	time.Sleep(2 * time.Second)
	runtime.GC()
	runtime.ReadMemStats(&m1)
	before := cpu(b)
	b.ResetTimer()
	const quiet = 5 * time.Second
	time.Sleep(quiet)
	idle := cpu(b) - before
	for i := range n {
		if err := e.Signal(b.Context(), fmt.Sprint("r", i), "approval", true, ""); err != nil {
			b.Fatal(err)
		}
	}
	for i := range n {
		if s, _, err := e.Wait(b.Context(), fmt.Sprint("r", i)); s != Done {
			b.Fatal(s, err)
		}
	}
	b.ReportMetric(float64(m1.HeapInuse+m1.StackInuse-m0.HeapInuse-m0.StackInuse)/n/1024, "KiB/wait")
	b.ReportMetric(100*float64(idle)/float64(quiet), "%cpu-idle")
	b.ReportMetric(0, "ns/op")
}

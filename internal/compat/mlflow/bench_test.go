package mlflow_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"falaj/internal/store"
	"falaj/internal/store/postgres"
	"falaj/internal/store/sqlite"
	"falaj/internal/store/storetest"
)

// The benchmarks drive the whole route (door, policy, JSON, tracking, database with fsync) in this process, without sockets.
// cpu-ms/op is user and system time of the process per call: on PostgreSQL the database's own time is not in it.

func cpu() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func databases(b *testing.B, fn func(b *testing.B, s server)) {
	open := map[string]func() (store.Driver, error){
		"sqlite":   func() (store.Driver, error) { return sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "f.db")) },
		"postgres": func() (store.Driver, error) { return postgres.Open(b.Context(), storetest.PostgresDSN(b)) },
	}
	for _, name := range []string{"sqlite", "postgres"} {
		b.Run(name, func(b *testing.B) {
			d, err := open[name]()
			if err != nil {
				b.Fatal(err)
			}
			fn(b, start(b, d))
		})
	}
}

// direct calls the handler without a socket.
func (s server) direct(b *testing.B, method, path, body string) string {
	r := httptest.NewRequest(method, "http://127.0.0.1/p/flights"+path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+s.token)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	s.Config.Handler.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		b.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	return w.Body.String()
}

// measure runs fn b.N times from the given number of clients and reports CPU per call.
func measure(b *testing.B, clients int, fn func(i int)) {
	b.ResetTimer()
	begin := cpu()
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := c; i < b.N; i += clients {
				fn(i)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpu()-begin).Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

func (s server) newRun(b *testing.B) string {
	text := s.direct(b, "POST", api+"runs/create", `{"start_time": 1}`)
	_, rest, _ := strings.Cut(text, `"run_uuid":"`)
	return rest[:32]
}

func BenchmarkLogMetric(b *testing.B) {
	databases(b, func(b *testing.B, s server) {
		for _, clients := range []int{1, 8} {
			b.Run(fmt.Sprint(clients), func(b *testing.B) {
				run := s.newRun(b)
				measure(b, clients, func(i int) {
					s.direct(b, "POST", api+"runs/log-metric", fmt.Sprintf(`{"run_id": %q, "key": "loss", "value": %g, "timestamp": %d, "step": %d}`, run, 1/float64(i+1), 1700000000000+i, i))
				})
			})
		}
	})
}

func batch(run string, keys, n int) string {
	var sb strings.Builder
	fmt.Fprintf(&sb, `{"run_id": %q, "metrics": [`, run)
	for i := range 1000 {
		if i > 0 {
			sb.WriteByte(',')
		}
		fmt.Fprintf(&sb, `{"key": "metric_%d", "value": %g, "timestamp": %d, "step": %d}`, i%keys, 1/float64(i+n+1), 1700000000000+n, n*1000/keys+i/keys)
	}
	sb.WriteString("]}")
	return sb.String()
}

func BenchmarkLogBatch1000(b *testing.B) {
	databases(b, func(b *testing.B, s server) {
		for _, keys := range []int{20, 1000} {
			for _, clients := range []int{1, 8} {
				b.Run(fmt.Sprintf("keys=%d/clients=%d", keys, clients), func(b *testing.B) {
					runs := make([]string, clients)
					for i := range runs {
						runs[i] = s.newRun(b)
					}
					bodies := make([]string, b.N)
					for i := range bodies {
						bodies[i] = batch(runs[i%clients], keys, i)
					}
					measure(b, clients, func(i int) { s.direct(b, "POST", api+"runs/log-batch", bodies[i]) })
				})
			}
		}
	})
}

func BenchmarkCreateRun(b *testing.B) {
	databases(b, func(b *testing.B, s server) {
		for _, clients := range []int{1, 8} {
			b.Run(fmt.Sprint(clients), func(b *testing.B) {
				measure(b, clients, func(i int) {
					s.direct(b, "POST", api+"runs/create", fmt.Sprintf(`{"start_time": %d, "run_name": "r", "tags": [{"key": "mlflow.user", "value": "amal"}, {"key": "mlflow.source.name", "value": "train.py"}]}`, i))
				})
			})
		}
	})
}

// seed makes runs of 20 metrics, 5 parameters and 4 tags.
func (s server) seed(b *testing.B, n int) {
	for i := range n {
		run := s.newRun(b)
		var sb strings.Builder
		fmt.Fprintf(&sb, `{"run_id": %q, "metrics": [`, run)
		for k := range 20 {
			if k > 0 {
				sb.WriteByte(',')
			}
			fmt.Fprintf(&sb, `{"key": "m%d", "value": %g, "timestamp": %d, "step": 1}`, k, float64((i*7919+k)%10007)/10007, i)
		}
		sb.WriteString(`], "params": [`)
		for k := range 5 {
			if k > 0 {
				sb.WriteByte(',')
			}
			fmt.Fprintf(&sb, `{"key": "p%d", "value": "%d"}`, k, (i+k)%10)
		}
		sb.WriteString(`], "tags": [`)
		for k := range 4 {
			if k > 0 {
				sb.WriteByte(',')
			}
			fmt.Fprintf(&sb, `{"key": "t%d", "value": "%d"}`, k, (i+k)%7)
		}
		sb.WriteString("]}")
		s.direct(b, "POST", api+"runs/log-batch", sb.String())
	}
}

func BenchmarkSearch10kRuns(b *testing.B) {
	databases(b, func(b *testing.B, s server) {
		s.seed(b, 10_000)
		exp := s.direct(b, "GET", api+"experiments/get-by-name?experiment_name=Default", "")
		_, exp, _ = strings.Cut(exp, `"experiment_id":"`)
		exp, _, _ = strings.Cut(exp, `"`)
		for _, c := range []struct{ name, query string }{
			{"metric", `"filter": "metrics.m3 > 0.9"`},
			{"three", `"filter": "metrics.m3 > 0.5 AND params.p1 = '3' AND tags.t1 = '2'"`},
			{"order", `"order_by": ["metrics.m5 DESC"]`},
			{"tag", `"filter": "tags.t0 = '3'"`},
		} {
			b.Run(c.name, func(b *testing.B) {
				measure(b, 1, func(int) {
					s.direct(b, "POST", api+"runs/search", `{"experiment_ids": ["`+exp+`"], "max_results": 100, `+c.query+`}`)
				})
			})
		}
	})
}

func BenchmarkHistory100k(b *testing.B) {
	databases(b, func(b *testing.B, s server) {
		run := s.newRun(b)
		for i := range 100 {
			s.direct(b, "POST", api+"runs/log-batch", batch(run, 1, i))
		}
		measure(b, 1, func(int) { s.direct(b, "GET", api+"metrics/get-history?run_id="+run+"&metric_key=metric_0", "") })
	})
}

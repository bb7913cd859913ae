package oip_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkServer measures the CPU time of a server in its own process for each one-row JSON request at 1, 8 and 32 clients:
// routing, token, policy, parsing, scoring and recording in memory.
func BenchmarkServer(b *testing.B) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestServeForBenchmark$")
	cmd.Env = append(os.Environ(), "FALAJ_SERVE=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	lines := bufio.NewScanner(out)
	url := ""
	for url == "" && lines.Scan() {
		url, _ = strings.CutPrefix(lines.Text(), "serves ")
	}
	cpu := func() time.Duration {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		if err != nil {
			b.Fatal(err)
		}
		f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+2:]))
		user, _ := strconv.Atoi(f[11])
		system, _ := strconv.Atoi(f[12])
		return time.Duration(user+system) * 10 * time.Millisecond
	}
	body := []byte(`{"inputs":[{"name":"x","shape":[1,7],"datatype":"FP64","data":[0.123456789,-1.5,22,1e-3,0.7071067811865476,4,null]}]}`)
	for _, clients := range []int{1, 8, 32} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
			before := cpu()
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			for range clients {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						req, _ := http.NewRequest("POST", url+"/p/flights/v2/models/kind/infer", bytes.NewReader(body))
						req.Header.Set("Authorization", "Bearer vera")
						res, err := client.Do(req)
						if err != nil {
							b.Error(err)
							return
						}
						_, _ = io.Copy(io.Discard, res.Body)
						res.Body.Close()
						if res.StatusCode != 200 {
							b.Errorf("status %d", res.StatusCode)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "server-cpu-us/op")
		})
	}
}

// TestServeForBenchmark is the server of BenchmarkServer; alone it has nothing to do.
func TestServeForBenchmark(t *testing.T) {
	if os.Getenv("FALAJ_SERVE") == "" {
		return
	}
	w := newWorld(t)
	fmt.Println("serves " + w.url)
	_, _ = io.Copy(io.Discard, os.Stdin) // until the benchmark closes it
}

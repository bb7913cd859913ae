package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// columns of the model in the demo, and one flight by its entity keys.
var (
	columns = [][2]any{{"dep_delay_3h", 4.0}, {"departures_3h", 55.0}, {"arr_delay_3h", -4.0}, {"late_share_3h", 0.12}, {"dest_delay_6h", 0.0}, {"temp", 45.0}, {"humid", 55.0}, {"wind_speed", 8.0},
		{"precip", 0.0}, {"pressure", 1018.0}, {"visib", 10.0}, {"distance", 1089.0}, {"hour", 13.0}, {"weekday", 3.0}, {"carrier_code", 4.0}}
	keys = [][2]any{{"origin", "JFK"}, {"dest", "MIA"}, {"carrier", "AA"}, {"distance", 1089.0}, {"hour", 13.0}, {"weekday", 3.0}}
)

// infer is a request of the Open Inference Protocol V2 with one row.
func infer(values [][2]any) []byte {
	type tensor struct {
		Name     string `json:"name"`
		Shape    []int  `json:"shape"`
		Datatype string `json:"datatype"`
		Data     []any  `json:"data"`
	}
	var in struct {
		Inputs []tensor `json:"inputs"`
	}
	for _, v := range values {
		kind := "FP64"
		if _, text := v[1].(string); text {
			kind = "BYTES"
		}
		in.Inputs = append(in.Inputs, tensor{v[0].(string), []int{1}, kind, []any{v[1]}})
	}
	b, err := json.Marshal(in)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return b
}

// target is a server that answers such requests.
type target struct {
	name, url, token string
	pid              int
}

// predict measures one-row requests over HTTP, with a token, policy and the prediction log, at 1, 8 and 32 clients. A peer gets
// the same body in the same run.
func predict(ctx context.Context, b *bench) (rows []row, err error) {
	w, err := b.world(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	targets := []target{{"falaj", w.base + "/p/flights/v2/models/delay/infer", w.bot, w.cmd.Process.Pid}}
	if b.peer != "" {
		targets = append(targets, target{"peer", b.peer, "", b.peerPID})
	}
	body := infer(columns)
	for _, t := range targets {
		if _, err := t.load(ctx, 1, 500, body); err != nil { // warm
			return rows, err
		}
	}
	for _, clients := range []int{1, 8, 32} {
		var ours time.Duration
		for _, t := range targets {
			r, err := t.load(ctx, clients, 10000, body)
			if err != nil {
				return rows, err
			}
			r.What = fmt.Sprintf("predict, %d client(s), %d columns: %s", clients, len(columns), t.name)
			if t.name == "falaj" {
				ours = r.CPU
			} else {
				r.Note += fmt.Sprintf(", %.1f times falaj's CPU", float64(r.CPU)/float64(max(ours, tick)))
			}
			rows = append(rows, r)
		}
	}
	r, err := targets[0].load(ctx, 8, 10000, infer(keys))
	if err != nil {
		return rows, err
	}
	r.What = "predict, 8 clients, by entity keys (3 views looked up): falaj"
	return append(rows, r), nil
}

// load sends n requests from some clients; the CPU is that of the server's process tree until it has been quiet for two seconds,
// so that what it does after the answer is counted.
func (t target) load(ctx context.Context, clients, n int, body []byte) (row, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	before, begin := treeCPU(t.pid), time.Now()
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	errs, took := make([]error, clients), make([][]time.Duration, clients)
	for c := range clients {
		wg.Go(func() {
			for left.Add(-1) >= 0 && errs[c] == nil {
				at := time.Now()
				errs[c] = t.one(ctx, client, body)
				took[c] = append(took[c], time.Since(at))
			}
		})
	}
	wg.Wait()
	wall := time.Since(begin)
	if err := errors.Join(errs...); err != nil {
		return row{}, err
	}
	time.Sleep(2 * time.Second)
	cpu := treeCPU(t.pid) - before
	return row{N: n, Unit: "requests", CPU: cpu, Wall: wall, Note: fmt.Sprintf("%.0f a second, ", float64(n)/wall.Seconds()) + percentiles(slices.Concat(took...))}, nil
}

// percentiles of wall times.
func percentiles(times []time.Duration) string {
	slices.Sort(times)
	return fmt.Sprintf("p50 %.3g ms, p99 %.3g ms", times[len(times)/2].Seconds()*1e3, times[len(times)*99/100].Seconds()*1e3)
}

func (t target) one(ctx context.Context, client *http.Client, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if t.token != "" {
		req.Header.Set("Authorization", "Bearer "+t.token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s %s", t.url, resp.Status, text)
	}
	return err
}

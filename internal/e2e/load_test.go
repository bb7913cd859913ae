package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const mlflow = "/p/tiny/api/2.0/mlflow/"

// load is a mixed load of several clients on a world whose model breaks has two versions, the first in production. Each
// client remembers what was acknowledged to it, and sends a request again only when the server was not there to answer it.
type load struct {
	*world
	waits bool // 503 that says what to do is waited out too
	stop  chan struct{}
	group sync.WaitGroup

	// Each client writes its own of these; they are read when all have ended.
	roles   roles
	keys    keys
	metrics [2]metrics
	asks    [2]asks
	moves   moves
	ingests ingests

	mu      sync.Mutex // guards what follows
	err     error
	acks    int // acknowledged requests
	again   int // requests that were sent again
	refused int // 503 among their answers
}

// newLoad brings the tiny project to where the load begins.
func newLoad(w *world, waits bool) *load {
	w.t.Helper()
	promoted(w)
	if r := w.amal.ok("run", "--param", "trees=30"); !strings.Contains(r.out, "breaks@2") {
		w.t.Fatalf("no second version: %s%s", r.out, r.err)
	}
	w.amal.ok("promote", "breaks@2", "dev")
	w.amal.ok("rollback", "breaks", "dev")
	w.settled()
	l := &load{world: w, waits: waits, stop: make(chan struct{})}
	var e struct {
		ID string `json:"experiment_id"`
	}
	w.must(200, w.call(w.amal.token, "POST", mlflow+"experiments/create", map[string]string{"name": "load"})).decode(w.t, &e)
	for i := range l.metrics {
		l.metrics[i] = metrics{load: l, experiment: e.ID, n: i}
	}
	for i := range l.asks {
		l.asks[i] = asks{load: l, n: i, answered: map[string]string{}}
	}
	l.roles, l.keys = roles{load: l, bound: map[string]bool{}}, keys{load: l, hooks: map[string]bool{}, tokens: map[string]token{}}
	l.moves, l.ingests = moves{load: l}, ingests{load: l}
	return l
}

// begin starts the clients.
func (l *load) begin() {
	clients := []func(i int){l.roles.next, l.keys.next, l.moves.next, l.ingests.next}
	for i := range l.metrics {
		clients = append(clients, l.metrics[i].next, l.asks[i].next)
	}
	for _, next := range clients {
		l.group.Go(func() {
			pace := time.NewTicker(15 * time.Millisecond) // two cores have to do other things too
			defer pace.Stop()
			for i := 0; l.failure() == nil; i++ {
				select {
				case <-l.stop:
					return
				case <-pace.C:
					next(i)
				}
			}
		})
	}
}

// end lets every client finish what it began, and gives what went wrong.
func (l *load) end() {
	l.t.Helper()
	close(l.stop)
	l.group.Wait()
	if err := l.failure(); err != nil {
		l.t.Fatal(err)
	}
	acks, again, refused := l.counts()
	l.t.Logf("%d requests acknowledged, %d sent again, %d answers of 503", acks, again, refused)
	l.settled()
}

func (l *load) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *load) counts() (acks, again, refused int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acks, l.again, l.refused
}

func (l *load) fail(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = fmt.Errorf(format, args...)
	}
}

// do sends until it is acknowledged. done are statuses that say so of a request that was sent before: its first answer got
// lost. ok is false when the load has failed.
func (l *load) do(send func() answer, done ...int) (a answer, ok bool) {
	for tries, deadline := 1, time.Now().Add(3*time.Minute); l.failure() == nil; tries++ {
		a = send()
		switch {
		case a.err == nil && a.status/100 == 2, a.err == nil && tries > 1 && slices.Contains(done, a.status):
			l.mu.Lock()
			l.acks++
			l.mu.Unlock()
			return a, true
		case a.err == nil && a.status == 503 && l.waits && says(a):
		case a.err == nil || time.Now().After(deadline):
			l.fail("%s: %d %s %v", a.what, a.status, a.body, a.err)
			return a, false
		}
		l.mu.Lock()
		l.again++
		if a.err == nil {
			l.refused++
		}
		l.mu.Unlock()
		time.Sleep(20 * time.Millisecond) // the server is a process that is down: nothing wakes us
	}
	return a, false
}

// says whether a 503 tells, in its dialect, that the database is what is missing, and what to do.
func says(a answer) bool {
	var p struct {
		Detail, Next string // our own
		Message      string // MLflow's
		Error        string // the Open Inference Protocol's
	}
	text := string(a.body)
	if json.Unmarshal(a.body, &p) != nil || p.Detail != "" && p.Next == "" {
		return false
	}
	return strings.Contains(text, "database") && strings.Contains(text, "ry again")
}

func (l *load) send(method, path string, in any) func() answer {
	return func() answer { return l.call(l.amal.token, method, path, in) }
}

// decode is for clients, which may not end the test.
func (l *load) decode(a answer, v any) bool {
	if err := json.Unmarshal(a.body, v); err != nil {
		l.fail("%s: %v: %s", a.what, err, a.body)
		return false
	}
	return true
}

// roles binds a role to service after service and takes every second one away.
type roles struct {
	*load
	bound map[string]bool // principal -> holds the role
}

func (r *roles) next(i int) {
	b := map[string]string{"project": "tiny", "role": "viewer", "principal": fmt.Sprintf("service:load-%d", i)}
	if _, ok := r.do(r.send("POST", apiBase+"/bindings", b)); !ok {
		return
	}
	r.bound[b["principal"]] = true
	if i%2 == 0 {
		return
	}
	if _, ok := r.do(r.send("POST", apiBase+"/bindings/remove", b), 404); ok {
		r.bound[b["principal"]] = false
	}
}

// keys makes tokens and webhooks and takes every second one back. No event has the webhooks' type.
type keys struct {
	*load
	hooks  map[string]bool // id -> is there
	tokens map[string]token
}

type token struct {
	secret string
	live   bool
}

func (k *keys) next(i int) {
	var made struct{ ID, Secret string }
	if i%10 != 0 {
		a, ok := k.do(k.send("POST", apiBase+"/tokens", map[string]any{"name": fmt.Sprintf("load-%d", i), "project": "tiny", "role": "viewer"}))
		if !ok || !k.decode(a, &made) {
			return
		}
		k.tokens[made.ID] = token{made.Secret, true}
		if i%2 == 0 {
			if _, ok := k.do(k.send("DELETE", apiBase+"/tokens/"+made.ID, nil)); ok {
				k.tokens[made.ID] = token{made.Secret, false}
			}
		}
		return
	}
	hook := map[string]any{"url": "http://127.0.0.1:9/load", "region": "ae", "types": []string{"nothing.of.this.type"}}
	a, ok := k.do(k.send("POST", project+"/webhooks", hook))
	if !ok || !k.decode(a, &made) {
		return
	}
	k.hooks[made.ID] = true
	if i > 100 || i%20 == 0 { // each is a subscriber: not too many stay
		if _, ok := k.do(k.send("DELETE", project+"/webhooks/"+made.ID, nil), 404); ok {
			k.hooks[made.ID] = false
		}
	}
}

// metrics logs points one by one and in batches, in run after run.
type metrics struct {
	*load
	experiment string
	n          int
	runs       []*logged
}

// logged is what was acknowledged of an MLflow run.
type logged struct {
	id     string
	points map[string]map[int64]float64 // key -> step -> value
	tags   map[string]string
	ended  bool
}

const stepsOfRun = 60

// storm is how long something that goes on by itself may take when every life of the server is shorter than a step of it.
const storm = 20 * time.Minute

func (m *metrics) next(i int) {
	step := int64(i % stepsOfRun)
	if step == 0 {
		a, ok := m.do(m.send("POST", mlflow+"runs/create", map[string]any{"experiment_id": m.experiment, "start_time": 1700000000000 + i}))
		var made struct {
			Run struct {
				Info struct {
					ID string `json:"run_id"`
				}
			}
		}
		if !ok || !m.decode(a, &made) {
			return
		}
		m.runs = append(m.runs, &logged{id: made.Run.Info.ID, points: map[string]map[int64]float64{"loss": {}, "acc": {}}, tags: map[string]string{}})
	}
	r := m.runs[len(m.runs)-1]
	point := func(key string, step int64) map[string]any {
		return map[string]any{"key": key, "value": float64(step)*1.5 + float64(m.n), "timestamp": 1700000000000 + step, "step": step}
	}
	keep := func(key string, step int64) { r.points[key][step] = float64(step)*1.5 + float64(m.n) }
	one := point("loss", step)
	one["run_id"] = r.id
	if _, ok := m.do(m.send("POST", mlflow+"runs/log-metric", one)); ok {
		keep("loss", step)
	}
	if step%5 == 0 {
		var list []any
		for s := step * 10; s < step*10+20; s++ {
			list = append(list, point("acc", s))
		}
		tag := fmt.Sprintf("at-%d", step)
		batch := map[string]any{"run_id": r.id, "metrics": list, "tags": []any{map[string]string{"key": tag, "value": "yes"}}}
		if _, ok := m.do(m.send("POST", mlflow+"runs/log-batch", batch)); ok {
			for s := step * 10; s < step*10+20; s++ {
				keep("acc", s)
			}
			r.tags[tag] = "yes"
		}
	}
	if step == stepsOfRun-1 {
		_, r.ended = m.do(m.send("POST", mlflow+"runs/update", map[string]any{"run_id": r.id, "status": "FINISHED", "end_time": 1700000100000}))
	}
}

// asks asks production under request ids, and says of every third prediction what turned out to be true.
type asks struct {
	*load
	n        int
	answered map[string]string // request -> prediction
	labels   int               // acknowledged
}

func (k *asks) next(i int) {
	id, at := fmt.Sprintf("load-%d-%d", k.n, i), time.Date(2024, 1, 5, 0, 0, 2*i+k.n, 0, time.UTC)
	a, ok := k.do(func() answer { return k.infer(k.amal.token, "production", id, at) })
	var out struct {
		Outputs []struct {
			Name string
			Data []any
		}
	}
	if !ok || !k.decode(a, &out) {
		return
	}
	k.answered[id] = fmt.Sprint(out.Outputs[1].Data[0])
	if i%3 == 0 {
		label := map[string]any{"request_id": id, "value": i / 3 % 2, "at": at.UnixMicro(), "known_at": at.Add(time.Hour).UnixMicro()}
		if _, ok := k.do(k.send("POST", project+"/models/breaks/labels", map[string]any{"labels": []any{label}})); ok {
			k.labels++
		}
	}
}

// moves brings version 2 to dev and rolls it back, again and again.
type moves struct {
	*load
	promoted, back []string // changes
}

func (m *moves) next(i int) {
	var c change
	key := fmt.Sprintf("load-%d", i)
	a, ok := m.do(m.send("POST", project+"/changes", map[string]any{"model": "breaks", "version": 2, "environment": "dev", "key": key}))
	if !ok || !m.decode(a, &c) {
		return
	}
	m.promoted = append(m.promoted, c.ID)
	for deadline := time.Now().Add(storm); c.State != "closed"; time.Sleep(50 * time.Millisecond) {
		if a, ok = m.do(m.send("GET", project+"/changes/"+c.ID, nil)); !ok || !m.decode(a, &c) {
			return
		}
		if slices.Contains([]string{"refused", "failed", "rejected"}, c.State) || time.Now().After(deadline) {
			m.fail("change %s is %s: %s", c.ID, c.State, a.body)
			return
		}
	}
	a, ok = m.do(m.send("POST", project+"/rollback", map[string]any{"model": "breaks", "environment": "dev", "reason": "load", "key": "back-" + key}))
	if ok && m.decode(a, &c) {
		m.back = append(m.back, c.ID)
	}
}

// ingests uploads a file of two hours and ingests it, one after the other.
type ingests struct {
	*load
	runs []string
}

func (g *ingests) next(i int) {
	b := []byte(readings(200+2*i, 202+2*i))
	if _, ok := g.do(func() answer { return g.request(g.amal.token, "PUT", project+"/blobs/"+digestOf(b), b) }); !ok {
		return
	}
	sources := map[string]any{"readings": []any{map[string]string{"name": fmt.Sprintf("readings-load-%d.csv", i), "digest": digestOf(b)}}}
	a, ok := g.do(g.send("POST", project+"/pipelines/runs", map[string]any{"pipeline": "ingest", "key": fmt.Sprintf("load-%d", i), "sources": sources}))
	var run struct{ ID, State string }
	if !ok || !g.decode(a, &run) {
		return
	}
	g.runs = append(g.runs, run.ID)
	for deadline := time.Now().Add(storm); run.State != "done"; time.Sleep(50 * time.Millisecond) {
		if a, ok = g.do(g.send("GET", project+"/pipelines/runs/"+run.ID, nil)); !ok || !g.decode(a, &run) {
			return
		}
		if run.State == "failed" || run.State == "cancelled" || time.Now().After(deadline) {
			g.fail("run %s is %s: %s", run.ID, run.State, a.body)
			return
		}
	}
}

// busy waits until so many more requests are acknowledged.
func (l *load) busy(t *testing.T, more int) {
	t.Helper()
	before, _, _ := l.counts()
	await(t, "the load to go on", 3*time.Minute, func() bool {
		acks, _, _ := l.counts()
		return acks >= before+more || l.failure() != nil
	})
	if err := l.failure(); err != nil {
		t.Fatal(err)
	}
}

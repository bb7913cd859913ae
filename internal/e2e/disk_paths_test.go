package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// path is one way to write. What is sent a second time is the same as the first.
type path struct {
	name    string
	foreign bool // the error is in the dialect of another system
	send    func(i int) answer
	there   func(i int) bool // whole; nil: it cannot be asked for
}

// TestFullDiskAtEveryPath writes by each path until the disk refuses. The refusal says what to do and leaves nothing, what
// was acknowledged before it is there, and when there is room the same request is taken.
func TestFullDiskAtEveryPath(t *testing.T) {
	t.Parallel()
	w, filler := small(t)
	promoted(w)
	if r := w.amal.ok("run", "--param", "trees=30"); !strings.Contains(r.out, "breaks@2") {
		t.Fatalf("no second version: %s%s", r.out, r.err)
	}
	w.settled()
	var run struct {
		Run struct {
			Info struct {
				ID  string `json:"run_id"`
				URI string `json:"artifact_uri"`
			}
		}
	}
	w.must(200, w.call(w.amal.token, "POST", mlflow+"runs/create", map[string]any{"experiment_id": experiment(t, w), "start_time": 1})).decode(t, &run)
	paths := w.paths(run.Run.Info.ID, run.Run.Info.URI)
	b := []byte(readings(200, 202))
	w.must(201, w.request(w.amal.token, "PUT", project+"/blobs/"+digestOf(b), b))
	before := w.predictions()
	begun := map[string]string{}
	var training struct {
		ID    string
		Steps []struct{ Kind, State string } `json:"step_list"`
	}
	w.must(201, w.call(w.amal.token, "POST", project+"/pipelines/runs", map[string]any{"key": "full-training", "params": map[string]string{"trees": "40"}})).decode(t, &training)
	begun["training"] = training.ID
	await(t, "the training to run", time.Minute, func() bool {
		w.get(project+"/pipelines/runs/"+training.ID, &training)
		return slices.ContainsFunc(training.Steps, func(s struct{ Kind, State string }) bool { return s.Kind == "train" && s.State == "running" })
	})
	fill(t, filler) // its outputs find no room

	dir := t.TempDir()
	w.refusal(w.amal.falaj("backup", filepath.Join(dir, "full.falaj"), "--region", "ae"), 1, "space")
	for _, glob := range []string{filepath.Join(dir, "*"), filepath.Join(w.data, "run", "backup", "*")} {
		if left, _ := filepath.Glob(glob); len(left) > 0 {
			t.Errorf("the backup left %v", left)
		}
	}
	// The two that go on by themselves: what was acknowledged ends, and a run ends well or says that the disk was full.
	runs := map[string]map[string]any{
		"ingest":   {"pipeline": "ingest", "key": "full-ingest", "sources": map[string]any{"readings": []any{map[string]string{"name": "readings-9.csv", "digest": digestOf(b)}}}},
		"training": {"params": map[string]string{"trees": "40"}},
	}
	for name, body := range runs {
		if begun[name] != "" {
			continue
		}
		a := w.call(w.amal.token, "POST", project+"/pipelines/runs", body)
		if a.status != 201 {
			w.problem(a, 503, "full", "space")
			continue
		}
		var r struct{ ID string }
		a.decode(t, &r)
		begun[name] = r.ID
	}
	promotion := map[string]any{"model": "breaks", "version": 2, "environment": "dev", "key": "full-promotion"}
	asked := w.call(w.amal.token, "POST", project+"/changes", promotion)
	if asked.status != 201 {
		w.problem(asked, 503, "full", "space")
	}
	// A log that cannot be written does not stop answers: they are counted as not logged.
	answered := 0
	for i := range 100 {
		a := w.infer(w.amal.token, "production", fmt.Sprintf("full-%d", i), time.Time{})
		if a.status == 200 {
			answered++
		} else {
			w.foreign(a, 503, "space")
		}
	}
	taken := map[string]int{}
	for _, p := range paths {
		taken[p.name] = w.until(p)
	}
	lost := w.unlogged()
	t.Logf("%d predictions answered, %d of them not logged", answered, lost)

	remove(t, filler)
	for _, p := range paths {
		i := taken[p.name]
		if a := p.send(i); a.status/100 != 2 {
			t.Errorf("%s with room again: %d %s %v", p.name, a.status, a.body, a.err)
		} else if p.there != nil && !p.there(i) {
			t.Errorf("%s was taken and is not there", p.name)
		}
	}
	for name, id := range begun {
		if r := ended(w, id); r.State != "done" && (r.State != "failed" || !strings.Contains(r.Error.Detail, "full") || r.Error.Next == "") {
			t.Errorf("%s: %+v", name, r)
		} else {
			t.Logf("the %s that was under way is %s: %s", name, r.State, r.Error.Detail)
		}
	}
	for name, body := range runs { // a key that failed is not tried again: another is
		body["key"] = "room-" + name
		var r struct{ ID string }
		w.must(201, w.call(w.amal.token, "POST", project+"/pipelines/runs", body)).decode(t, &r)
		if r := ended(w, r.ID); r.State != "done" {
			t.Errorf("%s with room again: %+v", name, r)
		}
	}
	var c change
	w.must(201, w.call(w.amal.token, "POST", project+"/changes", promotion)).decode(t, &c)
	await(t, "the promotion to end", time.Minute, func() bool {
		w.get(project+"/changes/"+c.ID, &c)
		return slices.Contains([]string{"closed", "failed", "refused"}, c.State)
	})
	if c.State != "closed" {
		t.Errorf("the promotion is %s", c.State)
	}
	w.infer(w.amal.token, "production", "room", time.Time{})
	if logged := w.predictions() - before; logged+lost != answered+1 {
		t.Errorf("%d predictions answered, %d logged and %d counted as not logged", answered+1, logged, lost)
	}
	file := filepath.Join(dir, "room.falaj")
	w.amal.ok("backup", file, "--region", "ae")
	w.amal.ok("backup", "verify", file, "--keys", filepath.Join(w.data, "keys"))
	w.clean()
}

// most is how often a path is tried: databases have some room of their own in files that are there.
const most = 1500

// until sends by one path until the disk refuses, and gives which one it refused.
func (w *world) until(p path) int {
	for i := range most {
		a := p.send(i)
		if a.err == nil && a.status/100 == 2 {
			if p.there != nil && i%50 == 0 && !p.there(i) {
				w.t.Errorf("%s %d was acknowledged and is not there", p.name, i)
			}
			continue
		}
		if p.foreign {
			w.foreign(a, 503, "full", "space")
		} else {
			w.problem(a, 503, "full", "space")
		}
		switch {
		case p.there == nil:
		case p.there(i):
			w.t.Errorf("%s was refused and is there", p.name)
		case i > 0 && !p.there(i-1):
			w.t.Errorf("%s was acknowledged and is not there", p.name)
		}
		w.t.Logf("%s: refused after %d", p.name, i)
		return i
	}
	w.t.Errorf("%s was never refused on a full disk", p.name)
	return most
}

func (w *world) paths(run, uri string) []path {
	token := w.amal.token
	has := func(at, word string) bool { return strings.Contains(string(w.call(token, "GET", at, nil).body), word) }
	blob := func(i int) []byte { return []byte(strings.Repeat(fmt.Sprintf("blob %d ", i), 100000)) }
	_, artifacts, _ := strings.Cut(uri, ":/")
	artifact := func(i int) string {
		return "/p/tiny/api/2.0/mlflow-artifacts/artifacts/" + strings.TrimLeft(artifacts, "/") + fmt.Sprintf("/f-%d.bin", i)
	}
	step := func(key string, i int) bool {
		var h struct{ Metrics []struct{ Step int } }
		w.get(mlflow+"metrics/get-history?run_id="+run+"&metric_key="+key, &h)
		return slices.ContainsFunc(h.Metrics, func(m struct{ Step int }) bool { return m.Step == i })
	}
	long := strings.Repeat("x", 4900)
	role := func(i int) map[string]string {
		return map[string]string{"project": "tiny", "role": "viewer", "principal": fmt.Sprintf("service:full-%d", i)}
	}
	return []path{
		{name: "blob", send: func(i int) answer { return w.request(token, "PUT", project+"/blobs/"+digestOf(blob(i)), blob(i)) },
			there: func(i int) bool { return w.call(token, "HEAD", project+"/blobs/"+digestOf(blob(i)), nil).status == 200 }},
		{name: "artifact", foreign: true, send: func(i int) answer { return w.request(token, "PUT", artifact(i), blob(i)) },
			there: func(i int) bool { return w.call(token, "GET", artifact(i), nil).status == 200 }},
		{name: "batch of a run", foreign: true, send: func(i int) answer {
			tags := []any{}
			for n := range 20 {
				tags = append(tags, map[string]string{"key": fmt.Sprintf("t-%d-%d.", i, n), "value": long})
			}
			return w.call(token, "POST", mlflow+"runs/log-batch", map[string]any{"run_id": run, "tags": tags, "metrics": []any{map[string]any{"key": "m", "value": i, "timestamp": 1, "step": i}}})
		}, there: func(i int) bool {
			point := step("m", i)
			first, last := has(mlflow+"runs/get?run_id="+run, fmt.Sprintf("t-%d-0.", i)), has(mlflow+"runs/get?run_id="+run, fmt.Sprintf("t-%d-19.", i))
			if point != first || first != last {
				w.t.Errorf("half of batch %d is there", i)
			}
			return point
		}},
		{name: "metric", foreign: true, send: func(i int) answer {
			return w.call(token, "POST", mlflow+"runs/log-metric", map[string]any{"run_id": run, "key": "one", "value": i, "timestamp": 1, "step": i})
		}, there: func(i int) bool { return step("one", i) }},
		{name: "label", send: func(i int) answer {
			return w.call(token, "POST", project+"/models/breaks/labels", map[string]any{"labels": []any{map[string]any{"request_id": fmt.Sprintf("full-%d", i), "value": 1}}})
		}},
		{name: "webhook", send: func(i int) answer {
			return w.call(token, "POST", project+"/webhooks", map[string]any{"url": fmt.Sprintf("http://127.0.0.1:9/%d.%s", i, long[:1800]), "region": "ae", "types": []string{"nothing.of.this.type"}})
		}, there: func(i int) bool { return has(project+"/webhooks", fmt.Sprintf("127.0.0.1:9/%d.", i)) }},
		{name: "role", send: func(i int) answer { return w.call(token, "POST", apiBase+"/bindings", role(i)) },
			there: func(i int) bool { return has(project+"/bindings", fmt.Sprintf("service:full-%d\"", i)) }},
		{name: "token", send: func(i int) answer {
			return w.call(token, "POST", apiBase+"/tokens", map[string]any{"name": fmt.Sprintf("full-%d.%s", i, long[:150]), "project": "tiny", "role": "viewer"})
		}, there: func(i int) bool { return has(apiBase+"/tokens", fmt.Sprintf("full-%d.", i)) }},
	}
}

// predictions is how many are logged.
func (w *world) predictions() (n int) {
	w.t.Helper()
	var traffic struct{ Items []struct{ Predictions int } }
	w.get(project+"/models/breaks/traffic", &traffic)
	for _, x := range traffic.Items {
		n += x.Predictions
	}
	return n
}

// unlogged is the server's own count of predictions that it answered and could not log.
func (w *world) unlogged() int {
	w.t.Helper()
	a := w.must(200, w.call(w.amal.token, "GET", "/metrics", nil))
	for line := range strings.Lines(string(a.body)) {
		if rest, ok := strings.CutPrefix(line, "falaj_predictions_not_logged_total "); ok {
			n, err := strconv.Atoi(strings.TrimSpace(rest))
			if err != nil {
				w.t.Fatal(err)
			}
			return n
		}
	}
	w.t.Fatalf("no count of predictions that are not logged: %.500s", a.body)
	return 0
}

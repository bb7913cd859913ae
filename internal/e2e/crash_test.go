package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// kill -9 of the server at random instants of a story that goes on against it with retries, as a careful client does. After
// each restart it finishes by itself; at the end every acknowledged answer's effect is there once, and the record is clean.
func TestKill(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	kills := 6
	if soak() {
		kills = 20
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := &story{world: w, versions: map[int64]string{}, changes: map[string]string{}}
	s.upload()
	done := make(chan struct{})
	var once sync.Once
	end := func() { once.Do(func() { close(done) }) }
	defer end()
	go func() {
		defer end()
		for round := 0; s.err == nil && (round < 2 || s.killed(0) < kills); round++ {
			s.round(round)
		}
	}()
	for running := true; running; {
		pause := time.NewTimer(100*time.Millisecond + time.Duration(random.Int64N(int64(4*time.Second))))
		select {
		case <-done:
			running = false
		case <-pause.C:
			if s.killed(0) < kills {
				w.kill()
				s.killed(1)
				w.start()
			}
		}
		pause.Stop()
	}
	if s.err != nil {
		t.Fatal(s.err)
	}
	t.Logf("%d kills, %d rounds, %d predictions, %d labels", s.killed(0), len(s.runs), len(s.predictions), s.labels)
	s.check()
}

// story does the rounds and keeps what was acknowledged. Only its own goroutine writes; check reads after the end.
type story struct {
	*world
	files       map[string]string
	yaml        string
	sources     []map[string]string
	err         error
	runs        []string          // acknowledged runs in order
	versions    map[int64]string  // version -> run that made it
	changes     map[string]string // idempotency key -> change
	moves       int               // acknowledged pointer moves of production
	predictions map[string]string // request -> prediction
	labels      int

	mu sync.Mutex // guards n
	n  int        // kills
}

func (s *story) killed(add int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n += add
	return s.n
}

// try repeats a request until it is acknowledged with one of the statuses. What the server says while it is not there or
// starting is no acknowledgement.
func (s *story) try(token, method, path string, in any, statuses ...int) answer {
	if s.err != nil {
		return answer{}
	}
	deadline := time.Now().Add(3 * time.Minute)
	for {
		a := s.call(token, method, path, in)
		if a.err == nil && slices.Contains(statuses, a.status) {
			return a
		}
		if a.err == nil && a.status < 500 {
			s.err = fmt.Errorf("%s: %d %s", a.what, a.status, a.body)
			return a
		}
		if time.Now().After(deadline) {
			s.err = fmt.Errorf("%s was never acknowledged: %d %s %w", a.what, a.status, a.body, a.err)
			return a
		}
		time.Sleep(50 * time.Millisecond) // the server is a process that is down: nothing wakes us
	}
}

// upload puts the project's texts and data into the store, as the CLI does.
func (s *story) upload() {
	s.files, s.predictions = map[string]string{}, map[string]string{}
	err := filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(s.dir, path)
		if err != nil {
			return err
		}
		s.must(201, s.request(s.amal.token, "PUT", project+"/blobs/"+digestOf(b), b), 200)
		switch {
		case name == "falaj.yaml":
			s.yaml = string(b)
		case strings.HasPrefix(name, "data/"):
			s.sources = append(s.sources, map[string]string{"name": filepath.Base(name), "digest": digestOf(b)})
		default:
			s.files[name] = digestOf(b)
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// until repeats a reading until it satisfies, through restarts.
func (s *story) until(path string, v any, enough func() bool) {
	for deadline := time.Now().Add(3 * time.Minute); s.err == nil; time.Sleep(50 * time.Millisecond) {
		a := s.try(s.amal.token, "GET", path, nil, 200)
		if s.err == nil && json.Unmarshal(a.body, v) == nil && enough() {
			return
		}
		if time.Now().After(deadline) {
			s.err = fmt.Errorf("%s never came to its end: %s", path, a.body)
		}
	}
}

// round applies, ingests, trains a version, brings it to production with an approval, predicts, labels, and rolls back.
func (s *story) round(n int) {
	tok := s.amal.token
	s.try(tok, "POST", project+"/apply", map[string]any{"yaml": s.yaml, "files": s.files}, 200)
	sources := s.sources[:min(n+1, len(s.sources))]
	var run struct {
		ID, State string
		Error     *struct{ Detail string }
		StepList  []struct {
			Kind    string
			Outputs []struct {
				Kind    string
				Version *int64
			}
		} `json:"step_list"`
	}
	body := map[string]any{"key": fmt.Sprintf("round-%d", n), "sources": map[string]any{"readings": sources}, "params": map[string]string{"trees": fmt.Sprint(20 + n)}}
	a := s.try(tok, "POST", project+"/pipelines/runs", body, 201)
	if s.err != nil || json.Unmarshal(a.body, &run) != nil {
		return
	}
	s.runs = append(s.runs, run.ID)
	s.until(project+"/pipelines/runs/"+run.ID, &run, func() bool { return run.State != "running" && run.State != "waiting" })
	if s.err == nil && run.State != "done" {
		s.err = fmt.Errorf("run %s of round %d is %s: %+v", run.ID, n, run.State, run.Error)
	}
	var version int64
	for _, st := range run.StepList {
		for _, o := range st.Outputs {
			if st.Kind == "register" && o.Kind == "model_version" && o.Version != nil {
				version = *o.Version
			}
		}
	}
	if s.err == nil && version == 0 {
		s.err = fmt.Errorf("run %s made no version: %+v", run.ID, run)
	}
	s.versions[version] = run.ID
	for _, env := range []string{"dev", "staging", "production"} {
		s.promote(version, env)
	}
	for i := range 20 {
		id := fmt.Sprintf("req-%d-%d", n, i)
		at := time.Date(2024, 1, 6, n, i, 0, 0, time.UTC)
		s.predict(id, at)
		if i%2 == 0 {
			s.try(tok, "POST", project+"/models/breaks/labels", map[string]any{"labels": []any{map[string]any{"request_id": id, "value": 1, "at": at.UnixMicro(), "known_at": at.Add(time.Hour).UnixMicro()}}}, 200, 201)
			s.labels++
		}
	}
	if n > 0 {
		s.rollback(version)
	}
}

func (s *story) predict(id string, at time.Time) {
	for deadline := time.Now().Add(time.Minute); s.err == nil; time.Sleep(50 * time.Millisecond) {
		a := s.infer(s.amal.token, "production", id, at)
		if a.err == nil && a.status == 200 {
			var out struct {
				Outputs []struct {
					Name string
					Data []any
				}
			}
			if err := json.Unmarshal(a.body, &out); err != nil {
				s.err = err
				return
			}
			s.predictions[id] = fmt.Sprint(out.Outputs[1].Data[0])
			return
		}
		if time.Now().After(deadline) || (a.err == nil && a.status < 500 && a.status != 404) {
			s.err = fmt.Errorf("prediction %s: %d %s %w", id, a.status, a.body, a.err)
		}
	}
}

type change struct {
	ID, State, Environment string
	ToVersion              int64 `json:"to_version"`
}

func (s *story) promote(version int64, env string) {
	key := fmt.Sprintf("breaks@%d to %s", version, env)
	var c change
	a := s.try(s.amal.token, "POST", project+"/changes", map[string]any{"model": "breaks", "version": version, "environment": env, "key": key}, 201)
	if s.err != nil || json.Unmarshal(a.body, &c) != nil {
		return
	}
	s.changes[key] = c.ID
	path := project + "/changes/" + c.ID
	final := func() bool { return slices.Contains([]string{"closed", "refused", "failed", "rejected"}, c.State) }
	s.until(path, &c, func() bool { return c.State == "pending_approval" || final() })
	if s.err == nil && c.State == "pending_approval" {
		// A try whose answer was lost may have been taken: then the change is past its approval, which 409 says.
		s.try(s.badr.token, "POST", path+"/approve", map[string]string{"comment": "story"}, 200, 409)
		s.until(path, &c, final)
	}
	if s.err == nil && c.State != "closed" {
		s.err = fmt.Errorf("%s is %s", key, c.State)
	}
}

func (s *story) rollback(from int64) {
	var m modelDetail
	back := func() bool {
		for _, e := range m.Environments {
			if e.Environment == "production" && e.Version != nil && *e.Version != from {
				return true
			}
		}
		return false
	}
	for deadline := time.Now().Add(time.Minute); s.err == nil; time.Sleep(50 * time.Millisecond) {
		// A rollback has no key: look before trying again, as its answer may have been lost.
		a := s.try(s.amal.token, "GET", project+"/models/breaks", nil, 200)
		if s.err != nil || json.Unmarshal(a.body, &m) != nil || back() {
			return
		}
		if a := s.call(s.amal.token, "POST", project+"/rollback", map[string]any{"model": "breaks", "environment": "production", "reason": "story"}); a.err == nil && a.status != 200 && a.status < 500 {
			s.err = fmt.Errorf("%s: %d %s", a.what, a.status, a.body)
		}
		if time.Now().After(deadline) {
			s.err = fmt.Errorf("the rollback from %d never came", from)
		}
	}
}

// check holds the end against what was acknowledged.
func (s *story) check() {
	t := s.t
	await(t, "everything to be settled", 2*time.Minute, func() bool {
		var x struct{ Settled bool }
		a := s.call(s.amal.token, "GET", project+"/settled", nil)
		return a.status == 200 && json.Unmarshal(a.body, &x) == nil && x.Settled
	})
	var m modelDetail
	s.get(project+"/models/breaks", &m)
	runs := map[string]int64{}
	for _, v := range m.VersionList {
		if v.Release == nil || v.RunID == nil {
			t.Errorf("version %d has no release or no run", v.Version)
			continue
		}
		if other, twice := runs[v.Params["trees"]]; twice {
			t.Errorf("versions %d and %d are of one training key", other, v.Version)
		}
		runs[v.Params["trees"]] = v.Version
	}
	if len(m.VersionList) != len(s.versions) {
		t.Errorf("%d versions, acknowledged were %d: %v", len(m.VersionList), len(s.versions), s.versions)
	}
	// One pointer move for each change, and each acknowledged promotion has its own.
	moved := map[string]int{}
	for _, p := range m.Timeline {
		if p.Change != nil && (p.Kind == "promote" || p.Kind == "rollback") {
			moved[*p.Change]++
		}
	}
	for c, n := range moved {
		if n != 1 {
			t.Errorf("change %s moved the pointer %d times", c, n)
		}
	}
	for key, id := range s.changes {
		if moved[id] != 1 {
			t.Errorf("%s was acknowledged as %s, but moved the pointer %d times", key, id, moved[id])
		}
	}
	for n, id := range s.runs {
		if r := ended(s.world, id); r.State != "done" {
			t.Errorf("run %s is %s", id, r.State)
		}
		body := map[string]any{"key": fmt.Sprintf("round-%d", n), "params": map[string]string{"trees": fmt.Sprint(20 + n)}}
		var again struct{ ID string }
		s.must(201, s.call(s.amal.token, "POST", project+"/pipelines/runs", body)).decode(t, &again)
		if again.ID != id {
			t.Errorf("the key of round %d gives run %s, was %s", n, again.ID, id)
		}
	}
	seen := map[string]string{}
	for request, id := range s.predictions {
		if other, twice := seen[id]; twice {
			t.Errorf("%s and %s are both prediction %s", other, request, id)
		}
		seen[id] = request
		if a := s.call(s.amal.token, "GET", project+"/predictions/"+id+"/why", nil); a.status != 200 {
			t.Errorf("prediction %s of %s was acknowledged and is gone: %d %s", id, request, a.status, a.body)
		}
	}
	var traffic struct{ Items []struct{ Predictions int } }
	s.get(project+"/models/breaks/traffic", &traffic)
	total := 0
	for _, x := range traffic.Items {
		total += x.Predictions
	}
	if total < len(s.predictions) || total > len(s.predictions)+s.killed(0) {
		t.Errorf("%d predictions are counted, acknowledged were %d, and %d kills may have cost an answer each", total, len(s.predictions), s.killed(0))
	}
	s.clean()
}

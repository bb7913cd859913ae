package api_test

import (
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"testing"

	"falaj/internal/api"
	"falaj/internal/delivery"
	"falaj/internal/process"
	"falaj/internal/store/storetest"
)

// TestProcessFollowsAProject holds the diagram to what happens: an empty project is quiet, then data, versions and a change show.
func TestProcessFollowsAProject(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	read := func() map[string]api.ProcessStage {
		var p api.Process
		w.get("/process", "Process", &p)
		out := map[string]api.ProcessStage{}
		for _, s := range p.Stages {
			out[s.Name] = s
		}
		if len(p.Stages) != 9 || len(p.Edges) != len(process.Edges()) || len(p.Wide.Boxes) != 9 || len(p.Narrow.Boxes) != 9 {
			t.Fatalf("%d stages, %d edges, %d and %d boxes", len(p.Stages), len(p.Edges), len(p.Wide.Boxes), len(p.Narrow.Boxes))
		}
		return out
	}
	quiet := read()
	keepFixture(t, w)
	for name, s := range quiet {
		if s.State != "idle" || s.Note != nil || s.Last != nil || len(s.Emits) == 0 {
			t.Errorf("%s of an empty project: %+v", name, s)
		}
	}
	if status, _ := w.call("nobody", "GET", "/projects/flights/process", nil); status != http.StatusForbidden {
		t.Errorf("a stranger reads the process: %d", status)
	}

	w.datasets() // its last file is refused
	w.train("delay")
	now := read()
	if s := now["data"]; s.State != "attention" || s.Note == nil || s.Note.Code != "process.aside" || s.Note.Args["source"] != "2013-03.csv" || !slices.Contains(s.Counts, api.ProcessCount{Name: "datasets", Value: 2}) ||
		s.Last == nil || s.Last.Type != "dataset.version.created" || s.Last.Ref == nil || s.Last.Ref.Kind != "dataset_version" || s.Last.Ref.ID != "departures" || *s.Last.Ref.Version != 1 {
		t.Errorf("data: %+v %+v %+v", s, s.Note, s.Last)
	}
	if s := now["tracking"]; s.State != "idle" || s.Last == nil || s.Last.Type != "run.finished" || s.Last.Ref == nil || s.Last.Ref.Kind != "run" {
		t.Errorf("tracking: %+v %+v", s, s.Last)
	}
	if s := now["registry"]; s.Last == nil || s.Last.Type != "release.created" || s.Last.Ref == nil || s.Last.Ref.ID != "delay" || !slices.Contains(s.Counts, api.ProcessCount{Name: "releases", Value: 1}) {
		t.Errorf("registry: %+v %+v", s, s.Last)
	}

	ok(t, w.delivery.Define(storetest.As("amal"), project, "delay", delivery.Policy{Gates: map[string][]delivery.Gate{"production": {{Kind: delivery.GateTests}, {Kind: delivery.GateApproval, Group: "ml-risk", NotAuthor: true}}}}))
	c := w.promote("delay", 1)
	w.until(c, delivery.PendingApproval)
	if s := read()["delivery"]; s.State != "attention" || s.Note.Code != "process.waiting" || s.Last.Type != "change.waiting" || s.Last.Ref.ID != c || !slices.Contains(s.Counts, api.ProcessCount{Name: "waiting", Value: 1}) {
		t.Errorf("delivery: %+v %+v", s, s.Last)
	}
	must[delivery.Detail](t)(w.delivery.Approve(storetest.As("badr"), project, c, "seen"))
	w.until(c, delivery.Closed)
	now = read()
	if s := now["delivery"]; s.State != "idle" || s.Last.Type != "change.closed" {
		t.Errorf("delivery: %+v %+v", s, s.Last)
	}
	if s := now["serving"]; s.State != "idle" || s.Last.Type != "serving.activated" || s.Last.Ref == nil || s.Last.Ref.Kind != "model" || s.Last.Ref.ID != "delay" || !slices.Contains(s.Counts, api.ProcessCount{Name: "answering", Value: 1}) {
		t.Errorf("serving: %+v %+v", s, s.Last)
	}
}

// keepFixture holds the empty process that the pages' fixtures stand on to the server's own answer.
func keepFixture(t *testing.T, w *world) {
	t.Helper()
	var p api.Process
	w.get("/process", "Process", &p)
	p.Behind = 0 // that depends on the moment
	got, err := json.MarshalIndent(p, "", " ")
	ok(t, err)
	const file = "../../ui/dev/fixtures/process.json"
	if *update {
		ok(t, os.WriteFile(file, append(got, '\n'), 0o644))
	}
	if want := must[[]byte](t)(os.ReadFile(file)); string(want) != string(got)+"\n" {
		t.Errorf("%s differs from the server's answer: go test ./internal/api -run Process -update", file)
	}
}

package uitest

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"
)

// demo is a played story with its server up.
type demo struct {
	base   string
	people map[string]string // name to password
}

// playDemo builds the binary and plays `falaj demo flights --fast` into a folder of its own. The flights come through
// pip, or from the folder in $FALAJ_FLIGHTS. $FALAJ_TEST_DEMO ("URL DIR") takes a story that stands already,
// for whoever works on the pages.
func playDemo(t *testing.T) demo {
	t.Helper()
	if at := strings.Fields(os.Getenv("FALAJ_TEST_DEMO")); len(at) == 2 {
		return demo{at[0], readPeople(t, at[1])}
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "falaj")
	build := exec.Command("go", "build", "-o", binary, "./cmd/falaj")
	build.Dir = root(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen := l.Addr().String()
	l.Close()
	data := filepath.Join(dir, "data")
	args := []string{"demo", "flights", "--fast", "--data", data, "--listen", listen}
	if input := os.Getenv("FALAJ_FLIGHTS"); input != "" {
		args = append(args, "--input", input)
	}
	cmd := exec.Command(binary, args...)
	t.Cleanup(func() { stopServer(t, data) }) // the demo leaves its server up on purpose
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("falaj %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return demo{"http://" + listen, readPeople(t, data)}
}

// stopServer ends the server that the demo started, by the id that it wrote down.
func stopServer(t *testing.T, data string) {
	raw, err := os.ReadFile(filepath.Join(data, "demo", "server.pid"))
	if err != nil {
		return // it never started
	}
	var pid int
	if err := json.Unmarshal([]byte(strings.TrimSpace(string(raw))), &pid); err != nil {
		t.Errorf("server.pid: %v", err)
		return
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return
	}
	_ = p.Signal(syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	// Gone when the process no longer takes a signal; it is not a child of this test, so there is nothing to wait on.
	for ctx.Err() == nil && p.Signal(syscall.Signal(0)) == nil {
		_ = exec.CommandContext(ctx, "tail", "--pid", strings.TrimSpace(string(raw)), "-f", "/dev/null").Run()
	}
}

func readPeople(t *testing.T, data string) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(data, "demo", "people.json"))
	if err != nil {
		t.Fatal(err)
	}
	type person struct{ Password string }
	var all struct{ Layla, Omar person }
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	return map[string]string{"layla": all.Layla.Password, "omar": all.Omar.Password}
}

// ask reads or changes something through the page's own session.
func ask[T any](p *Page, method, path string, body any) T {
	p.t.Helper()
	sent, err := json.Marshal(body)
	if err != nil {
		p.t.Fatal(err)
	}
	raw := run(p, chromedp.Evaluate[string](`fetch("/api/falaj/v1/projects/flights/`+path+`", { method: "`+method+`", headers: { "Content-Type": "application/json" }, body: `+
		map[bool]string{true: "undefined", false: quote(string(sent))}[method == http.MethodGet]+` }).then(async (r) => r.ok ? r.text() : Promise.reject(new Error(await r.text())))`, chromedp.EvalAwaitPromise))
	var v T
	if err := json.Unmarshal([]byte(raw), &v); err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	return v
}

type list[T any] struct{ Items []T }

type storyChange struct {
	ID, State, Environment string
	To                     int64 `json:"to_version"`
	Note                   *struct{ Code string }
}

type storyRun struct{ ID, Pipeline string }

type storyBatch struct{ ID, Scope, Source string }

// places finds where the story happened, by what happened there.
func places(t *testing.T, p *Page) map[string]string {
	t.Helper()
	const top = "#/p/flights"
	out := map[string]string{
		"home": top + "/models", "process": top + "/process", "model": top + "/models/delay", "versions": top + "/models/delay?version=4", "changes": top + "/changes", "pipelines": top + "/pipelines",
		"datasets": top + "/data", "dataset": top + "/data/flights", "version": top + "/data/flights/2", "derived": top + "/data/departures/2", "lineage-all": top + "/lineage",
		"lineage": top + "/lineage?focus=model_version%3Adelay%404", "audit": top + "/audit", "runs": top + "/runs",
	}
	for _, c := range ask[list[storyChange]](p, "GET", "changes", nil).Items {
		switch {
		case c.State == "refused" && c.Note != nil && c.Note.Code == "tests.failed":
			out["change"] = top + "/changes/" + c.ID
		case c.State == "refused" && c.Note != nil && c.Note.Code == "change.loses_to_champion":
			out["change-loses"] = top + "/changes/" + c.ID
		case c.State == "closed" && c.Environment == "production" && c.To == 4:
			out["change-approved"] = top + "/changes/" + c.ID
		}
	}
	for _, r := range ask[list[storyRun]](p, "GET", "pipelines/runs", nil).Items {
		if r.Pipeline == "retrain" {
			out["pipeline"] = top + "/pipelines/" + r.ID
		}
	}
	for _, q := range ask[list[storyBatch]](p, "GET", "datasets/flights/quarantine", nil).Items {
		if q.Scope == "refused" {
			out["quarantine"] = top + "/data/flights/quarantine/" + q.ID
		}
	}
	runs := ask[list[storyRun]](p, "GET", "experiments/"+ask[list[storyRun]](p, "GET", "experiments", nil).Items[0].ID+"/runs", nil).Items
	out["run"] = top + "/runs/" + runs[0].ID
	out["compare"] = top + "/compare?ids=" + runs[0].ID + "," + runs[1].ID + "," + runs[2].ID
	for _, want := range []string{"change", "change-loses", "change-approved", "pipeline", "quarantine"} {
		if out[want] == "" {
			t.Fatalf("the story has no %s", want)
		}
	}
	return out
}

// TestStoryIsOnThePages plays the demo and looks at it as its people do. FALAJ_SHOTS=dir keeps the pictures of docs/img.
func TestStoryIsOnThePages(t *testing.T) {
	t.Parallel()
	d := playDemo(t)
	browser := Start(t)
	omar := browser.Open(t, d.base, "", View{})
	omar.Login("omar", d.people["omar"])
	at := places(t, omar)

	for name, wants := range map[string][]string{
		"process":         {"dataset.version.created", "quality.degraded", "PredictionSink", "Delivery", "Every event is taken"},
		"home":            {"delay", "production", "@4", "Recent changes", "Serves in production"},
		"model":           {"Refused", "@2 in staging", "delays are understood as minutes", "Promoted @1 → @4 in production", "approved by omar", "New challenger", "better by", "No drift that matters"},
		"versions":        {"What made this release", "departures@2", "model.lgb", "falaj why flights/delay@4"},
		"change":          {"28 of 29 tests passed", "delays are understood as minutes", "was the model trained on another unit?", "A gate refused it"},
		"change-loses":    {"Not better than @4", "Better than the champion on the newest labelled window"},
		"change-approved": {"Approved omar", "falaj rollback flights/delay production"},
		"quarantine":      {"File refused", "minute of type bigint", "origin one of EWR, JFK, LGA", "9,390 of 28,330 rows"},
		"dataset":         {"2013-04.csv", "File refused", "delay@4"},
		"version":         {"336,776", "15 of 15 checks passed", "2013-04.csv"},
		"pipeline":        {"challenge in production", "Quality fell behind", "train delay"},
		"lineage":         {"12 files", "flights@2", "weather@2", "delay@4", "delay/production"},
		"runs":            {"Finished", "test_auc"},
		"compare":         {"history_days", "91"},
		"audit":           {"change.approve", "refused"},
	} {
		omar.Visit(at[name] + map[bool]string{true: "?action=change.approve"}[name == "audit"])
		text := strings.Join(strings.Fields(omar.Text("main")+" "+run(omar, chromedp.Evaluate[string](`[...document.querySelectorAll("main svg text, main svg title")].map((e) => e.textContent).join(" ")`))), " ")
		for _, want := range wants {
			if !strings.Contains(bare(text), want) {
				t.Errorf("%s does not say %q:\n%s", name, want, text)
			}
		}
	}
	omar.Visit(at["model"])
	if label := run(omar, chromedp.Evaluate[string](`[...document.querySelectorAll("main svg[aria-label], main [role=img]")].map((e) => e.getAttribute("aria-label")).join("\n")`)); !strings.Contains(label, "labelled windows") {
		t.Errorf("the model page draws no labelled windows:\n%s", label)
	}
	omar.Visit(at["audit"])
	omar.Press("Verify the chain")
	omar.WaitText("The chain is whole")

	layla := browser.Open(t, d.base, "", View{})
	layla.Login("layla", d.people["layla"])
	// Omar looks at the process while Layla asks for a change: his page learns of it by itself.
	omar.Visit(at["process"])
	at["change-waiting"] = "#/p/flights/changes/" + pending(t, layla)
	run(omar, chromedp.Poll[bool](`(() => { const stage = document.querySelector('a[data-stage="delivery"]'); return stage?.dataset.state === "attention" && stage.querySelector("text.last").textContent === "change.waiting"; })()`, chromedp.WithPollingTimeout(limit)))
	if layla.Enabled("Approve") || !strings.Contains(layla.Text(".decision"), "You requested this change") {
		t.Errorf("the author may approve, or is not told why not:\n%s", layla.Text(".decision"))
	}
	omar.Visit(at["change-waiting"])
	if !omar.Enabled("Approve") {
		t.Errorf("omar may not approve:\n%s", omar.Text(".decision"))
	}
	for _, p := range []*Page{omar, layla} {
		for _, complaint := range p.Complaints() {
			t.Errorf("console: %s", complaint)
		}
	}
	lookEverywhere(t, browser, d, at)
}

// pending asks for the newest challenger in production and gives the change that waits for a person. What stands from an
// earlier look at the same story is taken as it is.
func pending(t *testing.T, layla *Page) string {
	t.Helper()
	last := ""
	before := ask[list[storyChange]](layla, "GET", "changes", nil).Items
	for _, step := range []struct{ environment, state, words string }{{"staging", "closed", "Closed"}, {"production", "pending_approval", "Waiting for approval"}} {
		id := ""
		for _, c := range before {
			if c.To == 5 && c.Environment == step.environment && c.State == step.state {
				id = c.ID
			}
		}
		if id == "" {
			id = ask[storyChange](layla, "POST", "changes", map[string]any{"model": "delay", "version": 5, "environment": step.environment, "reason": "a bit better on December"}).ID
		}
		layla.Visit("#/p/flights/changes/" + id)
		layla.WaitText(step.words)
		last = id
	}
	return last
}

// lookEverywhere visits every page of the story in four modes and at 380 px.
func lookEverywhere(t *testing.T, browser *Browser, d demo, at map[string]string) {
	shots := os.Getenv("FALAJ_SHOTS")
	for _, view := range []View{
		{Language: "en", Theme: "light"}, {Language: "en", Theme: "dark"}, {Language: "ar", Theme: "light"}, {Language: "ar", Theme: "dark"},
		{Language: "ar", Theme: "light", Width: 380, Height: 800},
	} {
		v := view.filled()
		p := browser.Open(t, d.base, "", v)
		p.Login("omar", d.people["omar"])
		for name, hash := range at {
			p.Visit(hash)
			if n := p.Count(".error"); n != 0 {
				t.Errorf("%s %v: shows %d errors: %s", name, v, n, p.Text(".error"))
			}
			if wide := p.Overflow(); len(wide) != 0 {
				t.Errorf("%s %v: wider than the window: %q", name, v, wide)
			}
			for _, finding := range p.Axe() {
				t.Errorf("%s %v: axe: %s", name, v, finding)
			}
			if v.Language == "ar" {
				for _, text := range p.Foreign(latin()...) {
					t.Errorf("%s: not Arabic: %q", name, text)
				}
			}
			if file := picture(name, v); shots != "" && file != "" {
				p.ShotTo(filepath.Join(shots, file), map[bool]int64{true: 820, false: 1720}[name == "quarantine" || name == "lineage" || name == "process"])
			}
		}
		for _, complaint := range p.Complaints() {
			t.Errorf("%v: console: %s", v, complaint)
		}
	}
}

// picture is the file of docs/img that shows this page, or "".
func picture(name string, v View) string {
	switch {
	case v.Width < 600:
		return ""
	case name == "model" && v.Language == "ar" && v.Theme == "dark":
		return "model-ar-dark.png"
	case v.Language != "en" || v.Theme != "light":
		return ""
	}
	return map[string]string{"home": "home.png", "process": "process.png", "model": "model.png", "change": "change.png", "lineage": "lineage.png", "quarantine": "quarantine.png"}[name]
}

// bare is the text without the marks that keep machine names in their direction.
func bare(s string) string { return strings.NewReplacer("\u2066", "", "\u2069", "").Replace(s) }

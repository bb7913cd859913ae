package uitest

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

const waiting = "#/p/flights/changes/chg_01jdq9x3y4z5a6b7"

func TestSignInReturnsToWhereOneWanted(t *testing.T) {
	t.Parallel()
	p := Open(t, Fixtures(t), "")
	p.Visit("#/p/flights/audit")
	if !strings.HasPrefix(p.Hash(), "#/login") {
		t.Fatalf("not signed in, yet at %s", p.Hash())
	}
	p.Fill(`input[name="user"]`, "approver")
	p.Fill(`input[name="password"]`, "wrong")
	p.Press("Sign in")
	if text := p.Text(".error"); !strings.Contains(text, "name or password is wrong") || !strings.Contains(text, "Next:") {
		t.Errorf("a wrong password is explained as %q", text)
	}
	p.Fill(`input[name="password"]`, "right")
	p.Press("Sign in")
	if got := p.Hash(); got != "#/p/flights/audit" {
		t.Errorf("after signing in at %s, want #/p/flights/audit", got)
	}
	p.Press("Verify the chain")
	p.WaitText("The chain is whole")
	p.Click(`button[title="Sign out"]`)
	if !strings.HasPrefix(p.Hash(), "#/login") {
		t.Errorf("after signing out at %s", p.Hash())
	}
}

func TestSignInDoesNotLeadAway(t *testing.T) {
	t.Parallel()
	base := Fixtures(t)
	p := Open(t, base, "")
	p.Visit("#/login?next=https%3A%2F%2Fexample.com%2F")
	p.Fill(`input[name="user"]`, "approver")
	p.Fill(`input[name="password"]`, "right")
	p.Press("Sign in")
	if got := run(p, chromedp.Location()); !strings.HasPrefix(got, base+"/#/p/flights") {
		t.Errorf("a link with a foreign next= led to %s", got)
	}
}

func TestRequesterSeesWhyTheyMayNotApprove(t *testing.T) {
	t.Parallel()
	base := Fixtures(t)
	p := Open(t, base, "falaj_session=author")
	p.Visit(waiting)
	if p.Enabled("Approve") {
		t.Error("the requester can press Approve")
	}
	if text := p.Text(".decision"); !strings.Contains(text, "You requested this change") {
		t.Errorf("the reason is missing: %q", text)
	}
}

func TestAnotherPersonApproves(t *testing.T) {
	t.Parallel()
	base := Fixtures(t)
	browser := Start(t)
	author := browser.Open(t, base, "falaj_session=author", View{})
	author.Visit(waiting)
	approver := browser.Open(t, base, "falaj_session=approver", View{Language: "ar"})
	approver.Visit(waiting)
	approver.Press("اعتماد")
	approver.Fill("dialog[open] textarea", "نظرت في يوليو وأغسطس")
	approver.Press("اعتماد")
	approver.WaitText("قيد التنفيذ")
	// The author's page learns of it by itself.
	author.WaitText("Implementing")
	author.WaitText("نظرت في يوليو وأغسطس")
	for _, p := range []*Page{author, approver} {
		for _, complaint := range p.Complaints() {
			t.Errorf("console: %s", complaint)
		}
	}
}

func TestRejectionNeedsAReason(t *testing.T) {
	t.Parallel()
	p := Open(t, Fixtures(t), "falaj_session=approver")
	p.Visit(waiting)
	p.Press("Reject")
	p.Press("Reject") // the form is not valid: nothing is sent
	if p.Count("dialog[open]") != 1 {
		t.Fatal("a rejection without a reason was sent")
	}
	p.Fill("dialog[open] textarea", "July is too short")
	p.Press("Reject")
	p.WaitText("July is too short")
}

func TestSetUpTokenLeavesTheAddressBar(t *testing.T) {
	t.Parallel()
	p := Open(t, Fixtures(t), "falaj_session=fresh")
	p.Visit("#/setup?token=one-use-token")
	if strings.Contains(p.Hash(), "one-use-token") {
		t.Errorf("the token is still in the address: %s", p.Hash())
	}
	p.Fill(`input[name="user"]`, "approver")
	p.Fill(`input[name="password"]`, "correct horse battery")
	p.Fill(`input[name="again"]`, "correct horse")
	if text := p.Text("main"); !strings.Contains(text, "The two passwords differ.") {
		t.Errorf("two passwords pass: %q", text)
	}
	p.Fill(`input[name="again"]`, "correct horse battery")
	p.Press("Create administrator")
	if !strings.HasPrefix(p.Hash(), "#/p/flights") {
		t.Errorf("after set-up at %s", p.Hash())
	}
}

func TestKeyboardReachesEverything(t *testing.T) {
	t.Parallel()
	p := Open(t, Fixtures(t), "falaj_session=approver")
	p.Visit("#/p/flights/models")
	for keys, want := range map[string]string{"go": "process", "gc": "changes", "gp": "pipelines", "gr": "runs", "gd": "data", "gl": "lineage", "ga": "audit", "gm": "models"} {
		p.Keys(keys)
		if got := p.Hash(); got != "#/p/flights/"+want {
			t.Errorf("%s leads to %s", keys, got)
		}
	}
	p.Visit("#/p/flights/models")
	p.Keys("/")
	p.Keys("canc")
	if got := p.Hash(); got != "#/p/flights/models?filter=canc" {
		t.Errorf("the filter is not in the address: %s", got)
	}
	if n := p.Count("li.model"); n != 1 {
		t.Errorf("the filter leaves %d models, want 1", n)
	}
	p.Reload()
	if n := p.Count("li.model"); n != 1 {
		t.Errorf("after a reload %d models, want 1", n)
	}
	p.Visit("#/p/flights/audit")
	p.Keys("?")
	if p.Count("dialog[open] kbd") == 0 {
		t.Error("? does not show the shortcuts")
	}
	p.Keys(kb.Escape)
	if p.Count("dialog[open]") != 0 {
		t.Error("Escape does not close the shortcuts")
	}
}

func TestRunsAreCompared(t *testing.T) {
	t.Parallel()
	base := Fixtures(t)
	browser := Start(t)
	for _, view := range []View{{}, {Theme: "dark"}, {Language: "ar"}, {Language: "ar", Theme: "dark", Width: 380}} {
		v := view.filled()
		p := browser.Open(t, base, "falaj_session=approver", v)
		p.Visit("#/p/flights/runs")
		for i := range 3 {
			p.Click(`tbody tr:nth-child(` + string(rune('1'+i)) + `) input[type="checkbox"]`)
		}
		p.Click("a.compare")
		if !strings.Contains(p.Hash(), "compare") { // news moved the link from under the pointer
			p.Click("a.compare")
		}
		if n := p.Count("thead th"); n != 3 {
			t.Fatalf("%d runs side by side, want 3:\n%s", n, p.Text("main"))
		}
		differing := p.Count("tbody tr")
		p.Click(`main header input[type="checkbox"]`)
		if all := p.Count("tbody tr"); all <= differing {
			t.Errorf("only differences: %d rows, all: %d", differing, all)
		}
		for _, finding := range p.Axe() {
			t.Errorf("%v: axe: %s", v, finding)
		}
		if wide := p.Overflow(); len(wide) != 0 {
			t.Errorf("%v: wider than the window: %q", v, wide)
		}
		if dir := os.Getenv("FALAJ_SHOTS"); dir != "" {
			p.Shot(filepath.Join(dir, "compare-"+v.Language+"-"+v.Theme+".png"))
		}
	}
}

func TestLineageMovesItsFocus(t *testing.T) {
	t.Parallel()
	p := Open(t, Fixtures(t), "falaj_session=approver")
	p.Visit("#/p/flights/lineage")
	run(p, chromedp.Evaluate[bool](`[...document.querySelectorAll("svg a")].find((a) => a.textContent.includes("flights@6")).dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true }))`))
	p.WaitText("Whole project")
	if got := p.Hash(); got != "#/p/flights/lineage?focus=dataset_version%3Aflights%406" {
		t.Errorf("focus is not in the address: %s", got)
	}
	p.Press("Open")
	if got := p.Hash(); got != "#/p/flights/data/flights/6" {
		t.Errorf("Open leads to %s", got)
	}
}

func TestEventsReloadOnlyWhatTheyTouch(t *testing.T) {
	t.Parallel()
	base := Fixtures(t)
	p := Open(t, base, "falaj_session=approver")
	p.Visit("#/p/flights/data")
	p.WaitText("Live")
	// Counts the requests that follow; fetch is the pages' only way out besides the stream.
	run(p, chromedp.Evaluate[bool](`(() => { const real = fetch; window.asked = []; window.fetch = (url, init) => { window.asked.push(String(url)); return real(url, init); }; return true; })()`))
	send := func(kind, subject string) {
		r, err := http.Post(base+"/dev/event?type="+kind+"&subject="+subject, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
	}
	send("change.approved", "change/chg_1") // of no interest to this page
	send("dataset.version.created", "dataset/flights")
	run(p, chromedp.Poll[bool](`window.asked.length > 0`, chromedp.WithPollingTimeout(limit)))
	p.Settle()
	if asked := run(p, chromedp.Evaluate[[]string](`window.asked`)); len(asked) != 1 || !strings.HasSuffix(asked[0], "/projects/flights/datasets") {
		t.Errorf("two events caused %q, want one read of the datasets", asked)
	}
}

// TestProcessMovesWithAnEvent: an event shines at once in its stage and on the line to who follows it, and is then the stage's last,
// without a reload of the page.
func TestProcessMovesWithAnEvent(t *testing.T) {
	t.Parallel()
	base := Fixtures(t)
	browser := Start(t)
	for _, view := range []View{{}, {Language: "ar", Theme: "dark", Width: 380}} {
		p := browser.Open(t, base, "falaj_session=approver", view)
		p.Visit("#/p/flights/process")
		last := func(stage string) string { return p.Text(`tr[data-row="` + stage + `"] code`) }
		p.Settle()
		if got := last("delivery"); got == "delivery.moved" {
			t.Fatalf("%v: before: %q", view, got)
		}
		run(p, chromedp.Poll[bool](`document.querySelector(".live.live") !== null`, chromedp.WithPollingTimeout(limit)))
		r, err := http.Post(base+"/dev/event?type=delivery.moved&subject=delay/production", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		// Whatever shines was not there before: the name on the line, or in the row where lines cannot be drawn.
		run(p, chromedp.Poll[bool](`[...document.querySelectorAll("svg text.event.on")].some((e) => e.textContent.includes("delivery.moved"))`, chromedp.WithPollingTimeout(limit)))
		run(p, chromedp.Poll[bool](`document.querySelector('a[data-stage="delivery"] text.last').textContent === "delivery.moved"`, chromedp.WithPollingTimeout(limit)))
		p.Settle()
		if got := last("delivery"); got != "delivery.moved" {
			t.Errorf("%v: the table says %q", view, got)
		}
		if got := p.Text(`tr[data-row="delivery"] time`); got != "just now" && got != "الآن" {
			t.Errorf("%v: delivery's last event came %q", view, got)
		}
		r, err = http.Post(base+"/dev/event?type=change.waiting&subject=chg_01jdq9x3y4z5a6b7", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		run(p, chromedp.Poll[bool](`document.querySelector('a[data-stage="delivery"] text.last').textContent === "change.waiting"`, chromedp.WithPollingTimeout(limit)))
		for _, complaint := range p.Complaints() {
			t.Errorf("%v: console: %s", view, complaint)
		}
	}
}

// TestProcessLeadsToTheStages: each box is a link to where its stage is looked at.
func TestProcessLeadsToTheStages(t *testing.T) {
	t.Parallel()
	p := Open(t, Fixtures(t), "falaj_session=approver")
	for stage, want := range map[string]string{"data": "data", "features": "lineage", "tracking": "runs", "registry": "models", "delivery": "changes", "plan": "pipelines"} {
		p.Visit("#/p/flights/process")
		p.Click(`a[data-stage="` + stage + `"] text.name`)
		if got := p.Hash(); !strings.HasPrefix(got, "#/p/flights/"+want) {
			t.Errorf("%s leads to %s", stage, got)
		}
	}
}

func TestCopyAsGivesTheSameAnswer(t *testing.T) {
	t.Parallel()
	p := Open(t, Fixtures(t), "falaj_session=approver")
	p.Visit("#/p/flights/models/delay")
	p.Press("Copy as")
	text := p.Text("[popover]:popover-open")
	for _, want := range []string{"falaj status flights/delay", "/api/falaj/v1/projects/flights/models/delay'", "Bearer $FALAJ_TOKEN", "urllib.request"} {
		if !strings.Contains(text, want) {
			t.Errorf("copy as lacks %q:\n%s", want, text)
		}
	}
}

package uitest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pages is every page of the fixtures' project, by the name of its picture.
var pages = []struct{ name, hash, title string }{
	{"process", "#/p/flights/process", "Process"},
	{"models", "#/p/flights/models", "Models"},
	{"model", "#/p/flights/models/delay?version=3", "delay"},
	{"model-empty", "#/p/flights/models/gate_time", "gate_time"},
	{"changes", "#/p/flights/changes", "Changes"},
	{"change", "#/p/flights/changes/chg_01jdq9x3y4z5a6b7", "delay@4 → production"},
	{"change-refused", "#/p/flights/changes/chg_01jdq7c8d9e1f2g3", "delay@5 → staging"},
	{"change-approved", "#/p/flights/changes/chg_01jdq5a1b2c3d4e5", "delay@3 → production"},
	{"pipelines", "#/p/flights/pipelines", "Pipelines"},
	{"pipeline", "#/p/flights/pipelines/pr_01jdq7w2k3m4n5p6", "retrain"},
	{"pipeline-failed", "#/p/flights/pipelines/pr_01jdq2a3b4c5d6e7", "train"},
	{"runs", "#/p/flights/runs", "Runs"},
	{"data", "#/p/flights/data", "Data"},
	{"dataset", "#/p/flights/data/flights", "flights"},
	{"version", "#/p/flights/data/flights/7", "flights@7"},
	{"quarantine", "#/p/flights/data/flights/quarantine/qtn_01jdq6", "data/flights/2013-07-poisoned.csv"},
	{"lineage", "#/p/flights/lineage", "Lineage"},
	{"audit", "#/p/flights/audit", "Audit"},
	{"missing", "#/p/flights/nonsense", "No such page"},
}

// TestPagesAreWholeInEveryMode opens every page in English and Arabic, light and dark, wide and at
// 380 px: no finding of axe, nothing wider than the window, no complaint in the console.
// FALAJ_SHOTS=dir keeps the pictures.
func TestPagesAreWholeInEveryMode(t *testing.T) {
	t.Parallel()
	base := Fixtures(t)
	browser := Start(t)
	shots := os.Getenv("FALAJ_SHOTS")
	only := os.Getenv("FALAJ_PAGES")
	for _, view := range []View{
		{Language: "en", Theme: "light"},
		{Language: "en", Theme: "dark"},
		{Language: "ar", Theme: "light"},
		{Language: "ar", Theme: "dark"},
		{Language: "en", Theme: "light", Width: 380, Height: 800},
		{Language: "ar", Theme: "dark", Width: 380, Height: 800},
	} {
		v := view.filled()
		mode := v.Language + "-" + v.Theme
		if v.Width < 600 {
			mode += "-380"
		}
		t.Run(mode, func(t *testing.T) {
			p := browser.Open(t, base, "falaj_session=approver", v)
			for _, want := range pages {
				if only != "" && !strings.Contains(","+only+",", ","+want.name+",") {
					continue
				}
				p.Visit(want.hash)
				if got := p.Text("h1"); v.Language == "en" && strings.TrimSpace(got) != want.title {
					t.Errorf("%s: title %q, want %q", want.name, got, want.title)
				}
				if n := p.Count(".error"); n != 0 && want.name != "pipeline-failed" {
					t.Errorf("%s: shows %d errors: %s", want.name, n, p.Text(".error"))
				}
				if wide := p.Overflow(); len(wide) != 0 {
					t.Errorf("%s: wider than the window: %q", want.name, wide)
				}
				for _, finding := range p.Axe() {
					t.Errorf("%s: axe: %s", want.name, finding)
				}
				if v.Language == "ar" {
					for _, text := range p.Foreign(latin()...) {
						t.Errorf("%s: not Arabic: %q", want.name, text)
					}
				}
				if shots != "" {
					p.Shot(filepath.Join(shots, want.name+"-"+mode+".png"))
				}
			}
			for _, complaint := range p.Complaints() {
				t.Errorf("console: %s", complaint)
			}
		})
	}
}

// latin are words that Arabic pages write in Latin letters too: names of a program, a clock and a language, measures, SQL's word for
// nothing, and what signing in once for all is called.
func latin() []string { return []string{"falaj", "UTC", "SQL", "PSI", "JS", "NULL", "SSO"} }

// TestPagesBeforeSignIn looks at what a person sees who is not in yet, and at open mode.
func TestPagesBeforeSignIn(t *testing.T) {
	t.Parallel()
	base := Fixtures(t)
	browser := Start(t)
	shots := os.Getenv("FALAJ_SHOTS")
	for _, view := range []View{{Language: "en", Theme: "light"}, {Language: "en", Theme: "dark"}, {Language: "ar", Theme: "light"}, {Language: "ar", Theme: "dark", Width: 380}} {
		v := view.filled()
		for _, c := range []struct{ name, session, hash, want string }{
			{"login", "", "#/p/flights/models", "#/login?next=" + "%23%2Fp%2Fflights%2Fmodels"},
			{"setup", "falaj_session=fresh", "#/setup?token=abc", "#/setup"},
			{"open-mode", "falaj_session=open", "#/p/flights/changes/chg_01jdq9x3y4z5a6b7", "#/p/flights/changes/chg_01jdq9x3y4z5a6b7"},
		} {
			p := browser.Open(t, base, c.session, v)
			p.Visit(c.hash)
			if got := p.Hash(); got != c.want {
				t.Errorf("%s: ended at %s, want %s", c.name, got, c.want)
			}
			if wide := p.Overflow(); len(wide) != 0 {
				t.Errorf("%s %v: wider than the window: %q", c.name, v, wide)
			}
			for _, finding := range p.Axe() {
				t.Errorf("%s %v: axe: %s", c.name, v, finding)
			}
			if v.Language == "ar" {
				for _, text := range p.Foreign(latin()...) {
					t.Errorf("%s: not Arabic: %q", c.name, text)
				}
			}
			if c.name == "open-mode" && v.Language == "en" && (p.Enabled("Approve") || !strings.Contains(p.Text("main"), "Sign in to decide.")) {
				t.Errorf("open mode can approve, or does not say why not:\n%s", p.Text("main"))
			}
			if shots != "" {
				p.Shot(filepath.Join(shots, c.name+"-"+v.Language+"-"+v.Theme+".png"))
			}
			for _, complaint := range p.Complaints() {
				// A page that asks and is told 401 shows it in the console; that is the browser's doing.
				if !strings.Contains(complaint, "401") {
					t.Errorf("%s: console: %s", c.name, complaint)
				}
			}
		}
	}
}

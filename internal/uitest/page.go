package uitest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
)

// Settle waits until the page has nothing pending: no request, no code, no font.
func (p *Page) Settle() {
	p.t.Helper()
	run(p, chromedp.Poll[bool](`document.documentElement.dataset.pending === "0"`, chromedp.WithPollingTimeout(limit)))
}

// Visit goes to a fragment such as "#/p/flights/models" and waits until that page stands.
func (p *Page) Visit(hash string) {
	p.t.Helper()
	// The pending count rises in the same task as the fragment changes, so Settle cannot pass early.
	run(p, chromedp.Evaluate[bool](`(() => {
		const target = `+quote(hash)+`;
		if (location.hash === target) return true;
		return new Promise((done) => { addEventListener("hashchange", () => requestAnimationFrame(() => done(true)), { once: true }); location.hash = target; });
	})()`, chromedp.EvalAwaitPromise))
	p.Settle()
}

// Text is the visible text of the first element that matches; "" when none does.
func (p *Page) Text(selector string) string {
	p.t.Helper()
	return run(p, chromedp.Evaluate[string](`document.querySelector(`+quote(selector)+`)?.innerText ?? ""`))
}

// Count is how many elements match.
func (p *Page) Count(selector string) int {
	p.t.Helper()
	return run(p, chromedp.Evaluate[int](`document.querySelectorAll(`+quote(selector)+`).length`))
}

// WaitText waits until the page shows the text, for what arrives by itself (live updates).
func (p *Page) WaitText(text string) {
	p.t.Helper()
	run(p, chromedp.Poll[bool](`document.body.innerText.includes(`+quote(text)+`)`, chromedp.WithPollingTimeout(limit)))
	p.Settle()
}

// Click clicks the first visible element that matches, as a person would, and waits for what it causes.
func (p *Page) Click(selector string) {
	p.t.Helper()
	p.do(chromedp.Click(selector, chromedp.NodeVisible))
	p.Settle()
}

// Press clicks the first enabled button or link whose visible text is exactly the label.
func (p *Page) Press(label string) {
	p.t.Helper()
	ok := run(p, chromedp.Evaluate[bool](`(() => {
		const wanted = `+quote(label)+`;
		const found = [...document.querySelectorAll("dialog[open] button, dialog[open] a")].concat([...document.querySelectorAll("button, a")])
			.find((e) => !e.disabled && e.innerText.trim() === wanted && e.getClientRects().length > 0);
		found?.click();
		return found !== undefined;
	})()`))
	if !ok {
		p.t.Fatalf("no enabled button or link %q; the page says:\n%s", label, p.Text("main"))
	}
	p.Settle()
}

// Enabled says whether the first button with this text can be pressed.
func (p *Page) Enabled(label string) bool {
	p.t.Helper()
	return run(p, chromedp.Evaluate[bool](`[...document.querySelectorAll("main button")].find((e) => e.innerText.trim() === `+quote(label)+`)?.disabled === false`))
}

// Fill replaces the value of the first field that matches and lets the page know.
func (p *Page) Fill(selector, value string) {
	p.t.Helper()
	ok := run(p, chromedp.Evaluate[bool](`(() => {
		const field = document.querySelector(`+quote(selector)+`);
		if (!field) return false;
		field.focus();
		field.value = `+quote(value)+`;
		field.dispatchEvent(new Event("input", { bubbles: true }));
		field.dispatchEvent(new Event("change", { bubbles: true }));
		return true;
	})()`))
	if !ok {
		p.t.Fatalf("no field %s; the page says:\n%s", selector, p.Text("main"))
	}
	p.Settle()
}

// Keys types keys into whatever has the focus.
func (p *Page) Keys(keys string) {
	p.t.Helper()
	// A keyboard sends raw presses: only after those does the browser drop the character of a key
	// whose press the page has taken.
	p.do(chromedp.KeyEvent(keys, func(k *input.DispatchKeyEventParams) {
		if k.Type == input.DispatchKeyEventTypeKeyDown {
			k.Type = input.DispatchKeyEventTypeRawKeyDown
		}
	}))
	p.Settle()
}

// Login signs in through the sign-in page and ends on the start page.
func (p *Page) Login(user, password string) {
	p.t.Helper()
	p.Visit("#/login")
	p.Fill(`input[name="user"]`, user)
	p.Fill(`input[name="password"]`, password)
	p.Click(`main form button`)
}

// Hash is the fragment in the address bar.
func (p *Page) Hash() string {
	p.t.Helper()
	return run(p, chromedp.Evaluate[string](`location.hash`))
}

// Reload loads the page again, as a person does who wants to be sure.
func (p *Page) Reload() {
	p.t.Helper()
	p.do(chromedp.Reload())
	p.Settle()
}

// Overflow names the elements that make the page wider than its window; none is right.
func (p *Page) Overflow() []string {
	p.t.Helper()
	return run(p, chromedp.Evaluate[[]string](`(() => {
		if (document.documentElement.scrollWidth <= innerWidth) return [];
		const wide = [...document.body.querySelectorAll("*")].filter((e) => {
			const box = e.getBoundingClientRect();
			return (box.right > innerWidth + 1 || box.left < -1) && !e.parentElement.closest(".scroll, .view");
		});
		return ["page " + document.documentElement.scrollWidth + " px"].concat(wide.slice(0, 5).map((e) => e.cloneNode(false).outerHTML));
	})()`))
}

// Foreign gives what an Arabic page says in Latin letters where it is no name of the system: text and labels outside elements that run
// left to right and outside the marks that isolate a name in a sentence, and every sentence of the server that was left in English.
// What an error says beneath its translated first line may stay, and the words of may.
func (p *Page) Foreign(may ...string) []string {
	p.t.Helper()
	list, err := json.Marshal(may)
	if err != nil {
		p.t.Fatal(err)
	}
	return run(p, chromedp.Evaluate[[]string](`((may) => {
		const found = new Set();
		const look = (element, text) => {
			if (element.closest("button[lang=en], .error [lang=en], script, style, template, code, pre, kbd, select") || element.getClientRects().length === 0) return;
			// A sentence of the server that the page has no words for stands in an island of English: it is found too.
			if (!element.closest("[lang=en]") && getComputedStyle(element).direction === "ltr") return;
			const words = text.replace(/\u2066[^\u2069]*\u2069/g, " ").match(/[A-Za-z][A-Za-z'’-]+/g) ?? [];
			if (words.some((word) => !may.includes(word))) found.add(text.trim().slice(0, 120) + " in " + element.cloneNode(false).outerHTML.slice(0, 160));
		};
		const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
		while (walk.nextNode()) look(walk.currentNode.parentElement, walk.currentNode.data);
		for (const element of document.body.querySelectorAll("[aria-label], [title], [placeholder], [alt]"))
			for (const name of ["aria-label", "title", "placeholder", "alt"]) if (element.hasAttribute(name)) look(element, element.getAttribute(name));
		return [...found];
	})(`+string(list)+`)`))
}

// Complaints are the errors in the browser's console so far.
func (p *Page) Complaints() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.messages)
}

// Shot writes a PNG of the whole page, the part below the window's edge included.
func (p *Page) Shot(path string) {
	p.t.Helper()
	p.ShotTo(path, 100_000)
}

// ShotTo writes a PNG of the page down to height CSS pixels.
func (p *Page) ShotTo(path string, height int64) {
	p.t.Helper()
	// The window grows to the page first: what sticks to the window's edge then spans the picture.
	size := run(p, chromedp.Evaluate[[]int64](`[innerWidth, innerHeight, document.documentElement.scrollHeight]`))
	p.do(chromedp.EmulateViewport(size[0], min(height, max(size[1], size[2]))))
	p.Settle()
	png := run(p, chromedp.CaptureScreenshot())
	p.do(chromedp.EmulateViewport(size[0], size[1]))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, png, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// Violation is one finding of axe-core.
type Violation struct {
	ID     string `json:"id"`     // rule, e.g. "color-contrast"
	Impact string `json:"impact"` // minor, moderate, serious, critical
	Help   string `json:"help"`
	Nodes  []struct {
		HTML    string `json:"html"`
		Summary string `json:"failureSummary"`
	} `json:"nodes"`
}

func (v Violation) String() string {
	var b strings.Builder
	b.WriteString(v.ID + " (" + v.Impact + "): " + v.Help)
	for _, n := range v.Nodes[:min(3, len(v.Nodes))] {
		b.WriteString("\n    " + n.HTML + "\n      " + strings.ReplaceAll(n.Summary, "\n", "\n      "))
	}
	return b.String()
}

// Axe runs every rule of axe-core (WCAG 2.2 A and AA and its best practices) over the page.
func (p *Page) Axe() []Violation {
	p.t.Helper()
	source, err := os.ReadFile(filepath.Join(root(p.t), "ui", "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		p.t.Fatalf("the accessibility tests need axe-core: make ui (%v)", err)
	}
	run(p, chromedp.Evaluate[bool](string(source)+"; true"))
	raw := run(p, chromedp.Evaluate[string](`axe.run(document, { resultTypes: ["violations"] }).then((r) => JSON.stringify(r.violations))`, chromedp.EvalAwaitPromise))
	var found []Violation
	if err := json.Unmarshal([]byte(raw), &found); err != nil {
		p.t.Fatal(err)
	}
	return found
}

func quote(s string) string { return strconv.QuoteToASCII(s) }

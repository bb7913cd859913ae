package uitest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// View is how a page is looked at.
type View struct {
	Language string // "en" or "ar"; "" is "en"
	Theme    string // "light" or "dark"; "" is "light"
	Width    int64  // CSS pixels; 0 is 1280
	Height   int64  // CSS pixels; 0 is 900
}

func (v View) filled() View {
	if v.Language == "" {
		v.Language = "en"
	}
	if v.Theme == "" {
		v.Theme = "light"
	}
	if v.Width == 0 {
		v.Width = 1280
	}
	if v.Height == 0 {
		v.Height = 900
	}
	return v
}

// Browser is one Chromium process. Pages of one browser share nothing: each has its own cookies
// and storage. It is stopped at the end of the test that started it.
type Browser struct{ ctx context.Context }

// Start starts Debian's Chromium, or the one in $FALAJ_CHROMIUM, without a window. It fails the
// test when there is none, with the command that installs it.
func Start(t testing.TB) *Browser {
	t.Helper()
	path := os.Getenv("FALAJ_CHROMIUM")
	if path == "" {
		for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
			if found, err := exec.LookPath(name); err == nil {
				path = found
				break
			}
		}
	}
	if path == "" {
		t.Fatal("the page tests need Chromium: apt-get install chromium, or set FALAJ_CHROMIUM to its path")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.Flag("lang", "en-GB"), chromedp.Flag("hide-scrollbars", true))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium's sandbox refuses to run as root
	}
	alloc, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("Chromium does not start: %v", err)
	}
	return &Browser{ctx: ctx}
}

// Page is one tab. Its methods fail the test; they are not for several goroutines at once.
type Page struct {
	t    testing.TB
	ctx  context.Context
	base string

	mu       sync.Mutex
	messages []string // errors of the console, guarded by mu
}

// limit is how long a page may take to settle on a busy machine before the test gives up.
const limit = 3 * time.Minute

// Open opens baseURL (such as "http://127.0.0.1:7420") in a tab of its own. session is the cookie
// of a signed-in user as "name=value", or "" for nobody; Page.Login signs in through the page.
func (b *Browser) Open(t testing.TB, baseURL, session string, view View) *Page {
	t.Helper()
	view = view.filled()
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	p := &Page{t: t, ctx: ctx, base: baseURL}
	p.collect()
	p.do(chromedp.EmulateViewport(view.Width, view.Height))
	// Stored before any script of the page runs: the first paint has the right language and theme.
	script := "if (location.protocol === 'http:') { localStorage.setItem('falaj.lang', '" + view.Language + "'); localStorage.setItem('falaj.theme', '" + view.Theme + "') }"
	if _, err := chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: script}); err != nil {
		t.Fatal(err)
	}
	if session != "" {
		name, value, err := split(session)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := chromedp.Call(ctx, network.SetCookie, network.SetCookieParams{Name: name, Value: value, URL: baseURL}); err != nil {
			t.Fatal(err)
		}
	}
	p.do(chromedp.Navigate(baseURL + "/"))
	p.Settle()
	return p
}

// Open starts a browser and opens baseURL in it, for tests that need only one page.
func Open(t testing.TB, baseURL, session string) *Page {
	t.Helper()
	return Start(t).Open(t, baseURL, session, View{})
}

func split(cookie string) (name, value string, err error) {
	for i := range cookie {
		if cookie[i] == '=' {
			return cookie[:i], cookie[i+1:], nil
		}
	}
	return "", "", errors.New("a session is a cookie as name=value")
}

// collect keeps what the page complains about: exceptions, refused resources, policy violations.
func (p *Page) collect() {
	messages := chromedp.Console(p.ctx)
	go func() {
		for m, err := range messages {
			if err != nil {
				return // the tab is closed
			}
			if m.IsException() || m.Type == chromedp.ConsoleError {
				p.mu.Lock()
				p.messages = append(p.messages, m.String()+" "+m.URL)
				p.mu.Unlock()
			}
		}
	}()
}

func (p *Page) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, limit)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.t.Fatalf("%v\nconsole: %q", err, p.Complaints())
	}
}

func run[T any](p *Page, a chromedp.Action[T]) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, limit)
	defer cancel()
	v, err := chromedp.Run(ctx, a)
	if err != nil {
		p.t.Fatalf("%v\nconsole: %q", err, p.Complaints())
	}
	return v
}

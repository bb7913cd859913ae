package app

import (
	"context"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"falaj/internal/access"
	"falaj/internal/api"
	"falaj/internal/audit"
	"falaj/internal/kernel/policy"
	"falaj/internal/store"
)

// The seven tenets of NIST SP 800-207, each a test of its name: 1, 3, 4, 5, 6 and 7 here, 2 (every listener) in internal/e2e.

// trusted is a server with OIDC and two projects. root is its admin; the tokens are good ones.
type trusted struct {
	*site
	admin    string // root, everywhere
	engineer string // user:amal, engineer in flights
	stranger string // root's, limited to the project loans: every role, but not here
}

func newTrusted(t *testing.T, change func(*Config)) *trusted {
	t.Helper()
	w := &trusted{site: newSite(t, change)}
	for _, err := range []error{
		second(w.app.access.CreateProject(w.root, "loans", "", nil)),
		second(w.app.access.CreateUser(w.root, "amal", "", "a falaj flows downhill", []string{"ds"})),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	_, w.admin = w.token(access.TokenRequest{Principal: "user:root"})
	_, w.engineer = w.token(access.TokenRequest{Principal: "user:amal"})
	_, w.stranger = w.token(access.TokenRequest{Principal: "user:root", Project: "loans"})
	return w
}

func second[T any](_ T, err error) error { return err }

func (w *trusted) token(r access.TokenRequest) (access.Token, string) {
	w.t.Helper()
	t, secret, err := w.app.access.CreateToken(w.root, r)
	if err != nil {
		w.t.Fatal(err)
	}
	return t, secret
}

// ask sends a request through the door. body is sent as JSON.
func (w *trusted) ask(token, method, path string, body any) *httptest.ResponseRecorder {
	w.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	r := httptest.NewRequest(method, "http://127.0.0.1"+path, strings.NewReader(string(b)))
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	out := httptest.NewRecorder()
	w.app.door.ServeHTTP(out, r)
	return out
}

// clean demands that the record holds.
func (w *trusted) clean() {
	w.t.Helper()
	r, err := audit.New(w.app.store, blobCheck{w.app.blobs}).Verify(w.root, true)
	if err != nil || !r.OK {
		w.t.Errorf("the record does not hold: %s %+v %v", r.Summary(), r.Broken, err)
	}
}

// dialects are a read in each of the languages that the server speaks.
func dialects() map[string][2]string {
	return map[string][2]string{
		"own API":         {"GET", api.Base + "/projects/flights/models"},
		"MLflow":          {"POST", "/p/flights/api/2.0/mlflow/runs/search"},
		"MLflow's pages":  {"GET", "/p/flights/ajax-api/2.0/mlflow/experiments/search?max_results=1"},
		"MLflow's files":  {"GET", "/p/flights/api/2.0/mlflow-artifacts/artifacts"},
		"Open Inference":  {"GET", "/p/flights/v2"},
		"Inference index": {"POST", "/p/flights/v2/repository/index"},
	}
}

// unused are words of the vocabulary that nothing asks for yet. A word that comes into use must leave the list.
func unused() map[policy.Action]string {
	return map[policy.Action]string{
		"artifact.sweep":             "nothing deletes artifacts by itself yet",
		"change.implement":           "moving a pointer is recorded as delivery.move",
		"dataset.quarantine.release": "quarantined rows cannot be released yet",
		"feature.read":               "features are read by the pages of models; a run's token may look them up",
		"policy.read":                "the policy set is part of the binary",
		"release.read":               "releases are read as parts of models",
		"runtime.install":            "runtimes are installed by the CLI on the server's machine",
		"token.expire":               "an expired token is refused where it is read; nothing is written",
		"trace.read":                 "traces are not built",
		"trace.write":                "traces are not built",
		"training.read":              "trainings are read as steps of pipeline runs",
	}
}

// asked are the actions that code outside the policy names, and where: strings of non-test files, but for the types of events,
// which are spelled alike. decided are those given to a call that decides.
func asked(t *testing.T) (named, decided map[policy.Action]string) {
	t.Helper()
	named, decided = map[policy.Action]string{}, map[policy.Action]string{}
	deciding := []string{"Change", "Authorize", "Deny", "Denied", "may", "permit", "require"}
	files := token.NewFileSet()
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "kernel/policy") {
			return err
		}
		f, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.KeyValueExpr:
				if k, ok := n.Key.(*ast.Ident); ok && k.Name == "Type" {
					return false
				}
			case *ast.BasicLit:
				if s, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
					named[policy.Action(s)] = files.Position(n.Pos()).String()
				}
			case *ast.CallExpr:
				f, ok := n.Fun.(*ast.SelectorExpr)
				if !ok || !slices.Contains(deciding, f.Sel.Name) || len(n.Args) < 2 {
					break
				}
				if lit, ok := n.Args[1].(*ast.BasicLit); ok && lit.Kind == token.STRING {
					s, _ := strconv.Unquote(lit.Value)
					decided[policy.Action(s)] = files.Position(lit.Pos()).String()
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return named, decided
}

// Tenet 1: every data source and service is a resource. What is served is what is described and what policy knows: the own
// routes are the operations of the OpenAPI document, every route that is not public has an action of the vocabulary, and
// every action is asked for by a route or a change.
func TestZT_1(t *testing.T) {
	t.Parallel()
	a := newApp(t, Config{})
	spec, err := api.New(api.Deps{}).OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(spec, &doc); err != nil {
		t.Fatal(err)
	}
	described := map[string]bool{}
	for path, ops := range doc.Paths {
		for method := range ops {
			described[strings.ToUpper(method)+" "+path] = true
		}
	}
	// Streams: huma describes bodies that it reads and writes itself.
	undescribed := []string{"GET /openapi.json", "GET /projects/{p}/events", "HEAD /projects/{p}/blobs/{digest}", "PUT /projects/{p}/blobs/{digest}",
		"POST /projects/{p}/datasets/{d}/versions/{n}/export", "POST /backups"}
	// Everything else below "/" belongs to a dialect whose document is its owner's, or to operators.
	foreign := []string{"/api/2.0/", "/api/3.0/", "/ajax-api/", "/graphql", "/v2", "/health", "/version", "/healthz", "/readyz", "/metrics", "/ca.pem"}
	known := map[policy.Action]bool{}
	for _, list := range policy.Vocabulary() {
		for _, action := range list {
			known[action] = true
		}
	}
	named, decided := asked(t)
	for _, r := range a.door.Routes() {
		if r.Public != (r.Action == "") || !r.Public && !known[r.Action] {
			t.Errorf("%s %s has action %q, public %v", r.Method, r.Pattern, r.Action, r.Public)
		}
		named[r.Action] = r.Pattern
		key := r.Method + " " + r.Pattern
		switch own, isOwn := strings.CutPrefix(r.Pattern, api.Base); {
		case isOwn && !described[key] && !slices.Contains(undescribed, r.Method+" "+own):
			t.Errorf("%s is served and not described", key)
		case !isOwn && r.Pattern != "/" && !slices.ContainsFunc(foreign, func(p string) bool { return strings.HasPrefix(r.Pattern, p) }):
			t.Errorf("%s lies in no dialect", key)
		}
		delete(described, key)
	}
	if len(described) > 0 {
		t.Errorf("described and not served: %v", slices.Sorted(maps.Keys(described)))
	}
	spare := unused()
	for action := range known {
		_, used := named[action]
		if _, listed := spare[action]; used == listed {
			t.Errorf("%s: used %v (%s), in the list of unused words %v", action, used, named[action], listed)
		}
		delete(spare, action)
	}
	if len(spare) > 0 {
		t.Errorf("the list of unused words names what the vocabulary does not have: %v", spare)
	}
	for action, where := range decided {
		if !known[action] {
			t.Errorf("%s asks policy for %q, which it does not know", where, action)
		}
	}
	if len(known) < 90 || len(decided) < 40 {
		t.Errorf("only %d words and %d decisions were found: the test looks in the wrong place", len(known), len(decided))
	}
}

// Tenet 3: access is granted per session. A token is dead for every dialect at the call after it was revoked, within a second
// when another replica revoked it, and the token of a run when the run has ended.
func TestZT_3(t *testing.T) {
	t.Parallel()
	w := newTrusted(t, nil)
	alive := func(name, token string) {
		t.Helper()
		for dialect, c := range dialects() {
			if a := w.ask(token, c[0], c[1], nil); a.Code == 401 || a.Code == 403 {
				t.Errorf("%s: %s refuses it while it lives: %d %s", name, dialect, a.Code, a.Body)
			}
		}
	}
	dead := func(name, token string) {
		t.Helper()
		for dialect, c := range dialects() {
			if a := w.ask(token, c[0], c[1], nil); a.Code != 401 {
				t.Errorf("%s: %s still takes it: %d %s", name, dialect, a.Code, a.Body)
			}
		}
	}
	tok, secret := w.token(access.TokenRequest{Principal: "user:amal"})
	alive("revoked here", secret)
	if a := w.ask(w.admin, "DELETE", api.Base+"/tokens/"+tok.ID, nil); a.Code != 204 {
		t.Fatalf("revoke: %d %s", a.Code, a.Body)
	}
	dead("revoked here", secret)

	// Another replica writes to the same database and cannot reach what this one remembers.
	tok, secret = w.token(access.TokenRequest{Principal: "user:amal"})
	alive("revoked elsewhere", secret)
	if err := w.app.store.Write(w.root, func(ctx context.Context, tx *store.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE tokens SET revoked = $1 WHERE id = $2`, store.Micros(time.Now()), tok.ID)
		if err == nil && n != 1 {
			t.Errorf("%d tokens were revoked", n)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	// Asking is the only way to see what a cache has: there is nothing to be woken by.
	for revoked := time.Now(); ; {
		asked := time.Now()
		if w.ask(secret, "GET", api.Base+"/projects/flights/models", nil).Code == 401 {
			break
		}
		if late := asked.Sub(revoked); late > time.Second {
			t.Fatalf("a token that another replica revoked is taken after %v", late)
		}
	}
	dead("revoked elsewhere", secret)

	secret, err := w.app.access.RunToken(w.root, "flights", "0123456789abcdef0123456789abcdef", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, dialect := range []string{"own API", "MLflow", "Open Inference"} {
		c := dialects()[dialect]
		if a := w.ask(secret, c[0], c[1], nil); a.Code == 401 || a.Code == 403 {
			t.Errorf("the run's token while it runs: %s: %d %s", dialect, a.Code, a.Body)
		}
	}
	if err := w.app.access.RevokeRun(w.root, "flights", "0123456789abcdef0123456789abcdef"); err != nil {
		t.Fatal(err)
	}
	dead("the run ended", secret)

	session, err := w.app.access.Login(w.root, "amal", "a falaj flows downhill")
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "http://127.0.0.1"+api.Base+"/projects/flights/models", nil)
	r.AddCookie(&http.Cookie{Name: "falaj_session", Value: session})
	code := func() int {
		out := httptest.NewRecorder()
		w.app.door.ServeHTTP(out, r)
		return out.Code
	}
	if c := code(); c != 200 {
		t.Errorf("the session: %d", c)
	}
	if err := w.app.access.Logout(w.root, session); err != nil {
		t.Fatal(err)
	}
	if c := code(); c != 401 {
		t.Errorf("the session after signing out: %d", c)
	}
}

// Tenet 4: access follows a dynamic policy. The same token, the same call: when a role is taken away, a group changes, or a
// person is disabled, the next call is denied, without a restart, for reads and writes of every dialect; given back, it is
// allowed again. Change windows, which the tenet's table names, are not built: there is no such state that could close.
func TestZT_4(t *testing.T) {
	t.Parallel()
	w := newTrusted(t, nil)
	calls := dialects()
	calls["a write of the own API"] = [2]string{"POST", api.Base + "/projects/flights/plan"}
	calls["a write of MLflow"] = [2]string{"POST", "/p/flights/api/2.0/mlflow/runs/create"}
	calls["a prediction"] = [2]string{"POST", "/p/flights/v2/models/delay/infer"}
	may := func(when string, want bool) {
		t.Helper()
		for name, c := range calls {
			// Allowed is whatever the handler answers: these bodies are wrong on purpose.
			if a := w.ask(w.engineer, c[0], c[1], nil); (a.Code != 401 && a.Code != 403) != want {
				t.Errorf("%s: %s: %d %s", when, name, a.Code, a.Body)
			}
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ds := access.Binding{Project: "flights", Role: policy.Engineer, Principal: "group:ds"}
	may("by the group's role", true)
	do(w.app.access.Unbind(w.root, ds))
	may("the group has no role", false)
	do(w.app.access.Bind(w.root, ds))
	may("the group has its role again", true)
	do(w.app.access.SetGroups(w.root, "amal", []string{"visitors"}))
	may("she left the group", false)
	own := access.Binding{Project: "flights", Role: policy.Engineer, Principal: "user:amal"}
	do(w.app.access.Bind(w.root, own))
	may("by her own role", true)
	do(w.app.access.Unbind(w.root, own))
	may("her own role is taken", false)
	do(w.app.access.SetGroups(w.root, "amal", []string{"ds"}))
	may("she is back", true)
	do(w.app.access.Unbind(w.root, ds))
	do(w.app.access.Bind(w.root, access.Binding{Project: "flights", Role: policy.Viewer, Principal: "group:ds"}))
	if a := w.ask(w.engineer, "GET", api.Base+"/projects/flights/models", nil); a.Code != 200 {
		t.Errorf("a viewer reads: %d %s", a.Code, a.Body)
	}
	for _, path := range []string{"/p/flights/api/2.0/mlflow/runs/create", api.Base + "/projects/flights/apply"} {
		if a := w.ask(w.engineer, "POST", path, nil); a.Code != 403 {
			t.Errorf("a viewer writes %s: %d %s", path, a.Code, a.Body)
		}
	}
	do(w.app.access.DisableUser(w.root, "amal"))
	may("she is disabled", false)
}

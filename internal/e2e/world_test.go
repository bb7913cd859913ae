package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	apiBase  = "/api/falaj/v1"
	project  = apiBase + "/projects/tiny"
	password = "correct horse battery"
)

// soak says whether tests run at their full size.
func soak() bool { return os.Getenv("FALAJ_SOAK") == "1" }

// world is a server with people: amal asks for things, badr of ml-risk approves, vera only looks.
type world struct {
	*server
	amal, badr, vera person
	dir              string // the project folder
}

// person has a token, and the CLI's credentials where she signed in by it.
type person struct {
	w      *world
	name   string
	token  string
	config string
}

// newWorld starts a server, creates its people the way a user does and lays out the tiny project.
func newWorld(t *testing.T, flags ...string) *world {
	t.Helper()
	return inhabit(newServer(t, "", flags...))
}

// inhabit gives a running server its people and its project.
func inhabit(s *server) *world {
	s.t.Helper()
	w := &world{server: s, dir: filepath.Join(s.t.TempDir(), "tiny")}
	w.people()
	layProject(s.t, w.dir)
	return w
}

func (w *world) people() {
	t := w.t
	t.Helper()
	w.must(201, w.call("", "POST", apiBase+"/setup", map[string]string{"token": w.link(), "user": "amal", "password": password}), 200)
	w.amal = w.login("amal")
	w.must(201, w.call(w.amal.token, "POST", apiBase+"/projects", map[string]any{"name": "tiny", "residency": []string{"ae"}}))
	for name, role := range map[string]string{"badr": "approver", "vera": "viewer"} {
		groups := []string{}
		if name == "badr" {
			groups = append(groups, "ml-risk")
		}
		w.must(201, w.call(w.amal.token, "POST", apiBase+"/users", map[string]any{"name": name, "password": password, "groups": groups}))
		w.must(204, w.call(w.amal.token, "POST", apiBase+"/bindings", map[string]any{"project": "tiny", "role": role, "principal": "user:" + name}))
	}
	w.must(204, w.call(w.amal.token, "POST", apiBase+"/bindings", map[string]any{"project": "tiny", "role": "replayer", "principal": "user:amal"}))
	w.badr, w.vera = w.login("badr"), w.login("vera")
}

// login signs in by the CLI and reads back what it kept.
func (w *world) login(name string) person {
	w.t.Helper()
	p := person{w: w, name: name, config: filepath.Join(w.t.TempDir(), name)}
	args := []string{"login", "--user", name}
	if w.ca != "" {
		args = append(args, "--ca", w.ca) // the commands after it find it in the credentials
	}
	if r := w.command(w.t.TempDir(), p.config, password+"\n", args...); r.code != 0 {
		w.t.Fatalf("falaj login as %s: exit %d: %s", name, r.code, r.err)
	}
	b, err := os.ReadFile(filepath.Join(p.config, "falaj", "credentials.json"))
	if err != nil {
		w.t.Fatal(err)
	}
	var c struct{ Token string }
	if err := json.Unmarshal(b, &c); err != nil {
		w.t.Fatal(err)
	}
	p.token = c.Token
	return p
}

// falaj runs a command in the project folder.
func (p person) falaj(args ...string) result {
	p.w.t.Helper()
	return p.w.command(p.w.dir, p.config, "", args...)
}

// ok runs a command that must succeed.
func (p person) ok(args ...string) result {
	p.w.t.Helper()
	r := p.falaj(args...)
	if r.code != 0 {
		p.w.t.Fatalf("falaj %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r
}

// answer of a request.
type answer struct {
	what   string
	status int
	header http.Header
	body   []byte
	err    error // the server did not answer
}

func (a answer) decode(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("%s: %v: %s", a.what, err, a.body)
	}
}

// request sends a body as it is. Headers are name, value pairs; Host sets the Host header.
func (s *server) request(token, method, path string, body []byte, headers ...string) answer {
	a := answer{what: method + " " + path}
	req, err := http.NewRequest(method, s.url+path, bytes.NewReader(body))
	if err != nil {
		return answer{what: a.what, err: err}
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := s.client().Do(req)
	if err != nil {
		a.err = err
		return a
	}
	defer resp.Body.Close()
	var buf bytes.Buffer
	if _, err := buf.ReadFrom(resp.Body); err != nil {
		a.err = err
		return a
	}
	a.status, a.header, a.body = resp.StatusCode, resp.Header, buf.Bytes()
	return a
}

// call sends JSON; nil means no body.
func (s *server) call(token, method, path string, in any) answer {
	if in == nil {
		return s.request(token, method, path, nil)
	}
	b, err := json.Marshal(in)
	if err != nil {
		return answer{err: err}
	}
	return s.request(token, method, path, b, "Content-Type", "application/json")
}

func (w *world) must(status int, a answer, or ...int) answer {
	w.t.Helper()
	for _, s := range append(or, status) {
		if a.err == nil && a.status == s {
			return a
		}
	}
	w.t.Fatalf("%s: status %d, want %d: %s %v", a.what, a.status, status, a.body, a.err)
	return a
}

// get decodes an answer of 200.
func (w *world) get(path string, out any) {
	w.t.Helper()
	w.must(200, w.call(w.amal.token, "GET", path, nil)).decode(w.t, out)
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// state is what the API shows of the project. Runs that failed stay listed as failed, so runs are not part of it.
func (w *world) state() map[string]any {
	w.t.Helper()
	out := map[string]any{}
	paths := []string{"/datasets", "/models", "/changes", "/bindings", "/webhooks", "/lineage"}
	var datasets struct{ Items []struct{ Name string } }
	w.get(project+"/datasets", &datasets)
	for _, d := range datasets.Items {
		paths = append(paths, "/datasets/"+d.Name)
	}
	var models struct{ Items []struct{ Name string } }
	w.get(project+"/models", &models)
	for _, m := range models.Items {
		paths = append(paths, "/models/"+m.Name)
	}
	for _, p := range paths {
		var v any
		w.get(project+p, &v)
		out[p] = without(v, "last_pipeline")
	}
	return out
}

// without drops a field that a failed run rightly changes.
func without(v any, field string) any {
	if m, ok := v.(map[string]any); ok {
		delete(m, field)
	}
	return v
}

// unchanged runs fn and demands that the state is as before, the record clean and the server up.
func (w *world) unchanged(fn func()) {
	w.t.Helper()
	before := w.state()
	fn()
	if d := cmp.Diff(before, w.state()); d != "" {
		w.t.Errorf("something half-done stayed (-before +after):\n%s", d)
	}
	w.clean()
}

// clean demands a clean record and a server that is up.
func (w *world) clean() {
	w.t.Helper()
	if a := w.call("", "GET", "/readyz", nil); a.err != nil || a.status != 200 {
		w.t.Errorf("the server is not up: %d %s %v", a.status, a.body, a.err)
	}
	if r := w.amal.falaj("audit", "verify"); r.code != 0 || !strings.HasPrefix(r.out, "clean") {
		w.t.Errorf("audit verify: exit %d: %s%s", r.code, r.out, r.err)
	}
}

// problem demands one clear error over HTTP: status, code, what and why with the given words, and a next step.
func (w *world) problem(a answer, status int, words ...string) {
	w.t.Helper()
	if a.err != nil {
		w.t.Errorf("%s: no answer: %v", a.what, a.err)
		return
	}
	var p struct {
		Status             int
		Title, Detail      string
		Next, Code, Field  string
		ErrorCode, Message string
	}
	if err := json.Unmarshal(a.body, &p); err != nil || p.Detail == "" || p.Next == "" || p.Code == "" || p.Status != a.status || a.header.Get("Content-Type") != "application/problem+json" {
		w.t.Errorf("%s: status %d: not a whole problem (%s): %s", a.what, a.status, a.header.Get("Content-Type"), a.body)
		return
	}
	if a.status != status {
		w.t.Errorf("%s: status %d, want %d: %s", a.what, a.status, status, a.body)
	}
	for _, word := range words {
		if !strings.Contains(p.Detail+" "+p.Next+" "+p.Field, word) {
			w.t.Errorf("%s: the error does not say %q: %s | %s", a.what, word, p.Detail, p.Next)
		}
	}
}

// foreign demands one clear error in a foreign dialect: the given status and words, no stack, no path of the machine.
func (w *world) foreign(a answer, status int, words ...string) {
	w.t.Helper()
	if a.err != nil || a.status != status {
		w.t.Errorf("%s: status %d, want %d: %s %v", a.what, a.status, status, a.body, a.err)
		return
	}
	if !json.Valid(a.body) || strings.Contains(string(a.body), w.data) {
		w.t.Errorf("%s: not JSON, or with a path of the machine: %s", a.what, a.body)
	}
	for _, word := range words {
		if !strings.Contains(string(a.body), word) {
			w.t.Errorf("%s: the error does not say %q: %s", a.what, word, a.body)
		}
	}
}

// refusal demands of a command its exit code, and on stderr the words and at the end a next step.
func (w *world) refusal(r result, code int, words ...string) {
	w.t.Helper()
	text := strings.TrimSpace(r.err)
	if r.code != code {
		w.t.Errorf("exit %d, want %d:\n%s%s", r.code, code, r.out, r.err)
	}
	if strings.Count(text, "\n") < 1 {
		w.t.Errorf("the error has no next step: %q", text)
	}
	for _, word := range words {
		if !strings.Contains(text, word) {
			w.t.Errorf("the error does not say %q:\n%s", word, text)
		}
	}
	if strings.Contains(text, "goroutine ") || strings.Contains(text, w.data) {
		w.t.Errorf("the error shows a stack or a path of the server:\n%s", text)
	}
}

// layProject writes the tiny project with two files of data, 60 hours of five machines each.
func layProject(t *testing.T, dir string) {
	t.Helper()
	if err := os.CopyFS(dir, os.DirFS("testdata/tiny")); err != nil {
		t.Fatal(err)
	}
	lock, err := os.ReadFile(lockFile)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "requirements.lock"), string(lock))
	write(t, filepath.Join(dir, "data", "readings-1.csv"), readings(0, 60))
	write(t, filepath.Join(dir, "data", "readings-2.csv"), readings(60, 120))
}

const header = "machine,read_at,known_at,temp,load,broke\n"

// readings are the hours from..to of five machines: hot ones under load break.
func readings(from, to int) string {
	var b strings.Builder
	b.WriteString(header)
	for h := from; h < to; h++ {
		for m := 1; m <= 5; m++ {
			temp := 40 + 40*math.Sin(float64(h)/7+float64(m)) + float64(m)
			load := float64((h*7+m*13)%20) / 20
			broke := 0
			if temp+30*load+float64((h*31+m*17)%23) > 90 {
				broke = 1
			}
			at := time.Date(2024, 1, 1, h, 0, 0, 0, time.UTC)
			fmt.Fprintf(&b, "m%d,%s,%s,%.2f,%g,%d\n", m, at.Format(time.RFC3339), at.Add(time.Hour).Format(time.RFC3339), temp, load, broke)
		}
	}
	return b.String()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// edit changes a file of the project and gives the way back.
func (w *world) edit(name, old, text string) (undo func()) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	b, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	if !strings.Contains(string(b), old) {
		w.t.Fatalf("%s does not hold %q", name, old)
	}
	write(w.t, path, strings.Replace(string(b), old, text, 1))
	return func() { write(w.t, path, string(b)) }
}

// infer asks an environment of the model for machine m1.
func (w *world) infer(token, environment, id string, at time.Time) answer {
	in := map[string]any{
		"inputs": []any{
			map[string]any{"name": "machine", "shape": []int{1}, "datatype": "BYTES", "data": []string{"m1"}},
			map[string]any{"name": "load", "shape": []int{1}, "datatype": "FP64", "data": []float64{0.5}},
		},
		"outputs": []any{map[string]string{"name": "predict"}, map[string]string{"name": "prediction_id"}},
	}
	if id != "" {
		in["id"] = id
	}
	if !at.IsZero() {
		in["parameters"] = map[string]any{"at": at.UnixMicro()}
	}
	return w.call(token, "POST", "/p/tiny/v2/models/breaks@"+environment+"/infer", in)
}

// in is the same world whose checks speak to a subtest.
func (w *world) in(t *testing.T) *world {
	v := *w
	v.server = &server{t: t, bin: w.bin, data: w.data, url: w.url, listen: w.listen, ca: w.ca, flags: w.flags, env: w.env, out: w.out}
	for _, p := range []*person{&v.amal, &v.badr, &v.vera} {
		p.w = &v
	}
	return &v
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What a hostile or careless client may try over HTTP: each is refused with one clear error and changes nothing.
func TestDoor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	promoted(w)
	chg := ""
	t.Run("own change", func(t *testing.T) {
		v := w.in(t)
		v.amal.ok("run", "--param", "trees=30")
		v.amal.ok("promote", "breaks@2", "dev")
		v.amal.ok("promote", "breaks@2", "staging")
		chg = pending(v, "breaks@2")
		v.unchanged(func() {
			v.refusal(v.amal.falaj("approve", chg), 3, "user:amal may not change.approve", "separation of duties", "falaj policy why")
			v.problem(v.call(v.amal.token, "POST", project+"/changes/"+chg+"/approve", map[string]string{"comment": "mine"}), 403, "separation of duties")
		})
	})
	t.Run("viewer", func(t *testing.T) {
		v := w.in(t)
		v.unchanged(func() {
			v.refusal(v.vera.falaj("apply"), 3, "user:vera may not")
			v.refusal(v.vera.falaj("promote", "breaks@1", "dev"), 3, "user:vera may not", "falaj policy why")
			v.refusal(v.vera.falaj("rollback", "breaks", "production"), 3, "user:vera may not")
			v.refusal(v.vera.falaj("approve", chg), 3, "user:vera may not")
			for _, c := range []struct {
				method, path string
				body         any
			}{
				{"POST", project + "/apply", map[string]any{"yaml": "project: tiny", "files": map[string]string{}}},
				{"POST", project + "/pipelines/runs", map[string]any{}},
				{"POST", project + "/changes", map[string]any{"model": "breaks", "version": 1, "environment": "dev"}},
				{"POST", project + "/models/breaks/labels", map[string]any{"labels": []any{map[string]any{"request_id": "r", "value": 1}}}},
				{"POST", project + "/webhooks", map[string]any{"url": "http://127.0.0.1:9/"}},
				{"PUT", project + "/blobs/" + digestOf([]byte("x")), nil},
				{"POST", apiBase + "/users", map[string]any{"name": "eve", "password": password}},
				{"POST", apiBase + "/bindings", map[string]any{"project": "tiny", "role": "admin", "principal": "user:vera"}},
			} {
				v.problem(v.call(v.vera.token, c.method, c.path, c.body), 403, "user:vera may not")
			}
			v.foreign(v.call(v.vera.token, "POST", "/p/tiny/api/2.0/mlflow/runs/create", map[string]any{"experiment_id": "1"}), 403, "PERMISSION_DENIED", "user:vera may not")
		})
	})
	t.Run("nobody", func(t *testing.T) {
		v := w.in(t)
		v.problem(v.call("", "GET", project+"/models", nil), 401, "falaj login")
		v.problem(v.call("flj_"+strings.Repeat("x", 43), "GET", project+"/models", nil), 401)
		nobody := person{w: v, config: t.TempDir()}
		v.refusal(nobody.falaj("status"), 4, "falaj login")
		v.problem(v.call("", "POST", apiBase+"/setup", map[string]string{"token": v.link(), "user": "eve", "password": password}), 401, "link")
	})
	t.Run("host and origin", func(t *testing.T) {
		v := w.in(t)
		v.problem(v.request(v.amal.token, "GET", project+"/models", nil, "Host", "falaj.attacker.example"), 403, "falaj.attacker.example", "--host")
		v.problem(v.request("", "GET", "/", nil, "Host", "169.254.169.254"), 403)
		session := v.request("", "POST", apiBase+"/login", []byte(`{"user":"amal","password":"`+password+`"}`), "Content-Type", "application/json")
		cookie, _, _ := strings.Cut(session.header.Get("Set-Cookie"), ";")
		body := []byte(`{"model":"breaks","version":1,"environment":"dev"}`)
		v.unchanged(func() {
			v.problem(v.request("", "POST", project+"/changes", body, "Content-Type", "application/json", "Cookie", cookie, "Origin", "https://attacker.example"), 403, "another site")
			v.problem(v.request("", "POST", project+"/changes", body, "Content-Type", "text/plain", "Cookie", cookie, "Sec-Fetch-Site", "cross-site"), 403, "another site")
		})
		if a := v.request("", "GET", project+"/models", nil, "Cookie", cookie); a.status != 200 || a.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("the session itself: %d %s", a.status, a.body)
		}
	})
	t.Run("nowhere", func(t *testing.T) {
		v := w.in(t)
		for _, path := range []string{apiBase + "/nothing", apiBase + "/projects/tiny/nothing", "/api/falaj/v9/models", "/api/"} {
			v.problem(v.call(v.amal.token, "GET", path, nil), 404, "nothing at")
		}
		v.problem(v.call(v.amal.token, "DELETE", project+"/models", nil), 405, "GET")
		v.problem(v.call(v.amal.token, "GET", apiBase+"/projects/nope/models", nil), 404, "nope")
		v.problem(v.call(v.amal.token, "GET", project+"/models/nope", nil), 404, "nope")
		v.refusal(v.amal.falaj("promote", "nope@1", "dev"), 5, "nope")
		v.refusal(v.amal.falaj("promote", "breaks@99", "dev"), 5, "99")
		v.refusal(v.amal.falaj("promote", "breaks@1", "nowhere"), 1, "nowhere", "[dev staging production]")
		v.foreign(v.call(v.amal.token, "GET", "/api/2.0/mlflow/nothing", nil), 501, "NOT_IMPLEMENTED")
		if r := v.amal.falaj("promot"); r.code != 2 || !strings.Contains(r.err, "--help") {
			t.Errorf("a wrong verb: exit %d: %s", r.code, r.err)
		}
	})
	t.Run("oversized", func(t *testing.T) {
		v := w.in(t)
		big := bytes.Repeat([]byte("x"), 9<<20)
		quoted, err := json.Marshal(map[string]string{"yaml": string(big)})
		if err != nil {
			t.Fatal(err)
		}
		v.unchanged(func() {
			v.problem(v.request(v.amal.token, "POST", project+"/apply", quoted, "Content-Type", "application/json"), 413, "8388608")
			v.problem(v.request("", "POST", apiBase+"/login", quoted, "Content-Type", "application/json"), 413)
			v.problem(chunked(t, v, project+"/apply", quoted), 413)
			v.foreign(v.request(v.amal.token, "POST", "/p/tiny/v2/models/breaks/infer", bytes.Repeat([]byte(" "), 80<<20), "Content-Type", "application/json"), 413)
			v.foreign(v.request(v.amal.token, "POST", "/p/tiny/api/2.0/mlflow/runs/log-metric", big, "Content-Type", "application/json"), 413)
			v.problem(v.request(v.amal.token, "POST", project+"/apply", []byte("{"), "Content-Type", "application/json"), 400)
			v.problem(v.call(v.amal.token, "POST", project+"/changes", map[string]any{"model": 7}), 422)
			v.problem(v.call(v.amal.token, "GET", project+"/models?limit=100000", nil), 422, "limit")
		})
	})
	t.Run("paths", func(t *testing.T) { paths(t, w.in(t)) })
	t.Run("webhook", func(t *testing.T) { webhook(t, w.in(t)) })
	t.Run("open mode", func(t *testing.T) {
		w.stop()
		w.flags = append(w.flags, "--open")
		w.start()
		v := w.in(t)
		await(t, "open mode to be said loudly", 20*time.Second, func() bool { return strings.Contains(w.out.String(), "OPEN MODE") })
		if a := v.call("", "GET", project+"/models", nil); a.status != 200 {
			t.Errorf("open mode does not let anybody read: %d %s", a.status, a.body)
		}
		v.unchanged(func() {
			v.problem(v.call("", "POST", project+"/changes/"+chg+"/approve", map[string]string{"comment": ""}), 403, "anonymous")
			v.problem(v.request("", "POST", project+"/changes/"+chg+"/approve", []byte(`{"comment":""}`), "Content-Type", "application/json", "Host", "localhost"), 403)
			v.refusal(person{w: v, config: t.TempDir()}.falaj("approve", chg), 3, "anonymous")
		})
	})
	// Not on loopback there is no server at all.
	r := w.command(w.dir, t.TempDir(), "", "server", "--data", filepath.Join(t.TempDir(), "d"), "--listen", "0.0.0.0:7420", "--open")
	w.refusal(r, 1, "not loopback", "127.0.0.1")
}

// chunked sends a body without its length.
func chunked(t *testing.T, w *world, path string, body []byte) answer {
	t.Helper()
	req, err := http.NewRequest("POST", w.url+path, struct{ *bytes.Buffer }{bytes.NewBuffer(body)})
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = -1
	req.Header.Set("Authorization", "Bearer "+w.amal.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{what: "chunked " + path, err: err}
	}
	return answer{what: "chunked " + path, status: resp.StatusCode, header: resp.Header, body: readAll(t, resp.Body)}
}

// paths tries .. wherever a name comes from outside. A file that lies where it would land is not made, /etc/passwd is not read.
func paths(t *testing.T, w *world) {
	outside := func() {
		for _, dir := range []string{w.data, filepath.Dir(w.data), filepath.Join(w.data, "run"), filepath.Join(w.data, "blobs")} {
			if _, err := os.Lstat(filepath.Join(dir, "evil.txt")); err == nil {
				t.Errorf("evil.txt was written to %s", dir)
			}
		}
	}
	tok := w.amal.token
	text := []byte("evil")
	w.unchanged(func() {
		yaml, err := os.ReadFile(filepath.Join(w.dir, "falaj.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		w.must(201, w.request(tok, "PUT", project+"/blobs/"+digestOf(text), text))
		for _, digest := range []string{"..%2f..%2fevil.txt", "sha256:..%2f..%2f" + strings.Repeat("0", 58), "sha256:" + strings.Repeat("g", 64), digestOf([]byte("other"))} {
			a := w.request(tok, "PUT", project+"/blobs/"+digest, text)
			w.problem(a, 400)
		}
		for _, name := range []string{"../evil.txt", "/etc/evil.txt", "tests/../../evil.txt", "a/./b.txt", "nul\x00.txt", ""} {
			w.problem(w.call(tok, "POST", project+"/apply", map[string]any{"yaml": string(yaml), "files": map[string]string{name: digestOf(text)}}), 400)
		}
		refused := func(status int, dataset, name, digest string) {
			t.Helper()
			w.problem(w.call(tok, "POST", project+"/pipelines/runs", map[string]any{"pipeline": "ingest", "sources": map[string]any{dataset: []any{map[string]string{"name": name, "digest": digest}}}}), status)
		}
		refused(400, "readings", "../../evil.txt", digestOf(text))
		refused(404, "readings", "fine.txt", digestOf([]byte("never sent")))
		refused(404, "nothing", "fine.txt", digestOf(text))
		var run struct {
			Run struct{ Info struct{ Run_id string } }
		}
		a := w.must(200, w.call(tok, "POST", "/p/tiny/api/2.0/mlflow/runs/create", map[string]any{"experiment_id": experiment(t, w)}))
		a.decode(t, &run)
		id := run.Run.Info.Run_id
		for _, p := range []string{"..%2f..%2fevil.txt", "a%2f..%2f..%2f..%2fevil.txt", "%2e%2e/%2e%2e/evil.txt", "%2fetc%2fevil.txt", "a%5c..%5cevil.txt"} {
			a := w.request(tok, "PUT", "/p/tiny/api/2.0/mlflow-artifacts/artifacts/"+experiment(t, w)+"/"+id+"/artifacts/"+p, text)
			if a.err != nil || a.status < 300 || a.status >= 500 {
				t.Errorf("%s: %d %s %v", a.what, a.status, a.body, a.err)
			}
			a = w.request(tok, "GET", "/p/tiny/api/2.0/mlflow-artifacts/artifacts/"+experiment(t, w)+"/"+id+"/artifacts/"+p, nil)
			if a.err != nil || a.status < 300 || a.status >= 500 {
				t.Errorf("%s: %d %s %v", a.what, a.status, a.body, a.err)
			}
		}
		w.foreign(w.call(tok, "GET", "/p/tiny/api/2.0/mlflow/artifacts/list?run_id="+id+"&path="+url.QueryEscape("../../.."), nil), 400, "INVALID_PARAMETER_VALUE")
		for _, source := range []string{"file:///etc/passwd", "../../../etc/passwd", "mlflow-artifacts:/../../etc", "mlflow-artifacts:/" + id + "/artifacts/../../../etc", "runs:/" + id + "/../../x"} {
			w.foreign(w.call(tok, "POST", "/p/tiny/api/2.0/mlflow/model-versions/create", map[string]any{"name": "breaks", "source": source, "run_id": id}), 400, "INVALID_PARAMETER_VALUE")
		}
		for _, p := range []string{"/p/..%2ftiny/v2/models/breaks", "/p/tiny/v2/models/..%2f..%2fbreaks", "/..%2f..%2fetc/passwd", "/assets/..%2f..%2f..%2fetc%2fpasswd"} {
			a := w.request(tok, "GET", p, nil)
			if a.err != nil || a.status >= 500 || strings.Contains(string(a.body), "root:") {
				t.Errorf("%s: %d %s %v", a.what, a.status, a.body, a.err)
			}
		}
		outside()
	})
}

// pipelineRun is what the tests read of a run.
type pipelineRun struct {
	ID, State string
	Error     struct{ Detail, Next string }
}

// ended waits for the end of a run.
func ended(w *world, id string) pipelineRun {
	w.t.Helper()
	var r pipelineRun
	await(w.t, "run "+id+" to end", 2*time.Minute, func() bool {
		a := w.call(w.amal.token, "GET", project+"/pipelines/runs/"+id, nil)
		return a.status == 200 && json.Unmarshal(a.body, &r) == nil && r.State != "waiting" && r.State != "running"
	})
	return r
}

// experiment is the id of the model's experiment.
func experiment(t *testing.T, w *world) string {
	t.Helper()
	var e struct {
		Experiment struct {
			ID string `json:"experiment_id"`
		}
	}
	w.get("/p/tiny/api/2.0/mlflow/experiments/get-by-name?experiment_name=breaks", &e)
	return e.Experiment.ID
}

// webhook registers one that nobody answers: the test of it says so, changes go on, and the record stays clean. A private
// address that the operator did not allow is refused at once.
func webhook(t *testing.T, w *world) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	for _, u := range []string{"http://169.254.169.254/latest", "http://10.0.0.1/", "file:///etc/passwd", "gopher://127.0.0.1/", "nonsense"} {
		w.problem(w.call(w.amal.token, "POST", project+"/webhooks", map[string]any{"url": u, "region": "ae"}), 400)
	}
	var hook struct{ ID string }
	w.must(201, w.call(w.amal.token, "POST", project+"/webhooks", map[string]any{"url": "http://" + dead + "/hook", "region": "ae"})).decode(t, &hook)
	w.problem(w.call(w.amal.token, "POST", project+"/webhooks/"+hook.ID+"/test", nil), 503, "did not answer")
	w.amal.ok("rollback", "breaks", "dev")
	w.clean()
	w.must(204, w.call(w.amal.token, "DELETE", project+"/webhooks/"+hook.ID, nil))
	// One that answers gets what is announced.
	got := make(chan string, 100)
	srv := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var e struct{ Type string }
		_ = json.NewDecoder(r.Body).Decode(&e)
		got <- fmt.Sprintf("%s %t", e.Type, r.Header.Get("Falaj-Signature") != "")
	}), ReadHeaderTimeout: time.Second}
	if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
	w.must(201, w.call(w.amal.token, "POST", project+"/webhooks", map[string]any{"url": "http://" + l.Addr().String() + "/hook", "types": []string{"change.*"}, "region": "ae"})).decode(t, &hook)
	w.amal.ok("promote", "breaks@2", "dev")
	select {
	case e := <-got:
		if !strings.HasPrefix(e, "change.") || !strings.HasSuffix(e, "true") {
			t.Errorf("the webhook got %s", e)
		}
	case <-time.After(20 * time.Second):
		t.Error("the webhook got nothing of a promotion")
	}
	w.must(204, w.call(w.amal.token, "DELETE", project+"/webhooks/"+hook.ID, nil))
}

package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io/fs"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mine is a world whose model refers to three secrets, one of each kind, and whose training prints them.
type mine struct {
	*world
	canaries map[string]string // what is planted, by what it is
}

func newMine(t *testing.T) *mine {
	t.Helper()
	folder := t.TempDir()
	m := &mine{world: newWorld(t, "--secret-env", "CANARY_ENV", "--secret-dir", folder), canaries: map[string]string{}}
	write(t, filepath.Join(folder, "db", "canary"), m.plant("file")+"\n")
	m.stop()
	m.env = []string{"CANARY_ENV=" + m.plant("env")}
	m.start()
	m.set(m.plant("first"))
	m.edit("falaj.yaml", "      limits:", "      secrets: {DB: secret://DB_PASSWORD, ENV: env://CANARY_ENV, FILE: file://db/canary}\n      limits:")
	return m
}

// plant makes a canary.
func (m *mine) plant(name string) string {
	m.canaries[name] = "canary-" + name + "-" + rand.Text()
	return m.canaries[name]
}

func (m *mine) set(value string) {
	m.t.Helper()
	if r := m.command(m.dir, m.amal.config, value+"\n", "secret", "set", "DB_PASSWORD"); r.code != 0 || strings.Contains(r.out+r.err, value) {
		m.t.Fatalf("falaj secret set: exit %d: %s%s", r.code, r.out, r.err)
	}
}

// holds looks for each canary, also in Base64, in a text.
func (m *mine) holds(where string, text []byte) {
	m.t.Helper()
	for name, c := range m.canaries {
		if bytes.Contains(text, []byte(c)) || bytes.Contains(text, []byte(base64.StdEncoding.EncodeToString([]byte(c))[:40])) || bytes.Contains(text, []byte(c[:len(c)-2])) {
			m.t.Errorf("%s holds the canary %s", where, name)
		}
	}
}

// search reads every file below the folders and gives their number.
func (m *mine) search(dirs ...string) (n int) {
	m.t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return nil // what a stranger removes meanwhile, and the link to the runtimes
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return nil
			}
			n++
			m.holds(path, b)
			return nil
		})
		if err != nil {
			m.t.Fatal(err)
		}
	}
	return n
}

// said reads all that the server tells of the project.
func (m *mine) said(run string) {
	m.t.Helper()
	for _, path := range []string{project + "/secrets", project + "/pipelines/runs", project + "/pipelines/runs/" + run, project + "/models/breaks", project + "/lineage", project + "/changes", project + "/audit",
		"/p/tiny/api/2.0/mlflow/experiments/get-by-name?experiment_name=breaks"} {
		a := m.call(m.amal.token, "GET", path, nil)
		if a.err != nil || a.status >= 500 {
			m.t.Errorf("%s: %d %v", path, a.status, a.err)
		}
		m.holds("GET "+path, a.body)
	}
	m.holds("the server's log", []byte(m.out.String()))
}

// log is what a run's training said.
func (m *mine) log(run string) string {
	m.t.Helper()
	r := m.amal.ok("logs", run, "train breaks")
	m.holds("falaj logs", []byte(r.out+r.err))
	return r.out
}

func (m *mine) newest() (id, state string) {
	m.t.Helper()
	var runs struct{ Items []struct{ ID, State string } }
	m.get(project+"/pipelines/runs", &runs)
	if len(runs.Items) == 0 {
		return "", ""
	}
	return runs.Items[0].ID, runs.Items[0].State
}

// Canaries planted as secrets are read and printed by a training, set anew, killed with the server; nothing that is kept or
// said holds one of them, and the memory that held them is wiped.
func TestSecretsLeaveNoTrace(t *testing.T) {
	t.Parallel()
	m := newMine(t)
	m.amal.ok("apply")
	r := m.amal.ok("run", "--param", "mode=secrets")
	m.holds("falaj run", []byte(r.out+r.err))
	run, _ := m.newest()
	text := m.log(run)
	for _, want := range []string{"'DB': 39", "value of DB ***", "value of ENV ***", "value of FILE ***", "in the environment: False in the command: False", "told"} {
		if !strings.Contains(text, want) {
			t.Errorf("the training does not say %q:\n%.3000s", want, text)
		}
	}
	m.said(run)

	// Nothing changed, so nothing runs; a new version is a new input, and is used without a restart.
	if r := m.amal.ok("run", "--param", "mode=secrets"); !strings.Contains(r.out, "7 cached") {
		t.Errorf("a run without news is not cached: %s%s", r.out, r.err)
	}
	m.set(m.plant("second-one"))
	if r := m.amal.ok("run", "--param", "mode=secrets"); !strings.Contains(r.err, "secret DB changed") || !strings.Contains(r.out, "breaks@2") {
		t.Errorf("a secret set anew is not used: %s%s", r.out, r.err)
	}
	run, _ = m.newest()
	if text := m.log(run); !strings.Contains(text, "'DB': 44") {
		t.Errorf("the training did not get the second version:\n%.3000s", text)
	}
	if r := m.amal.ok("secret", "list"); !strings.Contains(r.out, "DB_PASSWORD\t2\tamal") {
		t.Errorf("falaj secret list: %s", r.out)
	}
	m.said(run)
	m.stop()
	if n := m.search(m.data, m.dir, "/dev/shm"); n < 20 {
		t.Errorf("only %d files were searched", n)
	}

	// Killed while a training has them open.
	m.start()
	m.set(m.plant("third"))
	m.amal.ok("run", "--detach", "--param", "mode=secrets-forever")
	run, _ = m.newest()
	await(t, "the training to hold its secrets", 3*time.Minute, func() bool {
		return strings.Contains(m.amal.falaj("logs", run, "train breaks").out, "told")
	})
	if !m.inMemory() {
		t.Error("the secrets of a running training are not in /dev/shm: the search below would see nothing")
	}
	m.kill()
	m.search(m.data)
	m.start()
	// The run goes on by itself, and holds them again; cancelled, they go.
	await(t, "the run to be cancelled", 2*time.Minute, func() bool {
		a := m.call(m.amal.token, "POST", project+"/pipelines/runs/"+run+"/cancel", nil)
		_, state := m.newest()
		return a.err == nil && state != "running" && state != "waiting"
	})
	await(t, "the rooms to be wiped", 2*time.Minute, func() bool { return !m.inMemory() })
	m.said(run)
	m.clean()
	m.kill()
	m.search(m.data, m.dir, "/dev/shm")
}

// inMemory says whether a canary lies in the machine's memory file system.
func (m *mine) inMemory() (found bool) {
	_ = filepath.WalkDir("/dev/shm", func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			b, _ := os.ReadFile(path)
			for _, c := range m.canaries {
				found = found || bytes.Contains(b, []byte(c))
			}
		}
		return nil
	})
	return found
}

// What may not be done with secrets is refused with its reason, and a step that cannot open one fails by itself.
func TestSecretsAreRefused(t *testing.T) {
	t.Parallel()
	m := newMine(t)
	for _, p := range []person{m.vera, m.badr} {
		if a := m.call(p.token, "PUT", project+"/secrets/DB_PASSWORD", map[string]string{"value": "a value of theirs"}); a.status != 403 {
			t.Errorf("%s sets a secret: %d %s", p.name, a.status, a.body)
		}
		for method, path := range map[string]string{"GET": project + "/secrets", "DELETE": project + "/secrets/DB_PASSWORD"} {
			m.problem(m.call(p.token, method, path, nil), 403, "admin")
		}
	}
	m.problem(m.call(m.amal.token, "PUT", project+"/secrets/DB_PASSWORD", map[string]string{"value": "short"}), 400, "8 bytes")
	m.problem(m.call(m.amal.token, "DELETE", project+"/secrets/NONE", nil), 404, "falaj secret set NONE")
	m.refusal(m.amal.falaj("secret", "set", "DB_PASSWORD", "a value on the command line"), 2, "never an argument")
	m.amal.ok("apply")

	for name, c := range map[string][2]string{
		"not there":   {"secret://DB_PASSWORD", "secret://NONE"},
		"not allowed": {"env://CANARY_ENV", "env://PATH"},
		"no file":     {"file://db/canary", "file://db/none"},
		"another one": {"file://db/canary", "file:///etc/hostname"},
	} {
		undo := m.edit("falaj.yaml", c[0], c[1])
		m.amal.ok("apply")
		r := m.amal.falaj("run", "--param", "mode=secrets")
		if undo(); r.code == 0 || !strings.Contains(r.err, strings.TrimPrefix(c[1], "secret://")) {
			t.Errorf("%s: exit %d: %s%s", name, r.code, r.out, r.err)
		}
	}
	value := "8f14e45fceea" + "167a5a36dedd4bea2543"
	undo := m.edit("falaj.yaml", "secret://DB_PASSWORD", "vault://kv/db")
	m.refusal(m.amal.falaj("apply"), 1, "not available in this version")
	undo()
	undo = m.edit("falaj.yaml", "mode: good}", "mode: good, api_key: "+value+"}")
	m.refusal(m.amal.falaj("apply"), 1, "falaj.yaml:43:48:", "falaj secret set")
	undo()
	m.refusal(m.amal.falaj("run", "--param", "db_token="+value), 1, "db_token", "falaj secret set")
	m.canaries["literal"] = value
	m.stop()
	m.search(m.data)
}

// The key-encryption key is made anew, killed on the way at random instants; after it the server reads everything, old
// secrets and blobs, and the old key opens nothing.
func TestKeysRotate(t *testing.T) {
	t.Parallel()
	m := newMine(t)
	m.amal.ok("apply")
	m.amal.ok("run", "--param", "mode=secrets")
	rotate := func() *exec.Cmd {
		cmd := exec.Command(m.bin, "keys", "rotate", "--json", "--data", m.data)
		cmd.Env = environ()
		return cmd
	}
	if out, err := rotate().CombinedOutput(); err == nil || !bytes.Contains(out, []byte("Another falaj uses the data directory")) {
		t.Fatalf("the keys of a running server are rotated: %s %v", out, err)
	}
	m.stop()
	type rotation struct {
		Key      uint32
		Disabled []uint32
		DataKeys int `json:"data_keys"`
		Resumed  bool
	}
	killed, finished, resumed := 0, 0, 0
	var took time.Duration
	for round := 0; round < 40 && (killed < 8 || finished < 2); round++ {
		cmd := rotate()
		var out bytes.Buffer
		cmd.Stdout = &out
		begun := time.Now()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if round > 0 && killed < 8 {
			time.AfterFunc(time.Duration(mrand.Int64N(int64(took)*5/4)), func() { _ = cmd.Process.Kill() })
		}
		if err := cmd.Wait(); err != nil {
			killed++
			continue
		}
		var r rotation
		if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.DataKeys < 2 || len(r.Disabled) != 1 {
			t.Fatalf("round %d: %s %v", round, out.String(), err)
		}
		if finished++; round == 0 {
			took = time.Since(begun)
		}
		if r.Resumed {
			resumed++
		}
	}
	t.Logf("%d killed, %d finished, %d of them took up an interrupted one; one takes %v", killed, finished, resumed, took)
	if out, err := rotate().CombinedOutput(); err != nil {
		t.Fatalf("%s %v", out, err)
	}
	m.start()
	m.clean() // reads every blob
	if r := m.amal.ok("run", "--param", "mode=secrets"); !strings.Contains(r.out, "7 cached") {
		t.Errorf("after the rotation a run without news is not cached: %s%s", r.out, r.err)
	}
	if r := m.amal.ok("run", "--param", "mode=secrets", "--param", "trees=30"); !strings.Contains(r.out, "breaks@2") {
		t.Errorf("after the rotation secrets do not open: %s%s", r.out, r.err)
	}
	m.stop()
	m.search(m.data)
}

// The project's own tests get secrets too, and what they report of them is hidden.
func TestSecretsOfTests(t *testing.T) {
	t.Parallel()
	m := newMine(t)
	m.edit("falaj.yaml", "    tests:\n", "    tests:\n      secrets: {DB: secret://DB_PASSWORD}\n")
	m.edit("tests/integration.py", "import", "import os\nvalue = open(os.environ['FALAJ_SECRETS'] + '/DB').read()\nprint('not ok 99 - tells', value, '# it is', value, flush=True)\nimport")
	m.amal.ok("apply")
	m.amal.ok("run")
	m.amal.ok("promote", "breaks@1", "dev")
	r := m.amal.falaj("promote", "breaks@1", "staging")
	m.holds("falaj promote", []byte(r.out+r.err))
	a := m.must(200, m.call(m.amal.token, "GET", project+"/changes", nil))
	var list struct{ Items []struct{ ID string } }
	a.decode(t, &list)
	told := false
	for _, c := range list.Items {
		b := m.must(200, m.call(m.amal.token, "GET", project+"/changes/"+c.ID, nil)).body
		m.holds("change "+c.ID, b)
		told = told || bytes.Contains(b, []byte("tells ***"))
	}
	if r.code != 3 || !told {
		t.Errorf("the test did not read its secret: exit %d: %s%s", r.code, r.out, r.err)
	}
	m.stop()
	m.search(m.data, "/dev/shm")
}

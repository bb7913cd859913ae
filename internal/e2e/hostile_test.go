package e2e

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// hostile is a world whose training is that of somebody who wants more than a model, and what it may be after.
type hostile struct {
	*world
	canary string // in every file that it may not read
	room   string // the server's folder in memory
}

func newHostile(t *testing.T) *hostile {
	t.Helper()
	h := &hostile{world: newWorld(t), canary: "canary-" + rand.Text()}
	h.edit("falaj.yaml", "memory: 1GiB", "memory: 512MiB")
	h.edit("falaj.yaml", "timeout: 2m", "timeout: 25s")
	h.amal.ok("apply")
	h.amal.ok("run")
	h.must(201, h.call(h.amal.token, "POST", apiBase+"/projects", map[string]any{"name": "other", "residency": []string{"ae"}}))
	h.must(201, h.request(h.amal.token, "PUT", apiBase+"/projects/other/blobs/"+digestOf([]byte(h.canary)), []byte(h.canary)))

	sum := sha256.Sum256([]byte(h.data)) // as the server names its folder in memory
	h.room = "/dev/shm/falaj-" + hex.EncodeToString(sum[:8])
	if _, err := os.Stat(filepath.Join(h.room, "training")); err != nil {
		t.Fatal(err)
	}
	// What another job of this server, another server, and another user's program keep beside it.
	neighbours := []string{filepath.Join(h.room, "training", "trn_neighbour", "scratch", "x"), filepath.Join(h.room, "data", "room_neighbour", "training.parquet")}
	elsewhere, err := os.MkdirTemp("/dev/shm", "falaj-neighbour-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(elsewhere) })
	neighbours = append(neighbours, filepath.Join(elsewhere, "x"), filepath.Join(t.TempDir(), "x"))
	for _, path := range neighbours {
		write(t, path, h.canary)
	}
	t.Cleanup(func() { // a killed server wipes nothing
		os.RemoveAll(filepath.Join(h.room, "training", "trn_neighbour"))
		os.RemoveAll(filepath.Join(h.room, "data", "room_neighbour"))
	})
	socket := filepath.Join(h.data, "run", "control.sock")
	abstract := "falaj-" + rand.Text()
	for _, at := range []string{socket, "@" + abstract} {
		l, err := net.Listen("unix", at)
		if err != nil {
			t.Fatal(err)
		}
		h.greets(l)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.greets(l)
	var model modelDetail
	h.get(project+"/models/breaks", &model)
	in := func(name string) string { return filepath.Join(h.data, name) }
	facts := map[string]any{
		"url": h.url, "pid": h.pid(), "run": *model.VersionList[0].RunID, "port": l.Addr().(*net.TCPAddr).Port, "abstract": abstract, "sockets": []string{socket},
		"files": append(neighbours, in("keys/keyset.json"), in("falaj.db"), in("falaj.db-wal"), in("flow.db"), in("online.db"), in("catalog.db"), in("FORMAT"), largestBlob(t, in("blobs")), "/etc/shadow",
			filepath.Join(h.amal.config, "falaj", "credentials.json")),
		"folders": []string{h.data, in("keys"), in("blobs"), in("run"), h.room + "/training/trn_neighbour", elsewhere, "/root", "/tmp", "/var/tmp", "/run"},
	}
	b, err := json.Marshal(facts)
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile("testdata/hostile.py")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(code), "FACTS = {}", "FACTS = json.loads(r'''"+string(b)+"''')\nFACTS[\"training_set\"] = os.environ[\"FALAJ_TRAINING_SET\"]", 1)
	honest, err := os.ReadFile(filepath.Join(h.dir, "train.py"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(h.dir, "train.py"), text+"\n"+string(honest))
	h.amal.ok("apply")
	return h
}

func (h *hostile) pid() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cmd.Process.Pid
}

// greets answers everybody who connects.
func (h *hostile) greets(l net.Listener) {
	h.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, "hello")
			c.Close()
		}
	}()
}

// left are the processes of this server's jobs.
func (h *hostile) left() (out []string) {
	envs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range envs {
		if b, err := os.ReadFile(e); err == nil && strings.Contains(string(b), "HOME="+h.room+"/training/") {
			out = append(out, filepath.Dir(e))
		}
	}
	return out
}

// Training code that reads the keys, the database, other projects and other jobs, meddles with the server's process, opens its
// sockets, keeps its token, bombs, fills the memory that its scratch lies in, or outlives its end: each attempt is refused or
// contained, the run fails and says why in its record, and the server goes on as it was.
func TestHostileTraining(t *testing.T) {
	t.Parallel()
	h := newHostile(t)
	pid := h.pid()
	cases := []struct {
		mode     string
		words    []string // of which the command says one
		attempts int      // that the log says were refused, at least
	}{
		{"files", []string{"exit code 9"}, 50},
		{"processes", []string{"exit code 9"}, 30},
		{"network", []string{"exit code 9"}, 20},
		{"linger", []string{"exit code 9"}, 0},
		{"bomb", []string{"time limit 25s", "memory limit 512 MiB"}, 0},
		{"scratch", []string{"memory limit 512 MiB"}, 0},
		{"outputs", []string{"memory limit 512 MiB"}, 0},
		{"shm", []string{"exit code 1", "memory limit 512 MiB"}, 0}, // its own /dev/shm is full at half its memory
	}
	for _, c := range cases {
		t.Run(c.mode, func(t *testing.T) {
			v := &hostile{world: h.in(t), canary: h.canary, room: h.room}
			v.unchanged(func() {
				r := v.amal.falaj("run", "--param", "mode="+c.mode)
				v.refusal(r, 3, "did not succeed", "falaj logs pr_")
				if !slices.ContainsFunc(c.words, func(w string) bool { return strings.Contains(r.err, w) }) {
					t.Errorf("it does not say one of %q:\n%s", c.words, r.err)
				}
			})
			if h.pid() != pid {
				t.Error("the server is another process")
			}
			var runs struct{ Items []struct{ ID, State string } }
			v.get(project+"/pipelines/runs", &runs)
			if runs.Items[0].State != "failed" {
				t.Errorf("the record says %+v", runs.Items[0])
			}
			said := v.amal.ok("logs", runs.Items[0].ID, "train breaks").out
			if strings.Contains(said, h.canary) || strings.Contains(said, "Traceback") && c.mode != "shm" {
				t.Errorf("it got through, or broke:\n%s", said)
			}
			refused := 0
			for line := range strings.Lines(said) {
				if strings.Contains(line, "GOT ") {
					t.Errorf("an attempt succeeded: %s", line)
				}
				if strings.Contains(line, "refused ") {
					refused++
				}
			}
			if refused < c.attempts || (c.attempts > 0) != strings.Contains(said, "end of the attempts") && c.mode != "linger" {
				t.Errorf("%d attempts were refused, want %d:\n%s", refused, c.attempts, said)
			}
			t.Logf("%d attempts refused", refused)
			await(t, "its processes to be gone", 20*time.Second, func() bool { return len(v.left()) == 0 })
			if list, err := os.ReadDir(filepath.Join(h.room, "training")); err != nil || len(list) != 1 { // the neighbour that the test laid
				t.Errorf("left in memory: %v %v", list, err)
			}
			if _, after, ok := strings.Cut(said, "backwards "); ok {
				text, _, _ := strings.Cut(after, "\n")
				b := []byte(strings.TrimSpace(text))
				slices.Reverse(b)
				for _, path := range []string{project + "/models", "/p/tiny/api/2.0/mlflow/experiments/search?max_results=1", "/p/tiny/v2/models/breaks/ready"} {
					if a := v.call(string(b), "GET", path, nil); a.status != 401 || !strings.HasPrefix(string(b), "flj_") {
						t.Errorf("%s with the token of a failed run: %d %s", a.what, a.status, a.body)
					}
				}
			} else if c.mode == "network" {
				t.Errorf("it did not say its token:\n%s", said)
			}
			if c.mode == "network" {
				for _, action := range []string{"secret.read", "audit.read", "change.request", "source.upload", "model.delete"} {
					var list struct{ Items []struct{ Outcome string } }
					v.get(project+"/audit?action="+action, &list)
					if !slices.ContainsFunc(list.Items, func(e struct{ Outcome string }) bool { return e.Outcome == "refused" }) {
						t.Errorf("the record does not say that %s was refused: %+v", action, list.Items)
					}
				}
			}
		})
	}
	for _, path := range []string{"/tmp/escape", "/var/tmp/escape", "/run/escape", filepath.Join(h.data, "escape"), filepath.Join(h.room, "training", "trn_neighbour", "escape")} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s was written", path)
		}
	}
	if r := h.amal.ok("run"); !strings.Contains(r.out, "breaks@") {
		t.Errorf("honest training afterwards: %s%s", r.out, r.err)
	}
	h.clean()
}

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// canary is planted where people, data, metrics and predictions are kept.
const canary = "CANARY-91c2-of-a-customer"

// elsewhere restores a file and starts a server on what came out: another folder, another port, the same people.
func (w *world) elsewhere(file string, flags ...string) *world {
	t := w.t
	t.Helper()
	data := filepath.Join(t.TempDir(), "moved", "data")
	r := w.command(t.TempDir(), w.amal.config, "", "restore", file, "--data", data, "--keys", filepath.Join(w.data, "keys"))
	if r.code != 0 || !strings.Contains(r.err, "falaj server --data "+data) {
		t.Fatalf("falaj restore: exit %d: %s%s", r.code, r.out, r.err)
	}
	return w.on(data, append(flags, "--keys", filepath.Join(w.data, "keys"))...)
}

// on starts a server on restored data.
func (w *world) on(data string, flags ...string) *world {
	v := *w
	v.server = newServer(w.t, data, flags...)
	for _, p := range []*person{&v.amal, &v.badr, &v.vera} {
		*p = v.login(p.name) // the CLI sends a token only to the server that gave it
	}
	return &v
}

// settled waits until nothing is under way.
func (w *world) settled() {
	w.t.Helper()
	await(w.t, "everything to be settled", 2*time.Minute, func() bool {
		var x struct{ Settled bool }
		a := w.call(w.amal.token, "GET", project+"/settled", nil)
		return a.status == 200 && json.Unmarshal(a.body, &x) == nil && x.Settled
	})
}

// scores asks production for a few instants and gives the numbers.
func (w *world) scores() []any {
	w.t.Helper()
	var all []any
	for hour := range 6 {
		var a answer
		await(w.t, "production to serve", 30*time.Second, func() bool {
			a = w.infer(w.amal.token, "production", "", time.Date(2024, 1, 4, 10+hour, 0, 0, 0, time.UTC))
			return a.status == 200
		})
		var out struct{ Outputs []struct{ Data []any } }
		a.decode(w.t, &out)
		all = append(all, out.Outputs[0].Data...)
	}
	return all
}

func (w *world) plant() {
	w.must(201, w.call(w.amal.token, "POST", apiBase+"/users", map[string]any{"name": "cana", "full_name": canary, "password": password}))
	body := map[string]any{"inputs": []any{
		map[string]any{"name": "machine", "shape": []int{1}, "datatype": "BYTES", "data": []string{canary}},
		map[string]any{"name": "load", "shape": []int{1}, "datatype": "FP64", "data": []float64{0.25}},
	}}
	w.must(200, w.call(w.amal.token, "POST", "/p/tiny/v2/models/breaks@production/infer", body))
	w.must(201, w.request(w.amal.token, "PUT", project+"/blobs/"+digestOf([]byte(canary)), []byte(canary)))
}

// The whole story of a backup: quiet, of a server under load, damaged in every way, and restored to serve elsewhere.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	promoted(w)
	w.plant()
	w.settled()
	dir := t.TempDir()
	file := filepath.Join(dir, "quiet.falaj")
	before, scores := w.state(), w.scores()

	t.Run("who may and where to", func(t *testing.T) {
		w := w.in(t)
		w.problem(w.call(w.vera.token, "POST", apiBase+"/backups?region=ae", nil), 403, "backup.create")
		w.refusal(w.vera.falaj("backup", file, "--region", "ae"), 3, "backup.create")
		r := w.amal.ok("backup", file, "--region", "ae")
		if !strings.Contains(r.err, "KEYS ARE NOT IN THIS FILE") || !strings.Contains(r.out, file) {
			t.Errorf("the backup does not say what matters: %s%s", r.out, r.err)
		}
		w.refusal(w.amal.falaj("backup", file, "--region", "ae"), 1, "exists already")
		if left, _ := filepath.Glob(file + ".partial*"); len(left) != 0 {
			t.Errorf("left over: %v", left)
		}
		w.clean()
	})
	keys := filepath.Join(w.data, "keys")
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}

	t.Run("sealed", func(t *testing.T) {
		for _, word := range []string{canary, "SQLite format", "breaks", "amal", "readings", `"kek"`} {
			if bytes.Contains(content, []byte(word)) {
				t.Errorf("%q lies in clear in the file", word)
			}
		}
		if bytes.Contains(content, []byte("keys.json")) {
			t.Error("the keys are in a file that was made without them")
		}
	})
	t.Run("verify", func(t *testing.T) {
		w := w.in(t)
		if r := w.amal.ok("backup", "verify", file, "--keys", keys); !strings.HasPrefix(r.out, "whole") || !strings.Contains(r.err, "Opened with keyset") {
			t.Errorf("%s%s", r.out, r.err)
		}
		if r := w.amal.ok("backup", "verify", file); !strings.Contains(r.err, "Not opened") {
			t.Errorf("%s%s", r.out, r.err)
		}
	})
	t.Run("damaged", func(t *testing.T) {
		w := w.in(t)
		for what, b := range map[string][]byte{
			"flipped": flipped(content, len(content)/2), "flipped head": flipped(content, 700), "flipped tail": flipped(content, len(content)-1600), "cut": content[:len(content)-700], "half": content[:len(content)/2], "empty": {},
		} {
			bad := filepath.Join(t.TempDir(), "bad.falaj")
			if err := os.WriteFile(bad, b, 0o600); err != nil {
				t.Fatal(err)
			}
			to := filepath.Join(t.TempDir(), "data")
			for _, args := range [][]string{{"backup", "verify", bad}, {"backup", "verify", bad, "--keys", keys}, {"restore", bad, "--data", to, "--keys", keys}} {
				r := w.amal.falaj(args...)
				if r.code != 3 || !strings.Contains(r.err, "damaged") {
					t.Errorf("%s: falaj %s: exit %d: %s", what, strings.Join(args[:2], " "), r.code, r.err)
				}
			}
			if _, err := os.Stat(to); err == nil {
				t.Errorf("%s: something was restored", what)
			}
		}
	})
	t.Run("refused places", func(t *testing.T) {
		w := w.in(t)
		full := t.TempDir()
		write(t, filepath.Join(full, "mine.txt"), "mine")
		w.refusal(w.amal.falaj("restore", file, "--data", full, "--keys", keys), 1, "not empty", "mine.txt")
		w.refusal(w.amal.falaj("restore", file, "--data", filepath.Join(t.TempDir(), "x")), 1, "keys are not in this backup")
		if r := w.amal.falaj("restore", file); r.code != 2 {
			t.Errorf("without --data: exit %d", r.code)
		}
	})
	t.Run("with keys", func(t *testing.T) {
		w := w.in(t)
		both := filepath.Join(t.TempDir(), "both.falaj")
		args := []string{"backup", both, "--region", "ae", "--with-keys", "--keys", keys}
		w.refusal(w.command(w.dir, w.amal.config, "", args...), 1, "passphrase")
		w.refusal(w.command(w.dir, w.amal.config, "short\n", args...), 1, "passphrase")
		if r := w.command(w.dir, w.amal.config, password+"\n", args...); r.code != 0 || strings.Contains(r.err, "NOT IN THIS FILE") {
			t.Fatalf("exit %d: %s", r.code, r.err)
		}
		data := filepath.Join(t.TempDir(), "data")
		w.refusal(w.command(w.dir, w.amal.config, "another passphrase\n", "restore", both, "--data", data), 3, "passphrase does not open")
		if r := w.command(w.dir, w.amal.config, password+"\n", "restore", both, "--data", data); r.code != 0 || strings.Contains(r.err, "--keys") {
			t.Fatalf("exit %d: %s", r.code, r.err)
		}
		v := w.on(data) // with nothing but the file and the passphrase
		if d := cmp.Diff(before, v.state()); d != "" {
			t.Errorf("the restored one differs (-was +is):\n%s", d)
		}
	})
	t.Run("serves elsewhere", func(t *testing.T) {
		v := w.in(t).elsewhere(file)
		if d := cmp.Diff(before, v.state()); d != "" {
			t.Errorf("the restored one differs (-was +is):\n%s", d)
		}
		if d := cmp.Diff(scores, v.scores()); d != "" {
			t.Errorf("it predicts other numbers (-was +is):\n%s", d)
		}
		v.clean()
		if r := v.amal.ok("run"); !strings.Contains(r.out, "7 cached") || !strings.Contains(r.err, "breaks@1 stands") {
			t.Errorf("a run without news is not cached: %s%s", r.out, r.err)
		}
		if r := v.amal.ok("run", "--param", "trees=30"); !strings.Contains(r.out, "breaks@2") {
			t.Errorf("a run with news makes no version: %s%s", r.out, r.err)
		}
		v.clean()
	})
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

// A backup is taken while predictions and a pipeline run go on. It holds what was acknowledged before it began, and the
// restored server takes up the run that was under way.
func TestBackupUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	promoted(w)
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var mu sync.Mutex // guards known
	var known []string
	for worker := range 2 {
		load.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				a := w.infer(w.amal.token, "production", fmt.Sprintf("load-%d-%d", worker, i), time.Time{})
				var out struct {
					Outputs []struct {
						Name string
						Data []any
					}
				}
				if a.err != nil || a.status != 200 || json.Unmarshal(a.body, &out) != nil {
					t.Errorf("a prediction during the backup: %d %s %v", a.status, a.body, a.err)
					return
				}
				mu.Lock()
				known = append(known, fmt.Sprint(out.Outputs[1].Data[0]))
				mu.Unlock()
			}
		})
	}
	var run struct{ ID, State string }
	w.must(201, w.call(w.amal.token, "POST", project+"/pipelines/runs", map[string]any{"key": "during", "params": map[string]string{"trees": "40"}})).decode(t, &run)
	dir := t.TempDir()
	type taken struct {
		file string
		sure []string
	}
	var files []taken
	for n := range 2 {
		mu.Lock()
		sure := append([]string(nil), known...)
		mu.Unlock()
		f := taken{filepath.Join(dir, fmt.Sprintf("b%d.falaj", n)), sure}
		w.amal.ok("backup", f.file, "--region", "ae")
		w.amal.ok("backup", "verify", f.file, "--keys", filepath.Join(w.data, "keys"))
		files = append(files, f)
	}
	stop()
	load.Wait()
	t.Logf("%d predictions before the last backup", len(files[1].sure))
	w.clean()
	for _, f := range []taken{files[0], files[1]} {
		v := w.elsewhere(f.file)
		v.clean()
		await(t, "the run to end", 3*time.Minute, func() bool {
			r := ended(v, run.ID)
			return r.State == "done"
		})
		for i, id := range f.sure {
			if i%7 != 0 && i != len(f.sure)-1 {
				continue
			}
			if a := v.call(v.amal.token, "GET", project+"/predictions/"+id+"/why", nil); a.status != 200 {
				t.Errorf("prediction %s was acknowledged before the backup and is not in it: %d %s", id, a.status, a.body)
			}
		}
		v.clean()
		v.stop()
	}
}

// kill -9 of the server in the middle of a backup leaves no file, no copies and no harm.
func TestKillDuringBackup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.amal.ok("apply")
	noise := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	for i := range 3 {
		noise[0] = byte(i)
		w.must(201, w.request(w.amal.token, "PUT", project+"/blobs/"+digestOf(noise), noise))
	}
	w.unchanged(func() {
		req, err := http.NewRequestWithContext(t.Context(), "POST", w.url+apiBase+"/backups?region=ae", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+w.amal.token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.CopyN(io.Discard, resp.Body, 1<<20); err != nil || resp.StatusCode != 200 {
			t.Fatal(resp.Status, err)
		}
		w.problem(w.call(w.amal.token, "POST", apiBase+"/backups?region=ae", nil), 409, "Another backup")
		w.kill()
		if _, err := io.Copy(io.Discard, resp.Body); err == nil {
			t.Error("a stream of a killed server ended as if it were whole")
		}
		if left, _ := filepath.Glob(filepath.Join(w.data, "run", "backup", "*")); len(left) == 0 {
			t.Error("the kill came too late for this test: no copies were left")
		}
		w.start()
		if left, _ := filepath.Glob(filepath.Join(w.data, "run", "backup", "*")); len(left) != 0 {
			t.Errorf("the killed backup left clear copies: %v", left)
		}
	})
	file := filepath.Join(t.TempDir(), "again.falaj")
	w.amal.ok("backup", file, "--region", "ae")
	w.amal.ok("backup", "verify", file, "--keys", filepath.Join(w.data, "keys"))
}

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"falaj/internal/kernel/seal/sealtest"
)

// canaries are values of users' data that would be found in clear: an identifier, a number, a value that breaks the contract,
// a line that the training prints, and one that stands in an error.
var canaries = []string{"zq7canary-machine", "77.731734", "zq7canary-broken", "zq7canary-printed"}

// planted is the tiny project with the canaries in its data, its training's output and, in the end, an error's words.
func planted(t *testing.T, w *world) {
	t.Helper()
	w.edit("falaj.yaml", "        machine: {in: [m1, m2, m3, m4, m5]}\n", "")
	w.edit("train.py", "import argparse", "print('zq7canary-' + 'printed', flush=True)\nimport argparse")
	var b strings.Builder
	b.WriteString(header)
	for h := range 60 {
		at := time.Date(2024, 1, 2, h, 0, 0, 0, time.UTC)
		fmt.Fprintf(&b, "zq7canary-machine,%s,%s,77.731734,0.5,%d\n", at.Format(time.RFC3339), at.Add(time.Hour).Format(time.RFC3339), h%2)
	}
	write(t, filepath.Join(w.dir, "data", "readings-1.csv"), b.String()+strings.TrimPrefix(readings(0, 60), header))
	bad := time.Date(2024, 1, 5, 0, 0, 0, 0, time.UTC)
	write(t, filepath.Join(w.dir, "data", "readings-2.csv"), readings(60, 120)+fmt.Sprintf("zq7canary-machine,%s,%s,zq7canary-broken,0.5,1\n", bad.Format(time.RFC3339), bad.Format(time.RFC3339)))
}

func search(folders ...string) (hits []string) {
	for _, dir := range folders {
		hits = append(hits, sealtest.Search(dir, canaries)...)
	}
	return hits
}

// Nothing that is made of users' data lies in clear: not while the story runs, not after a kill -9 in its middle, not after
// the end; in the data directory, the temporary folder, and the server's log.
func TestNoDataInClear(t *testing.T) {
	t.Parallel()
	w := &world{server: prepare(t, ""), dir: filepath.Join(t.TempDir(), "tiny")}
	temp := t.TempDir()
	w.env = []string{"TMPDIR=" + temp}
	w.start()
	w.people()
	layProject(t, w.dir)
	planted(t, w)

	stop, found := make(chan struct{}), map[string]bool{}
	looks := 0
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			for _, h := range search(w.data, temp) {
				found[h] = true
			}
			looks++
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	promoted(w)
	for i := range 20 {
		body := fmt.Sprintf(`{"parameters":{"request_id":"r%d"},"inputs":[{"name":"machine","datatype":"BYTES","shape":[1],"data":["zq7canary-machine"]},{"name":"load","datatype":"FP64","shape":[1],"data":[0.7]}]}`, i)
		w.must(200, w.request(w.amal.token, "POST", "/p/tiny/v2/models/breaks/infer", []byte(body), "Content-Type", "application/json"))
	}
	// What an error quotes is data, too.
	undo := w.edit("sql/hours.sql", "temp, load", "CAST(CASE WHEN machine LIKE 'zq7%' THEN machine ELSE '1' END AS INTEGER) AS temp, load")
	w.amal.falaj("apply")
	r := w.amal.falaj("run")
	if r.code == 0 || !strings.Contains(r.err, "zq7canary-machine") {
		t.Errorf("the error does not quote the value: exit %d: %s", r.code, r.err)
	}
	undo()
	w.amal.ok("apply")
	// In the middle of a training.
	run := w.amal.ok("run", "--detach", "--param", "trees=60", "--no-cache")
	id, _, _ := strings.Cut(run.out, "\t")
	await(t, "the training to print", time.Minute, func() bool { return strings.Contains(w.amal.falaj("logs", id).out, "zq7canary-printed") })
	w.kill()
	if hits := search(w.data, temp); len(hits) > 0 {
		t.Errorf("after kill -9: %v", hits)
	}
	w.start()
	if r := ended(w, id); r.State != "done" {
		t.Errorf("the run after the kill: %+v", r)
	}
	w.stop()
	close(stop)
	wg.Wait()
	for h := range found {
		t.Error(h)
	}
	if looks < 10 {
		t.Errorf("looked %d times only", looks)
	}
	if hits := search(w.data, temp); len(hits) > 0 {
		t.Errorf("after the end: %v", hits)
	}
	for _, c := range canaries {
		if strings.Contains(w.out.String(), c) {
			t.Errorf("the server's log says %s", c)
		}
	}
	// The search finds what lies in clear.
	write(t, filepath.Join(temp, "proof"), "x"+canaries[0])
	if len(search(temp)) != 1 {
		t.Error("the search finds nothing")
	}
}

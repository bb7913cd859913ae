package training_test

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/google/go-cmp/cmp"

	"falaj/internal/blob"
	"falaj/internal/blob/dir"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
	"falaj/internal/store"
	"falaj/internal/store/storetest"
	"falaj/internal/training"
	"falaj/internal/training/process"
)

// TestMain lets this binary be the worker, as the real one is.
func TestMain(m *testing.M) {
	if os.Getenv("FALAJ_TEST_ROLE") == "worker" {
		os.Exit(process.ExecMain(os.Stdin))
	}
	os.Exit(m.Run())
}

// world is the service over a real database, real blobs and real processes.
type world struct {
	*training.Service
	db    *store.Store
	blobs *blob.Store
	lch   *process.Launcher
	work  string
	code  string
}

func build(t *testing.T, db *store.Store) world {
	t.Helper()
	base := t.TempDir()
	w := world{db: db, work: filepath.Join(base, "work"), code: filepath.Join(base, "project")}
	keys, err := seal.Open(filepath.Join(base, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := dir.Open(filepath.Join(base, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	w.blobs = blob.New(db, keys, d)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w.lch, err = process.New(process.Config{Self: []string{self}, SelfEnv: []string{"FALAJ_TEST_ROLE=worker"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.lch.Close() })
	if w.Service, err = training.New(db, w.blobs, w.lch, w.work); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(w.code, 0o700); err != nil {
		t.Fatal(err)
	}
	return w
}

func each(t *testing.T, fn func(t *testing.T, w world)) {
	t.Helper()
	t.Parallel()
	storetest.Each(t, func(t *testing.T, db *store.Store) { fn(t, build(t, db)) })
}

func python(t testing.TB) training.Runtime {
	t.Helper()
	out, err := exec.Command("python3", "-I", "-c", "import sys,json;print(json.dumps([sys.executable,sys.base_prefix]))").Output()
	if err != nil {
		t.Fatalf("python3 is needed: %v", err)
	}
	var said [2]string
	if err := json.Unmarshal(out, &said); err != nil {
		t.Fatal(err)
	}
	return training.Runtime{Digest: "sha256:test", Python: said[0], Bin: filepath.Dir(said[0]), Reads: []string{filepath.Join(said[1], "bin"), filepath.Join(said[1], "lib")}}
}

func (w world) write(t testing.TB, name, text string) {
	t.Helper()
	path := filepath.Join(w.code, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func (w world) request(t testing.TB) training.Request {
	t.Helper()
	return training.Request{Project: "flights", Run: strings.Repeat("a", 32), Argv: []string{"python3", "train.py", "--trees", "{trees}"}, Params: map[string]string{"trees": "200"},
		Dir: w.code, Runtime: python(t), Data: map[string]string{"flights/3": "sha256:abc"}, Limits: training.Limits{Memory: 256 << 20, Timeout: time.Minute}}
}

func (w world) logText(t testing.TB, tr training.Training) string {
	t.Helper()
	o, err := w.Log(context.Background(), tr)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	data, err := io.ReadAll(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestLaunchRecordsEverything(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		w.write(t, "train.py", `
import os, sys
print("trees", sys.argv[2], "token", os.environ["MLFLOW_TRACKING_TOKEN"])
os.makedirs(os.environ["FALAJ_OUTPUTS"] + "/m"); open(os.environ["FALAJ_OUTPUTS"] + "/m/model.txt", "w").write("tree")
os.symlink("/etc/passwd", os.environ["FALAJ_OUTPUTS"] + "/link")
`)
		w.write(t, ".git/config", "hidden")
		w.write(t, "__pycache__/x.pyc", "cache")
		w.write(t, "venv/pyvenv.cfg", "x")
		req := w.request(t)
		req.Secrets = map[string]string{"MLFLOW_TRACKING_TOKEN": "flj_supersecret"}
		var mu sync.Mutex
		var live []string
		req.Log = func(l training.Line) { mu.Lock(); live = append(live, l.Stream+" "+l.Text); mu.Unlock() }
		got, err := w.Launch(storetest.As("amal"), req)
		if err != nil || got.Outcome != training.Succeeded || got.Err() != nil {
			t.Fatalf("%+v, %v", got, err)
		}
		stored, err := w.Get(t.Context(), "flights", got.ID)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, stored); diff != "" {
			t.Errorf("returned and stored differ:\n%s", diff)
		}
		if !slices.Equal(got.Argv, []string{"python3", "train.py", "--trees", "200"}) || got.Params["trees"] != "200" || got.Data["flights/3"] != "sha256:abc" || got.Runtime != "sha256:test" || got.Ended.Before(got.Started) {
			t.Errorf("%+v", got)
		}
		if len(got.Artifacts) != 1 || got.Artifacts[0].Path != "m/model.txt" || got.Artifacts[0].Size != 4 {
			t.Errorf("artifacts %+v", got.Artifacts)
		}
		for _, digest := range []string{got.Log, got.Code, got.Artifacts[0].Digest} {
			if err := w.blobs.Verify(t.Context(), "flights", digest); err != nil {
				t.Errorf("%s: %v", digest, err)
			}
		}
		text := w.logText(t, got)
		if !strings.Contains(text, " out trees 200 token [secret]\n") || !strings.HasSuffix(text, " falaj succeeded: exit code 0\n") {
			t.Errorf("log:\n%s", text)
		}
		if !slices.Equal(live, []string{"out trees 200 token [secret]", "falaj succeeded: exit code 0"}) {
			t.Errorf("live: %q", live)
		}
		if names := w.tarNames(t, got.Code); !slices.Equal(names, []string{"train.py"}) {
			t.Errorf("the code holds %v", names)
		}
		w.empty(t)
		w.audited(t, got.ID, "training.start", "training.finish")
		if byRun, err := w.OfRun(t.Context(), "flights", req.Run); err != nil || len(byRun) != 1 {
			t.Errorf("of the run: %v, %v", byRun, err)
		}
	})
}

func (w world) tarNames(t testing.TB, digest string) (names []string) {
	t.Helper()
	o, err := w.blobs.Open(context.Background(), "flights", digest)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	for in := tar.NewReader(o); ; {
		h, err := in.Next()
		if err == io.EOF {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

// empty checks that no files of jobs are left.
func (w world) empty(t testing.TB) {
	t.Helper()
	if left, err := os.ReadDir(w.work); err != nil || len(left) != 0 {
		t.Errorf("left in the work folder: %v, %v", left, err)
	}
}

// audited checks the ledger rows and events of one training, in order.
func (w world) audited(t testing.TB, id string, actions ...string) {
	t.Helper()
	rows, err := w.db.Entries(context.Background(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rows {
		if strings.HasSuffix(r.Resource, "/"+id) {
			got = append(got, r.Action)
			if r.Decision != "allow" || r.After == "" || r.Event == "" || r.Actor != "user:amal" && r.OnBehalfOf != "user:amal" {
				t.Errorf("row %+v", r)
			}
		}
	}
	if !slices.Equal(got, actions) {
		t.Errorf("audited %v, want %v", got, actions)
	}
}

func TestFailuresAreRecorded(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		w.write(t, "train.py", "import os\nopen(os.environ['FALAJ_OUTPUTS'] + '/half', 'w').write('x')\nraise ValueError('label is NaN in row 7')")
		got, err := w.Launch(storetest.As("amal"), w.request(t))
		if err != nil || got.Outcome != training.Failed || got.ExitCode != 1 || got.Reason != "exit code 1" || len(got.Artifacts) != 0 {
			t.Errorf("%+v, %v", got, err)
		}
		if f := fault.From(got.Err()); f.Kind != fault.Refused || !strings.Contains(f.Public, "exit code 1") || !strings.Contains(f.Next, got.ID) {
			t.Errorf("Err is %+v", f)
		}
		if text := w.logText(t, got); !strings.Contains(text, "err ValueError: label is NaN in row 7") {
			t.Errorf("log:\n%s", text)
		}
		w.audited(t, got.ID, "training.start", "training.finish")

		req := w.request(t)
		req.Argv = []string{"no-such-program"}
		got, err = w.Launch(storetest.As("amal"), req)
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("a missing program gave %v", err)
		}
		if stored, err := w.Get(t.Context(), "flights", got.ID); err != nil || stored.Outcome != training.Failed || !strings.Contains(stored.Reason, "no-such-program") {
			t.Errorf("%+v, %v", stored, err)
		}
		w.empty(t)
	})
}

func TestNothingIsStartedForBadRequests(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		w.write(t, "train.py", "print('ran')")
		for name, spoil := range map[string]func(*training.Request){
			"unknown parameter": func(r *training.Request) { r.Argv = []string{"python3", "{nope}"} },
			"secret in the command": func(r *training.Request) {
				r.Secrets = map[string]string{"T": "flj_secret"}
				r.Argv = append(r.Argv, "flj_secret")
			},
			"code outside":           func(r *training.Request) { r.Code = []string{"../keys"} },
			"absolute code path":     func(r *training.Request) { r.Code = []string{"/etc/passwd"} },
			"missing code":           func(r *training.Request) { r.Code = []string{"gone.py"} },
			"no project":             func(r *training.Request) { r.Project = "" },
			"no runtime":             func(r *training.Request) { r.Runtime = training.Runtime{} },
			"code folder is missing": func(r *training.Request) { r.Dir = filepath.Join(r.Dir, "none") },
		} {
			req := w.request(t)
			spoil(&req)
			if _, err := w.Launch(storetest.As("amal"), req); !fault.Is(err, fault.Invalid) || fault.From(err).Next == "" {
				t.Errorf("%s gave %v", name, err)
			}
		}
		if err := os.Symlink("/etc/passwd", filepath.Join(w.code, "link")); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Launch(storetest.As("amal"), w.request(t)); !fault.Is(err, fault.Invalid) {
			t.Errorf("a link out of the project gave %v", err)
		}
		if err := os.Remove(filepath.Join(w.code, "link")); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Launch(storetest.As("vera"), w.request(t)); !fault.Is(err, fault.Denied) {
			t.Errorf("a viewer gave %v", err)
		}
		if all, err := w.List(t.Context(), "flights"); err != nil || len(all) != 0 {
			t.Errorf("recorded %v, %v", all, err)
		}
		w.empty(t)
	})
}

func TestKeyMakesItOnePieceOfWork(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		w.write(t, "train.py", "print('x')")
		req := w.request(t)
		req.Key = "run1/train"
		first, err := w.Launch(storetest.As("amal"), req)
		if err != nil {
			t.Fatal(err)
		}
		again, err := w.Launch(storetest.As("amal"), req)
		if err != nil || cmp.Diff(first, again) != "" {
			t.Errorf("the second launch gave %+v, %v", again, err)
		}
		if all, err := w.List(t.Context(), "flights"); err != nil || len(all) != 1 {
			t.Errorf("%d records, %v", len(all), err)
		}
	})
}

// A launch whose server died is closed as interrupted: by Recover at start, or by the retry of the same work.
func TestInterruptedLaunchesAreClosed(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		w.write(t, "train.py", "import time\nprint('up', flush=True)\nwhile True: time.sleep(1)")
		die := func(key string) {
			ctx, cancel := context.WithCancel(storetest.As("amal"))
			defer cancel()
			req := w.request(t)
			req.Key = key
			up := make(chan bool, 10)
			req.Log = func(training.Line) { up <- true }
			// A database that is gone at the end stands for a server that is: the end is never recorded.
			broken, err := training.New(w.db, w.blobs, dying{w.lch, up, cancel}, filepath.Join(w.work, "dead"))
			if err != nil {
				t.Fatal(err)
			}
			func() {
				defer func() {
					if recover() == nil {
						t.Error("the launch returned")
					}
				}()
				_, _ = broken.Launch(ctx, req)
			}()
		}
		die("k1")
		die("k2")
		w.write(t, "train.py", "print('second try')")
		req := w.request(t)
		req.Key = "k1"
		got, err := w.Launch(storetest.As("amal"), req)
		if err != nil || got.Outcome != training.Succeeded {
			t.Errorf("retry: %+v, %v", got, err)
		}
		if err := w.Recover(storetest.As("system:training")); err != nil {
			t.Fatal(err)
		}
		all, err := w.List(t.Context(), "flights")
		if err != nil {
			t.Fatal(err)
		}
		var ends []string
		for _, tr := range all {
			ends = append(ends, tr.Key+" "+string(tr.Outcome))
		}
		slices.Sort(ends)
		if want := []string{"k1 interrupted", "k1 succeeded", "k2 interrupted"}; !slices.Equal(ends, want) {
			t.Errorf("got %v, want %v", ends, want)
		}
		w.empty(t)
	})
}

// dying runs the job until its first line and then panics out of the service, as if the process ended there.
type dying struct {
	training.Launcher
	up     chan bool
	cancel context.CancelFunc
}

func (d dying) Launch(ctx context.Context, job training.Job) (training.Result, error) {
	go func() { <-d.up; d.cancel() }()
	_, _ = d.Launcher.Launch(ctx, job)
	panic("the server dies")
}

func TestCancelIsRecorded(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		w.write(t, "train.py", "import time\nprint('up', flush=True)\nwhile True: time.sleep(1)")
		ctx, cancel := context.WithCancel(storetest.As("amal"))
		defer cancel()
		req := w.request(t)
		req.Log = func(l training.Line) {
			if l.Text == "up" {
				cancel()
			}
		}
		got, err := w.Launch(ctx, req)
		if err != nil || got.Outcome != training.Cancelled || got.Log == "" {
			t.Errorf("%+v, %v", got, err)
		}
		if stored, err := w.Get(t.Context(), "flights", got.ID); err != nil || stored.Outcome != training.Cancelled {
			t.Errorf("%+v, %v", stored, err)
		}
		w.audited(t, got.ID, "training.start", "training.finish")
	})
}

func TestCodeDigestAndGit(t *testing.T) {
	t.Parallel()
	w := build(t, storetest.SQLite(t))
	w.write(t, "train.py", "print(1)")
	w.write(t, "lib/a.py", "a = 1")
	w.write(t, "data/big.csv", "1,2")
	req := w.request(t)
	req.Code = []string{"train.py", "lib"}
	run := func() training.Training {
		t.Helper()
		got, err := w.Launch(storetest.As("amal"), req)
		if err != nil || got.Outcome != training.Succeeded {
			t.Fatalf("%+v, %v", got, err)
		}
		return got
	}
	outside := run()
	if outside.Commit != "" || outside.Dirty || !slices.Equal(w.tarNames(t, outside.Code), []string{"lib/a.py", "train.py"}) {
		t.Errorf("%+v", outside)
	}
	repo, err := git.PlainInit(w.code, false)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := repo.Worktree()
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.AddGlob("."); err != nil {
		t.Fatal(err)
	}
	hash, err := tree.Commit("first", &git.CommitOptions{Author: &object.Signature{Name: "amal", Email: "amal@example.test", When: time.Unix(1, 0)}})
	if err != nil {
		t.Fatal(err)
	}
	if clean := run(); clean.Commit != hash.String() || clean.Dirty || clean.Code != outside.Code {
		t.Errorf("clean: %+v", clean)
	}
	w.write(t, "data/big.csv", "3,4")
	if other := run(); !other.Dirty || other.Code != outside.Code {
		t.Errorf("after a change beside the code: %+v", other)
	}
	w.write(t, "lib/a.py", "a = 2")
	if changed := run(); !changed.Dirty || changed.Code == outside.Code {
		t.Errorf("after a change of the code: %+v", changed)
	}
}

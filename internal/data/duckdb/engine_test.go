package duckdb_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/data"
	"falaj/internal/data/duckdb"
	"falaj/internal/data/duckdb/worker"
	"falaj/internal/kernel/fault"
)

// TestMain lets the test binary be the worker and, for one test, a server that is killed.
func TestMain(m *testing.M) {
	switch strings.Join(os.Args[1:min(3, len(os.Args))], " ") {
	case "worker duckdb":
		os.Exit(worker.Main())
	case "doomed server":
		doomed(os.Args[3])
	}
	os.Exit(m.Run())
}

func newEngine(t *testing.T, set func(*duckdb.Config)) *duckdb.Engine {
	t.Helper()
	cfg := duckdb.Config{Scratch: filepath.Join(t.TempDir(), "cache", "scratch")}
	if set != nil {
		set(&cfg)
	}
	e, err := duckdb.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

func newRoom(t *testing.T, e *duckdb.Engine) *data.Room {
	t.Helper()
	r, err := e.Room(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func put(t *testing.T, r *data.Room, name, text string) string {
	t.Helper()
	if err := os.WriteFile(r.Path(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return r.Path(name)
}

// look returns the rows of a SELECT over one Parquet file called t.
func look(t *testing.T, e *duckdb.Engine, r *data.Room, sql string, files ...string) []string {
	t.Helper()
	in := map[string]data.Input{}
	if len(files) > 0 {
		in["t"] = data.Input{Files: files}
	}
	rows, err := e.Query(t.Context(), data.QueryJob{Dir: r.Dir, SQL: sql, Inputs: in, Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, row := range rows.Rows {
		out = append(out, string(row))
	}
	return out
}

// wantFault fails unless err is a fault of kind that says each of words and has a next step.
func wantFault(t *testing.T, err error, kind fault.Kind, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %s with %q", kind, words)
	}
	f := fault.From(err)
	if f.Kind != kind || f.Next == "" {
		t.Errorf("got %s %q (next %q, cause %v), want kind %s", f.Kind, f.Public, f.Next, f.Err, kind)
	}
	for _, w := range words {
		if !strings.Contains(f.Public+" | "+f.Next, w) {
			t.Errorf("%q | %q does not say %q", f.Public, f.Next, w)
		}
	}
	if strings.Contains(f.Public+f.Next, "/scratch") || strings.Contains(f.Public+f.Next, "/dev/shm") {
		t.Errorf("%q | %q shows a path of this machine", f.Public, f.Next)
	}
}

func TestTransform(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil)
	r := newRoom(t, e)
	one := r.Path("one.parquet")
	res, err := e.Transform(t.Context(), data.TransformJob{Dir: r.Dir, Out: one, Profile: true,
		SQL: "-- three rows\nSELECT i::TINYINT AS a, sum(i) OVER () AS h, TIMESTAMP '2013-01-01 10:00:00' AS at, 'x' || i AS s FROM range(3, 0, -1) g(i);  -- done"})
	if err != nil {
		t.Fatal(err)
	}
	want := []data.Column{{Name: "a", Type: "INTEGER"}, {Name: "h", Type: "BIGINT"}, {Name: "at", Type: "TIMESTAMP WITH TIME ZONE"}, {Name: "s", Type: "VARCHAR"}}
	if d := cmp.Diff(want, res.Columns); d != "" || res.Rows != 3 {
		t.Errorf("columns (-want +got) %s, rows %d", d, res.Rows)
	}
	got := look(t, e, r, "SELECT * FROM t", one)
	if d := cmp.Diff([]string{
		`{"a":1,"h":6,"at":"2013-01-01T10:00:00.000000Z","s":"x1"}`,
		`{"a":2,"h":6,"at":"2013-01-01T10:00:00.000000Z","s":"x2"}`,
		`{"a":3,"h":6,"at":"2013-01-01T10:00:00.000000Z","s":"x3"}`,
	}, got); d != "" {
		t.Errorf("rows (-want +got) %s", d)
	}
	// Equal content gives equal bytes, whatever the order it was computed in.
	two := r.Path("two.parquet")
	if _, err := e.Transform(t.Context(), data.TransformJob{Dir: r.Dir, Out: two, Inputs: map[string]data.Input{"t": {Files: []string{one}}}, SQL: "FROM t ORDER BY a DESC"}); err != nil {
		t.Fatal(err)
	}
	a, _ := os.ReadFile(one)
	b, _ := os.ReadFile(two)
	if !bytes.Equal(a, b) {
		t.Error("the same rows gave two different files")
	}
	kept := r.Path("kept.parquet")
	if _, err := e.Transform(t.Context(), data.TransformJob{Dir: r.Dir, Out: kept, Inputs: map[string]data.Input{"t": {Files: []string{one}}}, SQL: "SELECT a FROM t ORDER BY a DESC", AsWritten: true}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{`{"a":3}`, `{"a":2}`, `{"a":1}`}, look(t, e, r, "FROM t", kept)); d != "" {
		t.Errorf("AsWritten (-want +got) %s", d)
	}
}

func TestTransformFaults(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil)
	r := newRoom(t, e)
	secret := filepath.Join(t.TempDir(), "secret.csv")
	if err := os.WriteFile(secret, []byte("a\n1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	in := map[string]data.Input{"flights": {Columns: []data.Column{{Name: "origin", Type: "VARCHAR"}, {Name: "distance", Type: "BIGINT"}}}}
	for _, c := range []struct {
		name, sql string
		kind      fault.Kind
		words     []string
	}{
		{"unknown column", "SELECT\n  origin,\n  distanse\nFROM flights", fault.Invalid, []string{"sql/x.sql, line 3", `"distanse"`, `Did you mean "distance"`}},
		{"unknown table", "SELECT *\nFROM flight", fault.Invalid, []string{"line 2", "flight", `Did you mean "flights"`}},
		{"syntax", "SELECT 1,\nFROM WHERE", fault.Invalid, []string{"sql/x.sql, line 2", "syntax error"}},
		{"two statements", "SELECT 1; SELECT 2", fault.Invalid, []string{"2 statements", "exactly one SELECT"}},
		{"no select", "DROP TABLE flights", fault.Invalid, []string{"exactly one SELECT"}},
		{"copy", "COPY (SELECT 1) TO 'x.csv'", fault.Invalid, []string{"exactly one SELECT"}},
		{"set", "SET threads = 1", fault.Invalid, []string{"exactly one SELECT"}},
		{"attach", "ATTACH 'x.db'", fault.Invalid, []string{"exactly one SELECT"}},
		{"hidden second", "SELECT 1 AS a; DROP SCHEMA main", fault.Invalid, []string{"exactly one SELECT"}},
		{"empty", "  -- nothing\n", fault.Invalid, []string{"is empty"}},
		{"two equal names", "SELECT 1 AS a, 2 AS A", fault.Invalid, []string{"two columns called"}},
		{"nested", "SELECT [1, 2] AS l", fault.Invalid, []string{"Column l is INTEGER[]"}},
		{"bad cast at run time", "SELECT 'x'::INTEGER AS a", fault.Invalid, []string{"Could not convert"}},
		{"reads a file", "SELECT * FROM read_csv('" + secret + "')", fault.Invalid, []string{"only its declared inputs"}},
		{"reads a file by name", "SELECT * FROM '" + secret + "'", fault.Invalid, nil},
		{"reads the system", "SELECT * FROM read_text('/proc/self/environ')", fault.Invalid, []string{"only its declared inputs"}},
		{"climbs", "SELECT * FROM read_csv('" + r.Dir + "/../../../.." + secret + "')", fault.Invalid, []string{"only its declared inputs"}},
		{"lists", "SELECT * FROM glob('/*')", fault.Invalid, []string{"only its declared inputs"}},
		{"network", "SELECT * FROM read_csv('http://127.0.0.1:1/x.csv')", fault.Invalid, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out := r.Path(strings.ReplaceAll(c.name, " ", "") + ".parquet")
			_, err := e.Transform(t.Context(), data.TransformJob{Dir: r.Dir, SQL: c.sql, Ref: "sql/x.sql", Inputs: in, Out: out})
			wantFault(t, err, c.kind, c.words...)
			if _, err := os.Stat(out); err == nil {
				t.Error("a refused transform left a file")
			}
		})
	}
}

// A job writes into its room and nowhere else, whoever names the place.
func TestOutsideTheRoom(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil)
	r := newRoom(t, e)
	outside := filepath.Join(t.TempDir(), "outside.parquet")
	if _, err := e.Transform(t.Context(), data.TransformJob{Dir: r.Dir, SQL: "SELECT 1 AS a", Out: outside}); err == nil {
		t.Error("a file outside of the room was written without an error")
	}
	if _, err := os.Stat(outside); err == nil {
		t.Error("a file outside of the room was written")
	}
}

// A child that crashes, starves or runs too long costs its own job and nothing else.
func TestLostChildren(t *testing.T) {
	t.Parallel()
	t.Run("crash", func(t *testing.T) {
		t.Parallel()
		for signal, words := range map[string]string{"SEGV": "crashed (segmentation fault)", "KILL": "lack of memory", "XCPU": "CPU time"} {
			e := newEngine(t, func(c *duckdb.Config) { c.Command = []string{"/bin/sh", "-c", "kill -" + signal + " $$"} })
			r := newRoom(t, e)
			_, err := e.Query(t.Context(), data.QueryJob{Dir: r.Dir, SQL: "SELECT 1 AS a"})
			wantFault(t, err, fault.Unavailable, words)
		}
	})
	t.Run("too long, then well", func(t *testing.T) {
		t.Parallel()
		e := newEngine(t, nil)
		r := newRoom(t, e)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := e.Query(ctx, data.QueryJob{Dir: r.Dir, SQL: "SELECT count(*) AS n FROM range(100000000000) a, range(1000) b"})
		wantFault(t, err, fault.Unavailable, "stopped")
		if got := look(t, e, r, "SELECT 1 AS a"); len(got) != 1 {
			t.Error("the engine does not work after a lost job")
		}
	})
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		e := newEngine(t, func(c *duckdb.Config) { c.MemoryLimit, c.FileBytes = 64<<20, 32<<20 })
		r := newRoom(t, e)
		_, err := e.Query(t.Context(), data.QueryJob{Dir: r.Dir, SQL: "SELECT max(s) AS m FROM (SELECT string_agg(i::VARCHAR, ',') AS s FROM range(40000000) g(i))"})
		wantFault(t, err, fault.TooLarge, "64 MiB")
	})
}

// A full disk stops the job with words, and leaves no half file that could be taken for a whole one.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	e := newEngine(t, func(c *duckdb.Config) { c.FileBytes = 1 << 20 })
	r := newRoom(t, e)
	_, err := e.Transform(t.Context(), data.TransformJob{Dir: r.Dir, SQL: "SELECT md5(i::VARCHAR) AS h FROM range(300000) g(i)", Out: r.Path("big.parquet")})
	wantFault(t, err, fault.Unavailable, "nothing of it is kept")
}

func FuzzReadFrame(f *testing.F) {
	var buf bytes.Buffer
	if err := duckdb.WriteFrame(&buf, duckdb.Request{Op: "query", Job: json.RawMessage(`{}`)}); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Add([]byte{255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		var req duckdb.Request
		if err := duckdb.ReadFrame(bytes.NewReader(b), &req); err == nil && len(b) < 6 {
			t.Errorf("%q was read as a frame", b)
		}
	})
}

// doomed is a server that starts a long job and is then killed.
func doomed(scratch string) {
	e, err := duckdb.New(duckdb.Config{Scratch: scratch})
	if err != nil {
		panic(err)
	}
	r, err := e.Room(0)
	if err != nil {
		panic(err)
	}
	_ = os.WriteFile(r.Path("clear.csv"), []byte("somebody's data"), 0o600)
	fmt.Println(r.Dir)
	_, err = e.Query(context.Background(), data.QueryJob{Dir: r.Dir, SQL: "SELECT count(*) AS n FROM range(100000000000) a, range(1000) b"})
	panic(err)
}

func TestServerKilled(t *testing.T) {
	t.Parallel()
	scratch := filepath.Join(t.TempDir(), "scratch")
	cmd := exec.Command(os.Args[0], "doomed", "server", scratch)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 4096)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	room := strings.TrimSpace(string(line[:n]))
	child := 0
	await(t, func() bool {
		kids, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", cmd.Process.Pid))
		for _, k := range kids {
			text, _ := os.ReadFile(k)
			for _, f := range strings.Fields(string(text)) {
				child, _ = strconv.Atoi(f)
			}
		}
		return child != 0
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	await(t, func() bool {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
		return err != nil || strings.Contains(string(state), ") Z ")
	})
	if _, err := os.Stat(room); err != nil {
		t.Fatalf("the room was expected to be left by the kill: %v", err)
	}
	e, err := duckdb.New(duckdb.Config{Scratch: scratch})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if _, err := os.Stat(room); err == nil {
		t.Error("a start did not wipe the decrypted data that a killed server left")
	}
}

// await polls a condition of another process, which offers nothing to wait on.
func await(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("the condition did not come true in 20 s")
		}
	}
}

func TestRoom(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil)
	r := newRoom(t, e)
	if st, err := os.Stat(r.Dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("room %v, %v", st, err)
	}
	put(t, r, "a", "x")
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.Dir); err == nil {
		t.Error("the room is still there")
	}
	_, err := e.Room(1 << 50)
	wantFault(t, err, fault.TooLarge, "scratch space")
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = duckdb.New(duckdb.Config{Scratch: open})
	if !fault.Is(err, fault.Denied) {
		t.Errorf("a scratch folder that others can read gave %v", err)
	}
}

func TestWire(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	in := duckdb.Request{Op: "query", Job: json.RawMessage(`{"a":1}`)}
	if err := duckdb.WriteFrame(&buf, in); err != nil {
		t.Fatal(err)
	}
	whole := buf.Bytes()
	var out duckdb.Request
	if err := duckdb.ReadFrame(bytes.NewReader(whole), &out); err != nil || cmp.Diff(in, out) != "" {
		t.Errorf("got %v, %v", out, err)
	}
	if err := duckdb.ReadFrame(bytes.NewReader(whole[:len(whole)-1]), &out); err == nil {
		t.Error("a cut frame was read")
	}
	if err := duckdb.ReadFrame(bytes.NewReader([]byte{255, 255, 255, 255}), &out); err == nil {
		t.Error("a frame of 4 GiB was accepted")
	}
}

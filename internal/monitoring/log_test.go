package monitoring

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"falaj/internal/blob"
	"falaj/internal/blob/dir"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
	"falaj/internal/serving"
	"falaj/internal/store"
	"falaj/internal/store/sqlite"
	"falaj/internal/store/storetest"
)

// sameRows compares bit by bit; cmp alone would take minutes for this many.
func sameRows(t *testing.T, want, got []serving.Prediction) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%d rows, want %d", len(got), len(want))
	}
	for i := range want {
		a, err := encodeRows(nil, want[i:i+1])
		must(t, err)
		b, err := encodeRows(nil, got[i:i+1])
		must(t, err)
		if !bytes.Equal(a, b) {
			t.Fatalf("row %d: %s", i, cmp.Diff(want[i], got[i], cmpopts.EquateNaNs()))
		}
	}
}

func ids(rows []serving.Prediction) map[string]int {
	m := map[string]int{}
	for _, p := range rows {
		m[p.ID]++
	}
	return m
}

func everything() Window { return Window{april(-1000 * time.Hour), april(100000 * time.Hour)} }

func TestSegmentsAndFramesKeepEveryBit(t *testing.T) {
	t.Parallel()
	rows, _ := newTraffic(1, 1, 2).make(5000, april(0), 100*time.Hour, 0)
	rows[3].Features, rows[4].Output, rows[5].Entity = nil, nil, nil
	rows[6].Unit, rows[7].At = "", time.UnixMicro(-5).UTC()
	b, err := encodeSegment(rows)
	must(t, err)
	back, err := decodeSegment(flightsKey, b)
	must(t, err)
	sameRows(t, rows, back)
	again, err := encodeSegment(back)
	must(t, err)
	if string(again) != string(b) {
		t.Fatal("equal rows give other bytes")
	}
	f, err := encodeRows(nil, rows)
	must(t, err)
	back, err = decodeRows("flights", f)
	must(t, err)
	sameRows(t, rows, back)
	for i := 0; i < len(f); i += 99971 {
		if _, err := decodeRows("flights", f[:i]); err == nil {
			t.Fatalf("a frame cut at %d reads", i)
		}
	}
	t.Logf("%d bytes a row in a segment, %d in a frame", len(b)/len(rows), len(f)/len(rows))
}

func FuzzDecodeRows(f *testing.F) {
	rows, _ := newTraffic(1, 1, 2).make(3, april(0), time.Hour, 0)
	b, err := encodeRows(nil, rows)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{frameForm, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = decodeRows("p", b) // must neither panic nor take memory that b does not hold
		_, _ = readRollup(b)
	})
}

func TestLogKeepsEveryPredictionOnce(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, db *store.Store) {
		l := openTestLog(t, db, newBlobs(t, db), t.TempDir(), func(c *LogConfig) { c.SegmentRows = 700 })
		rows, _ := newTraffic(2, 1, 2).make(2000, april(0), 200*time.Hour, 0)
		for i := 0; i < len(rows); i += 7 {
			must(t, l.Record(t.Context(), rows[i:min(i+7, len(rows))]))
			if i%700 == 0 { // at every stage of sealing each row is seen exactly once
				got, err := l.Rows(t.Context(), flightsKey, everything())
				must(t, err)
				if len(got) != min(i+7, len(rows)) || len(ids(got)) != len(got) {
					t.Fatalf("%d rows, %d ids after %d", len(got), len(ids(got)), i+7)
				}
			}
		}
		must(t, l.Seal(t.Context()))
		got, err := l.Rows(t.Context(), flightsKey, everything())
		must(t, err)
		slices.SortFunc(got, func(a, b serving.Prediction) int { return strings.Compare(a.ID, b.ID) })
		slices.SortFunc(rows, func(a, b serving.Prediction) int { return strings.Compare(a.ID, b.ID) })
		sameRows(t, rows, got)
		w := Window{april(50 * time.Hour), april(60 * time.Hour)}
		part, err := l.Rows(t.Context(), flightsKey, w)
		must(t, err)
		if len(part) != 200 || part[0].At.Before(w.From) || !part[len(part)-1].At.Before(w.To) {
			t.Fatal(len(part))
		}
		for _, name := range []string{"prd_a7", "req_1999"} {
			found, err := l.Find(t.Context(), "flights", name)
			must(t, err)
			if want := 1 + strings.Count(name, "req"); len(found) != want {
				t.Fatalf("%s: %d found", name, len(found))
			}
		}
		for _, p := range []string{"flights", "other"} {
			if found, err := l.Find(t.Context(), p, "prd_x"); err != nil || len(found) != 0 {
				t.Fatal(found, err)
			}
		}
		var n uint64
		for _, st := range l.Snapshot() {
			n += st.Count
		}
		if n != uint64(len(rows)) || l.Dropped() != 0 {
			t.Fatal(n, l.Dropped())
		}
		sealed, err := db.Recent(storetest.As("root"), "", "model.monitor", "", 0, 1000)
		must(t, err)
		if len(sealed) < 4 || sealed[0].After == "" || sealed[0].Actor != "system:monitoring" {
			t.Fatalf("%d segments in the ledger", len(sealed))
		}
	})
}

func TestNothingReadableLiesOnTheDisk(t *testing.T) {
	t.Parallel()
	db, tmp := storetest.SQLite(t), t.TempDir()
	l := openTestLog(t, db, newBlobs(t, db), tmp, nil)
	rows, _ := newTraffic(2, 1, 0).make(50, april(0), time.Hour, 0)
	must(t, l.Record(t.Context(), rows))
	must(t, l.Flush(t.Context()))
	names, err := filepath.Glob(filepath.Join(tmp, "*"))
	must(t, err)
	if len(names) != 1 {
		t.Fatal(names)
	}
	b, err := os.ReadFile(names[0])
	must(t, err)
	if len(b) < 50*100 || strings.Contains(string(b), "UA1") || strings.Contains(string(b), "origin") {
		t.Fatalf("%d bytes, or a unit in clear", len(b))
	}
}

func TestACutOrDamagedTailCostsOnlyItself(t *testing.T) {
	t.Parallel()
	rows, _ := newTraffic(3, 1, 0).make(300, april(0), time.Hour, 0)
	for name, harm := range map[string]struct {
		do    func(b []byte) []byte
		lost  int // frames
		aside bool
	}{
		"cut in the last frame":  {func(b []byte) []byte { return b[:len(b)-5] }, 1, false},
		"cut in the last head":   {func(b []byte) []byte { return append(b, 1, 2, 3) }, 0, false},
		"zeros after power loss": {func(b []byte) []byte { return append(b, make([]byte, 4096)...) }, 0, false},
		"a flipped bit":          {func(b []byte) []byte { b[len(b)-9] ^= 4; return b }, 1, true},
		"garbage":                {func(b []byte) []byte { return append(b, "GARBAGEGARBAGEGARBAGE"...) }, 0, true},
		"everything cut":         {func(b []byte) []byte { return nil }, 30, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, tmp := storetest.SQLite(t), t.TempDir()
			blobs := newBlobs(t, db)
			l, err := openLog(context.Background(), LogConfig{Dir: tmp}, db, blobs, quiet(), nil)
			must(t, err)
			for i := 0; i < 300; i += 10 {
				must(t, l.Record(t.Context(), rows[i:i+10]))
			}
			must(t, l.Close())
			names, err := filepath.Glob(filepath.Join(tmp, "*"+spoolSuffix))
			must(t, err)
			b, err := os.ReadFile(names[0])
			must(t, err)
			must(t, os.WriteFile(names[0], harm.do(b), 0o600))

			l = openTestLog(t, db, blobs, tmp, nil)
			got, err := l.Rows(t.Context(), flightsKey, everything())
			must(t, err)
			if want := 300 - 10*harm.lost; len(got) != want {
				t.Fatalf("%d rows came back, want %d", len(got), want)
			}
			must(t, l.Record(t.Context(), []serving.Prediction{{ID: "after", Project: "flights", Model: "delay", Environment: "production", At: april(0)}}))
			must(t, l.Seal(t.Context()))
			if again, err := l.Rows(t.Context(), flightsKey, everything()); err != nil || len(again) != len(got)+1 {
				t.Fatal(len(again), err)
			}
			aside, err := filepath.Glob(filepath.Join(tmp, "*.damaged"))
			must(t, err)
			if (len(aside) == 1) != harm.aside {
				t.Fatalf("set aside: %v", aside)
			}
		})
	}
}

// A child records and prints what was acknowledged; the parent kills it at once and reads everything back.
func TestAKilledProcessLosesNoAcknowledgedPrediction(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	self, err := os.Executable()
	must(t, err)
	total := 0
	for round := range 3 {
		cmd := exec.Command(self, "-test.run=TestDoomedRecorder$", "-test.v")
		cmd.Env = append(os.Environ(), "FALAJ_DOOMED="+tmp, fmt.Sprintf("FALAJ_ROUND=%d", round))
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		acked := []string{}
		buf, line := make([]byte, 4096), ""
		for len(acked) < 400+250*round {
			n, err := out.Read(buf)
			if err != nil {
				t.Fatal("the child ended by itself: ", err)
			}
			line += string(buf[:n])
			for {
				l, rest, ok := strings.Cut(line, "\n")
				if !ok {
					break
				}
				if line = rest; strings.HasPrefix(l, "ack ") {
					acked = append(acked, l[4:])
				}
			}
		}
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
		total += len(acked)

		db, blobs := doomedStore(t, tmp)
		l, err := openLog(context.Background(), LogConfig{Dir: filepath.Join(tmp, "spool"), SegmentRows: 100}, db, blobs, quiet(), nil)
		must(t, err)
		got, err := l.Rows(context.Background(), flightsKey, everything())
		must(t, err)
		seen := ids(got)
		for id, n := range seen {
			if n != 1 {
				t.Fatalf("%s is there %d times", id, n)
			}
		}
		for _, id := range acked {
			if seen[id] != 1 {
				t.Fatalf("acknowledged %s is lost", id)
			}
		}
		if len(got) < total {
			t.Fatalf("%d rows, %d were acknowledged in all rounds", len(got), total)
		}
		must(t, l.Close())
		must(t, db.Close())
	}
}

func doomedStore(t testing.TB, tmp string) (*store.Store, *blob.Store) {
	t.Helper()
	d, err := sqlite.Open(context.Background(), filepath.Join(tmp, "falaj.db"))
	must(t, err)
	db, err := store.Open(context.Background(), d, storetest.Roles{}, "", quiet())
	must(t, err)
	keys, err := seal.Open(filepath.Join(tmp, "keys"))
	must(t, err)
	bd, err := dir.Open(filepath.Join(tmp, "blobs"))
	must(t, err)
	return db, blob.New(db, keys, bd)
}

// TestDoomedRecorder is the child of the test above; without its environment it checks that it does not run by accident.
func TestDoomedRecorder(t *testing.T) {
	tmp := os.Getenv("FALAJ_DOOMED")
	if tmp == "" {
		return
	}
	db, blobs := doomedStore(t, tmp)
	l, err := openLog(context.Background(), LogConfig{Dir: filepath.Join(tmp, "spool"), SegmentRows: 100, Patience: time.Hour}, db, blobs, quiet(), nil)
	must(t, err)
	for n := 0; ; n++ {
		id := fmt.Sprintf("prd_%s_%d", os.Getenv("FALAJ_ROUND"), n)
		must(t, l.Record(context.Background(), []serving.Prediction{{ID: id, RequestID: id, Project: "flights", Model: "delay", Environment: "production", At: april(time.Duration(n) * time.Second), Features: []float64{1}}}))
		if l.Dropped() > 0 {
			t.Fatal("dropped")
		}
		fmt.Println("ack " + id)
	}
}

func TestARequestSentAgainIsLoggedOnce(t *testing.T) {
	t.Parallel()
	db, tmp := storetest.SQLite(t), t.TempDir()
	blobs := newBlobs(t, db)
	open := func() *Log { return openTestLog(t, db, blobs, tmp, func(c *LogConfig) { c.SegmentRows = 400 }) }
	rows, _ := newTraffic(5, 1, 2).make(1000, april(0), 20*time.Hour, 0)
	for i := range rows { // one request for each 100 rows, as a replay sends a day
		rows[i].RequestID = fmt.Sprint("day", i/100)
	}
	twin := rows[0] // the same question twice in one request is two predictions
	twin.ID = "twin"
	first := append([]serving.Prediction{twin}, rows[:100]...)
	send := func(l *Log, from int, suffix string) {
		for i := from; i < len(rows); i += 100 {
			part := slices.Clone(rows[i : i+100])
			if i == 0 {
				part = slices.Clone(first)
			}
			for j := range part {
				part[j].ID += suffix // every answer has its own id
			}
			must(t, l.Record(t.Context(), part))
		}
	}
	l := open()
	send(l, 0, "")
	send(l, 500, "-again")
	if l.Repeated() != 1500 {
		t.Fatal(l.Repeated())
	}
	must(t, l.Close())
	l = open() // nothing of it is in memory now: it comes from spool files and segments
	send(l, 1400, "-after a crash")
	got, err := l.Rows(t.Context(), flightsKey, everything())
	must(t, err)
	if len(got) != len(rows)+1 || l.Repeated() != 600 {
		t.Fatal(len(got), l.Repeated())
	}
	other := slices.Clone(rows[:100])
	for i := range other {
		other[i].RequestID = "another"
	}
	must(t, l.Record(t.Context(), other))
	if got, err = l.Rows(t.Context(), flightsKey, everything()); err != nil || len(got) != len(rows)+101 {
		t.Fatal(len(got), err)
	}
}

func TestAFullDiskDropsAndCountsAndRecovers(t *testing.T) {
	t.Parallel()
	db := storetest.SQLite(t)
	l := openTestLog(t, db, newBlobs(t, db), t.TempDir(), nil)
	rows, _ := newTraffic(3, 1, 0).make(20, april(0), time.Hour, 0)
	must(t, l.Record(t.Context(), rows[:10]))
	l.mu.Lock()
	good := l.current.file
	bad, err := os.Open(os.DevNull) // a file that cannot be written
	must(t, err)
	l.current.file = bad
	l.mu.Unlock()
	must(t, l.Record(t.Context(), rows[10:15])) // answers go on
	l.mu.Lock()
	l.current.file = good
	l.mu.Unlock()
	must(t, l.Record(t.Context(), rows[15:]))
	got, err := l.Rows(t.Context(), flightsKey, everything())
	must(t, err)
	if len(got) != 15 || l.Dropped() != 5 {
		t.Fatal(len(got), l.Dropped())
	}
}

// brokenBlobs is the real store, except that it cannot be written while it is broken.
type brokenBlobs struct {
	*blob.Store
	broken atomic.Bool
}

func (b *brokenBlobs) Put(ctx context.Context, project string, r io.Reader) (blob.Ref, error) {
	if b.broken.Load() {
		return blob.Ref{}, fault.New(fault.Unavailable, "The disk is full.", "")
	}
	return b.Store.Put(ctx, project, r)
}

func TestWhileNothingCanBeSealedAnswersGoOn(t *testing.T) {
	t.Parallel()
	db, tmp := storetest.SQLite(t), t.TempDir()
	blobs := &brokenBlobs{Store: newBlobs(t, db)}
	blobs.broken.Store(true)
	l := openTestLog(t, db, blobs, tmp, func(c *LogConfig) { c.SegmentRows, c.Backlog, c.Patience = 100, 2, time.Hour })
	rows, _ := newTraffic(5, 1, 0).make(1000, april(0), 20*time.Hour, 0)
	for i := 0; i < len(rows); i += 50 {
		must(t, l.Record(t.Context(), rows[i:i+50]))
	}
	kept := 1000 - int(l.Dropped())
	if kept < 300 || kept > 400 {
		t.Fatalf("%d kept", kept)
	}
	must(t, l.Close())
	blobs.broken.Store(false)
	l = openTestLog(t, db, blobs, tmp, nil)
	must(t, l.Seal(t.Context()))
	if got, err := l.Rows(t.Context(), flightsKey, everything()); err != nil || len(got) != kept {
		t.Fatal(len(got), err)
	}
}

func TestRollupAndBloom(t *testing.T) {
	t.Parallel()
	rows, _ := newTraffic(3, 1, 2).make(3000, april(-100*time.Hour), 200*time.Hour, 0)
	r, b := rollup{}, newBloom(len(rows))
	for i := range rows {
		r.add(&rows[i])
		b.add(rows[i].ID)
	}
	back, ok := readRollup(r.appendBinary(nil))
	if !ok || len(back) != len(r) || len(back) != 400 {
		t.Fatal(ok, len(back), len(r))
	}
	var n, nulls uint64
	for i, h := range back {
		n, nulls = n+h.count, nulls+h.nullRows
		if i > 0 && h.hour < back[i-1].hour {
			t.Fatal("hours out of order")
		}
	}
	if n != uint64(len(rows)) || nulls == 0 {
		t.Fatal(n, nulls)
	}
	wrong := 0
	for i := range rows {
		if !b.may(rows[i].ID) {
			t.Fatal("an id that is there is denied")
		}
		if b.may(fmt.Sprint("other", i)) {
			wrong++
		}
	}
	if wrong > len(rows)/25 {
		t.Fatalf("%d of %d false alarms", wrong, len(rows))
	}
}

// The year of flights: 250,000 predictions with as many of a shadow, in requests of 100 rows.
func BenchmarkLogTheYear(b *testing.B) {
	db := storetest.SQLite(b)
	blobs := newBlobs(b, db)
	rows, _ := newTraffic(4, 1, 2).make(250000, april(0), 275*24*time.Hour, 0)
	for i := range rows {
		f := make([]float64, 20)
		for j := range f {
			f[j] = float64(i*j%997) / 7
		}
		rows[i].Features = f
	}
	b.ResetTimer()
	for b.Loop() {
		l := openTestLog(b, db, blobs, b.TempDir(), nil)
		for i := 0; i < len(rows); i += 100 {
			must(b, l.Record(context.Background(), rows[i:i+100]))
		}
		must(b, l.Seal(context.Background()))
		if l.Dropped() > 0 {
			b.Fatal("dropped ", l.Dropped())
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(rows)), "us/prediction")
}

func BenchmarkRecordOne(b *testing.B) {
	db := storetest.SQLite(b)
	l := openTestLog(b, db, newBlobs(b, db), b.TempDir(), nil)
	rows, _ := newTraffic(4, 1, 0).make(1000, april(0), 275*24*time.Hour, 0)
	i := 0
	for b.Loop() {
		must(b, l.Record(context.Background(), rows[i%1000:i%1000+1]))
		i++
	}
}

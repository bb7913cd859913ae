package monitoring

import (
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/kernel/fault"
	"falaj/internal/serving"
	"falaj/internal/store"
	"falaj/internal/store/storetest"
)

const fortnight = 14 * 24 * time.Hour

type room struct {
	*Service
	db    *store.Store
	blobs Blobs
	dir   string
}

func newRoom(t *testing.T, db *store.Store) *room {
	t.Helper()
	r := &room{db: db, blobs: newBlobs(t, db), dir: filepath.Join(t.TempDir(), "predictions")}
	r.open(t)
	return r
}

// open starts the stage; what ran before is closed, as by a restart.
func (r *room) open(t *testing.T) {
	t.Helper()
	if r.Service != nil {
		must(t, r.Service.Close())
	}
	var err error
	r.Service, err = New(context.Background(), Config{Store: r.db, Blobs: r.blobs, Slog: quiet(), Log: LogConfig{Dir: r.dir, SegmentRows: 1500}})
	must(t, err)
	s := r.Service
	t.Cleanup(func() { _ = s.Close() })
}

func (r *room) events(t *testing.T, typ string) int {
	t.Helper()
	all, err := r.db.Events(t.Context(), 0, 100000)
	must(t, err)
	n := 0
	for _, e := range all {
		if e.Type == typ {
			n++
		}
	}
	return n
}

func (r *room) monitor(t *testing.T) {
	t.Helper()
	_, err := r.SetMonitor(storetest.As("system:plan"), flightsKey, Monitor{Quality: QualityMonitor{MinGap: 0.01}})
	must(t, err)
}

// push records traffic and then its labels, in shuffled batches.
func (r *room) push(t *testing.T, rows []serving.Prediction, labels []Label) {
	t.Helper()
	for part := range slices.Chunk(rows, 37) {
		must(t, r.Record(t.Context(), part))
	}
	rng := rand.New(rand.NewPCG(1, 1))
	rng.Shuffle(len(labels), func(i, j int) { labels[i], labels[j] = labels[j], labels[i] })
	for part := range slices.Chunk(labels, 501) {
		must(t, r.PushLabels(storetest.As("replay"), "flights", "delay", part))
	}
}

func TestAWorseChampionRaisesOneAlertWhenItsLabelsAreIn(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, db *store.Store) {
		r, tr := newRoom(t, db), newTraffic(10, 0.5, 3)
		r.monitor(t)
		rows, labels := tr.make(1500, april(0), fortnight, 0)
		for part := range slices.Chunk(rows, 100) {
			must(t, r.Record(t.Context(), part))
		}
		must(t, r.PushLabels(storetest.As("replay"), "flights", "delay", labels[:1200]))
		must(t, r.Evaluate(t.Context(), "flights", "delay"))
		if w, err := r.Quality(t.Context(), flightsKey, 10); err != nil || len(w) != 0 {
			t.Fatalf("a window was judged before its labels: %+v %v", w, err)
		}
		if _, err := r.NewestLabelledWindow(t.Context(), flightsKey); !fault.Is(err, fault.NotFound) {
			t.Fatal(err)
		}
		must(t, r.PushLabels(storetest.As("replay"), "flights", "delay", labels[1200:]))
		must(t, r.PushLabels(storetest.As("replay"), "flights", "delay", labels[:300])) // a retry: counts once
		must(t, r.Advance(storetest.As("replay"), "flights", april(fortnight+24*time.Hour-time.Microsecond)))
		must(t, r.Evaluate(t.Context(), "flights", "delay"))
		if w, err := r.Quality(t.Context(), flightsKey, 10); err != nil || len(w) != 0 {
			t.Fatalf("judged before labels_after is over: %+v %v", w, err)
		}
		must(t, r.Advance(storetest.As("replay"), "flights", april(fortnight+24*time.Hour)))
		must(t, r.Evaluate(t.Context(), "flights", "delay"))
		must(t, r.Evaluate(t.Context(), "", ""))
		ws, err := r.Quality(t.Context(), flightsKey, 10)
		must(t, err)
		if len(ws) != 1 {
			t.Fatalf("%d windows", len(ws))
		}
		w := ws[0]
		if w.Verdict != VerdictDegraded || w.Champion != champ || w.Challenger != challenger || w.Rows != 1500 || w.Labels != 1500 || w.Unlabelled != 0 || w.Unmatched != 0 ||
			w.Gap.Rows != 1500 || w.Gap.Lower.Value <= 0.01 || !w.From.Equal(april(0)) || !w.To.Equal(april(fortnight)) {
			t.Fatalf("%+v", w)
		}
		// The verdict rests on the same numbers as the measures by themselves.
		var mine []Scored
		truth := map[string]float64{}
		for _, l := range labels {
			truth[l.Unit] = l.Value
		}
		for _, p := range rows {
			if !p.Shadow {
				mine = append(mine, Scored{p.Output[0], truth[p.Unit]})
			}
		}
		if got, want := w.ChampionFacts.AUC.Value, AUC(mine).Value; math.Abs(got-want) > 1e-12 || w.Gap.A.Value != got {
			t.Fatalf("AUC %v, want %v", got, want)
		}
		alerts, err := r.Alerts(t.Context(), flightsKey, "", 10)
		must(t, err)
		if len(alerts) != 1 || alerts[0].Kind != QualityDegraded || alerts[0].State != AlertOpen || !alerts[0].At.Equal(april(fortnight+24*time.Hour)) || !strings.Contains(alerts[0].Text, "auc") {
			t.Fatalf("%+v", alerts)
		}
		if r.events(t, QualityDegraded) != 1 || r.events(t, "quality.measured") != 1 {
			t.Fatal("events are not exactly one")
		}
		twin := alerts[0]
		twin.ID = "alr_twin"
		must(t, r.raise(storetest.As("system:monitoring"), twin))
		if all, err := r.Alerts(t.Context(), flightsKey, "", 10); err != nil || len(all) != 1 || r.events(t, QualityDegraded) != 1 {
			t.Fatalf("the same window raises twice: %+v %v", all, err)
		}
		nw, err := r.NewestLabelledWindow(t.Context(), flightsKey)
		if err != nil || nw != w.Window {
			t.Fatal(nw, err)
		}

		// A restart judges nothing again, and goes on: the next fortnight both are equally good.
		r.open(t)
		tr.champion, tr.challenger = 2, 2
		r.push2(t, tr, april(fortnight))
		if ws, err = r.Quality(t.Context(), flightsKey, 10); err != nil || len(ws) != 2 || ws[1].Verdict != VerdictOK {
			t.Fatalf("%d windows, %v", len(ws), err)
		}
		if alerts, err = r.Alerts(t.Context(), Key{Project: "flights"}, AlertResolved, 10); err != nil || len(alerts) != 1 {
			t.Fatalf("a good window did not resolve the alert: %+v %v", alerts, err)
		}
		if r.events(t, QualityDegraded) != 1 {
			t.Fatal("raised again")
		}
	})
}

func (r *room) push2(t *testing.T, tr *traffic, from time.Time) {
	t.Helper()
	rows, labels := tr.make(1500, from, fortnight, 0)
	r.push(t, rows, labels)
	must(t, r.Advance(storetest.As("replay"), "flights", from.Add(fortnight+24*time.Hour)))
	must(t, r.Evaluate(t.Context(), "flights", ""))
}

func TestAWorseChallengerRaisesNothing(t *testing.T) {
	t.Parallel()
	r := newRoom(t, storetest.SQLite(t))
	r.monitor(t)
	r.push2(t, newTraffic(11, 3, 0.5), april(0))
	ws, err := r.Quality(t.Context(), flightsKey, 10)
	must(t, err)
	if len(ws) != 1 || ws[0].Verdict != VerdictOK || ws[0].Gap.Upper.Value > 0 || r.events(t, QualityDegraded) != 0 {
		t.Fatalf("%+v", ws)
	}
}

// A challenger that looks better by more than the gap, but not beyond chance, raises nothing.
func TestALeadWithinChanceRaisesNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		rows, labels := newTraffic(seed, 2, 2.2).make(300, april(0), fortnight, 0)
		var pairs []Pair
		for i, l := range labels {
			pairs = append(pairs, Pair{rows[2*i].Output[0], rows[2*i+1].Output[0], l.Value})
		}
		if g := Compare(MetricAUC, pairs); g.Diff.Value < 0.02 || g.Lower.Value > 0.005 {
			continue
		}
		r := newRoom(t, storetest.SQLite(t))
		r.monitor(t)
		r.push(t, rows, labels)
		must(t, r.Advance(storetest.As("replay"), "flights", april(2*fortnight)))
		must(t, r.Evaluate(t.Context(), "flights", "delay"))
		ws, err := r.Quality(t.Context(), flightsKey, 1)
		if err != nil || len(ws) != 1 || ws[0].Verdict != VerdictOK || ws[0].Gap.Diff.Value < 0.02 {
			t.Fatalf("%+v %v", ws, err)
		}
		return
	}
	t.Fatal("no seed makes such a lead")
}

func TestWindowsWithoutChallengerOrLabelsSaySo(t *testing.T) {
	t.Parallel()
	r := newRoom(t, storetest.SQLite(t))
	r.monitor(t)
	r.push2(t, newTraffic(11, 3, 0), april(0))
	rows, _ := newTraffic(12, 3, 2).make(1000, april(fortnight), fortnight, 0)
	r.push(t, rows, nil)
	if err := r.Advance(storetest.As("amal"), "flights", april(3*fortnight)); !fault.Is(err, fault.Denied) {
		t.Fatal(err)
	}
	// Much later one more request comes: the empty windows between are not judged, the unlabelled one is.
	must(t, r.Advance(storetest.As("replay"), "flights", april(20*fortnight)))
	must(t, r.Evaluate(t.Context(), "flights", "delay"))
	ws, err := r.Quality(t.Context(), flightsKey, 10)
	must(t, err)
	if len(ws) != 2 || ws[0].Verdict != VerdictNoChallenger || ws[0].ChampionFacts.AUC.Value < 0.6 || ws[1].Verdict != VerdictFewLabels || ws[1].Unlabelled != 1000 || ws[1].ChampionFacts.AUC.Defined() {
		t.Fatalf("%+v", ws)
	}
	if b, err := json.Marshal(ws); err != nil || strings.Contains(string(b), "NaN") {
		t.Fatal(err)
	}
	if nw, err := r.NewestLabelledWindow(t.Context(), flightsKey); err != nil || nw != ws[0].Window {
		t.Fatal(nw, err)
	}
}

func TestLabelsFindTheirRowsInEveryWay(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, db *store.Store) {
		r := newRoom(t, db)
		rows, labels := newTraffic(13, 2, 2).make(300, april(0), 24*time.Hour, 0)
		batch := []serving.Prediction{ // one request of two rows, and the same unit asked twice at one time
			{ID: "m1", RequestID: "multi", Unit: "u1", At: april(time.Hour), Release: champ}, {ID: "m2", RequestID: "multi", Unit: "u2", At: april(time.Hour), Release: champ},
			{ID: "t1", RequestID: "r1", Unit: "twice", At: april(time.Hour), Release: champ}, {ID: "t2", RequestID: "r2", Unit: "twice", At: april(time.Hour), Release: champ},
		}
		for i := range batch {
			batch[i].Project, batch[i].Model, batch[i].Environment, batch[i].Output = "flights", "delay", "production", []float64{0.5}
		}
		must(t, r.Record(t.Context(), append(slices.Clone(rows), batch...)))
		for i := range labels {
			switch i % 3 {
			case 0:
				labels[i] = Label{ID: rows[2*i].ID, Value: labels[i].Value, KnownAt: labels[i].KnownAt}
			case 1:
				labels[i] = Label{RequestID: rows[2*i].RequestID, Value: labels[i].Value, KnownAt: labels[i].KnownAt}
			}
		}
		later := april(48 * time.Hour)
		labels = append(labels,
			Label{ID: rows[0].ID, Value: 1 - labels[0].Value, KnownAt: later}, // corrected
			Label{ID: rows[0].ID, Value: labels[0].Value, KnownAt: april(0)},  // an older one, pushed late
			Label{RequestID: "multi", Value: 1, KnownAt: later},               // which of the two?
			Label{RequestID: "multi", Unit: "u2", Value: 1, KnownAt: later},
			Label{Unit: "twice", At: april(time.Hour), Value: 1, KnownAt: later},
			Label{Unit: "nobody", At: april(time.Hour), Value: 1, KnownAt: later},
			Label{Unit: "nobody", At: april(1000 * time.Hour), Value: 1, KnownAt: later})
		must(t, r.PushLabels(storetest.As("replay"), "flights", "delay", labels))
		w := Window{april(0), april(24 * time.Hour)}
		got, err := r.LabelledRows(t.Context(), flightsKey, w)
		must(t, err)
		found := map[string]LabelledRow{}
		for _, g := range got {
			found[g.ID] = g
		}
		if len(got) != 303 || found["m1"].ID != "" || found["m2"].Label != 1 || found["t1"].Label != 1 || found["t2"].Label != 1 || found[rows[0].ID].Label != 1-labels[0].Value {
			t.Fatalf("%d rows, %+v %+v", len(got), found["m1"], found[rows[0].ID])
		}
		if f := found[rows[2].ID]; len(f.Scores) != 2 || f.Scores[champ] != rows[2].Output[0] || f.Scores[challenger] != rows[3].Output[0] || len(f.Features) != 2 || f.Entity["origin"] != "EWR" {
			t.Fatalf("%+v", f)
		}
		q, err := r.quality(t.Context(), flightsKey, Monitor{}.withDefaults().Quality, w, later)
		must(t, err)
		if q.Unmatched != 2 || q.Labels != 303 || q.Unlabelled != 1 {
			t.Fatalf("unmatched %d, labels %d, unlabelled %d", q.Unmatched, q.Labels, q.Unlabelled)
		}

		// A candidate that never served is compared by its scores.
		byID := map[string]float64{}
		for _, g := range got {
			byID[g.ID] = g.Label // it knows the truth
		}
		c, err := r.CompareOnWindow(t.Context(), flightsKey, w, MetricAUC, Scores{Release: champ}, Scores{Release: "candidate", ByID: byID})
		must(t, err)
		if c.Gap.B.Value != 1 || c.Gap.Lower.Value <= 0 || c.Labels != 303 || c.Missing != 0 {
			t.Fatalf("%+v", c)
		}
		c, err = r.CompareOnWindow(t.Context(), flightsKey, w, MetricBrier, Scores{Release: champ}, Scores{Release: challenger})
		must(t, err)
		if c.Missing != 3 || c.Gap.Rows != 300 {
			t.Fatalf("%+v", c)
		}
	})
}

func TestBadLabelsAreRefusedWhole(t *testing.T) {
	t.Parallel()
	r := newRoom(t, storetest.SQLite(t))
	good := Label{ID: "a", Value: 1}
	for _, c := range []struct {
		who    string
		labels []Label
		kind   fault.Kind
		says   string
	}{
		{"replay", []Label{good, {ID: "b", Value: math.NaN()}}, fault.Invalid, "Label 2 is NaN"},
		{"replay", []Label{good, {ID: "b", Value: 0.5}}, fault.Invalid, "Label 2 is 0.5"},
		{"replay", []Label{{Value: 1}}, fault.Invalid, "names no prediction"},
		{"replay", []Label{{Unit: "u", Value: 1}}, fault.Invalid, "names no prediction"},
		{"vera", []Label{good}, fault.Denied, "vera"},
		{"amal", []Label{{ID: "a", Value: 1, KnownAt: april(0)}}, fault.Denied, "time.replay"},
	} {
		err := r.PushLabels(storetest.As(c.who), "flights", "delay", c.labels)
		if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.who, err, c.says)
		}
	}
	if l, err := r.labels(t.Context(), "flights", "delay", april(-1e6*time.Hour), time.Now().Add(time.Hour)); err != nil || len(l) != 0 {
		t.Fatalf("a refused push left %v %v", l, err)
	}
	must(t, r.PushLabels(storetest.As("amal"), "flights", "delay", []Label{good}))
	l, err := r.labels(t.Context(), "flights", "delay", april(0), time.Now().Add(time.Hour))
	if err != nil || len(l) != 1 || time.Since(l[0].KnownAt) > time.Minute {
		t.Fatal(l, err)
	}
}

func TestDriftIsJudgedAgainstTheTrainingProfile(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, db *store.Store) {
		r, tr, sys := newRoom(t, db), newTraffic(14, 2, 2), storetest.As("system:plan")
		r.monitor(t)
		train, _ := tr.make(3000, april(-60*24*time.Hour), fortnight, 0)
		var temp, signal []float64
		for _, p := range train {
			temp, signal = append(temp, p.Features[0]), append(signal, p.Features[1])
		}
		run := func(n int, shift float64, lose bool) {
			rows, _ := tr.make(800, april(time.Duration(n)*fortnight), fortnight, shift)
			for i := range rows {
				if lose && i%3 > 0 {
					rows[i].Features = []float64{rows[i].Features[0], math.NaN()}
				}
			}
			r.push(t, rows, nil)
			must(t, r.Advance(storetest.As("replay"), "flights", april(time.Duration(n+1)*fortnight+2*time.Hour)))
			must(t, r.Evaluate(t.Context(), "flights", "delay"))
		}
		run(0, 0, false) // no reference yet
		ref := Reference{Profile: Profile{Rows: 3000, Features: []FeatureProfile{ProfileNumeric("temp", temp), ProfileNumeric("signal", signal)}}, Importance: []float64{80, 20}}
		must(t, r.SetReference(sys, "flights", champ, ref))
		run(1, 0, false)
		run(2, 3, false) // summer
		run(3, 0, true)  // a feature gets lost
		run(4, 0, false)
		ws, err := r.Drift(t.Context(), flightsKey, 10)
		must(t, err)
		got := []string{}
		for _, w := range ws {
			got = append(got, w.Verdict)
		}
		if d := cmp.Diff([]string{VerdictNoReference, VerdictOK, VerdictDrifted, VerdictOK, VerdictOK}, got); d != "" {
			t.Fatal(d)
		}
		if f := ws[2].Figures; f.Features[0].JS.Value < 0.5 || len(f.Features[0].Edges) == 0 || f.Method != MethodJS || ws[2].NullRows == 0 || ws[2].Rows != 800 {
			t.Fatalf("%+v", ws[2])
		}
		if d := cmp.Diff([]string{"signal"}, ws[3].Missing); d != "" {
			t.Fatal(d)
		}
		if r.events(t, DriftDetected) != 1 || r.events(t, FeaturesMissing) != 1 {
			t.Fatal("events", r.events(t, DriftDetected), r.events(t, FeaturesMissing))
		}
		if open, err := r.Alerts(t.Context(), flightsKey, AlertOpen, 10); err != nil || len(open) != 0 {
			t.Fatalf("good windows left %+v %v", open, err)
		}
		// The same season weighed by an importance that the model does not give it raises nothing.
		ref.Importance = []float64{1, 99}
		must(t, r.SetReference(sys, "flights", champ, ref))
		run(5, 3, false)
		if ws, err = r.Drift(t.Context(), flightsKey, 1); err != nil || ws[0].Verdict != VerdictOK {
			t.Fatalf("%+v %v", ws, err)
		}
		if err := r.SetReference(storetest.As("vera"), "flights", champ, ref); !fault.Is(err, fault.Denied) {
			t.Fatal(err)
		}
		ref.Profile.Features[0].Counts = nil
		if err := r.SetReference(sys, "flights", champ, ref); !fault.Is(err, fault.Invalid) {
			t.Fatal(err)
		}
	})
}

func TestAlertsAreAcknowledgedByPeople(t *testing.T) {
	t.Parallel()
	r := newRoom(t, storetest.SQLite(t))
	r.monitor(t)
	r.push2(t, newTraffic(10, 0.5, 3), april(0))
	alerts, err := r.Alerts(t.Context(), flightsKey, AlertOpen, 10)
	must(t, err)
	if len(alerts) != 1 {
		t.Fatal(alerts)
	}
	if _, err := r.Acknowledge(storetest.As("vera"), "flights", alerts[0].ID); !fault.Is(err, fault.Denied) {
		t.Fatal(err)
	}
	a, err := r.Acknowledge(storetest.As("amal"), "flights", alerts[0].ID)
	if err != nil || a.State != AlertAcknowledged {
		t.Fatal(a, err)
	}
	if _, err := r.Acknowledge(storetest.As("amal"), "flights", alerts[0].ID); !fault.Is(err, fault.Conflict) {
		t.Fatal(err)
	}
	if _, err := r.Acknowledge(storetest.As("amal"), "other", alerts[0].ID); !fault.Is(err, fault.NotFound) {
		t.Fatal(err)
	}
}

func TestMonitorsAreCheckedAndKeepTheirDefaults(t *testing.T) {
	t.Parallel()
	r, sys := newRoom(t, storetest.SQLite(t)), storetest.As("system:plan")
	m, err := r.SetMonitor(sys, flightsKey, Monitor{})
	must(t, err)
	want := Monitor{Drift: DriftMonitor{Method: MethodJS, Weigh: WeighImportance, Threshold: 0.2, Window: fortnight, MinRows: 200, MissingBy: 0.2},
		Quality: QualityMonitor{Metric: MetricAUC, Window: fortnight, LabelsAfter: 24 * time.Hour, MinGap: 0.01, MinLabels: 200}}
	if d := cmp.Diff(want, m); d != "" {
		t.Fatal(d)
	}
	got, err := r.Monitor(t.Context(), flightsKey)
	if err != nil || got != m {
		t.Fatal(got, err)
	}
	must2 := r.events(t, "monitor.defined")
	if _, err := r.SetMonitor(sys, flightsKey, Monitor{}); err != nil || r.events(t, "monitor.defined") != must2 {
		t.Fatal("the same monitor is a change", err)
	}
	for field, bad := range map[string]Monitor{
		"monitor.quality.metric":       {Quality: QualityMonitor{Metric: "f1"}},
		"monitor.quality.window":       {Quality: QualityMonitor{Window: time.Minute}},
		"monitor.quality.min_gap":      {Quality: QualityMonitor{MinGap: -1}},
		"monitor.quality.labels_after": {Quality: QualityMonitor{LabelsAfter: -1}},
		"monitor.drift.method":         {Drift: DriftMonitor{Method: "ks"}},
		"monitor.drift.weigh":          {Drift: DriftMonitor{Weigh: "luck"}},
		"monitor.drift.threshold":      {Drift: DriftMonitor{Threshold: math.NaN()}},
	} {
		if _, err := r.SetMonitor(sys, flightsKey, bad); !fault.Is(err, fault.Invalid) || fault.From(err).Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := r.Monitor(t.Context(), Key{"flights", "other", "production"}); !fault.Is(err, fault.NotFound) {
		t.Fatal(err)
	}
}

func TestTelemetryCountsWhatWasServed(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, db *store.Store) {
		r := newRoom(t, db)
		if empty, err := r.Telemetry(t.Context(), flightsKey, Window{}, 100); err != nil || len(empty.Slots) != 0 {
			t.Fatal(empty, err)
		}
		rows, _ := newTraffic(15, 2, 2).make(2000, april(0), 100*24*time.Hour, 0)
		r.push(t, rows, nil)
		for _, restarted := range []bool{false, true} {
			if restarted {
				r.open(t)
			}
			tel, err := r.Telemetry(t.Context(), flightsKey, Window{}, 50)
			must(t, err)
			var count, shadow, nulls uint64
			for i, s := range tel.Slots {
				count, shadow, nulls = count+s.Count, shadow+s.Shadow, nulls+s.NullRows
				if s.P99 == nil || *s.P50 > *s.P95 || *s.P95 > *s.P99 || *s.P99 > 450*time.Microsecond || *s.P50 < 100*time.Microsecond {
					t.Fatalf("slot %d: %+v", i, s)
				}
			}
			if count != 2000 || shadow != 2000 || nulls == 0 || len(tel.Slots) > 50 || len(tel.Slots) < 45 || tel.Step%time.Hour != 0 || len(tel.ByRelease) != 2 {
				t.Fatalf("%d + %d in %d slots of %s", count, shadow, len(tel.Slots), tel.Step)
			}
			if b, err := json.Marshal(tel); err != nil || !json.Valid(b) {
				t.Fatal(err)
			}
			day, err := r.Telemetry(t.Context(), flightsKey, Window{april(24 * time.Hour), april(48 * time.Hour)}, 500)
			must(t, err)
			if n := len(day.Slots); n == 0 || n > 24 || day.Slots[0].Count == 0 {
				t.Fatalf("%d hours of one day", n)
			}
		}
		found, err := r.Predictions(t.Context(), "flights", "req_77")
		if err != nil || len(found) != 2 || found[0].Shadow || !found[1].Shadow || found[0].Features == nil {
			t.Fatal(found, err)
		}
		if _, err := r.Predictions(t.Context(), "flights", "req_no"); !fault.Is(err, fault.NotFound) {
			t.Fatal(err)
		}
	})
}

func TestWindowsAlignToMondays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		at    time.Time
		width time.Duration
		from  time.Time
	}{
		{april(0), fortnight, april(0)},
		{april(fortnight - 1), fortnight, april(0)},
		{april(0).Add(-time.Microsecond), fortnight, april(-fortnight)},
		{april(5 * time.Hour), time.Hour, april(5 * time.Hour)},
		{time.Date(1969, 12, 31, 5, 0, 0, 0, time.UTC), 7 * 24 * time.Hour, time.Date(1969, 12, 29, 0, 0, 0, 0, time.UTC)},
		{time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), 7 * 24 * time.Hour, time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		if w := aligned(c.at, c.width); !w.From.Equal(c.from) || w.To.Sub(w.From) != c.width {
			t.Errorf("%s in %s: %s, want %s", c.at, c.width, w.From, c.from)
		}
	}
}

// The year of flights again: 250,000 flights with a shadow, labels by day, some twenty windows judged on the way.
func BenchmarkJudgeTheYear(b *testing.B) {
	db := storetest.SQLite(b)
	s, err := New(context.Background(), Config{Store: db, Blobs: newBlobs(b, db), Slog: quiet(), Log: LogConfig{Dir: b.TempDir()}})
	must(b, err)
	defer s.Close()
	_, err = s.SetMonitor(storetest.As("system:plan"), flightsKey, Monitor{})
	must(b, err)
	tr := newTraffic(1, 1.5, 2)
	for b.Loop() {
		for day := range 275 {
			rows, labels := tr.make(910, april(time.Duration(day)*24*time.Hour), 24*time.Hour, 0)
			must(b, s.Record(context.Background(), rows))
			must(b, s.PushLabels(storetest.As("replay"), "flights", "delay", labels))
		}
		must(b, s.Evaluate(context.Background(), "flights", "delay"))
	}
	ws, err := s.Quality(context.Background(), flightsKey, 100)
	must(b, err)
	b.ReportMetric(float64(len(ws)), "windows")
}

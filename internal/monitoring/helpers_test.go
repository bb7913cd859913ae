package monitoring

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"falaj/internal/blob"
	"falaj/internal/blob/dir"
	"falaj/internal/kernel/seal"
	"falaj/internal/serving"
	"falaj/internal/store"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func newBlobs(t testing.TB, db *store.Store) *blob.Store {
	t.Helper()
	tmp := t.TempDir()
	keys, err := seal.Open(filepath.Join(tmp, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := dir.Open(filepath.Join(tmp, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	return blob.New(db, keys, d)
}

// april is when the flights story starts to serve: a Monday, the start of a two-week window.
func april(d time.Duration) time.Time { return time.Date(2013, 4, 1, 0, 0, 0, 0, time.UTC).Add(d) }

const (
	champ      = "sha256:c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00"
	challenger = "sha256:decade00decade00decade00decade00decade00decade00decade00decade00"
)

var flightsKey = Key{"flights", "delay", "production"}

// traffic makes n flights over the span with what champion and shadow said, and the truth. Skill says how much of the
// signal each model sees; the truth is noisy.
type traffic struct {
	rng                  *rand.Rand
	champion, challenger float64
	n                    int // next flight
}

func newTraffic(seed uint64, champion, challenger float64) *traffic {
	return &traffic{rng: rand.New(rand.NewPCG(seed, 77)), champion: champion, challenger: challenger}
}

func (tr *traffic) make(n int, from time.Time, span time.Duration, shift float64) (rows []serving.Prediction, labels []Label) {
	sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	for i := range n {
		at := from.Add(time.Duration(float64(span) * float64(i) / float64(n))).Truncate(time.Microsecond)
		signal := tr.rng.NormFloat64()
		y := 0.0
		if tr.rng.Float64() < sigmoid(2*signal-1) {
			y = 1
		}
		temp := tr.rng.NormFloat64() + shift
		if tr.rng.IntN(50) == 0 {
			temp = math.NaN()
		}
		unit := fmt.Sprintf("UA%d", tr.n)
		base := serving.Prediction{RequestID: fmt.Sprintf("req_%d", tr.n), Project: "flights", Model: "delay", Environment: "production", Unit: unit, At: at,
			Entity: map[string]any{"origin": "EWR"}, FeaturesDigest: fmt.Sprintf("%032x", tr.n), Features: []float64{temp, signal}, Latency: time.Duration(100+tr.rng.IntN(300)) * time.Microsecond}
		a, b := base, base
		a.ID, a.Variant, a.Release, a.Output = fmt.Sprintf("prd_a%d", tr.n), "champion", champ, []float64{sigmoid(tr.champion*signal + tr.rng.NormFloat64() - 1)}
		rows = append(rows, a)
		if tr.challenger > 0 {
			b.ID, b.Variant, b.Release, b.Shadow, b.Output = fmt.Sprintf("prd_b%d", tr.n), "shadow", challenger, true, []float64{sigmoid(tr.challenger*signal + tr.rng.NormFloat64() - 1)}
			rows = append(rows, b)
		}
		labels = append(labels, Label{Unit: unit, At: at, Value: y, KnownAt: at.Add(time.Duration(tr.rng.IntN(20)) * time.Hour)})
		tr.n++
	}
	return rows, labels
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openTestLog(t testing.TB, db *store.Store, blobs Blobs, dir string, set func(*LogConfig)) *Log {
	t.Helper()
	cfg := LogConfig{Dir: dir}
	if set != nil {
		set(&cfg)
	}
	l, err := openLog(context.Background(), cfg, db, blobs, quiet(), nil)
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

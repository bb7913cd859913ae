package monitoring

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

type golden struct {
	Scores []struct {
		Label, A, B     []float64
		AUCA            float64 `json:"auc_a"`
		AUCB            float64 `json:"auc_b"`
		DeLongA         float64 `json:"delong_auc_a"`
		DeLongB         float64 `json:"delong_auc_b"`
		DeLongVariance  float64 `json:"delong_variance"`
		AUCVarianceA    float64 `json:"auc_variance_a"`
		BrierVarianceA  float64 `json:"brier_variance_a"`
		LogLossVarA     float64 `json:"log_loss_variance_a"`
		BrierA          float64 `json:"brier_a"`
		LogLossA        float64 `json:"log_loss_a"`
		BrierVariance   float64 `json:"brier_variance"`
		LogLossVariance float64 `json:"log_loss_variance"`
		CalibrationRows []int   `json:"calibration_rows"`
	}
	Histograms []struct {
		P, Q    []int64
		PSI, JS float64
	}
	Binned struct {
		Edges  []float64
		Column []*float64
		Counts []int64
		Nulls  int64
	}
	Latency struct {
		US        []int64
		Quantiles map[string]float64
	}
}

func readGolden(t *testing.T) golden {
	t.Helper()
	b, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	if len(g.Scores) == 0 || len(g.Histograms) == 0 {
		t.Fatal("golden.json is empty")
	}
	return g
}

func near(t *testing.T, what string, got Figure, want float64) {
	t.Helper()
	if !got.Defined() || math.Abs(got.Value-want) > 1e-12*max(1, math.Abs(want)) {
		t.Errorf("%s = %+v, want %.17g", what, got, want)
	}
}

func TestMeasuresAgreeWithScikitLearn(t *testing.T) {
	t.Parallel()
	for _, g := range readGolden(t).Scores {
		rows, pairs := make([]Scored, len(g.Label)), make([]Pair, len(g.Label))
		for i := range g.Label {
			rows[i], pairs[i] = Scored{g.A[i], g.Label[i]}, Pair{g.A[i], g.B[i], g.Label[i]}
		}
		q := Measure(rows)
		near(t, "auc", q.AUC, g.AUCA)
		near(t, "brier", q.Brier, g.BrierA)
		near(t, "log loss", q.LogLoss, g.LogLossA)
		near(t, "auc's variance", q.Variance.AUC, g.AUCVarianceA)
		near(t, "brier's variance", q.Variance.Brier, g.BrierVarianceA)
		near(t, "log loss's variance", q.Variance.LogLoss, g.LogLossVarA)
		low, high := q.Interval(MetricAUC)
		near(t, "low", low, g.AUCA-z95*math.Sqrt(g.AUCVarianceA))
		near(t, "high", high, g.AUCA+z95*math.Sqrt(g.AUCVarianceA))
		bins := []int{}
		for _, b := range q.Calibration {
			bins = append(bins, b.Rows)
		}
		if d := cmp.Diff(g.CalibrationRows, bins); d != "" {
			t.Error(d)
		}
		gap := Compare(MetricAUC, pairs)
		near(t, "auc a", gap.A, g.DeLongA)
		near(t, "auc b", gap.B, g.AUCB)
		near(t, "auc b", gap.B, g.DeLongB)
		near(t, "delong variance", gap.Variance, g.DeLongVariance)
		half := z95 * math.Sqrt(g.DeLongVariance)
		near(t, "lower", gap.Lower, g.AUCB-g.AUCA-half)
		near(t, "upper", gap.Upper, g.AUCB-g.AUCA+half)
		near(t, "brier variance", Compare(MetricBrier, pairs).Variance, g.BrierVariance)
		near(t, "log loss variance", Compare(MetricLogLoss, pairs).Variance, g.LogLossVariance)
	}
}

func TestDriftAgreesWithScipy(t *testing.T) {
	t.Parallel()
	g := readGolden(t)
	for _, h := range g.Histograms {
		near(t, "psi", PSI(h.P, h.Q), h.PSI)
		near(t, "js", JS(h.P, h.Q), h.JS)
	}
	column := make([]float64, len(g.Binned.Column))
	for i, v := range g.Binned.Column {
		column[i] = math.NaN()
		if v != nil {
			column[i] = *v
		}
	}
	counts, nulls := FeatureProfile{Kind: Numeric, Edges: g.Binned.Edges}.count(column)
	if d := cmp.Diff(g.Binned.Counts, counts); d != "" || nulls != g.Binned.Nulls {
		t.Errorf("nulls %d, want %d; %s", nulls, g.Binned.Nulls, d)
	}
}

func TestLatencyQuantilesAreWithinABucketOfNumpys(t *testing.T) {
	t.Parallel()
	g := readGolden(t).Latency
	var whole, a, b Latency
	for i, us := range g.US {
		d := time.Duration(us) * time.Microsecond
		whole.Add(d)
		if i%3 == 0 {
			a.Add(d)
		} else {
			b.Add(d)
		}
	}
	a.Merge(&b)
	read, rest, ok := readLatency(a.AppendBinary(nil))
	if !ok || len(rest) != 0 || read.Count() != uint64(len(g.US)) || read.Sum() != whole.Sum() {
		t.Fatal("binary form lost something", ok, len(rest), read.Count())
	}
	for q, want := range map[float64]float64{0.5: g.Quantiles["0.5"], 0.9: g.Quantiles["0.9"], 0.99: g.Quantiles["0.99"]} {
		for _, l := range []*Latency{&whole, &a, &read} {
			if got := float64(l.Quantile(q).Microseconds()); math.Abs(got-want) > 0.0625*want {
				t.Errorf("quantile %v = %v us, numpy says %v", q, got, want)
			}
		}
	}
}

func TestLatencyBucketsAreContiguous(t *testing.T) {
	t.Parallel()
	for i := range latencyBuckets {
		lo := bucketFloor(i)
		if bucketOf(lo) != i {
			t.Fatalf("bucket %d starts at %v, which falls into %d", i, lo, bucketOf(lo))
		}
		if i > 0 && bucketOf(lo-time.Microsecond) != i-1 {
			t.Fatalf("hole below bucket %d", i)
		}
	}
	if bucketOf(time.Hour) != latencyBuckets-1 || bucketOf(-time.Second) != 0 {
		t.Fatal("the outer buckets do not hold everything")
	}
}

func TestDamagedHistogramIsRefused(t *testing.T) {
	t.Parallel()
	var l Latency
	for i := range 200 {
		l.Add(time.Duration(i*i) * time.Microsecond)
	}
	b := l.AppendBinary(nil)
	for i := range b {
		if _, rest, ok := readLatency(b[:i]); ok && len(rest) == 0 {
			t.Fatalf("cut at %d of %d accepted", i, len(b))
		}
	}
}

// The AUC by its definition, all pairs.
func aucByPairs(rows []Scored) float64 {
	wins, n := 0.0, 0.0
	for _, p := range rows {
		for _, q := range rows {
			if p.Label == 1 && q.Label == 0 {
				n++
				if p.Score > q.Score {
					wins++
				} else if p.Score == q.Score {
					wins += 0.5
				}
			}
		}
	}
	return wins / n
}

func TestAUCIsTheShareOfOrderedPairs(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 60).Draw(t, "n")
		rows := make([]Scored, n)
		for i := range rows { // few distinct scores: many ties
			rows[i] = Scored{float64(rapid.IntRange(0, 7).Draw(t, "s")) / 8, float64(rapid.IntRange(0, 1).Draw(t, "y"))}
		}
		rows[0].Label, rows[1].Label = 0, 1
		got, want := AUC(rows), aucByPairs(rows)
		if math.Abs(got.Value-want) > 1e-12 {
			t.Fatalf("%v, want %v", got, want)
		}
		flipped := make([]Scored, n)
		for i, r := range rows {
			flipped[i] = Scored{-3 * r.Score, r.Label}
		}
		if f := AUC(flipped); math.Abs(f.Value-(1-want)) > 1e-12 {
			t.Fatalf("reversed order gives %v, want %v", f, 1-want)
		}
	})
}

func TestGapIsAntisymmetricAndZeroAgainstItself(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(4, 80).Draw(t, "n")
		ab, ba, aa := make([]Pair, n), make([]Pair, n), make([]Pair, n)
		for i := range ab {
			a, b := rapid.Float64Range(0, 1).Draw(t, "a"), rapid.Float64Range(0, 1).Draw(t, "b")
			y := float64(i % 2)
			ab[i], ba[i], aa[i] = Pair{a, b, y}, Pair{b, a, y}, Pair{a, a, y}
		}
		for _, m := range []string{MetricAUC, MetricBrier, MetricLogLoss} {
			x, y, self := Compare(m, ab), Compare(m, ba), Compare(m, aa)
			if math.Abs(x.Diff.Value+y.Diff.Value) > 1e-12 || math.Abs(x.Lower.Value+y.Upper.Value) > 1e-9 || x.Variance.Value < 0 {
				t.Fatalf("%s: %+v against %+v", m, x, y)
			}
			if self.Diff.Value != 0 || self.Lower.Value != 0 || self.Upper.Value != 0 {
				t.Fatalf("%s: a model differs from itself: %+v", m, self)
			}
		}
	})
}

func TestBoundsCoverTheTruth(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 11))
	const trials = 400
	covered := 0
	for range trials { // both models see the same signal through equal noise: the true gap is 0
		pairs := make([]Pair, 300)
		for i := range pairs {
			y := float64(rng.IntN(2))
			pairs[i] = Pair{y + 2*rng.NormFloat64(), y + 2*rng.NormFloat64(), y}
		}
		if g := Compare(MetricAUC, pairs); g.Lower.Value <= 0 && g.Upper.Value >= 0 {
			covered++
		}
	}
	if share := float64(covered) / trials; share < 0.92 || share > 0.98 {
		t.Fatalf("95 %% bounds cover the truth in %.3f of the trials", share)
	}
}

func TestNothingUsableGivesReasonsAndValidJSON(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	cases := map[string][]Scored{
		"empty":     nil,
		"one class": {{0.1, 1}, {0.4, 1}},
		"nan label": {{0.1, nan}, {0.4, nan}},
		"nan score": {{nan, 1}, {math.Inf(1), 0}},
	}
	for name, rows := range cases {
		q := Measure(rows)
		low, high := q.Interval(MetricAUC)
		if q.AUC.Defined() || low.Defined() || high.Defined() {
			t.Errorf("%s: AUC %v [%v, %v]", name, q.AUC, low, high)
		}
		pairs := make([]Pair, len(rows))
		for i, r := range rows {
			pairs[i] = Pair{r.Score, r.Score, r.Label}
		}
		for _, v := range []any{q, Compare(MetricAUC, pairs), Compare("f1", pairs), Compare(MetricBrier, pairs)} {
			b, err := json.Marshal(v)
			if err != nil || !strings.Contains(string(b), "undefined") && name != "one class" {
				t.Errorf("%s: %s %v", name, b, err)
			}
		}
	}
	q := Measure([]Scored{{0.1, 0}, {0.9, 1}, {0.5, nan}, {nan, 1}, {0.5, 3}})
	if q.Rows != 2 || q.Skipped != (Skipped{Labels: 2, Scores: 1}) || q.AUC.Value != 1 {
		t.Errorf("%+v", q)
	}
	if g := Compare(MetricAUC, []Pair{{0.1, 0.2, 0}, {0.3, 0.4, 1}}); g.Lower.Defined() || !g.Diff.Defined() {
		t.Errorf("one row a class has no variance: %+v", g)
	}
	var back Figure
	b, _ := json.Marshal(Figure{Value: nan})
	if err := json.Unmarshal(b, &back); err != nil || back.Defined() {
		t.Errorf("%s %v %v", b, back, err)
	}
}

func TestDriftIsWeighedByImportance(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	n := 4000
	season, steady, moved, same := make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n)
	for i := range n {
		season[i], moved[i] = rng.NormFloat64(), 5+rng.NormFloat64()
		steady[i], same[i] = rng.NormFloat64(), rng.NormFloat64()
	}
	ref := Profile{Rows: int64(n), Features: []FeatureProfile{ProfileNumeric("temp", season), ProfileNumeric("delay", steady)}}
	for _, m := range []string{MethodPSI, MethodJS} {
		even := MeasureDrift(m, ref, [][]float64{moved, same}, nil)
		weighed := MeasureDrift(m, ref, [][]float64{moved, same}, []float64{1, 99})
		if !(weighed.Score.Value < even.Score.Value/10) || even.Features[0].JS.Value < 0.8 || even.Features[1].PSI.Value > 0.02 {
			t.Errorf("%s: even %v weighed %v", m, even.Score, weighed.Score)
		}
	}
	if d := MeasureDrift(MethodJS, ref, [][]float64{nil, nil}, nil); d.Score.Defined() || d.Rows != 0 {
		t.Errorf("an empty window drifts: %+v", d.Score)
	}
	if d := MeasureDrift("ks", ref, [][]float64{moved, same}, nil); d.Score.Defined() {
		t.Errorf("an unknown method scores: %+v", d.Score)
	}
}

func TestNullsAndUnseenValuesAreBinsOfTheirOwn(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	p := ProfileCategorical("carrier", []float64{1, 1, 2, 3, nan})
	if d := cmp.Diff(FeatureProfile{Name: "carrier", Kind: Categorical, Values: []string{"1", "2", "3"}, Counts: []int64{2, 1, 1, 0}, Nulls: 1}, p); d != "" {
		t.Fatal(d)
	}
	ref := Profile{Rows: 5, Features: []FeatureProfile{p}}
	d := MeasureDrift(MethodJS, ref, [][]float64{{9, 9, nan, nan}}, nil)
	if diff := cmp.Diff([]int64{0, 0, 0, 2, 2}, d.Features[0].Window); diff != "" || d.Features[0].WindowNull.Value != 0.5 {
		t.Fatal(diff, d.Features[0].WindowNull)
	}
	one := ProfileNumeric("constant", []float64{4, 4, 4})
	if len(one.Edges) != 0 || !slices.Equal(one.Counts, []int64{3}) {
		t.Fatalf("%+v", one)
	}
	if none := ProfileNumeric("empty", []float64{nan}); !slices.Equal(none.Counts, []int64{0}) || none.Nulls != 1 {
		t.Fatalf("%+v", none)
	}
}

func TestDriftProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		k := rapid.IntRange(1, 12).Draw(t, "k")
		p, q := make([]int64, k), make([]int64, k)
		for i := range k {
			p[i], q[i] = int64(rapid.IntRange(0, 50).Draw(t, "p")), int64(rapid.IntRange(0, 50).Draw(t, "q"))
		}
		p[0]++
		q[k-1]++
		js, psi := JS(p, q), PSI(p, q)
		if js.Value < 0 || js.Value > 1 || math.Abs(js.Value-JS(q, p).Value) > 1e-12 || psi.Value < 0 || math.Abs(psi.Value-PSI(q, p).Value) > 1e-9 {
			t.Fatalf("js %v psi %v", js, psi)
		}
		if JS(p, p).Value > 1e-7 || PSI(p, p).Value != 0 {
			t.Fatal("a histogram drifts from itself")
		}
	})
}

func BenchmarkCompareAUC14Days(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	pairs := make([]Pair, 13000)
	for i := range pairs {
		y := float64(rng.IntN(2))
		pairs[i] = Pair{y + rng.NormFloat64(), y + rng.NormFloat64(), y}
	}
	for b.Loop() {
		Compare(MetricAUC, pairs)
	}
}

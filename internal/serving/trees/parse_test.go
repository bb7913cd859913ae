package trees_test

import (
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"falaj/internal/serving/trees"
)

func read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func parse(t testing.TB, name string) *trees.Model {
	t.Helper()
	m, err := trees.Parse(strings.NewReader(read(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// small is a model of two leaves that the cases below damage.
const small = `tree
version=v4
num_class=1
num_tree_per_iteration=1
label_index=0
max_feature_idx=1
objective=regression
feature_names=a b
feature_infos=[0:1] [0:1]
tree_sizes=100

Tree=0
num_leaves=3
num_cat=0
split_feature=0 1
split_gain=1 2
threshold=0.5 1.5
decision_type=2 10
left_child=1 -1
right_child=-3 -2
leaf_value=10 20 30
leaf_weight=1 1 1
leaf_count=1 1 1
internal_value=0 0
internal_weight=0 0
internal_count=3 2
is_linear=0
shrinkage=1


end of trees

parameters:
[boosting: gbdt]
end of parameters

pandas_categorical:null
`

func TestSmall(t *testing.T) {
	t.Parallel()
	m, err := trees.Parse(strings.NewReader(strings.ReplaceAll(small, "\n", "\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	nan := math.NaN()
	for _, c := range [][3]float64{{0, 1, 10}, {0, 2, 20}, {1, 0, 30}, {nan, 1, 10}, {0, nan, 10}, {0.5, 1.5, 10}} {
		out := make([]float64, 1)
		if m.Predict(c[:2], out); out[0] != c[2] {
			t.Errorf("Predict(%v) = %v, want %v", c[:2], out[0], c[2])
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, old, new string
		want           error
		says           string
	}{
		{"version", "version=v4", "version=v2", trees.ErrUnsupported, "version"},
		{"no version", "version=v4\n", "", trees.ErrUnsupported, "version"},
		{"objective", "objective=regression", "objective=ranknet", trees.ErrUnsupported, "ranknet"},
		{"objective option", "objective=regression", "objective=regression cube", trees.ErrUnsupported, "cube"},
		{"objective option twice", "objective=regression", "objective=binary sigmoid:1 sigmoid:2", trees.ErrUnsupported, "sigmoid"},
		{"objective sqrt elsewhere", "objective=regression", "objective=poisson sqrt", trees.ErrUnsupported, "sqrt"},
		{"binary without sigmoid", "objective=regression", "objective=binary", trees.ErrUnsupported, "sigmoid"},
		{"empty objective", "objective=regression", "objective=", trees.ErrUnsupported, "objective"},
		{"classes", "objective=regression", "objective=multiclass num_class:3", trees.ErrUnsupported, "num_class"},
		{"header key", "label_index=0", "label_index=0\nmystery=1", trees.ErrUnsupported, "mystery"},
		{"tree key", "is_linear=0", "is_linear=0\nmystery=1", trees.ErrUnsupported, "mystery"},
		{"linear", "is_linear=0", "is_linear=1", trees.ErrUnsupported, "is_linear"},
		{"categorical", "num_cat=0", "num_cat=1", trees.ErrUnsupported, "num_cat"},
		{"categorical bit", "decision_type=2 10", "decision_type=2 11", trees.ErrUnsupported, "decision_type"},
		{"missing type 3", "decision_type=2 10", "decision_type=2 14", trees.ErrUnsupported, "decision_type"},
		{"unknown bits", "decision_type=2 10", "decision_type=2 18", trees.ErrUnsupported, "decision_type"},
		{"average with a value", "objective=regression", "objective=regression\naverage_output=2", trees.ErrUnsupported, "average_output"},
		{"pandas categories", "pandas_categorical:null", `pandas_categorical:[["a","b"]]`, trees.ErrUnsupported, "pandas_categorical"},
		{"trailer", "parameters:", "surprise:", trees.ErrUnsupported, "surprise"},
		{"classes apart", "num_class=1", "num_class=3", trees.ErrUnsupported, "num_tree_per_iteration"},

		{"not a model", "tree\n", "PK\x03\x04", trees.ErrMalformed, "first line"},
		{"cycle", "left_child=1 -1", "left_child=1 0", trees.ErrMalformed, "twice"},
		{"cycle beside the root", "left_child=1 -1\nright_child=-3 -2", "left_child=-1 1\nright_child=-3 -2", trees.ErrMalformed, "reached"},
		{"shared leaf", "right_child=-3 -2", "right_child=-3 -1", trees.ErrMalformed, "twice"},
		{"child out of range", "left_child=1 -1", "left_child=2 -1", trees.ErrMalformed, "left_child"},
		{"leaf out of range", "left_child=1 -1", "left_child=1 -4", trees.ErrMalformed, "left_child"},
		{"feature out of range", "split_feature=0 1", "split_feature=0 2", trees.ErrMalformed, "split_feature"},
		{"negative feature", "split_feature=0 1", "split_feature=0 -1", trees.ErrMalformed, "split_feature"},
		{"few thresholds", "threshold=0.5 1.5", "threshold=0.5", trees.ErrMalformed, "threshold"},
		{"many thresholds", "threshold=0.5 1.5", "threshold=0.5 1.5 2.5", trees.ErrMalformed, "threshold"},
		{"NaN threshold", "threshold=0.5 1.5", "threshold=0.5 nan", trees.ErrMalformed, "nan"},
		{"hex number", "threshold=0.5 1.5", "threshold=0.5 0x1p1", trees.ErrMalformed, "0x1p1"},
		{"overflow", "threshold=0.5 1.5", "threshold=0.5 1e999", trees.ErrMalformed, "1e999"},
		{"infinite leaf", "leaf_value=10", "leaf_value=inf", trees.ErrMalformed, "leaf_value"},
		{"leaves", "num_leaves=3", "num_leaves=4", trees.ErrMalformed, "leaf_value"},
		{"huge leaves", "num_leaves=3", "num_leaves=2000000000", trees.ErrMalformed, "num_leaves"},
		{"no leaves", "num_leaves=3", "num_leaves=0", trees.ErrMalformed, "num_leaves"},
		{"huge features", "max_feature_idx=1", "max_feature_idx=2000000000", trees.ErrMalformed, "max_feature_idx"},
		{"names", "feature_names=a b", "feature_names=a b c", trees.ErrMalformed, "feature_names"},
		{"key twice", "num_cat=0", "num_cat=0\nnum_cat=0", trees.ErrMalformed, "num_cat"},
		{"key missing", "threshold=0.5 1.5\n", "", trees.ErrMalformed, "threshold"},
		{"a tree less", "tree_sizes=100", "tree_sizes=100 100", trees.ErrMalformed, "tree_sizes"},
		{"a tree more", "Tree=0", "Tree=1", trees.ErrMalformed, "Tree=0"},
		{"no trees", "tree_sizes=100", "tree_sizes=", trees.ErrMalformed, "tree_sizes"},
		{"parameters cut off", "end of parameters\n\npandas_categorical:null\n", "", trees.ErrMalformed, "parameters"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(small, c.old) {
				t.Fatalf("the model does not hold %q", c.old)
			}
			m, err := trees.Parse(strings.NewReader(strings.Replace(small, c.old, c.new, 1)))
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || m != nil {
				t.Fatalf("Parse: %v, want %v saying %q", err, c.want, c.says)
			}
		})
	}
}

// TestCutOff cuts a real model at every byte: only cuts after the last tree and outside the parameters may parse.
func TestCutOff(t *testing.T) {
	t.Parallel()
	text := read(t, "binary.txt")
	end := strings.Index(text, "end of trees\n") + len("end of trees")
	for i := range end {
		if m, err := trees.Parse(strings.NewReader(text[:i])); !errors.Is(err, trees.ErrMalformed) && !errors.Is(err, trees.ErrUnsupported) || m != nil {
			t.Fatalf("cut at byte %d of %d parsed: %v", i, end, err)
		}
	}
}

func TestLongLine(t *testing.T) {
	t.Parallel()
	long := io.MultiReader(strings.NewReader("tree\nfeature_names="), io.LimitReader(spaces{}, 80<<20))
	if _, err := trees.Parse(long); !errors.Is(err, trees.ErrMalformed) {
		t.Fatalf("a line of 80 MiB: %v", err)
	}
	broken := errors.New("disk on fire")
	if _, err := trees.Parse(io.MultiReader(strings.NewReader("tree\n"), failing{broken})); !errors.Is(err, broken) {
		t.Fatalf("the reader's error became %v", err)
	}
}

type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestPredictAllocates(t *testing.T) {
	for _, name := range []string{"binary.txt", "multiclass.txt", "rf_multiclass.txt", "poisson.txt"} {
		m := parse(t, name)
		x, out := make([]float64, 100*m.NumFeatures()), make([]float64, 100*m.NumOutputs())
		if n := testing.AllocsPerRun(100, func() { m.Predict(x, out) }); n != 0 {
			t.Errorf("%s: Predict allocates %v times", name, n)
		}
		if n := testing.AllocsPerRun(10, func() { m.PredictBatch(x, 100, out) }); n != 0 {
			t.Errorf("%s: PredictBatch allocates %v times", name, n)
		}
	}
}

// FuzzParse: whatever parses must predict without a panic, end, and give the same bits one by one and in a batch.
func FuzzParse(f *testing.F) {
	f.Add([]byte(small), 0.5)
	for _, name := range []string{"multiclass.txt", "zero_as_missing.txt", "constant.txt", "rf.txt", "refuse_num_cat.txt", "refuse_is_linear.txt"} {
		f.Add([]byte(read(f, name)), math.NaN())
	}
	f.Fuzz(func(t *testing.T, data []byte, v float64) {
		m, err := trees.Parse(strings.NewReader(string(data)))
		if err != nil {
			if !errors.Is(err, trees.ErrMalformed) && !errors.Is(err, trees.ErrUnsupported) {
				t.Fatalf("unclassified error %v", err)
			}
			return
		}
		x := make([]float64, 2*m.NumFeatures())
		for i := range x {
			x[i] = v * float64(i%3-1)
		}
		one, batch := make([]float64, m.NumOutputs()), make([]float64, 2*m.NumOutputs())
		m.PredictBatch(x, 2, batch)
		for r := range 2 {
			m.Predict(x[r*m.NumFeatures():(r+1)*m.NumFeatures()], one)
			for i, y := range one {
				if math.Float64bits(y) != math.Float64bits(batch[r*len(one)+i]) && !(y != y && batch[r*len(one)+i] != batch[r*len(one)+i]) {
					t.Fatalf("row %d: %v one by one, %v in a batch", r, one, batch)
				}
			}
		}
	})
}

// BenchmarkPredict measures the model of the reference table when its file is named (200 trees x 31 leaves, 20 features), else a small one.
func BenchmarkPredict(b *testing.B) {
	m := parse(b, "binary.txt")
	if path := os.Getenv("FALAJ_BENCH_MODEL"); path != "" {
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		if m, err = trees.Parse(f); err != nil {
			b.Fatal(err)
		}
	}
	const rows = 1024
	x, out := make([]float64, rows*m.NumFeatures()), make([]float64, rows*m.NumOutputs())
	for i := range x {
		x[i] = math.Sin(float64(i)*1.7) * 2
	}
	b.Run("row", func(b *testing.B) {
		w := m.NumFeatures()
		for i := range b.N {
			r := i % rows
			m.Predict(x[r*w:r*w+w], out)
		}
	})
	b.Run("batch1024", func(b *testing.B) {
		for range b.N {
			m.PredictBatch(x, rows, out)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/rows, "ns/row")
	})
}

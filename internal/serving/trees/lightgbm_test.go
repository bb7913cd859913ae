package trees_test

import (
	"bytes"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"falaj/internal/serving/python/pythontest"
	"falaj/internal/serving/trees"
)

// tolerance is the largest absolute difference from LightGBM; for outputs above 1 (exp) it is relative.
const tolerance = 1e-12

// TestGolden checks the committed models; `generate.py testdata 1 12 3` made them.
func TestGolden(t *testing.T) {
	t.Parallel()
	checkDir(t, "testdata", 33)
}

// TestAgainstLightGBM trains new models with the real LightGBM and compares every output. FALAJ_SOAK=1 takes more seeds and bigger models.
func TestAgainstLightGBM(t *testing.T) {
	t.Parallel()
	python := pythontest.Python(t, pythontest.LightGBM)
	seeds, rows, rounds := 3, "200", "30"
	if os.Getenv("FALAJ_SOAK") != "" {
		seeds, rows, rounds = 30, "1000", "100"
	}
	for seed := range seeds {
		dir := t.TempDir()
		cmd := exec.Command(python, "testdata/generate.py", dir, strconv.Itoa(100+seed), rows, rounds)
		cmd.Env = append(os.Environ(), "OMP_NUM_THREADS=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("generate.py: %v\n%s", err, out)
		}
		checkDir(t, dir, 32)
	}
}

func checkDir(t *testing.T, dir string, want int) {
	t.Helper()
	models, err := filepath.Glob(filepath.Join(dir, "*.rows"))
	if err != nil {
		t.Fatal(err)
	}
	if len(models) != want {
		t.Fatalf("%s holds %d models, want %d", dir, len(models), want)
	}
	worst := 0.0
	for _, rows := range models {
		worst = max(worst, checkModel(t, strings.TrimSuffix(rows, ".rows")))
	}
	t.Logf("%s: %d models, largest difference %g", dir, len(models), worst)
	refused, err := filepath.Glob(filepath.Join(dir, "refuse_*.txt"))
	if err != nil || len(refused) != 2 {
		t.Fatalf("refused models: %v, %v", refused, err)
	}
	for _, path := range refused {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = trees.Parse(f)
		f.Close()
		var u *trees.UnsupportedError
		// The two kinds of model carry several keys of their own; the message must name one of them.
		keys := map[string][]string{
			"refuse_num_cat.txt":   {"num_cat", "cat_boundaries", "cat_threshold"},
			"refuse_is_linear.txt": {"is_linear", "leaf_const", "num_features", "leaf_features", "leaf_coeff"},
		}[filepath.Base(path)]
		if !errors.Is(err, trees.ErrUnsupported) || !errors.As(err, &u) || !slices.Contains(keys, u.Key) || !strings.Contains(err.Error(), u.Key) {
			t.Errorf("%s: error %v, want ErrUnsupported naming one of %v", path, err, keys)
		}
	}
}

func checkModel(t *testing.T, name string) float64 {
	t.Helper()
	f, err := os.Open(name + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := trees.Parse(f)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return 0
	}
	data, err := os.ReadFile(name + ".rows")
	if err != nil {
		t.Fatal(err)
	}
	var all, want []float64
	worst, n := 0.0, 0
	got := make([]float64, m.NumOutputs())
	for line := range bytes.Lines(data) {
		if kind, ok := bytes.CutPrefix(line, []byte("# ")); ok {
			word, values, _ := bytes.Cut(kind, []byte(" "))
			imp := map[string][]float64{"gain": m.Importance().Gain, "split": m.Importance().Split}[string(word)]
			compare(t, name+" importance "+string(word), imp, numbers(t, values))
			continue
		}
		in, out, _ := bytes.Cut(line, []byte("|"))
		x, y := numbers(t, in), numbers(t, out)
		if len(x) != m.NumFeatures() || len(m.FeatureNames()) != len(x) {
			t.Fatalf("%s: %d features, model has %d", name, len(x), m.NumFeatures())
		}
		m.Predict(x, got)
		worst = max(worst, compare(t, name, got, y))
		all, want, n = append(all, x...), append(want, y...), n+1
	}
	if n < 10 {
		t.Fatalf("%s: only %d rows", name, n)
	}
	batch := make([]float64, n*m.NumOutputs())
	m.PredictBatch(all, n, batch)
	compare(t, name+" batch", batch, want)
	return worst
}

func compare(t *testing.T, name string, got, want []float64) float64 {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d outputs, LightGBM gives %d", name, len(got), len(want))
		return 0
	}
	worst := 0.0
	for i := range got {
		d := math.Abs(got[i]-want[i]) / max(1, math.Abs(want[i]))
		if !(d <= tolerance) {
			t.Errorf("%s: output %d is %v, LightGBM gives %v", name, i, got[i], want[i])
		}
		worst = max(worst, d)
	}
	return worst
}

func numbers(t *testing.T, text []byte) []float64 {
	t.Helper()
	var out []float64
	for f := range bytes.FieldsSeq(text) {
		v, err := strconv.ParseFloat(string(f), 64)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

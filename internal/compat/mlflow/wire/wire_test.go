package wire

import (
	"encoding/json"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"falaj/internal/kernel/fault"
)

// sameFloat compares by bits' meaning: NaN is NaN.
func sameFloat() cmp.Option {
	return cmp.Comparer(func(a, b Float) bool { return a == b || math.IsNaN(float64(a)) && math.IsNaN(float64(b)) })
}

func ptr[T any](v T) *T { return &v }

func TestMetricsReadThemselves(t *testing.T) {
	t.Parallel()
	got := Metrics{}
	err := json.Unmarshal([]byte(` [ {"key" : "a\u00fc", "value": 1, "timestamp": "5", "other": {"x": [1, "]"]}, "step" : -3 } , {"value":"NaN","key":"b","modelId":"m-1","timestamp":null}, {} ] `), &got)
	want := Metrics{{Key: "aü", Value: ptr(Float(1)), Timestamp: ptr(Int(5)), Step: -3}, {Key: "b", Value: ptr(Float(math.NaN())), ModelID: "m-1"}, {}}
	if d := cmp.Diff(want, got, sameFloat()); err != nil || d != "" {
		t.Error(err, d)
	}
	for _, bad := range []string{`{}`, `[1]`, `[[]]`, `[{"key": 1}]`, `[{"value": "x"}]`, `[{"timestamp": 1.5}]`, `["a"]`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

// The hand-written reader agrees with encoding/json on everything that is JSON.
func FuzzMetrics(f *testing.F) {
	for _, s := range []string{`[]`, `[{"key":"a","value":1.5,"timestamp":1,"step":2}]`, `[{"x":{"y":["}"]},"key":"\""}]`, `null`, `[{}, {"value":null}]`, ` [ {"value" : 1e5 , "key":"" } ]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !json.Valid([]byte(s)) {
			return
		}
		var mine Metrics
		var std []Metric
		e1, e2 := json.Unmarshal([]byte(s), &mine), json.Unmarshal([]byte(s), &std)
		if e1 != nil || e2 != nil {
			return // both refuse or one is stricter on names in other case; values must agree when both accept
		}
		if strings.ToLower(s) != s || strings.Contains(s, `\u`) {
			return // encoding/json ignores the case of names, MLflow does not
		}
		if d := cmp.Diff([]Metric(mine), std, sameFloat(), cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("%s: %s", s, d)
		}
	})
}

// Any body gives a value or a refusal of the caller's, never a failure of ours.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"run_id": "a", "metrics": [{"key": "x"}]}`, `"{\"run_id\": \"b\"}"`, `{"run_id": NaN}`, `[`, `{"runId": 1}`, `{"run_id": "\u0000"}`, `{"params": {"a": 1}, "tags": [[]]}`, "\xff"} {
		f.Add(s)
	}
	rules := Rules()
	f.Fuzz(func(t *testing.T, s string) {
		for name, into := range map[string]any{"runs/log-batch": &LogBatch{}, "runs/log-metric": &LogMetric{}, "runs/search": &SearchRuns{}, "experiments/create": &CreateExperiment{}, "logged-models/search": &SearchLoggedModels{}} {
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(s))
			r.Header.Set("Content-Type", "application/json")
			if err := Decode(r, rules[name], into); err != nil && fault.KindOf(err) != fault.Invalid {
				t.Fatalf("%s %q: %v", name, s, err)
			}
		}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.RawQuery = s
		if err := Decode(r, rules["metrics/get-history"], &GetHistory{}); err != nil && fault.KindOf(err) != fault.Invalid {
			t.Fatalf("%q: %v", s, err)
		}
	})
}

func TestBarePythonNumbers(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"a": NaN, "b": [-Infinity, Infinity], "c": "NaN \" Infinity"}`: `{"a": "NaN", "b": ["-Infinity", "Infinity"], "c": "NaN \" Infinity"}`,
		`{"NaN": 1}`: `{"NaN": 1}`,
	} {
		if got := string(pythonNumbers([]byte(in))); got != want {
			t.Errorf("%s became %s", in, got)
		}
	}
}

func TestFloatsLeaveAsPythonWritesThem(t *testing.T) {
	t.Parallel()
	for f, want := range map[Float]string{1: "1.0", 0.1: "0.1", 1e300: "1e+300", -2.5: "-2.5", Float(math.Inf(-1)): `"-Infinity"`} {
		if b, err := json.Marshal(f); err != nil || string(b) != want {
			t.Errorf("%g became %s, %v", float64(f), b, err)
		}
	}
}

package data_test

import (
	"sync"
	"testing"

	"falaj/internal/data"
)

// both runs fn twice at once.
func both(t *testing.T, fn func() (*data.Report, error)) [2]*data.Report {
	t.Helper()
	var out [2]*data.Report
	var errs [2]error
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range 2 {
		wg.Go(func() {
			<-start
			out[i], errs[i] = fn()
		})
	}
	close(start)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// Two pipeline runs of one dataset at once: one makes the version, the other waits and finds nothing new.
func TestTwoRunsAtOnce(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.define(t, flights())
		w.define(t, data.Spec{Name: "daily", SQL: "SELECT origin, count(*) AS n FROM flights GROUP BY origin", Key: []string{"origin"}})
		check := func(got [2]*data.Report, dataset string, n int64) {
			t.Helper()
			if got[0].New == got[1].New || got[0].Version.ID != got[1].Version.ID || got[0].Version.N != n {
				t.Errorf("%s: %+v and %+v", dataset, got[0], got[1])
			}
			if all, err := w.Versions(w.ctx, "flights", dataset, 0, 10); err != nil || len(all) != int(n) {
				t.Errorf("%d versions of %s, %v", len(all), dataset, err)
			}
		}
		for n, text := range []string{month(1, 200), month(2, 200)} {
			w.add(t, "flights", []string{"a.csv", "b.csv"}[n], text)
			check(both(t, func() (*data.Report, error) { return w.Ingest(w.ctx, "flights", "flights", data.IngestRequest{}) }), "flights", int64(n+1))
			check(both(t, func() (*data.Report, error) { return w.Derive(w.ctx, "flights", "daily", data.DeriveRequest{}) }), "daily", int64(n+1))
		}
	})
}

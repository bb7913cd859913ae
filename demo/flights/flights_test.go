// Package flights_test holds the demo project to its own words: its SQL runs in falaj's data engine, and the instants it derives agree with the clock readings that the published file has and the SQL never uses.
package flights_test

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"falaj/internal/data"
	"falaj/internal/data/duckdb"
	"falaj/internal/data/duckdb/worker"
)

// TestMain lets the test binary be the engine's worker.
func TestMain(m *testing.M) {
	if strings.Join(os.Args[1:min(3, len(os.Args))], " ") == "worker duckdb" {
		os.Exit(worker.Main())
	}
	os.Exit(m.Run())
}

// zones of the destinations in testdata/flights.csv: real rows around both changes of the clock, over midnight, over
// four zones, cancelled and diverted.
var zones = map[string]string{
	"IAH": "America/Chicago", "BQN": "America/Puerto_Rico", "SJU": "America/Puerto_Rico", "MCO": "America/New_York", "LAX": "America/Los_Angeles",
	"ORD": "America/Chicago", "XNA": "America/Chicago", "PHX": "America/Phoenix", "HNL": "Pacific/Honolulu", "ANC": "America/Anchorage", "DEN": "America/Denver",
}

type flight struct {
	Carrier    string     `json:"carrier"`
	Flight     int        `json:"flight"`
	Dest       string     `json:"dest"`
	SchedDepAt time.Time  `json:"sched_dep_at"`
	DepAt      *time.Time `json:"dep_at"`
	ArrAt      *time.Time `json:"arr_at"`
	Hour       int        `json:"hour"`
}

func TestInstantsAgreeWithTheClocks(t *testing.T) {
	t.Parallel()
	e, err := duckdb.New(duckdb.Config{Scratch: filepath.Join(t.TempDir(), "scratch")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	room, err := e.Room(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = room.Close() })
	text, err := os.ReadFile("testdata/flights.csv")
	if err != nil {
		t.Fatal(err)
	}
	derive, err := os.ReadFile("sql/flights.sql")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(room.Path("flights.csv"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := e.Ingest(t.Context(), data.IngestJob{
		Dir: room.Dir, Path: room.Path("flights.csv"), Name: "flights.csv", Format: data.CSV, Null: []string{"NA"}, Derive: string(derive), DeriveRef: "sql/flights.sql",
		Key: []string{"carrier", "flight", "origin", "sched_dep_at"}, Time: data.Time{Event: "sched_dep_at", Known: "arr_at"},
		Out: room.Path("out.parquet"), Bad: room.Path("bad.parquet"),
	})
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(strings.NewReader(string(text))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if !got.Accepted || got.Good != int64(len(rows)-1) {
		t.Fatalf("%+v of %d rows", got, len(rows)-1)
	}
	read, err := e.Query(t.Context(), data.QueryJob{Dir: room.Dir, SQL: "SELECT * FROM t", Inputs: map[string]data.Input{"t": {Files: []string{room.Path("out.parquet")}}}, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	derived := map[string]flight{}
	for _, raw := range read.Rows {
		var f flight
		if err := json.Unmarshal(raw, &f); err != nil {
			t.Fatal(err)
		}
		derived[f.Carrier+strconv.Itoa(f.Flight)+f.SchedDepAt.In(zone(t, "America/New_York")).Format("0102")] = f
	}
	column := map[string]int{}
	for i, name := range rows[0] {
		column[name] = i
	}
	for _, row := range rows[1:] {
		at := func(name string) string { return row[column[name]] }
		num := func(name string) int { n, _ := strconv.Atoi(at(name)); return n }
		id := at("carrier") + at("flight") + time.Date(2013, time.Month(num("month")), num("day"), 0, 0, 0, 0, time.UTC).Format("0102")
		f, ok := derived[id]
		if !ok {
			t.Errorf("%s is missing", id)
			continue
		}
		if hour := f.SchedDepAt.UTC().Truncate(time.Hour).Format(time.RFC3339); hour != at("time_hour") || f.Hour != num("hour") {
			t.Errorf("%s: scheduled at %s, hour %d; the file says %s, hour %s", id, hour, f.Hour, at("time_hour"), at("hour"))
		}
		clock(t, id+" departure", f.DepAt, zone(t, "America/New_York"), at("dep_time"), at("dep_delay"))
		clock(t, id+" arrival", f.ArrAt, zone(t, zones[f.Dest]), at("arr_time"), at("arr_delay"))
	}
}

// clock compares an instant with the reading of a local clock; without a delay there must be no instant.
func clock(t *testing.T, what string, at *time.Time, in *time.Location, reading, delay string) {
	t.Helper()
	switch {
	case delay == "NA" && at == nil:
	case delay == "NA" || at == nil:
		t.Errorf("%s: instant %v for delay %s", what, at, delay)
	default:
		n, _ := strconv.Atoi(reading)
		if local := at.In(in); local.Hour()*100+local.Minute() != n {
			t.Errorf("%s: %s, the clock there said %s", what, local.Format(time.RFC3339), reading)
		}
	}
}

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	l, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

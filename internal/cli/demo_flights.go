package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a machine in a closed building may have no time zones

	"falaj/demo"
	"falaj/internal/kernel/fault"
)

// flight is what the replay sends of one flight. Times are microseconds UTC.
type flight struct {
	at        int64 // when it is predicted: on the hour, 60 to 119 minutes ahead
	scheduled int64
	known     int64 // when it arrived; 0: it never did, so nobody knows the label
	late      bool
	distance  int
	hour      int
	weekday   int
	number    int
	carrier   string
	origin    string
	dest      string
}

// unit names a flight for ever: the key of the dataset.
func (f *flight) unit(b []byte) []byte {
	b = append(append(b, f.carrier...), strconv.Itoa(f.number)...)
	b = append(append(append(b, '-'), f.origin...), '-')
	return time.UnixMicro(f.scheduled).UTC().AppendFormat(b, "20060102T1504")
}

var zoneLine = regexp.MustCompile(`(?s)WHEN dest (?:IN \(([^)]*)\)|= ('\w+'))\s+THEN '([^']+)'`)

// zones reads the destinations' time zones out of the project's own SQL, so that both agree.
func zones() (map[string]*time.Location, error) {
	sql, err := demo.Flights.ReadFile("flights/sql/flights.sql")
	if err != nil {
		return nil, err
	}
	out := map[string]*time.Location{}
	for _, m := range zoneLine.FindAllStringSubmatch(string(sql), -1) {
		l, err := time.LoadLocation(m[3])
		if err != nil {
			return nil, err
		}
		for _, code := range strings.Split(m[1]+m[2], ",") {
			out[strings.Trim(strings.TrimSpace(code), "'")] = l
		}
	}
	return out, nil
}

// readFlights reads the monthly files, in the order of the time at which flights are predicted.
func readFlights(dir string) ([]flight, error) {
	where, err := zones()
	if err != nil {
		return nil, err
	}
	home, err := time.LoadLocation("America/New_York")
	if err != nil {
		return nil, err
	}
	out := make([]flight, 0, flightRows)
	names := map[string]string{}
	intern := func(s string) string {
		if t, ok := names[s]; ok {
			return t
		}
		s = strings.Clone(s)
		names[s] = s
		return s
	}
	for _, name := range months() {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		first := true
		for line := range lines(b) {
			if first {
				first = false
				continue
			}
			f := strings.Split(line, ",")
			if len(f) != flightColumns {
				return nil, fault.Newf(fault.Invalid, "A line of %s has %d columns, not %d.", name, len(f), flightColumns)
			}
			fl, err := flightOf(f, home, where)
			if err != nil {
				return nil, fault.Wrap(err, fault.Invalid, "A line of "+name+" cannot be read: "+err.Error(), "")
			}
			fl.carrier, fl.origin, fl.dest = intern(fl.carrier), intern(fl.origin), intern(fl.dest)
			out = append(out, fl)
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].at < out[j].at })
	return out, nil
}

// flightOf reads one line as flights.sql and spine.sql do.
func flightOf(f []string, home *time.Location, where map[string]*time.Location) (out flight, err error) {
	number := func(col int) (n int) {
		if err == nil {
			n, err = strconv.Atoi(f[col])
		}
		return n
	}
	year, month, day := number(colYear), number(colMonth), number(colDay)
	reading := number(colSchedDep)
	out = flight{carrier: f[colCarrier], origin: f[colOrigin], dest: f[colDest], number: number(colFlight), distance: number(colDistance), hour: reading / 100}
	leaves := time.Date(year, time.Month(month), day, reading/100, reading%100, 0, 0, home)
	out.weekday = (int(time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC).Weekday())+6)%7 + 1
	out.scheduled, out.at = leaves.UnixMicro(), leaves.Truncate(time.Hour).Add(-time.Hour).UnixMicro()
	if f[colArrDelay] == "NA" || f[colArrDelay] == "" || err != nil {
		return out, err
	}
	delay, clock := number(colArrDelay), number(colSchedArr)
	zone := where[out.dest]
	if zone == nil {
		return out, fault.New(fault.Invalid, "destination '"+out.dest+"' has no time zone", "")
	}
	there := leaves.In(zone)
	arrives := time.Date(there.Year(), there.Month(), there.Day(), clock/100, clock%100, 0, 0, zone)
	if !arrives.After(leaves) {
		arrives = arrives.Add(24 * time.Hour)
	}
	out.known, out.late = arrives.Add(time.Duration(delay)*time.Minute).UnixMicro(), delay > 15
	return out, err
}

// between gives the flights predicted in [from, to).
func between(all []flight, from, to time.Time) []flight {
	at := func(t time.Time) int {
		n, _ := slices.BinarySearchFunc(all, t.UnixMicro(), func(f flight, us int64) int {
			switch {
			case f.at < us:
				return -1
			case f.at > us:
				return 1
			}
			return 0
		})
		return n
	}
	return all[at(from):at(to)]
}

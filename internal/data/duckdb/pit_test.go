package duckdb_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/data"
	"falaj/internal/data/duckdb"
	"falaj/internal/kernel/fault"
)

// fact is a row of a feature view, ask a row of the spine; times in seconds, nil is NULL.
type fact struct {
	key                 *string
	event, known, value *int
}
type ask struct {
	key *string
	at  *int
}

// asOf is the definition in PITJob, written down as plainly as can be: look at every row, keep the best.
func asOf(a ask, facts []fact, ttl int) *int {
	var best *fact
	for i := range facts {
		f := &facts[i]
		if a.key == nil || a.at == nil || f.key == nil || *f.key != *a.key || f.event == nil || f.known == nil || *f.event > *a.at || *f.known > *a.at {
			continue
		}
		if best == nil || *f.event > *best.event || (*f.event == *best.event && *f.known >= *best.known) {
			best = f
		}
	}
	if best == nil || (ttl > 0 && *a.at-*best.event > ttl) {
		return nil
	}
	return best.value
}

func sqlInt(v *int) string {
	if v == nil {
		return "NULL"
	}
	return fmt.Sprint(*v)
}

func sqlTime(v *int) string {
	if v == nil {
		return "NULL"
	}
	return fmt.Sprintf("to_timestamp(%d)", *v)
}

func sqlText(v *string) string {
	if v == nil {
		return "NULL"
	}
	return "'" + *v + "'"
}

// table writes rows as Parquet, in this order.
func table(t *testing.T, e *duckdb.Engine, dir, out, columns string, rows []string) {
	t.Helper()
	body := "SELECT * FROM (VALUES " + strings.Join(rows, ", ") + ") v(" + columns + ")"
	if _, err := e.Transform(t.Context(), data.TransformJob{Dir: dir, SQL: body, Out: out, AsWritten: true}); err != nil {
		t.Fatal(err)
	}
}

// draw makes one small case full of ties, late arrivals, NULLs and repeated entity rows.
func draw(r *rand.Rand) (facts []fact, asks []ask) {
	a, b := "a", "b"
	key := func() *string { return []*string{&a, &a, &a, &b, &b, nil}[r.IntN(6)] }
	clock := func() *int {
		if n := r.IntN(14); n < 13 {
			return &n
		}
		return nil
	}
	for range r.IntN(10) {
		n := r.IntN(1000)
		f := fact{key: key(), event: clock(), value: &n}
		switch late := r.IntN(8); {
		case late == 7 || f.event == nil: // known at any time, even before it happened, or never
			f.known = clock()
		case late == 6:
			f.value = nil // a row that is there with nothing in it
			fallthrough
		default:
			known := *f.event + late
			f.known = &known
		}
		facts = append(facts, f)
	}
	for range 1 + r.IntN(6) {
		asks = append(asks, ask{key(), clock()})
	}
	return facts, asks
}

// TestPointInTime compares the join with asOf over many drawn cases; each case is a key of its own in one large job.
func TestPointInTime(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil)
	rounds := 7
	if os.Getenv("FALAJ_SOAK") != "" {
		rounds = 300
	}
	for round := range rounds {
		rnd := rand.New(rand.NewPCG(7, uint64(round)))
		ttl := round % 7
		var views, spines, shown []string
		var want []*int
		for c := range 400 {
			facts, asks := draw(rnd)
			from := len(views)
			for _, f := range facts {
				views = append(views, fmt.Sprintf("(%d, %s::VARCHAR, %s::TIMESTAMPTZ, %s::TIMESTAMPTZ, %s::INTEGER)", c, sqlText(f.key), sqlTime(f.event), sqlTime(f.known), sqlInt(f.value)))
			}
			for _, a := range asks {
				spines = append(spines, fmt.Sprintf("(%d, %s::VARCHAR, %s::TIMESTAMPTZ, %d)", c, sqlText(a.key), sqlTime(a.at), len(want)))
				want = append(want, asOf(a, facts, ttl))
				shown = append(shown, strings.Join(views[from:], "\n"))
			}
		}
		r := newRoom(t, e)
		table(t, e, r.Dir, r.Path("view"), "c, k, e, n, f", views)
		table(t, e, r.Dir, r.Path("spine"), `c, k, "at", id`, spines)
		res, err := e.PointInTime(t.Context(), data.PITJob{Dir: r.Dir, Spine: []string{r.Path("spine")}, At: "at", Out: r.Path("out"),
			Views: []data.PITView{{Name: "v", Files: []string{r.Path("view")}, Keys: map[string]string{"c": "c", "k": "k"}, Event: "e", Known: "n", TTL: int64(ttl) * 1e6, Features: []string{"f"}}}})
		if err != nil {
			t.Fatal(err)
		}
		if res.Rows != int64(len(want)) {
			t.Fatalf("%d rows for %d entity rows", res.Rows, len(want))
		}
		rows, err := e.Query(t.Context(), data.QueryJob{Dir: r.Dir, SQL: "SELECT id, f FROM t", Inputs: map[string]data.Input{"t": {Files: []string{r.Path("out")}}}, Limit: len(want) + 1})
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for i, row := range rows.Rows {
			var got struct {
				ID int
				F  *int
			}
			if err := json.Unmarshal(row, &got); err != nil {
				t.Fatal(err)
			}
			if got.F != nil {
				found++
			}
			if got.ID != i || cmp.Diff(want[i], got.F) != "" {
				t.Fatalf("round %d (ttl %d): row %d is %s, want %s\nspine row %s\nview rows\n%s", round, ttl, i, row, sqlInt(want[i]), spines[i], shown[i])
			}
		}
		if found < len(want)/40 {
			t.Errorf("round %d found only %d of %d: the cases prove little", round, found, len(want))
		}
	}
}

// TestPointInTimeViews joins two views and one without time, renames, and reports the event time taken.
func TestPointInTimeViews(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil)
	r := newRoom(t, e)
	table(t, e, r.Dir, r.Path("spine"), `origin, tail, "at"`, []string{"('EWR', 'N1', to_timestamp(100))", "('EWR', 'N9', to_timestamp(5))", "('EWR', 'N1', to_timestamp(100))"})
	table(t, e, r.Dir, r.Path("weather"), `station, "at", temp`, []string{"('EWR', to_timestamp(50), 1.5)", "('EWR', to_timestamp(60), 2.5)", "('EWR', to_timestamp(101), 9.5)"})
	table(t, e, r.Dir, r.Path("planes"), "tail, seats", []string{"('N1', 100)", "('N1', 180)"})
	job := data.PITJob{Dir: r.Dir, Spine: []string{r.Path("spine")}, At: "at", Out: r.Path("out"), Profile: true, Views: []data.PITView{
		{Name: "weather", Files: []string{r.Path("weather")}, Keys: map[string]string{"origin": "station"}, Event: "at", Features: []string{"temp"}, As: map[string]string{"temp": "weather_temp"}, EventAs: "weather_at"},
		{Name: "planes", Files: []string{r.Path("planes")}, Keys: map[string]string{"tail": "tail"}, Features: []string{"seats"}},
	}}
	res, err := e.PointInTime(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	if res.Profile == nil || res.Profile.Rows != 3 || res.Profile.Column("seats").Nulls != 1 {
		t.Errorf("profile %+v", res.Profile)
	}
	if d := cmp.Diff([]string{
		`{"origin":"EWR","tail":"N1","at":"1970-01-01T00:01:40.000000Z","weather_temp":2.5,"weather_at":"1970-01-01T00:01:00.000000Z","seats":180}`,
		`{"origin":"EWR","tail":"N9","at":"1970-01-01T00:00:05.000000Z","weather_temp":null,"weather_at":null,"seats":null}`,
		`{"origin":"EWR","tail":"N1","at":"1970-01-01T00:01:40.000000Z","weather_temp":2.5,"weather_at":"1970-01-01T00:01:00.000000Z","seats":180}`,
	}, look(t, e, r, "FROM t", r.Path("out"))); d != "" {
		t.Errorf("rows (-want +got) %s", d)
	}
	for _, c := range []struct {
		set   func(*data.PITJob)
		words []string
	}{
		{func(j *data.PITJob) { j.At = "when" }, []string{`time column "when"`}},
		{func(j *data.PITJob) { j.Views[0].Features = []string{"tmp"} }, []string{"weather has no column tmp", "temp"}},
		{func(j *data.PITJob) { j.Views[0].Keys = map[string]string{"port": "station"} }, []string{"joins on port"}},
		{func(j *data.PITJob) { j.Views[0].As = map[string]string{"temp": "Origin"} }, []string{"two columns called"}},
	} {
		j := job
		j.Views = append([]data.PITView{}, job.Views...)
		c.set(&j)
		_, err := e.PointInTime(t.Context(), j)
		wantFault(t, err, fault.Invalid, c.words...)
	}
}

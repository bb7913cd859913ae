package plan

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"falaj/internal/kernel/fault"
)

var update = flag.Bool("update", false, "write the golden files anew")

// flights is a whole file: every key of the design's example that this version takes.
const flights = `# the story
project: flights
residency: [ae]
datasets:
  flights:
    source: {csv: data/flights/2013-*.csv, null: [NA]}
    derive: sql/flights.sql
    key: [carrier, flight, origin, sched_dep_at]
    time: {event: sched_dep_at, known: arr_at}
    contract:
      columns:
        origin: {in: [EWR, JFK, LGA]}
        distance: {min: 1}
        tailnum: {class: identifier, mask: pseudonym}
      volume: {anomaly: by month}
      on_violation: quarantine
  weather: {source: {csv: data/weather/2013-*.csv}, key: [origin, at], time: {event: at, known: at}}
  departures: {sql: sql/departures.sql}
features:
  airport_delay: {entity: origin, sql: sql/airport_delay.sql, ttl: 6h}
  weather_now:   {entity: origin, sql: sql/weather_features.sql, ttl: 3h, columns: [temp, visib], time: {event: event_at, known: known_at}}
  schedule:      {request: [distance, hour, "weekday", carrier_code: "list_position(['AA', 'UA'], carrier)"]}
services:
  delay_v1: [airport_delay, weather_now, schedule]
models:
  delay:
    train:
      run: python train.py --trees {trees}
      runtime: requirements.lock
      spine: sql/spine.sql
      label: late
      time: {event: at, known: label_known_at}
      features: delay_v1
      params: {trees: 200}
      limits: {memory: 2GiB, cpus: 1.5, timeout: 30m}
    tests: {unit: pytest tests/, behaviour: tests/behaviour.yaml, integration: tests/integration.py}
    gates:
      staging:    [{tests: passed}, {metric: test_auc, min: 0.65}, {parity: offline_online}, {scan: clean}]
      production: [{beats: champion, on: latest_labelled_window}, {latency_p99_ms: 20}, {approval: {group: ml-risk, not: author}}]
    serve:   {profile: cpu, rollout: {canary: [5, 25, 100]}}
    monitor: {drift: {against: training, weigh: importance}, quality: {metric: auc, window: 14d, labels_after: 1d, against: challenger, min_gap: 0.01}}
    retrain: {when: [quality.degraded, drift.weighted, schedule: monthly, manual], cooldown: 7d, then: challenge}
`

func files() fstest.MapFS {
	f := fstest.MapFS{"falaj.yaml": {Data: []byte(flights)}}
	for name, text := range map[string]string{
		"data/flights/2013-01.csv": "a", "data/flights/2013-02.csv": "a", "data/flights/notes.txt": "", "data/weather/2013-01.csv": "a",
		"sql/flights.sql": "SELECT * FROM source", "sql/departures.sql": "SELECT * FROM flights", "sql/airport_delay.sql": "WITH weather AS (SELECT 1) SELECT * FROM departures, weather",
		"sql/weather_features.sql": "SELECT * FROM weather", "sql/spine.sql": "SELECT * FROM departures", "requirements.lock": "", "train.py": "", "tests/behaviour.yaml": "", "tests/integration.py": "",
	} {
		f[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return f
}

func ptr[T any](v T) *T { return &v }

func TestTheExampleIsReadWhole(t *testing.T) {
	t.Parallel()
	p, refs, err := Load(files(), "falaj.yaml")
	if err != nil {
		t.Fatal(err)
	}
	h := func(n int) Duration { return Duration(time.Duration(n) * time.Hour) }
	want := &Project{
		Name: "flights", Residency: []string{"ae"}, Environments: []string{"dev", "staging", "production"},
		Datasets: map[string]Dataset{
			"flights": {
				Source: &Source{CSV: Strings{"data/flights/2013-*.csv"}, Null: Strings{"NA"}}, Derive: "sql/flights.sql", Key: []string{"carrier", "flight", "origin", "sched_dep_at"},
				Time: Time{"sched_dep_at", "arr_at"}, Contract: &Contract{
					Columns: map[string]Rule{"origin": {In: Scalars{"EWR", "JFK", "LGA"}}, "distance": {Min: ptr(1.0)}, "tailnum": {Class: "identifier", Mask: "pseudonym"}},
					Volume:  Volume{"by month"}, OnViolation: "quarantine",
				},
			},
			"weather":    {Source: &Source{CSV: Strings{"data/weather/2013-*.csv"}}, Key: []string{"origin", "at"}, Time: Time{"at", "at"}},
			"departures": {SQL: "sql/departures.sql"},
		},
		Features: map[string]FeatureView{
			"airport_delay": {Entity: Strings{"origin"}, SQL: "sql/airport_delay.sql", Time: Time{Event: "event_at"}, TTL: h(6)},
			"weather_now":   {Entity: Strings{"origin"}, SQL: "sql/weather_features.sql", Time: Time{"event_at", "known_at"}, TTL: h(3), Columns: Strings{"temp", "visib"}},
			"schedule":      {Request: []Request{{Name: "distance"}, {Name: "hour"}, {Name: "weekday"}, {"carrier_code", "list_position(['AA', 'UA'], carrier)"}}},
		},
		Services: map[string]Service{"delay_v1": {"airport_delay", "weather_now", "schedule"}},
		Models: map[string]Model{"delay": {
			Train: Train{
				Run: "python train.py --trees {trees}", Runtime: "requirements.lock", Spine: "sql/spine.sql", Label: "late", Time: Time{"at", "label_known_at"}, Features: "delay_v1",
				Params: map[string]any{"trees": int64(200)}, Limits: Limits{Memory: 2 << 30, CPUs: 1.5, Timeout: Duration(30 * time.Minute)},
			},
			Tests: Tests{Unit: "pytest tests/", Behaviour: "tests/behaviour.yaml", Integration: "tests/integration.py"},
			Gates: map[string][]Gate{
				"staging":    {{Kind: "tests"}, {Kind: "metric", Metric: "test_auc", Min: ptr(0.65)}, {Kind: "parity"}, {Kind: "scan"}},
				"production": {{Kind: "beats", On: "latest_labelled_window", Metric: "auc"}, {Kind: "latency_p99_ms", Max: ptr(20.0)}, {Kind: "approval", Group: "ml-risk", NotAuthor: true}},
			},
			Serve: Serve{"cpu", Rollout{[]int{5, 25, 100}}},
			Monitor: Monitor{&Drift{"training", "importance", "psi", ptr(0.2), h(14 * 24)},
				&Quality{Metric: "auc", Window: h(14 * 24), LabelsAfter: h(24), Against: "challenger", MinGap: 0.01}},
			Retrain: Retrain{[]Trigger{{Event: "quality.degraded"}, {Event: "drift.weighted"}, {Schedule: "monthly"}, {Event: "manual"}}, h(7 * 24), "challenge"},
		}},
	}
	if diff := cmp.Diff(want, p, cmpopts.IgnoreUnexported(Project{})); diff != "" {
		t.Error(diff)
	}
	if got := p.At("models.delay.gates.staging[1]"); got != (Position{38, 37}) {
		t.Errorf("the metric gate stands at %v", got)
	}
	var got []string
	for _, r := range refs {
		got = append(got, fmt.Sprintf("%s %s %s", r.Key, r.Role, strings.Join(r.Files, " ")))
	}
	slices.Sort(got)
	wantRefs := []string{
		"datasets.departures.sql sql sql/departures.sql", "datasets.flights.derive sql sql/flights.sql",
		"datasets.flights.source.csv source data/flights/2013-01.csv data/flights/2013-02.csv", "datasets.weather.source.csv source data/weather/2013-01.csv",
		"features.airport_delay.sql sql sql/airport_delay.sql", "features.weather_now.sql sql sql/weather_features.sql",
		"models.delay.tests.behaviour tests tests/behaviour.yaml", "models.delay.tests.integration tests tests/integration.py", "models.delay.tests.unit tests tests",
		"models.delay.train.run code train.py", "models.delay.train.runtime runtime requirements.lock", "models.delay.train.spine sql sql/spine.sql",
	}
	if diff := cmp.Diff(wantRefs, got); diff != "" {
		t.Error(diff)
	}
	if err := p.CheckRegion("ae"); err != nil {
		t.Error(err)
	}
	for _, region := range []string{"de", ""} {
		if err := p.CheckRegion(region); !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), "falaj.yaml:3:") {
			t.Errorf("region %q: %v", region, err)
		}
	}
}

// TestTheDemosFile holds the file that the docs show to this parser.
func TestTheDemosFile(t *testing.T) {
	t.Parallel()
	root, err := os.OpenRoot(filepath.Join("..", "..", "demo", "flights"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	// The data files come when the demo runs; everything else must be there.
	if _, _, err := Load(root.FS(), "falaj.yaml", SourcesElsewhere()); err != nil {
		t.Fatal(err)
	}
}

// edit replaces one text of the example.
func edit(t *testing.T, old, new string) string {
	t.Helper()
	if strings.Count(flights, old) != 1 {
		t.Fatalf("%q is not once in the example", old)
	}
	return strings.Replace(flights, old, new, 1)
}

func TestWhatIsWrongIsNamedWithItsPlace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		old, new string
		kind     fault.Kind
		at       string // the text that stands at the place that is named
		say      string // part of the words or the next step
	}{
		"unknown key, near":         {"residency:", "residence:", fault.Invalid, "residence:", "Did you mean 'residency'?"},
		"unknown key, deep":         {"labels_after:", "label_after:", fault.Invalid, "label_after:", "Did you mean 'labels_after'?"},
		"unknown key, far":          {"derive: sql/flights.sql", "zzz: 1", fault.Invalid, "zzz", "Keys here are source, derive"},
		"search":                    {"params: {trees: 200}", "params: {trees: 200}\n      search: {trials: 12}", fault.Unsupported, "search:", "not available in this version"},
		"sequential test":           {"rollout: {canary: [5, 25, 100]", "rollout: {canary: [5, 25, 100], test: sequential", fault.Unsupported, "test: seq", "sequential test"},
		"gpu":                       {"profile: cpu", "profile: gpu", fault.Unsupported, "gpu", "models are served on CPU"},
		"a word that is none":       {"weigh: importance", "weigh: colour", fault.Invalid, "colour", "importance, none"},
		"twice":                     {"  departures: {sql: sql/departures.sql}", "  weather: {sql: sql/departures.sql}", fault.Invalid, "weather: {sql: sql/dep", "already defined"},
		"no view":                   {"delay_v1: [airport_delay,", "delay_v1: [airport_dely,", fault.Invalid, "airport_dely", "Did you mean 'airport_delay'?"},
		"no service":                {"features: delay_v1", "features: delay_v2", fault.Invalid, "features: delay_v2", "Did you mean 'delay_v1'?"},
		"no environment":            {"staging:    [{tests", "stage:    [{tests", fault.Invalid, "stage:", "dev, staging, production"},
		"gate without a bound":      {"{metric: test_auc, min: 0.65}", "{metric: test_auc}", fault.Invalid, "test_auc}", "min or max"},
		"gate with a strange key":   {"{latency_p99_ms: 20}", "{latency_p99_ms: 20, min: 1}", fault.Invalid, "min: 1}, {app", "{latency_p99_ms: 20}"},
		"gate of no kind":           {"{latency_p99_ms: 20}", "{latency_p9_ms: 20}", fault.Invalid, "latency_p9_ms", "Did you mean 'latency_p99_ms'?"},
		"gate with a text":          {"min: 0.65", "min: much", fault.Invalid, "much", "is a number"},
		"approval of nobody":        {"{group: ml-risk, not: author}", "{not: author}", fault.Invalid, "{not: author}", "names a group"},
		"both":                      {"{sql: sql/departures.sql}", "{sql: sql/departures.sql, source: {csv: x.csv}}", fault.Invalid, "sql: sql/departures.sql, s", "one of the two"},
		"neither":                   {"{sql: sql/departures.sql}", "{key: [a]}", fault.Invalid, "departures: {key", "needs a source or sql"},
		"two formats":               {"source: {csv: data/weather/2013-*.csv}", "source: {csv: a, json: b}", fault.Invalid, "source: {csv: a, json: b}", "exactly one"},
		"no unit":                   {"ttl: 6h", "ttl: 6", fault.Invalid, "6}", "14d"},
		"a list for a text":         {"label: late", "label: [late]", fault.Invalid, "[late]", "single value"},
		"a text for a list":         {"residency: [ae]", "residency: ae", fault.Invalid, "ae\n", "is a list"},
		"a region":                  {"residency: [ae]", "residency: [AE]", fault.Invalid, "AE]", "two-letter"},
		"a text for a number":       {"min: 1}", "min: one}", fault.Invalid, "one}", "is a number"},
		"no parameter":              {"--trees {trees}", "--trees {tree}", fault.Invalid, "run: python", "{tree}"},
		"idle parameter":            {"{trees: 200}", "{trees: 200, leaves: 3}", fault.Invalid, "leaves: 3", "not used in run"},
		"shell":                     {"python train.py", "python train.py | tee log;", fault.Invalid, "run: python", "shell syntax"},
		"expression":                {"list_position(['AA', 'UA'], carrier)", "system(carrier)", fault.Invalid, "carrier_code:", "the function system"},
		"canary falls":              {"[5, 25, 100]", "[25, 5, 100]", fault.Invalid, "5, 100]", "rise"},
		"canary ends early":         {"[5, 25, 100]", "[5, 25]", fault.Invalid, "canary:", "is 100"},
		"beats without quality":     {", quality: {metric: auc, window: 14d, labels_after: 1d, against: challenger, min_gap: 0.01}", "", fault.Invalid, "{beats", "quality"},
		"retrain without a gate":    {"{beats: champion, on: latest_labelled_window}, ", "", fault.Invalid, "retrain:", "beats"},
		"trigger":                   {"schedule: monthly", "schedule: yearly", fault.Invalid, "schedule: yearly", "daily, weekly, monthly"},
		"mask":                      {"mask: pseudonym", "mask: hide", fault.Invalid, "hide", "pseudonym, redact"},
		"pattern":                   {"distance: {min: 1}", "distance: {pattern: '('}", fault.Invalid, "pattern: '('", "RE2"},
		"anchor":                    {"[carrier, flight,", "&k [carrier, flight,", fault.Invalid, "&k", "Anchors"},
		"tag":                       {"project: flights", "project: !!str flights", fault.Invalid, "!!str", "Anchors"},
		"project name":              {"project: flights", "project: ../flights", fault.Invalid, "project:", "no name of a project"},
		"no project":                {"project: flights\n", "", fault.Invalid, "residency:", "needs project"},
		"no train":                  {"    train:\n", "    trein:\n", fault.Invalid, "trein:", "Did you mean 'train'?"},
		"two documents":             {"services:", "---\nservices:", fault.Invalid, "services:", "one YAML document"},
		"tab":                       {"  delay_v1: [", "\tdelay_v1: [", fault.Invalid, "\tdelay_v1: [", "not valid YAML"},
		"same feature twice":        {"[distance, hour,", "[temp, hour,", fault.Invalid, "schedule]", "both give a feature 'temp'"},
		"request with entity":       {"{request: [distance", "{entity: dest, request: [distance", fault.Invalid, "schedule:", "has no entity"},
		"nan":                       {"min_gap: 0.01", "min_gap: .nan", fault.Invalid, ".nan", "is a number"},
		"fraction for an integer":   {"[5, 25, 100]", "[5.5, 100]", fault.Invalid, "5.5", "whole number"},
		"contract of a derived one": {"{sql: sql/departures.sql}", "{sql: sql/departures.sql, contract: {on_violation: block}}", fault.Invalid, "contract: {on", "with a source"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := edit(t, c.old, c.new)
			before, _, ok := strings.Cut(text, c.at)
			if !ok {
				t.Fatalf("%q is not in the file", c.at)
			}
			at := fmt.Sprintf("falaj.yaml:%d:%d: ", strings.Count(before, "\n")+1, len(before)-strings.LastIndex(before, "\n"))
			_, err := Parse([]byte(text))
			if err == nil {
				t.Fatal("accepted")
			}
			f := fault.From(err)
			all := f.Public + " | " + f.Next
			if f.Kind != c.kind || !strings.HasPrefix(f.Public, at) || !strings.Contains(all, c.say) {
				t.Errorf("%s, not at %s: %s", f.Kind, at, all)
			}
		})
	}
	_, err := Parse([]byte(edit(t, "label: late", "label:")))
	if err == nil || !strings.Contains(err.Error(), "models.delay.train.label has no value") {
		t.Errorf("no value: %v", err)
	}
}

func TestSeveralProblemsAreToldAtOnceInOrder(t *testing.T) {
	t.Parallel()
	text := strings.NewReplacer("residency:", "residence:", "ttl: 6h", "ttl: 6", "search", "search", "mask: pseudonym", "mask: hide").Replace(flights)
	_, err := Parse([]byte(text))
	f := fault.From(err)
	lines := strings.Split(f.Public, "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "falaj.yaml:3:1") || !strings.HasPrefix(lines[1], "falaj.yaml:14:") || f.Field != "residence" {
		t.Errorf("%+v", f)
	}
}

func TestFilesAreLookedAt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(fstest.MapFS)
		at     string
		say    string
	}{
		"no data":       {func(f fstest.MapFS) { delete(f, "data/weather/2013-01.csv") }, "17:", "No file matches 'data/weather/2013-*.csv'"},
		"no sql":        {func(f fstest.MapFS) { delete(f, "sql/spine.sql") }, "30:", "no file 'sql/spine.sql'"},
		"no script":     {func(f fstest.MapFS) { delete(f, "train.py") }, "28:", "'train.py'"},
		"no lock":       {func(f fstest.MapFS) { delete(f, "requirements.lock") }, "29:", "requirements.lock"},
		"unknown table": {func(f fstest.MapFS) { f["sql/spine.sql"].Data = []byte("SELECT * FROM departure d") }, "30:", "Did you mean 'departures'?"},
		"no table":      {func(f fstest.MapFS) { f["sql/spine.sql"].Data = []byte("SELECT 1") }, "30:", "reads from no table"},
		"itself": {func(f fstest.MapFS) {
			f["sql/departures.sql"].Data = []byte("SELECT * FROM flights JOIN departures USING (x)")
		}, "18:", "departures reads departures"},
		"derive elsewhere": {func(f fstest.MapFS) { f["sql/flights.sql"].Data = []byte("SELECT * FROM weather") }, "7:", "table source"},
		"binary":           {func(f fstest.MapFS) { f["sql/spine.sql"].Data = []byte("SELECT \xff FROM departures") }, "30:", "UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := files()
			c.change(f)
			_, _, err := Load(f, "falaj.yaml")
			if !fault.Is(err, fault.Invalid) || !strings.HasPrefix(fault.From(err).Public, "falaj.yaml:"+c.at) || !strings.Contains(err.Error(), c.say) {
				t.Errorf("%v", err)
			}
		})
	}
	for _, path := range []string{"../secrets.csv", "/etc/passwd", "data/../../x", `data\x`, "a//b"} {
		f := files()
		f["falaj.yaml"].Data = []byte(edit(t, "data/weather/2013-*.csv", path))
		if _, _, err := Load(f, "falaj.yaml"); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "no path inside") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, _, err := Load(fstest.MapFS{}, "falaj.yaml"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

func TestACycleOfDatasetsIsNamed(t *testing.T) {
	t.Parallel()
	f := files()
	f["falaj.yaml"].Data = []byte(edit(t, "  departures: {sql: sql/departures.sql}\n", "  departures: {sql: sql/departures.sql}\n  second: {sql: sql/second.sql}\n"))
	f["sql/departures.sql"].Data = []byte("SELECT * FROM second")
	f["sql/second.sql"] = &fstest.MapFile{Data: []byte("SELECT * FROM departures")}
	if _, _, err := Load(f, "falaj.yaml"); err == nil || !strings.Contains(err.Error(), "departures reads second reads departures") {
		t.Error(err)
	}
}

func TestTables(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]string{
		"SELECT * FROM a": "a",
		"select a, b from \"B\" x, c as y join d using (k)":                                                                            "b c d",
		"WITH a AS (SELECT * FROM b), c (x) AS MATERIALIZED (FROM d) SELECT * FROM a, c":                                               "b d",
		"SELECT extract(hour FROM t), substring(s FROM 2) FROM a":                                                                      "a",
		"SELECT 'FROM x' -- FROM y\n/* FROM z */ FROM a WHERE b IN (SELECT c FROM d)":                                                  "a d",
		"SELECT * FROM range(3) r, unnest(x) ASOF LEFT JOIN a ON r.t >= a.t":                                                           "a",
		"SELECT * FROM (SELECT * FROM a) q, b GROUP BY ALL, c":                                                                         "a b",
		"SELECT x IS DISTINCT FROM y, weather FROM a":                                                                                  "a",
		"SELECT sum(x) OVER w FROM a WINDOW w AS (PARTITION BY k ORDER BY t RANGE BETWEEN INTERVAL 2 HOURS PRECEDING AND CURRENT ROW)": "a",
		"SELECT 1 UNION ALL SELECT 2 FROM a UNION ALL SELECT 3 FROM b":                                                                 "a b",
		"SELECT * FROM s.a":   "",
		"":                    "",
		"FROM 'x.csv'":        "",
		"SELECT ((( FROM )))": "",
	} {
		if got := strings.Join(Tables(sql), " "); got != want {
			t.Errorf("%s: %q, want %q", sql, got, want)
		}
	}
	for _, f := range []string{"airport_delay", "departures", "dest_delay", "flights", "spine", "weather", "weather_features"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "demo", "flights", "sql", f+".sql"))
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"departures": "flights", "flights": "source", "weather": "source", "weather_features": "weather"}[f]
		if want == "" {
			want = "departures"
		}
		if got := strings.Join(Tables(string(b)), " "); got != want {
			t.Errorf("%s.sql reads %q, want %q", f, got, want)
		}
	}
}

func TestTheUnavailableKeysAreNotTaken(t *testing.T) {
	t.Parallel()
	for _, l := range Unavailable() {
		typ := reflect.TypeFor[Project]()
		parts := strings.Split(l.Path, ".")
		for i, part := range parts {
			for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
				typ = typ.Elem()
			}
			if part == "*" {
				typ = typ.Elem()
				continue
			}
			fields := fieldsOf(typ)
			at := slices.IndexFunc(fields, func(f field) bool { return f.key == part })
			last := i == len(parts)-1
			switch {
			case last && l.Value == "" && at >= 0:
				t.Errorf("%s is refused and taken", l.Path)
			case last && l.Value != "" && (at < 0 || slices.Contains(fields[at].enum, l.Value)):
				t.Errorf("%s: %s is refused and taken", l.Path, l.Value)
			case !last && at < 0:
				t.Errorf("%s leads nowhere", l.Path)
			}
			if at >= 0 {
				typ = fields[at].typ
			}
		}
		if l.Why == "" || l.Next == "" {
			t.Errorf("%s has no reason or next step", l.Path)
		}
	}
}

func TestTheSchemaIsPublished(t *testing.T) {
	t.Parallel()
	got := Schema()
	path := filepath.Join("..", "..", "docs", "falaj.schema.json")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("run with -update: %s", diff)
	}
	var v map[string]any
	if err := json.Unmarshal(got, &v); err != nil {
		t.Fatal(err)
	}
	var walk func(path string, n any)
	walk = func(path string, n any) {
		m, ok := n.(map[string]any)
		if !ok {
			return
		}
		if props, ok := m["properties"].(map[string]any); ok {
			if m["additionalProperties"] != false {
				t.Errorf("%s takes unknown keys", path)
			}
			for k, p := range props {
				walk(path+"."+k, p)
			}
		}
		walk(path+".*", m["additionalProperties"])
		walk(path+"[]", m["items"])
	}
	walk("", v)
}

func TestHostileTextsAreRefusedBeforeTheyCost(t *testing.T) {
	t.Parallel()
	const n = 1 << 20
	many := func(s string) string { return strings.Repeat(s, n/len(s)) }
	var keys strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&keys, "k%d: 1\n", i)
	}
	for name, text := range map[string]string{
		"brackets": "a: " + many("["), "closed brackets": "a: " + strings.Repeat("[", 500) + strings.Repeat("]", 500), "braces": many("{a: "), "dashes": many("- "),
		"questions": many("? "), "anchors": "a: " + many("&a "), "comments": many("# x\n"), "equal keys": many("a: 1\n"), "keys": keys.String(), "text": "a: '" + many("x"),
		"returns": many("a: 1\r"), "nul": "project: a\x00", "not text": "project: \xff\xfe", "deep": "project: a\ndatasets:\n" + deep(40),
	} {
		if _, err := Parse([]byte(text)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %.200v", name, err)
		}
	}
}

func deep(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i+1) + "a:\n")
	}
	return b.String()
}

func TestSpansAndSizes(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]time.Duration{"90s": 90 * time.Second, "1.5h": 90 * time.Minute, "1d12h": 36 * time.Hour, "2w": 14 * day} {
		if got, ok := parseDuration(s); !ok || got != want {
			t.Errorf("%s: %v %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "6", "h", "-1h", "1y", "1h ", "999999999w", "1e9s"} {
		if got, ok := parseDuration(s); ok {
			t.Errorf("%q is %v", s, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(flights)
	for _, s := range []string{"", "project: a", "{", "a: &a [*a]", "project: [a", "- 1", "? a\n: b", "project: a\nmodels: {m: {gates: {dev: [{}]}}}", "project: |\n a", "%YAML 1.2\n---\nproject: a", "\ufeffproject: a", "a: b: c", "project: a\ndatasets: {d: {source: {csv: }}}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		began := time.Now()
		stuck := time.AfterFunc(10*time.Second, func() { panic(fmt.Sprintf("stuck on %q", s)) })
		p, err := Parse([]byte(s))
		stuck.Stop()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%d bytes took %v", len(s), took)
		}
		if (p == nil) == (err == nil) {
			t.Fatalf("%v and %v", p, err)
		}
		if err == nil {
			return
		}
		e := fault.From(err)
		if e.Kind != fault.Invalid && e.Kind != fault.Unsupported || e.Next == "" {
			t.Errorf("%+v", e)
		}
		var line, column int
		if n, _ := fmt.Sscanf(e.Public, "falaj.yaml:%d:%d:", &line, &column); n != 2 || line < 1 || column < 1 {
			t.Errorf("no place: %s", e.Public)
		}
	})
}

func FuzzTables(f *testing.F) {
	for _, s := range []string{"SELECT * FROM a", "WITH a AS (", "\"", "'", "((", "))", "/*", "--", "FROM", "from ,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, n := range Tables(s) {
			if strings.ToLower(n) != n {
				t.Errorf("%q in %q", n, s)
			}
		}
	})
}

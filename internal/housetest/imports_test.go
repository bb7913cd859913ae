package housetest

import (
	"fmt"
	"strings"
	"testing"
)

// downhill is the order of docs/architecture.md: a package imports only what stands above it. What must flow back travels as an
// event. A stage's sub-folders have its rank.
var downhill = []string{
	"kernel", "store", "access", "audit", "blob", "secret", "flow", "lineage", "data", "features", "tracking", "training", "registry",
	"delivery", "serving", "monitoring", "governance", "plan", "backup", "process", "door", "compat", "api", "app", "cli",
}

// edges stand beside the order: what they may import of ours, and why.
var edges = map[string]struct {
	may []string
	why string
}{
	"cmd/falaj":   {[]string{"internal/cli"}, "main is one call, so that a test can start the same program"},
	"internal/ui": {nil, "the pages are a client of the public API; they know no stage"},
	"demo":        {nil, "the story's files are only carried, never called"},
	"passport":    {nil, "the verifier is for people who do not trust us: it can be read alone"},
	"bench":       {[]string{"internal/"}, "a benchmark may measure any room, but nothing imports a benchmark"},
}

// drivers are engines: only the wiring in app knows that they exist, for the mains of the workers too.
var drivers = []string{
	"blob/dir", "store/sqlite", "store/postgres", "data/duckdb", "data/iceberg", "features/sqlite", "serving/trees",
	"serving/python", "training/process", "access/oidc",
}

func rank(short string) int {
	stage, _, _ := strings.Cut(strings.TrimPrefix(short, "internal/"), "/")
	for i, name := range downhill {
		if name == stage && strings.HasPrefix(short, "internal/") {
			return i
		}
	}
	return -1
}

// driver is the driver folder that a package lies in, or "".
func driver(short string) string {
	for _, d := range drivers {
		if short == "internal/"+d || strings.HasPrefix(short, "internal/"+d+"/") {
			return d
		}
	}
	return ""
}

// edge finds the rule of a package beside the order.
func edge(short string) (may []string, why string, ok bool) {
	for name, e := range edges {
		if short == name || strings.HasPrefix(short, name+"/") {
			return e.may, e.why, true
		}
	}
	return nil, "", false
}

// refuse says why `from` must not import `to` (both without the module's name), or "".
func refuse(from, to string) string {
	if testOnly(to) && !testOnly(from) {
		return "it is for tests only"
	}
	if testOnly(from) {
		return ""
	}
	if may, why, ok := edge(from); ok {
		if strings.HasPrefix(to, from+"/") || strings.HasPrefix(from, to+"/") {
			return ""
		}
		for _, m := range may {
			if strings.HasPrefix(to, m) {
				return ""
			}
		}
		return why
	}
	if strings.HasPrefix(to, "bench") {
		return "nothing imports a benchmark"
	}
	f, g := rank(from), rank(to)
	stage := func(i int) string { return downhill[i] }
	if f < 0 {
		return "this package is not in the order of docs/architecture.md: give it a rank there and in this test"
	}
	edgeRank := f >= rank("internal/app")
	if _, _, ok := edge(to); ok || g < 0 {
		if edgeRank && !strings.HasPrefix(to, "cmd/") {
			return ""
		}
		return "only app and cli carry what stands beside the stages"
	}
	if f < g {
		return fmt.Sprintf("water flows downhill: %s stands above %s in docs/architecture.md; send an event, or declare a narrow interface that app fills", stage(f), stage(g))
	}
	if d := driver(to); d != "" && driver(from) != d && f != rank("internal/app") {
		return fmt.Sprintf("%s is a driver: only app may know it, for the mains of the workers too; take the interface of its stage", d)
	}
	if f == g && stage(f) == "compat" {
		a, _, _ := strings.Cut(strings.TrimPrefix(from, "internal/compat/"), "/")
		b, _, _ := strings.Cut(strings.TrimPrefix(to, "internal/compat/"), "/")
		if a != b {
			return "one foreign dialect knows nothing of another"
		}
	}
	return ""
}

func TestImportsOnlyDownhill(t *testing.T) {
	t.Parallel()
	checked := 0
	for _, p := range packages(t) {
		for _, imported := range p.Imports {
			if !strings.HasPrefix(imported, module) {
				continue
			}
			checked++
			if why := refuse(p.short(), strings.TrimPrefix(imported, module)); why != "" {
				t.Errorf("%s imports %s: %s", p.short(), strings.TrimPrefix(imported, module), why)
			}
		}
		if !p.testing() {
			if _, _, ok := edge(p.short()); !ok && rank(p.short()) < 0 {
				t.Errorf("%s is not in the order of docs/architecture.md: give it a rank there and in this test", p.short())
			}
		}
	}
	t.Logf("%d imports between our packages", checked)
}

// TestRefuseSeesEachKind keeps the eye of the import test open.
func TestRefuseSeesEachKind(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"internal/serving", "internal/features", true},
		{"internal/features", "internal/serving", false},
		{"internal/kernel/policy", "internal/kernel/who", true},
		{"internal/kernel/policy", "internal/store", false},
		{"internal/registry", "internal/api", false},
		{"internal/app", "internal/data/duckdb", true},
		{"internal/api", "internal/data/duckdb", false},
		{"internal/data/duckdb/worker", "internal/data/duckdb", true},
		{"internal/data/duckdb", "internal/data", true},
		{"internal/data", "internal/data/duckdb", false},
		{"internal/cli", "internal/training/process", false},
		{"internal/data/iceberg", "internal/data/duckdb", false},
		{"internal/app", "internal/data/duckdb/worker", true},
		{"internal/blob", "internal/blob/blobtest", false},
		{"internal/blob/blobtest", "internal/blob/dir", true},
		{"internal/compat/oip", "internal/compat/mlflow", false},
		{"internal/compat/mlflow", "internal/compat/mlflow/wire", true},
		{"passport", "internal/kernel/ledger", false},
		{"internal/app", "internal/ui", true},
		{"internal/data", "internal/ui", false},
		{"internal/stray", "internal/kernel/id", false},
		{"cmd/falaj", "internal/cli", true},
		{"cmd/falaj", "internal/app", false},
		{"internal/app", "bench", false},
	} {
		if why := refuse(c.from, c.to); (why == "") != c.ok {
			t.Errorf("%s imports %s: %q, want allowed %v", c.from, c.to, why, c.ok)
		}
	}
}

package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Each case breaks one thing of the project and says which command refuses it how. After each the state is as before, the
// record clean and the server up; afterwards the unbroken project runs as if nothing had been.
func TestBadInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.amal.ok("apply")
	w.amal.ok("run")
	cases := []struct {
		name  string
		file  string // of the project
		old   string // replaced by text
		text  string
		args  []string
		code  int
		words []string
	}{
		{"unknown key", "falaj.yaml", "on_violation:", "on_violaton:", []string{"apply"}, 1, []string{"falaj.yaml:15", "on_violaton", "on_violation"}},
		{"unknown key at the server's plan", "falaj.yaml", "trees: 20", "tress: 20", []string{"plan"}, 1, []string{"trees"}},
		{"not built yet", "falaj.yaml", "profile: cpu", "profile: gpu", []string{"apply"}, 1, []string{"not available in this version"}},
		{"foreign residency", "falaj.yaml", "residency: [ae]", "residency: [eu]", []string{"apply"}, 3, []string{"eu", "ae"}},
		{"unknown column in a dataset's SQL", "sql/hours.sql", "temp, load", "tempp, load", []string{"run"}, 1, []string{"tempp", "hours"}},
		{"unknown column in a feature's SQL", "sql/heat.sql", "avg(temp)", "avg(tempp)", []string{"apply"}, 1, []string{"tempp", "heat"}},
		{"unknown column in the spine", "sql/spine.sql", "load, known_at", "loadd, known_at", []string{"run"}, 1, []string{"loadd"}},
		{"NaN labels in the spine", "sql/spine.sql", "label_known_at, broke", "label_known_at, CASE WHEN load > 0.9 THEN CAST('nan' AS DOUBLE) ELSE broke END AS broke", []string{"run"}, 3, []string{"label 'broke' is NaN", "spine"}},
		{"no labels in the spine", "sql/spine.sql", "label_known_at, broke", "label_known_at, broke AS broken", []string{"run"}, 1, []string{"no column 'broke'", "label"}},
		{"a path with .. in falaj.yaml", "falaj.yaml", "sql/hours.sql", "../sql/hours.sql", []string{"apply"}, 1, []string{"../sql/hours.sql"}},
		{"an absolute path in falaj.yaml", "falaj.yaml", "sql/hours.sql", "/etc/passwd", []string{"apply"}, 1, []string{"/etc/passwd"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			v := w.in(t)
			undo := v.edit(c.file, c.old, c.text)
			if c.args[0] == "run" {
				v.amal.falaj("apply") // what apply sees already, run says again
			}
			v.unchanged(func() { v.refusal(v.amal.falaj(c.args...), c.code, c.words...) })
			undo()
			v.amal.ok("apply")
			if r := v.amal.ok("run"); !strings.Contains(r.out, "breaks@1") {
				t.Errorf("the mended project does not stand where it stood: %s%s", r.out, r.err)
			}
		})
	}
}

// Bad data is put aside under `on_violation: quarantine`, and the command says so; under block it fails the run. Either way no
// version is made of it, and its rows can be looked at.
func TestBadData(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.amal.ok("apply")
	w.amal.ok("run", "--ingest")
	day := func(rows ...string) string { return header + strings.Join(rows, "\n") + "\n" }
	cases := []struct {
		name  string
		text  string
		words []string
	}{
		{"malformed CSV", header + "m1,\"2024-01-06T00:00:00Z,2024-01-06T01:00:00Z,40,0.5,0\nm2,\"\"x\n", []string{"line 2", "a quoted value does not end"}},
		{"wrong schema", "machine,read_at,temp\nm1,2024-01-06T00:00:00Z,40\n", []string{"known_at, load, broke"}},
		{"text in a number's column", day("m1,2024-01-06T00:00:00Z,2024-01-06T01:00:00Z,hot,0.5,0"), []string{"contract"}},
		{"NaN label", day("m1,2024-01-06T00:00:00Z,2024-01-06T01:00:00Z,40,0.5,nan", "m2,2024-01-06T00:00:00Z,2024-01-06T01:00:00Z,40,0.5,1"), []string{"1 of 2 rows (50 %)", "broke must be a value of type bigint"}},
		{"empty file", "", []string{"is empty"}},
		{"binary", "\x00\x01\x02\xff\xfe\x00PK\x03\x04", []string{"line 1"}},
	}
	file := filepath.Join(w.dir, "data", "readings-3.csv")
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			v := w.in(t)
			write(t, file, c.text)
			before := v.versions()
			v.refusal(v.amal.falaj("run", "--ingest"), 3, append(c.words, "stands without the refused file readings-3.csv", "falaj logs pr_")...)
			var q struct {
				Items []struct {
					Source string
					Note   struct{ Text string }
				}
			}
			v.get(project+"/datasets/readings/quarantine", &q)
			if len(q.Items) == 0 || q.Items[0].Source != "readings-3.csv" || q.Items[0].Note.Text == "" {
				t.Errorf("it is not in the quarantine with its reason: %+v", q.Items)
			}
			if after := v.versions(); after != before {
				t.Errorf("versions were made of it: %s, before %s", after, before)
			}
			remove(t, file)
			v.amal.ok("run", "--ingest")
			v.clean()
		})
	}
	t.Run("blocking", func(t *testing.T) {
		v := w.in(t)
		before := v.versions()
		v.edit("falaj.yaml", "on_violation: quarantine", "on_violation: block")
		v.amal.ok("apply")
		write(t, file, readings(120, 140)+"m1,2024-01-09T00:00:00Z,2024-01-09T01:00:00Z,40,0.5,nan\n") // below the limit of quarantine
		v.refusal(v.amal.falaj("run", "--ingest"), 3, "1 of 101 rows (1 %)", "it blocks on the first")
		if after := v.versions(); after != before {
			t.Errorf("rows were taken of it all the same: %s, before %s", after, before)
		}
		v.clean()
	})
	t.Run("mended", func(t *testing.T) {
		v := w.in(t)
		write(t, file, readings(120, 140))
		v.amal.falaj("run", "--ingest") // the files refused before are judged again under the other contract, and said again
		if after := v.versions(); !strings.Contains(after, "readings 700 ") || !strings.Contains(after, "hours 700 ") {
			t.Errorf("the mended file is not taken: %s", after)
		}
		v.clean()
	})
}

// versions names rows and digest of the newest version of each dataset.
func (w *world) versions() string {
	w.t.Helper()
	var d struct {
		Items []struct {
			Name   string
			Latest *struct {
				Rows   int64
				Digest string
			}
		}
	}
	w.get(project+"/datasets", &d)
	var out []string
	for _, x := range d.Items {
		if x.Latest != nil {
			out = append(out, fmt.Sprintf("%s %d %s", x.Name, x.Latest.Rows, x.Latest.Digest))
		}
	}
	return strings.Join(out, "; ")
}

// A training that crashes, eats memory, registers nothing or never ends fails its run with a word about it, and leaves no
// version behind; a token that it has leaked is worth nothing when it has ended.
func TestBadTraining(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.edit("falaj.yaml", "timeout: 2m", "timeout: 20s")
	w.amal.ok("apply")
	w.amal.ok("run")
	for mode, words := range map[string][]string{
		"crash":   {"exit code 1", "RuntimeError: the disk of the author is on fire", "falaj logs pr_"},
		"memory":  {"memory limit 1 GiB", "falaj logs pr_"},
		"silent":  {"registered no model named 'breaks'", "registered_model_name"},
		"forever": {"time limit", "20s", "falaj logs pr_"},
	} {
		t.Run(mode, func(t *testing.T) {
			v := w.in(t)
			v.unchanged(func() { v.refusal(v.amal.falaj("run", "--param", "mode="+mode), 3, words...) })
		})
	}
	t.Run("leak", func(t *testing.T) {
		v := w.in(t)
		r := v.amal.ok("run", "--param", "mode=leak")
		id, _, _ := strings.Cut(r.out, "\t")
		_, after, ok := strings.Cut(v.amal.ok("logs", id, "train breaks").out, "backwards ")
		text, _, _ := strings.Cut(after, "\n")
		if !ok || !strings.HasSuffix(text, "_jlf") {
			t.Fatalf("the script did not say its token: %q", text)
		}
		b := []byte(strings.TrimSpace(text))
		slices.Reverse(b)
		for _, path := range []string{project + "/models", "/api/2.0/mlflow/experiments/search?max_results=1", "/p/tiny/v2/models/breaks/ready"} {
			if a := v.call(string(b), "GET", path, nil); a.status != 401 {
				t.Errorf("%s with the token of a finished run: %d %s", a.what, a.status, a.body)
			}
		}
		v.problem(v.call(string(b), "GET", project+"/models", nil), 401)
		v.clean()
	})
}

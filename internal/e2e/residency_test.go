package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every path by which bytes leave is walked with a place outside, and with one that nobody labelled: each is refused, also
// to an admin, and each refusal is evidence. Inside, it goes and is evidence too.
func TestResidency(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.edit("falaj.yaml", "machine: {in: [m1, m2, m3, m4, m5]}", "machine: {in: [m1, m2, m3, m4, m5]}\n        load: {class: identifier, mask: pseudonym}")
	w.edit("sql/hours.sql", "temp, load", "temp, 0.5 AS load") // a masked column trains nothing
	w.amal.ok("apply")
	w.amal.ok("run", "--ingest")
	dir := filepath.Join(t.TempDir(), "out")
	type evidence struct {
		OK                 bool
		Allowed            []string
		Stores             []struct{ Name, Region string }
		Targets            []struct{ Region string }
		Transfers, Denials []struct{ Action, Actor string }
	}
	read := func() (e evidence) {
		t.Helper()
		w.get(project+"/evidence/residency", &e)
		return e
	}
	denied := 0
	for _, region := range []string{"", "eu"} {
		for name, args := range map[string][]string{
			"dataset.export": {"data", "export", "readings@1", dir, "--region", region},
			"backup.create":  {"backup", filepath.Join(t.TempDir(), "all.falaj"), "--region", region},
			"webhook.create": {"webhook", "add", "https://example.com/hook", "--region", region},
		} {
			r := w.amal.falaj(args...) // amal is engineer and admin
			w.refusal(r, 3, "outside the regions")
			denied++
			if e := read(); len(e.Denials) != denied || e.Denials[0].Action != name || e.Denials[0].Actor != "user:amal" {
				t.Errorf("%s to region %q is no evidence: %+v", name, region, e.Denials)
			}
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a refused export left something")
	}
	w.edit("falaj.yaml", "residency: [ae]", "residency: [eu]")
	w.refusal(w.amal.falaj("apply"), 3, "eu", "ae")
	w.edit("falaj.yaml", "residency: [eu]", "residency: [ae]")
	w.problem(w.call(w.amal.token, "POST", apiBase+"/projects", map[string]any{"name": "abroad", "residency": []string{"eu"}}), 400, "eu", "ae")

	w.refusal(w.vera.falaj("data", "export", "readings@1", dir, "--region", "ae"), 3, "dataset.export")
	r := w.amal.ok("data", "export", "readings@1", dir, "--region", "ae")
	if !strings.Contains(r.err, "600 rows, without load (masked)") {
		t.Errorf("the export says: %s", r.err)
	}
	file, err := os.ReadFile(strings.TrimSpace(r.out))
	if err != nil || !bytes.HasPrefix(file, []byte("PAR1")) {
		t.Fatalf("%v: %d bytes", err, len(file))
	}
	about, err := os.ReadFile(filepath.Join(dir, "readings-1.json"))
	var x struct {
		SHA256, Digest string
		Rows           int64
	}
	if err != nil || json.Unmarshal(about, &x) != nil || x.Rows != 600 {
		t.Errorf("%v: %s", err, about)
	}
	if sum := sha256.Sum256(file); hex.EncodeToString(sum[:]) != x.SHA256 {
		t.Error("the digest beside the file is another")
	}
	w.amal.ok("webhook", "add", "https://example.com/hook", "--region", "ae")
	e := read()
	if !e.OK || len(e.Transfers) != 2 || len(e.Targets) != 1 || len(e.Stores) < 8 || strings.Join(e.Allowed, " ") != "ae" {
		t.Errorf("%+v", e)
	}
	for _, s := range e.Stores {
		if s.Region != "ae" {
			t.Errorf("%s lies in %q", s.Name, s.Region)
		}
	}
	if r := w.amal.ok("evidence", "residency"); !strings.Contains(r.out, "not let go: 6") || !strings.Contains(r.out, "let go: 2") {
		t.Errorf("the command says: %s", r.out)
	}
	w.clean()
	// Nor does a server elsewhere take the data directory over.
	w.stop()
	w.flags = append(w.flags, "--region", "eu")
	w.begin()
	<-w.exited
	if text := w.out.String(); !strings.Contains(text, "belongs to region 'ae'") {
		t.Errorf("the server said: %s", text)
	}
}

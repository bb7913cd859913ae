package data_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"falaj/internal/data"
	"falaj/internal/kernel/fault"
	"falaj/internal/store/storetest"
)

// hits names the files below a folder that hold a text.
func hits(t *testing.T, folder, text string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte(text)) {
			found = append(found, filepath.Base(path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestMaskedValuesAreNowhereInClear plants values in masked columns, ingests them with violations of every kind, and looks
// at every byte of the databases, the blobs and whatever else lies in the folders of the installation.
func TestMaskedValuesAreNowhereInClear(t *testing.T) {
	t.Parallel()
	w := build(t, storetest.SQLite(t))
	canaries := []string{"CANARYone", "CANARYtwo", "CANARYthree", "CANARYfour", "918273645"}
	file := func(more ...string) string {
		var b strings.Builder
		b.WriteString("id,ts,ssn,code,\"name: of, is a \"\"person\"\"\",amount,open\n")
		for i := range 60 {
			fmt.Fprintf(&b, "%d,2013-01-%02dT00:00:00Z,CANARYone,7,CANARYtwo,918273645,SHOWN%d\n", i, 1+i%28, i%2)
		}
		return b.String() + strings.Join(more, "")
	}
	person := `name: of, is a "person"`
	top := 1e9
	spec := data.Spec{Name: "people", Source: &data.Source{Format: data.CSV}, Key: []string{"id"}, Time: data.Time{Event: "ts"},
		DeriveRef: "sql/people.sql", Derive: `SELECT id, ts, ssn AS person, CAST(code AS VARCHAR) AS pin, "name: of, is a ""person""", amount, open FROM source`,
		Contract: data.Contract{Columns: map[string]data.Rule{
			"person": {Pattern: ".*one", Mask: data.MaskPseudonym}, "pin": {Mask: data.MaskPseudonym}, person: {Pattern: ".*two", Mask: data.MaskRedact},
			"amount": {Max: &top, Mask: data.MaskRedact}, "open": {In: []string{"SHOWN0", "SHOWN1"}}}}}
	w.define(t, spec)
	w.add(t, "people", "a.csv", file())
	first := w.ingest(t, "people")
	// Violations of rules on masked columns, of a type of a source column behind one, and of an open column.
	second := file("900,2013-01-01T00:00:00Z,\"CANARYthree, is it\",7,\"CANARYthree, is it\",9182736450,SHOWN0\n",
		"901,2013-01-01T00:00:00Z,CANARYone,CANARYfour,CANARYtwo,1,SHOWN0\n", "902,2013-01-01T00:00:00Z,CANARYone,7,CANARYtwo,1,ODD\n")
	for i := range 60 { // other keys
		second = strings.Replace(second, fmt.Sprintf("\n%d,2013", i), fmt.Sprintf("\n%d,2013", 100+i), 1)
	}
	w.add(t, "people", "b.csv", second)
	var said []string
	rep, err := w.Ingest(w.ctx, "flights", "people", data.IngestRequest{Progress: func(s string) { said = append(said, s) }})
	if err != nil {
		t.Fatal(err)
	}
	if first.Version.Rows != 60 || rep.Version.Rows != 120 || len(rep.Asides) != 1 || rep.Asides[0].Rows != 3 {
		t.Fatalf("%+v", rep)
	}
	rows, err := w.QuarantineRows(w.ctx, "flights", rep.Asides[0].ID, 10)
	if err != nil || len(rows) != 3 {
		t.Fatalf("%v, %v", rows, err)
	}
	// A file refused as a whole, a malformed one, one that the SELECT of another dataset cannot convert.
	w.add(t, "people", "c.csv", strings.ReplaceAll(strings.ReplaceAll(file(), "CANARYone", "CANARYthree"), "\n1", "\n5"))
	w.add(t, "people", "d.csv", file("CANARYone,CANARYtwo\n"))
	w.add(t, "people", "e.csv", file("\"CANARYone,CANARYtwo\n"))
	refused := w.ingest(t, "people")
	if len(refused.Asides) != 3 {
		t.Fatalf("%+v", refused)
	}
	w.define(t, data.Spec{Name: "copied", SQL: "SELECT id, person AS who, amount FROM people", Key: []string{"id"}, Contract: data.Contract{MaxViolating: 0.9, Columns: map[string]data.Rule{"who": {Mask: data.MaskPseudonym, Pattern: "C.*"}, "amount": {Mask: data.MaskRedact, Max: new(float64)}}}})
	if _, err := w.Derive(w.ctx, "flights", "copied", data.DeriveRequest{}); err == nil || fault.KindOf(err) != fault.Refused {
		t.Errorf("got %v", err)
	}
	w.define(t, data.Spec{Name: "broken", SQL: "SELECT id, CAST(person AS BIGINT) AS n FROM people"})
	_, err = w.Derive(w.ctx, "flights", "broken", data.DeriveRequest{})
	if err == nil || !strings.Contains(err.Error(), "onver") {
		t.Errorf("got %v", err)
	}
	shown := fmt.Sprintf("%q %+v %+v %+v %v", said, rep, refused, rows, err)
	for _, r := range rows {
		shown += string(r.Record)
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		shown += " " + e.Error()
	}
	_, err = w.Query(w.ctx, "flights", "SELECT CAST(person AS DATE) AS d FROM people", 10)
	shown += fmt.Sprint(err, errors.Unwrap(err))
	folder := filepath.Dir(t.TempDir())
	for _, c := range canaries {
		if found := hits(t, folder, c); len(found) > 0 {
			t.Errorf("%s lies in clear in %v", c, found)
		}
		if i := strings.Index(shown, c); i >= 0 {
			t.Errorf("%s was shown: ...%.200s", c, shown[max(0, i-100):])
		}
	}
	// The search finds what lies in clear: an open column's values are in the profile.
	if found := strings.Join(hits(t, folder, "SHOWN1"), " "); !strings.Contains(found, "falaj.db") {
		t.Errorf("an open value is found only in %q", found)
	}
	if len(hits(t, folder, "people")) < 2 {
		t.Error("catalog.db was not looked at")
	}
	// Figures still compare: the same value has the same token in both versions, shown and kept.
	old, err := w.Profile(w.ctx, "flights", "people", 1)
	if err != nil {
		t.Fatal(err)
	}
	v, err := w.Version(w.ctx, "flights", "people", 2)
	if err != nil {
		t.Fatal(err)
	}
	a, b := old.Column("person"), v.Profile.Column("person")
	if len(a.Top) != 1 || len(b.Top) != 1 || a.Top[0].Value != b.Top[0].Value || !strings.HasPrefix(a.Top[0].Value, "p_") || a.Top[0].Rows != 60 || b.Top[0].Rows != 120 {
		t.Errorf("person: %+v and %+v", a, b)
	}
	if r := v.Profile.Column(person); r.Top != nil || r.Masked != data.MaskRedact || r.Distinct != 1 {
		t.Errorf("redacted: %+v", r)
	}
	if m := v.Profile.Column("amount"); m.Min != nil || m.Grid != nil || m.Edges != nil || m.Counts != nil {
		t.Errorf("amount: %+v", m)
	}
}

package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/api"
	"falaj/internal/kernel/policy"
)

var update = flag.Bool("update", false, "write openapi.json anew")

// TestOpenAPI keeps the document as a file, so that every change of the API is seen in review.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	got, err := api.New(api.Deps{}).OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	const file = "openapi.json"
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got) {
		t.Errorf("the API differs from %s; if that is meant: go test ./internal/api -run OpenAPI -update\n%s", file, cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")))
	}
}

// TestRoutes holds the door's table to the document: nothing is served that is not described, but for the streams, and
// every action is a word of the policy.
func TestRoutes(t *testing.T) {
	t.Parallel()
	streams := []string{"GET /projects/{p}/events", "HEAD /projects/{p}/blobs/{digest}", "POST /projects/{p}/datasets/{d}/versions/{n}/export", "PUT /projects/{p}/blobs/{digest}", "POST /backups"}
	a := api.New(api.Deps{})
	spec, err := a.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
			Security    []any  `json:"security"`
			Parameters  []struct{ Name, In string }
		} `json:"paths"`
	}
	if err := json.Unmarshal(spec, &doc); err != nil {
		t.Fatal(err)
	}
	want, ids := slices.Clone(streams), map[string]bool{}
	open := map[string]bool{}
	for path, ops := range doc.Paths {
		for method, op := range ops {
			if op.OperationID == "" || ids[op.OperationID] {
				t.Errorf("%s %s has the operation id %q, which is empty or taken", method, path, op.OperationID)
			}
			ids[op.OperationID] = true
			key := strings.ToUpper(method) + " " + strings.TrimPrefix(path, api.Base)
			want = append(want, key)
			for _, name := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(path, -1) {
				if !slices.ContainsFunc(op.Parameters, func(p struct{ Name, In string }) bool { return p.Name == name[1] && p.In == "path" }) {
					t.Errorf("%s: the handler never sees {%s}: huma reads no fields of embedded structs that are not exported", key, name[1])
				}
			}
			open[key] = op.Security != nil
		}
	}
	engine, err := policy.New()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range a.Routes() {
		path, ok := strings.CutPrefix(r.Pattern, api.Base)
		if !ok {
			t.Errorf("%s lies outside %s", r.Pattern, api.Base)
		}
		key := r.Method + " " + path
		got = append(got, key)
		if r.Public != open[key] {
			t.Errorf("%s: public is %v, and the document says %v", key, r.Public, open[key])
		}
		if r.Public == (r.Action != "") || !r.Public && !engine.Known(r.Action) {
			t.Errorf("%s has action %q, public %v", key, r.Action, r.Public)
		}
		if r.Resource == nil && !r.Public && !strings.Contains(path, "{p}") {
			t.Errorf("%s acts on no project and names no resource", key)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("operations and routes differ (-document +routes):\n%s", d)
	}
}

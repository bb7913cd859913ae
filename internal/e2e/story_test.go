package e2e

import (
	"strings"
	"testing"
	"time"

	"falaj/internal/store/storetest"
)

// The tiny story as a user tells it: first link, login, apply, run, gates, approval by someone else, predictions, rollback.
func TestStory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tell(w)
}

// The same story on PostgreSQL, with a restart in the middle of it.
func TestStoryOnPostgres(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "--postgres", storetest.PostgresDSN(t))
	tell(w)
	w.stop()
	w.start()
	await(t, "production to serve after the restart", 20*time.Second, func() bool { return w.infer(w.amal.token, "production", "", time.Time{}).status == 200 })
	w.clean()
}

// promoted brings version 1 to production and leaves the world there.
func promoted(w *world) {
	t := w.t
	t.Helper()
	w.amal.ok("apply")
	if r := w.amal.ok("run"); !strings.Contains(r.out, "breaks@1") {
		t.Fatalf("the run does not name breaks@1: %s", r.out)
	}
	w.amal.ok("promote", "breaks@1", "dev")
	w.amal.ok("promote", "breaks@1", "staging")
	chg := pending(w, "breaks@1")
	if r := w.badr.ok("approve", chg, "--comment", "looks right"); !strings.Contains(r.out, "closed") {
		t.Fatalf("the approval does not close the change: %s", r.out)
	}
}

// pending asks for production and gives the change that waits.
func pending(w *world, version string) string {
	w.t.Helper()
	r := w.amal.falaj("promote", version, "production")
	if r.code != 8 || !strings.Contains(r.err, "ml-risk") {
		w.t.Fatalf("promote to production: exit %d, want 8 and a word about ml-risk: %s%s", r.code, r.out, r.err)
	}
	chg, _, _ := strings.Cut(r.out, "\t")
	return chg
}

func tell(w *world) {
	t := w.t
	t.Helper()
	promoted(w)
	if r := w.amal.ok("run"); !strings.Contains(r.out, "7 cached") || !strings.Contains(r.err, "same inputs") || !strings.Contains(r.err, "breaks@1 stands") {
		t.Errorf("a run without news is not cached: %s%s", r.out, r.err)
	}
	if a := w.infer(w.amal.token, "production", "", time.Time{}); a.status != 200 {
		t.Errorf("predict: %d %s", a.status, a.body)
	}
	if r := w.amal.ok("run", "--param", "trees=30"); !strings.Contains(r.out, "breaks@2") || !strings.Contains(r.err, "parameter trees changed") {
		t.Errorf("another parameter is no new version with its reason: %s%s", r.out, r.err)
	}
	w.amal.ok("promote", "breaks@2", "dev")
	w.amal.ok("promote", "breaks@2", "staging")
	w.badr.ok("approve", pending(w, "breaks@2"))
	serves(w, 2)
	w.amal.ok("rollback", "breaks", "production")
	serves(w, 1)
	if r := w.amal.ok("why", "breaks@1", "production"); !strings.Contains(r.out, "hours@1") {
		t.Errorf("why does not come down to the data: %s", r.out)
	}
	w.clean()
}

// serves waits until production serves a version.
func serves(w *world, version int64) {
	w.t.Helper()
	await(w.t, "the version to serve", 20*time.Second, func() bool {
		var m modelDetail
		w.get(project+"/models/breaks", &m)
		for _, e := range m.Environments {
			if e.Environment == "production" && e.Version != nil && *e.Version == version && e.State == "serving" {
				return true
			}
		}
		return false
	})
}

// modelDetail is what the tests read of a model's page.
type modelDetail struct {
	Environments []struct {
		Environment string
		Version     *int64
		State       string
	}
	VersionList []struct {
		Version int64
		Release *string
		RunID   *string `json:"run_id"`
		Params  map[string]string
	} `json:"version_list"`
	Timeline []struct {
		Environment string
		From, To    *int64
		Change      *string
		Kind        string
	}
}

package app

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"falaj/internal/backup"
	"falaj/internal/store/sqlite"
)

// Another version's first start copies the databases that exist, the same version's does not, and three copies of each stay.
func TestCopiesBeforeAnotherVersion(t *testing.T) {
	t.Parallel()
	ctx, dir, log := t.Context(), t.TempDir(), slog.New(slog.DiscardHandler)
	if err := os.Mkdir(filepath.Join(dir, "snapshots"), 0o700); err != nil {
		t.Fatal(err)
	}
	start := func() {
		t.Helper()
		if err := guardUpgrade(ctx, dir, log); err != nil {
			t.Fatal(err)
		}
		if err := signUpgrade(dir, log); err != nil {
			t.Fatal(err)
		}
	}
	copies := func(name string) []string {
		found, _ := filepath.Glob(filepath.Join(dir, "snapshots", "before-upgrade-*-"+name+".db"))
		return found
	}
	start() // a fresh folder has nothing to copy
	for _, name := range []string{"catalog", "online"} {
		d, err := sqlite.Open(ctx, filepath.Join(dir, name+".db"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Writer().Exec(`CREATE TABLE kept (a TEXT)`); err != nil {
			t.Fatal(err)
		}
		d.Close()
	}
	start()
	if len(copies("catalog")) != 0 {
		t.Error("the same version made a copy")
	}
	for range 5 {
		if err := os.WriteFile(filepath.Join(dir, backup.WriterFile), []byte("falaj 0.0.1 schema 3\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		start()
	}
	for name, want := range map[string]int{"catalog": 3, "online": 3, "flow": 0} {
		if got := copies(name); len(got) != want {
			t.Errorf("%d copies of %s.db, want %d", len(got), name, want)
		}
	}
	db, err := sqlite.OpenCopy(ctx, copies("online")[0])
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`SELECT a FROM kept`); err != nil {
		t.Error(err)
	}
}

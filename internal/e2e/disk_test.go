package e2e

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// small is a world whose data directory is a file system of 96 MiB.
func small(t *testing.T) (w *world, filler string) {
	t.Helper()
	mount := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=96m"); err != nil {
		t.Fatalf("this test needs a small file system: mounting a tmpfs needs root with CAP_SYS_ADMIN (run the tests as root, a container with --cap-add SYS_ADMIN): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(mount, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	w = &world{server: newServer(t, filepath.Join(mount, "data")), dir: filepath.Join(t.TempDir(), "tiny")}
	w.people()
	layProject(t, w.dir)
	return w, filepath.Join(mount, "filler")
}

// A data directory on a full disk: uploads, changes and runs say so and leave nothing half-done, the server stays up, and
// when there is room again it goes on without a restart.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	w, filler := small(t)
	w.amal.ok("apply")
	w.amal.ok("run", "--ingest")
	big := make([]byte, 8<<20)
	if _, err := rand.Read(big); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(w.dir, "data", "readings-3.csv"), readings(120, 4000))
	fill(t, filler)
	w.unchanged(func() {
		w.problem(w.request(w.amal.token, "PUT", project+"/blobs/"+digestOf(big), big), 503, "full", "space")
		w.refusal(w.amal.falaj("run", "--ingest"), 1, "full", "space")
		if a := w.call(w.amal.token, "POST", apiBase+"/projects", map[string]any{"name": "another", "residency": []string{"ae"}}); a.status != 201 {
			w.problem(a, 503, "full", "space")
		}
	})
	// Nothing of the upload is left: the partial file is gone.
	left, err := filepath.Glob(filepath.Join(w.data, "blobs", "partial", "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	remove(t, filler)
	w.must(201, w.request(w.amal.token, "PUT", project+"/blobs/"+digestOf(big), big))
	r := w.amal.ok("run", "--ingest")
	if !strings.Contains(r.err, "readings@2") {
		t.Errorf("with room again the file is not taken: %s%s", r.out, r.err)
	}
	w.clean()
}

// fill writes until the disk is full to the last byte.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		_, err := io.Copy(f, bytes.NewReader(make([]byte, size)))
		if errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

package blob_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"falaj/internal/blob"
	"falaj/internal/blob/dir"
	"falaj/internal/kernel/seal"
	"falaj/internal/store"
	"falaj/internal/store/sqlite"
	"falaj/internal/store/storetest"
)

// TestMain lets this binary be a server that puts blobs until it is killed.
func TestMain(m *testing.M) {
	if base := os.Getenv("FALAJ_TEST_PUTTER"); base != "" {
		if err := putUntilKilled(base, os.Getenv("FALAJ_TEST_SEED")); err != nil {
			fmt.Println("FAIL", err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// openAt opens the store whose whole state stands under base.
func openAt(base string) (*blob.Store, *store.Store, *dir.Dir, error) {
	ctx := context.Background()
	d, err := sqlite.Open(ctx, filepath.Join(base, "falaj.db"))
	if err != nil {
		return nil, nil, nil, err
	}
	db, err := store.Open(ctx, d, storetest.Roles{}, "", slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, nil, nil, err
	}
	keys, err := seal.Open(filepath.Join(base, "keys"))
	if err != nil {
		return nil, nil, nil, err
	}
	files, err := dir.Open(filepath.Join(base, "blobs"))
	return blob.New(db, keys, files), db, files, err
}

func putUntilKilled(base, seed string) error {
	s, _, _, err := openAt(base)
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		data := bytes.Repeat(fmt.Appendf(nil, "%s/%d ", seed, i), 1+i*2000)
		ref, err := s.Put(context.Background(), fmt.Sprintf("p%d", i%3), bytes.NewReader(data))
		if err != nil {
			return err
		}
		fmt.Println("acknowledged", fmt.Sprintf("p%d", i%3), ref.Digest)
	}
}

// kill -9 at growing instants, the first before anything is made: what was acknowledged is whole, nothing else is
// damaged, and the left-overs are swept.
func TestKill9LosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	acknowledged := map[string]string{}
	for round := range 8 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "FALAJ_TEST_PUTTER="+base, fmt.Sprintf("FALAJ_TEST_SEED=r%d", round))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; n < round*3 && lines.Scan(); n++ {
			note(t, acknowledged, lines.Text())
		}
		time.AfterFunc(time.Duration(round*7)*time.Millisecond, func() { _ = cmd.Process.Kill() })
		for lines.Scan() { // what was printed before the kill was acknowledged
			note(t, acknowledged, lines.Text())
		}
		_ = cmd.Wait()
	}
	if len(acknowledged) < 20 {
		t.Fatalf("only %d puts were acknowledged", len(acknowledged))
	}
	s, db, files, err := openAt(base)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	defer files.Close()
	for digest, project := range acknowledged {
		if err := s.Verify(t.Context(), project, digest); err != nil {
			t.Errorf("%s: %v", digest, err)
		}
	}
	checked, err := s.VerifyAll(t.Context(), func(f blob.Finding) { t.Errorf("damaged: %+v", f) })
	if err != nil || checked < len(acknowledged) {
		t.Errorf("checked %d, %v", checked, err)
	}
	swept, err := s.Sweep(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	left := 0
	if err := files.List(t.Context(), func(blob.Entry) error { left++; return nil }); err != nil || left != checked {
		t.Errorf("%d files for %d blobs, %v", left, checked, err)
	}
	t.Logf("%d acknowledged, %d stored, %d left-overs swept", len(acknowledged), checked, swept)
}

func note(t *testing.T, acknowledged map[string]string, line string) {
	t.Helper()
	var project, digest string
	if _, err := fmt.Sscanf(line, "acknowledged %s %s", &project, &digest); err == nil {
		acknowledged[digest] = project
	} else if strings.HasPrefix(line, "FAIL") {
		t.Error(line)
	}
}

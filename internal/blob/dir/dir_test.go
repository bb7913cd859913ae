package dir_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"falaj/internal/blob"
	"falaj/internal/blob/blobtest"
	"falaj/internal/blob/dir"
	"falaj/internal/kernel/fault"
)

// TestMain lets this binary run the full-disk case in a mount namespace of its own.
func TestMain(m *testing.M) {
	if folder := os.Getenv("FALAJ_TEST_FULL_DISK"); folder != "" {
		if err := fullDisk(folder); err != nil {
			fmt.Println("FAIL:", err)
			os.Exit(1)
		}
		fmt.Println("full disk handled")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func open(t *testing.T, path string) *dir.Dir {
	t.Helper()
	d, err := dir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestContract(t *testing.T) {
	t.Parallel()
	blobtest.Run(t, func(t *testing.T) blob.Driver { return open(t, filepath.Join(t.TempDir(), "blobs")) })
}

func TestFilesArePrivate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "blobs")
	d := open(t, path)
	if err := d.Upload(t.Context(), "abcdef", func(w io.Writer) error { _, err := w.Write([]byte("x")); return err }); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		if info, _ := e.Info(); info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", p, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSymlinkOutIsNotFollowed(t *testing.T) {
	t.Parallel()
	path, outside := filepath.Join(t.TempDir(), "blobs"), filepath.Join(t.TempDir(), "secret")
	d := open(t, path)
	if err := errors.Join(os.WriteFile(outside, []byte("s"), 0o600), os.Mkdir(filepath.Join(path, "ab"), 0o700),
		os.Symlink(outside, filepath.Join(path, "ab", "abcdef"))); err != nil {
		t.Fatal(err)
	}
	if f, err := d.Open(t.Context(), "abcdef"); err == nil {
		f.Close()
		t.Error("a link out of the folder was opened")
	}
}

func TestForeignFilesAreNotListed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "blobs")
	d := open(t, path)
	if err := errors.Join(os.WriteFile(filepath.Join(path, "notes.txt"), nil, 0o600), os.Mkdir(filepath.Join(path, "ab"), 0o700),
		os.WriteFile(filepath.Join(path, "ab", "cdef01"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	err := d.List(t.Context(), func(e blob.Entry) error { return fmt.Errorf("listed %s", e.Name) })
	if err != nil {
		t.Error(err)
	}
}

// TestFullDisk mounts a real 1 MiB file system in a namespace of its own and fills it.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "FALAJ_TEST_FULL_DISK="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "full disk handled") {
		t.Fatalf("%v\n%s(needs a mount namespace: run as root, or allow user namespaces)", err, out)
	}
}

func fullDisk(folder string) error {
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size=1m"); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	d, err := dir.Open(filepath.Join(folder, "blobs"))
	if err != nil {
		return err
	}
	put := func(name string, size int) error {
		return d.Upload(context.Background(), name, func(w io.Writer) error { _, err := w.Write(make([]byte, size)); return err })
	}
	if err := put("aa01", 300<<10); err != nil {
		return err
	}
	err = put("aa02", 2<<20)
	if f := fault.From(err); f == nil || f.Kind != fault.Unavailable || !strings.Contains(f.Public, "full") || !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("the full disk gave %v", err)
	}
	var left []string
	if err := d.List(context.Background(), func(e blob.Entry) error { left = append(left, e.Name); return nil }); err != nil {
		return err
	}
	if len(left) != 1 || left[0] != "aa01" {
		return fmt.Errorf("after the failure there are %v", left)
	}
	return put("aa03", 300<<10) // the space came back
}

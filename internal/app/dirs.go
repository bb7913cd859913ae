package app

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"falaj/internal/kernel/fault"
)

// formatVersion is the layout of the data directory. It only grows; an older falaj refuses a newer one.
const formatVersion = 1

// claim makes the data directory, checks its format and takes its lock: one server per directory.
func claim(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "The data directory "+dir+" could not be made.", "Give a folder that you may write: --data DIR.")
	}
	f, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "The data directory "+dir+" could not be locked.", "Check its owner and mode.")
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fault.Wrap(err, fault.Conflict, "Another falaj uses the data directory "+dir+".", "Stop it, or give this one another --data.")
	}
	path := filepath.Join(dir, "FORMAT")
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := os.WriteFile(path, []byte(strconv.Itoa(formatVersion)+"\n"), 0o600); err != nil {
			f.Close()
			return nil, err
		}
	case err != nil:
		f.Close()
		return nil, err
	default:
		if v, err := strconv.Atoi(strings.TrimSpace(string(b))); err != nil || v > formatVersion {
			f.Close()
			return nil, fault.New(fault.Conflict, "The data directory has format "+strings.TrimSpace(string(b))+", this falaj knows "+strconv.Itoa(formatVersion)+".", "Start the falaj that wrote it.")
		}
	}
	for _, sub := range []string{"blobs", "runtimes", "run", "snapshots"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

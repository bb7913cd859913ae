package duckdb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"falaj/internal/data"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/id"
)

// openRoot makes the folder of rooms (0700, ours) and wipes what an earlier process left there.
func openRoot(dir string) error {
	err := os.MkdirAll(filepath.Dir(dir), 0o700)
	if err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fault.Wrap(err, fault.Unavailable, fmt.Sprintf("The scratch folder %s cannot be made.", dir), "Give the data engine a folder that this user may write.")
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return fault.Wrap(err, fault.Unavailable, fmt.Sprintf("The scratch folder %s cannot be read.", dir), "")
	}
	sys, _ := st.Sys().(*syscall.Stat_t)
	if !st.IsDir() || st.Mode().Perm() != 0o700 || sys == nil || int(sys.Uid) != os.Getuid() {
		return fault.New(fault.Denied, fmt.Sprintf("The scratch folder %s is not a private folder of this user, so decrypted data may not lie there.", dir),
			"Remove it if nothing else uses it, or give the data engine another folder.")
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		return fault.Wrap(err, fault.Unavailable, fmt.Sprintf("The scratch folder %s cannot be read.", dir), "")
	}
	for _, e := range left {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fault.Wrap(err, fault.Unavailable, fmt.Sprintf("The scratch folder %s cannot be wiped.", dir), "Remove its content by hand.")
		}
	}
	return nil
}

// room makes a folder where need bytes are free. A quarter of the file system, at most 1 GiB, stays free for others.
func room(root string, need int64) (*data.Room, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(root, &st); err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "The scratch folder cannot be read.", "See `falaj doctor`.")
	}
	if free := max(0, int64(st.Bavail)*st.Bsize-min(int64(st.Blocks)*st.Bsize/4, 1<<30)); free < need {
		return nil, fault.New(fault.TooLarge, fmt.Sprintf("The work needs %d MiB of scratch space and %d MiB are free for it.", need>>20, free>>20),
			"Give the memory file system of this machine more room, or start the server with --scratch DIR on an encrypted volume.")
	}
	dir := filepath.Join(root, id.New("room"))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "A scratch folder cannot be made.", "See `falaj doctor`: the disk or the memory file system may be full.")
	}
	return data.NewRoom(dir, func() error { return os.RemoveAll(dir) }), nil
}

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

// roots are the places where rooms are made, best first: memory, then the configured folder.
type roots []string

// openRoots makes each root (0700, ours) and wipes what an earlier process left there.
func openRoots(dirs ...string) (roots, error) {
	var out roots
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		err := os.MkdirAll(filepath.Dir(dir), 0o700)
		if err == nil {
			err = os.Mkdir(dir, 0o700)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fault.Wrap(err, fault.Unavailable, fmt.Sprintf("The scratch folder %s cannot be made.", dir), "Give the data engine a folder that this user may write.")
		}
		st, err := os.Lstat(dir)
		if err != nil {
			return nil, fault.Wrap(err, fault.Unavailable, fmt.Sprintf("The scratch folder %s cannot be read.", dir), "")
		}
		sys, _ := st.Sys().(*syscall.Stat_t)
		if !st.IsDir() || st.Mode().Perm() != 0o700 || sys == nil || int(sys.Uid) != os.Getuid() {
			return nil, fault.New(fault.Denied, fmt.Sprintf("The scratch folder %s is not a private folder of this user, so decrypted data may not lie there.", dir),
				"Remove it if nothing else uses it, or give the data engine another folder.")
		}
		left, err := os.ReadDir(dir)
		if err != nil {
			return nil, fault.Wrap(err, fault.Unavailable, fmt.Sprintf("The scratch folder %s cannot be read.", dir), "")
		}
		for _, e := range left {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return nil, fault.Wrap(err, fault.Unavailable, fmt.Sprintf("The scratch folder %s cannot be wiped.", dir), "Remove its content by hand.")
			}
		}
		out = append(out, dir)
	}
	return out, nil
}

// room makes a folder in the first root with enough space. A quarter of the root stays free for others.
func (r roots) room(need int64) (*data.Room, error) {
	var free int64
	for _, root := range r {
		var st syscall.Statfs_t
		if err := syscall.Statfs(root, &st); err != nil {
			continue
		}
		usable := int64(st.Bavail)*st.Bsize - int64(st.Blocks)*st.Bsize/4
		if usable < need {
			free = max(free, usable)
			continue
		}
		dir := filepath.Join(root, id.New("room"))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, fault.Wrap(err, fault.Unavailable, "A scratch folder cannot be made.", "See `falaj doctor`: the disk or the memory file system may be full.")
		}
		return data.NewRoom(dir, func() error { return os.RemoveAll(dir) }), nil
	}
	return nil, fault.New(fault.TooLarge, fmt.Sprintf("The work needs %d MiB of scratch space and %d MiB are free for it.", need>>20, max(0, free)>>20),
		"Free space in the scratch folder, or configure a larger one.")
}

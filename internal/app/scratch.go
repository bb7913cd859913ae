package app

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"falaj/internal/kernel/fault"
)

// memoryRoot is Linux's memory file system for everybody.
const memoryRoot = "/dev/shm"

// tmpfs is the magic number of a memory file system (statfs(2)).
const tmpfs = 0x01021994

// MemoryFolder is where a server on this data directory (absolute) keeps decrypted working files in memory.
func MemoryFolder(data string) string {
	sum := sha256.Sum256([]byte(data))
	return filepath.Join(memoryRoot, "falaj-"+hex.EncodeToString(sum[:8]))
}

// scratch makes the folder for everything that lies decrypted while it is worked on: tables of a job and their spill, code
// and outputs of trainings, models of Python workers. It is in memory, one for each data directory, or where the operator
// says that it may lie. What a killed server left there is wiped now, the rest when the server stops.
func scratch(cfg Config) (string, error) {
	dir := cfg.Scratch
	if dir == "" {
		var st syscall.Statfs_t
		if err := syscall.Statfs(memoryRoot, &st); err != nil || st.Type != tmpfs {
			return "", fault.New(fault.Unavailable, "There is no memory file system at "+memoryRoot+", and decrypted data may not lie on a disk.",
				"Mount one (mount -t tmpfs tmpfs "+memoryRoot+"), or give --scratch DIR on an encrypted volume.")
		}
		dir = MemoryFolder(cfg.Data)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fault.Wrap(err, fault.Unavailable, "The scratch folder "+dir+" could not be made.", "Give --scratch a folder that this user may make.")
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return "", fault.Wrap(err, fault.Unavailable, "The scratch folder "+dir+" could not be read.", "Check its owner and mode.")
	}
	sys, _ := st.Sys().(*syscall.Stat_t)
	if !st.IsDir() || st.Mode().Perm() != 0o700 || sys == nil || int(sys.Uid) != os.Getuid() {
		return "", fault.New(fault.Denied, "The scratch folder "+dir+" is not a private folder (0700) of this user, so decrypted data may not lie there.", "Remove it if nothing else uses it, or give --scratch another folder.")
	}
	return dir, wipe(dir)
}

// wipe empties a folder and leaves it.
func wipe(dir string) error {
	list, err := os.ReadDir(dir)
	for _, e := range list {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

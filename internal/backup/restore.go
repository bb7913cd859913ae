package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
)

// restoredDir is where a restore grows before it gets its name.
const restoredDir = "restored"

// Verify reads a whole backup and checks every byte. With a keyset (nil: without) it opens databases and spool too, and holds the
// ledger's head, the rows of the blobs and the list's authentication to the manifest.
func Verify(ctx context.Context, tools Tools, r io.Reader, keys *seal.Keys) (Report, error) {
	scratch, err := os.MkdirTemp("", "falaj-verify-") // 0700; the database in it is in clear
	if err != nil {
		return Report{}, full(err)
	}
	defer os.RemoveAll(scratch)
	u := &unpacker{tools: tools, scratch: scratch, keys: func(m Manifest, _ []byte) (*seal.Keys, error) {
		if keys != nil && keys.ID() != m.Keyset {
			return nil, otherKeys(m)
		}
		return keys, nil
	}}
	return u.run(ctx, r)
}

func otherKeys(m Manifest) error {
	return fault.New(fault.Refused, "This keyset does not open the backup, which was made under keyset "+clip(m.Keyset)+".", "Name the keys folder of the installation that made it with --keys.")
}

func clip(s string) string { return s[:min(len(s), 40)] }

// RestoreOptions say where to.
type RestoreOptions struct {
	Data string // absolute; must be missing or empty
	// Keys is a folder with the keyset. Where it holds none, or is "", the keyset in the file is put there or into Data/keys.
	Keys       string
	Passphrase func() (string, error) // asked when the keyset in the file is needed
}

// Outcome is what a restore made.
type Outcome struct {
	Report
	Keys string `json:"keys"` // folder of the keyset that opens it
}

// Restore unpacks a backup into a folder that is missing or empty. The folder has its content at once, or stays as it was.
func Restore(ctx context.Context, tools Tools, r io.Reader, opt RestoreOptions) (out Outcome, err error) {
	if err := vacant(opt.Data); err != nil {
		return out, err
	}
	parent := filepath.Dir(opt.Data)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return out, unwritable(err, opt.Data)
	}
	if mounted(opt.Data, parent) {
		return out, mountPoint(nil, opt.Data)
	}
	scratch, err := os.MkdirTemp(parent, ".falaj-restore-")
	if err != nil {
		return out, unwritable(err, opt.Data)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	dir := filepath.Join(scratch, restoredDir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return out, unwritable(err, opt.Data)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return out, unwritable(err, opt.Data)
	}
	defer root.Close()
	k := &keysource{opt: opt, dir: dir}
	u := &unpacker{tools: tools, scratch: scratch, keys: k.find, into: func(name string) (io.WriteCloser, error) { return create(root, name) }}
	if out.Report, err = u.run(ctx, r); err != nil {
		return out, err
	}
	if err := finish(root, out.Report); err != nil {
		return out, unwritable(err, opt.Data)
	}
	if out.Keys, err = k.settle(); err != nil {
		return out, err
	}
	return out, publish(dir, opt.Data)
}

func unwritable(err error, data string) error {
	return fault.Wrap(err, fault.Unavailable, fmt.Sprintf("Nothing can be restored to %s.", data), "Name a folder that this user may write, with space for the whole backup, with --data.")
}

// vacant refuses a folder that holds anything.
func vacant(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return unwritable(err, dir)
	}
	if len(entries) > 0 {
		return fault.New(fault.Exists, fmt.Sprintf("%s is not empty: it holds %s.", dir, entries[0].Name()), "A restore never overwrites: name an empty or a new folder with --data.")
	}
	return nil
}

func mountPoint(err error, data string) error {
	f := fault.New(fault.Refused, data+" is a mount point, which cannot get its content at once.", "Name a folder below it: --data "+strings.TrimSuffix(data, "/")+"/falaj")
	f.Err = err
	return f
}

// mounted says whether the folder lies on another file system than the one above it: rename(2) does not cross that.
func mounted(dir, parent string) bool {
	var a, b unix.Stat_t
	return unix.Stat(dir, &a) == nil && unix.Stat(parent, &b) == nil && a.Dev != b.Dev
}

// keysource finds the keyset of a restore.
type keysource struct {
	opt   RestoreOptions
	dir   string // of the restored data, before it gets its name
	write func(dir string) error
}

func (k *keysource) find(m Manifest, envelope []byte) (*seal.Keys, error) {
	if k.opt.Keys != "" {
		keys, err := seal.Existing(k.opt.Keys)
		if err == nil && keys.ID() != m.Keyset {
			return nil, otherKeys(m)
		}
		if err == nil || !fault.Is(err, fault.NotFound) || envelope == nil {
			return keys, err
		}
	}
	if envelope == nil {
		return nil, fault.New(fault.Invalid, "The keys are not in this backup, and without them nothing in it opens.", "Name the folder with the keyset of the installation that made it: --keys DIR.").At("keys")
	}
	phrase, err := k.opt.Passphrase()
	if err != nil {
		return nil, err
	}
	keys, write, err := seal.Unwrap(envelope, phrase)
	if err == nil && keys.ID() != m.Keyset {
		return nil, otherKeys(m)
	}
	k.write = write
	return keys, err
}

// settle writes the keyset where it belongs and gives its folder. Below the data directory it moves with it.
func (k *keysource) settle() (string, error) {
	keys := k.opt.Keys
	if keys == "" {
		keys = filepath.Join(k.opt.Data, "keys")
	}
	if k.write == nil {
		return keys, nil
	}
	to := keys
	if rel, err := filepath.Rel(k.opt.Data, keys); err == nil && filepath.IsLocal(rel) && rel != "." {
		to = filepath.Join(k.dir, rel)
	}
	return keys, k.write(to)
}

// create makes a file and the folder above it.
func create(root *os.Root, name string) (io.WriteCloser, error) {
	if dir := filepath.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o700); err != nil {
			return nil, full(err)
		}
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, full(err)
	}
	return f, nil
}

// finish writes what the server looks for at its next start.
func finish(root *os.Root, rep Report) error {
	b, err := json.Marshal(Restored{Backup: rep.Manifest.ID, Created: rep.Manifest.Created, Parts: rep.Digest, Ledger: rep.Manifest.Ledger, At: micros(time.Now())})
	if err != nil {
		return err
	}
	if err := root.WriteFile(restoredName, b, 0o600); err != nil {
		return err
	}
	if err := root.WriteFile(WriterFile, []byte(Writer(rep.Manifest.Falaj, rep.Manifest.Schema)+"\n"), 0o600); err != nil {
		return err
	}
	if region := rep.Manifest.Region; region != "" {
		if err := root.WriteFile("REGION", []byte(region+"\n"), 0o600); err != nil {
			return err
		}
	}
	return root.WriteFile("FORMAT", []byte(strconv.Itoa(rep.Manifest.DataFormat)+"\n"), 0o600)
}

// publish makes the content durable and gives it its name: rename(2) replaces an empty folder and no other.
func publish(dir, data string) error {
	f, err := os.Open(dir)
	if err == nil {
		err = errors.Join(unix.Syncfs(int(f.Fd())), f.Close()) // one call for thousands of files
	}
	if err != nil {
		return unwritable(err, data)
	}
	switch err := os.Rename(dir, data); {
	case errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EXDEV):
		return mountPoint(err, data)
	case errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST):
		return fault.Wrap(err, fault.Exists, data+" was filled meanwhile.", "A restore never overwrites: name an empty or a new folder with --data.")
	case err != nil:
		return unwritable(err, data)
	}
	if f, err = os.Open(filepath.Dir(data)); err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		return unwritable(err, data)
	}
	return nil
}

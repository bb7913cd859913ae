// Package dir keeps sealed blobs as files of one folder on the local disk, spread over 256 sub-folders.
// It is the default driver: durable by fsync of file and folder, atomic by rename, and confined to its folder by os.Root.
package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"falaj/internal/blob"
	"falaj/internal/kernel/fault"
)

// partial is where uploads grow until they are whole; what stands there after a crash is garbage.
const partial = "partial"

// Dir is the driver. It is safe for concurrent use.
type Dir struct {
	root *os.Root
	path string
}

var _ blob.Driver = (*Dir)(nil)

// Open takes a folder for blobs and creates it (0700) when it is missing. Close it.
func Open(path string) (*Dir, error) {
	root, err := open(path)
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, fmt.Sprintf("The blob folder %s cannot be opened.", path),
			"Check that this user may write there and that the disk has space.")
	}
	return &Dir{root: root, path: path}, nil
}

func open(path string) (*os.Root, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	if err := root.Mkdir(partial, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, errors.Join(err, root.Close())
	}
	return root, nil
}

// Close releases the folder.
func (d *Dir) Close() error { return d.root.Close() }

// place is where a finished file stands: the first two digits name its sub-folder.
func place(name string) (folder, path string, err error) {
	if len(name) < 4 || len(name) > 64 {
		return "", "", badName(name)
	}
	for _, c := range name {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", "", badName(name)
		}
	}
	return name[:2], name[:2] + "/" + name, nil
}

func badName(name string) error {
	return fault.New(fault.Invalid, fmt.Sprintf("%.80q is not the name of a stored file.", name), "Names are 4 to 64 lower-case hex digits.")
}

// Upload implements blob.Driver.
func (d *Dir) Upload(ctx context.Context, name string, fill func(io.Writer) error) error {
	folder, path, err := place(name)
	if err != nil {
		return err
	}
	temp := partial + "/" + name
	f, err := d.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return d.explain(err)
	}
	w := &writer{f: f}
	if err = fill(w); err != nil && w.err == nil {
		_ = errors.Join(f.Close(), d.root.Remove(temp))
		return err // the source failed, not the disk
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = d.publish(folder, temp, path)
	}
	if err != nil {
		_ = d.root.Remove(temp)
		return d.explain(err)
	}
	return nil
}

// writer remembers whether it was the disk that failed.
type writer struct {
	f   *os.File
	err error
}

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}

// publish renames the whole file into place and makes the name itself durable.
func (d *Dir) publish(folder, temp, path string) error {
	switch err := d.root.Mkdir(folder, 0o700); {
	case err == nil:
		if err := d.sync("."); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrExist):
		return err
	}
	if _, err := d.root.Lstat(path); err == nil {
		return fs.ErrExist // names are used once; never replace what a row may point at
	}
	if err := d.root.Rename(temp, path); err != nil {
		return err
	}
	if err := d.sync(folder); err != nil {
		return errors.Join(err, d.root.Remove(path))
	}
	return nil
}

func (d *Dir) sync(folder string) error {
	f, err := d.root.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// explain says a full disk in words; faults of the caller pass unchanged.
func (d *Dir) explain(err error) error {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, full) {
			return fault.Wrap(fmt.Errorf("%s: %w", d.path, err), fault.Unavailable, "The disk under the blob folder is full; nothing was stored.",
				"Free space on the server's data directory, then try again; everything stored before is unharmed.")
		}
	}
	var perr *fs.PathError
	var lerr *os.LinkError
	if errors.As(err, &perr) || errors.As(err, &lerr) {
		return fault.Wrap(fmt.Errorf("%s: %w", d.path, err), fault.Unavailable, "The blob folder cannot be used.",
			"Check the disk and that this user may read and write there.")
	}
	return err
}

// file is an open stored file with the size it had when opened; stored files never change.
type file struct {
	*os.File
	size int64
}

func (f file) Size() int64 { return f.size }

// Open implements blob.Driver.
func (d *Dir) Open(_ context.Context, name string) (blob.File, error) {
	_, path, err := place(name)
	if err != nil {
		return nil, err
	}
	f, err := d.root.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(err, fault.NotFound, fmt.Sprintf("There is no stored file %s.", name), "Restore it from a backup.")
	}
	if err != nil {
		return nil, d.explain(err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fault.New(fault.Internal, fmt.Sprintf("Stored file %s is not a regular file.", name), "Restore it from a backup.")
	}
	if err != nil {
		return nil, errors.Join(d.explain(err), f.Close())
	}
	return file{f, st.Size()}, nil
}

// Discard implements blob.Driver.
func (d *Dir) Discard(_ context.Context, name string) error {
	_, path, err := place(name)
	if err != nil {
		return err
	}
	for _, p := range []string{path, partial + "/" + name} {
		if err := d.root.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return d.explain(err)
		}
	}
	return nil
}

// List implements blob.Driver. What does not look like a stored file is passed over.
func (d *Dir) List(ctx context.Context, fn func(blob.Entry) error) error {
	folders, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return d.explain(err)
	}
	for _, folder := range folders {
		files, err := fs.ReadDir(d.root.FS(), folder.Name())
		if err != nil {
			continue // a plain file beside the sub-folders is not ours
		}
		for _, f := range files {
			if err := ctx.Err(); err != nil {
				return err
			}
			want, _, err := place(f.Name())
			if err != nil || folder.Name() != partial && folder.Name() != want {
				continue
			}
			info, err := f.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // finished or discarded meanwhile
			}
			if err != nil {
				return d.explain(err)
			}
			if err := fn(blob.Entry{Name: f.Name(), Partial: folder.Name() == partial, Modified: info.ModTime()}); err != nil {
				return err
			}
		}
	}
	return nil
}

package training

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5"

	"falaj/internal/blob"
	"falaj/internal/kernel/fault"
)

// Bounds of one code snapshot: code, not data.
const (
	maxCodeFiles = 5000
	maxCodeBytes = 64 << 20
)

// copyCode copies the code of a project folder into to, so that the job runs what is recorded even if somebody edits
// meanwhile. paths name files and folders in dir; none means all of it. Left out are hidden names, __pycache__,
// node_modules and virtual environments. Links are followed inside dir and refused when they lead out.
func copyCode(ctx context.Context, dir string, paths []string, to string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fault.Wrap(err, fault.Invalid, fmt.Sprintf("The code folder %s cannot be opened.", dir), "Check the path and its rights.").(*fault.E).At("code")
	}
	defer root.Close()
	target, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer target.Close()
	if len(paths) == 0 {
		paths = []string{"."}
	}
	c := copier{ctx: ctx, from: root, to: target}
	for _, p := range paths {
		if !filepath.IsLocal(p) {
			return fault.New(fault.Invalid, fmt.Sprintf("The code path %q leads out of the project folder.", p), "Name files and folders inside it.").At("code")
		}
		if err := c.take(path.Clean(filepath.ToSlash(p)), true); err != nil {
			return err
		}
	}
	if c.files == 0 {
		return fault.New(fault.Invalid, fmt.Sprintf("There is no code in %s.", dir), "Name the files under code.").At("code")
	}
	return nil
}

type copier struct {
	ctx      context.Context
	from, to *os.Root
	files    int
	bytes    int64
}

func (c *copier) take(name string, named bool) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	base := path.Base(name)
	if !named && (strings.HasPrefix(base, ".") || base == "__pycache__" || base == "node_modules") {
		return nil
	}
	st, err := c.from.Stat(name)
	if err != nil {
		return fault.Wrap(err, fault.Invalid, fmt.Sprintf("The code path %q cannot be read: it is missing, or a link out of the project folder.", name), "Correct it, or leave it out.").(*fault.E).At("code")
	}
	switch {
	case st.IsDir():
		return c.folder(name)
	case st.Mode().IsRegular():
		return c.file(name, st)
	}
	return fault.New(fault.Invalid, fmt.Sprintf("The code path %q is neither file nor folder.", name), "Leave it out.").At("code")
}

func (c *copier) folder(name string) error {
	if _, err := c.from.Stat(path.Join(name, "pyvenv.cfg")); err == nil {
		return nil // a virtual environment
	}
	if strings.Count(name, "/") > 64 {
		return fault.New(fault.Invalid, fmt.Sprintf("The code folder %.80q is nested too deep.", name), "Is there a link to a folder above?").At("code")
	}
	entries, err := fs.ReadDir(c.from.FS(), name)
	if err != nil {
		return fault.Wrap(err, fault.Invalid, fmt.Sprintf("The code folder %q cannot be read.", name), "Check its rights.")
	}
	for _, e := range entries {
		if err := c.take(path.Join(name, e.Name()), false); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) file(name string, st fs.FileInfo) error {
	c.files++
	c.bytes += st.Size()
	if c.files > maxCodeFiles || c.bytes > maxCodeBytes {
		return fault.New(fault.TooLarge, fmt.Sprintf("The code has more than %d files or %d MiB (at %s).", maxCodeFiles, maxCodeBytes>>20, name),
			"List only the code under code; data belongs into datasets.").At("code")
	}
	src, err := c.from.Open(name)
	if err != nil {
		return fault.Wrap(err, fault.Invalid, fmt.Sprintf("The code file %q cannot be read.", name), "Check its rights.")
	}
	defer src.Close()
	if err := c.to.MkdirAll(path.Dir(name), 0o700); err != nil {
		return err
	}
	dst, err := c.to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600|st.Mode().Perm()&0o100)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, io.LimitReader(src, maxCodeBytes))
	return errors.Join(err, dst.Close())
}

// writeTar writes the files of dir in one form that depends on nothing but names, contents and the executable bit.
func writeTar(dir string, w io.Writer) error {
	root := os.DirFS(dir)
	var names []string
	err := fs.WalkDir(root, ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		return err
	}
	slices.Sort(names)
	out := tar.NewWriter(w)
	for _, name := range names {
		st, err := fs.Stat(root, name)
		if err != nil {
			return err
		}
		mode := int64(0o644)
		if st.Mode()&0o100 != 0 {
			mode = 0o755
		}
		if err := out.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: st.Size(), Format: tar.FormatPAX}); err != nil {
			return err
		}
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return out.Close()
}

// codeDigest is the digest of the tar of dir.
func codeDigest(dir string) (string, error) {
	sum := sha256.New()
	if err := writeTar(dir, sum); err != nil {
		return "", err
	}
	return blob.Digest([sha256.Size]byte(sum.Sum(nil))), nil
}

// GitState returns the commit that the folder's repository stands at, and whether files differ from it. Outside Git, or
// before the first commit, the commit is "". It runs no program, so a hostile repository has nothing to hook into.
func GitState(dir string) (commit string, dirty bool, err error) {
	repo, err := git.PlainOpenWithOptions(dir, &git.PlainOpenOptions{DetectDotGit: true, EnableDotGitCommonDir: true})
	if errors.Is(err, git.ErrRepositoryNotExists) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fault.Wrap(err, fault.Invalid, fmt.Sprintf("The Git repository of %s cannot be read.", dir), "Check it with git status.")
	}
	head, err := repo.Head()
	if err != nil {
		return "", true, nil // no commit yet
	}
	tree, err := repo.Worktree()
	if err != nil {
		return head.Hash().String(), false, nil // a bare repository has nothing to differ
	}
	status, err := tree.Status()
	if err != nil {
		return "", false, fault.Wrap(err, fault.Invalid, fmt.Sprintf("The Git state of %s cannot be read.", dir), "Check it with git status.")
	}
	return head.Hash().String(), !status.IsClean(), nil
}

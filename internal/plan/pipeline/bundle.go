package pipeline

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	"falaj/internal/blob"
	"falaj/internal/kernel/fault"
	"falaj/internal/plan"
)

// maxText bounds a file of the project that is read whole: SQL, locks, test cases.
const maxText = 4 << 20

// files is a bundle as a read-only file system over blobs: what falaj.yaml names is read from what was uploaded, nothing else.
type files struct {
	ctx     context.Context
	blobs   *blob.Store
	project string
	bundle  Bundle
	refs    []plan.SourceRef
}

// of lists the files that falaj.yaml names under a key, of one role or of all.
func (f *files) of(key, role string) []string {
	var out []string
	for _, r := range f.refs {
		if (role == "" || r.Role == role) && (r.Key == key || strings.HasPrefix(r.Key, key+".")) {
			out = append(out, r.Files...)
		}
	}
	sort.Strings(out)
	return slices.Compact(out)
}

// under lists the bundle's files that are name, or lie in the folder name.
func (f *files) under(name string) []string {
	var out []string
	for p := range f.bundle.Files {
		if p == name || strings.HasPrefix(p, name+"/") {
			out = append(out, p)
		}
	}
	sort.Strings(out)
	return out
}

func (s *Service) files(ctx context.Context, project string, b Bundle) *files {
	return &files{ctx: ctx, blobs: s.blobs, project: project, bundle: b}
}

// Open implements fs.FS.
func (f *files) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	if name == "falaj.yaml" {
		return &memFile{name: name, Reader: bytes.NewReader([]byte(f.bundle.YAML)), size: int64(len(f.bundle.YAML))}, nil
	}
	digest, ok := f.bundle.Files[name]
	if !ok {
		if entries := f.list(name); len(entries) > 0 {
			return &memDir{name: name, entries: entries}, nil
		}
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	o, err := f.blobs.Open(f.ctx, f.project, digest)
	if err != nil {
		return nil, err
	}
	return &blobFile{name: name, Object: o}, nil
}

// list is the direct children of a folder.
func (f *files) list(dir string) []fs.DirEntry {
	prefix := dir + "/"
	if dir == "." {
		prefix = ""
	}
	seen := map[string]bool{}
	var out []fs.DirEntry
	for p := range f.bundle.Files {
		rest, ok := strings.CutPrefix(p, prefix)
		if !ok {
			continue
		}
		name, _, deeper := strings.Cut(rest, "/")
		if !seen[name] {
			seen[name] = true
			out = append(out, info{name: name, dir: deeper})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name() < out[j].Name() })
	return out
}

// text reads a file of the project whole.
func (f *files) text(name string) (string, error) {
	name = path.Clean(name)
	o, err := f.Open(name)
	if err != nil {
		if fault.KindOf(err) != fault.Internal {
			return "", err
		}
		return "", fault.Wrap(err, fault.Invalid, "The file "+name+" is not part of what was applied.", "Check that it exists beside falaj.yaml, then run `falaj apply` again.").(*fault.E).At(name)
	}
	defer o.Close()
	b, err := io.ReadAll(io.LimitReader(o, maxText+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxText {
		return "", fault.New(fault.TooLarge, "The file "+name+" is larger than 4 MiB.", "Keep data out of the project's texts.").At(name)
	}
	return string(b), nil
}

// load parses the bundle.
func (s *Service) load(ctx context.Context, project string, b Bundle) (*plan.Project, *files, error) {
	f := s.files(ctx, project, b)
	p, refs, err := plan.Load(f, "falaj.yaml", plan.SourcesElsewhere())
	if err != nil {
		return nil, nil, err
	}
	if err := p.CheckRegion(s.Region); err != nil {
		return nil, nil, err
	}
	f.refs = refs
	if p.Name != project {
		return nil, nil, fault.New(fault.Invalid, "falaj.yaml is of project '"+p.Name+"', the request of '"+project+"'.", "Use --project "+p.Name+".").At("project")
	}
	return p, f, nil
}

type info struct {
	name string
	dir  bool
	size int64
}

func (i info) Name() string               { return path.Base(i.name) }
func (i info) Size() int64                { return i.size }
func (i info) ModTime() time.Time         { return time.Time{} }
func (i info) IsDir() bool                { return i.dir }
func (i info) Sys() any                   { return nil }
func (i info) Type() fs.FileMode          { return i.Mode().Type() }
func (i info) Info() (fs.FileInfo, error) { return i, nil }
func (i info) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o555
	}
	return 0o444
}

type memFile struct {
	*bytes.Reader
	name string
	size int64
}

func (m *memFile) Stat() (fs.FileInfo, error) { return info{name: m.name, size: m.size}, nil }
func (m *memFile) Close() error               { return nil }

type blobFile struct {
	*blob.Object
	name string
}

func (b *blobFile) Stat() (fs.FileInfo, error) { return info{name: b.name, size: b.Size()}, nil }

type memDir struct {
	name    string
	entries []fs.DirEntry
	at      int
}

func (d *memDir) Stat() (fs.FileInfo, error) { return info{name: d.name, dir: true}, nil }
func (d *memDir) Read([]byte) (int, error)   { return 0, fs.ErrInvalid }
func (d *memDir) Close() error               { return nil }
func (d *memDir) ReadDir(n int) ([]fs.DirEntry, error) {
	rest := d.entries[d.at:]
	if n <= 0 {
		d.at = len(d.entries)
		return rest, nil
	}
	if len(rest) == 0 {
		return nil, io.EOF
	}
	if n > len(rest) {
		n = len(rest)
	}
	d.at += n
	return rest[:n], nil
}

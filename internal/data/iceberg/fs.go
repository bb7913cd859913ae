package iceberg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	icebergio "github.com/apache/iceberg-go/io"

	"falaj/internal/data"
	"falaj/internal/kernel/fault"
)

// scheme is that of every location: falaj://WAREHOUSE/PROJECT/TABLE/... It names no folder of any machine.
const scheme = "falaj"

// mounts is the one global of this package: iceberg-go finds a file system by the scheme of a location only, in a
// registry of the whole process, so falaj's entry there has to find the warehouse by the host of the location.
var mounts struct {
	sync.Mutex
	byHost map[string]*data.Warehouse
}

func mount(host string, w *data.Warehouse) {
	mounts.Lock()
	defer mounts.Unlock()
	if mounts.byHost == nil {
		mounts.byHost = map[string]*data.Warehouse{}
	}
	if !slices.Contains(icebergio.GetRegisteredSchemes(), scheme) {
		icebergio.Register(scheme, openFS)
	}
	mounts.byHost[host] = w
}

func unmount(host string) {
	mounts.Lock()
	defer mounts.Unlock()
	delete(mounts.byHost, host)
}

func openFS(ctx context.Context, at *url.URL, _ map[string]string) (icebergio.IO, error) {
	mounts.Lock()
	defer mounts.Unlock()
	w := mounts.byHost[at.Host]
	if w == nil {
		return nil, fault.New(fault.Internal, fmt.Sprintf("A table lies in warehouse %q, which is not the one of this data folder.", at.Host), "Restore the data folder and its databases from the same backup.")
	}
	return &fileSystem{ctx: ctx, host: at.Host, w: w}, nil
}

// fileSystem is what iceberg-go writes through. Its interface has no context, so each value carries the one it was
// opened for.
type fileSystem struct {
	ctx  context.Context
	host string
	w    *data.Warehouse
}

var (
	_ icebergio.WriteFileIO = (*fileSystem)(nil)
	_ icebergio.ReadFileIO  = (*fileSystem)(nil)
)

func (f *fileSystem) place(op, name string) (project, path string, err error) {
	rest, ok := strings.CutPrefix(name, scheme+"://"+f.host+"/")
	if ok {
		project, path, ok = strings.Cut(rest, "/")
	}
	if !ok || !fs.ValidPath(path) || project == "" {
		return "", "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return project, path, nil
}

func pathError(op, name string, err error) error {
	if fault.Is(err, fault.NotFound) {
		err = errors.Join(fs.ErrNotExist, err)
	}
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// Open implements icebergio.IO.
func (f *fileSystem) Open(name string) (icebergio.File, error) {
	project, path, err := f.place("open", name)
	if err != nil {
		return nil, err
	}
	o, err := f.w.Open(f.ctx, project, path)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return file{Object: o, name: path}, nil
}

// ReadFile implements icebergio.ReadFileIO; only metadata is read this way.
func (f *fileSystem) ReadFile(name string) ([]byte, error) {
	o, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	defer o.Close()
	return io.ReadAll(io.LimitReader(o, maxMeta))
}

// maxMeta bounds a metadata file or manifest, in bytes.
const maxMeta = 256 << 20

// Remove implements icebergio.IO.
func (f *fileSystem) Remove(name string) error {
	project, path, err := f.place("remove", name)
	if err != nil {
		return err
	}
	return pathError("remove", name, f.w.Remove(f.ctx, project, path))
}

// Create implements icebergio.WriteFileIO. The file is there when Close returns nil; manifests are small, so they are
// held in memory until then.
func (f *fileSystem) Create(name string) (icebergio.FileWriter, error) {
	if _, _, err := f.place("create", name); err != nil {
		return nil, err
	}
	return &writer{fs: f, name: name}, nil
}

// WriteFile implements icebergio.WriteFileIO.
func (f *fileSystem) WriteFile(name string, p []byte) error {
	project, path, err := f.place("write", name)
	if err != nil {
		return err
	}
	return pathError("write", name, f.w.Put(f.ctx, project, path, bytes.NewReader(p)))
}

type writer struct {
	fs     *fileSystem
	name   string
	buf    bytes.Buffer
	closed bool
}

func (w *writer) Write(p []byte) (int, error) {
	if w.buf.Len()+len(p) > maxMeta {
		return 0, &fs.PathError{Op: "write", Path: w.name, Err: errors.New("a table's metadata outgrew its limit")}
	}
	return w.buf.Write(p)
}

func (w *writer) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{w}, r)
}

func (w *writer) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	return w.fs.WriteFile(w.name, w.buf.Bytes())
}

// file gives a warehouse object the Stat that iceberg-go asks for.
type file struct {
	data.Object
	name string
}

func (f file) Stat() (fs.FileInfo, error) { return info{f}, nil }

type info struct{ f file }

func (i info) Name() string     { return i.f.name[strings.LastIndexByte(i.f.name, '/')+1:] }
func (i info) Size() int64      { return i.f.Object.Size() }
func (info) Mode() fs.FileMode  { return 0o400 }
func (info) ModTime() time.Time { return time.Time{} }
func (info) IsDir() bool        { return false }
func (info) Sys() any           { return nil }

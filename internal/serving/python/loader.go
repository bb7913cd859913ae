// Package python serves models through a supervised Python process: one for each loaded release, on a Unix socket, with micro-batching that never waits.
// A crash of the process costs one request; it is started again, and nothing of it runs in the server.
package python

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/serving"
)

//go:embed worker.py
var script string

// Loader starts a worker for each release it is given. Every field but Python, Dir and Log may be zero.
type Loader struct {
	// Python gives the interpreter of a runtime, by the digest that the release names.
	Python func(ctx context.Context, runtime string) (interpreter string, err error)
	Dir    string // private working folders of the workers are made here; they are removed with the worker
	Log    *slog.Logger

	Threads  int           // OpenMP, BLAS and MKL threads of a worker; 0: 1
	Start    time.Duration // longest start of a worker, imports and loading included; 0: 2 minutes
	Answer   time.Duration // longest answer to one batch, after which the worker is ended; 0: 1 minute
	Memory   int64         // bytes of data that a worker may hold (RLIMIT_DATA), beyond which the model gets a MemoryError; 0: no limit
	MaxBatch int           // rows that are put together; 0: 64
}

// Load copies the model's files, digest checked, into a private folder and starts a worker on them.
func (l Loader) Load(ctx context.Context, r serving.Release) (serving.Engine, error) {
	if r.Flavor != "pyfunc" && r.Flavor != "lightgbm" {
		return nil, fmt.Errorf("%w: the Python worker loads pyfunc and lightgbm, not %q", serving.ErrUnsupported, r.Flavor)
	}
	l.Threads, l.MaxBatch = max(l.Threads, 1), max(l.MaxBatch, 0)
	if l.MaxBatch == 0 {
		l.MaxBatch = 64
	}
	if l.Start == 0 {
		l.Start = 2 * time.Minute
	}
	if l.Answer == 0 {
		l.Answer = time.Minute
	}
	interpreter, err := l.Python(ctx, r.Runtime)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(l.Dir, "worker-")
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "The working folder of a Python worker could not be made.", "Check free space and owner of the data directory.")
	}
	w, err := l.load(ctx, r, interpreter, dir)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return w, nil
}

func (l Loader) load(ctx context.Context, r serving.Release, interpreter, dir string) (*worker, error) {
	for _, sub := range []string{"model", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	if err := copyFiles(ctx, r, filepath.Join(dir, "model")); err != nil {
		return nil, err
	}
	w := &worker{
		cfg: l, interpreter: interpreter, dir: dir, release: r.Digest, queue: make(chan *request, queueLength), closing: make(chan struct{}), done: make(chan struct{}),
		conf: config{Flavor: r.Flavor, Path: filepath.Join(dir, "model", filepath.FromSlash(r.Model)), Features: r.Features, Tmp: filepath.Join(dir, "tmp"), Memory: l.Memory},
	}
	p, err := w.start(ctx)
	if err != nil {
		return nil, err
	}
	w.features = p.features
	go w.run(p)
	return w, nil
}

// copyFiles writes the files of the release under dir. Paths are hostile: os.Root keeps them inside.
func copyFiles(ctx context.Context, r serving.Release, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if r.Model != "" && !slices.ContainsFunc(r.Files, func(f serving.File) bool { return f.Path == r.Model || strings.HasPrefix(f.Path, r.Model+"/") }) {
		return fault.Newf(fault.Refused, "the release lists no file %q.", r.Model)
	}
	for _, f := range r.Files {
		if err := copyFile(ctx, r, root, f.Path); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(ctx context.Context, r serving.Release, root *os.Root, path string) error {
	local := filepath.FromSlash(path)
	if !filepath.IsLocal(local) {
		return fault.Newf(fault.Refused, "the release names a file outside its folder: %q.", path)
	}
	if err := root.MkdirAll(filepath.Dir(local), 0o700); err != nil {
		return err
	}
	in, err := r.OpenChecked(ctx, path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := root.OpenFile(local, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o400)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

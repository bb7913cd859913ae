// Package duckdb runs data jobs in DuckDB, each in a child process of falaj's own binary that is locked down to the
// job's files. This half is pure Go and lives in the server; the half that links DuckDB is the worker folder.
package duckdb

import (
	"cmp"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"falaj/internal/data"
	"falaj/internal/kernel/fault"
)

// Config of an Engine. Every zero value has a default.
type Config struct {
	// Command starts a worker: it must end in worker.Main. Default: this executable with the arguments `worker duckdb`.
	Command []string
	// Scratch is a folder for decrypted files and spill: in a memory file system, or on an encrypted volume. It must not be
	// shared with another engine.
	Scratch string
	// MemoryLimit is what DuckDB may take in one job, in bytes; beyond it spills into the scratch. Default 512 MiB.
	MemoryLimit int64
	// Threads of one job; default the number of CPUs, at most 4.
	Threads int
	// Parallel is how many jobs that make tables run at once; the others wait. Default one for each 4 CPUs: a job uses
	// Threads of them, and memory is what jobs side by side would double. Two looks at data (Query, Columns) run beside them.
	Parallel int
	// Timeout of one job, default 10 minutes.
	Timeout time.Duration
	// FileBytes bounds each file a job writes and its spill, default 16 GiB.
	FileBytes int64
}

// Engine starts one child per job. It is safe for concurrent use.
type Engine struct {
	cfg    Config
	root   string
	tables chan struct{} // a place for each job that makes tables
	looks  chan struct{} // and for each that only looks
}

// New makes the scratch folder, wipes what an earlier process left in it, and starts nothing yet.
func New(cfg Config) (*Engine, error) {
	if len(cfg.Command) == 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, fault.Wrap(err, fault.Internal, "The path of falaj's own binary is not known.", "")
		}
		cfg.Command = []string{self, "worker", "duckdb"}
	}
	if cfg.Scratch == "" {
		return nil, fault.New(fault.Internal, "The data engine was given no scratch folder.", "Report this error.")
	}
	scratch, err := filepath.Abs(cfg.Scratch)
	if err != nil {
		return nil, fault.Wrap(err, fault.Internal, "The scratch folder has no absolute path.", "")
	}
	cfg.MemoryLimit = cmp.Or(cfg.MemoryLimit, 512<<20)
	cfg.Threads = cmp.Or(cfg.Threads, min(runtime.NumCPU(), 4))
	cfg.Parallel = cmp.Or(cfg.Parallel, max(1, runtime.NumCPU()/4))
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Minute)
	cfg.FileBytes = cmp.Or(cfg.FileBytes, 16<<30)
	if err := openRoot(scratch); err != nil {
		return nil, err
	}
	return &Engine{cfg: cfg, root: scratch, tables: make(chan struct{}, cfg.Parallel), looks: make(chan struct{}, 2)}, nil
}

// Close wipes the scratch folder. Jobs must have ended.
func (e *Engine) Close() error {
	return os.RemoveAll(e.root)
}

// Room implements data.Engine.
func (e *Engine) Room(need int64) (*data.Room, error) { return room(e.root, need) }

// Ingest implements data.Engine.
func (e *Engine) Ingest(ctx context.Context, job data.IngestJob) (*data.IngestResult, error) {
	return call[data.IngestResult](ctx, e, "ingest", job)
}

// Transform implements data.Engine.
func (e *Engine) Transform(ctx context.Context, job data.TransformJob) (*data.TransformResult, error) {
	return call[data.TransformResult](ctx, e, "transform", job)
}

// PointInTime joins feature views to entity rows as they were known at each row's time; see data.PITJob.
func (e *Engine) PointInTime(ctx context.Context, job data.PITJob) (*data.TransformResult, error) {
	return call[data.TransformResult](ctx, e, "pit", job)
}

// Profile implements data.Engine.
func (e *Engine) Profile(ctx context.Context, job data.ProfileJob) (*data.Profile, error) {
	return call[data.Profile](ctx, e, "profile", job)
}

// Query implements data.Engine.
func (e *Engine) Query(ctx context.Context, job data.QueryJob) (*data.Rows, error) {
	return call[data.Rows](ctx, e, "query", job)
}

// Columns implements data.Engine.
func (e *Engine) Columns(ctx context.Context, job data.ColumnsJob) (*data.ColumnsResult, error) {
	return call[data.ColumnsResult](ctx, e, "columns", job)
}

func call[T any](ctx context.Context, e *Engine, op string, job any) (*T, error) {
	body, err := json.Marshal(job)
	if err != nil {
		return nil, fault.Wrap(err, fault.Internal, "A data job could not be written down.", "Report this error.")
	}
	slots := e.tables
	if op == "query" || op == "columns" {
		slots = e.looks
	}
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-ctx.Done():
		return nil, fault.From(ctx.Err())
	}
	reply, err := e.child(ctx, Request{Op: op, Job: body, Limits: Limits{
		Memory: e.cfg.MemoryLimit, Overhead: 1 << 30, Threads: e.cfg.Threads, FileBytes: e.cfg.FileBytes,
		CPUSeconds: int64(e.cfg.Timeout.Seconds()+1) * int64(e.cfg.Threads+1),
	}})
	if err != nil {
		return nil, err
	}
	if f := reply.Fault; f != nil {
		out := fault.New(f.Kind, f.Public, f.Next).At(f.Field)
		if f.Cause != "" {
			out.Err = cause(f.Cause)
		}
		return nil, out
	}
	out := new(T)
	if err := json.Unmarshal(reply.Result, out); err != nil {
		return nil, fault.Wrap(err, fault.Internal, "The data engine's answer could not be read.", "Report this error.")
	}
	return out, nil
}

// cause is what the child said for the log.
type cause string

func (c cause) Error() string { return string(c) }

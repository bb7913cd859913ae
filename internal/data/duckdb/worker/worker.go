// Package worker is the child half of the data engine: the only place that links DuckDB. It runs one job on the files
// of that job, under limits and a sandbox that user SQL cannot lift, and ends.
package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"falaj/internal/data"
	"falaj/internal/data/duckdb"
	"falaj/internal/kernel/fault"
)

// Main is `falaj worker duckdb`: it takes one request from the socket at file descriptor 3, answers it and returns the
// exit code. It is started by duckdb.Engine only; without the socket it returns 2.
func Main() int {
	sock := os.NewFile(duckdb.SocketFD, "engine")
	if sock == nil {
		return 2
	}
	var req duckdb.Request
	if err := duckdb.ReadFrame(sock, &req); err != nil {
		fmt.Fprintln(os.Stderr, "falaj worker duckdb is started by the server, not by hand")
		return 2
	}
	go func() { // the server closes its end when it gives up, and the kernel does when it dies
		var none [1]byte
		_, _ = sock.Read(none[:])
		os.Exit(3)
	}()
	var reply duckdb.Reply
	result, err := run(req)
	if err == nil {
		reply.Result, err = json.Marshal(result)
	}
	if err != nil {
		e := fault.From(err)
		reply = duckdb.Reply{Fault: &duckdb.Fault{Kind: e.Kind, Public: e.Public, Next: e.Next, Field: e.Field}}
		if e.Err != nil {
			reply.Fault.Cause = e.Err.Error()
		}
	}
	if err := duckdb.WriteFrame(sock, reply); err != nil {
		return 1
	}
	return 0
}

func run(req duckdb.Request) (result any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fault.Wrap(fmt.Errorf("panic: %v\n%s", p, debug.Stack()), fault.Internal, "The data engine met a defect of its own.", "Report this error with the server's log.")
		}
	}()
	if err := confine(req.Limits); err != nil {
		return nil, err
	}
	ctx := context.Background()
	switch req.Op {
	case "ingest":
		return with(ctx, req, func(j data.IngestJob) (string, []string) { return j.Dir, append([]string{j.Path}, j.Existing...) }, ingest)
	case "transform":
		return with(ctx, req, func(j data.TransformJob) (string, []string) { return j.Dir, files(j.Inputs) }, transform)
	case "pit":
		return with(ctx, req, func(j data.PITJob) (string, []string) {
			in := j.Spine
			for _, v := range j.Views {
				in = append(in, v.Files...)
			}
			return j.Dir, in
		}, pointInTime)
	case "profile":
		return with(ctx, req, func(j data.ProfileJob) (string, []string) { return j.Dir, j.Files }, profileFiles)
	case "query":
		return with(ctx, req, func(j data.QueryJob) (string, []string) { return j.Dir, files(j.Inputs) }, query)
	case "columns":
		return with(ctx, req, func(j data.ColumnsJob) (string, []string) { return j.Dir, files(j.Inputs) }, columns)
	}
	return nil, fault.New(fault.Internal, "The data engine was asked for an unknown job.", "Report this error.")
}

// with opens a session confined to the job's folder and input files and runs the job in it.
func with[J, R any](ctx context.Context, req duckdb.Request, paths func(J) (string, []string), do func(context.Context, *session, J) (R, error)) (any, error) {
	var job J
	if err := json.Unmarshal(req.Job, &job); err != nil {
		return nil, fault.Wrap(err, fault.Internal, "The data engine could not read its job.", "Report this error.")
	}
	dir, in := paths(job)
	if dir == "" {
		return nil, fault.New(fault.Internal, "The data engine was given no folder to work in.", "Report this error.")
	}
	s, err := open(ctx, dir, in, req.Limits)
	if err != nil {
		return nil, err
	}
	// The process ends right after the answer, so nothing is closed: DuckDB would spend time on tidying its memory.
	out, err := do(ctx, s, job)
	if err != nil {
		var known *fault.E
		if errors.As(err, &known) {
			return nil, err
		}
		return nil, s.explain(err, "")
	}
	return out, nil
}

func files(inputs map[string]data.Input) []string {
	var out []string
	for _, in := range inputs {
		out = append(out, in.Files...)
	}
	return out
}

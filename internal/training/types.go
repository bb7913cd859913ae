// Package training runs the user's own training command in a locked Python runtime, isolated and limited, and records
// what made a model: code, commit, runtime, parameters, data, log and artifacts, each by digest.
//
// It knows no Python library and no shell: a command is a list of words, a runtime is a hash-pinned environment, and a
// Launcher (process/, later kubernetes/) runs one with the other.
package training

import (
	"context"
	"time"
)

// Launcher runs one job to its end. Implementations are safe for concurrent use. Promises: when Launch returns, no
// process of the job is left alive; cancelling ctx kills all of them; a job that outgrows its limits is ended and the
// caller is not harmed. The error is about launching; a job that fails is a Result.
type Launcher interface {
	Launch(ctx context.Context, job Job) (Result, error)
	Close() error
}

// Job is what a launcher needs to run one command. All paths are absolute and exist.
type Job struct {
	ID      string
	Argv    []string          // the first word is looked up in Runtime.Bin, then in the system's folders
	Code    string            // working directory, read-only for the job
	Scratch string            // HOME and TMPDIR of the job, writable, emptied by the caller afterwards
	Outputs string            // writable, kept
	Inputs  []string          // further files and folders that the job may read
	Env     map[string]string // the whole environment beside PATH, HOME, TMPDIR, thread counts and locale
	Secrets map[string]string // environment too, but their values are masked in the log
	Hidden  [][]byte          // values of files among Inputs that are masked in the log
	Runtime Runtime
	Limits  Limits
	Connect []uint16   // TCP ports the job may connect to; none means no network
	Log     func(Line) // called for each line, from one goroutine at a time; it may block, the job then waits
}

// Limits bound a job. Zero takes the default.
type Limits struct {
	Memory    int64         `json:"memory_bytes"` // of all its processes together; default 2 GiB
	CPUs      float64       `json:"cpus"`         // default 1
	Processes int           `json:"processes"`    // processes and threads; default 256, at least 16
	Disk      int64         `json:"disk_bytes"`   // scratch and outputs together; default 4 GiB
	Files     int           `json:"files"`        // open files per process; default 1024
	Timeout   time.Duration `json:"timeout_ns"`   // wall time; default 6 h
}

// WithDefaults fills what is zero.
func (l Limits) WithDefaults() Limits {
	if l.Memory <= 0 {
		l.Memory = 2 << 30
	}
	if l.CPUs <= 0 {
		l.CPUs = 1
	}
	if l.Processes <= 0 {
		l.Processes = 256
	}
	l.Processes = max(l.Processes, 16) // the launcher's own start needs a few
	if l.Disk <= 0 {
		l.Disk = 4 << 30
	}
	if l.Files <= 0 {
		l.Files = 1024
	}
	if l.Timeout <= 0 {
		l.Timeout = 6 * time.Hour
	}
	return l
}

// Line is one line of a job's log, without its end. Lines longer than 16 KiB come in pieces.
type Line struct {
	At     time.Time `json:"at"`
	Stream string    `json:"stream"` // out, err, or falaj for our own words
	Text   string    `json:"text"`
}

// Outcome says how a job ended.
type Outcome string

// The outcomes. Interrupted is a job whose server went away: its processes died with it.
const (
	Running     Outcome = "running"
	Succeeded   Outcome = "succeeded"
	Failed      Outcome = "failed" // it ended by itself, with an exit code or by a signal of its own
	Killed      Outcome = "killed" // a limit was reached
	Cancelled   Outcome = "cancelled"
	Interrupted Outcome = "interrupted"
)

// Result is how a job ended, in words a person can act on.
type Result struct {
	Outcome    Outcome
	ExitCode   int    // -1 when a signal ended it
	Reason     string // "exit code 3", "killed: memory limit 512 MiB reached"
	MemoryPeak int64  // bytes, of all its processes where the kernel tells, else of the largest one
	CPUSeconds float64
	Started    time.Time
	Ended      time.Time
	Guards     []string // what held the job: landlock, seccomp, cgroup, namespaces, rlimits
}

// Artifact is a file the job left in its outputs, kept as a blob.
type Artifact struct {
	Path   string `json:"path"`
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// Training is the record of one launch.
type Training struct {
	ID         string            `json:"id"`
	Project    string            `json:"project"`
	Run        string            `json:"run"` // the tracking run, MLflow's 32 hex digits; may be empty
	Key        string            `json:"key"` // what makes it one piece of work, see Request
	Argv       []string          `json:"argv"`
	Code       string            `json:"code_digest"` // of the tar of the code, kept as a blob
	Commit     string            `json:"git_commit"`  // empty outside Git
	Dirty      bool              `json:"git_dirty"`
	Runtime    string            `json:"runtime_digest"`
	Params     map[string]string `json:"params"`
	Data       map[string]string `json:"data"` // name of a dataset version -> digest
	Limits     Limits            `json:"limits"`
	Started    time.Time         `json:"started"`
	Ended      time.Time         `json:"ended"`
	Outcome    Outcome           `json:"outcome"`
	ExitCode   int               `json:"exit_code"`
	Reason     string            `json:"reason"`
	Log        string            `json:"log_digest"`
	Artifacts  []Artifact        `json:"artifacts"`
	MemoryPeak int64             `json:"memory_peak_bytes"`
	CPUSeconds float64           `json:"cpu_seconds"`
	Guards     []string          `json:"guards"`
}

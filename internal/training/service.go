package training

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"falaj/internal/blob"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/id"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/secret"
	"falaj/internal/store"
)

// Service launches training commands and keeps their records. It is safe for concurrent use.
type Service struct {
	db       *store.Store
	blobs    *blob.Store
	launcher Launcher
	work     string

	mu     sync.Mutex
	active map[string]bool // guarded by mu: project and key of what runs in this process
}

// New wires the service; work is a folder for the files of running jobs (DATA/run/training), private to this server.
func New(db *store.Store, blobs *blob.Store, l Launcher, work string) (*Service, error) {
	work, err := filepath.Abs(work)
	if err == nil {
		err = os.MkdirAll(work, 0o700)
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, fmt.Sprintf("The work folder %s cannot be used.", work), "Check that this user may write there.")
	}
	return &Service{db: db, blobs: blobs, launcher: l, work: work, active: map[string]bool{}}, nil
}

// Request asks for one launch.
type Request struct {
	Project string
	Run     string            // the tracking run it logs to; may be empty
	Key     string            // idempotency: the same key returns a success that is already recorded; may be empty
	Argv    []string          // with {param} placeholders, see SplitCommand and Expand
	Params  map[string]string // for the placeholders and the record
	Dir     string            // the user's project folder
	Code    []string          // files and folders of Dir that are code; none means all
	Commit  string            // Git commit of Dir when the caller knows it, as a server that was sent the files; empty: looked up in Dir
	Dirty   bool              // files differed from Commit
	Runtime Runtime
	Data    map[string]string // name of each input version -> digest, for the record
	Inputs  []string          // files and folders the job may read, such as the training set
	Env     map[string]string
	Secrets map[string]string // environment that never reaches record or log, such as the run's token
	Hidden  [][]byte          // values in files among Inputs that never reach record or log: the project's secrets
	Limits  Limits
	Connect []uint16   // TCP ports the job may connect to: the tracking server's
	Log     func(Line) // live lines; may be nil
}

// Launch copies and records the code, runs the command, and keeps log and outputs as blobs. Start and end are two
// recorded changes; the end is recorded also when ctx is cancelled meanwhile. A job that fails is a Training whose
// Err says why; an error means that it could not be launched or recorded.
func (s *Service) Launch(ctx context.Context, req Request) (Training, error) {
	release, err := s.claim(req)
	if err != nil {
		return Training{}, err
	}
	defer release()
	if done, err := s.earlier(ctx, req); err != nil || done != nil {
		return value(done), err
	}
	t, err := s.record(req)
	if err != nil {
		return Training{}, err
	}
	base := filepath.Join(s.work, t.ID)
	defer os.RemoveAll(base)
	job, err := s.prepare(ctx, req, &t, base)
	if err != nil {
		return Training{}, err
	}
	err = s.db.Change(ctx, "training.start", resource(t), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		tx.After(t)
		return event.Draft{Type: "training.started", Subject: t.ID, Data: map[string]any{"run": t.Run, "code": t.Code, "runtime": t.Runtime}}, insert(ctx, tx, t)
	})
	if err != nil {
		return Training{}, err
	}
	keep := context.WithoutCancel(ctx)
	log := s.openLog(keep, t.Project, req.Log)
	job.Log = log.add
	res, launchErr := s.keepCode(ctx, t, job)
	if launchErr != nil {
		res.Outcome, res.ExitCode, res.Reason, res.Ended = Failed, -1, fault.From(launchErr).Public, time.Now()
		if ctx.Err() != nil {
			res.Outcome, res.Reason = Cancelled, "cancelled"
		}
	}
	finish(&t, res)
	if t.Outcome == Succeeded { // what a failed job left is not worth keeping, and may be a full disk
		if t.Artifacts, err = s.keepOutputs(keep, t.Project, job.Outputs); err != nil {
			t.Outcome, t.Reason = Failed, "its outputs could not be kept: "+fault.From(err).Public
		}
	}
	if t.Log, err = log.close(t); err != nil {
		t.Reason += "; its log could not be kept: " + fault.From(err).Public
	}
	if err := s.end(keep, t); err != nil {
		return Training{}, err
	}
	return t, launchErr
}

func value(t *Training) Training {
	if t == nil {
		return Training{}
	}
	return *t
}

// claim keeps one piece of work from running twice at a time in this server.
func (s *Service) claim(req Request) (release func(), err error) {
	if req.Key == "" {
		return func() {}, nil
	}
	name := req.Project + "\x00" + req.Key
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active[name] {
		return nil, fault.New(fault.Conflict, fmt.Sprintf("Training %s is already running.", req.Key), "Wait for it: falaj logs shows its lines.")
	}
	s.active[name] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.active, name)
	}, nil
}

// earlier finds a success under the same key. A launch under it that never ended belongs to a server that died.
func (s *Service) earlier(ctx context.Context, req Request) (*Training, error) {
	if req.Key == "" {
		return nil, nil
	}
	found, err := s.list(ctx, `project = $1 AND work_key = $2`, req.Project, req.Key)
	for _, t := range found {
		switch t.Outcome {
		case Succeeded:
			return &t, err
		case Running:
			if err := s.interrupt(ctx, t); err != nil {
				return nil, err
			}
		}
	}
	return nil, err
}

func (s *Service) record(req Request) (Training, error) {
	argv, err := Expand(req.Argv, req.Params)
	if err != nil {
		return Training{}, err
	}
	for name, secret := range req.Secrets {
		if len(secret) >= 6 && strings.Contains(strings.Join(argv, "\x00"), secret) {
			return Training{}, fault.New(fault.Invalid, fmt.Sprintf("The command holds the value of the secret %s; commands are recorded and visible.", name), "Read it from the environment in your script.").At("run")
		}
	}
	hide := secret.NewRedactor(req.Hidden...)
	for _, word := range argv {
		if hide.Text(word) != word {
			return Training{}, fault.New(fault.Invalid, "The command holds the value of a secret; commands are recorded and visible.", "Read it from its file in the folder FALAJ_SECRETS.").At("run")
		}
	}
	if req.Project == "" || req.Runtime.Digest == "" {
		return Training{}, fault.New(fault.Invalid, "A training needs a project and a runtime.", "Name both.")
	}
	return Training{ID: id.New("trn"), Project: req.Project, Run: req.Run, Key: req.Key, Argv: argv, Runtime: req.Runtime.Digest, Params: req.Params, Data: req.Data,
		Limits: req.Limits.WithDefaults(), Started: time.Now().UTC().Truncate(time.Microsecond), Outcome: Running, ExitCode: -1}, nil
}

func (s *Service) prepare(ctx context.Context, req Request, t *Training, base string) (Job, error) {
	job := Job{ID: t.ID, Argv: t.Argv, Code: filepath.Join(base, "code"), Scratch: filepath.Join(base, "scratch"), Outputs: filepath.Join(base, "outputs"),
		Inputs: req.Inputs, Env: req.Env, Secrets: req.Secrets, Hidden: req.Hidden, Runtime: req.Runtime, Limits: t.Limits, Connect: req.Connect}
	for _, d := range []string{base, job.Code, job.Scratch, job.Outputs} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return Job{}, fault.Wrap(err, fault.Unavailable, "The job's folders could not be made.", "Check free space in the data folder.")
		}
	}
	err := copyCode(ctx, req.Dir, req.Code, job.Code)
	if t.Commit, t.Dirty = req.Commit, req.Dirty; err == nil && req.Commit == "" {
		t.Commit, t.Dirty, err = GitState(req.Dir)
	}
	if err == nil {
		t.Code, err = codeDigest(job.Code)
	}
	return job, err
}

// keepCode stores the code that will run and then runs it.
func (s *Service) keepCode(ctx context.Context, t Training, job Job) (Result, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(writeTar(job.Code, w)) }()
	_, err := s.blobs.PutExpect(ctx, t.Project, t.Code, r)
	r.Close()
	if err != nil {
		return Result{}, err
	}
	return s.launcher.Launch(ctx, job)
}

func finish(t *Training, res Result) {
	t.Outcome, t.ExitCode, t.Reason = res.Outcome, res.ExitCode, res.Reason
	t.MemoryPeak, t.CPUSeconds, t.Guards = res.MemoryPeak, res.CPUSeconds, res.Guards
	t.Ended = res.Ended.UTC().Truncate(time.Microsecond)
}

// keepOutputs stores every regular file of the outputs; links are left behind, they may lead anywhere.
func (s *Service) keepOutputs(ctx context.Context, project, dir string) (out []Artifact, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		if len(out) >= 10_000 {
			return fault.New(fault.TooLarge, "A job may keep 10,000 output files.", "Pack them into one.")
		}
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		ref, err := s.blobs.Put(ctx, project, f)
		out = append(out, Artifact{Path: name, Digest: ref.Digest, Size: ref.Size})
		return err
	})
	return out, err
}

func resource(t Training) policy.Resource {
	return policy.Resource{Kind: "Training", ID: t.ID, Project: t.Project}
}

// end records how a training ended, in the name of whoever started it.
func (s *Service) end(ctx context.Context, t Training) error {
	return s.db.Change(who.AsSystem(ctx, "training"), "training.finish", resource(t), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		tx.After(t)
		draft := event.Draft{Type: "training.finished", Subject: t.ID, Data: map[string]any{"run": t.Run, "outcome": t.Outcome, "reason": t.Reason, "log": t.Log}}
		return draft, update(ctx, tx, t)
	})
}

func (s *Service) interrupt(ctx context.Context, t Training) error {
	t.Outcome, t.Reason, t.Ended = Interrupted, "interrupted: the server stopped", time.Now().UTC().Truncate(time.Microsecond)
	return s.end(ctx, t)
}

// Recover closes the records of launches that a stopped server left open, and clears their files. Call it once at start,
// before any Launch.
func (s *Service) Recover(ctx context.Context) error {
	open, err := s.list(ctx, `outcome = $1`, string(Running))
	if err != nil {
		return err
	}
	for _, t := range open {
		if err := s.interrupt(ctx, t); err != nil {
			return err
		}
	}
	left, err := os.ReadDir(s.work)
	for _, l := range left {
		err = errors.Join(err, os.RemoveAll(filepath.Join(s.work, l.Name())))
	}
	return fault.Wrap(err, fault.Unavailable, "The files of interrupted trainings could not be cleared.", "Check the rights in the data folder.")
}

// Get returns one record; the caller has authorized training.read.
func (s *Service) Get(ctx context.Context, project, id string) (Training, error) {
	found, err := s.list(ctx, `project = $1 AND id = $2`, project, id)
	if err == nil && len(found) == 0 {
		err = fault.New(fault.NotFound, fmt.Sprintf("Project %s has no training %.60s.", project, id), "falaj status lists what ran.")
	}
	if err != nil {
		return Training{}, err
	}
	return found[0], nil
}

// List returns the newest records of a project, newest first, at most 1000.
func (s *Service) List(ctx context.Context, project string) ([]Training, error) {
	return s.list(ctx, `project = $1`, project)
}

// OfRun returns the records of a tracking run, newest first.
func (s *Service) OfRun(ctx context.Context, project, run string) ([]Training, error) {
	return s.list(ctx, `project = $1 AND run = $2`, project, run)
}

// Log opens the whole log: lines of time (RFC 3339), stream and text, separated by single spaces.
func (s *Service) Log(ctx context.Context, t Training) (*blob.Object, error) {
	if t.Log == "" {
		return nil, fault.New(fault.NotFound, fmt.Sprintf("Training %s has no log yet.", t.ID), "Wait for its end, or follow it live.")
	}
	return s.blobs.Open(ctx, t.Project, t.Log)
}

// Err is nil for a success, else a fault that says how the training ended.
func (t Training) Err() error {
	if t.Outcome == Succeeded {
		return nil
	}
	kind := fault.Refused
	if t.Outcome == Cancelled || t.Outcome == Interrupted {
		kind = fault.Unavailable
	}
	return fault.New(kind, fmt.Sprintf("Training %s did not succeed: %s.", t.ID, t.Reason), fmt.Sprintf("falaj logs %s shows what it said.", t.ID))
}

// logKeeper passes lines on and streams them into a blob.
type logKeeper struct {
	live    func(Line)
	out     *bufio.Writer
	pipe    *io.PipeWriter
	ref     chan result
	written int
}

type result struct {
	digest string
	err    error
}

// maxLog bounds a kept log, in bytes.
const maxLog = 64 << 20

func (s *Service) openLog(ctx context.Context, project string, live func(Line)) *logKeeper {
	r, w := io.Pipe()
	l := &logKeeper{live: live, out: bufio.NewWriterSize(w, 64<<10), pipe: w, ref: make(chan result, 1)}
	go func() {
		ref, err := s.blobs.Put(ctx, project, r)
		r.CloseWithError(errors.Join(err, io.ErrClosedPipe)) // a log that cannot be kept must not stop the job
		l.ref <- result{ref.Digest, err}
	}()
	return l
}

func (l *logKeeper) add(line Line) {
	if l.live != nil {
		l.live(line)
	}
	if l.written >= maxLog {
		return
	}
	if l.write(line); l.written >= maxLog {
		l.write(Line{At: line.At, Stream: "falaj", Text: "the log is longer than 64 MiB and is not kept further"})
	}
}

func (l *logKeeper) write(line Line) {
	n, _ := fmt.Fprintf(l.out, "%s %s %s\n", line.At.UTC().Format("2006-01-02T15:04:05.000Z"), line.Stream, line.Text)
	l.written += n
}

func (l *logKeeper) close(t Training) (digest string, err error) {
	last := Line{At: t.Ended, Stream: "falaj", Text: string(t.Outcome) + ": " + t.Reason}
	if l.live != nil {
		l.live(last)
	}
	l.write(last)
	_ = l.out.Flush()
	_ = l.pipe.Close()
	r := <-l.ref
	return r.digest, r.err
}

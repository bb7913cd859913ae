package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"falaj/internal/features"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/ledger"
	"falaj/internal/kernel/note"
	"falaj/internal/plan"
	"falaj/internal/registry"
	"falaj/internal/tracking"
	"falaj/internal/training"
)

// fitted is the value of a train step.
type fitted struct {
	Run     string `json:"run"`
	Version int64  `json:"version"`
	Runtime string `json:"runtime"`
	Code    string `json:"code"`
}

// model trains one model and registers its release, then does what the pipeline is for.
func (x *execution) model(name string, m plan.Model) error {
	set, err := x.trainingSet(name, m)
	if err != nil {
		return err
	}
	fit, err := x.train(name, m, set)
	if err != nil {
		return err
	}
	tr, err := x.register(name, m, set, fit)
	if err != nil {
		return err
	}
	switch x.run.Pipeline {
	case RetrainPipeline:
		return x.challenge(name, tr)
	case ChallengePipeline:
		return x.shadow(name, tr)
	}
	return nil
}

func (x *execution) trainingSet(name string, m plan.Model) (features.TrainingSet, error) {
	var set features.TrainingSet
	spine, err := x.files.text(m.Train.Spine)
	if err != nil {
		return set, err
	}
	deps := reads(x.plan, x.files, m.Train.Spine)
	needs := []string{}
	views := x.plan.Services[m.Train.Features]
	for _, v := range views {
		if x.plan.Features[v].SQL != "" {
			needs = append(needs, "materialize "+v)
			deps = append(deps, reads(x.plan, x.files, x.plan.Features[v].SQL)...)
		}
	}
	slices.Sort(deps)
	deps = slices.Compact(deps)
	info, err := x.s.Features.Describe(x.s.system(context.Background(), x.run.Actor), x.run.Project, m.Train.Features)
	if err != nil {
		return set, err
	}
	in := parts{"code " + m.Train.Spine: "sha256:" + ledger.Digest(spine), "features " + m.Train.Features: info.Digest,
		"since": x.since.Format(time.RFC3339), "until": x.until.Format(time.RFC3339), "time": m.Train.Time.Event + "/" + m.Train.Time.Known}
	pins := map[string]int64{}
	var refs []Ref
	for _, d := range deps {
		in["input "+d] = x.digest[d]
		pins[d] = x.version[d]
		refs = append(refs, versionRef(d, x.version[d]))
	}
	out, err := x.step("features "+name, "features", needs, in, refs, func(ctx context.Context, _ string, log func(string)) (outcome, error) {
		ts, err := x.s.Features.TrainingSet(ctx, x.run.Project, spine, m.Train.Features, features.TrainingSetRequest{Since: x.since, Until: x.until, At: m.Train.Time.Event, Known: m.Train.Time.Known, Label: m.Train.Label, Pins: pins})
		if err != nil {
			return outcome{}, err
		}
		if ts.Rows == 0 {
			return outcome{}, fault.New(fault.Refused, "The training set of "+name+" is empty.", "Check the spine's SELECT and the period.")
		}
		log(fmt.Sprintf("%d rows x %d features, point in time", ts.Rows, len(ts.Features)))
		raw, err := json.Marshal(ts)
		return outcome{Value: raw, Outputs: []Ref{{Kind: "training_set", ID: ts.Blob.Digest}}}, err
	})
	if err != nil {
		return set, err
	}
	return set, json.Unmarshal(out.Value, &set)
}

// code lists the files of the bundle that the training command may see: those declared, else those the command names.
func (x *execution) code(name string) []string {
	var out []string
	for _, f := range x.files.of("models."+name+".train", "code") {
		out = append(out, x.files.under(strings.TrimSuffix(f, "/"))...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (x *execution) params(m plan.Model) map[string]string {
	out := map[string]string{}
	for k, v := range m.Train.Params {
		out[k] = fmt.Sprint(v)
	}
	maps.Copy(out, x.run.Request.Params)
	return out
}

func (x *execution) train(name string, m plan.Model, set features.TrainingSet) (fitted, error) {
	var fit fitted
	params, code := x.params(m), x.code(name)
	in := parts{"command": m.Train.Run, "runtime": x.bundle.Files[path.Clean(m.Train.Runtime)], "input training set": set.Blob.Digest, "platform": runtime.GOOS + "/" + runtime.GOARCH}
	for _, f := range code {
		in["code "+f] = x.bundle.Files[f]
	}
	for k, v := range params {
		in["param "+k] = v
	}
	for k, v := range x.s.secretParts(x.s.system(context.Background(), x.run.Actor), x.run.Project, m.Train.Secrets) {
		in[k] = v
	}
	out, err := x.step("train "+name, "train", []string{"features " + name}, in, []Ref{{Kind: "training_set", ID: set.Blob.Digest}}, func(ctx context.Context, key string, log func(string)) (outcome, error) {
		secrets, err := x.s.openSecrets(ctx, x.run.Project, m.Train.Secrets, in)
		if err != nil {
			return outcome{}, err
		}
		defer secrets.Close()
		f, err := x.fit(ctx, name, m, set, params, code, secrets, log)
		if err != nil {
			return outcome{}, err
		}
		raw, err := json.Marshal(f)
		return outcome{Value: raw, Outputs: []Ref{{Kind: "run", ID: f.Run}, {Kind: "model_version", ID: name, Version: &f.Version}}}, err
	})
	if err != nil {
		return fit, err
	}
	return fit, json.Unmarshal(out.Value, &fit)
}

func (x *execution) fit(ctx context.Context, name string, m plan.Model, set features.TrainingSet, params map[string]string, code []string, secrets opened, log func(string)) (fitted, error) {
	lock, err := x.files.text(m.Train.Runtime)
	if err != nil {
		return fitted{}, err
	}
	rt, err := x.s.Runtime(ctx, lock, log)
	if err != nil {
		return fitted{}, err
	}
	argv, err := training.SplitCommand(m.Train.Run)
	if err != nil {
		return fitted{}, err
	}
	work, err := os.MkdirTemp(x.s.Work, "train-")
	if err != nil {
		return fitted{}, fault.Wrap(err, fault.Unavailable, "There is no place for the training's files.", "Free space on the volume of the data directory.")
	}
	defer os.RemoveAll(work)
	if err := x.files.lay(work, code); err != nil {
		return fitted{}, err
	}
	room, set2, err := x.s.clear(ctx, x.run.Project, set)
	if err != nil {
		return fitted{}, err
	}
	defer room.Close()
	if done, err := x.fitted(ctx, name); err != nil || done != nil {
		return value(done), err
	}
	runID, err := x.s.openRun(ctx, x.run, name, set, x.bundle)
	if err != nil {
		return fitted{}, err
	}
	limits := training.Limits{Memory: int64(m.Train.Limits.Memory), CPUs: m.Train.Limits.CPUs, Timeout: m.Train.Limits.Timeout.Std()}
	token, err := x.s.Access.RunToken(ctx, x.run.Project, runID, limits.WithDefaults().Timeout+10*time.Minute)
	if err != nil {
		return fitted{}, err
	}
	server, err := url.Parse(x.s.URL())
	if err != nil {
		return fitted{}, err
	}
	port, err := strconv.ParseUint(server.Port(), 10, 16)
	if err != nil {
		return fitted{}, err
	}
	env := map[string]string{"FALAJ_TRAINING_SET": set2, "MLFLOW_TRACKING_URI": x.s.URL(), "MLFLOW_EXPERIMENT_NAME": name, "MLFLOW_RUN_ID": runID,
		"GIT_PYTHON_REFRESH": "quiet", "NO_PROXY": "127.0.0.1,localhost"}
	inputs := append(append(secrets.inputs(env), set2), x.s.trust(env)...)
	var last atomic.Pointer[string] // what the script said last
	t, err := x.s.Training.Launch(ctx, training.Request{Project: x.run.Project, Run: runID, Argv: argv, Params: params, Dir: work, Commit: x.bundle.Commit, Dirty: x.bundle.Dirty, Runtime: rt, Data: pinsOf(set), Inputs: inputs, Env: env, Hidden: secrets.values,
		Secrets: map[string]string{"MLFLOW_TRACKING_TOKEN": token}, Limits: limits, Connect: []uint16{uint16(port)}, Log: func(l training.Line) {
			log(l.Text)
			if text := strings.TrimSpace(l.Text); text != "" && l.Stream != "falaj" {
				last.Store(&text)
			}
		}})
	if e := x.s.Access.RevokeRun(context.WithoutCancel(ctx), x.run.Project, runID); err == nil {
		err = e
	}
	if err == nil {
		err = blame(t, last.Load(), x.run.ID, name)
	}
	if err != nil {
		x.s.closeRun(ctx, x.run.Project, runID, "FAILED")
		return fitted{}, err
	}
	x.s.closeRun(ctx, x.run.Project, runID, "FINISHED")
	log(fmt.Sprintf("%s; %.1f CPU seconds, %d MiB at most, held by %s", t.Reason, t.CPUSeconds, t.MemoryPeak>>20, strings.Join(t.Guards, ", ")))
	version, err := x.s.registered(ctx, x.run.Project, name, runID)
	if err != nil {
		return fitted{}, err
	}
	if version != 0 {
		return fitted{Run: runID, Version: version, Runtime: rt.Digest, Code: t.Code}, nil
	}
	return fitted{}, fault.New(fault.Refused, "The training command ended well, but it registered no model named '"+name+"'.", "In the script: mlflow.<flavor>.log_model(..., registered_model_name=\""+name+"\").")
}

// trust lets a job believe the server's certificate, in the words of mlflow, of requests and of OpenSSL, and names the
// file that it must be able to read. The job reaches nothing else by TLS, so it needs no other authority.
func (s *Service) trust(env map[string]string) (inputs []string) {
	if s.CA == "" {
		return nil
	}
	for _, name := range []string{"MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"} {
		env[name] = s.CA
	}
	return []string{s.CA}
}

func value(f *fitted) fitted {
	if f == nil {
		return fitted{}
	}
	return *f
}

// registered is the version of the model that a run registered, 0 for none.
func (s *Service) registered(ctx context.Context, project, model, run string) (int64, error) {
	versions, err := s.Registry.SearchVersions(ctx, project, tracking.Search{Filter: "run_id = '" + run + "'", Max: 10})
	if err != nil {
		return 0, err
	}
	for _, v := range versions.Items {
		if v.Model == model {
			return v.Number, nil
		}
	}
	return 0, nil
}

// fitted takes up what an interrupted try of this step left: a training that succeeded is not repeated, and what a
// killed one had registered is taken away, so that no model version stands twice for one training.
func (x *execution) fitted(ctx context.Context, name string) (*fitted, error) {
	runs, err := x.s.runsOf(ctx, x.run.Project, x.run.ID, name)
	if err != nil {
		return nil, err
	}
	for _, run := range runs {
		trainings, err := x.s.Training.OfRun(ctx, x.run.Project, run)
		if err != nil {
			return nil, err
		}
		version, err := x.s.registered(ctx, x.run.Project, name, run)
		if err != nil {
			return nil, err
		}
		for _, t := range trainings {
			if t.Outcome == training.Succeeded && version != 0 {
				x.s.closeRun(ctx, x.run.Project, run, "FINISHED")
				return &fitted{Run: run, Version: version, Runtime: t.Runtime, Code: t.Code}, nil
			}
		}
		x.s.closeRun(ctx, x.run.Project, run, "KILLED")
		if version != 0 {
			if err := x.s.Registry.DeleteVersion(ctx, x.run.Project, name, version); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}

// runsOf lists the tracking runs that a pipeline run opened for a model.
func (s *Service) runsOf(ctx context.Context, project, pipelineRun, model string) ([]string, error) {
	exp, err := s.Tracking.ExperimentByName(ctx, project, model)
	if fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	left, err := s.Tracking.SearchRuns(ctx, project, tracking.Search{Experiments: []int64{exp.ID}, Filter: "tags.\"falaj.pipeline_run\" = '" + pipelineRun + "'", Max: 100})
	var out []string
	for _, l := range left.Items {
		out = append(out, l.ID)
	}
	return out, err
}

// blame says how a training ended that did not succeed, with the script's last words and where to read all of them.
func blame(t training.Training, last *string, run, model string) error {
	err := t.Err()
	if err == nil {
		return nil
	}
	what := fmt.Sprintf("The training command of %s did not succeed: %s.", model, t.Reason)
	if last != nil {
		what += " Its last words: " + clip(*last)
	}
	return fault.Wrap(err, fault.KindOf(err), what, fmt.Sprintf("falaj logs %s 'train %s' shows all it said.", run, model))
}

func clip(s string) string {
	if r := []rune(s); len(r) > 200 {
		return string(r[:200]) + "..."
	}
	return s
}

// Runtime makes the runtime of a lock, with uv installed on first use.
func (s *Service) Runtime(ctx context.Context, lock string, log func(string)) (training.Runtime, error) {
	if err := s.Runtimes.InstallUV(ctx, training.UVRequest{Wheelhouse: s.Wheelhouse, Progress: log}); err != nil {
		return training.Runtime{}, err
	}
	return s.Runtimes.EnsureRuntime(ctx, training.RuntimeRequest{Lock: []byte(lock), Python: s.Python, Wheelhouse: s.Wheelhouse, Offline: s.Wheelhouse != "", Progress: log})
}

// lay writes files of the bundle into a folder. os.Root keeps every path inside it.
func (f *files) lay(dir string, names []string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, name := range names {
		if err := f.layOne(root, name); err != nil {
			return err
		}
	}
	return nil
}

func (f *files) layOne(root *os.Root, name string) error {
	for i, c := range name {
		if c == '/' {
			if err := root.Mkdir(filepath.FromSlash(name[:i]), 0o755); err != nil && !os.IsExist(err) {
				return err
			}
		}
	}
	in, err := f.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := root.OpenFile(filepath.FromSlash(name), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in.(fs.File)); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

func pinsOf(set features.TrainingSet) map[string]string {
	out := map[string]string{}
	for _, p := range set.Pins {
		out[fmt.Sprintf("%s@%d", p.Dataset, p.Version)] = p.Digest
	}
	return out
}

// openRun makes the tracking run that the script will resume by MLFLOW_RUN_ID.
func (s *Service) openRun(ctx context.Context, r Run, model string, set features.TrainingSet, b Bundle) (string, error) {
	exp, err := s.Tracking.ExperimentByName(ctx, r.Project, model)
	if fault.Is(err, fault.NotFound) {
		exp, err = s.Tracking.CreateExperiment(ctx, r.Project, tracking.NewExperiment{Name: model})
		if fault.Is(err, fault.Exists) { // another run of the model was faster
			exp, err = s.Tracking.ExperimentByName(ctx, r.Project, model)
		}
	}
	if err != nil {
		return "", err
	}
	tags := []tracking.Pair{{Key: "falaj.pipeline_run", Value: r.ID}, {Key: "falaj.pipeline", Value: r.Pipeline}, {Key: "falaj.training_set", Value: set.Blob.Digest}, {Key: "mlflow.source.name", Value: "falaj " + r.Pipeline}, {Key: "mlflow.source.type", Value: "JOB"}, {Key: "mlflow.user", Value: r.Actor}}
	if b.Commit != "" {
		tags = append(tags, tracking.Pair{Key: "mlflow.source.git.commit", Value: b.Commit}, tracking.Pair{Key: "mlflow.source.git.dirty", Value: strconv.FormatBool(b.Dirty)})
	}
	run, err := s.Tracking.CreateRun(ctx, r.Project, tracking.NewRun{Experiment: exp.ID, Name: r.Pipeline + " " + strings.TrimPrefix(r.ID, "pr_"), User: r.Actor, StartMs: time.Now().UnixMilli(), Tags: tags})
	return run.ID, err
}

// closeRun ends a run in tracking unless the script has ended it itself.
func (s *Service) closeRun(ctx context.Context, project, runID, status string) {
	ctx = context.WithoutCancel(ctx)
	info, err := s.Tracking.RunInfo(ctx, project, runID)
	if err == nil && info.Status == "RUNNING" {
		now := time.Now().UnixMilli()
		_, err = s.Tracking.UpdateRun(ctx, project, runID, tracking.RunUpdate{Status: &status, EndMs: &now})
	}
	if err != nil {
		s.Log.Warn("a run could not be closed", "run", runID, "err", err)
	}
}

// register freezes the release and keeps what gates and monitors will ask of it.
func (x *execution) register(name string, m plan.Model, set features.TrainingSet, fit fitted) (Trained, error) {
	var tr Trained
	spine, err := x.files.text(m.Train.Spine)
	if err != nil {
		return tr, err
	}
	out, err := x.step("register "+name, "register", []string{"train " + name}, nil, []Ref{{Kind: "run", ID: fit.Run}}, func(ctx context.Context, _ string, log func(string)) (outcome, error) {
		req := registry.ReleaseRequest{Model: name, Version: fit.Version, Run: fit.Run, Code: registry.Code{Digest: fit.Code, Commit: x.bundle.Commit, Dirty: x.bundle.Dirty}, Runtime: fit.Runtime, Command: m.Train.Run}
		tr := Trained{Project: x.run.Project, Model: name, Version: fit.Version, Run: fit.Run, Pipeline: x.run.ID, Apply: x.run.Apply, Author: x.run.Actor, Spine: spine, Service: set.Service,
			At: m.Train.Time.Event, Known: m.Train.Time.Known, Label: m.Train.Label, Since: x.since, Until: x.until, Pins: map[string]int64{}, TrainingSet: set.Blob.Digest, Runtime: fit.Runtime, Params: x.params(m)}
		for _, p := range set.Pins {
			req.Data = append(req.Data, registry.Ref{Name: p.Dataset, Version: strconv.FormatInt(p.Version, 10), Digest: p.Digest})
			tr.Pins[p.Dataset] = p.Version
		}
		service, digest, _ := strings.Cut(set.Service, "@")
		req.Features = []registry.Ref{{Name: service, Digest: digest}}
		old, err := x.s.Registry.Version(ctx, x.run.Project, name, fit.Version)
		if err != nil {
			return outcome{}, err
		}
		prev, err := x.s.Trained(ctx, x.run.Project, old.Release)
		if err != nil && !fault.Is(err, fault.NotFound) { // not found: a kill came between the release and the record of how it was made
			return outcome{}, err
		}
		if err == nil { // a cached training: its release stands
			why := note.New("registry.stands", "{model}@{version} stands", "model", name, "version", fit.Version)
			raw, err := json.Marshal(prev)
			return outcome{Hit: true, Reason: &why, Value: raw, Outputs: []Ref{{Kind: "release", ID: old.Release}, {Kind: "model_version", ID: name, Version: &fit.Version}}}, err
		}
		rel, err := x.s.Registry.CreateRelease(ctx, x.run.Project, req)
		if err != nil {
			return outcome{}, err
		}
		tr.Release = rel.Digest
		if err := x.s.keepTrained(ctx, tr, set, rel); err != nil {
			return outcome{}, err
		}
		log(fmt.Sprintf("%s@%d is release %s", name, fit.Version, rel.Digest))
		raw, err := json.Marshal(tr)
		return outcome{Value: raw, Outputs: []Ref{{Kind: "release", ID: rel.Digest}, {Kind: "model_version", ID: name, Version: &fit.Version}}}, err
	})
	if err != nil {
		return tr, err
	}
	return tr, json.Unmarshal(out.Value, &tr)
}

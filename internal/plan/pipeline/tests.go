package pipeline

import (
	"bufio"
	"context"
	"encoding/xml"
	"fmt"
	"math"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"falaj/internal/delivery"
	"falaj/internal/kernel/fault"
	"falaj/internal/plan"
	"falaj/internal/secret"
	"falaj/internal/serving"
	"falaj/internal/store"
	"falaj/internal/training"
)

// suite is what the project's tests of one release share: the code as applied, its runtime, and the release on a
// throw-away endpoint.
type suite struct {
	s        *Service
	change   delivery.Change
	trained  Trained
	model    plan.Model
	files    *files
	secrets  opened
	runtime  training.Runtime
	endpoint *serving.Endpoint
	dir      string
}

// testsGate starts the packaged release itself and runs the project's unit, behaviour and integration tests against it.
func (s *Service) testsGate(ctx context.Context, c delivery.Change) (delivery.Evidence, error) {
	t, err := s.Trained(ctx, c.Project, c.ToRelease)
	if err != nil {
		return delivery.Evidence{}, err
	}
	u := &suite{s: s, change: c, trained: t}
	if err := u.load(ctx); err != nil {
		return delivery.Evidence{}, err
	}
	if u.model.Tests.None() {
		return delivery.Evidence{Verdict: delivery.Failed, Note: says("tests.none", "the gate asks for tests, and the model declares none")}, nil
	}
	if u.dir, err = os.MkdirTemp(s.Work, "tests-"); err != nil {
		return delivery.Evidence{}, fault.Wrap(err, fault.Unavailable, "There is no place for the tests' files.", "Free space on the volume of the data directory.")
	}
	defer os.RemoveAll(u.dir)
	if u.secrets, err = s.openSecrets(ctx, c.Project, u.model.Tests.Secrets, nil); err != nil {
		return delivery.Evidence{Verdict: delivery.Failed, Note: says("tests.no_secret", "{why}", "why", fault.From(err).Public)}, nil
	}
	defer u.secrets.Close()
	e, closeIt, err := s.Serving.Ephemeral(ctx, c.Project, c.ToRelease)
	if err != nil {
		return delivery.Evidence{Verdict: delivery.Failed, Note: says("tests.not_served", "the packaged release does not answer: {why}", "why", fault.From(err).Public)}, nil
	}
	defer closeIt()
	u.endpoint = e
	var results []delivery.TestResult
	for _, part := range []func(context.Context) ([]delivery.TestResult, error){u.unit, u.behaviour, u.integration} {
		r, err := part(ctx)
		if err != nil {
			return delivery.Evidence{}, err
		}
		results = append(results, r...)
	}
	hide := secret.NewRedactor(u.secrets.values...)
	for i := range results { // a runner's report is a file that the job wrote, no line of its log
		results[i].Name, results[i].Message = hide.Text(results[i].Name), hide.Text(results[i].Message)
	}
	failed := 0
	first := ""
	for _, r := range results {
		if r.Verdict != delivery.Passed {
			failed++
			if first == "" {
				first = r.Suite + ": " + r.Name
			}
		}
	}
	ev := delivery.Evidence{Verdict: verdict(failed == 0 && len(results) > 0), Tests: results, Note: says("tests.summary", "{passed} passed, {failed} failed", "passed", len(results)-failed, "failed", failed)}
	if failed > 0 {
		ev.Note = says("tests.failed", "{failed} of {all} tests failed, first {name}", "failed", failed, "all", len(results), "name", first)
	}
	return ev, nil
}

func (u *suite) load(ctx context.Context) error {
	var a Applied
	err := u.s.store.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		a, _, err = selectApply(ctx, q, u.change.Project, u.trained.Apply)
		return err
	})
	if err != nil {
		return err
	}
	p, f, err := u.s.load(ctx, u.change.Project, a.Bundle)
	if err != nil {
		return err
	}
	u.model, u.files = p.Models[u.trained.Model], f
	lock, err := f.text(u.model.Train.Runtime)
	if err != nil {
		return err
	}
	u.runtime, err = u.s.Runtime(ctx, lock, func(string) {})
	return err
}

// job lays the model's code and tests out and runs one command there.
func (u *suite) job(ctx context.Context, name string, argv []string, env, secrets map[string]string, connect []uint16) (training.Result, []training.Line, string, error) {
	base := filepath.Join(u.dir, name)
	j := training.Job{ID: name, Argv: argv, Code: filepath.Join(base, "code"), Scratch: filepath.Join(base, "scratch"), Outputs: filepath.Join(base, "outputs"),
		Env: env, Secrets: secrets, Hidden: u.secrets.values, Runtime: u.runtime, Limits: training.Limits{Timeout: 10 * time.Minute}.WithDefaults(), Connect: connect}
	for _, d := range []string{j.Code, j.Scratch, j.Outputs} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return training.Result{}, nil, "", err
		}
	}
	var names []string
	for _, f := range u.files.of("models."+u.trained.Model, "") {
		names = append(names, u.files.under(strings.TrimSuffix(f, "/"))...)
	}
	if err := u.files.lay(j.Code, names); err != nil {
		return training.Result{}, nil, "", err
	}
	if j.Env == nil {
		j.Env = map[string]string{}
	}
	j.Inputs = u.secrets.inputs(j.Env)
	j.Env["PYTHONPATH"] = j.Code
	j.Env["PYTHONDONTWRITEBYTECODE"] = "1"
	if len(connect) > 0 {
		j.Inputs = append(j.Inputs, u.s.trust(j.Env)...)
	}
	if name == "unit" {
		j.Env["PYTEST_ADDOPTS"] = "--junitxml=" + filepath.Join(j.Outputs, "junit.xml")
	}
	var lines []training.Line
	j.Log = func(l training.Line) {
		if len(lines) < 5000 {
			lines = append(lines, l)
		}
	}
	res, err := u.s.Launcher.Launch(ctx, j)
	return res, lines, j.Outputs, err
}

type junit struct {
	Cases []struct {
		Class   string  `xml:"classname,attr"`
		Name    string  `xml:"name,attr"`
		Seconds float64 `xml:"time,attr"`
		Failure *struct {
			Message string `xml:"message,attr"`
		} `xml:"failure"`
		Error *struct {
			Message string `xml:"message,attr"`
		} `xml:"error"`
	} `xml:"testsuite>testcase"`
}

// unit runs the declared command. pytest tells its tests by a JUnit file; another runner is judged by its exit code.
func (u *suite) unit(ctx context.Context) ([]delivery.TestResult, error) {
	if u.model.Tests.Unit == "" {
		return nil, nil
	}
	argv, err := training.SplitCommand(u.model.Tests.Unit)
	if err != nil {
		return nil, err
	}
	res, lines, out, err := u.job(ctx, "unit", argv, nil, nil, nil)
	if err != nil {
		return nil, err
	}
	var j junit
	if b, err := os.ReadFile(filepath.Join(out, "junit.xml")); err == nil && xml.Unmarshal(b, &j) == nil && len(j.Cases) > 0 {
		var results []delivery.TestResult
		for _, c := range j.Cases {
			r := delivery.TestResult{Suite: "unit", Name: strings.TrimPrefix(c.Class+"."+c.Name, "."), Verdict: delivery.Passed, DurationMS: c.Seconds * 1000}
			if c.Failure != nil {
				r.Verdict, r.Message = delivery.Failed, c.Failure.Message
			} else if c.Error != nil {
				r.Verdict, r.Message = delivery.Broken, c.Error.Message
			}
			results = append(results, r)
		}
		if res.Outcome == training.Succeeded || failures(results) > 0 {
			return results, nil
		}
		return append(results, whole("unit", u.model.Tests.Unit, res, lines)), nil
	}
	return []delivery.TestResult{whole("unit", u.model.Tests.Unit, res, lines)}, nil
}

func failures(list []delivery.TestResult) (n int) {
	for _, r := range list {
		if r.Verdict != delivery.Passed {
			n++
		}
	}
	return n
}

// whole is a command as one test.
func whole(suiteName, name string, res training.Result, lines []training.Line) delivery.TestResult {
	r := delivery.TestResult{Suite: suiteName, Name: name, Verdict: verdict(res.Outcome == training.Succeeded), DurationMS: float64(res.Ended.Sub(res.Started).Microseconds()) / 1000}
	if r.Verdict != delivery.Passed {
		r.Message = res.Reason
		for _, l := range lines[max(0, len(lines)-8):] {
			r.Message += "\n" + l.Text
		}
	}
	return r
}

var tap = regexp.MustCompile(`^(not )?ok\b\s*\d*\s*-?\s*(.*)$`)

// integration runs the project's Python file against the release over HTTP, with a token that may only ask it. Lines of
// TAP tell the tests one by one; the exit code counts too.
func (u *suite) integration(ctx context.Context) ([]delivery.TestResult, error) {
	if u.model.Tests.Integration == "" {
		return nil, nil
	}
	id := "tests-" + u.change.ID
	token, err := u.s.Access.RunToken(ctx, u.change.Project, id, 15*time.Minute)
	if err != nil {
		return nil, err
	}
	server, err := url.Parse(u.s.URL())
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(server.Port(), 10, 16)
	if err != nil {
		return nil, err
	}
	env := map[string]string{"FALAJ_ENDPOINT": fmt.Sprintf("%s/v2/models/%s@%s", u.s.URL(), u.endpoint.Model, u.endpoint.Environment), "NO_PROXY": "127.0.0.1,localhost"}
	res, lines, _, err := u.job(ctx, "integration", []string{"python", path.Clean(u.model.Tests.Integration)}, env, map[string]string{"FALAJ_TOKEN": token}, []uint16{uint16(port)})
	if e := u.s.Access.RevokeRun(context.WithoutCancel(ctx), u.change.Project, id); err == nil {
		err = e
	}
	if err != nil {
		return nil, err
	}
	results := tapResults(res.Started, lines)
	if len(results) == 0 || (res.Outcome != training.Succeeded && failures(results) == 0) {
		results = append(results, whole("integration", u.model.Tests.Integration, res, lines))
	}
	return results, nil
}

// tapResults reads what a test file says. A test took from the one before it until its line.
func tapResults(started time.Time, lines []training.Line) (results []delivery.TestResult) {
	for _, l := range lines {
		if m := tap.FindStringSubmatch(l.Text); m != nil {
			name, msg, _ := strings.Cut(m[2], " # ")
			results = append(results, delivery.TestResult{Suite: "integration", Name: strings.TrimSpace(name), Verdict: verdict(m[1] == ""), Message: msg, DurationMS: float64(l.At.Sub(started).Microseconds()) / 1000})
			started = l.At
		} else if n := len(results); n > 0 && results[n-1].Verdict != delivery.Passed && strings.HasPrefix(l.Text, "#") {
			results[n-1].Message = strings.TrimSpace(results[n-1].Message + " " + strings.TrimPrefix(l.Text, "#"))
		}
	}
	return results
}

// Behaviour is the file of cases that a model must answer: rows are base with the case's features over it.
type behaviourFile struct {
	Base  map[string]*float64 `yaml:"base"`
	Cases []behaviourCase     `yaml:"cases"`
}

type behaviourCase struct {
	Name   string              `yaml:"name"`
	Kind   string              `yaml:"kind"` // minimum, directional, invariance
	Row    map[string]*float64 `yaml:"row"`
	Change map[string]*float64 `yaml:"change"`
	Expect struct {
		Below    *float64 `yaml:"below"`
		Above    *float64 `yaml:"above"`
		HigherBy *float64 `yaml:"higher_by"`
		LowerBy  *float64 `yaml:"lower_by"`
		Within   *float64 `yaml:"within"`
	} `yaml:"expect"`
}

func (u *suite) behaviour(ctx context.Context) ([]delivery.TestResult, error) {
	if u.model.Tests.Behaviour == "" {
		return nil, nil
	}
	text, err := u.files.text(u.model.Tests.Behaviour)
	if err != nil {
		return nil, err
	}
	var f behaviourFile
	dec := yaml.NewDecoder(bufio.NewReader(strings.NewReader(text)), yaml.Strict())
	if err := dec.Decode(&f); err != nil {
		return nil, fault.Wrap(err, fault.Invalid, u.model.Tests.Behaviour+" cannot be read: "+yaml.FormatError(err, false, false), "Each case has name, kind, row, change and expect.")
	}
	d, err := u.s.Serving.Describe(u.endpoint.Key, "")
	if err != nil {
		return nil, err
	}
	var out []delivery.TestResult
	for _, c := range f.Cases {
		start := time.Now()
		why, err := u.check(ctx, d.Features, f.Base, c)
		if err != nil {
			why = fault.From(err).Public
		}
		out = append(out, delivery.TestResult{Suite: "behaviour", Name: c.Name, Verdict: verdict(why == ""), Message: why, DurationMS: float64(time.Since(start).Microseconds()) / 1000})
	}
	return out, nil
}

// check says what is wrong with one case, "" when nothing is.
func (u *suite) check(ctx context.Context, names []string, base map[string]*float64, c behaviourCase) (string, error) {
	from, err := u.ask(ctx, names, base, c.Row)
	if err != nil {
		return "", err
	}
	e := c.Expect
	switch c.Kind {
	case "minimum":
		if e.Below == nil && e.Above == nil {
			return "a minimum case expects below or above", nil
		}
		if e.Below != nil && !(from < *e.Below) {
			return fmt.Sprintf("answered %.4f, expected below %g", from, *e.Below), nil
		}
		if e.Above != nil && !(from > *e.Above) {
			return fmt.Sprintf("answered %.4f, expected above %g", from, *e.Above), nil
		}
		return "", nil
	case "directional", "invariance":
		to, err := u.ask(ctx, names, base, c.Row, c.Change)
		if err != nil {
			return "", err
		}
		move := to - from
		switch {
		case e.HigherBy != nil && !(move >= *e.HigherBy):
			return fmt.Sprintf("moved from %.4f to %.4f, expected higher by %g", from, to, *e.HigherBy), nil
		case e.LowerBy != nil && !(-move >= *e.LowerBy):
			return fmt.Sprintf("moved from %.4f to %.4f, expected lower by %g", from, to, *e.LowerBy), nil
		case e.Within != nil && !(math.Abs(move) <= *e.Within):
			return fmt.Sprintf("moved from %.4f to %.4f, expected within %g", from, to, *e.Within), nil
		case e.HigherBy == nil && e.LowerBy == nil && e.Within == nil:
			return "the case expects higher_by, lower_by or within", nil
		}
		return "", nil
	}
	return "there is no kind '" + c.Kind + "': minimum, directional or invariance", nil
}

func (u *suite) ask(ctx context.Context, names []string, layers ...map[string]*float64) (float64, error) {
	row := make([]float64, len(names))
	known := map[string]bool{}
	for i, n := range names {
		known[n] = true
		row[i] = math.NaN()
		for _, l := range layers {
			if v, ok := l[n]; ok {
				row[i] = math.NaN()
				if v != nil {
					row[i] = *v
				}
			}
		}
	}
	for _, l := range layers {
		for n := range l {
			if !known[n] {
				return 0, fault.New(fault.Invalid, "the model has no feature '"+n+"'", "")
			}
		}
	}
	res, err := u.s.Serving.Predict(ctx, serving.Request{Key: u.endpoint.Key, Matrix: row, Rows: 1})
	if err != nil {
		return 0, err
	}
	return res.Results[0].Output[0], nil
}

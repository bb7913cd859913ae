package plan

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"falaj/internal/features"
	"falaj/internal/kernel/fault"
	"falaj/internal/secret"
	"falaj/internal/training"
)

const day = 24 * time.Hour

func validText(b []byte) bool { return utf8.Valid(b) }

// The forms of names. Those of datasets, views and features become names in SQL.
var (
	projectForm = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)
	tableForm   = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)
	columnForm  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)
	modelForm   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,63}$`)
	regionForm  = regexp.MustCompile(`^[a-z]{2}$`)
	typeForm    = regexp.MustCompile(`(?i)^(integer|number|text|boolean|date|timestamp|decimal\(\d{1,2}, ?\d{1,2}\))$`)
)

// checker reports at the paths of the file.
type checker struct {
	p *Project
	d *decoder
}

func (c checker) bad(path, format string, args ...any) {
	pos, at := Position{}, path
	for at != "" && pos.Line == 0 { // a key that is missing is reported at what it is missing from
		pos = c.p.at[at]
		at = at[:max(strings.LastIndexAny(at, ".["), 0)]
	}
	if pos.Line == 0 {
		pos = Position{1, 1}
	}
	c.d.bad(pos, path, format, args...)
}

// fault reports a refusal of another room at a place of the file.
func (c checker) fault(path string, err error) {
	if err == nil {
		return
	}
	f := fault.From(err)
	c.bad(path, "%s", f.Public)
	if n := len(c.d.problems); n > 0 && c.d.problems[n-1].path == path {
		c.d.problems[n-1].next = f.Next
		if f.Kind == fault.Unsupported {
			c.d.problems[n-1].kind = f.Kind
		}
	}
}

func (p *Project) check(d *decoder) {
	c := checker{p, d}
	if !projectForm.MatchString(p.Name) {
		c.bad("project", "'%s' is no name of a project: lower case letters, digits, - and _, a letter first.", p.Name)
	}
	c.unique("residency", p.Residency, regionForm, "a two-letter country code in lower case")
	if len(p.Environments) == 0 {
		c.bad("environments", "A project has at least one environment.")
	}
	c.unique("environments", p.Environments, tableForm, "a name: lower case letters, digits and _")
	for _, n := range sorted(p.Datasets) {
		c.dataset("datasets."+n, n, p.Datasets[n])
	}
	for _, n := range sorted(p.Features) {
		c.view("features."+n, n, p.Features[n])
	}
	for _, n := range sorted(p.Services) {
		c.service("services."+n, n, p.Services[n])
	}
	for _, n := range sorted(p.Models) {
		c.model("models."+n, n, p.Models[n])
	}
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func (c checker) unique(path string, list []string, form *regexp.Regexp, what string) {
	for i, s := range list {
		at := path
		if _, ok := c.p.at[fmt.Sprintf("%s[%d]", path, i)]; ok {
			at = fmt.Sprintf("%s[%d]", path, i)
		}
		switch {
		case !form.MatchString(s):
			c.bad(at, "'%s' is not %s.", s, what)
		case slices.Contains(list[:i], s):
			c.bad(at, "'%s' is written twice.", s)
		}
	}
}

const columnWords = "a column name: letters, digits and _"

func (c checker) dataset(at, name string, ds Dataset) {
	if !tableForm.MatchString(name) || name == "source" {
		c.bad(at, "'%s' is no name of a dataset: lower case letters, digits and _, a letter first, and not source.", name)
	}
	switch {
	case ds.Source == nil && ds.SQL == "":
		c.bad(at, "Dataset %s needs a source or sql.", name)
	case ds.Source != nil && ds.SQL != "":
		c.bad(at+".sql", "Dataset %s has a source and sql; it is one of the two.", name)
	case ds.SQL != "" && ds.Derive != "":
		c.bad(at+".derive", "derive belongs to a dataset with a source.")
	case ds.SQL != "" && ds.Contract != nil:
		c.bad(at+".contract", "A contract belongs to a dataset with a source; its rows are checked before they enter.")
	case ds.Source != nil && len(ds.Key) == 0:
		c.bad(at+".key", "Dataset %s needs a key: the columns that identify a row.", name)
	}
	c.unique(at+".key", ds.Key, columnForm, columnWords)
	c.times(at+".time", ds.Time)
	if s := ds.Source; s != nil {
		formats := 0
		for _, f := range []Strings{s.CSV, s.Parquet, s.JSON} {
			if f != nil {
				formats++
			}
		}
		if formats != 1 {
			c.bad(at+".source", "A source is csv, parquet or json: exactly one of them.")
		}
		if s.CSV == nil && (s.Delim != "" || s.Null != nil) {
			c.bad(at+".source", "delim and null belong to a csv source.")
		}
		if utf8.RuneCountInString(s.Delim) > 1 {
			c.bad(at+".source.delim", "delim is one character.")
		}
	}
	if ds.Contract != nil {
		c.contract(at+".contract", ds)
	}
}

func (c checker) times(at string, t Time) {
	for k, v := range map[string]string{"event": t.Event, "known": t.Known} {
		if v != "" && !columnForm.MatchString(v) {
			c.bad(at+"."+k, "'%s' is not %s.", v, columnWords)
		}
	}
	if t.Known != "" && t.Event == "" {
		c.bad(at, "A known time needs an event time.")
	}
}

func (c checker) contract(at string, ds Dataset) {
	k := ds.Contract
	if k.MaxViolating < 0 || k.MaxViolating > 1 {
		c.bad(at+".max_violating", "max_violating is a share between 0 and 1.")
	}
	if k.Volume.Anomaly != "" && ds.Time.Event == "" {
		c.bad(at+".volume", "The volume is watched by month of the event time, so the dataset needs time: {event: COLUMN}.")
	}
	for _, col := range sorted(k.Columns) {
		r, at := k.Columns[col], at+".columns."+col
		if !columnForm.MatchString(col) {
			c.bad(at, "'%s' is not %s.", col, columnWords)
		}
		if r.Type != "" && !typeForm.MatchString(r.Type) {
			c.bad(at+".type", "'%s' is no type; types are integer, number, text, boolean, date, timestamp and decimal(p,s).", r.Type)
		}
		if r.Min != nil && r.Max != nil && *r.Min > *r.Max {
			c.bad(at+".min", "min %v is above max %v.", *r.Min, *r.Max)
		}
		if _, err := regexp.Compile(r.Pattern); err != nil {
			c.bad(at+".pattern", "The pattern is no regular expression (RE2): %v.", err)
		}
		if r.In != nil && len(r.In) == 0 {
			c.bad(at+".in", "No value is allowed by an empty list.")
		}
	}
}

func (c checker) view(at, name string, v FeatureView) {
	if !tableForm.MatchString(name) {
		c.bad(at, "'%s' is no name of a feature view: lower case letters, digits and _, a letter first.", name)
	}
	switch {
	case v.SQL == "" && v.Request == nil:
		c.bad(at, "View %s needs sql or request.", name)
	case v.SQL != "" && v.Request != nil:
		c.bad(at+".request", "View %s has sql and request; it is one of the two.", name)
	case v.Request != nil && (v.Entity != nil || v.TTL != 0 || v.Columns != nil || v.Time != Time{}):
		c.bad(at, "A view of request features has no entity, time, ttl or columns.")
	case v.Request != nil && len(v.Request) == 0:
		c.bad(at+".request", "View %s has no features.", name)
	case v.SQL != "" && len(v.Entity) == 0:
		c.bad(at+".entity", "View %s needs an entity: the column that it is looked up by.", name)
	}
	c.unique(at+".entity", v.Entity, columnForm, columnWords)
	c.unique(at+".columns", v.Columns, columnForm, columnWords)
	if v.SQL != "" {
		c.times(at+".time", v.Time)
	}
	var names []string
	for i, r := range v.Request {
		at := fmt.Sprintf("%s.request[%d]", at, i)
		if !columnForm.MatchString(r.Name) || slices.Contains(names, r.Name) {
			c.bad(at, "'%s' is written twice, or not a name of a feature.", r.Name)
		}
		names = append(names, r.Name)
		if r.Expr != "" {
			_, err := features.ParseExpr(r.Expr)
			c.fault(at, err)
		}
	}
}

// suggestion is " Did you mean ...?" or what there is.
func suggestion[V any](key string, have map[string]V) string {
	names := sorted(have)
	if near := nearest(key, names); near != "" {
		return " Did you mean '" + near + "'?"
	}
	if len(names) == 0 {
		return " There are none."
	}
	return " There are: " + strings.Join(names, ", ") + "."
}

func (c checker) service(at, name string, s Service) {
	if !modelForm.MatchString(name) {
		c.bad(at, "'%s' is no name of a service.", name)
	}
	if len(s) == 0 {
		c.bad(at, "Service %s lists no views.", name)
	}
	seen := map[string]string{}
	for i, v := range s {
		at := c.item(at, i)
		view, ok := c.p.Features[v]
		switch {
		case !ok:
			c.bad(at, "Service %s lists the view '%s', which is not under features.%s", name, v, suggestion(v, c.p.Features))
		case slices.Contains(s[:i], v):
			c.bad(at, "View '%s' is listed twice.", v)
		}
		columns := slices.Clone([]string(view.Columns))
		for _, r := range view.Request {
			columns = append(columns, r.Name)
		}
		for _, col := range columns {
			if other := seen[col]; other != "" && other != v {
				c.bad(at, "The views %s and %s both give a feature '%s'.", other, v, col)
			}
			seen[col] = v
		}
	}
}

// item is the path of a place in a list, or of the single value that stands for one.
func (c checker) item(at string, i int) string {
	if p := fmt.Sprintf("%s[%d]", at, i); c.p.at[p].Line > 0 {
		return p
	}
	return at
}

func (c checker) model(at, name string, m Model) {
	if !modelForm.MatchString(name) {
		c.bad(at, "'%s' is no name of a model: letters, digits, - and _, a letter first.", name)
	}
	c.train(at+".train", m.Train)
	c.secrets(at+".train.secrets", m.Train.Secrets)
	c.secrets(at+".tests.secrets", m.Tests.Secrets)
	if m.Tests.Unit != "" {
		_, err := training.SplitCommand(m.Tests.Unit)
		c.fault(at+".tests.unit", err)
	}
	beats := false
	for _, env := range sorted(m.Gates) {
		at := at + ".gates." + env
		if !slices.Contains(c.p.Environments, env) {
			c.bad(at, "There is no environment '%s'; there are %s.", env, strings.Join(c.p.Environments, ", "))
		}
		for i, g := range m.Gates[env] {
			beats = beats || g.Kind == "beats" && env == c.p.Environments[len(c.p.Environments)-1]
			c.gate(fmt.Sprintf("%s[%d]", at, i), g, m)
		}
	}
	last := 0
	for i, w := range m.Serve.Rollout.Canary {
		if w <= last || w > 100 {
			c.bad(c.item(at+".serve.rollout.canary", i), "The weights of a canary rise from above 0 to 100 percent.")
		}
		last = w
	}
	if m.Serve.Rollout.Canary != nil && last != 100 {
		c.bad(at+".serve.rollout.canary", "The last weight of a canary is 100.")
	}
	c.monitor(at, m, beats)
}

func (c checker) train(at string, t Train) {
	argv, err := training.SplitCommand(t.Run)
	c.fault(at+".run", err)
	params := map[string]string{}
	for k, v := range t.Params {
		if !columnForm.MatchString(k) {
			c.bad(at+".params."+k, "'%s' is no name of a parameter: letters, digits and _.", k)
		}
		params[k] = fmt.Sprint(v)
	}
	if err == nil {
		_, err = training.Expand(argv, params)
		c.fault(at+".run", err)
	}
	for _, k := range sorted(t.Params) {
		if err == nil && !strings.Contains(t.Run, "{"+k+"}") {
			c.bad(at+".params."+k, "The parameter %s is not used in run; write {%s} where it belongs.", k, k)
		}
	}
	if !columnForm.MatchString(t.Label) {
		c.bad(at+".label", "'%s' is not %s.", t.Label, columnWords)
	}
	c.times(at+".time", t.Time)
	if _, ok := c.p.Services[t.Features]; t.Features != "" && !ok {
		c.bad(at+".features", "There is no feature service '%s'.%s", t.Features, suggestion(t.Features, c.p.Services))
	}
	if l := t.Limits; l.CPUs < 0 || l.CPUs > 1024 || l.Memory < 0 || l.Memory > 0 && l.Memory < 64<<20 {
		c.bad(at+".limits", "A command gets more than 0 CPUs and at least 64MiB.")
	}
}

// secrets are references; what is none may be a value, so it is not repeated.
func (c checker) secrets(at string, refs map[string]string) {
	for _, name := range sorted(refs) {
		if !columnForm.MatchString(name) {
			c.bad(at+"."+name, "'%s' is no name of a secret: letters, digits and _, a letter first.", name)
		}
		_, err := secret.ParseRef(refs[name])
		c.fault(at+"."+name, err)
	}
}

func (c checker) gate(at string, g Gate, m Model) {
	switch {
	case g.Kind == "tests" && m.Tests.None():
		c.bad(at, "A tests gate needs tests: unit, behaviour or integration.")
	case g.Kind == "beats" && m.Monitor.Quality == nil:
		c.bad(at, "A beats gate compares on labelled windows, so the model needs monitor: {quality: ...}.")
	case g.Kind == "parity" && m.Train.Features == "":
		c.bad(at, "A parity gate compares features, so the model needs train: {features: SERVICE}.")
	}
}

func (c checker) monitor(at string, m Model, beats bool) {
	if d := m.Monitor.Drift; d != nil {
		if *d.Threshold <= 0 || d.Window <= 0 {
			c.bad(at+".monitor.drift", "The threshold and the window of drift are above 0.")
		}
	}
	if q := m.Monitor.Quality; q != nil && (q.Window <= 0 || q.MinGap < 0 || q.MinGap > 1) {
		c.bad(at+".monitor.quality", "The window of quality is above 0 and min_gap is between 0 and 1.")
	}
	automatic := false
	for i, t := range m.Retrain.When {
		at := fmt.Sprintf("%s.retrain.when[%d]", at, i)
		automatic = automatic || t.Event != "manual"
		switch {
		case slices.Contains(m.Retrain.When[:i], t):
			c.bad(at, "This trigger is written twice.")
		case t.Event == "quality.degraded" && m.Monitor.Quality == nil:
			c.bad(at, "quality.degraded comes from monitor: {quality: ...}, which is missing.")
		case t.Event == "drift.weighted" && (m.Monitor.Drift == nil || m.Monitor.Drift.Weigh != "importance"):
			c.bad(at, "drift.weighted comes from monitor: {drift: {weigh: importance}}, which is missing.")
		}
	}
	if automatic && !beats {
		c.bad(at+".retrain", "A retrained model challenges the one that serves, so gates.%s needs {beats: champion, on: latest_labelled_window}.", c.p.Environments[len(c.p.Environments)-1])
	}
}

// CheckRegion refuses a project whose residency leaves out the region of this installation ("" when it has none set).
func (p *Project) CheckRegion(region string) error {
	if len(p.Residency) == 0 || slices.Contains(p.Residency, region) {
		return nil
	}
	where := "has no region set"
	if region != "" {
		where = "is in '" + region + "'"
	}
	pos := p.At("residency")
	return fault.New(fault.Refused, fmt.Sprintf("falaj.yaml:%d:%d: the data of project %s must stay in %s, and this installation %s.", pos.Line, pos.Column, p.Name, strings.Join(p.Residency, ", "), where),
		"Apply it to an installation in that region, or set --region when this one is.").At("residency")
}

package api

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"falaj/internal/data"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/ledger"
	"falaj/internal/kernel/note"
	"falaj/internal/lineage"
	"falaj/internal/plan/pipeline"
)

// DatasetVersion is a dataset version's page.
type DatasetVersion struct {
	DatasetVersionSummary
	Dataset       string          `json:"dataset"`
	Snapshot      string          `json:"snapshot"`
	SchemaDigest  string          `json:"schema_digest"`
	ProfileDigest string          `json:"profile_digest"`
	Schema        []Column        `json:"schema"`
	Checks        []ContractCheck `json:"checks"`
	OnViolation   string          `json:"on_violation"`
	Profile       []ColumnProfile `json:"profile"`
	Anomalies     []note.Note     `json:"anomalies"`
	Parents       []MadeFrom      `json:"parents"`
	Children      []MadeInto      `json:"children"`
	Sources       []DataFile      `json:"sources"`
	Files         []DataFile      `json:"files"`
	PipelineRun   *string         `json:"pipeline_run"`
}

// Column is one column of a schema.
type Column struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Nullable bool   `json:"nullable"`
	Class    string `json:"class"`
	Mask     string `json:"mask"`
	Role     string `json:"role"`
}

// ContractCheck is one promise and how it was kept by the files that the version added.
type ContractCheck struct {
	Column     string    `json:"column"`
	Check      note.Note `json:"check"`
	Verdict    string    `json:"verdict" enum:"passed,warned,failed"`
	Checked    int64     `json:"checked"`
	Violations int64     `json:"violations"`
	Samples    []string  `json:"samples"`
	Quarantine *string   `json:"quarantine"`
}

// MadeFrom is something that the version was made of.
type MadeFrom struct {
	Ref    note.Ref `json:"ref"`
	Digest string   `json:"digest"`
}

// MadeInto is something that was made of the version.
type MadeInto struct {
	Ref    note.Ref `json:"ref"`
	Digest *string  `json:"digest"`
}

// DataFile is a file that was read or written.
type DataFile struct {
	Path   string `json:"path"`
	Digest string `json:"digest"`
	Bytes  int64  `json:"bytes"`
	Rows   int64  `json:"rows"`
}

type versionIn struct {
	InDataset
	Version int64 `path:"v" minimum:"1"`
}

func (a *API) datasetVersion(ctx context.Context, in *versionIn) (*Out[DatasetVersion], error) {
	d, err := a.Data.Dataset(ctx, in.Project, in.Dataset)
	if err != nil {
		return nil, err
	}
	v, err := a.Data.Version(ctx, in.Project, in.Dataset, in.Version)
	if err != nil {
		return nil, err
	}
	var before *data.Version
	if v.Previous != 0 {
		b, err := a.Data.Version(ctx, in.Project, in.Dataset, v.Previous)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return nil, err
		}
		before = &b
	}
	exact, err := a.Data.Profile(ctx, in.Project, in.Dataset, v.N)
	if err != nil {
		return nil, err
	}
	var past *data.Profile
	if before != nil {
		if past, err = a.Data.Profile(ctx, in.Project, in.Dataset, before.N); err != nil && !fault.Is(err, fault.NotFound) {
			return nil, err
		}
	}
	asides, err := a.Data.Quarantines(ctx, in.Project, in.Dataset, 1000)
	if err != nil {
		return nil, err
	}
	g, err := a.Lineage.Graph(ctx, in.Project, "", 0)
	if err != nil {
		return nil, err
	}
	after := following(g)
	out := DatasetVersion{DatasetVersionSummary: versionSummary(v, after), Dataset: v.Dataset, SchemaDigest: sha(ledger.Digest(v.Columns)), ProfileDigest: sha(ledger.Digest(exact)), Schema: []Column{},
		Checks: checksOf(d.Spec, v, before, asides), OnViolation: onViolation(d.Spec), Profile: profileView(v.Profile, exact, past), Anomalies: anomaliesOf(v), Parents: []MadeFrom{}, Children: a.children(ctx, in.Project, g, after, v),
		Sources: []DataFile{}, Files: []DataFile{}}
	if v.Snapshot != 0 {
		out.Snapshot = strconv.FormatInt(v.Snapshot, 10)
	}
	for _, c := range v.Columns {
		rule := d.Spec.Contract.Columns[c.Name]
		out.Schema = append(out.Schema, Column{c.Name, c.Type, !rule.NotNull && !slices.Contains(d.Spec.Key, c.Name) && c.Name != d.Spec.Time.Event, rule.Class, rule.Mask, roleOf(d.Spec, c.Name)})
	}
	if err := a.origins(ctx, &out, v); err != nil {
		return nil, err
	}
	out.PipelineRun, err = a.madeBy(ctx, in.Project, v)
	return answer(out), err
}

func roleOf(s data.Spec, column string) string {
	switch {
	case slices.Contains(s.Key, column):
		return "key"
	case column == s.Time.Event:
		return "event_time"
	case column == s.Time.Known:
		return "known_time"
	}
	return ""
}

// origins fills parents, sources and files.
func (a *API) origins(ctx context.Context, out *DatasetVersion, v data.Version) error {
	for _, p := range v.Parents {
		out.Parents = append(out.Parents, MadeFrom{*versionRef("dataset_version", p.Dataset, p.N), sha(p.Digest)})
	}
	for _, f := range v.Files {
		out.Files = append(out.Files, DataFile{data.DataPath(v.Table, f.Digest), sha(f.Digest), f.Size, f.Rows})
	}
	if len(v.Sources) == 0 {
		return nil
	}
	known, err := a.Data.Sources(ctx, v.Project, v.Dataset)
	if err != nil {
		return err
	}
	size := map[string]int64{}
	for _, s := range known {
		size[s.Digest] = s.Size
	}
	for _, s := range v.Sources {
		out.Parents = append(out.Parents, MadeFrom{note.Ref{Kind: "source", ID: v.Dataset + "/" + s.Name}, sha(s.Digest)})
		out.Sources = append(out.Sources, DataFile{s.Name, sha(s.Digest), size[s.Digest], s.Read})
	}
	return nil
}

// children are the dataset versions, runs and model versions made next; a training set is told by its runs.
func (a *API) children(ctx context.Context, project string, g lineage.Graph, after map[string][]string, v data.Version) []MadeInto {
	out := []MadeInto{}
	seen := map[string]bool{}
	var add func(id string)
	add = func(id string) {
		if seen[id] {
			return
		}
		seen[id] = true
		kind, name, version := splitKey(id)
		if kind == string(lineage.TrainingSet) {
			for _, to := range after[id] {
				add(to)
			}
			return
		}
		m := MadeInto{Ref: note.Ref{Kind: kind, ID: name, Version: version}}
		if kind == "dataset_version" && version != nil {
			if c, err := a.Data.Version(ctx, project, name, *version); err == nil {
				m.Digest = textOrNil(sha(c.Digest))
			}
		}
		out = append(out, m)
	}
	for _, id := range after[versionKey("dataset_version", v.Dataset, v.N)] {
		add(id)
	}
	return out
}

// madeBy is the pipeline run whose step made the version, among the newest runs.
func (a *API) madeBy(ctx context.Context, project string, v data.Version) (*string, error) {
	runs, err := a.Pipelines.Runs(ctx, project, "", 0, shownRuns)
	if err != nil {
		return nil, err
	}
	for _, r := range slices.Backward(runs) { // the oldest that names it made it, later ones found it there
		for _, s := range r.Steps {
			if s.CacheHit || s.State != pipeline.Done {
				continue
			}
			for _, o := range s.Outputs {
				if o.Kind == "dataset_version" && o.ID == v.Dataset && o.Version != nil && *o.Version == v.N {
					return &r.ID, nil
				}
			}
		}
	}
	return nil, nil
}

// checkNote is a check in words with the arguments of falaj.yaml.
func checkNote(s data.Spec, c data.CheckResult) note.Note {
	rule := s.Contract.Columns[c.Column]
	n := note.Note{Code: "check." + c.Check, Args: map[string]any{}, Text: c.Rule}
	switch c.Check {
	case "in":
		n.Args["values"] = strings.Join(rule.In, ", ")
	case "min":
		if rule.Min != nil {
			n.Args["min"] = *rule.Min
		}
	case "max":
		if rule.Max != nil {
			n.Args["max"] = *rule.Max
		}
	case "type":
		n.Args["type"] = strings.TrimPrefix(c.Rule, "a value of type ")
	case "pattern":
		n.Code = "check.regex"
		n.Args["pattern"] = rule.Pattern
	}
	return n
}

// checksOf shows the checks of the files that this version added, with the quarantine that holds the violating rows.
func checksOf(s data.Spec, v data.Version, before *data.Version, asides []data.Aside) []ContractCheck {
	added := map[string]bool{}
	checked := v.Rows + v.PutAside
	if len(v.Sources) > 0 {
		checked = 0
		old := map[string]bool{}
		if before != nil && before.Generation == v.Generation {
			for _, f := range before.Sources {
				old[f.Name] = true
			}
		}
		for _, f := range v.Sources {
			if !old[f.Name] {
				added[f.Name] = true
				checked += f.Read
			}
		}
	}
	out := []ContractCheck{}
	for _, c := range v.Checks {
		x := ContractCheck{Column: c.Column, Check: checkNote(s, c), Verdict: "passed", Checked: checked, Violations: c.Rows, Samples: []string{}}
		if c.Rows > 0 {
			x.Verdict = "failed"
			if onViolation(s) == data.Warn || c.Check == "volume" {
				x.Verdict = "warned"
			}
			if c.Example != "" {
				x.Samples = append(x.Samples, sample(s, c))
			}
			for _, q := range asides {
				if !q.Whole && q.Generation == v.Generation && (added[q.Source] || len(v.Sources) == 0) && slices.ContainsFunc(q.Checks, func(o data.CheckResult) bool { return o.Check == c.Check && o.Column == c.Column && o.Rows > 0 }) {
					x.Quarantine = &q.ID
					break
				}
			}
		}
		out = append(out, x)
	}
	return out
}

// sample is an offending value; of a masked column it is not shown.
func sample(s data.Spec, c data.CheckResult) string {
	if s.Contract.Columns[c.Column].Mask != "" {
		return "***"
	}
	return c.Example
}

// anomaliesOf tells what the volume watch found unusual.
func anomaliesOf(v data.Version) []note.Note {
	out := []note.Note{}
	for _, c := range v.Checks {
		if c.Check != "volume" || c.Rows == 0 {
			continue
		}
		n := note.Note{Code: "check.volume", Args: map[string]any{}, Text: c.Example}
		var month string
		var rows, expected float64
		if _, err := fmt.Sscanf(c.Example, "%s has %f rows, and the months before have about %f", &month, &rows, &expected); err == nil {
			n.Code, n.Args = "anomaly.volume", map[string]any{"month": month, "rows": rows, "expected": expected}
		}
		out = append(out, n)
	}
	return out
}

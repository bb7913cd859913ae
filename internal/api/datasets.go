package api

import (
	"context"
	"maps"
	"slices"
	"strings"

	"falaj/internal/data"
	"falaj/internal/lineage"
)

// DatasetSummary is one dataset of the list.
type DatasetSummary struct {
	Name        string         `json:"name"`
	Kind        string         `json:"kind" enum:"source,derived"`
	Description string         `json:"description"`
	Versions    int64          `json:"versions"`
	Latest      *LatestVersion `json:"latest"`
	Quarantined int64          `json:"quarantined"`
	Classes     []string       `json:"classes"`
	RowsSpark   []*float64     `json:"rows_spark" doc:"rows by month of event time; without event time by version"`
}

// LatestVersion is the newest version of a dataset.
type LatestVersion struct {
	Version  int64  `json:"version"`
	At       int64  `json:"at"`
	Rows     int64  `json:"rows"`
	Bytes    int64  `json:"bytes"`
	Digest   string `json:"digest"`
	Contract string `json:"contract" enum:"passed,warned,failed"`
}

// DatasetVersionSummary is one version of the list.
type DatasetVersionSummary struct {
	Version     int64      `json:"version"`
	At          int64      `json:"at"`
	Actor       ActorRef   `json:"actor"`
	Rows        int64      `json:"rows"`
	Bytes       int64      `json:"bytes"`
	Digest      string     `json:"digest"`
	Contract    string     `json:"contract" enum:"passed,warned,failed"`
	Quarantined int64      `json:"quarantined"`
	Models      []RunModel `json:"models" doc:"model versions made from it, also through other datasets"`
}

// DatasetDetail is a dataset's page.
type DatasetDetail struct {
	DatasetSummary
	Source      string                  `json:"source"`
	SQL         string                  `json:"sql"`
	Key         []string                `json:"key"`
	EventTime   string                  `json:"event_time"`
	KnownTime   string                  `json:"known_time"`
	OnViolation string                  `json:"on_violation"`
	Residency   []string                `json:"residency"`
	VersionList []DatasetVersionSummary `json:"version_list"`
}

type datasetsIn struct {
	InProject
	Paged
}

type InDataset struct {
	InProject
	Dataset string `path:"d"`
}

func (a *API) listDatasets(ctx context.Context, in *datasetsIn) (*Out[Page[DatasetSummary]], error) {
	all, err := a.Data.Datasets(ctx, in.Project)
	if err != nil {
		return nil, err
	}
	list, err := cutPage(all, in.Paged)
	if err != nil {
		return nil, err
	}
	asides, err := a.Data.Quarantines(ctx, in.Project, "", 1000)
	if err != nil {
		return nil, err
	}
	p := Page[DatasetSummary]{Items: []DatasetSummary{}, NextPageToken: list.NextPageToken, Total: list.Total}
	for _, d := range list.Items {
		s, err := a.datasetSummary(ctx, d, asides)
		if err != nil {
			return nil, err
		}
		p.Items = append(p.Items, s)
	}
	return answer(p), nil
}

func (a *API) datasetSummary(ctx context.Context, d data.Dataset, asides []data.Aside) (DatasetSummary, error) {
	s := DatasetSummary{Name: d.Spec.Name, Kind: "source", Classes: classesOf(d.Spec), RowsSpark: []*float64{}}
	if d.Spec.Source == nil {
		s.Kind = "derived"
	}
	for _, x := range asides {
		if x.Dataset == d.Spec.Name {
			s.Quarantined += x.Rows
		}
	}
	if d.Latest == nil {
		return s, nil
	}
	v := *d.Latest
	s.Versions = v.N
	s.Latest = &LatestVersion{v.N, microsOf(v.Created), v.Rows, sizeOf(v), sha(v.Digest), contractOf(v)}
	rows := []int64{}
	if len(v.Periods) > 0 {
		for _, month := range slices.Sorted(maps.Keys(v.Periods)) {
			rows = append(rows, v.Periods[month])
		}
	} else {
		list, err := a.Data.Versions(ctx, d.Project, d.Spec.Name, 0, sparkSize)
		if err != nil {
			return s, err
		}
		for _, old := range slices.Backward(list) {
			rows = append(rows, old.Rows)
		}
	}
	for _, n := range rows[max(0, len(rows)-sparkSize):] {
		f := float64(n)
		s.RowsSpark = append(s.RowsSpark, &f)
	}
	return s, nil
}

func classesOf(s data.Spec) []string {
	out := []string{}
	for _, r := range s.Contract.Columns {
		if r.Class != "" {
			out = append(out, r.Class)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func sizeOf(v data.Version) (n int64) {
	for _, f := range v.Files {
		n += f.Size
	}
	return n
}

// contractOf is a version's verdict: it stands, so what broke the contract was a warning or set aside.
func contractOf(v data.Version) string {
	if v.PutAside > 0 || slices.ContainsFunc(v.Checks, func(c data.CheckResult) bool { return c.Rows > 0 }) {
		return "warned"
	}
	return "passed"
}

func onViolation(s data.Spec) string {
	if s.Contract.OnViolation == "" {
		return data.Quarantine
	}
	return s.Contract.OnViolation
}

func (a *API) getDataset(ctx context.Context, in *InDataset) (*Out[DatasetDetail], error) {
	d, err := a.Data.Dataset(ctx, in.Project, in.Dataset)
	if err != nil {
		return nil, err
	}
	asides, err := a.Data.Quarantines(ctx, in.Project, in.Dataset, 1000)
	if err != nil {
		return nil, err
	}
	out := DatasetDetail{SQL: d.Spec.SQL + d.Spec.Derive, Key: append([]string{}, d.Spec.Key...), EventTime: d.Spec.Time.Event, KnownTime: d.Spec.Time.Known, OnViolation: onViolation(d.Spec), Residency: []string{},
		VersionList: []DatasetVersionSummary{}}
	if out.DatasetSummary, err = a.datasetSummary(ctx, d, asides); err != nil {
		return nil, err
	}
	if s := d.Spec.Source; s != nil {
		out.Source = strings.TrimSpace(s.Format + " " + strings.Join(s.Patterns, " "))
	}
	if p, err := a.Access.Project(ctx, in.Project); err != nil {
		return nil, err
	} else if p.Regions != nil {
		out.Residency = p.Regions
	}
	list, err := a.Data.Versions(ctx, in.Project, in.Dataset, 0, 1000)
	if err != nil {
		return nil, err
	}
	g, err := a.Lineage.Graph(ctx, in.Project, "", 0)
	if err != nil {
		return nil, err
	}
	after := following(g)
	for _, v := range list {
		out.VersionList = append(out.VersionList, versionSummary(v, after))
	}
	return answer(out), nil
}

func versionSummary(v data.Version, after map[string][]string) DatasetVersionSummary {
	return DatasetVersionSummary{Version: v.N, At: microsOf(v.Created), Actor: actorRef(v.By), Rows: v.Rows, Bytes: sizeOf(v), Digest: sha(v.Digest), Contract: contractOf(v), Quarantined: v.PutAside,
		Models: modelsAfter(after, versionKey("dataset_version", v.Dataset, v.N))}
}

// following are the nodes that were made from each.
func following(g lineage.Graph) map[string][]string {
	out := map[string][]string{}
	for _, e := range g.Edges {
		out[e.From] = append(out[e.From], e.To)
	}
	return out
}

// modelsAfter lists the model versions on the way down from a node, by name, newest version first.
func modelsAfter(after map[string][]string, from string) []RunModel {
	out := []RunModel{}
	seen := map[string]bool{from: true}
	for next := []string{from}; len(next) > 0; {
		id := next[0]
		next = next[1:]
		if kind, name, version := splitKey(id); kind == "model_version" && version != nil {
			out = append(out, RunModel{name, *version})
		}
		for _, to := range after[id] {
			if !seen[to] {
				seen[to] = true
				next = append(next, to)
			}
		}
	}
	slices.SortFunc(out, func(a, b RunModel) int {
		if a.Name != b.Name {
			return strings.Compare(a.Name, b.Name)
		}
		return int(b.Version - a.Version)
	})
	return out
}

package api

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"falaj/internal/delivery"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/note"
	"falaj/internal/registry"
)

// ManifestEntry is one line of what made a release.
type ManifestEntry struct {
	Kind   string    `json:"kind" enum:"data,features,code,runtime,params,metrics,model,tests"`
	Name   string    `json:"name"`
	Value  string    `json:"value"`
	Digest *string   `json:"digest"`
	Ref    *note.Ref `json:"ref"`
}

// manifests describes the releases of a model, asking for each dataset and feature service once.
type manifests struct {
	api      *API
	project  string
	services map[string]string          // name@digest -> words
	rows     map[string]map[int64]int64 // dataset -> version -> rows
}

// entries are in the order data, features, code, runtime, params, metrics, model, tests.
func (x *manifests) entries(ctx context.Context, r registry.Release, changes map[string]delivery.Detail) ([]ManifestEntry, error) {
	m := r.Manifest
	out := []ManifestEntry{}
	for _, d := range m.Data {
		e := ManifestEntry{Kind: "data", Name: d.Name, Value: d.Name + "@" + d.Version, Digest: textOrNil(d.Digest)}
		if n, err := strconv.ParseInt(d.Version, 10, 64); err == nil {
			ref := versionRef("dataset_version", d.Name, n)
			e.Ref = ref
			rows, err := x.rowsOf(ctx, d.Name)
			if err != nil {
				return nil, err
			}
			if count, ok := rows[n]; ok {
				e.Value += ", " + thousands(count) + " rows"
			}
		}
		out = append(out, e)
	}
	for _, d := range m.Features {
		words, err := x.serviceOf(ctx, d)
		if err != nil {
			return nil, err
		}
		out = append(out, ManifestEntry{Kind: "features", Name: d.Name, Value: words, Digest: textOrNil(d.Digest)})
	}
	if m.Code != (registry.Code{}) {
		out = append(out, ManifestEntry{Kind: "code", Name: "code", Value: codeWords(m), Digest: textOrNil(m.Code.Digest)})
	}
	if m.Runtime != "" {
		out = append(out, ManifestEntry{Kind: "runtime", Name: "runtime", Value: "locked by hash", Digest: &m.Runtime})
	}
	if len(m.Parameters) > 0 {
		words := []string{}
		for _, k := range slices.Sorted(maps.Keys(m.Parameters)) {
			words = append(words, k+"="+m.Parameters[k])
		}
		out = append(out, ManifestEntry{Kind: "params", Name: "parameters", Value: clip(strings.Join(words, ", "), 200)})
	}
	if len(m.Metrics) > 0 {
		words := []string{}
		for _, k := range slices.Sorted(maps.Keys(m.Metrics)) {
			words = append(words, fmt.Sprintf("%s=%.4g", k, float64(m.Metrics[k])))
		}
		e := ManifestEntry{Kind: "metrics", Name: "metrics", Value: clip(strings.Join(words, ", "), 200)}
		if m.Run != "" {
			e.Ref = &note.Ref{Kind: "run", ID: m.Run}
		}
		out = append(out, e)
	}
	for _, f := range m.Files {
		digest := f.Digest
		out = append(out, ManifestEntry{Kind: "model", Name: f.Path, Value: bytesWords(f.Size), Digest: &digest})
	}
	return append(out, testEntries(r, changes)...), nil
}

// testEntries are the suites that ran on this release, by the change that ran them last.
func testEntries(r registry.Release, changes map[string]delivery.Detail) []ManifestEntry {
	var newest *delivery.Detail
	var ev delivery.Evidence
	for _, c := range changes {
		for _, e := range c.Evidence {
			if c.ToRelease == r.Digest && e.Gate == delivery.GateTests && (newest == nil || c.Seq > newest.Seq) {
				newest, ev = &c, e
			}
		}
	}
	if newest == nil {
		return nil
	}
	value := string(ev.Verdict)
	if ev.Note != nil {
		value = ev.Note.Text
	}
	return []ManifestEntry{{Kind: "tests", Name: "tests", Value: value, Digest: textOrNil(ev.Digest), Ref: &note.Ref{Kind: "change", ID: newest.ID}}}
}

func codeWords(m registry.Manifest) string {
	var words []string
	if c := m.Code.Commit; c != "" {
		state := "clean"
		if m.Code.Dirty {
			state = "with changes that are not committed"
		}
		words = append(words, "commit "+c[:min(len(c), 8)]+", "+state)
	}
	if m.Command != "" {
		words = append(words, clip(m.Command, 120))
	}
	return strings.Join(words, "; ")
}

func (x *manifests) rowsOf(ctx context.Context, dataset string) (map[int64]int64, error) {
	if rows, ok := x.rows[dataset]; ok {
		return rows, nil
	}
	rows, err := x.api.datasetRows(ctx, x.project, dataset)
	x.rows[dataset] = rows
	return rows, err
}

func (x *manifests) serviceOf(ctx context.Context, d registry.Ref) (string, error) {
	ref := d.Name + "@" + d.Digest
	if words, ok := x.services[ref]; ok {
		return words, nil
	}
	info, err := x.api.Features.Describe(ctx, x.project, ref)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return "", err
	}
	words := d.Name
	if err == nil {
		words = fmt.Sprintf("%d features of %d views", len(info.Features), len(info.Views))
	}
	x.services[ref] = words
	return words, nil
}

// datasetRows is the number of rows of each version; empty when there is no such dataset.
func (a *API) datasetRows(ctx context.Context, project, dataset string) (map[int64]int64, error) {
	out := map[int64]int64{}
	list, err := a.Data.Versions(ctx, project, dataset, 0, 1000)
	if fault.Is(err, fault.NotFound) {
		return out, nil
	}
	for _, v := range list {
		out[v.N] = v.Rows
	}
	return out, err
}

// thousands writes 188400 as 188,400.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		if s[i-1] == '-' {
			break
		}
		s = s[:i] + "," + s[i:]
	}
	return s
}

func bytesWords(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}

// clip shortens a text for display.
func clip(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

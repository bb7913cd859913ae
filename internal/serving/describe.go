package serving

import (
	"fmt"
	"slices"
	"strings"

	"falaj/internal/kernel/fault"
)

// Description is what a client may know of an endpoint before it asks.
type Description struct {
	Endpoint
	Versions []string // of the loaded variants: the model version's number where there is one, else the release's digest; champion first
	Version  string   // the one that the rest describes: the version asked for, else the champion's
	Release  string   // its digest
	Flavor   string
	Service  string   // feature service; empty: only the matrix
	Inputs   Inputs   // what a row must bring to be asked by entity; empty without Service
	Features []string // in the order of the matrix
	Outputs  int      // values for each row
}

// Describe answers from memory. version is a release digest or a model version's number; empty is the champion.
func (s *Service) Describe(k Key, version string) (Description, error) {
	l := s.find(k)
	if l == nil {
		return Description{}, fault.New(fault.NotFound, fmt.Sprintf("Project %q has no endpoint for model %q in environment %q.", k.Project, k.Model, k.Environment),
			"Promote a version to that environment first, or name another one as model@environment.")
	}
	defer l.release()
	d := Description{Endpoint: l.Endpoint}
	var found *variant
	for _, v := range l.variants {
		if v.engine == nil || v.Role == Shadow {
			continue
		}
		name := v.engine.version
		if v.Role == Champion {
			d.Versions = slices.Insert(d.Versions, 0, name)
		} else {
			d.Versions = append(d.Versions, name)
		}
		if version == "" && v.Role == Champion || version != "" && (version == v.Release || version == v.engine.release.Version) {
			found = v
		}
	}
	if found == nil {
		if version == "" {
			return d, fault.New(fault.Unavailable, strings.TrimSpace("The endpoint is not loaded. "+l.Problem), "")
		}
		return d, fault.New(fault.NotFound, fmt.Sprintf("Endpoint %s does not serve version %q.", k, version), "The endpoint's metadata lists its versions.")
	}
	r := found.engine.release
	d.Release, d.Flavor, d.Service, d.Features, d.Outputs = r.Digest, r.Flavor, r.Service, found.engine.features, found.engine.outputs
	d.Version, d.Inputs = found.engine.version, found.engine.inputs
	return d, nil
}

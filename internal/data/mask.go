package data

import (
	"bytes"
	"encoding/base32"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// redacted is what a column with the mask redact shows.
const redacted = "***"

// pseudonym is the token of a value: the same within a project and column name, and without the server's keys neither
// to be reversed nor guessed.
func (s *Service) pseudonym(project, column, value string) string {
	sum := s.mac("pseudonym\x00"+project+"\x00"+strings.ToLower(column), []byte(value))
	return "p_" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:10]))
}

func (s *Service) masked(project, column, mask, value string) string {
	if mask == MaskPseudonym {
		return s.pseudonym(project, column, value)
	}
	return redacted
}

// masks gives the masks of a definition by lower-case column name.
func (s Spec) masks() map[string]string {
	out := map[string]string{}
	for name, r := range s.Contract.Columns {
		if r.Mask != "" {
			out[strings.ToLower(name)] = r.Mask
		}
	}
	return out
}

// maskProfile takes the values of masked columns out of a profile, in place: frequent values become tokens, and
// extremes and quantiles, which are values too, go. It is what a profile passes before it is stored, and again when it
// is shown, for a mask may have been declared meanwhile.
func (s *Service) maskProfile(project string, spec Spec, p *Profile) {
	if p == nil {
		return
	}
	masks := spec.masks()
	for i := range p.Columns {
		c := &p.Columns[i]
		mask := masks[strings.ToLower(c.Name)]
		if mask == "" {
			continue
		}
		c.Min, c.Max, c.Mean, c.SD, c.Grid, c.Edges, c.Counts = nil, nil, nil, nil, nil, nil, nil
		if mask == MaskRedact {
			c.Top = nil
		}
		top := slices.Clone(c.Top)
		for k := range top {
			if c.Masked == "" { // else they are tokens already
				top[k].Value = s.masked(project, c.Name, mask, top[k].Value)
			}
		}
		c.Top, c.Masked = top, mask
	}
}

// maskChecks masks the examples of checks of masked columns, in place.
func (s *Service) maskChecks(project string, masks map[string]string, checks []CheckResult) {
	for i := range checks {
		c := &checks[i]
		if mask := masks[strings.ToLower(c.Column)]; mask != "" && c.Example != "" {
			c.Example = s.masked(project, c.Column, mask, c.Example)
		}
	}
}

// sourceMasks adds to masks the source columns that masked columns are made of: rows and examples of a file that could
// not be read into its types hold those. Lineage is that of the derive SELECT.
func sourceMasks(masks map[string]string, lineage map[string][]string) map[string]string {
	out := maps.Clone(masks)
	for col, from := range lineage {
		mask := masks[strings.ToLower(col)]
		if mask == "" {
			continue
		}
		for _, f := range from {
			if name, ok := strings.CutPrefix(strings.ToLower(f), "source."); ok && out[name] == "" {
				out[name] = mask
			}
		}
	}
	return out
}

// maskObject masks members of a JSON object and keeps the order of all.
func (s *Service) maskObject(project string, masks map[string]string, object json.RawMessage) (json.RawMessage, error) {
	if len(masks) == 0 {
		return object, nil
	}
	dec := json.NewDecoder(bytes.NewReader(object))
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	out := []byte{'{'}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		name, _ := key.(string)
		if mask := masks[strings.ToLower(name)]; mask != "" && string(value) != "null" {
			text := string(value)
			_ = json.Unmarshal(value, &text) // a text without its quotes, anything else as written
			if value, err = json.Marshal(s.masked(project, name, mask, text)); err != nil {
				return nil, err
			}
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		quoted, err := json.Marshal(name)
		if err != nil {
			return nil, err
		}
		out = append(append(append(out, quoted...), ':'), value...)
	}
	return append(out, '}'), nil
}

// hideValues cuts the value out of reasons that speak of a masked column ("tailnum: must be ..., is N14228").
func hideValues(reasons []string, masks map[string]string) []string {
	out := slices.Clone(reasons)
	for i, r := range out {
		for column := range masks { // a name may hold a colon, a rule or a value ", is ": rather cut too much
			start := column + ": must be "
			if len(r) < len(start) || !strings.EqualFold(r[:len(start)], start) {
				continue
			}
			if at := strings.Index(r[len(start):], ", is "); at >= 0 {
				out[i] = r[:len(start)+at]
			}
			break
		}
	}
	return out
}

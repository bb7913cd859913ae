package wire

import (
	"encoding/json"
	"fmt"
)

// Metrics is a list of points. It reads itself in one pass: a batch of 1000 is the most frequent large request, and reading it
// by reflection cost more than storing it.
type Metrics []Metric

// UnmarshalJSON reads a JSON array of metrics; encoding/json has checked its syntax.
func (m *Metrics) UnmarshalJSON(b []byte) error {
	s := scan{b: b}
	if string(b) == "null" {
		return nil
	}
	if !s.take('[') {
		return fmt.Errorf("metrics are no list")
	}
	out := make([]Metric, 0, 1+len(b)/64)
	// One array each for what is pointed to, so that a batch is a handful of allocations.
	values, stamps := make([]Float, 0, cap(out)), make([]Int, 0, cap(out))
	for first := true; !s.take(']'); first = false {
		if !first && !s.take(',') || !s.take('{') {
			return fmt.Errorf("metrics[%d] is no object", len(out))
		}
		var x Metric
		for inner := true; !s.take('}'); inner = false {
			if !inner && !s.take(',') {
				return fmt.Errorf("metrics[%d] is damaged", len(out))
			}
			key, err := text(s.key())
			if err != nil || !s.take(':') {
				return fmt.Errorf("metrics[%d] is damaged", len(out))
			}
			raw := s.value()
			if string(raw) == "null" {
				continue
			}
			switch key {
			case "key":
				x.Key, err = text(raw)
			case "value":
				var f Float
				if err = f.UnmarshalJSON(raw); err == nil {
					values = append(values, f)
					x.Value = &values[len(values)-1]
				}
			case "timestamp":
				var n Int
				if err = n.UnmarshalJSON(raw); err == nil {
					stamps = append(stamps, n)
					x.Timestamp = &stamps[len(stamps)-1]
				}
			case "step":
				err = x.Step.UnmarshalJSON(raw)
			case "model_id", "modelId":
				x.ModelID, err = text(raw)
			case "dataset_name", "datasetName":
				x.DatasetName, err = text(raw)
			case "dataset_digest", "datasetDigest":
				x.DatasetDigest, err = text(raw)
			case "run_id", "runId":
				x.RunID, err = text(raw)
			}
			if err != nil {
				return fmt.Errorf("metrics[%d].%s: %w", len(out), key, err)
			}
		}
		out = append(out, x)
	}
	*m = out
	return nil
}

// scan walks over JSON of checked syntax.
type scan struct {
	b []byte
	i int
}

func (s *scan) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\n' || s.b[s.i] == '\t' || s.b[s.i] == '\r') {
		s.i++
	}
}

func (s *scan) take(c byte) bool {
	s.space()
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

// key gives the bytes of the next member's name.
func (s *scan) key() []byte { return s.value() }

// value gives the bytes of the next value and steps over it.
func (s *scan) value() []byte {
	s.space()
	start, depth := s.i, 0
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case '"':
			for s.i++; s.i < len(s.b) && s.b[s.i] != '"'; s.i++ {
				if s.b[s.i] == '\\' {
					s.i++
				}
			}
		case '[', '{':
			depth++
		case ']', '}':
			if depth == 0 {
				return s.trimmed(start)
			}
			depth--
		case ',':
			if depth == 0 {
				return s.trimmed(start)
			}
		}
		s.i = min(s.i+1, len(s.b))
		if depth == 0 && (s.b[s.i-1] == '"' || s.b[s.i-1] == ']' || s.b[s.i-1] == '}') {
			return s.b[start:s.i]
		}
	}
	return s.trimmed(start)
}

func (s *scan) trimmed(start int) []byte {
	end := s.i
	for end > start && (s.b[end-1] == ' ' || s.b[end-1] == '\n' || s.b[end-1] == '\t' || s.b[end-1] == '\r') {
		end--
	}
	return s.b[start:end]
}

// text reads a JSON string.
func text(raw []byte) (string, error) {
	if len(raw) >= 2 && raw[0] == '"' && plain(raw[1:len(raw)-1]) {
		return string(raw[1 : len(raw)-1]), nil
	}
	var t string
	err := json.Unmarshal(raw, &t)
	return t, err
}

// plain says that a text is itself: printable ASCII without escapes.
func plain(b []byte) bool {
	for _, c := range b {
		if c == '\\' || c < ' ' || c >= 0x80 {
			return false
		}
	}
	return true
}

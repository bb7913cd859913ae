package data

import (
	"encoding/json"
	"testing"
)

// FuzzMaskObject: whatever a row holds, what comes out is the same JSON object with exactly the masked members replaced.
func FuzzMaskObject(f *testing.F) {
	f.Add(`{"tail":"N1","n":1}`)
	f.Add(`{"TAIL":{"a":["N1"]},"x":null}`)
	f.Add(`{"tail":null}`)
	f.Add(`[1]`)
	f.Add(`{"tail":1.5e300,"tail":"twice","a\n":true}`)
	s := &Service{mac: func(string, []byte) []byte { return make([]byte, 32) }}
	f.Fuzz(func(t *testing.T, text string) {
		var before map[string]json.RawMessage
		if json.Unmarshal([]byte(text), &before) != nil || before == nil {
			return
		}
		out, err := s.maskObject("p", map[string]string{"tail": MaskPseudonym}, json.RawMessage(text))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		var after map[string]json.RawMessage
		if err := json.Unmarshal(out, &after); err != nil || len(after) != len(before) {
			t.Fatalf("%q became %q: %v", text, out, err)
		}
		if v, ok := after["tail"]; ok && string(v) != "null" && string(v) != `"p_aaaaaaaaaaaaaaaa"` {
			t.Errorf("%q shows %s", text, v)
		}
	})
}

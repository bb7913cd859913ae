package oip

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
)

// value reads any JSON value into what encoding/json would make of it.
func value(s *scanner, depth int) (any, error) {
	if depth > maxDepth {
		return nil, s.bad("nested too deep")
	}
	switch s.peek() {
	case '{':
		out := map[string]any{}
		return out, s.object(func(key []byte) error {
			k := string(key)
			v, err := value(s, depth+1)
			out[k] = v
			return err
		})
	case '[':
		out := []any{}
		return out, s.array(func() error {
			v, err := value(s, depth+1)
			out = append(out, v)
			return err
		})
	case '"':
		v, err := s.string()
		return string(v), err
	case 't', 'f':
		return s.bool()
	case 'n':
		return nil, s.word("null")
	}
	return s.number()
}

func scanAny(b []byte) (any, error) {
	s := &scanner{b: b}
	v, err := value(s, 0)
	if err == nil {
		err = s.end()
	}
	if list, ok := v.([]any); ok && len(list) == 0 {
		v = []any{}
	}
	return v, err
}

// FuzzScanner compares the scanner with encoding/json: what one accepts the other accepts with the same value, except for what the comments name.
func FuzzScanner(f *testing.F) {
	for _, s := range []string{
		`{"id":"a\u00e9\ud83d\ude00\n","inputs":[{"name":"x","shape":[1,2],"datatype":"FP64","data":[1.5,-2e-3]}]}`,
		`[0.1,0.30000000000000004,1e22,123456789012345678901234567890,5e-324,1.7976931348623157e308,-0,-0.0,9007199254740993,0.00000000000000000001]`,
		`[]`, `{}`, `null`, `true`, `[[[[1]]]]`, `"\ud800"`, `"\ud800\u0041"`, `1.`, `01`, `-`, `[1,]`, `{"a":1,}`, `"` + "\x01" + `"`, ` [ 1 , 2 ] `, `1e999`, `NaN`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var want any
		wantErr := json.Unmarshal(b, &want)
		got, err := scanAny(b)
		skip := &scanner{b: b}
		skipErr := skip.skip(0)
		if skipErr == nil {
			skipErr = skip.end()
		}
		if (err == nil) != (skipErr == nil) {
			t.Fatalf("%q: read %v, skipped %v", b, err, skipErr)
		}
		text := string(b)
		if strings.Contains(text, "NaN") || strings.Contains(text, "Infinity") || strings.ToValidUTF8(text, "") != text || strings.Count(text, "[")+strings.Count(text, "{") > maxDepth {
			return // accepted, refused and bounded on purpose, otherwise than encoding/json
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: %v, encoding/json says %v", b, err, wantErr)
		}
		if err == nil && !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %#v, encoding/json says %#v", b, got, want)
		}
	})
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]float64{
		"NaN": math.NaN(), "null": math.NaN(), "Infinity": math.Inf(1), "-Infinity": math.Inf(-1), "-0": math.Copysign(0, -1),
		"0.1": 0.1, "9007199254740992": 1 << 53, "9007199254740993": 1 << 53, "123.456e-2": 1.23456, "18446744073709551616": 1 << 64, "99999999999999999999.5": 1e20,
		"3.141592653589793238": math.Pi,
	} {
		s := &scanner{b: []byte(text)}
		got, err := s.number()
		if err != nil || s.end() != nil || math.Float64bits(got) != math.Float64bits(want) && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	one := `{"inputs":[{"name":"x","shape":[%s],"datatype":"%s","data":%s}]}`
	for name, body := range map[string]string{
		"empty":              ``,
		"no object":          `[]`,
		"no inputs":          `{}`,
		"trailing":           fmt.Sprintf(one, "1", "FP64", "[1]") + "x",
		"too few":            fmt.Sprintf(one, "2", "FP64", "[1]"),
		"too many":           fmt.Sprintf(one, "1", "FP64", "[1,2]"),
		"datatype":           fmt.Sprintf(one, "1", "FP65", "[1]"),
		"huge shape":         fmt.Sprintf(one, "2000000000,2000000000", "FP64", "[1]"),
		"large shape":        fmt.Sprintf(one, "2000000000", "FP64", "[1]"),
		"negative shape":     fmt.Sprintf(one, "-1", "FP64", "[1]"),
		"no shape":           fmt.Sprintf(one, "", "FP64", "[1]"),
		"three dimensions":   fmt.Sprintf(one, "1,1,1", "FP64", "[1]"),
		"fraction as int":    fmt.Sprintf(one, "1", "INT64", "[1.5]"),
		"int out of range":   fmt.Sprintf(one, "1", "INT64", "[9223372036854775808]"),
		"text as number":     fmt.Sprintf(one, "1", "FP64", `["1"]`),
		"number as text":     fmt.Sprintf(one, "1", "BYTES", `[1]`),
		"nested too deep":    fmt.Sprintf(one, "1", "FP64", `[[[[1]]]]`),
		"no data":            `{"inputs":[{"name":"x","shape":[1],"datatype":"FP64"}]}`,
		"no name":            `{"inputs":[{"shape":[1],"datatype":"FP64","data":[1]}]}`,
		"data twice":         `{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[1],"data":[1]}]}`,
		"both data":          `{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[1],"parameters":{"binary_data_size":8}}]}`,
		"shared memory":      `{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","parameters":{"shared_memory_region":"r"}}]}`,
		"classification":     `{"outputs":[{"name":"predict","parameters":{"classification":2}}],"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[1]}]}`,
		"deep unknown field": `{"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `,"inputs":[]}`,
		"not UTF-8":          "{\"id\":\"\xff\"}",
		"long id":            `{"id":"` + strings.Repeat("x", 300) + `","inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[1]}]}`,
	} {
		if r, err := parse([]byte(body)); err == nil {
			t.Errorf("%s: parsed to %+v", name, r)
		}
	}
	r, err := parse([]byte(`{"id":"a","extra":{"x":[1,{"y":null}]},"inputs":[{"data":[[1,null],[NaN,-2.5]],"name":"x","datatype":"FP32","shape":[2,2]}],"parameters":{"at":5,"unit":"u","binary_data_output":true}}`))
	if err != nil || len(r.inputs) != 1 || len(r.inputs[0].floats) != 4 || r.inputs[0].floats[3] != -2.5 || !math.IsNaN(r.inputs[0].floats[1]) || r.at[0] != 5 || r.units[0] != "u" || !r.binary {
		t.Errorf("data before its datatype: %+v, %v", r, err)
	}
}

func TestHalf(t *testing.T) {
	t.Parallel()
	for bits, want := range map[uint16]float64{0x3c00: 1, 0xc000: -2, 0x7bff: 65504, 0x0001: 5.960464477539063e-08, 0x0400: 6.103515625e-05, 0x7c00: math.Inf(1), 0xfc00: math.Inf(-1), 0x3555: 0.333251953125} {
		if got := half(bits); got != want {
			t.Errorf("%04x: %v, want %v", bits, got, want)
		}
	}
}

// FuzzParse: no body makes the parser panic or hold more values than the body has bytes.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"inputs":[{"name":"x","shape":[2],"datatype":"BYTES","data":["a","b"]}]}`), []byte{})
	f.Add([]byte(`{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","parameters":{"binary_data_size":8}}]}`), make([]byte, 8))
	f.Add([]byte(`{"inputs":[{"name":"x","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":9}}]}`), []byte("\x01\x00\x00\x00a\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, head, tail []byte) {
		r, err := parse(head)
		if err != nil || r.take(tail) != nil {
			return
		}
		for _, in := range r.inputs {
			n, err := in.check()
			if err != nil || in.count() != n || n > len(head)+len(tail) {
				t.Fatalf("%+v: %d values, %v", in, n, err)
			}
			for i := range n {
				in.value(i)
			}
		}
	})
}

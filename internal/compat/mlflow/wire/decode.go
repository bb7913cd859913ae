// Package wire is the JSON of MLflow's REST API: requests, answers, and the checks of requests in MLflow's own words.
// The structs are written by hand after the protobuf descriptors; int64 come as numbers or texts, floats also as NaN and Infinity.
package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"reflect"
	"sort"
	"strconv"
	"strings"

	"falaj/internal/kernel/fault"
	"falaj/internal/tracking"
)

// Error is MLflow's error JSON.
type Error struct {
	Code    string `json:"error_code"`
	Message string `json:"message"`
}

// Int is an int64 that arrives as number or text.
type Int int64

// UnmarshalJSON reads 3, "3" and 3.0.
func (n *Int) UnmarshalJSON(b []byte) error {
	s := string(b)
	if s == "null" {
		return nil
	}
	if len(s) > 1 && s[0] == '"' {
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
	}
	if v, err := strconv.ParseInt(s, 10, 64); err == nil {
		*n = Int(v)
		return nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) >= 1<<63 || s[0] == '+' {
		return fmt.Errorf("%s is no integer", s)
	}
	*n = Int(f)
	return nil
}

// Float is a float64 that arrives as number or text, NaN and the infinities included, and leaves as protobuf's JSON writes it.
type Float float64

// UnmarshalJSON reads 0.5, "0.5", "NaN", "Infinity", "-Infinity".
func (f *Float) UnmarshalJSON(b []byte) error {
	s := string(b)
	if s == "null" {
		return nil
	}
	if len(s) > 1 && s[0] == '"' {
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		switch s {
		case "NaN", "Infinity", "-Infinity":
		default:
			if strings.Trim(s, "0123456789.eE+-") != "" {
				return fmt.Errorf("%s is no number", s)
			}
		}
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return err
	}
	*f = Float(v)
	return nil
}

// MarshalJSON writes a number, or the text NaN, Infinity or -Infinity.
func (f Float) MarshalJSON() ([]byte, error) {
	v := float64(f)
	switch {
	case math.IsNaN(v):
		return []byte(`"NaN"`), nil
	case math.IsInf(v, 1):
		return []byte(`"Infinity"`), nil
	case math.IsInf(v, -1):
		return []byte(`"-Infinity"`), nil
	case v == math.Trunc(v) && math.Abs(v) < 1e16:
		return strconv.AppendFloat(nil, v, 'f', 1, 64), nil // 1.0, as Python writes it
	}
	return strconv.AppendFloat(nil, v, 'g', -1, 64), nil
}

// Enum is an enum value that arrives by name or number; String is the name, or the number as text.
type Enum string

// UnmarshalJSON reads "FINISHED" and 3.
func (e *Enum) UnmarshalJSON(b []byte) error {
	s := string(b)
	if s == "null" {
		return nil
	}
	if len(s) > 1 && s[0] == '"' {
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
	} else if _, err := strconv.ParseInt(s, 10, 32); err != nil {
		return err
	}
	*e = Enum(s)
	return nil
}

func invalid(format string, args ...any) error { return fault.Newf(fault.Invalid, format, args...) }

// Decode reads a request (body, or query for GET) into a struct of this package and checks it by the rules of its endpoint.
func Decode(r *http.Request, rules []Rule, into any) error {
	raw, err := object(r, into)
	if err != nil {
		return err
	}
	// The frequent requests say themselves that they are whole; the rules are for finding the words of a refusal.
	if c, ok := into.(interface{ Complete() bool }); ok && json.Unmarshal(raw, into) == nil && c.Complete() {
		return nil
	}
	var fields map[string]json.RawMessage
	broken := json.Unmarshal(raw, &fields) != nil
	if broken {
		fields = nil
	} else if raw, fields, err = snake(raw, fields, into); err != nil {
		return err
	}
	parsed := !broken && json.Unmarshal(raw, into) == nil
	if err := check(rules, fields, parsed || broken); err != nil {
		return err
	}
	if broken {
		return invalid("The request body is not a JSON object.")
	}
	if !parsed {
		return invalid("The request body does not have the types that this endpoint expects. See the API docs for more information about request parameters.")
	}
	return nil
}

// object gives the request's JSON object.
func object(r *http.Request, into any) ([]byte, error) {
	if r.Method == http.MethodGet && r.URL.RawQuery != "" {
		return query(r, into)
	}
	if r.Method == http.MethodPost || r.Method == http.MethodPut {
		switch ct, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); ct {
		case "application/json":
		case "":
			return nil, invalid("Bad Request. Content-Type header is missing.")
		default:
			return nil, invalid("Bad Request. Content-Type must be one of ['application/json'].")
		}
	}
	b, err := io.ReadAll(r.Body)
	var big *http.MaxBytesError
	switch {
	case errors.As(err, &big):
		return nil, fault.Newf(fault.TooLarge, "The request is larger than %d bytes.", big.Limit)
	case err != nil:
		return nil, fault.Wrap(err, fault.Invalid, "The request body could not be read.", "Send it again.")
	}
	if b = bytes.TrimSpace(b); len(b) == 0 {
		return []byte("{}"), nil
	}
	if b[0] == '"' { // old clients encode twice
		var s string
		if json.Unmarshal(b, &s) == nil {
			b = []byte(s)
		}
	}
	if nul(b) {
		return nil, invalid("The request holds the character U+0000, which no value may have.")
	}
	return pythonNumbers(b), nil
}

// nul finds the escape \u0000.
func nul(b []byte) bool {
	for i := 0; ; {
		j := bytes.Index(b[i:], []byte(`\u0000`))
		if j < 0 {
			return false
		}
		j += i
		n := 0
		for j-n-1 >= 0 && b[j-n-1] == '\\' {
			n++
		}
		if n%2 == 0 {
			return true
		}
		i = j + 1
	}
}

// pythonNumbers puts quotes around NaN, Infinity and -Infinity, which Python's json writes bare.
func pythonNumbers(b []byte) []byte {
	if !bytes.Contains(b, []byte("NaN")) && !bytes.Contains(b, []byte("Infinity")) {
		return b
	}
	out := make([]byte, 0, len(b)+16)
	for i := 0; i < len(b); {
		if b[i] == '"' {
			j := i + 1
			for j < len(b) && b[j] != '"' {
				if b[j] == '\\' {
					j++
				}
				j++
			}
			j = min(j+1, len(b))
			out = append(out, b[i:j]...)
			i = j
			continue
		}
		bare := ""
		for _, w := range []string{"-Infinity", "Infinity", "NaN"} {
			if bytes.HasPrefix(b[i:], []byte(w)) {
				bare = w
				break
			}
		}
		if bare == "" {
			out = append(out, b[i])
			i++
			continue
		}
		out = append(out, '"')
		out = append(out, bare...)
		out = append(out, '"')
		i += len(bare)
	}
	return out
}

// query makes the JSON object of a GET's parameters, by the types of the struct.
func query(r *http.Request, into any) ([]byte, error) {
	q := r.URL.Query()
	out := map[string]any{}
	t := reflect.TypeOf(into).Elem()
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		values, ok := q[name]
		if !ok {
			continue
		}
		for _, v := range values {
			if strings.ContainsRune(v, 0) {
				return nil, invalid("The request holds the character U+0000, which no value may have.")
			}
		}
		ft := f.Type
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		switch ft.Kind() {
		case reflect.Slice:
			out[name] = values
		case reflect.Bool:
			v := strings.ToLower(values[0])
			if v != "true" && v != "false" {
				return nil, invalid("Invalid boolean value: %s, must be 'true' or 'false'.", values[0])
			}
			out[name] = v == "true"
		default:
			out[name] = values[0]
		}
	}
	return json.Marshal(out)
}

// snake renames lowerCamel keys (runId) to the proto names (run_id), as protobuf's JSON accepts both; both at once are refused.
func snake(raw []byte, fields map[string]json.RawMessage, into any) ([]byte, map[string]json.RawMessage, error) {
	changed := false
	t := reflect.TypeOf(into).Elem()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		camel := toCamel(name)
		v, ok := fields[camel]
		if !ok || camel == name {
			continue
		}
		if _, both := fields[name]; both {
			return nil, nil, invalid("Request specifies both '%s' and '%s'; provide only one of them.", name, camel)
		}
		delete(fields, camel)
		fields[name] = v
		changed = true
	}
	if !changed {
		return raw, fields, nil
	}
	raw, err := json.Marshal(fields)
	return raw, fields, err
}

func toCamel(s string) string {
	parts := strings.Split(s, "_")
	for i, p := range parts[1:] {
		if p != "" {
			parts[i+1] = strings.ToUpper(p[:1]) + p[1:]
		}
	}
	return strings.Join(parts, "")
}

// Write sends JSON. A failure means that the client is gone.
func Write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(v)
}

// pyJSON writes a value as Python's json.dumps(v, sort_keys=True, separators=(",", ":")) does.
func pyJSON(v any) string {
	switch x := v.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(x)
	case json.Number:
		return x.String()
	case string:
		return tracking.Quote(x)
	case []any:
		parts := make([]string, len(x))
		for i, e := range x {
			parts[i] = pyJSON(e)
		}
		return "[" + strings.Join(parts, ",") + "]"
	case map[string]any:
		keys := make([]string, 0, len(x))
		for k := range x {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		parts := make([]string, len(keys))
		for i, k := range keys {
			parts[i] = tracking.Quote(k) + ":" + pyJSON(x[k])
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	return fmt.Sprint(v)
}

func pyType(v any) string {
	switch x := v.(type) {
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case json.Number:
		if strings.ContainsAny(x.String(), ".eE") {
			return "float"
		}
		return "int"
	case string:
		return "str"
	case []any:
		return "list"
	}
	return "dict"
}

package plan

import (
	"bytes"
	"encoding/json"
	"reflect"
)

// Schema is the JSON Schema (draft 2020-12) of falaj.yaml, made from the structs of file.go, so that an editor knows
// every key that this version takes. What needs more than one place, such as a name that must exist, is beyond it.
func Schema() []byte {
	root := schemaOf(reflect.TypeFor[Project]())
	root = append(object{{"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"title", "falaj.yaml"}}, root...)
	raw, err := json.Marshal(root)
	if err != nil {
		panic("plan: the schema cannot be written: " + err.Error()) // strings and lists only
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		panic("plan: " + err.Error())
	}
	out.WriteByte('\n')
	return out.Bytes()
}

// object is a JSON object that keeps its order.
type object []member

type member struct {
	key   string
	value any
}

// MarshalJSON writes the members in order.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		k, err := json.Marshal(m.key)
		if err != nil {
			return nil, err
		}
		v, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b.Write(k)
		b.WriteByte(':')
		b.Write(v)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func typed(t string) object { return object{{"type", t}} }

func oneOf(list ...object) object { return object{{"oneOf", list}} }

func listOf(item object) object { return object{{"type", "array"}, {"items", item}} }

func words(list []string) object { return object{{"enum", list}} }

func schemaOf(t reflect.Type) object {
	scalar := object{{"type", []string{"string", "number", "boolean"}}}
	switch t {
	case reflect.TypeFor[Strings]():
		return oneOf(typed("string"), listOf(typed("string")))
	case reflect.TypeFor[Service]():
		return oneOf(typed("string"), object{{"type", "array"}, {"items", typed("string")}, {"minItems", 1}})
	case reflect.TypeFor[Scalars]():
		return object{{"type", "array"}, {"items", scalar}, {"minItems", 1}}
	case reflect.TypeFor[Duration]():
		return object{{"type", "string"}, {"pattern", `^([0-9]+(\.[0-9]+)?(s|m|h|d|w))+$`}}
	case reflect.TypeFor[Bytes]():
		return object{{"type", "string"}, {"pattern", bytesForm.String()}}
	case reflect.TypeFor[Request]():
		return oneOf(typed("string"), object{{"type", "object"}, {"minProperties", 1}, {"maxProperties", 1}, {"additionalProperties", typed("string")}})
	case reflect.TypeFor[Trigger]():
		return oneOf(words(TriggerEvents()), object{{"type", "object"}, {"properties", object{{"schedule", words(Schedules())}}}, {"required", []string{"schedule"}}, {"additionalProperties", false}})
	case reflect.TypeFor[Gate]():
		return gateSchema()
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem())
	case reflect.Struct:
		var props object
		required := []string{}
		for _, f := range fieldsOf(t) {
			s := object{{"description", f.doc}}
			if f.enum != nil {
				s = append(s, member{"enum", f.enum})
			} else {
				s = append(s, schemaOf(f.typ)...)
			}
			props = append(props, member{f.key, s})
			if f.required {
				required = append(required, f.key)
			}
		}
		o := object{{"type", "object"}, {"properties", props}}
		if len(required) > 0 {
			o = append(o, member{"required", required})
		}
		return append(o, member{"additionalProperties", false})
	case reflect.Map:
		return object{{"type", "object"}, {"additionalProperties", schemaOf(t.Elem())}}
	case reflect.Slice:
		return listOf(schemaOf(t.Elem()))
	case reflect.String:
		return typed("string")
	case reflect.Bool:
		return typed("boolean")
	case reflect.Int:
		return typed("integer")
	case reflect.Float64:
		return typed("number")
	case reflect.Interface:
		return scalar
	}
	panic("plan: no schema for " + t.String())
}

func gateSchema() object {
	var kinds []object
	for _, s := range gateShapes() {
		main := typed("string")
		switch {
		case s.value != "":
			main = object{{"const", s.value}}
		case s.kind == "latency_p99_ms":
			main = object{{"type", "number"}, {"exclusiveMinimum", 0}}
		case s.kind == "approval":
			main = object{{"type", "object"}, {"properties", object{{"group", typed("string")}, {"not", object{{"const", "author"}}}}}, {"required", []string{"group"}}, {"additionalProperties", false}}
		}
		props := object{{s.kind, main}}
		for _, k := range s.beside {
			switch k {
			case "min", "max":
				props = append(props, member{k, typed("number")})
			case "on":
				props = append(props, member{k, object{{"const", "latest_labelled_window"}}})
			case "metric":
				props = append(props, member{k, words(QualityMetrics())})
			}
		}
		o := object{{"description", s.doc}, {"type", "object"}, {"properties", props}, {"required", []string{s.kind}}, {"additionalProperties", false}}
		if s.kind == "metric" {
			o = append(o, member{"anyOf", []object{{{"required", []string{"min"}}}, {{"required", []string{"max"}}}}})
		}
		kinds = append(kinds, o)
	}
	return object{{"oneOf", kinds}}
}

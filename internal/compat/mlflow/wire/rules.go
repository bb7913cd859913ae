package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"falaj/internal/kernel/fault"
)

// Rule is one field's checks, in MLflow's order.
type Rule struct {
	Field  string
	Checks []string
}

// rules is the one table of what MLflow 3.17.2 checks in a request before it acts (mlflow.server.handlers): endpoint, then
// FIELD=CHECK,CHECK. Checks of type (string, int, float, bool, array, strings) count only when the body as a whole does not
// have the types of the message. max:N is an upper limit; parts:F,G says that each item needs the fields.
const rules = `
experiments/create: name=required,string artifact_location=string tags=array
experiments/get: experiment_id=required,string
experiments/get-by-name: experiment_name=required,string
experiments/delete: experiment_id=required,string
experiments/restore: experiment_id=required,string
experiments/update: experiment_id=required,string new_name=string,required
experiments/search: view_type=int max_results=int order_by=array filter=string page_token=string
experiments/set-experiment-tag: experiment_id=required,string key=required,string value=string
experiments/delete-experiment-tag: experiment_id=required,string key=required,string
runs/create: experiment_id=string start_time=int run_name=string
runs/update: run_id=required,string end_time=int status=string run_name=string
runs/delete: run_id=required,string
runs/restore: run_id=required,string
runs/get: run_id=required,string
runs/log-metric: run_id=required,string key=required,string value=required,float timestamp=int,required step=int model_id=string dataset_name=string dataset_digest=string
runs/log-parameter: run_id=required,string key=required,string value=string
runs/log-batch: run_id=string,required metrics=array,parts:key+value+timestamp params=array,parts:key tags=array,parts:key
runs/log-inputs: run_id=required,string datasets=array models=array
runs/outputs: run_id=required,string models=required,array
runs/log-model: run_id=string,required model_json=string,required
runs/set-tag: run_id=required,string key=required,string value=string
runs/delete-tag: run_id=required,string key=required,string
runs/search: experiment_ids=array filter=string max_results=int,max:50000 order_by=array,strings
metrics/get-history: run_id=string,required metric_key=string,required page_token=string
metrics/get-history-bulk-interval: run_ids=required,array,strings metric_key=required,string start_step=int end_step=int max_results=int
artifacts/list: run_id=string,required path=string page_token=string
artifacts/presigned-upload-url: run_id=string model_id=string path=required,string expiration=int
artifacts/presigned-download-url: run_id=required,string path=required,string expiration=int
logged-models: experiment_id=string,required name=string model_type=string source_run_id=string params=array tags=array
logged-models/finalize: model_id=string,required status=int,required
logged-models/params: model_id=string,required params=array
logged-models/tags: tags=array
logged-models/search: experiment_ids=array,strings,required filter=string datasets=array max_results=int order_by=array page_token=string
logged-models/directories: artifact_directory_path=string
registered-models/create: name=string,required tags=array description=string
registered-models/get: name=string,required
registered-models/update: name=string,required description=string
registered-models/rename: name=string,required new_name=string,required
registered-models/delete: name=string,required
registered-models/search: filter=string max_results=int,max:1000 order_by=array,strings page_token=string
registered-models/get-latest-versions: name=string,required stages=array,strings
registered-models/set-tag: name=string,required key=string,required value=string
registered-models/delete-tag: name=string,required key=string,required
registered-models/alias set: name=string,required alias=string,required version=string,required
registered-models/alias: name=string,required alias=string,required
model-versions/create: name=string,required source=string,required run_id=string tags=array run_link=string description=string model_id=string
model-versions/get: name=string,required version=string,required
model-versions/update: name=string,required version=string,required description=string
model-versions/transition-stage: name=string,required version=string,required stage=string,required archive_existing_versions=bool
model-versions/delete: name=string,required version=string,required
model-versions/search: filter=string max_results=int,max:200000 order_by=array,strings page_token=string
model-versions/set-tag: name=string,required version=string,required key=string,required value=string
model-versions/delete-tag: name=string,required version=string,required key=string,required
mpu/create: path=required,string num_parts=int
mpu/complete: path=required,string upload_id=string parts=required
mpu/abort: path=required,string upload_id=string
`

// Rules reads the table.
func Rules() map[string][]Rule {
	out := map[string][]Rule{}
	for _, line := range strings.Split(strings.TrimSpace(rules), "\n") {
		name, list, _ := strings.Cut(line, ": ")
		for _, f := range strings.Fields(list) {
			field, checks, _ := strings.Cut(f, "=")
			out[name] = append(out[name], Rule{field, strings.Split(checks, ",")})
		}
	}
	return out
}

const seeDocs = " See the API docs for more information about request parameters."

// check holds the fields of a request to the rules; typed says that the whole had the right types: then large lists need not be
// read a second time, unless their items are asked for.
func check(rules []Rule, fields map[string]json.RawMessage, typed bool) error {
	for _, r := range rules {
		raw, present := fields[r.Field]
		if !present && !r.has("required") {
			continue
		}
		if typed && len(raw) > 0 && (raw[0] == '[' || raw[0] == '{') && !r.hasParts() {
			continue
		}
		v := value(raw)
		if r.Field == "run_id" && v == nil {
			v = value(fields["run_uuid"])
		}
		for _, c := range r.Checks {
			if err := one(c, r.Field, v, typed); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r Rule) has(check string) bool {
	for _, c := range r.Checks {
		if c == check {
			return true
		}
	}
	return false
}

func (r Rule) hasParts() bool { return strings.HasPrefix(r.Checks[len(r.Checks)-1], "parts:") }

func value(raw json.RawMessage) any {
	if len(raw) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return nil
	}
	return v
}

func one(c, field string, v any, typed bool) error {
	ok := true
	switch head, arg, _ := strings.Cut(c, ":"); head {
	case "required":
		if v == nil || v == "" {
			return invalid("Missing value for required parameter '%s'."+seeDocs, field)
		}
	case "max":
		limit, err := strconv.ParseInt(arg, 10, 64)
		n, e := strconv.ParseInt(fmt.Sprint(v), 10, 64)
		ok = err == nil && (e != nil || n <= limit)
	case "parts":
		return parts(field, strings.Split(arg, "+"), v)
	default:
		ok = typed || is(head, v)
	}
	if ok {
		return nil
	}
	return invalid("Invalid value %s for parameter '%s' supplied:  Hint: Value was of type '%s'."+seeDocs, pyJSON(v), field, pyType(v))
}

func is(kind string, v any) bool {
	switch kind {
	case "string":
		_, ok := v.(string)
		return ok
	case "int":
		switch x := v.(type) {
		case json.Number:
			return true
		case string:
			_, err := strconv.ParseInt(strings.TrimSpace(x), 10, 64)
			return err == nil
		case bool:
			return true
		}
		return false
	case "float":
		switch x := v.(type) {
		case json.Number:
			return true
		case string:
			_, err := strconv.ParseFloat(strings.TrimSpace(x), 64)
			return err == nil
		}
		return false
	case "bool":
		_, ok := v.(bool)
		return ok
	case "array":
		_, ok := v.([]any)
		return ok
	case "strings":
		list, ok := v.([]any)
		for _, e := range list {
			if _, text := e.(string); !text {
				return false
			}
		}
		return ok
	}
	return true
}

// parts checks that each item of a list has the fields.
func parts(field string, need []string, v any) error {
	list, _ := v.([]any)
	for i, item := range list {
		m, _ := item.(map[string]any)
		for _, n := range need {
			if x := m[n]; x == nil || x == "" {
				return fault.Newf(fault.Invalid, "Missing value for required parameter '%s[%d].%s'."+seeDocs, field, i, n)
			}
		}
	}
	return nil
}

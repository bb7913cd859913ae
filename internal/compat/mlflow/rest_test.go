package mlflow_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/compat/mlflow"
)

const api = "/api/2.0/mlflow/"

func TestRunOverREST(t *testing.T) {
	each(t, func(t *testing.T, s server) {
		exp := dig(s.ok(t, "POST", api+"experiments/create", `{"name": "delay", "tags": [{"key": "team", "value": "ops"}]}`), "experiment_id").(string)
		got := s.ok(t, "GET", api+"experiments/get-by-name?experiment_name=delay", "")
		if dig(got, "experiment", "experiment_id") != exp || dig(got, "experiment", "artifact_location") != "mlflow-artifacts:/"+exp || dig(got, "experiment", "tags", 0, "value") != "ops" {
			t.Errorf("experiment: %v", got)
		}
		run := s.ok(t, "POST", api+"runs/create", `{"experimentId": "`+exp+`", "start_time": "1700000000123", "user_id": "amal", "run_name": "r"}`)
		id := dig(run, "run", "info", "run_id").(string)
		if dig(run, "run", "info", "run_uuid") != id || dig(run, "run", "info", "start_time") != json.Number("1700000000123") || dig(run, "run", "info", "status") != "RUNNING" {
			t.Errorf("run: %v", run)
		}
		// int64 as numbers and texts, NaN and infinities bare and quoted, run_uuid for run_id.
		s.ok(t, "POST", api+"runs/log-metric", `{"run_id": "`+id+`", "key": "a", "value": NaN, "timestamp": 5, "step": "7"}`)
		s.ok(t, "POST", api+"runs/log-metric", `{"run_uuid": "`+id+`", "key": "b", "value": "Infinity", "timestamp": "6"}`)
		s.ok(t, "POST", api+"runs/log-batch", `{"run_id": "`+id+`", "metrics": [{"key": "c", "value": -Infinity, "timestamp": 7, "step": 1}, {"key": "d", "value": 0.25, "timestamp": 8.0}], "params": [{"key": "NaN", "value": "Infinity"}], "tags": [{"key": "t", "value": "<&>"}]}`)
		got = s.ok(t, "GET", "/ajax-api/2.0/mlflow/runs/get?run_id="+id, "")
		want := []any{
			map[string]any{"key": "a", "value": "NaN", "timestamp": json.Number("5"), "step": json.Number("7")}, map[string]any{"key": "b", "value": "Infinity", "timestamp": json.Number("6"), "step": json.Number("0")},
			map[string]any{"key": "c", "value": "-Infinity", "timestamp": json.Number("7"), "step": json.Number("1")}, map[string]any{"key": "d", "value": json.Number("0.25"), "timestamp": json.Number("8"), "step": json.Number("0")},
		}
		if d := cmp.Diff(want, dig(got, "run", "data", "metrics")); d != "" {
			t.Error(d)
		}
		if dig(got, "run", "data", "params", 0, "value") != "Infinity" || dig(got, "run", "data", "tags", 1, "value") != "<&>" {
			t.Errorf("data: %v", dig(got, "run", "data"))
		}
		upd := s.ok(t, "POST", api+"runs/update", `{"run_id": "`+id+`", "status": 3, "end_time": 1700000009999}`)
		if dig(upd, "run_info", "status") != "FINISHED" || dig(upd, "run_info", "end_time") != json.Number("1700000009999") {
			t.Errorf("update: %v", upd)
		}
		found := s.ok(t, "POST", api+"runs/search", `{"experiment_ids": ["`+exp+`"], "filter": "metrics.d > 0.2 and params.NaN = 'Infinity'", "order_by": ["metrics.d DESC"], "max_results": 1}`)
		if dig(found, "runs", 0, "info", "run_id") != id || dig(found, "next_page_token") != nil {
			t.Errorf("search: %v", found)
		}
		if got := s.ok(t, "POST", api+"runs/search", `{}`); len(got) != 0 {
			t.Errorf("search without experiments: %v", got)
		}
		bulk := s.ok(t, "GET", api+"metrics/get-history-bulk-interval?run_ids="+id+"&metric_key=d&max_results=5", "")
		if dig(bulk, "metrics", 0, "run_id") != id {
			t.Errorf("bulk: %v", bulk)
		}
		// The same experiment is not there in another project.
		if status, text := s.call(t, "GET", "/../default"+api+"experiments/get?experiment_id="+exp, ""); status == 200 {
			t.Errorf("another project sees it: %s", text)
		}
	})
}

// The texts are MLflow 3.17.2's, byte for byte.
func TestErrorTexts(t *testing.T) {
	each(t, func(t *testing.T, s server) {
		id := dig(s.ok(t, "POST", api+"runs/create", `{}`), "run", "info", "run_id").(string)
		const seeDocs = " See the API docs for more information about request parameters."
		cases := []struct {
			method, path, body string
			status             int
			code, message      string
		}{
			{"POST", "experiments/create", `{}`, 400, "INVALID_PARAMETER_VALUE", "Missing value for required parameter 'name'." + seeDocs},
			{"POST", "experiments/create", `{"name": ""}`, 400, "INVALID_PARAMETER_VALUE", "Missing value for required parameter 'name'." + seeDocs},
			{"POST", "experiments/create", `{"name": 123}`, 400, "INVALID_PARAMETER_VALUE", "Invalid value 123 for parameter 'name' supplied:  Hint: Value was of type 'int'." + seeDocs},
			{"POST", "experiments/create", `{"name": {"b": [1.5, true], "a": "ü"}}`, 400, "INVALID_PARAMETER_VALUE", `Invalid value {"a":"\u00fc","b":[1.5,true]} for parameter 'name' supplied:  Hint: Value was of type 'dict'.` + seeDocs},
			{"POST", "experiments/create", `{"name": "x", "tags": "t"}`, 400, "INVALID_PARAMETER_VALUE", `Invalid value "t" for parameter 'tags' supplied:  Hint: Value was of type 'str'.` + seeDocs},
			{"GET", "experiments/get", "", 400, "INVALID_PARAMETER_VALUE", "Missing value for required parameter 'experiment_id'." + seeDocs},
			{"GET", "experiments/get?experiment_id=99", "", 404, "RESOURCE_DOES_NOT_EXIST", "No Experiment with id=99 exists"},
			{"GET", "experiments/get?experiment_id=abc", "", 400, "INVALID_PARAMETER_VALUE", "Invalid experiment ID 'abc'. Experiment ID must be a valid integer."},
			{"GET", "experiments/get-by-name?experiment_name=nope", "", 404, "RESOURCE_DOES_NOT_EXIST", "Could not find experiment with name 'nope'"},
			{"GET", "runs/get?run_id=ff", "", 404, "RESOURCE_DOES_NOT_EXIST", "Run with id=ff not found"},
			{"POST", "runs/create", `{"start_time": "soon"}`, 400, "INVALID_PARAMETER_VALUE", `Invalid value "soon" for parameter 'start_time' supplied:  Hint: Value was of type 'str'.` + seeDocs},
			{"POST", "runs/create", `{"run_id": 1, "runName": "a", "run_name": "b"}`, 400, "INVALID_PARAMETER_VALUE", "Request specifies both 'run_name' and 'runName'; provide only one of them."},
			{"POST", "runs/log-metric", `{"run_id": "` + id + `", "key": "m", "timestamp": 1}`, 400, "INVALID_PARAMETER_VALUE", "Missing value for required parameter 'value'." + seeDocs},
			{"POST", "runs/log-metric", `{"run_id": "` + id + `", "key": "m", "timestamp": 1, "value": "much"}`, 400, "INVALID_PARAMETER_VALUE", `Invalid value "much" for parameter 'value' supplied:  Hint: Value was of type 'str'.` + seeDocs},
			{"POST", "runs/log-metric", `{"run_id": "` + id + `", "key": "m", "timestamp": -1, "value": 0.5}`, 400, "INVALID_PARAMETER_VALUE", "Invalid value -1 for parameter 'timestamp' supplied: metric 'm' (value=0.5). Timestamp must be a nonnegative long (64-bit integer) "},
			{"POST", "runs/log-metric", `{"run_id": "` + id + `", "key": "a?b", "timestamp": 1, "value": 1}`, 400, "INVALID_PARAMETER_VALUE", `Invalid value "a?b" for parameter 'name' supplied: Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colon(:) and slashes (/).`},
			{"POST", "runs/log-batch", `{"run_id": "` + id + `", "metrics": [{"key": "ok", "value": 1, "timestamp": 1}, {"key": "x", "timestamp": 1}]}`, 400, "INVALID_PARAMETER_VALUE", "Missing value for required parameter 'metrics[1].value'." + seeDocs},
			{"POST", "runs/log-batch", `{"run_id": "` + id + `", "params": [{"value": "1"}]}`, 400, "INVALID_PARAMETER_VALUE", "Missing value for required parameter 'params[0].key'." + seeDocs},
			{"POST", "runs/log-batch", `{"run_id": "` + id + `", "tags": [{"key": "../x", "value": "1"}]}`, 400, "INVALID_PARAMETER_VALUE", `Invalid value "../x" for parameter 'tags[0].key' supplied: Names may be treated as files in certain cases, and must not resolve to other names when treated as such. This name would resolve to '../x'`},
			{"POST", "runs/search", `{"max_results": 50001}`, 400, "INVALID_PARAMETER_VALUE", "Invalid value 50001 for parameter 'max_results' supplied:  Hint: Value was of type 'int'." + seeDocs},
			{"POST", "runs/search", `{"max_results": 0}`, 400, "INVALID_PARAMETER_VALUE", "Invalid value 0 for parameter 'max_results' supplied. It must be a positive integer"},
			{"POST", "experiments/search", `{"max_results": 50001}`, 400, "INVALID_PARAMETER_VALUE", "Invalid value 50001 for parameter 'max_results' supplied. It must be at most 50000"},
			{"GET", "metrics/get-history?run_id=" + id + "&metric_key=a&max_results=0", "", 400, "INVALID_PARAMETER_VALUE", "Invalid value 0 for parameter 'max_results' supplied. It must be a positive integer."},
			{"GET", "model-versions/search?max_results=0", "", 400, "INVALID_PARAMETER_VALUE", "Invalid value for max_results. It must be a positive integer, but got 0"},
			{"POST", "runs/search", `{"experiment_ids": ["0"], "filter": "metrics.a = 'x'"}`, 400, "INVALID_PARAMETER_VALUE", "Expected numeric value type for metric. Found 'x'"},
			{"POST", "runs/search", `{"experiment_ids": ["0"], "page_token": "!"}`, 400, "INVALID_PARAMETER_VALUE", "Invalid page token, could not base64-decode"},
			{"POST", "runs/delete-tag", `{"run_id": "` + id + `", "key": "none"}`, 404, "RESOURCE_DOES_NOT_EXIST", "No tag with name: none in run with id " + id},
			{"GET", "metrics/get-history-bulk-interval?run_ids=" + id + "&metric_key=a&start_step=1", "", 400, "INVALID_PARAMETER_VALUE", "If either start step or end step are specified, both must be specified."},
			{"POST", "registered-models/create", `{"name": "a/b"}`, 400, "INVALID_PARAMETER_VALUE", "Invalid model name 'a/b'. Names cannot contain '/' or ':'."},
			{"GET", "registered-models/get?name=none", "", 404, "RESOURCE_DOES_NOT_EXIST", "Registered Model with name=none not found"},
			{"GET", "model-versions/get?name=none&version=x", "", 400, "INVALID_PARAMETER_VALUE", "Parameter 'version' must be an integer, got 'x'."},
			{"GET", "registered-models/search?max_results=1001", "", 400, "INVALID_PARAMETER_VALUE", `Invalid value "1001" for parameter 'max_results' supplied:  Hint: Value was of type 'str'.` + seeDocs},
			{"GET", "logged-models/m-00", "", 404, "RESOURCE_DOES_NOT_EXIST", "Logged model with ID 'm-00' not found."},
			{"POST", "runs/log-metric", `{"run_id": `, 400, "INVALID_PARAMETER_VALUE", "Missing value for required parameter 'run_id'." + seeDocs},
			{"POST", "runs/create", `[1]`, 400, "INVALID_PARAMETER_VALUE", "The request body is not a JSON object."},
			{"POST", "runs/create", `{"run_name": "a\u0000b"}`, 400, "INVALID_PARAMETER_VALUE", "The request holds the character U+0000, which no value may have."},
			{"POST", "artifacts/presigned-upload-url", `{"run_id": "` + id + `", "path": "x"}`, 400, "INVALID_PARAMETER_VALUE", "Presigned upload is not supported for proxied artifact storage (artifact URI scheme: mlflow-artifacts). This endpoint requires a direct cloud storage artifact URI."},
			{"POST", "scorers/register", `{}`, 501, "NOT_IMPLEMENTED", "falaj does not have the MLflow endpoint POST /api/2.0/mlflow/scorers/register. docs/tracking.md lists what it has."},
		}
		for _, c := range cases {
			status, text := s.call(t, c.method, api+c.path, c.body)
			var e struct {
				Code    string `json:"error_code"`
				Message string `json:"message"`
			}
			if err := json.Unmarshal([]byte(text), &e); err != nil {
				t.Errorf("%s %s: %d %s", c.path, c.body, status, text)
				continue
			}
			if d := cmp.Diff([]any{c.status, c.code, c.message}, []any{status, e.Code, e.Message}); d != "" {
				t.Errorf("%s %s %s: %s", c.method, c.path, c.body, d)
			}
		}
		if status, text := s.call(t, "POST", api+"runs/create", `{}`, "Content-Type", "text/plain"); status != 400 || !strings.Contains(text, "Bad Request. Content-Type must be one of ['application/json'].") {
			t.Errorf("content type: %d %s", status, text)
		}
	})
}

func TestWhoMayWhat(t *testing.T) {
	each(t, func(t *testing.T, s server) {
		as := func(token string) []string { return []string{"Authorization", "Bearer " + token} }
		if status, text := s.call(t, "POST", api+"runs/create", `{}`, as("wrong")...); status != 401 || !strings.Contains(text, `"error_code":"UNAUTHENTICATED"`) {
			t.Errorf("no token: %d %s", status, text)
		}
		if status, text := s.call(t, "POST", api+"runs/create", `{}`, as(s.viewer)...); status != 403 || !strings.Contains(text, `"error_code":"PERMISSION_DENIED"`) || !strings.Contains(text, "role engineer") {
			t.Errorf("viewer: %d %s", status, text)
		}
		s.ok(t, "POST", api+"registered-models/create", `{"name": "delay"}`)
		s.ok(t, "POST", api+"model-versions/create", `{"name": "delay", "source": "s3://b/m"}`)
		for _, alias := range []string{"production", "Champion"} {
			status, text := s.call(t, "POST", api+"registered-models/alias", `{"name": "delay", "alias": "`+alias+`", "version": "1"}`)
			if want := "The alias '" + alias + "' of delay is bound to an environment and moves only by delivery. Use `falaj promote delay@1 " + strings.ToLower(alias) + "`."; status != 403 || !strings.Contains(text, want) {
				t.Errorf("%s: %d %s", alias, status, text)
			}
		}
		status, text := s.call(t, "POST", api+"model-versions/transition-stage", `{"name": "delay", "version": "1", "stage": "Production", "archive_existing_versions": false}`)
		if status != 403 || !strings.Contains(text, "falaj promote delay@1 production") {
			t.Errorf("stage: %d %s", status, text)
		}
		for _, path := range []string{"/version", "/health", "/api/3.0/mlflow/server-info"} {
			if status, text := s.call(t, "GET", path, "", as("")...); status != 200 {
				t.Errorf("%s: %d %s", path, status, text)
			}
		}
	})
}

func TestArtifactProxy(t *testing.T) {
	each(t, func(t *testing.T, s server) {
		run := s.ok(t, "POST", api+"runs/create", `{}`)
		id := dig(run, "run", "info", "run_id").(string)
		root := strings.TrimPrefix(dig(run, "run", "info", "artifact_uri").(string), "mlflow-artifacts:/")
		const proxy = "/api/2.0/mlflow-artifacts/artifacts"
		s.ok(t, "PUT", proxy+"/"+root+"/a%20b/x.html", "<script>alert(1)</script>", "Content-Type", "text/html")
		status, text := s.call(t, "GET", proxy+"/"+root+"/a%20b/x.html", "")
		if status != 200 || text != "<script>alert(1)</script>" {
			t.Errorf("download: %d %s", status, text)
		}
		if status, text := s.call(t, "GET", proxy+"/"+root+"/a%20b/x.html", "", "Range", "bytes=1-6"); status != 206 || text != "script" {
			t.Errorf("range: %d %s", status, text)
		}
		r, err := http.NewRequest("GET", s.URL+"/p/flights"+proxy+"/"+root+"/a%20b/x.html", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth("amal", s.token)
		resp, err := s.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Disposition"), "attachment") || resp.Header.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("an artifact must not be a page: %d %v", resp.StatusCode, resp.Header)
		}
		list := s.ok(t, "GET", proxy+"?path="+root, "")
		if dig(list, "files", 0, "path") != "a b" || dig(list, "files", 0, "is_dir") != true {
			t.Errorf("list: %v", list)
		}
		list = s.ok(t, "GET", api+"artifacts/list?run_id="+id+"&path=a%20b", "")
		if dig(list, "files", 0, "path") != "a b/x.html" || dig(list, "files", 0, "file_size") != json.Number("25") || dig(list, "root_uri") != dig(run, "run", "info", "artifact_uri") {
			t.Errorf("list: %v", list)
		}
		for _, p := range []string{"/%2e%2e/x", "/" + root + "/..%2f..%2fx", "/" + root + "/%252e%252e/x", "/" + root + "/a%5cb", "/" + root + "/a%23b", "/file:%2f%2fx", "/%2fetc%2fpasswd", "/" + root + "/a%00b", "/" + root} {
			for _, method := range []string{"PUT", "GET"} {
				if status, text := s.call(t, method, proxy+p, "", "Content-Type", "application/octet-stream"); status < 400 || status >= 500 {
					t.Errorf("%s %s: %d %s", method, p, status, text)
				}
			}
		}
		for _, q := range []string{"..", "%2e%2e%2fx", "/etc", "a%5cb", "file:x"} {
			if status, text := s.call(t, "GET", api+"artifacts/list?run_id="+id+"&path="+q, ""); status != 400 || !strings.Contains(text, "Invalid path") {
				t.Errorf("list %s: %d %s", q, status, text)
			}
		}
		s.ok(t, "DELETE", proxy+"/"+root+"/a%20b", "")
		if status, _ := s.call(t, "GET", proxy+"/"+root+"/a%20b/x.html", ""); status != 404 {
			t.Errorf("after delete: %d", status)
		}

		up := s.ok(t, "POST", "/api/2.0/mlflow-artifacts/mpu/create/"+root+"/d", `{"path": "/tmp/big.bin", "num_parts": 2}`)
		for i, part := range []string{"hello ", "world"} {
			req, err := http.NewRequest("PUT", dig(up, "credentials", i, "url").(string), strings.NewReader(part))
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range dig(up, "credentials", i, "headers").(map[string]any) {
				req.Header.Set(k, v.(string))
			}
			resp, err := s.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != 200 || resp.Header.Get("ETag") == "" {
				t.Errorf("part %d: %d", i, resp.StatusCode)
			}
		}
		s.ok(t, "POST", "/api/2.0/mlflow-artifacts/mpu/complete/"+root+"/d", fmt.Sprintf(`{"path": "/tmp/big.bin", "upload_id": %q, "parts": [{"part_number": 1, "etag": "x"}, {"part_number": 2, "etag": "y"}]}`, dig(up, "upload_id")))
		if _, text := s.call(t, "GET", proxy+"/"+root+"/d/big.bin", ""); text != "hello world" {
			t.Errorf("joined: %q", text)
		}
	})
}

// Every route of MLflow 3.17.2 that is P0 is there, and each has its mirror.
func TestRouteTable(t *testing.T) {
	t.Parallel()
	have := map[string]bool{}
	for _, r := range mlflow.Routes(nil, nil) {
		have[r.Method+" "+r.Pattern] = true
		if !r.Public && r.Action == "" || r.Fault == nil {
			t.Errorf("%s %s has no action or no dialect for faults", r.Method, r.Pattern)
		}
	}
	var missing []string
	for _, line := range strings.Split(strings.TrimSpace(p0), "\n") {
		for _, path := range []string{line, strings.Replace(line, "/api/", "/ajax-api/", 1)} {
			if !have[path] {
				missing = append(missing, path)
			}
		}
	}
	slices.Sort(missing)
	if len(missing) > 0 {
		t.Errorf("missing: %s", strings.Join(missing, "\n"))
	}
}

// p0 is read off MLflow 3.17.2's own table (mlflow.server.handlers.get_endpoints), with Go's names for path parameters.
const p0 = `
GET /api/2.0/mlflow-artifacts/artifacts
DELETE /api/2.0/mlflow-artifacts/artifacts/{path...}
GET /api/2.0/mlflow-artifacts/artifacts/{path...}
PUT /api/2.0/mlflow-artifacts/artifacts/{path...}
POST /api/2.0/mlflow-artifacts/mpu/abort/{path...}
POST /api/2.0/mlflow-artifacts/mpu/complete/{path...}
POST /api/2.0/mlflow-artifacts/mpu/create/{path...}
GET /api/2.0/mlflow-artifacts/presigned/{path...}
GET /api/2.0/mlflow/artifacts/list
POST /api/2.0/mlflow/artifacts/presigned-download-url
POST /api/2.0/mlflow/artifacts/presigned-upload-url
POST /api/2.0/mlflow/experiments/create
POST /api/2.0/mlflow/experiments/delete
POST /api/2.0/mlflow/experiments/delete-experiment-tag
GET /api/2.0/mlflow/experiments/get
GET /api/2.0/mlflow/experiments/get-by-name
POST /api/2.0/mlflow/experiments/restore
GET /api/2.0/mlflow/experiments/search
POST /api/2.0/mlflow/experiments/search
POST /api/2.0/mlflow/experiments/set-experiment-tag
POST /api/2.0/mlflow/experiments/update
POST /api/2.0/mlflow/logged-models
DELETE /api/2.0/mlflow/logged-models/{model}
GET /api/2.0/mlflow/logged-models/{model}
PATCH /api/2.0/mlflow/logged-models/{model}
GET /api/2.0/mlflow/logged-models/{model}/artifacts/directories
POST /api/2.0/mlflow/logged-models/{model}/params
PATCH /api/2.0/mlflow/logged-models/{model}/tags
DELETE /api/2.0/mlflow/logged-models/{model}/tags/{tag}
POST /api/2.0/mlflow/logged-models/search
GET /api/2.0/mlflow/metrics/get-history
GET /api/2.0/mlflow/metrics/get-history-bulk-interval
POST /api/2.0/mlflow/model-versions/create
DELETE /api/2.0/mlflow/model-versions/delete
DELETE /api/2.0/mlflow/model-versions/delete-tag
GET /api/2.0/mlflow/model-versions/get
GET /api/2.0/mlflow/model-versions/get-download-uri
GET /api/2.0/mlflow/model-versions/search
POST /api/2.0/mlflow/model-versions/set-tag
POST /api/2.0/mlflow/model-versions/transition-stage
PATCH /api/2.0/mlflow/model-versions/update
DELETE /api/2.0/mlflow/registered-models/alias
GET /api/2.0/mlflow/registered-models/alias
POST /api/2.0/mlflow/registered-models/alias
POST /api/2.0/mlflow/registered-models/create
DELETE /api/2.0/mlflow/registered-models/delete
DELETE /api/2.0/mlflow/registered-models/delete-tag
GET /api/2.0/mlflow/registered-models/get
GET /api/2.0/mlflow/registered-models/get-latest-versions
POST /api/2.0/mlflow/registered-models/get-latest-versions
POST /api/2.0/mlflow/registered-models/rename
GET /api/2.0/mlflow/registered-models/search
POST /api/2.0/mlflow/registered-models/set-tag
PATCH /api/2.0/mlflow/registered-models/update
POST /api/2.0/mlflow/runs/create
POST /api/2.0/mlflow/runs/delete
POST /api/2.0/mlflow/runs/delete-tag
GET /api/2.0/mlflow/runs/get
POST /api/2.0/mlflow/runs/log-batch
POST /api/2.0/mlflow/runs/log-inputs
POST /api/2.0/mlflow/runs/log-metric
POST /api/2.0/mlflow/runs/log-model
POST /api/2.0/mlflow/runs/log-parameter
POST /api/2.0/mlflow/runs/outputs
POST /api/2.0/mlflow/runs/restore
POST /api/2.0/mlflow/runs/search
POST /api/2.0/mlflow/runs/set-tag
POST /api/2.0/mlflow/runs/update
GET /api/3.0/mlflow/server-info
`

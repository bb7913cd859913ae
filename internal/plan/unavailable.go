package plan

// Later is a key of falaj.yaml that is planned but not built: it is refused, never taken and ignored. Path is the
// key's, with * for a name and [] for a place in a list; Value, when set, refuses only that value.
type Later struct {
	Path  string
	Value string
	Why   string // completes "... is not available in this version: "
	Next  string
}

// Unavailable lists what is planned. When a room builds one of these, delete its line and add the key to file.go.
func Unavailable() []Later {
	return []Later{
		{Path: "models.*.train.search", Why: "hyper-parameter search is not built yet", Next: "Remove search and give the values in params."},
		{Path: "models.*.serve.rollout.test", Why: "a canary is judged by its errors and latency, not by a sequential test", Next: "Remove test."},
		{Path: "models.*.serve.rollout.metric", Why: "it belongs to the sequential test", Next: "Remove metric."},
		{Path: "models.*.serve.explain", Why: "explanations are not built yet", Next: "Remove explain."},
		{Path: "models.*.serve.profile", Value: "gpu", Why: "models are served on CPU", Next: "Write cpu."},
		{Path: "models.*.serve.replicas", Why: "endpoints run on this machine", Next: "Remove replicas."},
		{Path: "models.*.train.launcher", Why: "training runs as a process on this machine", Next: "Remove launcher."},
		{Path: "models.*.train.gpus", Why: "training runs on CPU", Next: "Remove gpus."},
		{Path: "models.*.trials", Why: "traffic trials are not built yet", Next: "Remove trials."},
		{Path: "models.*.freeze", Why: "freeze windows are not built yet", Next: "Remove freeze."},
		{Path: "datasets.*.retention", Why: "retention is not built yet", Next: "Remove retention."},
		{Path: "datasets.*.source.s3", Why: "sources are local files", Next: "Use csv, parquet or json."},
		{Path: "datasets.*.source.sql", Why: "sources are local files", Next: "Use csv, parquet or json."},
		{Path: "datasets.*.python", Why: "transforms are SQL", Next: "Use sql."},
		{Path: "governance", Why: "policy packs are not built yet", Next: "Remove governance."},
		{Path: "flags", Why: "feature flags are not built yet", Next: "Remove flags."},
	}
}

func unavailable(path, value string) (Later, bool) {
	for _, l := range Unavailable() {
		if l.Value == value && matchPath(l.Path, path) {
			return l, true
		}
	}
	return Later{}, false
}

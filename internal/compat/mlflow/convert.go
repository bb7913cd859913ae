package mlflow

import (
	"strconv"
	"time"

	"falaj/internal/compat/mlflow/wire"
	"falaj/internal/kernel/fault"
	"falaj/internal/registry"
	"falaj/internal/tracking"
)

func invalid(format string, args ...any) error { return fault.Newf(fault.Invalid, format, args...) }

func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func pairsOut(in []tracking.Pair) []wire.Pair {
	out := make([]wire.Pair, len(in))
	for i, p := range in {
		out[i] = wire.Pair(p)
	}
	return out
}

func pairsIn(in []wire.Pair) []tracking.Pair {
	out := make([]tracking.Pair, len(in))
	for i, p := range in {
		out[i] = tracking.Pair(p)
	}
	return out
}

func metricsOut(in []tracking.Metric, withRun bool) []wire.Metric {
	out := make([]wire.Metric, len(in))
	values := make([]wire.Float, len(in))
	stamps := make([]wire.Int, len(in))
	for i, m := range in {
		values[i], stamps[i] = wire.Float(m.Value), wire.Int(m.TimestampMs)
		out[i] = wire.Metric{Key: m.Key, Value: &values[i], Timestamp: &stamps[i], Step: wire.Int(m.Step), ModelID: m.Model, DatasetName: m.DatasetName, DatasetDigest: m.DatasetDigest}
		if withRun {
			out[i].RunID = m.Run
		}
	}
	return out
}

func metricsIn(in []wire.Metric) []tracking.Metric {
	out := make([]tracking.Metric, len(in))
	for i, m := range in {
		out[i] = tracking.Metric{Key: m.Key, Step: int64(m.Step), Model: m.ModelID, DatasetName: m.DatasetName, DatasetDigest: m.DatasetDigest}
		if m.Value != nil {
			out[i].Value = float64(*m.Value)
		}
		if m.Timestamp != nil {
			out[i].TimestampMs = int64(*m.Timestamp)
		}
	}
	return out
}

func experimentOut(e tracking.Experiment) wire.Experiment {
	return wire.Experiment{ID: itoa(e.ID), Name: e.Name, ArtifactLocation: e.ArtifactLocation, LifecycleStage: e.Stage, LastUpdateTime: ms(e.Updated), CreationTime: ms(e.Created), Tags: pairsOut(e.Tags), Workspace: e.Project}
}

func infoOut(r tracking.RunInfo) wire.RunInfo {
	return wire.RunInfo{RunUUID: r.ID, RunID: r.ID, ExperimentID: itoa(r.Experiment), RunName: r.Name, UserID: r.User, Status: r.Status, StartTime: r.StartMs, EndTime: r.EndMs, ArtifactURI: r.ArtifactURI, LifecycleStage: r.Stage}
}

func runOut(r tracking.Run) wire.Run {
	out := wire.Run{Info: infoOut(r.RunInfo), Data: wire.RunData{Metrics: metricsOut(r.Metrics, false), Params: pairsOut(r.Params), Tags: pairsOut(r.Tags)}}
	for _, d := range r.Datasets {
		out.Inputs.Datasets = append(out.Inputs.Datasets, wire.DatasetInput{Tags: pairsOut(d.Tags), Dataset: wire.Dataset(d.Dataset)})
	}
	for _, m := range r.Inputs {
		out.Inputs.Models = append(out.Inputs.Models, wire.ModelInput{ModelID: m.Model})
	}
	for _, m := range r.Outputs {
		out.Outputs.Models = append(out.Outputs.Models, wire.ModelOutput{ModelID: m.Model, Step: wire.Int(m.Step)})
	}
	return out
}

func filesOut(list []tracking.Artifact, prefix string) []wire.File {
	out := make([]wire.File, len(list))
	for i, a := range list {
		out[i] = wire.File{Path: a.Path, IsDir: a.Folder}
		if prefix != "" {
			out[i].Path = prefix + "/" + a.Path
		}
		if !a.Folder {
			out[i].FileSize = &list[i].Size
		}
	}
	return out
}

func modelStatus(s tracking.ModelStatus) string {
	return map[tracking.ModelStatus]string{tracking.ModelPending: "LOGGED_MODEL_PENDING", tracking.ModelReady: "LOGGED_MODEL_READY", tracking.ModelUploadFailed: "LOGGED_MODEL_UPLOAD_FAILED"}[s]
}

func loggedOut(m tracking.LoggedModel) wire.LoggedModel {
	return wire.LoggedModel{
		Info: wire.LoggedModelInfo{ModelID: m.ID, ExperimentID: itoa(m.Experiment), Name: m.Name, Created: ms(m.Created), Updated: ms(m.Updated), ArtifactURI: m.ArtifactURI, Status: modelStatus(m.Status),
			ModelType: m.Type, SourceRunID: m.SourceRun, StatusMessage: m.StatusMessage, Tags: pairsOut(m.Tags)},
		Data: wire.LoggedModelData{Params: pairsOut(m.Params), Metrics: metricsOut(m.Metrics, true)},
	}
}

func versionOut(v registry.Version) wire.ModelVersion {
	tags := pairsOut(v.Tags)
	if v.Release != "" { // what MLflow's client can see of a release
		tags = append(tags, wire.Pair{Key: "falaj.release", Value: v.Release})
	}
	return wire.ModelVersion{Name: v.Model, Version: itoa(v.Number), Created: ms(v.Created), Updated: ms(v.Updated), CurrentStage: v.Stage, Description: v.Description, Source: v.Source, RunID: v.Run,
		Status: "READY", Tags: tags, RunLink: v.RunLink, Aliases: v.Aliases, ModelID: v.LoggedModel}
}

func versionsOut(list []registry.Version) []wire.ModelVersion {
	out := make([]wire.ModelVersion, len(list))
	for i, v := range list {
		out[i] = versionOut(v)
	}
	return out
}

func modelOut(m registry.Model) wire.RegisteredModel {
	out := wire.RegisteredModel{Name: m.Name, Created: ms(m.Created), Updated: ms(m.Updated), Description: m.Description, Latest: versionsOut(m.Latest), Tags: pairsOut(m.Tags)}
	for _, a := range m.Aliases {
		out.Aliases = append(out.Aliases, wire.Alias{Alias: a.Name, Version: itoa(a.Version)})
	}
	return out
}

func viewOf(e wire.Enum) (tracking.View, error) {
	switch e {
	case "", "ACTIVE_ONLY", "1":
		return tracking.ActiveOnly, nil
	case "DELETED_ONLY", "2":
		return tracking.DeletedOnly, nil
	case "ALL", "3":
		return tracking.All, nil
	}
	return 0, invalid("Invalid value %s for parameter 'view_type' supplied.", tracking.Quote(string(e)))
}

func experimentIDs(in []string) ([]int64, error) {
	out := make([]int64, len(in))
	for i, s := range in {
		id, err := tracking.ParseExperimentID(s)
		if err != nil {
			return nil, err
		}
		out[i] = id
	}
	return out, nil
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// clamp makes an int of a page size; what does not fit is as wrong as it was.
func clamp(n wire.Int) int { return int(min(max(n, -1), 1<<30)) }

// limit reads max_results: absent takes the endpoint's default (0); 0 and less are refused with the endpoint's words.
func limit(n *wire.Int, words string) (int, error) {
	if n == nil {
		return 0, nil
	}
	if *n <= 0 {
		return 0, invalid(words, *n)
	}
	return clamp(*n), nil
}

// MLflow's words for a page size that is none.
const (
	notPositive         = "Invalid value %d for parameter 'max_results' supplied. It must be a positive integer"
	notPositiveSentence = notPositive + "."
	notPositiveVersions = "Invalid value for max_results. It must be a positive integer, but got %d"
)

type empty struct{}

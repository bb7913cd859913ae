package wire

// Pair is a tag or a parameter.
type Pair struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Metric is a point. Pointers tell a missing field from zero.
type Metric struct {
	Key           string `json:"key"`
	Value         *Float `json:"value,omitempty"`
	Timestamp     *Int   `json:"timestamp,omitempty"`
	Step          Int    `json:"step"`
	ModelID       string `json:"model_id,omitempty"`
	DatasetName   string `json:"dataset_name,omitempty"`
	DatasetDigest string `json:"dataset_digest,omitempty"`
	RunID         string `json:"run_id,omitempty"`
}

// Experiment is MLflow's experiment.
type Experiment struct {
	ID               string `json:"experiment_id"`
	Name             string `json:"name"`
	ArtifactLocation string `json:"artifact_location"`
	LifecycleStage   string `json:"lifecycle_stage"`
	LastUpdateTime   int64  `json:"last_update_time,omitempty"`
	CreationTime     int64  `json:"creation_time,omitempty"`
	Tags             []Pair `json:"tags,omitempty"`
	Workspace        string `json:"workspace,omitempty"`
}

// RunInfo is the head of a run.
type RunInfo struct {
	RunUUID        string `json:"run_uuid"`
	ExperimentID   string `json:"experiment_id"`
	RunName        string `json:"run_name"`
	UserID         string `json:"user_id"`
	Status         string `json:"status"`
	StartTime      int64  `json:"start_time"`
	EndTime        *int64 `json:"end_time,omitempty"`
	ArtifactURI    string `json:"artifact_uri"`
	LifecycleStage string `json:"lifecycle_stage"`
	RunID          string `json:"run_id"`
}

// Run is a run with what it logged.
type Run struct {
	Info    RunInfo    `json:"info"`
	Data    RunData    `json:"data"`
	Inputs  RunInputs  `json:"inputs"`
	Outputs RunOutputs `json:"outputs"`
}

// RunData is metrics, parameters and tags.
type RunData struct {
	Metrics []Metric `json:"metrics,omitempty"`
	Params  []Pair   `json:"params,omitempty"`
	Tags    []Pair   `json:"tags,omitempty"`
}

// RunInputs is what a run read.
type RunInputs struct {
	Datasets []DatasetInput `json:"dataset_inputs,omitempty"`
	Models   []ModelInput   `json:"model_inputs,omitempty"`
}

// RunOutputs is what a run made.
type RunOutputs struct {
	Models []ModelOutput `json:"model_outputs,omitempty"`
}

// DatasetInput is a dataset in use.
type DatasetInput struct {
	Tags    []Pair  `json:"tags,omitempty"`
	Dataset Dataset `json:"dataset"`
}

// Dataset describes a dataset.
type Dataset struct {
	Name       string `json:"name"`
	Digest     string `json:"digest"`
	SourceType string `json:"source_type"`
	Source     string `json:"source"`
	Schema     string `json:"schema,omitempty"`
	Profile    string `json:"profile,omitempty"`
}

// ModelInput names a logged model that was read.
type ModelInput struct {
	ModelID string `json:"model_id"`
}

// ModelOutput names a logged model that was made.
type ModelOutput struct {
	ModelID string `json:"model_id"`
	Step    Int    `json:"step"`
}

// File is an artifact.
type File struct {
	Path     string `json:"path"`
	IsDir    bool   `json:"is_dir"`
	FileSize *int64 `json:"file_size,omitempty"`
}

// The requests, named after MLflow's messages.
type (
	CreateExperiment struct {
		Name             string `json:"name"`
		ArtifactLocation string `json:"artifact_location"`
		Tags             []Pair `json:"tags"`
	}
	ExperimentID struct {
		ID string `json:"experiment_id"`
	}
	ExperimentName struct {
		Name string `json:"experiment_name"`
	}
	UpdateExperiment struct {
		ID      string `json:"experiment_id"`
		NewName string `json:"new_name"`
	}
	ExperimentTag struct {
		ID    string `json:"experiment_id"`
		Key   string `json:"key"`
		Value string `json:"value"`
	}
	SearchExperiments struct {
		MaxResults Int      `json:"max_results"`
		PageToken  string   `json:"page_token"`
		Filter     string   `json:"filter"`
		OrderBy    []string `json:"order_by"`
		ViewType   Enum     `json:"view_type"`
	}
	CreateRun struct {
		ExperimentID string `json:"experiment_id"`
		UserID       string `json:"user_id"`
		RunName      string `json:"run_name"`
		StartTime    Int    `json:"start_time"`
		Tags         []Pair `json:"tags"`
	}
	UpdateRun struct {
		RunID   string  `json:"run_id"`
		RunUUID string  `json:"run_uuid"`
		Status  *Enum   `json:"status"`
		EndTime *Int    `json:"end_time"`
		RunName *string `json:"run_name"`
	}
	RunID struct {
		RunID   string `json:"run_id"`
		RunUUID string `json:"run_uuid"`
	}
	LogMetric struct {
		RunID         string `json:"run_id"`
		RunUUID       string `json:"run_uuid"`
		Key           string `json:"key"`
		Value         *Float `json:"value"`
		Timestamp     *Int   `json:"timestamp"`
		Step          Int    `json:"step"`
		ModelID       string `json:"model_id"`
		DatasetName   string `json:"dataset_name"`
		DatasetDigest string `json:"dataset_digest"`
	}
	RunPair struct {
		RunID   string `json:"run_id"`
		RunUUID string `json:"run_uuid"`
		Key     string `json:"key"`
		Value   string `json:"value"`
	}
	LogBatch struct {
		RunID   string  `json:"run_id"`
		Metrics Metrics `json:"metrics"`
		Params  []Pair  `json:"params"`
		Tags    []Pair  `json:"tags"`
	}
	LogInputs struct {
		RunID    string         `json:"run_id"`
		Datasets []DatasetInput `json:"datasets"`
		Models   []ModelInput   `json:"models"`
	}
	LogOutputs struct {
		RunID  string        `json:"run_id"`
		Models []ModelOutput `json:"models"`
	}
	LogModel struct {
		RunID     string `json:"run_id"`
		ModelJSON string `json:"model_json"`
	}
	SearchRuns struct {
		ExperimentIDs []string `json:"experiment_ids"`
		Filter        string   `json:"filter"`
		ViewType      Enum     `json:"run_view_type"`
		MaxResults    *Int     `json:"max_results"`
		OrderBy       []string `json:"order_by"`
		PageToken     string   `json:"page_token"`
	}
	GetHistory struct {
		RunID      string `json:"run_id"`
		RunUUID    string `json:"run_uuid"`
		MetricKey  string `json:"metric_key"`
		PageToken  string `json:"page_token"`
		MaxResults *Int   `json:"max_results"`
	}
	BulkInterval struct {
		RunIDs     []string `json:"run_ids"`
		MetricKey  string   `json:"metric_key"`
		StartStep  *Int     `json:"start_step"`
		EndStep    *Int     `json:"end_step"`
		MaxResults *Int     `json:"max_results"`
	}
	ListArtifacts struct {
		RunID   string `json:"run_id"`
		RunUUID string `json:"run_uuid"`
		Path    string `json:"path"`
	}
	PresignedURL struct {
		RunID   string `json:"run_id"`
		ModelID string `json:"model_id"`
		Path    string `json:"path"`
	}
)

// Complete says that nothing is missing that the rules ask for; then they need not be asked.
func (m *LogMetric) Complete() bool {
	return m.RunID != "" && m.Key != "" && m.Value != nil && m.Timestamp != nil
}

// Complete says that nothing is missing that the rules ask for; then they need not be asked.
func (b *LogBatch) Complete() bool {
	for _, m := range b.Metrics {
		if m.Key == "" || m.Value == nil || m.Timestamp == nil {
			return false
		}
	}
	for _, list := range [][]Pair{b.Params, b.Tags} {
		for _, p := range list {
			if p.Key == "" {
				return false
			}
		}
	}
	return b.RunID != ""
}

package wire

// LoggedModel is MLflow 3's logged model.
type LoggedModel struct {
	Info LoggedModelInfo `json:"info"`
	Data LoggedModelData `json:"data"`
}

// LoggedModelInfo is its head.
type LoggedModelInfo struct {
	ModelID       string `json:"model_id"`
	ExperimentID  string `json:"experiment_id"`
	Name          string `json:"name"`
	Created       int64  `json:"creation_timestamp_ms"`
	Updated       int64  `json:"last_updated_timestamp_ms"`
	ArtifactURI   string `json:"artifact_uri"`
	Status        string `json:"status"`
	ModelType     string `json:"model_type"`
	SourceRunID   string `json:"source_run_id,omitempty"`
	StatusMessage string `json:"status_message,omitempty"`
	Tags          []Pair `json:"tags,omitempty"`
}

// LoggedModelData is its parameters and metrics.
type LoggedModelData struct {
	Params  []Pair   `json:"params,omitempty"`
	Metrics []Metric `json:"metrics,omitempty"`
}

// RegisteredModel is MLflow's registered model.
type RegisteredModel struct {
	Name        string         `json:"name"`
	Created     int64          `json:"creation_timestamp"`
	Updated     int64          `json:"last_updated_timestamp"`
	UserID      string         `json:"user_id,omitempty"`
	Description string         `json:"description,omitempty"`
	Latest      []ModelVersion `json:"latest_versions,omitempty"`
	Tags        []Pair         `json:"tags,omitempty"`
	Aliases     []Alias        `json:"aliases,omitempty"`
}

// Alias is a pointer.
type Alias struct {
	Alias   string `json:"alias"`
	Version string `json:"version"`
}

// ModelVersion is MLflow's model version.
type ModelVersion struct {
	Name          string   `json:"name"`
	Version       string   `json:"version"`
	Created       int64    `json:"creation_timestamp"`
	Updated       int64    `json:"last_updated_timestamp"`
	UserID        string   `json:"user_id,omitempty"`
	CurrentStage  string   `json:"current_stage"`
	Description   string   `json:"description,omitempty"`
	Source        string   `json:"source,omitempty"`
	RunID         string   `json:"run_id,omitempty"`
	Status        string   `json:"status"`
	StatusMessage string   `json:"status_message,omitempty"`
	Tags          []Pair   `json:"tags,omitempty"`
	RunLink       string   `json:"run_link"`
	Aliases       []string `json:"aliases,omitempty"`
	ModelID       string   `json:"model_id,omitempty"`
}

// Credential is where one part of an upload goes.
type Credential struct {
	URL        string            `json:"url"`
	PartNumber int               `json:"part_number"`
	Headers    map[string]string `json:"headers"`
}

// The requests, named after MLflow's messages.
type (
	CreateLoggedModel struct {
		ExperimentID string `json:"experiment_id"`
		Name         string `json:"name"`
		ModelType    string `json:"model_type"`
		SourceRunID  string `json:"source_run_id"`
		Params       []Pair `json:"params"`
		Tags         []Pair `json:"tags"`
	}
	FinalizeLoggedModel struct {
		ModelID string `json:"model_id"`
		Status  Enum   `json:"status"`
	}
	LoggedModelParams struct {
		ModelID string `json:"model_id"`
		Params  []Pair `json:"params"`
	}
	LoggedModelTags struct {
		Tags []Pair `json:"tags"`
	}
	SearchLoggedModels struct {
		ExperimentIDs []string             `json:"experiment_ids"`
		Filter        string               `json:"filter"`
		Datasets      []LoggedModelDataset `json:"datasets"`
		MaxResults    Int                  `json:"max_results"`
		OrderBy       []LoggedModelOrder   `json:"order_by"`
		PageToken     string               `json:"page_token"`
	}
	LoggedModelDataset struct {
		Name   string `json:"dataset_name"`
		Digest string `json:"dataset_digest"`
	}
	LoggedModelOrder struct {
		Field         string `json:"field_name"`
		Ascending     *bool  `json:"ascending"`
		DatasetName   string `json:"dataset_name"`
		DatasetDigest string `json:"dataset_digest"`
	}
	Directory struct {
		Path string `json:"artifact_directory_path"`
	}
	CreateModel struct {
		Name        string `json:"name"`
		Tags        []Pair `json:"tags"`
		Description string `json:"description"`
	}
	ModelName struct {
		Name string `json:"name"`
	}
	UpdateModel struct {
		Name        string `json:"name"`
		Description string `json:"description"`
	}
	RenameModel struct {
		Name    string `json:"name"`
		NewName string `json:"new_name"`
	}
	Search struct {
		Filter     string   `json:"filter"`
		MaxResults *Int     `json:"max_results"`
		OrderBy    []string `json:"order_by"`
		PageToken  string   `json:"page_token"`
	}
	LatestVersions struct {
		Name   string   `json:"name"`
		Stages []string `json:"stages"`
	}
	ModelTag struct {
		Name  string `json:"name"`
		Key   string `json:"key"`
		Value string `json:"value"`
	}
	ModelAlias struct {
		Name    string `json:"name"`
		Alias   string `json:"alias"`
		Version string `json:"version"`
	}
	CreateVersion struct {
		Name        string  `json:"name"`
		Source      string  `json:"source"`
		RunID       *string `json:"run_id"`
		Tags        []Pair  `json:"tags"`
		RunLink     string  `json:"run_link"`
		Description string  `json:"description"`
		ModelID     *string `json:"model_id"`
	}
	Version struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	}
	UpdateVersion struct {
		Name        string  `json:"name"`
		Version     string  `json:"version"`
		Description *string `json:"description"`
	}
	Transition struct {
		Name    string `json:"name"`
		Version string `json:"version"`
		Stage   string `json:"stage"`
		Archive bool   `json:"archive_existing_versions"`
	}
	VersionTag struct {
		Name    string `json:"name"`
		Version string `json:"version"`
		Key     string `json:"key"`
		Value   string `json:"value"`
	}
	CreateUpload struct {
		Path     string `json:"path"`
		NumParts Int    `json:"num_parts"`
	}
	CompleteUpload struct {
		Path     string       `json:"path"`
		UploadID string       `json:"upload_id"`
		Parts    []UploadPart `json:"parts"`
	}
	UploadPart struct {
		Number Int    `json:"part_number"`
		ETag   string `json:"etag"`
	}
)

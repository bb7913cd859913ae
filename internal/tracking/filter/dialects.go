package filter

// Runs is the dialect of runs/search.
func Runs() Dialect {
	attributes := []string{"artifact_uri", "end_time", "run_id", "run_name", "start_time", "status", "user_id"}
	return Dialect{
		Entities: map[string]Entity{
			"metric": Metric, "metrics": Metric,
			"parameter": Param, "parameters": Param, "param": Param, "params": Param,
			"tag": Tag, "tags": Tag,
			"attribute": Attribute, "attributes": Attribute, "attr": Attribute, "run": Attribute,
			"dataset": Dataset, "datasets": Dataset,
		},
		EntityText: "Valid values are ['metric', 'parameter', 'tag', 'attribute', 'dataset']",
		Attributes: attributes,
		Orderable:  append([]string{"experiment_id", "lifecycle_stage"}, attributes...),
		Numeric:    []string{"end_time", "start_time"},
		Lists:      []string{"run_id"},
		TagNull:    []Entity{Tag, Param},
		Aliases:    map[string]string{"created": "start_time", "Created": "start_time", "run name": "run_name", "Run name": "run_name", "Run Name": "run_name"},
		BareEntities: []Entity{
			Metric, Param, Tag,
		},
	}
}

// Experiments is the dialect of experiments/search.
func Experiments() Dialect {
	keys := []string{"creation_time", "experiment_id", "last_update_time", "name"}
	return Dialect{
		Entities:   map[string]Entity{"attribute": Attribute, "tag": Tag, "tags": Tag},
		EntityText: "Valid entity types are ('attribute', 'tag', 'tags')",
		Attributes: keys,
		Orderable:  keys,
		Numeric:    []string{"creation_time", "last_update_time"},
		Lists:      []string{"experiment_id"},
		TagNull:    []Entity{Tag},
	}
}

// Models is the dialect of registered-models/search.
func Models() Dialect {
	return Dialect{
		Entities:   map[string]Entity{"attribute": Attribute, "tag": Tag, "tags": Tag},
		EntityText: "Valid entity types are ('attribute', 'tag', 'tags')",
		Attributes: []string{"name"},
		Orderable:  []string{"last_updated_timestamp", "name", "timestamp"},
		Lists:      []string{"name"},
	}
}

// ModelVersions is the dialect of model-versions/search.
func ModelVersions() Dialect {
	return Dialect{
		Entities:     map[string]Entity{"attribute": Attribute, "tag": Tag, "tags": Tag},
		EntityText:   "Valid entity types are ('attribute', 'tag', 'tags')",
		Attributes:   []string{"name", "run_id", "source_path", "version_number"},
		Orderable:    []string{"creation_timestamp", "last_updated_timestamp", "name", "version_number"},
		Numeric:      []string{"version_number"},
		Lists:        []string{"name", "run_id"},
		MixedNumeric: true,
	}
}

// LoggedModels is the dialect of logged-models/search.
func LoggedModels() Dialect {
	keys := []string{"creation_timestamp_ms", "experiment_id", "last_updated_timestamp_ms", "model_id", "model_type", "name", "source_run_id", "status"}
	return Dialect{
		Entities:   map[string]Entity{"metrics": Metric, "params": Param, "tags": Tag, "attributes": Attribute},
		EntityText: "Expected one of ['attributes', 'metrics', 'params', 'tags'].",
		Attributes: keys,
		Orderable:  keys,
		Numeric:    []string{"creation_timestamp_ms", "last_updated_timestamp_ms"},
		Lists:      keys,
		Aliases:    map[string]string{"creation_time": "creation_timestamp_ms", "creation_timestamp": "creation_timestamp_ms", "last_updated_timestamp": "last_updated_timestamp_ms"},
		BareEntities: []Entity{
			Metric,
		},
	}
}

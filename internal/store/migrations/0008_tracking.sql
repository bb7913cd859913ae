-- Experiments, runs and what they logged. *_at are microseconds UTC set by the server; *_ms are MLflow's milliseconds, kept as sent.
CREATE TABLE experiments (
  id BIGINT PRIMARY KEY,
  project TEXT NOT NULL,
  name TEXT NOT NULL,
  artifact_location TEXT NOT NULL,
  stage TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  UNIQUE (project, name)
);
INSERT INTO experiments (id, project, name, artifact_location, stage, created_at, updated_at) VALUES (0, 'default', 'Default', 'mlflow-artifacts:/0', 'active', 0, 0);
CREATE TABLE experiment_tags (
  experiment BIGINT NOT NULL,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (experiment, key)
);
CREATE TABLE runs (
  id BIGINT PRIMARY KEY,
  uuid TEXT NOT NULL UNIQUE,
  project TEXT NOT NULL,
  experiment BIGINT NOT NULL,
  name TEXT NOT NULL,
  user_id TEXT NOT NULL,
  status TEXT NOT NULL,
  start_ms BIGINT NOT NULL,
  end_ms BIGINT,
  stage TEXT NOT NULL,
  artifact_uri TEXT NOT NULL,
  parent TEXT NOT NULL,
  created_by TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  deleted_at BIGINT
);
-- The default order of a search, so that a page of the newest runs reads no more than it shows.
CREATE INDEX runs_experiment ON runs (experiment, stage, start_ms DESC, uuid, id);
CREATE TABLE run_params (
  run BIGINT NOT NULL,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (run, key)
);
CREATE TABLE run_tags (
  run BIGINT NOT NULL,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (run, key)
);
CREATE TABLE metric_keys (
  id BIGINT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
);
-- The newest value of each metric. value is a finite number; flag says what it stands for: 0 itself, 1 NaN, 2 +infinity, 3 -infinity.
-- chunk is the number of the newest row in metric_chunks.
CREATE TABLE metric_latest (
  run BIGINT NOT NULL,
  key BIGINT NOT NULL,
  step BIGINT NOT NULL,
  ts_ms BIGINT NOT NULL,
  value DOUBLE PRECISION NOT NULL,
  flag BIGINT NOT NULL,
  chunk BIGINT NOT NULL,
  PRIMARY KEY (run, key)
);
-- The history, packed: data is a format byte and the points of one write, or of many writes folded together.
CREATE TABLE metric_chunks (
  run BIGINT NOT NULL,
  key BIGINT NOT NULL,
  chunk BIGINT NOT NULL,
  data BYTEA NOT NULL,
  PRIMARY KEY (run, key, chunk)
);
CREATE TABLE input_datasets (
  id BIGINT PRIMARY KEY,
  experiment BIGINT NOT NULL,
  name TEXT NOT NULL,
  digest TEXT NOT NULL,
  source_type TEXT NOT NULL,
  source TEXT NOT NULL,
  columns_schema TEXT NOT NULL,
  profile TEXT NOT NULL,
  UNIQUE (experiment, name, digest)
);
CREATE TABLE run_inputs (
  run BIGINT NOT NULL,
  dataset BIGINT NOT NULL,
  context TEXT,
  tags TEXT NOT NULL,
  PRIMARY KEY (run, dataset)
);
CREATE TABLE run_models (
  run BIGINT NOT NULL,
  direction TEXT NOT NULL,
  model TEXT NOT NULL,
  step BIGINT NOT NULL,
  PRIMARY KEY (run, direction, model, step)
);
CREATE TABLE logged_models (
  id TEXT PRIMARY KEY,
  project TEXT NOT NULL,
  experiment BIGINT NOT NULL,
  name TEXT NOT NULL,
  model_type TEXT NOT NULL,
  source_run TEXT NOT NULL,
  status BIGINT NOT NULL,
  status_message TEXT NOT NULL,
  stage TEXT NOT NULL,
  artifact_uri TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL
);
CREATE INDEX logged_models_experiment ON logged_models (experiment, created_at);
CREATE TABLE logged_model_params (
  model TEXT NOT NULL,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (model, key)
);
CREATE TABLE logged_model_tags (
  model TEXT NOT NULL,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (model, key)
);
CREATE TABLE logged_model_metrics (
  model TEXT NOT NULL,
  key TEXT NOT NULL,
  step BIGINT NOT NULL,
  ts_ms BIGINT NOT NULL,
  run TEXT NOT NULL,
  value DOUBLE PRECISION NOT NULL,
  flag BIGINT NOT NULL,
  dataset_name TEXT NOT NULL,
  dataset_digest TEXT NOT NULL,
  PRIMARY KEY (model, key, step, ts_ms, run, dataset_name, dataset_digest)
);
-- What lies in artifact roots: bytes are in blobs. root is 'runs/RUN' or 'models/MODEL', or '' for other places of the proxy.
CREATE TABLE artifact_files (
  project TEXT NOT NULL,
  root TEXT NOT NULL,
  path TEXT NOT NULL,
  digest TEXT NOT NULL,
  size BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  PRIMARY KEY (project, root, path)
);
CREATE TABLE artifact_uploads (
  id TEXT PRIMARY KEY,
  project TEXT NOT NULL,
  root TEXT NOT NULL,
  path TEXT NOT NULL,
  token_digest TEXT NOT NULL,
  created_at BIGINT NOT NULL
);
CREATE TABLE artifact_parts (
  upload TEXT NOT NULL,
  part BIGINT NOT NULL,
  digest TEXT NOT NULL,
  size BIGINT NOT NULL,
  PRIMARY KEY (upload, part)
);

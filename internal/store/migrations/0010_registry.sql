-- Registered models, their versions, pointers with history, and releases. *_at are microseconds UTC.
-- A deleted model or version keeps its row: releases and the history of pointers refer to it.
CREATE TABLE models (
  id BIGINT PRIMARY KEY,
  project TEXT NOT NULL,
  name TEXT NOT NULL,
  description TEXT NOT NULL,
  last_version BIGINT NOT NULL,
  created_by TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  deleted_at BIGINT
);
CREATE UNIQUE INDEX models_name ON models (project, name) WHERE deleted_at IS NULL;
CREATE TABLE model_tags (
  model BIGINT NOT NULL,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (model, key)
);
-- stage is MLflow's old word for a version: None, Staging, Production, Archived. release is the digest of its manifest, '' before.
CREATE TABLE model_versions (
  model BIGINT NOT NULL,
  version BIGINT NOT NULL,
  description TEXT NOT NULL,
  source TEXT NOT NULL,
  storage TEXT NOT NULL,
  run TEXT NOT NULL,
  run_link TEXT NOT NULL,
  logged_model TEXT NOT NULL,
  stage TEXT NOT NULL,
  release TEXT NOT NULL,
  created_by TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  deleted_at BIGINT,
  PRIMARY KEY (model, version)
);
CREATE INDEX model_versions_run ON model_versions (run);
CREATE TABLE model_version_tags (
  model BIGINT NOT NULL,
  version BIGINT NOT NULL,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (model, version, key)
);
CREATE TABLE model_aliases (
  model BIGINT NOT NULL,
  alias TEXT NOT NULL,
  version BIGINT NOT NULL,
  PRIMARY KEY (model, alias)
);
-- Every move of an alias ('alias') or a stage ('stage'): from and to are versions, 0 for none. change is the id of the change record, '' for none.
CREATE TABLE model_pointer_moves (
  id BIGINT PRIMARY KEY,
  model BIGINT NOT NULL,
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  from_version BIGINT NOT NULL,
  to_version BIGINT NOT NULL,
  actor TEXT NOT NULL,
  change TEXT NOT NULL,
  moved_at BIGINT NOT NULL
);
CREATE INDEX model_pointer_moves_name ON model_pointer_moves (model, kind, name, id);
CREATE TABLE releases (
  project TEXT NOT NULL,
  digest TEXT NOT NULL,
  model BIGINT NOT NULL,
  version BIGINT NOT NULL,
  manifest TEXT NOT NULL,
  created_by TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (project, digest),
  UNIQUE (model, version)
);

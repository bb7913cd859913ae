-- What was applied, what ran, and what a step's inputs gave before.
CREATE TABLE project_applies (
  project TEXT NOT NULL,
  seq BIGINT NOT NULL,
  at BIGINT NOT NULL,
  actor TEXT NOT NULL,
  digest TEXT NOT NULL,
  bundle TEXT NOT NULL,
  PRIMARY KEY (project, seq)
);
CREATE TABLE pipeline_runs (
  id TEXT PRIMARY KEY,
  project TEXT NOT NULL,
  seq BIGINT NOT NULL,
  pipeline TEXT NOT NULL,
  state TEXT NOT NULL,
  actor TEXT NOT NULL,
  model TEXT NOT NULL,
  reason TEXT NOT NULL,
  request TEXT NOT NULL,
  apply_seq BIGINT NOT NULL,
  error TEXT NOT NULL,
  resumed_from TEXT NOT NULL,
  created BIGINT NOT NULL,
  started BIGINT NOT NULL,
  ended BIGINT NOT NULL
);
CREATE INDEX pipeline_runs_project ON pipeline_runs (project, seq);
CREATE TABLE pipeline_steps (
  run TEXT NOT NULL,
  idx BIGINT NOT NULL,
  name TEXT NOT NULL,
  kind TEXT NOT NULL,
  state TEXT NOT NULL,
  needs TEXT NOT NULL,
  cache_hit BOOLEAN NOT NULL,
  cache_key TEXT NOT NULL,
  cache_reason TEXT NOT NULL,
  started BIGINT NOT NULL,
  ended BIGINT NOT NULL,
  attempt BIGINT NOT NULL,
  inputs TEXT NOT NULL,
  outputs TEXT NOT NULL,
  log TEXT NOT NULL,
  log_cut BOOLEAN NOT NULL,
  error TEXT NOT NULL,
  PRIMARY KEY (run, name)
);
CREATE TABLE step_cache (
  project TEXT NOT NULL,
  step TEXT NOT NULL,
  cache_key TEXT NOT NULL,
  seq BIGINT NOT NULL,
  inputs TEXT NOT NULL,
  result TEXT NOT NULL,
  run TEXT NOT NULL,
  at BIGINT NOT NULL,
  PRIMARY KEY (project, step, cache_key)
);
CREATE INDEX step_cache_step ON step_cache (project, step, seq);
CREATE TABLE trained (
  project TEXT NOT NULL,
  release TEXT NOT NULL,
  model TEXT NOT NULL,
  version BIGINT NOT NULL,
  run TEXT NOT NULL,
  pipeline TEXT NOT NULL,
  apply_seq BIGINT NOT NULL,
  doc TEXT NOT NULL,
  PRIMARY KEY (project, release)
);
CREATE INDEX trained_model ON trained (project, model, version);
CREATE TABLE triggers (
  project TEXT NOT NULL,
  model TEXT NOT NULL,
  name TEXT NOT NULL,
  last BIGINT NOT NULL,
  PRIMARY KEY (project, model, name)
);

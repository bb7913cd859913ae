-- What is watched: one monitor for a model in an environment, with its digest in the ledger.
CREATE TABLE monitors (
  project TEXT NOT NULL,
  model TEXT NOT NULL,
  environment TEXT NOT NULL,
  document TEXT NOT NULL,
  created BIGINT NOT NULL,
  PRIMARY KEY (project, model, environment)
);
-- Spool files whose predictions are in segments: such a file is deleted, never read again.
CREATE TABLE prediction_spools (
  spool TEXT PRIMARY KEY,
  created BIGINT NOT NULL
);
-- One row for some ten thousand predictions, which lie sealed in a blob. bloom finds ids, rollup holds counts and
-- latencies by hour of event time; neither holds content.
CREATE TABLE prediction_segments (
  id TEXT PRIMARY KEY,
  project TEXT NOT NULL,
  model TEXT NOT NULL,
  environment TEXT NOT NULL,
  from_at BIGINT NOT NULL,
  to_at BIGINT NOT NULL,
  row_count BIGINT NOT NULL,
  digest TEXT NOT NULL,
  bloom BYTEA NOT NULL,
  rollup BYTEA NOT NULL,
  spool TEXT NOT NULL,
  created BIGINT NOT NULL
);
CREATE INDEX prediction_segments_at ON prediction_segments (project, model, environment, from_at);
CREATE TABLE label_batches (
  id TEXT PRIMARY KEY,
  project TEXT NOT NULL,
  model TEXT NOT NULL,
  known_from BIGINT NOT NULL,
  known_to BIGINT NOT NULL,
  row_count BIGINT NOT NULL,
  digest TEXT NOT NULL,
  sealed BYTEA NOT NULL,
  created BIGINT NOT NULL
);
CREATE INDEX label_batches_known ON label_batches (project, model, known_to);
-- How far event time has come: kind is event (predictions) or label. Model '' is the whole project, set by a replay.
CREATE TABLE watermarks (
  project TEXT NOT NULL,
  model TEXT NOT NULL,
  kind TEXT NOT NULL,
  at BIGINT NOT NULL,
  PRIMARY KEY (project, model, kind)
);
CREATE TABLE drift_references (
  project TEXT NOT NULL,
  release_digest TEXT NOT NULL,
  document TEXT NOT NULL,
  created BIGINT NOT NULL,
  PRIMARY KEY (project, release_digest)
);
-- Evaluated windows of event time: kind is quality or drift.
CREATE TABLE monitor_windows (
  project TEXT NOT NULL,
  model TEXT NOT NULL,
  environment TEXT NOT NULL,
  kind TEXT NOT NULL,
  from_at BIGINT NOT NULL,
  to_at BIGINT NOT NULL,
  verdict TEXT NOT NULL,
  document TEXT NOT NULL,
  created BIGINT NOT NULL,
  PRIMARY KEY (project, model, environment, kind, from_at)
);
CREATE TABLE alerts (
  id TEXT PRIMARY KEY,
  project TEXT NOT NULL,
  model TEXT NOT NULL,
  environment TEXT NOT NULL,
  kind TEXT NOT NULL,
  from_at BIGINT NOT NULL,
  to_at BIGINT NOT NULL,
  at BIGINT NOT NULL,
  state TEXT NOT NULL,
  document TEXT NOT NULL,
  created BIGINT NOT NULL,
  changed BIGINT NOT NULL,
  UNIQUE (project, model, environment, kind, from_at)
);

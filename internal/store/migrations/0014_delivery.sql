-- Environments, gates, changes with their evidence, and pointers that keep their history.
CREATE TABLE delivery_models (
  project TEXT NOT NULL,
  model TEXT NOT NULL,
  environments TEXT NOT NULL,
  gates TEXT NOT NULL,
  rollout TEXT NOT NULL,
  PRIMARY KEY (project, model)
);
CREATE TABLE pointers (
  project TEXT NOT NULL,
  model TEXT NOT NULL,
  environment TEXT NOT NULL,
  role TEXT NOT NULL,
  version BIGINT NOT NULL,
  release TEXT NOT NULL,
  weight BIGINT NOT NULL,
  since BIGINT NOT NULL,
  event_at BIGINT NOT NULL,
  actor TEXT NOT NULL,
  change_id TEXT NOT NULL,
  PRIMARY KEY (project, model, environment, role)
);
CREATE TABLE pointer_history (
  seq BIGINT PRIMARY KEY,
  project TEXT NOT NULL,
  model TEXT NOT NULL,
  environment TEXT NOT NULL,
  at BIGINT NOT NULL,
  event_at BIGINT NOT NULL,
  actor TEXT NOT NULL,
  kind TEXT NOT NULL,
  from_version BIGINT NOT NULL,
  from_release TEXT NOT NULL,
  to_version BIGINT NOT NULL,
  to_release TEXT NOT NULL,
  change_id TEXT NOT NULL,
  reason TEXT NOT NULL
);
CREATE INDEX pointer_history_model ON pointer_history (project, model, seq);
CREATE TABLE changes (
  id TEXT PRIMARY KEY,
  project TEXT NOT NULL,
  seq BIGINT NOT NULL,
  kind TEXT NOT NULL,
  verb TEXT NOT NULL,
  state TEXT NOT NULL,
  requester TEXT NOT NULL,
  author TEXT NOT NULL,
  model TEXT NOT NULL,
  environment TEXT NOT NULL,
  from_version BIGINT NOT NULL,
  from_release TEXT NOT NULL,
  to_version BIGINT NOT NULL,
  to_release TEXT NOT NULL,
  reason TEXT NOT NULL,
  note TEXT NOT NULL,
  gates TEXT NOT NULL,
  rollout TEXT NOT NULL,
  pipeline TEXT NOT NULL,
  created BIGINT NOT NULL,
  updated BIGINT NOT NULL
);
CREATE INDEX changes_project ON changes (project, seq);
CREATE INDEX changes_model ON changes (project, model, environment, state);
CREATE TABLE change_evidence (
  change_id TEXT NOT NULL,
  idx BIGINT NOT NULL,
  verdict TEXT NOT NULL,
  evidence TEXT NOT NULL,
  digest TEXT NOT NULL,
  PRIMARY KEY (change_id, idx)
);
CREATE TABLE change_approvals (
  change_id TEXT NOT NULL,
  actor TEXT NOT NULL,
  decision TEXT NOT NULL,
  comment TEXT NOT NULL,
  at BIGINT NOT NULL,
  PRIMARY KEY (change_id, actor)
);
CREATE TABLE change_events (
  change_id TEXT NOT NULL,
  seq BIGINT NOT NULL,
  at BIGINT NOT NULL,
  actor TEXT NOT NULL,
  type TEXT NOT NULL,
  note TEXT NOT NULL,
  PRIMARY KEY (change_id, seq)
);
CREATE TABLE change_keys (
  project TEXT NOT NULL,
  idem TEXT NOT NULL,
  change_id TEXT NOT NULL,
  PRIMARY KEY (project, idem)
);

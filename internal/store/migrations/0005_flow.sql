-- Where each subscriber of the outbox stands, what it could not take, and the webhooks.
CREATE TABLE outbox_cursors (
  name TEXT PRIMARY KEY,
  seq BIGINT NOT NULL,
  updated BIGINT NOT NULL
);
CREATE TABLE outbox_parked (
  name TEXT NOT NULL,
  seq BIGINT NOT NULL,
  event TEXT NOT NULL,
  type TEXT NOT NULL,
  reason TEXT NOT NULL,
  tries BIGINT NOT NULL,
  at BIGINT NOT NULL,
  PRIMARY KEY (name, seq)
);
CREATE TABLE webhooks (
  id TEXT PRIMARY KEY,
  project TEXT NOT NULL,
  url TEXT NOT NULL,
  types TEXT NOT NULL,
  secret BYTEA NOT NULL,
  created BIGINT NOT NULL,
  actor TEXT NOT NULL,
  region TEXT NOT NULL
);
CREATE INDEX webhooks_project ON webhooks (project, id);

-- Definitions are immutable under their digest; the highest version is the current one.
CREATE TABLE feature_views (
  project TEXT NOT NULL,
  name TEXT NOT NULL,
  version BIGINT NOT NULL,
  digest TEXT NOT NULL,
  document TEXT NOT NULL,
  created BIGINT NOT NULL,
  PRIMARY KEY (project, name, version)
);
CREATE INDEX feature_views_digest ON feature_views (project, name, digest);
CREATE TABLE feature_services (
  project TEXT NOT NULL,
  name TEXT NOT NULL,
  version BIGINT NOT NULL,
  digest TEXT NOT NULL,
  document TEXT NOT NULL,
  created BIGINT NOT NULL,
  PRIMARY KEY (project, name, version)
);
CREATE INDEX feature_services_digest ON feature_services (project, name, digest);
-- What was put online: key is the caller's idempotency key, pins the dataset versions read.
CREATE TABLE feature_materializations (
  project TEXT NOT NULL,
  view TEXT NOT NULL,
  key TEXT NOT NULL,
  digest TEXT NOT NULL,
  from_at BIGINT NOT NULL,
  to_at BIGINT NOT NULL,
  row_count BIGINT NOT NULL,
  pins TEXT NOT NULL,
  created BIGINT NOT NULL,
  PRIMARY KEY (project, view, key)
);

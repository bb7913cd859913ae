-- Datasets: the current definition of each, with the generation that rises when its content must be made anew.
CREATE TABLE datasets (
  project TEXT NOT NULL,
  name TEXT NOT NULL,
  digest TEXT NOT NULL,
  generation BIGINT NOT NULL,
  document TEXT NOT NULL,
  created BIGINT NOT NULL,
  updated BIGINT NOT NULL,
  PRIMARY KEY (project, name)
);
-- Source files by name; the bytes are blobs.
CREATE TABLE dataset_sources (
  project TEXT NOT NULL,
  dataset TEXT NOT NULL,
  name TEXT NOT NULL,
  digest TEXT NOT NULL,
  size BIGINT NOT NULL,
  added BIGINT NOT NULL,
  PRIMARY KEY (project, dataset, name)
);
-- What became of each source file in each generation: accepted into version n, or refused.
CREATE TABLE dataset_ingests (
  project TEXT NOT NULL,
  dataset TEXT NOT NULL,
  generation BIGINT NOT NULL,
  name TEXT NOT NULL,
  digest TEXT NOT NULL,
  state TEXT NOT NULL,
  version BIGINT NOT NULL,
  PRIMARY KEY (project, dataset, generation, name, digest)
);
-- Immutable versions. A snapshot of the table format exists for everybody else only through its row here.
CREATE TABLE dataset_versions (
  id TEXT NOT NULL PRIMARY KEY,
  project TEXT NOT NULL,
  dataset TEXT NOT NULL,
  n BIGINT NOT NULL,
  generation BIGINT NOT NULL,
  digest TEXT NOT NULL,
  request_key TEXT NOT NULL,
  snapshot BIGINT NOT NULL,
  document TEXT NOT NULL,
  profile TEXT NOT NULL,
  created BIGINT NOT NULL,
  created_by TEXT NOT NULL
);
CREATE UNIQUE INDEX dataset_versions_n ON dataset_versions (project, dataset, n);
CREATE UNIQUE INDEX dataset_versions_key ON dataset_versions (project, dataset, request_key);
-- Rows and files put aside; the rows are an encrypted blob.
CREATE TABLE dataset_quarantines (
  id TEXT NOT NULL PRIMARY KEY,
  project TEXT NOT NULL,
  dataset TEXT NOT NULL,
  generation BIGINT NOT NULL,
  source TEXT NOT NULL,
  source_digest TEXT NOT NULL,
  whole BOOLEAN NOT NULL,
  rows_digest TEXT NOT NULL,
  document TEXT NOT NULL,
  created BIGINT NOT NULL,
  created_by TEXT NOT NULL
);
CREATE UNIQUE INDEX dataset_quarantines_source ON dataset_quarantines (project, dataset, generation, source, source_digest);
-- Files of the table format by logical path, and what the stage itself keeps.
CREATE TABLE warehouse_files (
  project TEXT NOT NULL,
  path TEXT NOT NULL,
  digest TEXT NOT NULL,
  created BIGINT NOT NULL,
  PRIMARY KEY (project, path)
);
CREATE TABLE warehouse (
  name TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
);
-- Data files put as blobs on the way to a version; a version's row ends the wait, the sweep removes what never arrived.
CREATE TABLE dataset_pending (
  project TEXT NOT NULL,
  digest TEXT NOT NULL,
  created BIGINT NOT NULL,
  PRIMARY KEY (project, digest)
);

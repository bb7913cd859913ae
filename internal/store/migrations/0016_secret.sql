-- Secrets of a project: which version of a name was set by whom and when. Only the newest version keeps its value, sealed
-- under the project's data key and bound to project, name and version; removed is when the name was taken away.
CREATE TABLE secrets (
  project TEXT NOT NULL,
  name TEXT NOT NULL,
  version BIGINT NOT NULL,
  sealed BYTEA,
  actor TEXT NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT NOT NULL,
  PRIMARY KEY (project, name, version)
);

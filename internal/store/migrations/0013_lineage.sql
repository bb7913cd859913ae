-- What came from what: nodes of all stages and the edges between them, downstream direction.
CREATE TABLE lineage_nodes (
  project TEXT NOT NULL,
  id TEXT NOT NULL,
  kind TEXT NOT NULL,
  label TEXT NOT NULL,
  at BIGINT NOT NULL,
  PRIMARY KEY (project, id)
);
CREATE INDEX lineage_nodes_at ON lineage_nodes (project, at);
CREATE TABLE lineage_edges (
  project TEXT NOT NULL,
  from_id TEXT NOT NULL,
  to_id TEXT NOT NULL,
  role TEXT NOT NULL,
  PRIMARY KEY (project, from_id, to_id, role)
);
CREATE INDEX lineage_edges_to ON lineage_edges (project, to_id);

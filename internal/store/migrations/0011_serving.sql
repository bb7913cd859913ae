-- Endpoints: which releases answer for a model in an environment, and with what share of the traffic.
-- change_id and change_weight name the move of delivery that asked for it; announced is the last generation and move that
-- serving.activated told of. An endpoint without variants was removed; its row stays so that generations never repeat.
CREATE TABLE endpoints (
  project TEXT NOT NULL,
  model TEXT NOT NULL,
  environment TEXT NOT NULL,
  generation BIGINT NOT NULL,
  configured_at BIGINT NOT NULL,
  change_id TEXT NOT NULL,
  change_weight BIGINT NOT NULL,
  announced TEXT NOT NULL,
  PRIMARY KEY (project, model, environment)
);
CREATE TABLE endpoint_variants (
  project TEXT NOT NULL,
  model TEXT NOT NULL,
  environment TEXT NOT NULL,
  name TEXT NOT NULL,
  role TEXT NOT NULL,
  weight BIGINT NOT NULL,
  release_digest TEXT NOT NULL,
  PRIMARY KEY (project, model, environment, name)
);
CREATE INDEX endpoint_variants_release ON endpoint_variants (project, release_digest);

-- Projects, people, tokens and roles. Secrets are kept only as keyed hashes.
CREATE TABLE projects (
  name TEXT PRIMARY KEY,
  description TEXT NOT NULL,
  regions TEXT NOT NULL,
  created BIGINT NOT NULL
);
INSERT INTO projects (name, description, regions, created) VALUES ('default', 'The project of clients that name none.', '[]', 0);
CREATE TABLE users (
  name TEXT PRIMARY KEY,
  full_name TEXT NOT NULL,
  password TEXT NOT NULL,
  disabled BOOLEAN NOT NULL,
  created BIGINT NOT NULL
);
CREATE TABLE group_members (
  grp TEXT NOT NULL,
  member TEXT NOT NULL,
  PRIMARY KEY (grp, member)
);
CREATE INDEX group_members_member ON group_members (member);
CREATE TABLE bindings (
  project TEXT NOT NULL,
  role TEXT NOT NULL,
  principal TEXT NOT NULL,
  PRIMARY KEY (project, role, principal)
);
CREATE TABLE tokens (
  id TEXT PRIMARY KEY,
  hash BYTEA NOT NULL UNIQUE,
  principal TEXT NOT NULL,
  name TEXT NOT NULL,
  project TEXT NOT NULL,
  role TEXT NOT NULL,
  run TEXT NOT NULL,
  created BIGINT NOT NULL,
  expires BIGINT NOT NULL,
  revoked BIGINT NOT NULL
);
CREATE INDEX tokens_run ON tokens (run);
CREATE TABLE sessions (
  hash BYTEA PRIMARY KEY,
  username TEXT NOT NULL,
  created BIGINT NOT NULL,
  expires BIGINT NOT NULL
);
CREATE TABLE setup_links (
  hash BYTEA PRIMARY KEY,
  expires BIGINT NOT NULL,
  used BIGINT NOT NULL
);

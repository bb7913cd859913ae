-- Content-addressed bytes. project_keys holds each project's data key, wrapped by the local keyset,
-- blobs says what exists and where, with the object's key wrapped under the project's, bound to project and digest.
CREATE TABLE project_keys (
	project TEXT NOT NULL PRIMARY KEY,
	wrapped BYTEA NOT NULL,
	created BIGINT NOT NULL
);
CREATE TABLE blobs (
	project TEXT NOT NULL,
	digest TEXT NOT NULL,
	stored TEXT NOT NULL,
	size BIGINT NOT NULL,
	wrapped_key BYTEA NOT NULL,
	created BIGINT NOT NULL,
	PRIMARY KEY (project, digest)
);
CREATE UNIQUE INDEX blobs_stored ON blobs (stored);

-- Launches of training commands. argv, params, data, limits, artifacts and guards are JSON; times are microseconds UTC.
CREATE TABLE trainings (
	id TEXT NOT NULL PRIMARY KEY,
	project TEXT NOT NULL,
	run TEXT NOT NULL,
	work_key TEXT NOT NULL,
	argv TEXT NOT NULL,
	code TEXT NOT NULL,
	commit_id TEXT NOT NULL,
	dirty BOOLEAN NOT NULL,
	runtime TEXT NOT NULL,
	params TEXT NOT NULL,
	data TEXT NOT NULL,
	limits TEXT NOT NULL,
	started BIGINT NOT NULL,
	ended BIGINT NOT NULL,
	outcome TEXT NOT NULL,
	exit_code BIGINT NOT NULL,
	reason TEXT NOT NULL,
	log TEXT NOT NULL,
	artifacts TEXT NOT NULL,
	memory_peak BIGINT NOT NULL,
	cpu_seconds DOUBLE PRECISION NOT NULL,
	guards TEXT NOT NULL
);
CREATE INDEX trainings_project ON trainings (project, started);
CREATE INDEX trainings_key ON trainings (project, work_key);
CREATE INDEX trainings_run ON trainings (project, run);

-- The newest event of each type in a project, for the process page, without reading the whole outbox.
CREATE INDEX outbox_type ON outbox (project, type, seq);

-- The ledger, the outbox and the counters: what every change writes.
CREATE TABLE ledger (
  seq BIGINT PRIMARY KEY,
  prev TEXT NOT NULL,
  hash TEXT NOT NULL,
  time BIGINT NOT NULL,
  project TEXT NOT NULL,
  actor TEXT NOT NULL,
  on_behalf_of TEXT NOT NULL,
  via TEXT NOT NULL,
  action TEXT NOT NULL,
  resource TEXT NOT NULL,
  decision TEXT NOT NULL,
  reasons TEXT NOT NULL,
  before_digest TEXT NOT NULL,
  after_digest TEXT NOT NULL,
  event TEXT NOT NULL,
  event_id TEXT NOT NULL,
  request TEXT NOT NULL
);
CREATE INDEX ledger_event ON ledger (event_id);
CREATE INDEX ledger_project ON ledger (project, seq);
CREATE INDEX ledger_action ON ledger (action, seq);
CREATE TABLE ledger_head (
  id BIGINT PRIMARY KEY,
  seq BIGINT NOT NULL,
  hash TEXT NOT NULL,
  outbox BIGINT NOT NULL
);
INSERT INTO ledger_head (id, seq, hash, outbox) VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000', 0);
CREATE TABLE outbox (
  seq BIGINT PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  type TEXT NOT NULL,
  source TEXT NOT NULL,
  subject TEXT NOT NULL,
  project TEXT NOT NULL,
  time BIGINT NOT NULL,
  data TEXT NOT NULL
);
CREATE INDEX outbox_project ON outbox (project, seq);
CREATE TABLE counters (
  name TEXT PRIMARY KEY,
  value BIGINT NOT NULL
);

/**
 * The JSON contract between the pages and falaj's own API.
 *
 * This file is the definition: the server is written from it and from ui/API.md.
 * Rules that hold everywhere:
 * - keys are snake_case; every key is always present. "Unknown" is `null`, never a missing key.
 * - arrays are never null ([] when empty); maps are never null ({}).
 * - `Micros` are integer microseconds since 1970-01-01 UTC. They fit a double until the year 2255.
 * - times are wall time (ledger, changes, pipelines) unless the comment says event time (telemetry, alerts).
 * - durations say their unit in the key: `_ms` (may be fractional), `_us`, `_days`.
 * - shares and rates are 0..1, never percent.
 * - numbers are finite; NaN and infinities are `null` in JSON.
 * - a sentence for a person is a `Note`: the page translates `code` + `args`, and only falls
 *   back to the English `text` when it does not know the code. No text is ever parsed.
 */

export type Micros = number;
/** "sha256:" + 64 lower-case hex digits. The page shortens it for display. */
export type Digest = string;
/** An opaque id such as "chg_01j..."; MLflow run ids are 32 hex digits. */
export type Id = string;

/** A sentence built by the server. Codes known to the pages are listed in ui/API.md. */
export interface Note {
  code: string;
  args: Record<string, string | number>;
  /** English, complete, shown when `code` is unknown to the page. */
  text: string;
}

/** RFC 9457 problem (Content-Type application/problem+json); every 4xx and 5xx has this body. */
export interface Problem {
  /** what was refused, verbatim, e.g. "delay@7 is refused" */
  title: string;
  /** why, with the number */
  detail: string;
  /** HTTP status */
  status: number;
  /** what to type or do next; "" when there is nothing to do */
  next: string;
  /** kernel/fault kind in snake case ("not_found", "denied", "own_change" ...) */
  code: string;
  args: Record<string, string | number>;
  /** the offending field in the request, "" when none */
  field: string;
}

export type ActorKind = 'user' | 'service' | 'run' | 'system' | 'anonymous';
export interface ActorRef { kind: ActorKind; name: string; }

export type RefKind =
  | 'project' | 'source' | 'dataset' | 'dataset_version' | 'quarantine' | 'feature_view' | 'experiment' | 'run'
  | 'model' | 'model_version' | 'release' | 'training_set' | 'deployment' | 'change' | 'pipeline_run' | 'audit';
/** Where something lives. The page turns it into its own URL; kinds without a page are shown as text. */
export interface Ref {
  kind: RefKind;
  /** name (dataset, model, feature view) or id (run, change, pipeline run, quarantine batch, audit seq) */
  id: string;
  /** dataset or model version; null otherwise. For quarantine: null, `parent` names the dataset. */
  version: number | null;
  /** the dataset of a quarantine batch, the experiment of a run; "" otherwise */
  parent: string;
}

/** One page of a list. `next_page_token` is "" on the last page. */
export interface Page<T> {
  items: T[];
  next_page_token: string;
  /** matching rows in all pages; null when counting would be slow */
  total: number | null;
}

/** Whether the caller may do something now, decided by the server's policy. */
export interface Permission {
  allowed: boolean;
  /** null when allowed. Codes: not_signed_in, own_change, missing_role, not_in_group, already_decided, wrong_state */
  reason: Note | null;
}

// ---------------------------------------------------------------- session

/** GET /me. Always 200, also without a session (actor.kind = "anonymous"). */
export interface Me {
  actor: ActorRef;
  groups: string[];
  /** true: the server runs with --open; the page shows a loud banner */
  open: boolean;
  /** true: no admin exists yet; the page asks for the one-use set-up token */
  setup_required: boolean;
  /** an identity provider: GET /oidc/start leads there; null: passwords only. name "" = the page's own words */
  sso: { name: string } | null;
  /** falaj version, e.g. "0.1.0" */
  version: string;
  server_time: Micros;
  /** end of the session; null without one */
  expires_at: Micros | null;
}
export interface LoginRequest { user: string; password: string; }
export interface SetupRequest {
  /** from the one-use link #/setup?token=... */
  token: string;
  user: string;
  password: string;
}

/** GET /projects -> Page<Project> */
export interface Project {
  name: string;
  description: string;
  /** ISO 3166 alpha-2, lower case, e.g. ["ae"]; [] = no rule */
  residency: string[];
  /** roles of the caller: viewer, engineer, approver, admin */
  roles: string[];
  models: number;
  created_at: Micros;
}

// ---------------------------------------------------------------- models

export type Health = 'healthy' | 'degraded' | 'failing' | 'unknown';
/** A sparkline: equally spaced values, oldest first, null = no data in that slot. At most 60 values. */
export type Spark = (number | null)[];

export interface EnvironmentPointer {
  environment: string;
  /** null: nothing is deployed here */
  version: number | null;
  release: Digest | null;
  since: Micros | null;
  actor: ActorRef | null;
  /** serving: weights are live; activating: a change is moving it; empty: nothing here; failed: endpoint down */
  state: 'serving' | 'activating' | 'empty' | 'failed';
  /** all variants that take traffic, champion first; one entry with weight 1 when there is no canary */
  variants: Variant[];
}
export interface Variant {
  version: number;
  role: 'champion' | 'challenger' | 'shadow';
  /** share of the traffic, 0..1 (0 for a shadow) */
  weight: number;
}

/** GET /projects/{p}/models -> Page<ModelSummary> */
export interface ModelSummary {
  name: string;
  description: string;
  /** risk tier, 1 = highest; null = not set */
  tier: number | null;
  health: Health;
  /** why it is not healthy; null when healthy */
  health_reason: Note | null;
  /** in the project's order (dev, staging, production); always all of them */
  environments: EnvironmentPointer[];
  open_alerts: number;
  pending_changes: number;
  versions: number;
  last_trained: Micros | null;
  /** newest labelled window in the last environment */
  quality: { metric: string; value: number; low: number | null; high: number | null; at: Micros } | null;
  /** the same metric per labelled window */
  quality_spark: Spark;
  /** predictions per slot in the last environment, event time */
  traffic_spark: Spark;
}

export interface ManifestEntry {
  kind: 'data' | 'features' | 'code' | 'runtime' | 'params' | 'metrics' | 'model' | 'tests';
  name: string;
  /** short human value: "3 monthly files", "commit 1f2e3d4, clean", "trees=200" */
  value: string;
  digest: Digest | null;
  ref: Ref | null;
}
export interface ModelVersion {
  version: number;
  /** registered: nowhere; shadow: asked beside the champion; archived: was somewhere and is not any more; refused: a gate said no; else the highest environment's name is in `environments` */
  stage: 'registered' | 'shadow' | 'deployed' | 'archived' | 'refused';
  environments: string[];
  health: Health;
  /** null: model version without a release yet */
  release: Digest | null;
  run_id: string | null;
  created_at: Micros;
  actor: ActorRef;
  metrics: Record<string, number | null>;
  params: Record<string, string>;
  /** what made the release, in this order; [] without a release */
  manifest: ManifestEntry[];
  /** why it was refused or archived; null otherwise */
  note: Note | null;
}
export interface PointerMove {
  /** wall time */
  at: Micros;
  /** the project's event-time watermark at that moment; null when it had none */
  event_at: Micros | null;
  actor: ActorRef;
  environment: string;
  from: number | null;
  /** for kind "refused" the version that was asked for; for "retrain" the new version or null while training */
  to: number | null;
  /** null for a retrain without a change yet */
  change: Id | null;
  kind: 'promote' | 'rollback' | 'refused' | 'retrain';
  /** other people who approved */
  approvers: ActorRef[];
  reason: Note;
}
/** GET /projects/{p}/models/{m} */
export interface ModelDetail extends ModelSummary {
  owners: string[];
  created_at: Micros;
  /** newest first */
  version_list: ModelVersion[];
  /** newest first */
  timeline: PointerMove[];
  /** open first, then newest first; at most 50 */
  alerts: Alert[];
  /** the running or last pipeline run for this model; null when never */
  last_pipeline: Id | null;
}
export interface Alert {
  id: Id;
  /** event time */
  at: Micros;
  resolved_at: Micros | null;
  /** "quality.degraded", "drift.detected", "latency.exceeded", "errors.exceeded" ... */
  type: string;
  severity: 'critical' | 'warning' | 'info';
  environment: string;
  version: number | null;
  note: Note;
  observed: number | null;
  threshold: number | null;
  /** what it started: a pipeline run or a change; null when nothing */
  caused: Ref | null;
}

/** GET /projects/{p}/models/{m}/telemetry?environment=production&points=400 . All times are event time. */
export interface Telemetry {
  environment: string;
  from: Micros;
  to: Micros;
  traffic: TrafficSeries;
  quality: QualitySeries;
  drift: DriftReport | null;
  alerts: Alert[];
}
/** Columns of equal length, at most `points` (400 unless told, 2,000 at most). */
export interface TrafficSeries {
  /** start of each slot */
  t: Micros[];
  /** width of a slot */
  step_us: number;
  /** predictions in the slot */
  requests: number[];
  /** failed predictions in the slot */
  errors: number[];
  /** platform latency (wall clock) of the predictions in the slot, ms; null = no request */
  p50_ms: (number | null)[];
  p95_ms: (number | null)[];
  p99_ms: (number | null)[];
  /** the same requests split by model version; one entry per version seen */
  by_version: { version: number; requests: number[] }[];
}
export interface QualityWindow {
  from: Micros;
  to: Micros;
  /** labelled predictions in the window */
  labels: number;
  /** predictions still without label */
  unlabelled: number;
  champion: number;
  /** null: too few labels */
  value: number | null;
  low: number | null;
  high: number | null;
  challenger: number | null;
  challenger_value: number | null;
  /** challenger minus champion, with its 95 % interval */
  gap: number | null;
  gap_low: number | null;
  gap_high: number | null;
  verdict: 'ok' | 'degraded' | 'too_few_labels' | 'no_challenger';
}
export interface QualitySeries {
  /** "auc", "brier" ... */
  metric: string;
  higher_is_better: boolean;
  /** degraded when gap_low exceeds it */
  min_gap: number | null;
  /** oldest first */
  windows: QualityWindow[];
}
export interface DriftFeature {
  feature: string;
  /** population stability index against training */
  psi: number;
  /** Jensen-Shannon divergence, base 2, 0..1 */
  js: number;
  /** share of the model's importance, 0..1, all features sum to 1 */
  importance: number;
  /** psi x importance */
  weighted: number;
  /** weighted per past window, oldest first */
  history: Spark;
}
export interface DriftReport {
  from: Micros;
  to: Micros;
  /** rows compared */
  rows: number;
  /** sum of `weighted` */
  weighted: number;
  /** drift.detected above it; null = no monitor */
  threshold: number | null;
  verdict: 'ok' | 'drifted' | 'too_few_rows';
  /** largest `weighted` first */
  features: DriftFeature[];
}

// ---------------------------------------------------------------- experiments and runs

/** GET /projects/{p}/experiments -> Page<Experiment> */
export interface Experiment {
  /** MLflow's integer id as a string */
  id: string;
  name: string;
  runs: number;
  last_run: Micros | null;
  created_at: Micros;
}
export type RunStatus = 'scheduled' | 'running' | 'finished' | 'failed' | 'killed';
export interface Run {
  /** 32 hex digits */
  id: string;
  name: string;
  experiment_id: string;
  experiment: string;
  status: RunStatus;
  started_at: Micros;
  ended_at: Micros | null;
  actor: ActorRef;
  params: Record<string, string>;
  /** last value per key; null = NaN or infinite */
  metrics: Record<string, number | null>;
  tags: Record<string, string>;
  /** "" when unknown */
  git_commit: string;
  git_dirty: boolean;
  /** the model version it registered; null when none */
  model: { name: string; version: number } | null;
}
/** GET /projects/{p}/experiments/{e}/runs?page_token=&filter=&order=  filter is MLflow's search grammar; order "metrics.auc DESC" */
export interface RunPage extends Page<Run> {
  experiment: Experiment;
  /** all keys in the experiment, sorted; at most 1,000 each */
  param_keys: string[];
  metric_keys: string[];
}
export interface RunSeries {
  key: string;
  step: number[];
  /** same length as step; null = NaN */
  value: (number | null)[];
}
export interface RunInput {
  name: string;
  /** "training", "validation" ... */
  context: string;
  digest: string;
  ref: Ref | null;
}
export interface Artifact { path: string; bytes: number; digest: Digest | null; }
/** GET /projects/{p}/runs/{id} */
export interface RunDetail extends Run {
  /** at most 2,000 points a series, min/max kept */
  series: RunSeries[];
  inputs: RunInput[];
  artifacts: Artifact[];
  pipeline_run: Id | null;
}
/** GET /projects/{p}/runs/compare?ids=a,b,c (2..100 ids; unknown id = 404) */
export interface Comparison {
  /** in the order of ids */
  runs: Run[];
  /** per metric key, per run */
  series: { key: string; runs: { run_id: string; step: number[]; value: (number | null)[] }[] }[];
}

// ---------------------------------------------------------------- data

export type Verdict = 'passed' | 'warned' | 'failed';
/** GET /projects/{p}/datasets -> Page<DatasetSummary> */
export interface DatasetSummary {
  name: string;
  /** source: read from files; derived: one SELECT over others */
  kind: 'source' | 'derived';
  description: string;
  versions: number;
  /** null: no version yet */
  latest: { version: number; at: Micros; rows: number; bytes: number; digest: Digest; contract: Verdict } | null;
  /** rows in quarantine that nobody released or dropped */
  quarantined: number;
  /** classes of its columns, e.g. ["identifier"] */
  classes: string[];
  rows_spark: Spark;
}
export interface DatasetVersionSummary {
  version: number;
  at: Micros;
  actor: ActorRef;
  rows: number;
  bytes: number;
  digest: Digest;
  contract: Verdict;
  quarantined: number;
  /** models trained on it */
  models: { name: string; version: number }[];
}
/** GET /projects/{p}/datasets/{d} */
export interface DatasetDetail extends DatasetSummary {
  /** e.g. "csv data/flights/2013-*.csv" */
  source: string;
  /** the SELECT of a derived dataset or a derive step; "" when none */
  sql: string;
  key: string[];
  event_time: string;
  known_time: string;
  on_violation: 'warn' | 'quarantine' | 'block' | '';
  residency: string[];
  /** newest first */
  version_list: DatasetVersionSummary[];
}
export interface Column {
  name: string;
  /** SQL type: BIGINT, DOUBLE, VARCHAR, TIMESTAMP ... */
  type: string;
  nullable: boolean;
  /** "identifier" ...; "" = none */
  class: string;
  /** "pseudonym", "drop" ...; "" = none */
  mask: string;
  /** key, event_time, known_time or "" */
  role: string;
}
export interface ContractCheck {
  /** "" for a check of the whole table */
  column: string;
  /** what is checked: code in, min, max, not_null, unique, type, volume, schema, regex; args as in falaj.yaml */
  check: Note;
  verdict: Verdict;
  /** rows looked at */
  checked: number;
  violations: number;
  /** up to 5 offending values, as text */
  samples: string[];
  /** where the rows are; null when none were set aside */
  quarantine: Id | null;
}
export interface ColumnProfile {
  column: string;
  type: string;
  count: number;
  nulls: number;
  /** approximate above 10,000 */
  distinct: number;
  /** as text in the column's own type; null when all NULL */
  min: string | null;
  max: string | null;
  /** numbers only, else null */
  mean: number | null;
  stddev: number | null;
  /** q in 0..1, ascending; [] for text */
  quantiles: { q: number; value: number }[];
  /** counts.length = edges.length - 1; null for text */
  histogram: { edges: number[]; counts: number[] } | null;
  /** most frequent values, largest first, at most 10 */
  top: { value: string; count: number }[];
  /** PSI against the version before; null for the first */
  psi: number | null;
}
export interface DataFile { path: string; digest: Digest; bytes: number; rows: number; }
/** GET /projects/{p}/datasets/{d}/versions/{v} */
export interface DatasetVersion extends DatasetVersionSummary {
  dataset: string;
  /** Iceberg snapshot id as text (it does not fit a double); "" when none */
  snapshot: string;
  /** digest of the schema */
  schema_digest: Digest;
  profile_digest: Digest;
  schema: Column[];
  checks: ContractCheck[];
  on_violation: 'warn' | 'quarantine' | 'block' | '';
  profile: ColumnProfile[];
  /** what looks unusual against the versions before */
  anomalies: Note[];
  parents: { ref: Ref; digest: Digest }[];
  children: { ref: Ref; digest: Digest | null }[];
  /** what was read */
  sources: DataFile[];
  /** what was written */
  files: DataFile[];
  pipeline_run: Id | null;
}
/** GET /projects/{p}/datasets/{d}/quarantine -> Page<QuarantineBatch>, newest first */
export interface QuarantineBatch {
  id: Id;
  at: Micros;
  dataset: string;
  /** file as given by the user */
  source: string;
  /** rows set aside */
  rows: number;
  /** rows read from that source */
  total_rows: number;
  /** refused: the whole file; rows: only these rows */
  scope: 'refused' | 'rows';
  note: Note;
  checks: { column: string; check: Note; violations: number }[];
}
/** GET /projects/{p}/datasets/{d}/quarantine/{id}/rows?page_token= -> 100 rows a page */
export interface QuarantineRows extends Page<QuarantineRow> {
  batch: QuarantineBatch;
  columns: string[];
}
export interface QuarantineRow {
  /** 1-based line in the source */
  line: number;
  /** as read, text, same order as columns; masked columns come masked */
  values: (string | null)[];
  violations: { column: string; check: Note }[];
}

// ---------------------------------------------------------------- lineage

/** GET /projects/{p}/lineage?focus=dataset_version:flights@3&depth=3 . focus is kind:id or kind:id@version; "" = newest production releases */
export interface Lineage {
  focus: string;
  /** canvas in px, origin top left, flows left to right; the page mirrors it for Arabic */
  width: number;
  height: number;
  nodes: LineageNode[];
  edges: LineageEdge[];
  /** true: more nodes exist beyond depth or the cap of 2,000 */
  truncated: boolean;
}
export interface LineageNode {
  /** the value to put into focus= */
  key: string;
  /** top left corner and size, px */
  x: number;
  y: number;
  w: number;
  h: number;
  kind: RefKind;
  /** machine name, at most 28 characters, e.g. "flights@3" */
  label: string;
  /** second line: "312,004 rows", "production"; Note so that it can be translated; null when none */
  sub: Note | null;
  ref: Ref;
  /** draws the dot: passed/healthy = ok, warned/degraded = warn, failed/failing = bad, "" = none */
  state: 'ok' | 'warn' | 'bad' | '';
}
export interface LineageEdge {
  from: string;
  to: string;
  /** [x, y] pairs in px: start, bends, end; drawn as a smooth line */
  points: [number, number][];
}

// ---------------------------------------------------------------- process

export * from './types.process';

// ---------------------------------------------------------------- changes

export type ChangeKind = 'standard' | 'normal' | 'emergency';
/**
 * assessing: gates run · pending_approval: waits for a person · approved / implementing / rolling_out: moving ·
 * closed: pointer moved and serving confirmed · refused: a gate said no · rejected: a person said no ·
 * cancelled · failed: could not be activated, backed out
 */
export type ChangeState =
  | 'assessing' | 'pending_approval' | 'approved' | 'implementing' | 'rolling_out' | 'closed' | 'refused' | 'rejected' | 'cancelled' | 'failed';
/** GET /projects/{p}/changes?state=&model=&page_token= -> Page<ChangeSummary>, newest first */
export interface ChangeSummary {
  id: Id;
  kind: ChangeKind;
  state: ChangeState;
  /** promote, rollback */
  verb: 'promote' | 'rollback';
  requester: ActorRef;
  model: string;
  from_version: number | null;
  to_version: number;
  release: Digest;
  environment: string;
  created_at: Micros;
  updated_at: Micros;
  gates: { passed: number; failed: number; waiting: number };
  /** why it is in this state; null when obvious */
  note: Note | null;
}
export interface TestResult {
  /** unit, behaviour, integration */
  suite: string;
  name: string;
  verdict: 'passed' | 'failed' | 'skipped';
  duration_ms: number;
  /** failure text, "" when passed; at most 4,000 characters */
  message: string;
}
export interface Evidence {
  /** gate's key in falaj.yaml: tests, metric, beats, parity, scan, latency_p99_ms, approval */
  gate: string;
  /** what the gate demands, e.g. code gate.metric args {metric, min} */
  label: Note;
  verdict: 'passed' | 'failed' | 'waiting' | 'error';
  /** the number demanded and the direction: observed must be >= (min), <= (max) the threshold */
  threshold: number | null;
  direction: 'min' | 'max' | '';
  observed: number | null;
  /** 95 % interval of observed; null when exact */
  low: number | null;
  high: number | null;
  /** the champion's value for "beats" */
  champion: number | null;
  /** "ms", "auc" ...; "" = none */
  unit: string;
  /** one sentence on the outcome */
  note: Note | null;
  /** results of the gate "tests"; [] otherwise */
  tests: TestResult[];
  at: Micros | null;
  /** digest of the stored evidence document */
  digest: Digest | null;
  /** what was looked at */
  ref: Ref | null;
}
export interface Approval {
  at: Micros;
  actor: ActorRef;
  decision: 'approved' | 'rejected';
  comment: string;
}
export interface ChangeEvent {
  at: Micros;
  actor: ActorRef;
  /** "requested", "gate.passed", "gate.failed", "approved", "rejected", "pointer.moved", "serving.activated", "closed" ... */
  type: string;
  note: Note;
}
/** GET /projects/{p}/changes/{id} */
export interface ChangeDetail extends ChangeSummary {
  reason: string;
  evidence: Evidence[];
  approvals: Approval[];
  /** who still has to say yes; null when nobody */
  approval_needed: { group: string; count: number; not_author: boolean } | null;
  backout: {
    /** version that comes back; null: the environment becomes empty */
    to_version: number | null;
    note: Note;
    /** exact command, e.g. "falaj rollback flights/delay production" */
    command: string;
  };
  /** oldest first */
  events: ChangeEvent[];
  can: { approve: Permission; reject: Permission };
  ledger_seq: number | null;
  pipeline_run: Id | null;
}
/** POST /projects/{p}/changes/{id}/approve and /reject -> ChangeDetail. reject needs a comment. */
export interface DecisionRequest { comment: string; }

// ---------------------------------------------------------------- pipelines

export type PipelineState = 'waiting' | 'running' | 'done' | 'failed' | 'cancelled';
/** GET /projects/{p}/pipelines/runs?state=&page_token= -> Page<PipelineRunSummary>, newest first */
export interface PipelineRunSummary {
  id: Id;
  /** "train", "retrain", "ingest" ... */
  pipeline: string;
  state: PipelineState;
  actor: ActorRef;
  /** what started it: code trigger.manual, trigger.quality, trigger.drift, trigger.schedule */
  trigger: Note;
  model: string;
  created_at: Micros;
  started_at: Micros | null;
  ended_at: Micros | null;
  /** done counts the cached ones too */
  steps: { total: number; done: number; cached: number; failed: number };
}
export interface PipelineStep {
  /** unique in the run */
  name: string;
  /** ingest, derive, features, train, evaluate, register, gate ... */
  kind: string;
  state: 'waiting' | 'running' | 'done' | 'cached' | 'failed' | 'skipped';
  needs: string[];
  /** null before the step was looked at */
  cache: { hit: boolean; key: Digest; reason: Note } | null;
  started_at: Micros | null;
  ended_at: Micros | null;
  /** wall time so far; null before start */
  duration_ms: number | null;
  attempt: number;
  inputs: Ref[];
  outputs: Ref[];
  /** last lines, UTF-8, at most 64 KiB; the page colours nothing and keeps line breaks */
  log_tail: string;
  /** true: earlier lines were cut */
  log_cut: boolean;
  error: Problem | null;
}
/** GET /projects/{p}/pipelines/runs/{id}. The page reads it again on each event of this run, at most once a second. */
export interface PipelineRun extends PipelineRunSummary {
  git_commit: string;
  git_dirty: boolean;
  /** in order of execution */
  step_list: PipelineStep[];
  error: Problem | null;
  resumed_from: string;
}

// ---------------------------------------------------------------- audit

export interface AuditEntry {
  seq: number;
  at: Micros;
  actor: ActorRef;
  /** "user alice", "token ci" ...: what authenticated; "" = none */
  via: string;
  /** policy action, "change.approve" */
  action: string;
  resource: { kind: string; id: string };
  outcome: 'allowed' | 'refused';
  /** for a refusal: why */
  reason: Note | null;
  /** digests of the object before and after; null = none */
  before: Digest | null;
  after: Digest | null;
  /** hash of this row in the chain */
  hash: Digest;
}
/** GET /projects/{p}/audit?after=&limit=&action=&actor=  newest first; after = the seq of the last row you have (rows with a smaller seq follow) */
export interface AuditPage {
  items: AuditEntry[];
  /** to give as after=; null on the last page */
  next_after: number | null;
  /** newest seq in the ledger */
  head: number;
}
/** GET /projects/{p}/audit/verify : reads the whole chain */
export interface AuditVerification {
  ok: boolean;
  entries: number;
  /** events and blobs that were checked too */
  events: number;
  blobs: number;
  head_seq: number;
  head_hash: Digest;
  took_ms: number;
  /** first broken place; null when ok */
  broken: { seq: number; note: Note } | null;
  /** everything that is broken */
  all: { seq: number; note: Note }[];
}

// ---------------------------------------------------------------- live

/**
 * GET /projects/{p}/events?after=  text/event-stream; without after= only what happens from now on. Each message: `id:` = seq, no `event:` field,
 * `data:` = this object. A comment line every 15 s keeps it open. Resume: Last-Event-ID or after=.
 */
export interface CloudEvent {
  specversion: '1.0';
  id: string;
  source: string;
  /** "pipeline.step.finished", "change.approved", "quality.degraded", "dataset.version.created" ... */
  type: string;
  /** "change/chg_01j..", "model/delay", "pipeline_run/pr_01.." */
  subject: string;
  /** RFC 3339, as CloudEvents demands: the only time that is text */
  time: string;
  project: string;
  seq: number;
  data: unknown;
}

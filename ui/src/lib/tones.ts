/** The colour and icon of every state. */
import type { ChangeState, Evidence, Health, PipelineState, PipelineStep, PointerMove, RunStatus, StageState, Verdict } from './types';
import type { IconName } from './ui/Icon.svelte';
import type { Tone } from './ui/Status.svelte';

type Look = { tone: Tone; icon?: IconName };

export const health: Record<Health, Look> = {
  healthy: { tone: 'ok' },
  degraded: { tone: 'warn' },
  failing: { tone: 'bad' },
  unknown: { tone: 'idle' },
};
export const verdict: Record<Verdict | Evidence['verdict'], Look> = {
  passed: { tone: 'ok' },
  warned: { tone: 'warn' },
  failed: { tone: 'bad' },
  waiting: { tone: 'info' },
  error: { tone: 'bad', icon: 'warn' },
};
export const change: Record<ChangeState, Look> = {
  assessing: { tone: 'info', icon: 'run' },
  pending_approval: { tone: 'warn', icon: 'wait' },
  approved: { tone: 'info', icon: 'ok' },
  implementing: { tone: 'info', icon: 'run' },
  rolling_out: { tone: 'info', icon: 'run' },
  closed: { tone: 'ok' },
  refused: { tone: 'bad' },
  rejected: { tone: 'bad' },
  cancelled: { tone: 'idle' },
  failed: { tone: 'bad', icon: 'warn' },
};
export const pipeline: Record<PipelineState, Look> = {
  waiting: { tone: 'idle', icon: 'wait' },
  running: { tone: 'info', icon: 'run' },
  done: { tone: 'ok' },
  failed: { tone: 'bad' },
  cancelled: { tone: 'idle' },
};
export const step: Record<PipelineStep['state'], Look> = {
  waiting: { tone: 'idle', icon: 'wait' },
  running: { tone: 'info', icon: 'run' },
  done: { tone: 'ok' },
  cached: { tone: 'ok', icon: 'bolt' },
  failed: { tone: 'bad' },
  skipped: { tone: 'idle', icon: 'skip' },
};
export const run: Record<RunStatus, Look> = {
  scheduled: { tone: 'idle', icon: 'wait' },
  running: { tone: 'info', icon: 'run' },
  finished: { tone: 'ok' },
  failed: { tone: 'bad' },
  killed: { tone: 'bad', icon: 'minus' },
};
export const move: Record<PointerMove['kind'], Look> = {
  promote: { tone: 'ok', icon: 'next' },
  rollback: { tone: 'warn', icon: 'back' },
  refused: { tone: 'bad' },
  retrain: { tone: 'info', icon: 'pipelines' },
};
export const stage: Record<StageState, Look> = {
  idle: { tone: 'idle' },
  working: { tone: 'info', icon: 'run' },
  attention: { tone: 'warn', icon: 'warn' },
  failed: { tone: 'bad' },
};

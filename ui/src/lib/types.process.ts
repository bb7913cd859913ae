/** The process page's part of the contract; types.ts hands it on, and its rules hold here too. */
import type { Micros, Note, Ref } from './types';

export type StageName = 'data' | 'features' | 'tracking' | 'training' | 'registry' | 'delivery' | 'serving' | 'monitoring' | 'plan';
/** idle: nothing under way · working · attention: a person should look · failed */
export type StageState = 'idle' | 'working' | 'attention' | 'failed';
/** GET /projects/{p}/process. The page reads it again on events of any stage, at most once a second. */
export interface Process {
  /** in the order of the lifecycle */
  stages: ProcessStage[];
  edges: ProcessEdge[];
  /** recorded events of the installation that some follower has not done with; 0 = all are up to date */
  behind: number;
  /** laid out for about 1,080 px */
  wide: ProcessDrawing;
  /** laid out for a phone */
  narrow: ProcessDrawing;
}
export interface ProcessStage {
  name: StageName;
  state: StageState;
  /** why it is in this state; null when idle */
  note: Note | null;
  /** newest event; null = none yet. `at` is when it was recorded. */
  last: { type: string; subject: string; at: Micros; ref: Ref | null } | null;
  /** figures: datasets, aside, views, experiments, running, models, versions, releases, open, waiting, answering, alerts, runs */
  counts: { name: string; value: number }[];
  /** every event type of the stage, drawn or not */
  emits: string[];
}
export interface ProcessEdge {
  from: StageName;
  to: StageName;
  /** event: `to` follows it; call: `from` waits for the answer of `to` */
  kind: 'event' | 'call';
  names: string[];
}
/** px, origin top left, the water runs left to right; the page mirrors it for Arabic */
export interface ProcessDrawing {
  width: number;
  height: number;
  boxes: {
    stage: StageName;
    x: number;
    y: number;
    w: number;
    h: number;
    /** own events; with `to`, what goes to another stage. own: the stage follows it itself */
    rows: { x: number; y: number; text: string; to: StageName | ''; kind: 'event' | 'call'; own: boolean }[];
  }[];
  /** kind "": only the order of the stages */
  lines: { from: StageName; to: StageName; kind: 'event' | 'call' | ''; names: string[]; points: [number, number][]; label: [number, number]; anchor: 'start' | 'middle' | 'end' }[];
}

/** Which page a location shows. Pages beyond the first are loaded when they are opened. */
import type { Component } from 'svelte';
import type { Location } from './router.svelte';

export type PageName =
  | 'process' | 'models' | 'model' | 'runs' | 'run' | 'compare' | 'datasets' | 'dataset' | 'version' | 'quarantine'
  | 'lineage' | 'changes' | 'change' | 'pipelines' | 'pipeline' | 'audit' | 'login' | 'setup' | 'missing';

const pages: Record<PageName, () => Promise<{ default: Component<Record<string, string>> }>> = {
  process: () => import('../pages/Process.svelte') as never,
  models: () => import('../pages/Models.svelte') as never,
  model: () => import('../pages/Model.svelte') as never,
  runs: () => import('../pages/Runs.svelte') as never,
  run: () => import('../pages/Run.svelte') as never,
  compare: () => import('../pages/Compare.svelte') as never,
  datasets: () => import('../pages/Datasets.svelte') as never,
  dataset: () => import('../pages/Dataset.svelte') as never,
  version: () => import('../pages/Version.svelte') as never,
  quarantine: () => import('../pages/Quarantine.svelte') as never,
  lineage: () => import('../pages/Lineage.svelte') as never,
  changes: () => import('../pages/Changes.svelte') as never,
  change: () => import('../pages/Change.svelte') as never,
  pipelines: () => import('../pages/Pipelines.svelte') as never,
  pipeline: () => import('../pages/Pipeline.svelte') as never,
  audit: () => import('../pages/Audit.svelte') as never,
  login: () => import('../pages/Login.svelte') as never,
  setup: () => import('../pages/Setup.svelte') as never,
  missing: () => import('../pages/Missing.svelte') as never,
};
export const loadPage = async (name: PageName) => (await pages[name]()).default;

export interface Match {
  page: PageName;
  /** the section of the navigation it belongs to */
  section: string;
  params: Record<string, string>;
}

/** [section, parameter names..., page]: matched by the number of segments below the project. */
const table: [pattern: string[], page: PageName][] = [
  [['process'], 'process'],
  [['models'], 'models'],
  [['models', ':model'], 'model'],
  [['runs'], 'runs'],
  [['runs', ':run'], 'run'],
  [['compare'], 'compare'],
  [['data'], 'datasets'],
  [['data', ':dataset'], 'dataset'],
  [['data', ':dataset', ':version'], 'version'],
  [['data', ':dataset', 'quarantine', ':batch'], 'quarantine'],
  [['lineage'], 'lineage'],
  [['changes'], 'changes'],
  [['changes', ':change'], 'change'],
  [['pipelines'], 'pipelines'],
  [['pipelines', ':pipeline'], 'pipeline'],
  [['audit'], 'audit'],
];

export function match(at: Location): Match {
  const [first, project, ...rest] = at.segments;
  if (first === 'login' || first === 'setup') return { page: first, section: '', params: {} };
  if (first === 'p' && project) {
    for (const [pattern, page] of table) {
      if (pattern.length !== rest.length) continue;
      const params: Record<string, string> = { project };
      const fits = pattern.every((part, i) => {
        if (!part.startsWith(':')) return part === rest[i];
        params[part.slice(1)] = rest[i]!;
        return true;
      });
      if (fits) return { page, section: pattern[0] === 'compare' ? 'runs' : pattern[0]!, params };
    }
  }
  return { page: 'missing', section: '', params: {} };
}

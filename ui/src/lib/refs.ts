/** From a Ref of the API to the page that shows it. */
import { shortId } from './format';
import { href } from './router.svelte';
import type { Ref } from './types';

/** null: the kind has no page of its own. */
export function refHref(project: string, ref: Ref): string | null {
  const p = ['p', project];
  switch (ref.kind) {
    case 'project':
      return href(['p', ref.id, 'models']);
    case 'dataset':
      return href([...p, 'data', ref.id]);
    case 'dataset_version':
      return ref.version === null ? href([...p, 'data', ref.id]) : href([...p, 'data', ref.id, ref.version]);
    case 'quarantine':
      return href([...p, 'data', ref.parent, 'quarantine', ref.id]);
    case 'experiment':
      return href([...p, 'runs'], { experiment: ref.id });
    case 'run':
      return href([...p, 'runs', ref.id]);
    case 'model':
    case 'deployment':
      return href([...p, 'models', ref.id]);
    case 'model_version':
    case 'release':
      return href([...p, 'models', ref.id], ref.version === null ? {} : { version: ref.version });
    case 'change':
      return href([...p, 'changes', ref.id]);
    case 'pipeline_run':
      return href([...p, 'pipelines', ref.id]);
    case 'audit':
      return href([...p, 'audit']);
    case 'source':
    case 'feature_view':
    case 'training_set':
      return href([...p, 'lineage'], { focus: refKey(ref) });
  }
}

/** "dataset_version:flights@3": the value of focus= in the lineage page. */
export function refKey(ref: Ref): string {
  return `${ref.kind}:${ref.id}${ref.version === null ? '' : '@' + ref.version}`;
}

/** "flights@3", or the id alone. */
export function refLabel(ref: Ref): string {
  return ref.version === null ? shortId(ref.id) : `${shortId(ref.id)}@${ref.version}`;
}

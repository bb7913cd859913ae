/** Folds the many files of one dataset version into one node, so that the graph shows the course and not the list. */
import type { Lineage, LineageNode } from '../types';

export const FOLDED = 'files of ';
/** from this many on, files are shown as one node */
const MANY = 4;

export function fold(graph: Lineage, unfolded: string, label: (count: number) => string): Lineage {
  const out = new Map<string, string[]>();
  const reached = new Set(graph.edges.map((edge) => edge.to));
  for (const edge of graph.edges) out.set(edge.from, [...(out.get(edge.from) ?? []), edge.to]);
  const groups = new Map<string, LineageNode[]>();
  for (const node of graph.nodes) {
    const to = out.get(node.key) ?? [];
    if (node.kind !== 'source' || node.key === graph.focus || reached.has(node.key) || to.length !== 1) continue;
    groups.set(to[0]!, [...(groups.get(to[0]!) ?? []), node]);
  }
  const gone = new Set<string>();
  const nodes: LineageNode[] = [];
  const edges: Lineage['edges'] = [];
  for (const [key, files] of groups) {
    const target = graph.nodes.find((node) => node.key === key);
    if (!target || files.length < MANY || unfolded === FOLDED + key) continue;
    for (const file of files) gone.add(file.key);
    const node = { ...files[0]!, key: FOLDED + key, label: label(files.length), sub: null, y: target.y, h: target.h };
    nodes.push(node);
    edges.push({ ...graph.edges.find((edge) => edge.from === files[0]!.key)!, from: node.key, points: [[node.x + node.w, node.y + node.h / 2], [target.x, target.y + target.h / 2]] });
  }
  if (gone.size === 0) return graph;
  nodes.push(...graph.nodes.filter((node) => !gone.has(node.key)));
  edges.push(...graph.edges.filter((edge) => !gone.has(edge.from)));
  // What is left moves up to where the files began.
  const top = Math.min(...nodes.map((node) => node.y));
  return {
    ...graph,
    height: Math.max(...nodes.map((node) => node.y + node.h)) - top,
    nodes: nodes.map((node) => ({ ...node, y: node.y - top })),
    edges: edges.map((edge) => ({ ...edge, points: edge.points.map(([x, y]): [number, number] => [x, y - top]) })),
  };
}

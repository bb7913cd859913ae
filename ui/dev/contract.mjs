// Checks a running server against src/lib/types.ts: reads every GET endpoint, writes each answer
// as a typed constant and lets the TypeScript compiler judge it (missing keys, null arrays, unknown
// enum values, superfluous keys). Exit 1 names endpoint and key.
// node dev/contract.mjs http://127.0.0.1:7420 PROJECT ["cookie or Bearer flj_..."]
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ts from 'typescript';

const [origin, project, credential = ''] = process.argv.slice(2);
if (!origin || !project) {
  console.error('usage: node dev/contract.mjs ORIGIN PROJECT [COOKIE | "Bearer TOKEN"]');
  process.exit(2);
}
const headers = credential === '' ? {} : credential.startsWith('Bearer ') ? { Authorization: credential } : { Cookie: credential };
const answers = [];
let failed = false;

async function read(path, type, optional = false) {
  const response = await fetch(`${origin}/api/falaj/v1${path}`, { headers });
  const text = await response.text();
  if (response.ok) {
    try {
      const value = JSON.parse(text);
      answers.push({ path, type, text: JSON.stringify(value, null, 1) });
      return value;
    } catch {
      console.error(`${path}: 200, but not JSON: ${text.slice(0, 80)}`);
    }
  } else {
    console.error(`${path}: ${response.status} ${text.slice(0, 300)}`);
    if (!(response.headers.get('content-type') ?? '').startsWith('application/problem+json')) console.error(`${path}: the error is not application/problem+json`);
  }
  failed ||= !optional;
  return null;
}
const p = `/projects/${encodeURIComponent(project)}`;
const id = encodeURIComponent;
await read('/me', 'Me');
await read('/projects', 'Page<Project>');
for (const m of (await read(`${p}/models`, 'Page<ModelSummary>'))?.items ?? []) {
  const detail = await read(`${p}/models/${id(m.name)}`, 'ModelDetail');
  for (const e of detail?.environments ?? []) await read(`${p}/models/${id(m.name)}/telemetry?environment=${id(e.environment)}&points=400`, 'Telemetry');
}
for (const e of (await read(`${p}/experiments`, 'Page<Experiment>'))?.items ?? []) {
  const runs = (await read(`${p}/experiments/${id(e.id)}/runs`, 'RunPage'))?.items ?? [];
  for (const r of runs.slice(0, 3)) await read(`${p}/runs/${id(r.id)}`, 'RunDetail');
  if (runs.length > 1) await read(`${p}/runs/compare?ids=${runs.slice(0, 3).map((r) => r.id).join(',')}`, 'Comparison');
}
for (const d of (await read(`${p}/datasets`, 'Page<DatasetSummary>'))?.items ?? []) {
  const detail = await read(`${p}/datasets/${id(d.name)}`, 'DatasetDetail');
  for (const v of (detail?.version_list ?? []).slice(0, 3)) await read(`${p}/datasets/${id(d.name)}/versions/${v.version}`, 'DatasetVersion');
  for (const b of (await read(`${p}/datasets/${id(d.name)}/quarantine`, 'Page<QuarantineBatch>'))?.items ?? []) await read(`${p}/datasets/${id(d.name)}/quarantine/${id(b.id)}/rows`, 'QuarantineRows');
}
await read(`${p}/process`, 'Process');
const graph = await read(`${p}/lineage?depth=4`, 'Lineage');
for (const n of (graph?.nodes ?? []).slice(0, 8)) await read(`${p}/lineage?focus=${id(n.key)}&depth=2`, 'Lineage');
for (const c of (await read(`${p}/changes`, 'Page<ChangeSummary>'))?.items ?? []) await read(`${p}/changes/${id(c.id)}`, 'ChangeDetail');
for (const r of (await read(`${p}/pipelines/runs`, 'Page<PipelineRunSummary>'))?.items ?? []) await read(`${p}/pipelines/runs/${id(r.id)}`, 'PipelineRun');
await read(`${p}/audit?limit=100`, 'AuditPage');
await read(`${p}/audit/verify`, 'AuditVerification');

const types = new URL('../src/lib/types.ts', import.meta.url).pathname;
const dir = mkdtempSync(join(tmpdir(), 'falaj-contract-'));
const files = answers.map((answer, i) => {
  const file = join(dir, `answer${i}.ts`);
  writeFileSync(file, `import type { ${answer.type.match(/\w+/g).join(', ')} } from ${JSON.stringify(types)};\nexport const answer: ${answer.type} = ${answer.text};\n`);
  return file;
});
const program = ts.createProgram(files, { strict: true, noEmit: true, skipLibCheck: true, allowImportingTsExtensions: true, target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler, types: [] });
let shown = 0;
for (const diagnostic of ts.getPreEmitDiagnostics(program)) {
  failed = true;
  const index = files.indexOf(diagnostic.file?.fileName ?? '');
  if (shown++ < 60) {
    const line = diagnostic.file && diagnostic.start !== undefined ? diagnostic.file.text.slice(diagnostic.start).split('\n')[0] : '';
    console.error(`${answers[index]?.path ?? ''}\n    at ${line}\n    ${ts.flattenDiagnosticMessageText(diagnostic.messageText, '\n    ')}`);
  }
}
rmSync(dir, { recursive: true });
console.log(`${answers.length} answers read, ${failed ? `${shown} differences` : 'all as types.ts says'}`);
process.exit(failed ? 1 : 0);

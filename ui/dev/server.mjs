// A developer's server: the built pages with fixtures that follow src/lib/types.ts. It never ships.
// node dev/server.mjs [port]   Sign in as "author" or "approver" with any password; "wrong" is refused.
// The session "open" shows open mode, "fresh" a server without an administrator.
// POST /dev/event?type=&subject= sends one event to every open page.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { page, who, minutesAgo } from './fixtures/base.mjs';
import { datasetVersion, datasets, quarantine, quarantineRows } from './fixtures/data.mjs';
import { audit, changes, decide, seenBy } from './fixtures/delivery.mjs';
import { lineage } from './fixtures/lineage.mjs';
import { models, telemetry } from './fixtures/models.mjs';
import { advance, pipelines } from './fixtures/pipelines.mjs';
import { hear, processNow } from './fixtures/process.mjs';
import { compare, detail, experiments, runs } from './fixtures/runs.mjs';

const dist = new URL('../../internal/ui/dist/', import.meta.url).pathname;
const emptyProcess = JSON.parse(readFileSync(new URL('fixtures/process.json', import.meta.url), 'utf8'));
const kinds = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.woff2': 'font/woff2' };
const CSP =
  "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types svelte-trusted-html";
const problem = (status, code, title, detail = '', next = '') => ({ status, body: { title, detail, status, next, code, args: {}, field: '' } });

function me(user) {
  return {
    actor: user && user !== 'open' && user !== 'fresh' ? { kind: 'user', name: user } : who.nobody, groups: user === 'approver' ? ['ml-risk'] : [], open: user === 'open', setup_required: user === 'fresh', sso: { name: '' }, version: '0.1.0-fixtures',
    server_time: Date.now() * 1000, expires_at: user ? (Date.now() + 43_200_000) * 1000 : null,
  };
}
/** A list's rows: the detail without what only the detail has. */
const rows = (items, ...keys) => page(items.map((item) => Object.fromEntries(Object.entries(item).filter(([key]) => !keys.includes(key)))));
const user = (request) => /falaj_session=(\w*)/.exec(request.headers.cookie ?? '')?.[1] ?? '';

function answer(method, path, query, name, body) {
  const [scope, project, ...rest] = path;
  if (scope === 'me') return { body: me(name) };
  if (scope === 'login' || scope === 'setup') {
    if (body.password === 'wrong') return problem(401, 'unauthenticated', 'sign-in is refused', 'the name or the password is wrong', 'try again, or ask an administrator: falaj user reset NAME');
    return { body: me(body.user), cookie: body.user };
  }
  if (scope === 'logout') return { status: 204, cookie: '' };
  if (!name || name === 'fresh') return problem(401, 'unauthenticated', 'not signed in', '', 'open #/login');
  if (scope === 'projects' && !project) return { body: page([{ name: 'flights', description: 'Will this flight arrive late?', residency: ['ae'], roles: name === 'approver' ? ['approver'] : ['engineer'], models: 3, created_at: minutesAgo(300) }]) };
  if (scope !== 'projects' || project !== 'flights') return problem(404, 'not_found', `project ${project} does not exist`, 'or you may not see it', 'falaj status');
  const [kind, id, sub, sid, tail] = rest;
  const missing = () => problem(404, 'not_found', `${rest.join('/')} does not exist`, 'nothing has this name in project flights', 'check the name in the list');
  switch (kind) {
    case 'models':
      if (!id) return { body: rows(Object.values(models), 'owners', 'created_at', 'version_list', 'timeline', 'alerts', 'last_pipeline') };
      if (!models[id]) return missing();
      return { body: sub === 'telemetry' ? telemetry(query.get('environment') || 'production', Number(query.get('points') || 400)) : models[id] };
    case 'experiments': {
      if (!id) return { body: page(experiments) };
      if (query.get('filter')?.includes('???')) return { ...problem(400, 'invalid', 'filter is not understood', "unexpected '?' at character 1", "write for example metrics.val_auc > 0.7"), };
      const order = /metrics\.`(.*)` (ASC|DESC)/.exec(query.get('order') ?? '');
      const sorted = order ? [...runs].sort((a, b) => ((a.metrics[order[1]] ?? -1) - (b.metrics[order[1]] ?? -1)) * (order[2] === 'ASC' ? 1 : -1)) : runs;
      return { body: { ...page(id === '1' ? sorted : []), experiment: experiments.find((e) => e.id === id), param_keys: Object.keys(runs[0].params).sort(), metric_keys: Object.keys(runs[0].metrics).sort() } };
    }
    case 'runs':
      if (id === 'compare') return { body: compare((query.get('ids') ?? '').split(',')) };
      return detail(id) ? { body: detail(id) } : missing();
    case 'datasets':
      if (!id) return { body: rows(Object.values(datasets), 'source', 'sql', 'key', 'event_time', 'known_time', 'on_violation', 'residency', 'version_list') };
      if (!datasets[id]) return missing();
      if (sub === 'versions') return datasetVersion(id, Number(sid)) ? { body: datasetVersion(id, Number(sid)) } : missing();
      if (sub === 'quarantine') return { body: tail ? quarantineRows : page(id === 'flights' ? quarantine : []) };
      return { body: datasets[id] };
    case 'process':
      return { body: processNow(emptyProcess) };
    case 'lineage':
      return { body: lineage(query.get('focus') ?? '') };
    case 'changes': {
      if (!id) return { body: rows(changes.filter((c) => !query.get('state') || c.state === query.get('state')), 'reason', 'evidence', 'approvals', 'approval_needed', 'backout', 'events', 'can', 'ledger_seq', 'pipeline_run') };
      const change = changes.find((c) => c.id === id);
      if (!change) return missing();
      if (method === 'POST') {
        if (change.requester.name === name && sub === 'approve') return problem(403, 'own_change', `change ${id} is not approved`, 'you requested this change; another person has to approve it', 'ask a member of ml-risk to open this page');
        decide(change, sub, body.comment);
        emit('change.' + (sub === 'approve' ? 'approved' : 'rejected'), 'change/' + id);
      }
      return { body: seenBy(change, name === 'open' ? '' : name) };
    }
    case 'pipelines': {
      advance();
      if (!sid && !sub && id === 'runs') return { body: rows(pipelines.filter((p) => !query.get('state') || p.state === query.get('state')), 'git_commit', 'git_dirty', 'step_list', 'error', 'resumed_from') };
      const run = pipelines.find((p) => p.id === sub);
      return run ? { body: run } : missing();
    }
    case 'audit':
      if (id === 'verify') return { body: { ok: true, entries: 4211, events: 3100, blobs: 812, head_seq: 4211, head_hash: audit[0].hash, took_ms: 38.2, broken: null, all: [] } };
      return { body: { items: audit.filter((a) => a.action.startsWith(query.get('action') ?? '') && a.actor.name.startsWith(query.get('actor') ?? '') && (!query.get('after') || a.seq < Number(query.get('after')))), next_after: null, head: 4211 } };
  }
  return missing();
}

const streams = new Set();
let seq = 4211;
function emit(type, subject) {
  seq++;
  hear(emptyProcess, type, subject);
  const event = { specversion: '1.0', id: 'evt_' + seq, source: 'falaj', type, subject, time: new Date().toISOString(), project: 'flights', seq, data: {} };
  for (const stream of streams) stream.write(`id: ${seq}\ndata: ${JSON.stringify(event)}\n\n`);
}

const server = createServer((request, response) => {
  const url = new URL(request.url, 'http://fixtures');
  if (url.pathname === '/dev/event') {
    emit(url.searchParams.get('type'), url.searchParams.get('subject'));
    response.writeHead(204).end();
    return;
  }
  if (!url.pathname.startsWith('/api/falaj/v1/')) {
    const name = url.pathname === '/' ? 'index.html' : normalize(url.pathname).replace(/^\/+/, '');
    try {
      response.writeHead(200, { 'Content-Type': kinds[extname(name)] ?? 'application/octet-stream', 'Content-Security-Policy': CSP, 'Cache-Control': 'no-cache' }).end(readFileSync(join(dist, name)));
    } catch {
      response.writeHead(404).end('not found');
    }
    return;
  }
  const path = url.pathname.slice('/api/falaj/v1/'.length).split('/').map(decodeURIComponent);
  if (path[2] === 'events') {
    response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' }).write(': hello\n\n');
    streams.add(response);
    request.on('close', () => streams.delete(response));
    return;
  }
  let text = '';
  request.on('data', (chunk) => (text += chunk));
  request.on('end', () => {
    const result = answer(request.method, path, url.searchParams, user(request), text ? JSON.parse(text) : {});
    const headers = { 'Content-Type': (result.status ?? 200) >= 400 ? 'application/problem+json' : 'application/json' };
    if (result.cookie !== undefined) headers['Set-Cookie'] = `falaj_session=${result.cookie}; Path=/; HttpOnly; SameSite=Strict`;
    response.writeHead(result.status ?? 200, headers).end(result.status === 204 ? undefined : JSON.stringify(result.body));
  });
});
server.listen(Number(process.argv[2] ?? 7421), '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}/`));

// Fails when the first view needs more than 60 kB of gzipped JavaScript: the entry, everything it
// imports statically, and the start page, which the entry always loads.
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const LIMIT = 60_000;
const FIRST_PAGE = 'src/pages/Models.svelte';
const dist = new URL('../../internal/ui/dist/', import.meta.url);
const manifest = JSON.parse(readFileSync(new URL('manifest.json', dist), 'utf8'));

const js = new Set();
const css = new Set();
function take(key) {
  const chunk = manifest[key];
  if (!chunk) throw new Error(`${key} is not in the build; budget.mjs must follow the file names`);
  if (js.has(chunk.file)) return;
  js.add(chunk.file);
  for (const file of chunk.css ?? []) css.add(file);
  for (const next of chunk.imports ?? []) take(next);
}
take('index.html');
take(FIRST_PAGE);

const size = (files) => [...files].reduce((sum, file) => sum + gzipSync(readFileSync(new URL(file, dist)), { level: 9 }).length, 0);
const bytes = size(js);
console.log(`first view: ${(bytes / 1000).toFixed(1)} kB gzip JS in ${js.size} files, ${(size(css) / 1000).toFixed(1)} kB CSS (limit ${LIMIT / 1000} kB JS)`);
if (bytes > LIMIT) {
  console.error('too large: load what the first view does not show with import()');
  process.exit(1);
}

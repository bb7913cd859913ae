// Takes addresses out of package-lock.json: a closed site installs from its own registry, and the
// integrity hashes alone decide what is accepted. Run after every change of a dependency.
import { readFileSync, writeFileSync } from 'node:fs';

const path = new URL('../package-lock.json', import.meta.url);
const lock = JSON.parse(readFileSync(path, 'utf8'));
for (const entry of Object.values(lock.packages)) {
  delete entry.resolved;
  delete entry.funding;
}
writeFileSync(path, JSON.stringify(lock, null, 2) + '\n');

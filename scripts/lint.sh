#!/usr/bin/env bash
# The quick checks: format, vet, the rules of this house (internal/housetest), types of the pages, shell syntax.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/gofmt.sh
go vet ./...
go test -count=1 ./internal/housetest/
(cd ui && ../scripts/node.sh npm run --silent check)
for f in scripts/*.sh .ci/run; do bash -n "$f"; done
echo "lint: nothing found"

#!/usr/bin/env bash
# Every test: format, vet, types and size of the pages, then go test over everything. FALAJ_SOAK=1 runs them at full size.
# Arguments go to go test; without any it takes ./... . The pages are built before (make does it).
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
scripts/test-needs.sh
export FALAJ_TEST_CACHE="${FALAJ_TEST_CACHE:-$root/.tools/test-cache}"
mkdir -p "$FALAJ_TEST_CACHE"

scripts/gofmt.sh
begin=$SECONDS
go vet ./...
echo "go vet: $((SECONDS - begin)) s"
(cd ui && npm run --silent check && npm run --silent budget)

timeout=25m
args=(./...)
if [[ -n ${FALAJ_SOAK:-} ]]; then
  timeout=170m
fi
FALAJ_FLIGHTS=$(scripts/flights.sh)
export FALAJ_FLIGHTS
[[ $# -eq 0 ]] || args=("$@")
begin=$SECONDS
# Two packages at once on two cores; within a package the tests run in parallel anyway. Vet has run above, over everything.
scripts/postgres.sh go test -p 2 -vet=off -timeout "$timeout" "${args[@]}"
echo "go test: $((SECONDS - begin)) s"

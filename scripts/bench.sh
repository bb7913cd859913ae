#!/usr/bin/env bash
# Runs the benchmarks one after the other and prints their lines; see bench/README.md. Arguments select: scripts/bench.sh predict
set -euo pipefail
cd "$(dirname "$0")/.."
export FALAJ_TEST_CACHE="${FALAJ_TEST_CACHE:-$PWD/.tools/test-cache}"
FALAJ_FLIGHTS=$(scripts/flights.sh)
export FALAJ_FLIGHTS
go run ./bench -binary bin/falaj -flights "$FALAJ_FLIGHTS" "$@"

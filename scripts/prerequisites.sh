#!/usr/bin/env bash
# Says in one go what is missing to build falaj, and what to type. Prints nothing when all is there.
set -uo pipefail
cd "$(dirname "$0")/.."
missing=() packages=()
lacks() { missing+=("$1"); shift; packages+=("$@"); }

go=$(go env GOVERSION 2>/dev/null)
if [[ ! $go =~ ^go1\.([0-9]+) ]] || ((BASH_REMATCH[1] < 26)); then
  missing+=("Go 1.26 or newer (found: ${go:-none}): your distribution's golang package if it is new enough, else the Go project's own archive")
fi
command -v gcc >/dev/null || lacks "gcc" gcc libc6-dev
command -v g++ >/dev/null || lacks "g++" g++
command -v make >/dev/null || lacks "make" make
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
  lacks "Python 3.10 or newer (found: $(python3 --version 2>/dev/null || echo none))" python3
fi
python3 -m pip --version >/dev/null 2>&1 || lacks "pip of python3" python3-pip
python3 -c 'import venv, ensurepip' 2>/dev/null || lacks "venv of python3" python3-venv
[[ ${#missing[@]} -eq 0 ]] && exit 0

printf 'falaj cannot be built here yet. Missing:\n' >&2
printf '  - %s\n' "${missing[@]}" >&2
if [[ ${#packages[@]} -gt 0 ]]; then
  printf 'Type: %sapt-get update && %sapt-get install -y %s\n' "$([[ $EUID -eq 0 ]] || echo 'sudo ')" "$([[ $EUID -eq 0 ]] || echo 'sudo ')" "${packages[*]}" >&2
fi
exit 1

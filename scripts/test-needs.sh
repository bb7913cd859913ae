#!/usr/bin/env bash
# Has what the tests need beside the build: PostgreSQL's server, Chromium, LightGBM's libgomp. As root it installs what is missing
# with apt-get; else it says exactly what is missing and fails. No test is skipped for want of a tool.
set -euo pipefail
wanted() {
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null || echo postgresql
  command -v setpriv >/dev/null || echo util-linux
  [[ -n ${FALAJ_CHROMIUM:-} ]] || command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || echo chromium
  ldconfig -p | grep -q 'libgomp\.so\.1' || echo libgomp1
  command -v git >/dev/null || echo git
}
mapfile -t packages < <(PATH=$PATH:/sbin:/usr/sbin wanted)
[[ ${#packages[@]} -eq 0 ]] && exit 0
if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
  printf 'The tests need Debian packages that are not here: %s\nType: sudo apt-get update && sudo apt-get install -y --no-install-recommends %s\n' "${packages[*]}" "${packages[*]}" >&2
  exit 1
fi
echo "installing what the tests need: ${packages[*]}"
# The package would start a server of its own: the tests start theirs, and nothing may stay behind.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q >/dev/null
apt-get install -y -q --no-install-recommends "${packages[@]}" </dev/null >/dev/null
mapfile -t packages < <(PATH=$PATH:/sbin:/usr/sbin wanted)
if [[ ${#packages[@]} -gt 0 ]]; then
  echo "still missing after apt-get: ${packages[*]}" >&2
  exit 1
fi

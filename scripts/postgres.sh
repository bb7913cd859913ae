#!/usr/bin/env bash
# Runs a command beside one throw-away PostgreSQL on loopback; the command sees its address in FALAJ_TEST_POSTGRES.
# The server dies with this shell, however it ends, and its folder goes when the command ends.
set -euo pipefail
bin=$(for d in /usr/lib/postgresql/*/bin; do [[ -x $d/initdb ]] && echo "$d"; done | sort -V | tail -1)
[[ -n $bin ]] || bin=$(dirname "$(readlink -f "$(command -v initdb)")")
dir=$(mktemp -d "${TMPDIR:-/tmp}/falaj-pg-XXXXXX")
server=
stop() {
  trap - EXIT INT TERM HUP
  [[ -z $server ]] || { kill -INT "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
  rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

as=(setpriv --pdeathsig INT)
if [[ $EUID -eq 0 ]]; then # PostgreSQL refuses to run as root
  chown postgres: "$dir"
  as+=(--reuid postgres --regid postgres --clear-groups)
fi
cd "$dir"
"${as[@]}" "$bin/initdb" -D "$dir/data" -U falaj -A trust --locale=C.UTF-8 -E UTF8 --no-sync >"$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
# Nothing of it needs to survive a crash of the machine, so nothing waits for the disk.
"${as[@]}" "$bin/postgres" -D "$dir/data" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories="$dir" \
  -c fsync=off -c full_page_writes=off -c synchronous_commit=off -c max_connections=500 </dev/null >>"$dir/log" 2>&1 &
server=$!
for _ in $(seq 300); do
  "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" && break
  kill -0 "$server" 2>/dev/null || { cat "$dir/log" >&2; exit 1; }
  sleep 0.1
done
"$bin/pg_isready" -q -h 127.0.0.1 -p "$port" || { echo "PostgreSQL did not answer within 30 s" >&2; cat "$dir/log" >&2; exit 1; }
cd "$OLDPWD"
export FALAJ_TEST_POSTGRES="postgres://falaj@127.0.0.1:$port/postgres?sslmode=disable"
"$@" & # in the background, so that a signal reaches this shell at once
child=$!
trap 'kill -TERM "$child" 2>/dev/null; wait "$child" || true; exit 130' INT
trap 'kill -TERM "$child" 2>/dev/null; wait "$child" || true; exit 143' TERM HUP
wait "$child"

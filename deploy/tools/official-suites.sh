#!/usr/bin/env bash
# Runs the socket.io project's own protocol suites against an echo application.
#
#   deploy/tools/official-suites.sh FOLDER PROGRAM
#
# FOLDER holds the suites as their repository has them, at any depth: folders with
# test-suite.js, package.json and package-lock.json whose paths say engine.io or
# socket.io and the version. They are copied, not changed. PROGRAM serves both
# protocols on localhost:3000, which the suites insist on; where the system allows
# it, they have a network of their own, so that nothing else may be in the way.
#
# Prints the counts of each suite and what failed in it. Exit codes: 0 all suites
# ran, whatever they found; 2 usage; 3 they could not be run.
set -euo pipefail

# A suite is over within seconds; more means that it hangs.
longest=120

if [ "${1:-}" = --in-network ]; then
  ip link set lo up 2>/dev/null || true
  shift
fi
folder=${1:?which folder has the suites?}
program=${2:?which program serves?}
here=$(cd "$(dirname "$0")" && pwd)
work=${3:-}

fail() {
  echo "official-suites: $*" >&2
  exit 3
}

# Names a suite by its path, such as `engine.io v4`.
name_of() {
  local path=$1 protocol version
  protocol=$(grep -o -E '(engine|socket)\.io-protocol' <<<"$path" | tail -n 1)
  version=$(grep -o -E '/v[0-9]+' <<<"$path" | tail -n 1)
  echo "${protocol%-protocol} ${version#/}"
}

prepare() {
  local each place
  work=$(mktemp -d)
  while read -r each; do
    place=$work/$(name_of "$each" | tr ' ' -)
    cp -R "$(dirname "$each")" "$place"
    rm -rf "$place/node_modules"
    echo "Fetching what $(name_of "$each") needs …"
    (cd "$place" && npm ci --no-audit --no-fund --loglevel=error >/dev/null) ||
      fail "npm ci failed in a copy of $(dirname "$each")"
  done < <(find "$folder" -name test-suite.js -not -path '*/node_modules/*' | sort)
  [ -n "$(ls "$work")" ] || fail "no test-suite.js below $folder"
}

run() {
  local place name status
  for place in "$work"/*/; do
    name=$(basename "$place" | sed 's/-v/ v/')
    status=0
    (cd "$place" && timeout "$longest" node_modules/.bin/mocha --exit --reporter json \
      test-suite.js >result.json 2>errors.txt) || status=$?
    node "$here/official-suites.js" "$name" "$place/result.json" ||
      fail "$name gave no result (exit $status): $(tail -n 3 "$place/errors.txt")"
  done
}

if [ -z "$work" ]; then
  [ -d "$folder" ] || fail "$folder is no folder"
  [ -x "$program" ] || fail "$program is no program"
  program=$(cd "$(dirname "$program")" && pwd)/$(basename "$program")
  prepare
  trap 'rm -rf "$work"' EXIT
  if unshare -rn ip link set lo up 2>/dev/null; then
    unshare -rn "$0" --in-network "$folder" "$program" "$work"
  else
    "$0" "$folder" "$program" "$work"
  fi
  exit
fi

"$program" &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
for _ in $(seq 100); do
  kill -0 "$server" 2>/dev/null || fail "$program ended; is port 3000 taken?"
  (exec 3<>/dev/tcp/localhost/3000) 2>/dev/null && break
  sleep 0.1
done
run

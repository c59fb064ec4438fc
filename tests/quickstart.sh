#!/usr/bin/env bash
# Runs ./tidemill-quickstart as a user does, with few records and the programs that the other tests use, and checks its facts.
set -euo pipefail
root=$(cd -- "$(dirname -- "$0")/.." && pwd)
export TIDEMILL_QUICKSTART_PROFILE=${TIDEMILL_QUICKSTART_PROFILE:-debug}
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT
# from elsewhere, and with settings around that are for other programs
cd /
export TIDEMILL_REDIS_URL=redis://127.0.0.1:1/0

fail() {
  printf 'tests/quickstart.sh: %s\n' "$1" >&2
  exit 1
}
fact() { grep -Eq "$1" "$data/summary.json" || fail "summary.json does not say $1: $(cat "$data/summary.json")"; }

"$root/tidemill-quickstart" --help | grep -q -- '--keep' || fail "--help does not tell of --keep"
for bad in --data --records=0 --records=many --workers=99 --frobnicate; do
  code=0
  "$root/tidemill-quickstart" "$bad" 2>/dev/null || code=$?
  [[ $code == 2 ]] || fail "$bad ended with $code, not 2"
done

for turn in first second; do
  echo "$turn run"
  "$root/tidemill-quickstart" --records 40 --data "$data"
  fact '"succeeded": 40'
  fact '"retries": [1-9]'
  fact '"repeated_after_success": 0'
  fact '"results_doubled": 0'
  [[ $(wc -l <"$data/results.ndjson") == 40 ]] || fail "results.ndjson has not 40 lines"
  [[ $(grep -c '°C' "$data/report.md") == 40 ]] || fail "report.md has not 40 places"
done
echo "the quickstart did what it says, twice"

# Sourced by the run.sh of an example: a pool in one process (`tidemill dev`) with a Redis of its own, on free ports of 127.0.0.1, in a
# temporary folder; all of it goes when the script ends. BIN_DIR says where `tidemill` is; without it, it is built from this checkout.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

for program in redis-server python3; do
  command -v "$program" >/dev/null || { echo "this example needs $program on PATH" >&2; exit 1; }
done
if [ -z "${BIN_DIR:-}" ]; then
  echo "building tidemill; the first time takes some minutes" >&2
  (cd "$root" && cargo build --locked -p tidemill-cli --bin tidemill) >&2
  BIN_DIR=${CARGO_TARGET_DIR:-$root/target}/debug
fi
PATH=$(cd "$BIN_DIR" && pwd):$PATH
# settings that are meant for other pools
for variable in "${!TIDEMILL_@}"; do unset "$variable"; done
export NO_COLOR=1 LC_ALL=C

folder=$(mktemp -d) started=()
end() {
  local code=$?
  trap - EXIT INT TERM
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait
  [ "$code" -eq 0 ] || [ "$code" -ge 128 ] || tail -n 20 "$folder"/*.log >&2
  rm -rf "$folder"
  exit "$code"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
  echo "$1" >&2
  exit 1
}
start() { # name, command…: in the background, with a log in the folder
  local name=$1
  shift
  "$@" >"$folder/$name.log" 2>&1 &
  started+=($!)
}
await() { # what, command…
  local what=$1
  shift
  for _ in $(seq 600); do
    "$@" >"$folder/awaited.log" 2>&1 && return
    sleep 0.05
  done
  fail "not within 30 s: $what"
}
serve() { # name, Python file, arguments…: a server that says its address first; sets the variable `name`
  local name=$1
  shift
  start "$name" python3 -u "$@"
  await "$name says its address" grep -q '^http://' "$folder/$name.log"
  printf -v "$name" '%s' "$(head -n 1 "$folder/$name.log")"
}
pool() { # settings…, as KEY=VALUE
  local settings=()
  for setting in "$@"; do settings+=(--set "$setting"); done
  start pool tidemill dev --dir "$folder/redis" --http-addr 127.0.0.1:0 "${settings[@]}"
  await "the pool says where its Redis is" grep -q 'redis://' "$folder/pool.log"
  export TIDEMILL_REDIS_URL
  TIDEMILL_REDIS_URL=$(sed -n 's/^  Redis  \([^ ]*\) .*/\1/p' "$folder/pool.log")
  await "the worker tells its tools" tidemill tools echo
}

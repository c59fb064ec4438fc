#!/usr/bin/env bash
# Two workers share one limit, and you watch it: a Redis, a scheduler, two workers and a little vendor of their own, on free ports.
# JOBS=200 sets how many calls are made. The programs are taken from BIN_DIR, target/release or target/debug.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
jobs=${JOBS:-200}

for bin in "${BIN_DIR:-}" "$here/../../target/release" "$here/../../target/debug"; do
  [ -n "$bin" ] && [ -x "$bin/tidemill-worker" ] && [ -x "$bin/tidemill" ] && break
  bin=
done
[ -n "$bin" ] || { echo "build the programs first: cargo build --bins" >&2; exit 1; }

folder=$(mktemp -d) && started=()
end() {
  trap - EXIT INT TERM
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait
  rm -rf "$folder"
}
trap end EXIT
trap 'exit 130' INT TERM
start() { # name, command…
  local name=$1
  shift
  "$@" >"$folder/$name.log" 2>&1 &
  started+=($!)
}
await() { # what, command…
  local what=$1
  shift
  for _ in $(seq 600); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.05
  done
  echo "not within 30 s: $what" >&2
  tail -n 5 "$folder"/*.log >&2
  exit 1
}

read -r redis vendor first second < <(python3 - <<'PYTHON'
import socket
taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
ports = [one.getsockname()[1] for one in taken]
for one in taken:
    one.close()
print(*ports)
PYTHON
)
export TIDEMILL_REDIS_URL=redis://127.0.0.1:$redis TIDEMILL_HTTP_REQUEST__ALLOW_NETWORKS=127.0.0.0/8
start redis redis-server --port "$redis" --bind 127.0.0.1 --save '' --appendonly no --dir "$folder"
start vendor python3 "$here/vendor.py" "$vendor"
await "Redis answers" redis-cli -p "$redis" PING
await "the vendor answers" curl -fs "http://127.0.0.1:$vendor/report"

# before the workers, so that they know it from their first call on: those that run follow within a second
"$bin/tidemill" service set vendor --file "$here/service.yaml" --why 'the vendor says so'
start scheduler env TIDEMILL_HTTP_ADDR=127.0.0.1:0 "$bin/tidemill-scheduler"
start first env TIDEMILL_HTTP_ADDR="127.0.0.1:$first" "$bin/tidemill-worker"
start second env TIDEMILL_HTTP_ADDR="127.0.0.1:$second" "$bin/tidemill-worker"
await "the first worker is ready" curl -fs "http://127.0.0.1:$first/ready"
await "the second worker is ready" curl -fs "http://127.0.0.1:$second/ready"

for n in $(seq "$jobs"); do
  echo "XADD tm:{0}:jobs:default * tool http.request id call-$n reply_to ended input '{\"url\":\"http://127.0.0.1:$vendor/$n\"}'"
done | redis-cli -p "$redis" >/dev/null
echo "$jobs calls are enqueued; the limit lets 20 go in a second"
echo "to look at it from another terminal: export TIDEMILL_REDIS_URL=$TIDEMILL_REDIS_URL"

"$bin/tidemill" service top & # on a terminal it draws anew, elsewhere it prints a table a second
top=$!
started+=("$top")
for _ in $(seq 2400); do
  [ "$(redis-cli -p "$redis" XLEN ended)" -lt "$jobs" ] || break
  sleep 0.05
done
kill "$top" && wait "$top" || true

calls_of() { curl -fs "http://127.0.0.1:$1/metrics" | sed -n 's/^tidemill_service_calls_total{.*outcome="ok".*} //p'; }
echo "the first worker made $(calls_of "$first") calls, the second $(calls_of "$second")"
echo "the vendor saw: $(curl -fs "http://127.0.0.1:$vendor/report")"

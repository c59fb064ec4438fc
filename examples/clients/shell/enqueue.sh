#!/bin/sh
# Enqueues a job and a run of a workflow with redis-cli alone, and prints each result.
# Usage: REDIS_URL=redis://127.0.0.1:6379/0 ./enqueue.sh [json] [run]
set -eu
tidemill="${TIDEMILL_NAMESPACE:-tm}:{0}:"
caller="shell-$$-$(date +%s)"
db() { redis-cli -u "${REDIS_URL:-redis://127.0.0.1:6379/0}" "$@"; }

[ $# -gt 0 ] || set -- json run
for kind in "$@"; do
    case "$kind" in
        json) stream=jobs:default what="tool echo" input='{"from":"shell","n":1}' ;;
        run) stream=runs what="workflow greet" input='{"name":"shell"}' ;;
        *) echo "unknown kind $kind: json and run are known" >&2; exit 2 ;;
    esac
    reply_to="${tidemill}reply:$caller-$kind"
    # an id of our own makes it safe to send twice, and names the result
    for _ in 1 2; do
        # shellcheck disable=SC2086
        db XADD "$tidemill$stream" '*' $what input "$input" id "$caller-$kind" \
            result_ttl_ms 60000 reply_to "$reply_to" >/dev/null
    done
    sent=$(db XREAD BLOCK 30000 COUNT 1 STREAMS "$reply_to" 0 | tail -n 1)
    [ -n "$sent" ] || { echo "no result arrived within 30 s: does a worker serve the queue?" >&2; exit 1; }
    kept=$(db GET "${tidemill}result:$caller-$kind")
    [ "$sent" = "$kept" ] || { echo "the kept result is not the one that was sent: $kept" >&2; exit 1; }
    echo "$kind $sent"
    db DEL "$reply_to" >/dev/null
done

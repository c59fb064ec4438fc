"""Enqueues a JSON job, a MessagePack job and a run of a workflow, and prints each result as it arrives.

Usage: REDIS_URL=redis://127.0.0.1:6379/0 python enqueue.py [json] [msgpack] [run]
"""
import json
import os
import sys
import time
import uuid

import msgpack
import redis

TIDEMILL = os.environ.get("TIDEMILL_NAMESPACE", "tm") + ":{0}:"
db = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
caller = f"python-{uuid.uuid4()}"
reply_to = f"{TIDEMILL}reply:{caller}"


def enqueue(stream, kind, fields):
    # an id of our own makes it safe to send twice, and names the result
    job = {"id": f"{caller}-{kind}", "result_ttl_ms": 60000, "reply_to": reply_to, **fields}
    for _ in range(2):
        db.xadd(TIDEMILL + stream, job)


def results(count, within_s=30):
    last, end = "0", time.monotonic() + within_s
    while count:
        if time.monotonic() > end:
            sys.exit(f"{count} results did not arrive within {within_s} s: does a worker serve the queue?")
        for _, entries in dict_or_list(db.xread({reply_to: last}, block=1000)):
            for last, fields in entries:
                count -= 1
                yield json.loads(fields[b"result"])


def dict_or_list(reply):
    """The reply is a list with RESP2, and a mapping of lists with RESP3."""
    return [(k, sum(v, [])) for k, v in reply.items()] if isinstance(reply, dict) else reply or []


kinds = sys.argv[1:] or ["json", "msgpack", "run"]
for kind in kinds:
    if kind == "json":
        enqueue("jobs:default", kind, {"tool": "echo", "input": json.dumps({"from": "python", "n": 1})})
    elif kind == "msgpack":
        enqueue("jobs:default", kind, {"tool": "echo", "enc": "msgpack", "input": msgpack.packb({"from": "python", "n": 2})})
    else:
        enqueue("runs", kind, {"workflow": "greet", "input": json.dumps({"name": "python"})})
for result in results(len(kinds)):
    kept = db.get(f"{TIDEMILL}result:{result['id']}")
    assert json.loads(kept) == result, "the kept result is the one that was sent"
    print(result["id"].rsplit("-", 1)[1], json.dumps(result))
db.delete(reply_to)

"""How jobs end: each settlement is one command or one function call, and whoever no longer owns the entry is refused."""
import json
import os
import random
import socket
import time
import uuid

import redis

NAMESPACE = os.environ.get("TIDEMILL_NAMESPACE", "tm")
PREFIX = NAMESPACE + ":{0}:"
QUEUE = os.environ.get("QUEUE", "python")
STREAM, GROUP, DAY_MS, DEAD_CAP = f"{PREFIX}jobs:{QUEUE}", "workers", 86_400_000, 100_000
CONSUMER = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
TRANSIENT = (redis.ConnectionError, redis.TimeoutError, redis.exceptions.ReadOnlyError, redis.exceptions.OutOfMemoryError)


def key(name):
    return PREFIX + name


class Settler:
    def __init__(self):
        url = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
        self.db = redis.Redis.from_url(url, protocol=2, socket_timeout=5)
        self.db.set_response_callback("XREADGROUP", lambda reply, **_: reply)  # keeps repeated fields visible

    def ask(self, *command):
        """Asks until there is an answer: every function may be repeated, and a repeated settlement is merely stale."""
        pause = 0.05
        while True:
            try:
                return self.db.execute_command(*command)
            except TRANSIENT:
                time.sleep(random.uniform(0, pause))
                pause = min(pause * 2, 5)

    def call(self, function, keys, args):
        return self.ask("FCALL", function, len(keys), *keys, *args)

    def create_group(self):
        try:
            self.ask("XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM")
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    def announce(self, tools, slots):
        about = {"consumer": CONSUMER, "role": "worker", "host": socket.gethostname(), "pid": os.getpid(), "queues": [QUEUE], "slots": slots}
        self.ask("HSET", key("members"), CONSUMER, json.dumps(about))
        self.ask("SADD", key("queues"), QUEUE)
        self.ask("HSET", key("tools"), *[word for name in tools for word in (name, '{"kind":"python"}')])

    def tell(self, call, owned, word):
        # a stale outcome is dropped: somebody else has the job, and its outcome is the one that counts
        print(f"{word if owned else 'stale'} {call.id}\n", end="", flush=True)  # one write: other threads print too

    def succeed(self, call, output):
        if call.wants_result:
            self.complete(call, call.head("succeeded", output), "done")
        else:
            owned = self.ask("XACK", STREAM, GROUP, call.entry)
            self.ask("XDEL", STREAM, call.entry)
            self.tell(call, owned, "done")

    def cancel(self, call):
        self.complete(call, call.head("cancelled", error={"code": "cancelled", "message": "cancelled by request"}), "cancelled")

    def complete(self, call, head, word):
        keys, wants = self.result_of(call)
        keys = keys[: 1 + wants[1]]  # a reply only where one is wanted
        [owned] = self.call("tm1_complete", [STREAM, *keys], [GROUP, *wants, 1, call.entry, head])
        self.tell(call, owned == 1, word)

    def fail(self, call, code, reason, retry, state="failed"):
        """Another attempt when one is left, waiting in Redis; else the dead letters."""
        if retry and call.attempt < call.job.get("max_attempts", 3):
            wait_ms = int(random.uniform(0, min(500 * 2 ** (call.attempt - 1), 30_000)))
            first_ms = call.job.get("_first_ms", int(self.now_ms()))
            self.defer(call, "retrying", in_ms=wait_ms, note=f"{code}: {reason}", changes=["_attempts", call.attempt, "_first_ms", first_ms])
        else:
            self.bury(call, code, reason, state, call.attempt)

    def defer(self, call, state, in_ms=0, at_ms=0, note="", changes=()):
        keys = [STREAM, key(f"due:{QUEUE}"), key(f"deferred:{QUEUE}"), key("queues"), STREAM, STREAM, STREAM]
        one = [call.entry, f"j:{call.id}", in_ms, at_ms, state, note, "", "", 0, call.attempt, len(changes), *changes]
        [owned] = self.call("tm1_defer", keys, [GROUP, CONSUMER, QUEUE, 1, *one])
        self.tell(call, owned == 1, state)

    def bury(self, call, code, reason, state="failed", attempts=0):
        keys, wants = self.result_of(call)
        call.attempt = attempts
        head = call.head(state, error={"code": code, "message": reason})
        args = [GROUP, DEAD_CAP, 1, call.entry, code, reason, attempts, head, *wants]
        [owned] = self.call("tm1_bury", [STREAM, key("dead"), *keys], args)
        self.tell(call, owned == 1, f"buried {code}")

    def result_of(self, call):
        """The keys of a call's result and reply, and whether they are wanted."""
        wants = [call.job.get("result_ttl_ms", 0), int("reply_to" in call.job)]
        return [key(f"result:{call.id}"), call.job.get("reply_to", STREAM)], wants

    def refuse_part(self, entry, run):
        """A step of a workflow needs the workflow's expressions, which this worker cannot evaluate: the run fails, with the reason."""
        reply = self.ask("HGET", key(f"run:{run}"), "rp")
        # where something is done at a run's end, its own entries go to this queue
        home = (self.ask("HGET", key(f"run:{run}"), "cl") or b"").decode()
        keys = [key(f"run:{run}"), key(f"audit:{run}"), *map(key, ["live", "ended", "cancelled", "dead"]), key(f"result:{run}"), reply or STREAM]
        keys += [key("runs"), key(f"jobs:{home}" if home else f"run:{run}")]
        reason = f"queue {QUEUE} is served by a worker that runs plain jobs only"
        error = json.dumps({"code": "unsupported_part", "message": reason})
        self.call("tm1_end_run", keys, [run, "failed", CONSUMER, error, "unsupported_part", reason, "", DEAD_CAP, 0])
        self.ask("XACK", STREAM, GROUP, entry)
        self.ask("XDEL", STREAM, entry)

    def hand_back(self, calls):
        """Gives what was not finished back at once, under new entries, and leaves the pool."""
        keys = [STREAM, key("beats"), *[STREAM] * 3 * len(calls)]
        entries = [word for call in calls for word in (call.entry, "", "", call.attempt)]
        if calls:
            self.call("tm1_release", keys, [GROUP, CONSUMER, CONSUMER, "", 0, len(calls), *entries])
        self.call("tm1_forget", [key("beats"), key("members"), STREAM], [CONSUMER, "", 1, GROUP])

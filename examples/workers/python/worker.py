"""A Tidemill worker in Python: claims plain jobs from one queue, runs its own tools, settles through the functions.

Usage: REDIS_URL=… QUEUE=python python worker.py
"""
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import redis

from call import Call, Stopped
from contract import Malformed, due_ms, may_reply_to, read, refusal
from settle import CONSUMER, DAY_MS, GROUP, NAMESPACE, PREFIX, STREAM, TRANSIENT, Settler, key
from tools import TOOLS, ToolError

SLOTS = int(os.environ.get("SLOTS", "4"))
GRACE_S = int(os.environ.get("GRACE_MS", "5000")) / 1000


class Worker(Settler):
    def __init__(self):
        super().__init__()
        self.held, self.cancelled, self.clock_ms = {}, {}, 0.0
        self.number, self.since = 0, 0
        self.draining, self.free = threading.Event(), threading.Semaphore(SLOTS)
        self.pool = ThreadPoolExecutor(SLOTS)

    def now_ms(self):
        """Redis's time: the clock of this machine decides nothing."""
        return self.clock_ms + time.monotonic() * 1000

    def beat(self):
        """Tells that this process lives, and learns what was cancelled."""
        if self.number % 30 == 0:
            self.announce(TOOLS, SLOTS)
        self.number += 1
        now, *ids = self.call("tm1_beat", [key("beats"), key("cancelled")], [CONSUMER, self.number, self.since])
        self.since, self.clock_ms = int(now), int(now) - time.monotonic() * 1000
        known = self.cancelled | {id.decode(): self.since for id in ids}
        self.cancelled = {id: at for id, at in known.items() if self.since - at < DAY_MS}
        for call in list(self.held.values()):
            if call.id in self.cancelled:
                call.cancelled.set()

    def beat_each_second(self, gone):
        while not gone.wait(1):
            self.beat()

    def claim(self, cursor):
        """Claims as many entries as there are free slots, and gives the cursor of the next claim."""
        room = SLOTS - len(self.held)
        if room == 0:
            if self.free.acquire(timeout=0.2):  # a slot is free again
                self.free.release()
            return cursor
        try:
            reply = self.db.execute_command("XREADGROUP", "GROUP", GROUP, CONSUMER, "COUNT", room, "BLOCK", 1000, "STREAMS", STREAM, cursor)
        except TRANSIENT:
            time.sleep(random.uniform(0.05, 0.5))
            return "0"  # the lost reply may have given us entries: ask what is ours
        except redis.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self.create_group()
            return cursor
        entries = reply[0][1] if reply else []
        for entry, flat in entries:
            if entry.decode() not in self.held:
                self.take(entry.decode(), flat)
        return ">" if cursor == ">" or not entries else entries[-1][0].decode()

    def take(self, entry, flat):
        if not flat:  # deleted after it was delivered
            self.ask("XACK", STREAM, GROUP, entry)
            return
        pairs = list(zip(flat[::2], flat[1::2]))
        run = dict(pairs).get(b"run")
        if run is not None:
            self.refuse_part(entry, run.decode().split()[0])
            return
        try:
            job = read(pairs)
            if not may_reply_to(job.get("reply_to", ""), NAMESPACE, PREFIX):
                raise Malformed("invalid_reply_to", "reply_to may not be one of Tidemill's own keys")
        except Malformed as error:
            self.bury(Call(entry, {"input": None}), error.code, str(error), attempts=0)
            return
        self.begin(Call(entry, job))

    def begin(self, call):
        job, now, born = call.job, self.now_ms(), int(call.first.split("-")[0])
        refused = refusal(job, TOOLS, "deadline_ms" in job and now > born + job["deadline_ms"])
        if "id" in job and self.call("tm1_accept", [STREAM, key(f"id:{call.id}")], [GROUP, 1, call.entry, call.first, DAY_MS]) == [0]:
            print("dropped", call.id, flush=True)
        elif call.id in self.cancelled:
            self.cancel(call)
        elif due_ms(job, born) > now:
            self.defer(call, "ready", at_ms=due_ms(job, born), note="delayed")
        elif refused:
            state, code, reason = refused
            self.bury(call, code, reason, state, call.attempt - 1)
        else:
            self.held[call.entry] = call
            self.free.acquire()
            self.pool.submit(self.run, call)

    def run(self, call):
        try:
            self.succeed(call, TOOLS[call.job["tool"]](call))
        except Stopped as stopped:
            if str(stopped) == "cancelled":
                self.cancel(call)
            else:
                self.fail(call, "timeout", "the attempt ran longer than its timeout", True, "timed_out")
        except ToolError as error:
            self.fail(call, error.code, str(error), error.retry)
        except Exception as error:  # a fault of the tool must not stop the worker
            self.fail(call, "internal", f"{type(error).__name__}: {error}", True)
        finally:
            self.held.pop(call.entry, None)
            self.free.release()

    def serve(self):
        self.create_group()
        self.beat()
        gone, cursor = threading.Event(), ">"
        heart = threading.Thread(target=self.beat_each_second, args=[gone], daemon=True)
        heart.start()
        print("ready", CONSUMER, flush=True)
        while not self.draining.is_set():
            cursor = self.claim(cursor)
        end = time.monotonic() + GRACE_S
        while self.held and time.monotonic() < end:
            time.sleep(0.01)
        gone.set()
        heart.join()
        self.hand_back(list(self.held.values()))


if __name__ == "__main__":
    worker = Worker()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.draining.set())
    worker.serve()
    os._exit(0)  # a tool that does not stop has lost its entry already: nothing that it does counts

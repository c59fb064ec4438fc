"""One claimed job, as a tool sees it."""
import json
import threading
import time


class Stopped(Exception):
    """The call was cancelled, or its time is over."""


class Call:
    """What a tool sees of its job. A tool that waits does so through `wait`, so that it really stops."""

    def __init__(self, entry, job):
        self.entry, self.job, self.input = entry, job, job["input"]
        self.first = job.get("_entry", entry)
        self.id = job.get("id", self.first)
        self.attempt = job.get("_attempts", 0) + 1
        self.ends = time.monotonic() + job.get("timeout_ms", 30_000) / 1000
        self.cancelled = threading.Event()

    def wait(self, seconds):
        left = max(self.ends - time.monotonic(), 0)
        if self.cancelled.wait(min(seconds, left)):
            raise Stopped("cancelled")
        if left < seconds:
            raise Stopped("timeout")

    def head(self, state, output=None, error=None):
        """The result without its end time and closing brace, which the function adds."""
        body = {"id": self.id, "state": state, "output": output, "error": error, "attempts": self.attempt}
        return json.dumps(body, allow_nan=False)[:-1]

    @property
    def wants_result(self):
        return "result_ttl_ms" in self.job or "reply_to" in self.job

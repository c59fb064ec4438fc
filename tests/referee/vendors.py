"""Holds a pool of real programs against a public rate-limited API (serve.py), in the dialects of two vendors.

Usage: python tests/referee/vendors.py [word …]     only tests whose name has one of the words
Environment: TIDEMILL_BIN_DIR, where tidemill, tidemill-scheduler and tidemill-worker are (default target/debug)

A service is defined by `tidemill service set`, some hundred calls come as plain XADD, and the vendor must refuse none. The same
calls without a service must be refused, or the vendor would have nothing to say. Ends with exit code 1 when something failed.
"""
import http.client
import json
import os
import pathlib
import sys
import threading
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "clients"))
import serve  # noqa: E402
from pool import PREFIX, ROOT, Pool, Process, until  # noqa: E402  (found beside the clients' tests)

PROGRAMS = pathlib.Path(os.environ.get("TIDEMILL_BIN_DIR", ROOT / "target" / "debug"))
REPLIES = PREFIX + "reply:referee"
WORKERS = 3
JOBS = 300
WINDOW_S = 8
# what the way from a grant to the call may vary by on a machine that has other things to do
SLACK_MS = 250
# the least part of the limit that is used while jobs wait; how much it is on a quiet machine is measured by loadtest
LEAST_USE = 0.5
COMPLETION_TOKENS = 10


class Vendor:
    """A dialect of mocklimit with a limit that JOBS calls need twice over, and what the pool is told of it."""

    def __init__(self, dialect, path, limits, definition):
        self.dialect, self.path, self.limits, self.definition = dialect, path, limits, definition

    def __enter__(self):
        words = [word for name, value in self.limits.items() for word in (f"--{name}", value)]
        self.process = Process([sys.executable, HERE / "serve.py", "--dialect", self.dialect, "--window-s", WINDOW_S,
                                "--completion-tokens", COMPLETION_TOKENS, "--latency-ms", 20, *words])
        try:
            self.port = int(self.process.line("listening on ", 300).rsplit(":", 1)[1])
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(self, *_):
        self.process.kill()

    def seen(self):
        """(calls, refused ones)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/mocklimit/stats")
            stats = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        counts = [of_key for of_path in stats.values() for of_key in of_path.values()]
        return sum(of["total_requests"] for of in counts), sum(of["total_429s"] for of in counts)

    def input(self, number):
        """One call in fifty is large."""
        words = "word " * (400 if number % 50 == 7 else number % 30)
        body = {"model": "m-1", "max_tokens": 2 * COMPLETION_TOKENS, "messages": [{"role": "user", "content": words}]}
        url = f"http://127.0.0.1:{self.port}{self.path}"
        return {"url": url, "method": "POST", "headers": {"authorization": "Bearer k"}, "json": body}


def openai():
    """Requests are what is short."""
    limits = {"requests": JOBS // 2, "tokens": 1_000_000}
    strict = {"unit": "requests", "limit": limits["requests"], "window_ms": WINDOW_S * 1_000, "slack_ms": SLACK_MS}
    return Vendor("openai", "/v1/chat/completions", limits, {"tools": ["http.request"], "limits": [strict]})


def anthropic():
    """Tokens are what is short. More is reserved than is used, and given back when the answer tells its usage."""
    limits = {"requests": 100_000, "tokens": 8_000}
    strict = {"unit": "total_tokens", "limit": limits["tokens"], "window_ms": WINDOW_S * 1_000, "slack_ms": SLACK_MS}
    estimate = {"total_tokens": "(.json | tojson | length) / 3 + .json.max_tokens"}
    definition = {"tools": ["http.request"], "limits": [strict], "estimate": estimate}
    return Vendor("anthropic", "/v1/messages", limits, definition)


def start(pool, vendor, is_defined):
    """The programs, which know the service from their first job on, and the jobs."""
    if is_defined:
        file = pathlib.Path(pool.folder) / "service.json"
        file.write_text(json.dumps(vendor.definition))
        command = pool.start([PROGRAMS / "tidemill", "service", "set", "vendor", "--file", file, "--why", "their contract"])
        assert command.ended() == 0, command.all_lines()
    allowed = {"TIDEMILL_HTTP_ADDR": "127.0.0.1:0", "TIDEMILL_HTTP_REQUEST__ALLOW_NETWORKS": "127.0.0.0/8"}
    for name in ["tidemill-scheduler"] + ["tidemill-worker"] * WORKERS:
        pool.start([PROGRAMS / name], **allowed)
    until("all programs have announced themselves", lambda: pool.db("HLEN", PREFIX + "members") >= WORKERS + 1)
    for number in range(JOBS):
        pool.add("jobs:default", tool="http.request", id=f"call-{number}", reply_to=REPLIES, input=vendor.input(number))


def the_vendor_refuses_what_comes_without_a_service(vendor):
    with vendor, Pool(with_library=False) as pool:
        start(pool, vendor, False)
        until("the vendor refuses a call", lambda: vendor.seen()[1] > 0)
        return "{} calls, {} refused".format(*vendor.seen())


def tokens_of(result):
    usage = result["output"]["body"]["usage"]
    return usage.get("total_tokens") or usage["input_tokens"] + usage["output_tokens"]


def the_vendor_refuses_nothing_of_a_service(vendor):
    with vendor, Pool(with_library=False) as pool:
        start(pool, vendor, True)
        until("every job ended", lambda: pool.db("XLEN", REPLIES) >= JOBS, within_s=60)
        results, letters, (calls, refused) = pool.results(REPLIES), pool.letters(), vendor.seen()
    assert refused == 0, f"{refused} of {calls} calls were refused"
    assert calls == JOBS, f"{calls} calls for {JOBS} jobs"
    assert {result["id"] for result in results} == {f"call-{number}" for number in range(JOBS)} and len(results) == JOBS
    assert all(result["state"] == "succeeded" and result["attempts"] == 1 for result in results), results
    assert not letters, letters
    ends = sorted(result["finished_at_ms"] for result in results)
    used = sum(map(tokens_of, results)) / vendor.limits["tokens"] if vendor.dialect == "anthropic" else JOBS / vendor.limits["requests"]
    windows = (ends[-1] - ends[0]) / 1_000 / WINDOW_S
    assert used > 1.5, f"the jobs use {used:.2f} of a window's limit: too little to tell anything"
    assert used / windows > LEAST_USE, f"{used / windows:.2f} of the limit was used"
    return f"{calls} calls, none refused, {100 * used / windows:.0f} % of the limit used"


TESTS = [the_vendor_refuses_what_comes_without_a_service, the_vendor_refuses_nothing_of_a_service]


def run(vendor, words, passed, failed):
    for test in TESTS:
        name = f"{vendor.dialect}: {test.__name__}"
        if words and not any(word in name for word in words):
            continue
        begin = time.monotonic()
        try:
            told = test(vendor)
        except Exception:
            failed.append(name)
            print(f"failed  {name}\n{traceback.format_exc()}", flush=True)
        else:
            passed.append(name)
            print(f"passed  {name} ({time.monotonic() - begin:.1f} s): {told}", flush=True)


def main():
    missing = [name for name in ("tidemill", "tidemill-scheduler", "tidemill-worker") if not (PROGRAMS / name).exists()]
    if missing:
        print(f"{', '.join(missing)} not in {PROGRAMS}: cargo build --bins, or set TIDEMILL_BIN_DIR", file=sys.stderr)
        return 1
    serve.python()  # once, before two vendors want it
    passed, failed = [], []
    threads = [threading.Thread(target=run, args=[vendor, sys.argv[1:], passed, failed]) for vendor in (openai(), anthropic())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Shows that the public referee judges as serve.py says, before anything is judged by it: python tests/referee/check.py"""
import contextlib
import http.client
import json
import pathlib
import signal
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "clients"))
from pool import Process  # noqa: E402  (found beside the clients' tests)


@contextlib.contextmanager
def referee(*words):
    process = Process([sys.executable, HERE / "serve.py", *words])
    try:
        yield int(process.line("listening on ", 300).rsplit(":", 1)[1])
        process.signal(signal.SIGTERM)
        assert process.ended() == 0, process.all_lines()
    finally:
        process.kill()


def calls(port, count, body=b"", path="/call", key="k"):
    """(status, headers, answer) of so many calls over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        for _ in range(count):
            connection.request("POST", path, body=body, headers={"authorization": f"Bearer {key}"})
            answer = connection.getresponse()
            yield answer.status, answer.headers, json.loads(answer.read())
    finally:
        connection.close()


def the_call_above_the_limit_is_refused():
    with referee("--requests", "5") as port:
        seen = list(calls(port, 4)) + list(calls(port, 3, path="/v1/messages"))
        assert [status for status, _, _ in seen] == [200] * 5 + [429] * 2, seen
        assert seen[0][1]["x-ratelimit-limit-requests"] == "5" and seen[0][1]["x-ratelimit-remaining-requests"] == "4"
        assert 50_000 < int(seen[5][1]["retry-after-ms"]) <= 60_000, seen[5][1]
        assert seen[5][2]["error"]["code"] == "rate_limit_exceeded"
        assert [status for status, _, _ in calls(port, 1, key="other")] == [200]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/mocklimit/stats")
        stats = json.loads(connection.getresponse().read())
        assert stats["POST /v1/messages"] == {"k": {"total_requests": 3, "total_429s": 2}}, stats


def the_window_slides_and_what_is_refused_uses_nothing():
    with referee("--requests", "4", "--window-s", "1") as port:
        def status():
            return next(calls(port, 1))[0]

        first = time.monotonic()
        assert [status() for _ in range(4)] == [200] * 4
        last = time.monotonic()
        # a fixed window would begin anew in between; were refusals counted, none would ever pass
        early, late = [], []
        while (now := time.monotonic()) < last + 1.5:
            (early if now < first + 0.95 else late).append(status())
        assert set(early) == {429} and late.count(200) == 4, (early, late)


def tokens_come_from_the_body_and_are_told():
    with referee("--requests", "100", "--tokens", "1000", "--completion-tokens", "10", "--dialect", "anthropic") as port:
        (status, headers, answer), = calls(port, 1, body=b"x" * 400)
        assert status == 200 and answer["usage"]["input_tokens"] == 100 and answer["usage"]["output_tokens"] == 10, answer
        assert headers["anthropic-ratelimit-tokens-remaining"] == "890", headers
        assert headers["anthropic-ratelimit-requests-reset"].endswith("Z")
        (status, headers, answer), = calls(port, 1, body=b"x" * 3_600)
        assert status == 429 and 50 < int(headers["retry-after"]) <= 60 and answer["error"]["type"] == "rate_limit_error"


def measure(count=2_000):
    """How many calls it can judge: more than a test may send it."""
    with referee("--requests", "1000000", "--tokens", "100000000") as port:
        begin = time.monotonic()
        assert all(status == 200 for status, _, _ in calls(port, count))
        print(f"        {count / (time.monotonic() - begin):.0f} calls/s over one connection, {count} in the window")


def main():
    checks = [the_call_above_the_limit_is_refused, the_window_slides_and_what_is_refused_uses_nothing,
              tokens_come_from_the_body_and_are_told, measure]
    for check in checks:
        check()
        print(f"passed  {check.__name__}", flush=True)


if __name__ == "__main__":
    main()

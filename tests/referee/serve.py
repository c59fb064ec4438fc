"""Serves a public rate-limited API, mocklimit (https://pypi.org/project/mocklimit), for tests that need a judge from outside.

Usage: python tests/referee/serve.py --requests 600 --window-s 60 [--tokens 90000] [--completion-tokens 50] …   (--help)

mocklimit is installed once, into target/clients/mocklimit. When it takes calls, the first line on standard output is
`listening on http://127.0.0.1:<port>`; SIGTERM or Ctrl-C ends it. `POST /v1/chat/completions`, `POST /v1/messages` and
`POST /call` are counted together for each `authorization: Bearer <key>`; `GET /mocklimit/stats` tells, for each path
and key, `total_requests` and how many of them were `total_429s`. A refused call uses nothing.

A call uses one request and, if there is a limit of tokens, a quarter of its body's bytes as prompt tokens and
`--completion-tokens`; `usage` of the answer says so in the dialect's words. What one should know of mocklimit 0.6.0:
sliding_window is an exact log, but on the wall clock; a part of a cost that comes to 0 counts 1; `retry-after` tells when
the oldest call leaves, which may be too early for a large one; it knows no concurrency, and keeps no log of arrivals.
"""
import argparse
import json
import os
import pathlib
import signal
import socket
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
PATHS = ["/v1/chat/completions", "/v1/messages", "/call"]
ANSWER = {"application/json": {"schema": {"type": "object", "properties": {"ok": {"type": "boolean"}}}}}
PROMPT, COMPLETION, TOTAL = 0, 1, 2
NAMES = {
    "openai": ("prompt_tokens", "completion_tokens", "total_tokens"),
    "anthropic": ("input_tokens", "output_tokens", "total_tokens"),
}


def options(words):
    parser = argparse.ArgumentParser(description="Serves mocklimit with one policy.")
    parser.add_argument("--requests", type=int, required=True, help="the limit of requests in a window")
    parser.add_argument("--tokens", type=int, help="the limit of prompt and completion tokens in a window")
    parser.add_argument("--window-s", type=float, default=60.0, help="the window, in seconds (default 60)")
    parser.add_argument("--completion-tokens", type=int, default=10, help="what every call makes (default 10)")
    parser.add_argument("--strategy", choices=["sliding_window", "fixed_window", "token_bucket"], default="sliding_window")
    parser.add_argument("--dialect", choices=["openai", "anthropic"], default="openai", help="of headers, usage, refusals")
    parser.add_argument("--latency-ms", type=int, default=0, help="what an answer takes (default 0)")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    return parser.parse_args(words)


def headers(dialect, unit):
    if dialect == "openai":
        return {part: f"x-ratelimit-{part}-{unit}" for part in ("limit", "remaining", "reset")}
    return {part: f"anthropic-ratelimit-{unit}-{part}" for part in ("limit", "remaining", "reset")}


def limit(options, unit, dimension, amount):
    rule = {"dimension": dimension, "headers": headers(options.dialect, unit)}
    if options.strategy == "token_bucket":
        return {**rule, "capacity": amount, "refill_rate": amount / options.window_s}
    return {**rule, "limit": amount, "window_seconds": options.window_s}


def policy(options):
    limits = [limit(options, "requests", "requests", options.requests)]
    if options.tokens is not None:
        limits.append(limit(options, "tokens", NAMES[options.dialect][TOTAL], options.tokens))
    openai = options.dialect == "openai"
    wait = {"header": "retry-after-ms", "unit": "milliseconds"} if openai else {"header": "retry-after", "unit": "seconds"}
    form = {"reset": "go_duration" if openai else "rfc3339", "retry_after": wait}
    template = {"provider": options.dialect}
    return {"strategy": options.strategy, "scope": "api_key", "limits": limits, "format": form, "error_template": template}


def resources(options):
    def cost(read, made):
        size = {"strategy": "characters_div_4"} if read else {"strategy": "fixed", "value": 0}
        return {"input": size, "output": {"strategy": "fixed", "value": options.completion_tokens if made else 0}}

    fixed = [{"strategy": "fixed", "value": amount} for amount in (1, 0)]
    names = NAMES[options.dialect]
    used = {names[PROMPT]: cost(True, False), names[COMPLETION]: cost(False, True), names[TOTAL]: cost(True, True)}
    return {"requests": {"input": fixed[0], "output": fixed[1]}, **(used if options.tokens is not None else {})}


def write(folder, options):
    """The two files that mocklimit reads; JSON is YAML too."""
    operation = {"responses": {"200": {"description": "done", "content": ANSWER}}}
    spec = {"openapi": "3.0.0", "info": {"title": "referee", "version": "1"}, "paths": {path: {"post": operation} for path in PATHS}}
    timing = {"base_ms": [options.latency_ms, options.latency_ms]}
    endpoint = {"methods": ["POST"], "policy": "all", "resources": resources(options), "timing": timing}
    config = {"policies": {"all": policy(options)}, "endpoints": {path: endpoint for path in PATHS}}
    files = []
    for name, content in (("spec.yaml", spec), ("limits.yaml", config)):
        file = pathlib.Path(folder) / name
        file.write_text(json.dumps(content))
        files.append(str(file))
    return files


def serve(options):
    import uvicorn
    from mocklimit.logging import configure_logging
    from mocklimit.server import create_app

    configure_logging(level="ERROR")
    with tempfile.TemporaryDirectory(prefix="tidemill-referee-") as folder:
        app = create_app(*write(folder, options))
    # asyncio sends without delay only on sockets that say they are TCP
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", options.port))
        listener.listen(1024)
        print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run(sockets=[listener])


def python():
    """The Python that has mocklimit, which is installed if it is not there."""
    sys.path.insert(0, str(HERE.parent / "clients"))
    import setup

    lock = HERE / "requirements.txt"

    def install(folder):
        setup.run([sys.executable, "-m", "venv", "--clear", folder], folder)
        setup.run([folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "-r", lock], folder)

    return setup.installed("mocklimit", lock, install) / "bin" / "python"


def main():
    asked = options(sys.argv[1:])
    if os.environ.get("TIDEMILL_REFEREE_INSTALLED") != "1":
        own = str(python())
        os.execve(own, [own, __file__, *sys.argv[1:]], {**os.environ, "TIDEMILL_REFEREE_INSTALLED": "1"})
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        serve(asked)
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()

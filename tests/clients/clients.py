"""Every client enqueues jobs and runs, and reads back what the pool made of them."""
import json
import os
import subprocess

import setup
from pool import PREFIX, ROOT, Pool, until

LANGUAGES = {"python": ["json", "msgpack", "run"], "node": ["json", "msgpack", "run"], "go": ["json", "msgpack", "run"],
             "java": ["json", "msgpack", "run"], "shell": ["json", "run"]}
NUMBERS = {"json": 1, "msgpack": 2}


def run_all(report, binaries):
    missing = [name for name in ("tidemill-worker", "tidemill-scheduler") if not (binaries / name).exists()]
    if missing and "TIDEMILL_BIN_DIR" not in os.environ:
        for language in LANGUAGES:
            report.tell("skipped", f"clients/{language}", f": {' and '.join(missing)} not in {binaries}")
        return
    report.run("clients: the pool starts", lambda: with_pool(report, binaries))


def with_pool(report, binaries):
    with Pool(with_library=False) as pool:
        publish(pool)
        listen = {"TIDEMILL_HTTP_ADDR": "127.0.0.1:0"}
        for name in ("tidemill-scheduler", "tidemill-worker"):
            pool.start([binaries / name], **listen)
        until("worker and scheduler have announced themselves", lambda: pool.db("HLEN", PREFIX + "members") >= 2)
        for language, kinds in LANGUAGES.items():
            report.run(f"clients/{language}", enqueues_and_reads_back, pool, language, kinds)
        left = pool.letters()
        assert not left, f"dead letters: {left}"


def publish(pool):
    """Stores the definition as `tidemill workflow publish` does; the keys are Tidemill's own and not for clients."""
    source = (ROOT / "examples" / "clients" / "greet.yaml").read_text()
    pool.db("HSET", PREFIX + "workflow:greet", 1, source)
    pool.db("HSET", PREFIX + "workflows", "greet", 1)


def enqueues_and_reads_back(pool, language, kinds):
    words, folder = setup.client(language)
    environment = {**os.environ, "REDIS_URL": pool.url}
    done = subprocess.run([str(word) for word in words] + kinds, cwd=folder, env=environment, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
    results = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert sorted(results) == sorted(kinds), done.stdout
    for kind, text in results.items():
        result = json.loads(text)
        wanted = {"text": f"hello {language.upper()}"} if kind == "run" else {"from": language, "n": NUMBERS[kind]}
        assert result["state"] == "succeeded" and result["error"] is None, result
        assert result["output"] == wanted, result

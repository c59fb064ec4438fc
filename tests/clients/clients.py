"""Every client enqueues jobs and runs, and reads back what the pool made of them."""
import hashlib
import json
import os
import signal
import subprocess

import setup
import workers
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
    report.run("pool: clients and workers leave no dead letter that they should not", with_pool, report, binaries)


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
        for language in ("python", "node"):
            for test in (a_foreign_worker_is_served_by_the_scheduler, a_dead_foreign_worker_loses_its_work_and_nothing_else):
                report.run(f"pool/{language}: {test.__name__}", test, pool, language)


def publish(pool):
    """Stores the definition as `tidemill workflow publish` does; the keys are Tidemill's own and not for clients."""
    source = (ROOT / "examples" / "clients" / "greet.yaml").read_text()
    define(pool, "greet", source)


def define(pool, name, source):
    text = source.encode() if isinstance(source, str) else source
    pool.db("HSET", f"{PREFIX}versions:{name}", "1", "active", "1:sha256", hashlib.sha256(text).hexdigest(), "1:at", 1)
    pool.db("HSET", f"{PREFIX}workflow:{name}", 1, source)
    pool.db("HSET", PREFIX + "workflows", name, 1)


def a_foreign_worker_is_served_by_the_scheduler(pool, language):
    """Delays and retries are promoted, cancelling reaches it, and a workflow that names its queue fails with the reason."""
    replies = f"{PREFIX}reply:{language}"
    worker = workers.Language(language, *setup.worker(language)).on(pool, QUEUE=language)
    ends = lambda job: next((result for result in pool.results(replies) if result["id"] == job), None)
    pool.add(f"jobs:{language}", tool="demo.flaky", input={"failures": 2}, id=f"{language}-retried", reply_to=replies)
    delayed = pool.add(f"jobs:{language}", tool="text.reverse", input={"text": "ab"}, delay_ms=400, reply_to=replies)
    define(pool, f"{language}-flow", f"name: {language}-flow\nsteps: [{{ id: a, tool: echo, queue: {language} }}]\n")
    pool.add("runs", workflow=f"{language}-flow", id=f"{language}-run", reply_to=replies)
    retried = until("the retried job ends", lambda: ends(f"{language}-retried"))
    assert retried["state"] == "succeeded" and retried["attempts"] == 3, retried
    assert until("the delayed job ends", lambda: ends(delayed))["output"] == {"text": "ba"}
    run = until("the run ends", lambda: ends(f"{language}-run"))
    assert run["state"] == "failed" and run["error"]["code"] == "unsupported_part", run
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0
    until("its queue is empty", lambda: pool.length(language) == 0 and not pool.held(language))


def a_dead_foreign_worker_loses_its_work_and_nothing_else(pool, language):
    """One worker is killed and one is paused in mid-work: the scheduler moves what they hold, and each job ends once."""
    replies = f"{PREFIX}reply:{language}-deaths"
    own = workers.Language(language, *setup.worker(language))
    killed, paused = own.on(pool, QUEUE=language, SLOTS="3"), own.on(pool, QUEUE=language, SLOTS="3")
    for number in range(6):
        pool.add(f"jobs:{language}", tool="text.reverse", input={"text": f"{number}", "after_ms": 1500}, reply_to=replies)
    until("both hold work", lambda: len({holder for _, holder in pool.held(language)}) == 2 and len(pool.held(language)) == 6)
    killed.kill()
    paused.signal(signal.SIGSTOP)
    rescuer = own.on(pool, QUEUE=language, SLOTS="6")
    until("every job ended", lambda: len(pool.results(replies)) == 6, within_s=20)
    paused.signal(signal.SIGCONT)
    for _ in range(3):
        paused.line("stale ")
    assert len({result["id"] for result in pool.results(replies)}) == 6 and len(pool.results(replies)) == 6
    for worker in (paused, rescuer):
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
    assert pool.length(language) == 0 and not pool.held(language)


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

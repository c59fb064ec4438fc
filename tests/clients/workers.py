"""What every worker must do, whatever its language. Each test has a server of its own."""
import base64
import json
import signal
import time

from pool import PREFIX, ROOT, Pool, until

DEATH_PERIOD_S = 5
REPLIES = PREFIX + "reply:test"


class Language:
    """Starts one language's worker."""

    def __init__(self, name, words, folder):
        self.name, self.words, self.folder = name, words, folder

    def on(self, pool, **environment):
        worker = pool.start(self.words, self.folder, **{"QUEUE": "own", **environment})
        worker.consumer = worker.line("ready ").split()[1]
        return worker


def a_job_with_a_foreign_tool_runs_and_leaves_nothing_but_its_result(language):
    with Pool() as pool:
        language.on(pool)
        pool.add("jobs:own", tool="text.reverse", input={"text": "stream"}, id="j1", result_ttl_ms=60000, reply_to=REPLIES)
        result = pool.result(REPLIES)
        assert result["output"] == {"text": "maerts"} and result["state"] == "succeeded" and result["attempts"] == 1, result
        assert json.loads(pool.db("GET", PREFIX + "result:j1")) == result
        plain = pool.add("jobs:own", tool="text.reverse", input={"text": "x"})
        until("the plain job is gone", lambda: pool.length("own") == 0)
        assert pool.db("GET", f"{PREFIX}result:{plain}") is None
        assert not pool.held("own") and not pool.letters()


def a_paused_worker_settles_nothing_once_its_work_was_moved(language):
    with Pool() as pool:
        slow = language.on(pool)
        pool.add("jobs:own", tool="text.reverse", input={"text": "abc", "after_ms": 3000}, reply_to=REPLIES)
        [(entry, holder)] = until("the job is claimed", lambda: pool.held("own"))
        assert holder == slow.consumer
        beat = lambda: pool.db("HGET", PREFIX + "beats", slow.consumer)
        stream = f"{PREFIX}jobs:own"
        move = lambda seen: pool.db.function("tm1_release", [stream, PREFIX + "beats", stream, stream, stream],
                                             ["workers", "test", slow.consumer, seen, 1, 1, entry, "", "", 1])
        early = beat()
        until("the worker beats", lambda: beat() != early)
        assert move(early) == [], "nothing is taken from a worker that beats"
        slow.signal(signal.SIGSTOP)
        seen = beat()
        stands = time.monotonic()
        until("the death period is over", lambda: time.monotonic() - stands > DEATH_PERIOD_S)
        assert beat() == seen
        [moved] = move(seen)
        assert moved and moved != entry
        assert move(seen) == [""], "it is moved once"
        quick = language.on(pool)
        quick.line("done ")
        slow.signal(signal.SIGCONT)
        slow.line("stale ")
        assert len(pool.results(REPLIES)) == 1, pool.results(REPLIES)
        assert not pool.held("own") and pool.length("own") == 0 and not pool.letters()
        pool.add("jobs:own", tool="text.reverse", input={"text": "d"}, reply_to=REPLIES)
        until("the pool goes on", lambda: len(pool.results(REPLIES)) == 2)


def a_draining_worker_hands_back_what_it_cannot_finish(language):
    with Pool() as pool:
        worker = language.on(pool, GRACE_MS="300")
        first = pool.add("jobs:own", tool="text.reverse", input={"text": "abc", "after_ms": 20000})
        until("the job is claimed", lambda: pool.held("own"))
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
        assert not pool.held("own") and pool.length("own") == 1
        [(entry, flat)] = pool.db("XRANGE", f"{PREFIX}jobs:own", "-", "+")
        fields = dict(zip(flat[::2], flat[1::2]))
        assert entry != first and fields["_entry"] == first and fields["_deaths"] == "0", fields
        assert pool.db("HLEN", PREFIX + "beats") == 0 and pool.db("HLEN", PREFIX + "members") == 0
        assert pool.db("XINFO", "CONSUMERS", f"{PREFIX}jobs:own", "workers") == []


def a_draining_worker_finishes_what_it_can(language):
    with Pool() as pool:
        worker = language.on(pool)
        pool.add("jobs:own", tool="text.reverse", input={"text": "abc", "after_ms": 700}, reply_to=REPLIES)
        until("the job is claimed", lambda: pool.held("own"))
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
        assert pool.result(REPLIES)["output"] == {"text": "cba"}
        assert pool.length("own") == 0


def a_failed_attempt_waits_in_redis_and_the_last_one_is_buried(language):
    with Pool() as pool:
        language.on(pool)
        pool.add("jobs:own", tool="demo.flaky", input={"failures": 1}, id="good", reply_to=REPLIES)
        pool.add("jobs:own", tool="demo.flaky", input={"failures": 9}, id="bad", max_attempts=2, reply_to=REPLIES)
        for member in ("j:good", "j:bad"):
            until(f"{member} is promoted", lambda member=member: pool.promote("own", member))
        until("both ended", lambda: len(pool.results(REPLIES)) == 2)
        results = {result["id"]: result for result in pool.results(REPLIES)}
        assert results["good"]["state"] == "succeeded" and results["good"]["output"] == {"attempt": 2}, results
        assert results["bad"]["state"] == "failed" and results["bad"]["error"]["code"] == "flaky" and results["bad"]["attempts"] == 2, results
        [letter] = pool.letters()
        assert letter["code"] == "flaky" and letter["attempts"] == "2" and letter["job.id"] == "bad", letter
        assert not [name for name in letter if name.startswith("job._")], letter


def a_second_job_of_an_id_is_dropped(language):
    with Pool() as pool:
        worker = language.on(pool)
        for _ in range(3):
            pool.add("jobs:own", tool="text.reverse", input={"text": "abc"}, id="once", reply_to=REPLIES)
        worker.line("dropped once")
        worker.line("dropped once")
        until("all are settled", lambda: pool.length("own") == 0)
        assert len(pool.results(REPLIES)) == 1


def a_delayed_job_does_not_start_early(language):
    with Pool() as pool:
        worker = language.on(pool)
        entry = pool.add("jobs:own", tool="text.reverse", input={"text": "abc"}, delay_ms=1500, reply_to=REPLIES)
        worker.line("ready " + entry)
        assert not pool.promote("own", f"j:{entry}")
        until("it is due", lambda: pool.promote("own", f"j:{entry}"))
        result = pool.result(REPLIES)
        assert result["id"] == entry, "a job that moved keeps its id"
        assert result["finished_at_ms"] - int(entry.split("-")[0]) >= 1500, result


def a_delayed_job_that_was_handed_back_still_waits(language):
    with Pool() as pool:
        now = int(pool.db("TIME")[0]) * 1000
        pool.add("jobs:own", tool="text.reverse", input={"text": "abc"}, delay_ms=600000, _entry=f"{now}-0", _deaths=0, reply_to=REPLIES)
        language.on(pool).line(f"ready {now}-0")
        assert pool.db("ZSCORE", PREFIX + "due:own", f"j:{now}-0") == str(now + 600000)
        assert pool.length("own") == 0 and not pool.results(REPLIES)


def a_cancelled_job_stops(language):
    with Pool() as pool:
        language.on(pool)
        pool.add("jobs:own", tool="text.reverse", input={"text": "abc", "after_ms": 60000}, id="long", reply_to=REPLIES)
        until("the job is claimed", lambda: pool.held("own"))
        keys = [PREFIX + name for name in ("jobs:own", "due:own", "deferred:own", "cancelled", "result:long")]
        assert pool.db.function("tm1_cancel", keys, ["long", "workers", "test"]) == "requested"
        result = pool.result(REPLIES)
        assert result["state"] == "cancelled" and result["error"]["code"] == "cancelled" and result["output"] is None, result
        assert not pool.letters()


def a_timed_out_and_an_overdue_job_say_so(language):
    with Pool() as pool:
        pool.add("jobs:own", tool="text.reverse", input={"text": "abc", "after_ms": 60000}, id="long", timeout_ms=200, max_attempts=1, reply_to=REPLIES)
        overdue = pool.add("jobs:own", tool="text.reverse", input={"text": "abc"}, id="late", deadline_ms=0, reply_to=REPLIES)
        time_of = lambda: int(pool.db("TIME")[0]) * 1000 + int(pool.db("TIME")[1]) // 1000
        until("the deadline passes", lambda: time_of() > int(overdue.split("-")[0]) + 5)
        language.on(pool)
        until("both ended", lambda: len(pool.results(REPLIES)) == 2)
        codes = {result["id"]: (result["state"], result["error"]["code"]) for result in pool.results(REPLIES)}
        assert codes == {"long": ("timed_out", "timeout"), "late": ("timed_out", "deadline_exceeded")}, codes


def a_step_of_a_workflow_ends_its_run_with_the_reason(language):
    with Pool() as pool:
        pool.db("HSET", PREFIX + "run:r1", "st", "running", "wf", "w@1", "in", "{}", "rp", REPLIES, "q", 0, "s0", "ready 1 1 - - - 1-1 own")
        pool.db("ZADD", PREFIX + "live", "+inf", "r1")
        language.on(pool)
        pool.add("jobs:own", run="r1", wf="w@1", step=0, attempt=1)
        result = pool.result(REPLIES)
        assert result["state"] == "failed" and result["error"]["code"] == "unsupported_part", result
        until("the entry is settled", lambda: pool.length("own") == 0)
        assert not pool.held("own")


def the_connection_breaks_and_nothing_is_lost(language):
    with Pool() as pool:
        language.on(pool)
        for number in range(40):
            pool.add("jobs:own", tool="text.reverse", input={"text": str(number), "after_ms": 20}, reply_to=REPLIES)
            if number % 10 == 5:
                pool.db("CLIENT", "KILL", "TYPE", "normal")
        until("all ended", lambda: pool.length("own") == 0 and not pool.held("own"))
        assert len(pool.results(REPLIES)) == 40, len(pool.results(REPLIES))


def what_cannot_begin_is_buried_with_its_reason(language):
    with Pool() as pool:
        language.on(pool)
        wanted = {
            "unknown_tool": pool.add("jobs:own", tool="nobody.knows"),
            "wrong_stream": pool.add("jobs:own", workflow="refund"),
            "crash_budget": pool.add("jobs:own", tool="text.reverse", _deaths=3),
            "invalid_reply_to": pool.add("jobs:own", tool="text.reverse", reply_to=PREFIX + "jobs:default"),
            "invalid_input": pool.add("jobs:own", tool="text.reverse", input={"text": 1}),
        }
        until("all are settled", lambda: pool.length("own") == 0 and not pool.held("own"))
        assert {letter["code"]: letter["entry"] for letter in pool.letters()} == wanted, pool.letters()
        assert pool.length("default") == 0, "a reply forged work"


def bytes_of(value):
    if isinstance(value, str):
        return value.encode()
    return base64.b64decode(value["base64"]) if "base64" in value else value["repeat"].encode() * value["times"]


def first_entry(vector, entry):
    """What a dead letter names: the first entry of a job that moved."""
    return next((value for name, value in vector["fields"] if name == "_entry"), entry)


def every_vector_is_read_as_the_contract_says(language):
    vectors = json.loads((ROOT / "schema" / "vectors" / "entries.json").read_text())
    with Pool() as pool:
        entries = {}
        for vector in vectors:
            flat = [bytes_of(part) for pair in vector["fields"] for part in pair]
            if flat:
                entries[pool.db("XADD", f"{PREFIX}jobs:own", "*", *flat)] = vector
        language.on(pool)
        until("all are settled", lambda: pool.length("own") == 0 and not pool.held("own"))
        letters = {letter["entry"]: letter for letter in pool.letters()}
        for entry, vector in entries.items():
            letter = letters.get(first_entry(vector, entry), {})
            found = letter.get("code", "none")
            refused = found in ("malformed", "unknown_field", "too_large", "unsupported_version")
            wanted = vector.get("code", "a job")
            assert found == wanted if not vector["ok"] else not refused, f"{vector['name']}: wanted {wanted}, found {found}: {letter}"
            if refused:
                kept = [bytes_of(part) for name, value in vector["fields"] for part in (name, value)]
                first = kept[0].decode()
                assert f"job.{first}" in letter, f"{vector['name']}: the original fields are kept: {letter}"


ALL = [
    a_job_with_a_foreign_tool_runs_and_leaves_nothing_but_its_result,
    a_paused_worker_settles_nothing_once_its_work_was_moved,
    a_draining_worker_hands_back_what_it_cannot_finish,
    a_draining_worker_finishes_what_it_can,
    a_failed_attempt_waits_in_redis_and_the_last_one_is_buried,
    a_second_job_of_an_id_is_dropped,
    a_delayed_job_does_not_start_early,
    a_delayed_job_that_was_handed_back_still_waits,
    a_cancelled_job_stops,
    a_timed_out_and_an_overdue_job_say_so,
    a_step_of_a_workflow_ends_its_run_with_the_reason,
    the_connection_breaks_and_nothing_is_lost,
    what_cannot_begin_is_buried_with_its_reason,
    every_vector_is_read_as_the_contract_says,
]

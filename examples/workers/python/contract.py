"""Reads an entry as docs/protocol.md says: every field that the contract knows, strictly; nothing that it does not know."""
import json
import re

import msgpack

ID = re.compile(rb"[A-Za-z0-9._:@/-]{1,128}")
NUMBER = re.compile(rb"[0-9]{1,20}")
DIGIT = re.compile(rb"[0-9]")
ENTRY = re.compile(rb"[0-9]{1,20}-[0-9]{1,20}")
TARGET = re.compile(rb"[A-Za-z0-9._@/-]{1,128}")
TEXT = re.compile(rb".*", re.DOTALL)
LABEL = re.compile(r"[A-Za-z0-9._/-]{1,64}")
RULES = {
    b"tool": TARGET,
    b"workflow": TARGET,
    b"input": TEXT,
    b"enc": re.compile(rb"json|msgpack"),
    b"id": ID,
    **dict.fromkeys([b"tenant", b"user"], re.compile(rb"[!-~]{1,128}")),
    b"priority": DIGIT,
    b"queue": re.compile(rb"[A-Za-z0-9._-]{1,64}"),
    b"mode": re.compile(rb"classic|state_machine|optimized|hybrid"),
    b"labels": TEXT,
    **dict.fromkeys([b"delay_ms", b"run_at_ms", b"timeout_ms", b"deadline_ms", b"max_attempts", b"result_ttl_ms"], NUMBER),
    **dict.fromkeys([b"reply_to", b"traceparent", b"tracestate", b"v", b"_why", b"_ticket", b"_score"], TEXT),
    b"_entry": ENTRY,
    **dict.fromkeys([b"_attempts", b"_deaths", b"_first_ms"], NUMBER),
}
NUMBERS = {name.decode() for name, rule in RULES.items() if rule in (NUMBER, DIGIT)}
U32 = {"max_attempts", "_attempts", "_deaths"}
MAX_FIELDS, CRASH_BUDGET = 64, 3
MAX_INPUT_BYTES = 1024 * 1024


class Malformed(Exception):
    """The entry is no job; it goes to the dead letters with this code and sentence."""

    def __init__(self, code, reason):
        super().__init__(reason)
        self.code = code


def read(pairs):
    """The job of an entry's (name, value) pairs in bytes: its fields as text and numbers, `input` as a value."""
    fields = {}
    if len(pairs) > MAX_FIELDS:
        raise Malformed("malformed", f"the entry has more than {MAX_FIELDS} fields")
    for name, value in pairs:
        rule = RULES.get(name)
        if rule is None:
            if name.startswith((b"x-", b"_")):
                continue
            raise Malformed("unknown_field", f"field {name[:40]!r} is unknown; prefix your own with x-")
        if name in fields:
            raise Malformed("malformed", f"field {name.decode()} is there twice")
        if name == b"input" and len(value) > MAX_INPUT_BYTES:
            raise Malformed("too_large", f"the input has {len(value)} bytes; {MAX_INPUT_BYTES} are allowed")
        if name == b"v" and value != b"1":
            raise Malformed("unsupported_version", f"contract version {value[:40]!r} is not known here; 1 is")
        if not rule.fullmatch(value):
            raise Malformed("malformed", f"field {name.decode()} has no valid value: {value[:40]!r}")
        fields[name] = value
    if (b"tool" in fields) == (b"workflow" in fields):
        raise Malformed("malformed", "the entry needs exactly one of tool and workflow")
    try:
        job = {name.decode(): value.decode() for name, value in fields.items() if name != b"input"}
        job["input"] = decode(fields.get(b"input", b"{}"), job.get("enc", "json"))
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise Malformed("malformed", f"the entry is not well-formed: {error}") from error
    if "labels" in job and not are_labels(job["labels"]):
        raise Malformed("malformed", "field labels is no JSON object of at most 32 short texts, numbers or truth values")
    for name in NUMBERS & job.keys():
        job[name] = int(job[name])
        if job[name] >= 1 << (32 if name in U32 else 64):
            raise Malformed("malformed", f"field {name} is too large a number")
    return job


def are_labels(text):
    try:
        labels = json.loads(text)
    except ValueError:
        return False
    fits = lambda value: isinstance(value, (bool, int, float)) or isinstance(value, str) and 0 < len(value.encode()) <= 256 and value.isprintable()
    return isinstance(labels, dict) and len(labels) <= 32 and all(LABEL.fullmatch(name) and fits(value) for name, value in labels.items())


def decode(data, encoding):
    """The value of an input."""
    if encoding == "msgpack":
        return msgpack.unpackb(data, strict_map_key=False)
    return json.loads(data.decode(), parse_constant=lambda word: json.loads(f"<{word}>"))


def due_ms(job, born_ms):
    """When the job may begin, by Redis's clock: the later of what it asks for; 0 when it asks for nothing, or has waited already."""
    if "_why" in job:
        return 0
    return max(born_ms + job["delay_ms"] if "delay_ms" in job else 0, job.get("run_at_ms", 0))


def refusal(job, tools, overdue):
    """Why the job cannot begin here: state, code and sentence; or None."""
    if overdue:
        return "timed_out", "deadline_exceeded", "its deadline passed before it began"
    if job.get("_deaths", 0) >= CRASH_BUDGET:
        return "failed", "crash_budget", f"{job['_deaths']} workers died while they held it"
    if "workflow" in job:
        return "failed", "wrong_stream", "runs are asked for in the stream runs"
    if job["tool"] not in tools:
        return "failed", "unknown_tool", f"this worker has no tool {job['tool']}; it has {', '.join(tools)}"
    return None


def may_reply_to(stream, namespace, prefix):
    """Results go to streams outside the namespace, or to its reply streams: never where they could forge work."""
    return not stream.startswith(f"{namespace}:{{") or stream.startswith(f"{prefix}reply:")

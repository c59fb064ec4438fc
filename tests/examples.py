#!/usr/bin/env python3
"""Runs every examples/*/run.sh as a user does and compares what it prints with what its README says that it prints.

Times, ports and names of workers differ from run to run, and with them the widths of columns: they are levelled on both sides.
Names of examples as arguments run just these.
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(os.environ.get("TIDEMILL_BIN_DIR", ROOT / "target" / "debug"))
NEEDS = {"shared-limit": ["redis-cli", "curl"]}
# whose numbers differ from run to run: what they must say instead
SAYS = {
    "shared-limit": ({"JOBS": "60"}, ['"calls": 60, "refused": 0', r"the first worker made [1-9]\d* calls, the second [1-9]\d*\n"]),
}
LEVELLED = [
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z", "AT"),
    (r"\b\d+(\.\d+)? (ms|s)\b", "TIME"),
    (r"127\.0\.0\.1:\d+", "ADDRESS"),
    (r"\S+-\d+-[0-9a-f]{6}\b", "WORKER"),
    (r" +", " "),
    (r" $", ""),
]


def level(text):
    for pattern, word in LEVELLED:
        text = re.sub(pattern, word, text, flags=re.M)
    return text.strip().splitlines()


def shown(readme):
    """The last text block of a README: what run.sh prints."""
    blocks = re.findall(r"^```text\n(.*?)^```", readme.read_text(), re.S | re.M)
    assert blocks, f"{readme} does not show what run.sh prints: there is no text block"
    return blocks[-1]


class Run:
    """A run.sh from an empty folder, in a process group of its own, with a pool around that it must not touch."""

    def __init__(self, name, folder, more=None):
        self.name, self.folder = name, Path(folder)
        env = {"PATH": os.environ["PATH"], "HOME": folder, "TMPDIR": folder, "BIN_DIR": str(BIN), "TIDEMILL_REDIS_URL": "redis://127.0.0.1:1/0"}
        self.process = subprocess.Popen(
            [ROOT / "examples" / name / "run.sh"], cwd="/", env={**env, **(more or {})}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )

    def end(self, expected=0):
        try:
            out, err = self.process.communicate(timeout=180)
        except subprocess.TimeoutExpired as over:
            raise AssertionError(f"{self.name} does not end: {over.stdout}") from over
        finally:
            self.kill()
        assert self.process.returncode == expected, f"{self.name} ended with {self.process.returncode}:\n{out}\n{err}"
        left = [path.name for path in self.folder.iterdir()]
        assert not left, f"{self.name} leaves behind {left}"
        return out

    def kill(self):
        """Ends what is left of it; that anything is, is a failure of the example."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                return
            if self.process.poll() is None:
                break
            time.sleep(0.05)
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        raise AssertionError(f"{self.name} left processes behind")


def compare(name):
    missing = [program for program in NEEDS.get(name, []) if not shutil.which(program)]
    if missing:
        return f"skip  {name}: {' and '.join(missing)} not on PATH"
    more, patterns = SAYS.get(name, ({}, None))
    with tempfile.TemporaryDirectory() as folder:
        out = Run(name, folder, more).end()
    if patterns is not None:
        for pattern in patterns:
            assert re.search(pattern, out), f"{name} does not say {pattern}:\n{out}"
        return None
    expected, seen = level(shown(ROOT / "examples" / name / "README.md")), level(out)
    for number, (one, other) in enumerate(zip(expected, seen)):
        assert one == other, f"{name} differs from its README in line {number + 1}:\n  README: {one}\n  run.sh: {other}\n\n{out}"
    assert len(expected) == len(seen), f"{name} printed {len(seen)} lines, its README shows {len(expected)}:\n{out}"
    return None


def interrupt():
    """Ctrl-C while the loser of the race is still asked: everything ends, and nothing is left."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run("race", folder)
        line = run.process.stdout.readline()
        assert "published" in line, f"race began with {line!r}"
        os.killpg(run.process.pid, signal.SIGINT)
        run.end(130)


def main():
    there = sorted(path.parent.name for path in (ROOT / "examples").glob("*/run.sh"))
    asked = sys.argv[1:] or there
    assert set(asked) <= set(there), f"there are {there}"
    failed = 0
    for name, test in [*((name, lambda name=name: compare(name)) for name in asked), ("interrupted by Ctrl-C", interrupt)]:
        start = time.monotonic()
        try:
            skipped = test()
            print(skipped or f"ok    {name} ({time.monotonic() - start:.1f} s)", flush=True)
        except AssertionError as error:
            failed += 1
            print(f"FAIL  {name}: {error}", flush=True)
    print(f"{len(asked) + 1 - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

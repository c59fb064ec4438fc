"""Private servers and processes for the tests. Everything that is started here is ended here, by its own pid."""
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from resp import Redis

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "target" / "clients"
PREFIX = "tm:{0}:"


def until(what, condition, within_s=20):
    """Polls for what only Redis can tell; fails with a sentence."""
    end = time.monotonic() + within_s
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {within_s} s: {what}")
        time.sleep(0.01)
    return found


def library():
    """The function library, put together as crates/tidemill-store/src/library.rs does."""
    store = ROOT / "crates" / "tidemill-store"
    source = (store / "src" / "library.rs").read_text()
    version = re.search(r"LIBRARY_VERSION: u32 = (\d+)", source)[1]
    name = re.search(r'LIBRARY_NAME: &str = "(\w+)"', source)[1]
    parts = re.search(r"const TEXT: &str = concat!\((.*?)^\);", source, re.S | re.M)[1]
    head = f"#!lua name={name}\nlocal TIDEMILL_LIBRARY_VERSION = {version}\n"
    text = ""
    for file, literal in re.findall(r'^\s*(?:include_str!\("\.\./(lua/\w+\.lua)"\)|"(.*)"),$', parts, re.M):
        text += (store / file).read_text() if file else literal.replace("\\n", "\n")
    return head + text


class Process:
    """A child whose lines of output can be waited for."""

    def __init__(self, words, folder=None, **environment):
        self.name = os.path.basename(str(words[0]))
        self.child = subprocess.Popen([str(word) for word in words], cwd=folder, env={**os.environ, **environment}, text=True,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        self.lines, self.seen = queue.Queue(), []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.child.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def line(self, start, within_s=30):
        """The next line that begins with `start`."""
        end = time.monotonic() + within_s
        while True:
            try:
                line = self.lines.get(timeout=max(end - time.monotonic(), 0))
            except queue.Empty:
                raise AssertionError(f"{self.name} did not print {start!r} within {within_s} s, but:\n" + "\n".join(self.seen[-20:])) from None
            if line is None:
                self.lines.put(None)
                raise AssertionError(f"{self.name} ended without printing {start!r}:\n" + "\n".join(self.seen[-20:]))
            self.seen.append(line)
            if line.startswith(start):
                return line

    def all_lines(self):
        self.reader.join(5)
        while (line := self.lines.get()) is not None:
            self.seen.append(line)
        self.lines.put(None)
        return self.seen

    def signal(self, number):
        self.child.send_signal(number)

    def ended(self, within_s=20):
        return self.child.wait(within_s)

    def kill(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGCONT)
            self.child.kill()
            self.child.wait()


class Pool:
    """A Redis server of its own, and the processes on it."""

    def __init__(self, with_library=True):
        self.folder = tempfile.mkdtemp(prefix="tidemill-clients-")
        self.processes = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        words = ["redis-server", "--port", self.port, "--bind", "127.0.0.1", "--save", "", "--dir", self.folder, "--loglevel", "warning", "--logfile", "redis.log"]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start(words)
        until("redis-server answers", self._answers)
        self.db = Redis(self.port)
        if with_library:
            self.db("FUNCTION", "LOAD", library())

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        for process in reversed(self.processes):
            process.kill()
            if error is not None:
                error.add_note(f"--- {process.name} printed:\n" + "\n".join(process.all_lines()[-15:]))
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self):
        try:
            return Redis(self.port)("PING") == "PONG"
        except OSError:
            return False

    def start(self, words, folder=None, **environment):
        process = Process(words, folder, REDIS_URL=self.url, TIDEMILL_REDIS_URL=self.url, **environment)
        self.processes.append(process)
        return process

    def add(self, stream, **fields):
        """Adds an entry as a foreign client does."""
        words = [word for name, value in fields.items() for word in (name, json.dumps(value) if isinstance(value, dict) else value)]
        return self.db("XADD", PREFIX + stream, "*", *words)

    def results(self, stream):
        """The results that a reply stream has, by id."""
        return [json.loads(dict(zip(flat[::2], flat[1::2]))["result"]) for _, flat in self.db("XRANGE", stream, "-", "+")]

    def result(self, stream, within_s=30):
        until(f"a result on {stream}", lambda: self.db("XLEN", stream), within_s)
        return self.results(stream)[0]

    def letters(self):
        return [dict(zip(flat[::2], flat[1::2])) for _, flat in self.db("XRANGE", PREFIX + "dead", "-", "+")]

    def held(self, queue_name):
        """(entry, consumer) of everything that is claimed and not settled."""
        rows = self.db("XPENDING", f"{PREFIX}jobs:{queue_name}", "workers", "-", "+", 100)
        return [(row[0], row[1]) for row in rows]

    def length(self, queue_name):
        return self.db("XLEN", f"{PREFIX}jobs:{queue_name}")

    def promote(self, queue_name, member):
        """What a scheduler does when work put aside is due."""
        stream = f"{PREFIX}jobs:{queue_name}"
        keys = [f"{PREFIX}due:{queue_name}", f"{PREFIX}deferred:{queue_name}", stream, stream, stream, stream]
        return self.db.function("tm1_promote", keys, [1, member, "", ""]) == [1]

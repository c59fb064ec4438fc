#!/usr/bin/env python3
"""Runs what README.md shows: its code blocks in their order, on ports and in a folder of their own, and checks what they give.

The block of the two commands is not run here: `./tidemill-quickstart` is run by tests/quickstart.sh, and `./test` runs this.
"""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(os.environ.get("TIDEMILL_BIN_DIR", ROOT / "target" / "debug"))
KEPT = ROOT / "target" / "readme"


def blocks():
    text = (ROOT / "README.md").read_text()
    shown = re.findall(r"```(\w+)\n(.*?)```", text, re.S)
    kinds = [kind for kind, _ in shown]
    assert kinds == ["mermaid", "sh", "sh", "sh", "python", "javascript", "sh", "yaml", "sh", "sh"], f"README has other blocks now: {kinds}"
    return [block for _, block in shown]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def python():
    venv = KEPT / "venv"
    if not (venv / "bin" / "redis-ok").exists():
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "--quiet", "redis"], check=True)
        (venv / "bin" / "redis-ok").touch()
    return [venv / "bin" / "python"]


def node():
    if not (shutil.which("node") and shutil.which("npm")):
        return None
    folder = KEPT / "node"
    if not (folder / "node_modules" / "redis").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private":true}')
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "redis"], cwd=folder, check=True)
    return ["node"], {"NODE_PATH": str(folder / "node_modules")}


class Page:
    def __init__(self, folder):
        ports = {"6399": str(free_port()), "8099": str(free_port())}
        self.blocks = [re.sub("6399|8099", lambda port: ports[port[0]], block) for block in blocks()]
        self.folder, self.port = folder, ports["6399"]
        self.env = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(folder), "NO_COLOR": "1"}
        self.passed = 0

    def run(self, words, text=None, more=None):
        done = subprocess.run(words, input=text, capture_output=True, text=True, cwd=self.folder, env={**self.env, **(more or {})}, timeout=120)
        if done.returncode != 0:
            raise AssertionError(f"{words} failed with {done.returncode}:\n{text or ''}\n{done.stdout}{done.stderr}")
        return done.stdout

    def shell(self, block):
        return self.run(["bash", "-eu"], block)

    def check(self, what, fine, seen):
        assert fine, f"{what}: {seen}"
        self.passed += 1
        print(f"ok    {what}")


def wait_for(port, process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"the pool ended with {process.returncode}")
        asked = subprocess.run(["redis-cli", "-p", port, "HLEN", "tm:{0}:beats"], capture_output=True, text=True)
        if asked.stdout.strip() == "2":
            return
        time.sleep(0.05)
    raise AssertionError("the pool did not start within a minute")


def the_first_job(page, start, shell, in_python, in_node, results):
    page.check("a job from the shell", re.match(r"\d+-\d+", page.shell(shell)), shell)
    page.run(python() + ["-c", in_python])
    there = node()
    if there:
        page.run(there[0] + ["-e", in_node], more=there[1])
    else:
        print("skip  a job from Node: node and npm are not on PATH")
        results = "".join(line for line in results.splitlines(True) if "third" not in line)
    seen = page.shell(results)
    page.check("its result, read from Redis", '"output":{"hello":"tide"}' in seen, seen)
    page.check("a job from Python", "mill" in seen, seen)
    if there:
        page.check("a job from Node", re.search(r"^3$|\"output\": ?3\b", seen, re.M), seen)


def the_first_workflow(page, workflow, commands):
    name = re.match(r"# (\S+)\n", workflow)[1]
    (page.folder / name).write_text(workflow)
    page.env["TIDEMILL_REDIS_URL"] = f"redis://127.0.0.1:{page.port}"
    seen = page.shell(commands)
    page.check("a workflow, published and run", "Hello, Ada!" in seen and "Hello, Grace!" in seen, seen)
    told = json.loads(page.run(["tidemill", "--json", "status", "hello"]))
    page.check("its status", "succeeded" in json.dumps(told), told)


def a_limit(page, commands):
    seen = page.shell(commands)
    row = [line.split() for line in seen.splitlines() if line.startswith("vendor ")][-1]
    page.check("a service, and its line", len(row) > 10 and row[1] == "running" and int(row[10]) > 0, seen)
    told = json.loads(page.run(["tidemill", "--json", "service", "show", "vendor"]))
    granted = told["tiers"][0]["counters"]["granted"]
    # of 100; a second or little more has passed since, and 20 may begin in any two
    page.check("whose limit holds", 0 < granted <= 60, told)


def main():
    for command in ("tidemill-quickstart", "test"):
        assert os.access(ROOT / command, os.X_OK), f"README shows ./{command}, which is not there"
    with tempfile.TemporaryDirectory() as folder:
        page = Page(Path(folder))
        _, _, start, shell, in_python, in_node, results, workflow, commands, limit = page.blocks
        log = open(page.folder / "dev.log", "w+")
        pool = subprocess.Popen(["bash", "-c", "exec " + start.strip()], cwd=folder, env=page.env, stdout=log, stderr=log)
        try:
            wait_for(page.port, pool)
            page.check("a pool in one process", True, "")
            the_first_job(page, start, shell, in_python, in_node, results)
            the_first_workflow(page, workflow, commands)
            a_limit(page, limit)
            pool.send_signal(signal.SIGINT)
            page.check("which ends on Ctrl-C", pool.wait(60) == 0, log.name)
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read()[-4000:])
            raise
        finally:
            if pool.poll() is None:
                pool.kill()
                pool.wait()
        print(f"{page.passed} passed, 0 failed")


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        print(f"FAIL  {error}")
        print("0 passed, 1 failed")
        sys.exit(1)

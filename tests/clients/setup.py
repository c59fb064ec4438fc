"""Installs what the examples need from their registries, into target/clients. What is installed already is kept."""
import hashlib
import os
import shutil
import subprocess
import sys
import threading

from pool import BUILD, ROOT

ONE_AT_A_TIME = threading.Lock()
CLIENTS, WORKERS = ROOT / "examples" / "clients", ROOT / "examples" / "workers"


class Missing(Exception):
    """A toolchain is not on this machine."""


def tool(name):
    if not shutil.which(name):
        raise Missing(f"{name} is not on PATH")
    return name


def run(words, folder):
    done = subprocess.run([str(word) for word in words], cwd=folder, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise RuntimeError(f"{words[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def installed(name, lock, install):
    """A folder that `install` fills, once for each text of the lock file."""
    folder = BUILD / name
    mark, digest = folder / ".installed", hashlib.sha256(lock.read_bytes()).hexdigest()
    with ONE_AT_A_TIME:
        if not (mark.exists() and mark.read_text() == digest):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            install(folder)
            mark.write_text(digest)
    return folder


def python():
    lock = CLIENTS / "python" / "requirements.txt"

    def install(folder):
        run([sys.executable, "-m", "venv", "--clear", folder], folder)
        run([folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "-r", lock], folder)

    return installed("python", lock, install) / "bin" / "python"


def node(source):
    tool("node")
    npm = tool("npm")

    def install(folder):
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, folder)
        run([npm, "ci", "--silent", "--no-audit", "--no-fund"], folder)

    folder = installed(f"node-{source.parent.name}", source / "package-lock.json", install)
    for file in source.glob("*.js"):
        shutil.copy(file, folder)
    return folder


def go():
    BUILD.mkdir(parents=True, exist_ok=True)
    run([tool("go"), "build", "-mod=readonly", "-o", BUILD / "go-client", "."], CLIENTS / "go")
    return BUILD / "go-client"


def java():
    tool("java")
    maven = tool("mvn")
    source = CLIENTS / "java"

    def install(folder):
        run([maven, "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={folder / 'lib'}"], source)

    return installed("java", source / "pom.xml", install) / "lib"


def client(language):
    """The words that start a language's client, and the folder to start them in."""
    if language == "python":
        return [python(), CLIENTS / "python" / "enqueue.py"], None
    if language == "node":
        folder = node(CLIENTS / "node")
        return ["node", "enqueue.js"], folder
    if language == "go":
        return [go()], None
    if language == "java":
        lib = java()
        return ["java", "-cp", f"{lib}/*", CLIENTS / "java" / "Enqueue.java"], None
    tool("redis-cli")
    return ["sh", CLIENTS / "shell" / "enqueue.sh"], None


def worker(language):
    if language == "python":
        return [python(), WORKERS / "python" / "worker.py"], None
    return ["node", "worker.js"], node(WORKERS / "node")

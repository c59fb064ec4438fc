"""Runs the example clients and workers against real servers.

Usage: python tests/clients/run.py [word …]     only tests whose name has one of the words
Environment: TIDEMILL_BIN_DIR, where tidemill-worker, tidemill-scheduler and tidemill are (default target/debug)

Ends with `N passed, N failed, N skipped`, and with exit code 1 when something failed.
"""
import os
import pathlib
import sys
import threading
import time
import traceback

import clients
import setup
import workers
from pool import ROOT

sys.stdout.reconfigure(line_buffering=True)


class Report:
    def __init__(self, words):
        self.words, self.counts, self.lock = words, {"passed": 0, "failed": 0, "skipped": 0}, threading.Lock()

    def tell(self, kind, name, detail=""):
        with self.lock:
            self.counts[kind] += 1
            print(f"{kind:8}{name}{detail}")

    def run(self, name, test, *args):
        if self.words and not name.startswith("pool: ") and not any(word in name for word in self.words):
            return
        begin = time.monotonic()
        try:
            test(*args)
        except setup.Missing as missing:
            self.tell("skipped", name, f": {missing}")
        except Exception:
            self.tell("failed", name, "\n" + traceback.format_exc())
        else:
            self.tell("passed", name, f" ({time.monotonic() - begin:.1f} s)")


def worker_tests(report, name):
    try:
        language = workers.Language(name, *setup.worker(name))
    except setup.Missing as missing:
        return report.tell("skipped", f"workers/{name}", f": {missing}")
    except Exception as error:
        return report.tell("failed", f"workers/{name}", f": {error}")
    for test in workers.ALL:
        report.run(f"workers/{name}: {test.__name__}", test, language)
    return None


def main():
    report = Report(sys.argv[1:])
    binaries = pathlib.Path(os.environ.get("TIDEMILL_BIN_DIR", ROOT / "target" / "debug"))
    threads = [threading.Thread(target=worker_tests, args=[report, name]) for name in ("python", "node")]
    for thread in threads:
        thread.start()
    clients.run_all(report, binaries)
    for thread in threads:
        thread.join()
    counts = report.counts
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())

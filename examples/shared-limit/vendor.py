#!/usr/bin/env python3
"""A little vendor: 40 calls in any 2 seconds, 5 at once; it counts who asks for more. GET /report tells what it saw."""
import collections
import http.server
import json
import sys
import threading
import time

LIMIT, WINDOW_S, AT_ONCE, WORK_S = 40, 2.0, 5, 0.04
lock, window = threading.Lock(), collections.deque()
seen = {"calls": 0, "refused": 0, "fullest_window": 0, "most_at_once": 0}
under_way = 0


class Vendor(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path == "/report":
            return self.answer(200, {**seen, "limit": LIMIT, "window_s": WINDOW_S})
        if not self.enters():
            return self.answer(429, {"error": "slower, please"}, {"Retry-After": "1"})
        time.sleep(WORK_S)
        self.leaves()
        return self.answer(200, {"ok": True})

    def enters(self):
        """The real rule, by an exact log: every window that ends with a call."""
        global under_way
        with lock:
            now = time.monotonic()
            while window and window[0] <= now - WINDOW_S:
                window.popleft()
            window.append(now)
            under_way += 1
            seen["calls"] += 1
            seen["fullest_window"] = max(seen["fullest_window"], len(window))
            seen["most_at_once"] = max(seen["most_at_once"], under_way)
            fits = len(window) <= LIMIT and under_way <= AT_ONCE
            if not fits:
                seen["refused"] += 1
                under_way -= 1
            return fits

    def leaves(self):
        global under_way
        with lock:
            under_way -= 1

    def answer(self, status, document, headers=()):
        body = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 64


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Vendor).serve_forever()

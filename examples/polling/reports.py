#!/usr/bin/env python3
"""Makes reports, each in its time: POST /reports takes an order in, GET /reports/N tells how far it is. Prints what it is asked."""
import http.server
import json
import time

ROUNDS = 5
asked = {}  # id: times at which its state was asked for


class Reports(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        # asked twice for the same thing, it is the same report
        report = self.headers["Idempotency-Key"]
        asked.setdefault(report, [])
        number = list(asked).index(report) + 1
        print(f"report {number} is ordered")
        self.answer(202, {"id": number})

    def do_GET(self):
        _, _, number, *rest = self.path.split("/")
        times = list(asked.values())[int(number) - 1]
        if rest:
            print(f"report {number} is fetched")
            return self.answer(200, {"pages": 42, "title": "Tides of 2026"})
        times.append(time.monotonic())
        waited = "" if len(times) == 1 else f", {'early' if times[-1] - times[-2] < 0.3 else 'in time'}"
        done = len(times) >= ROUNDS
        percent = 100 * len(times) // ROUNDS
        print(f"report {number} is asked for{waited}: {percent} %")
        self.answer(200, {"state": "done" if done else "busy", "percent": percent, "url": f"/reports/{number}/text" if done else None})

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Reports)
    print(f"http://127.0.0.1:{server.server_port}")
    server.serve_forever()

#!/usr/bin/env python3
"""Hotels, flights and cars, of which there is none left. Prints what it is asked for; GET /report gives that, too."""
import http.server
import json

told, booked, failed_once = [], {}, set()


class Bookings(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        what = self.path.strip("/")
        key, body = self.headers["Idempotency-Key"], self.body()
        if what == "notes":
            return self.answer(200, {}, f"is told: {body['text']}")
        if what == "cars":
            return self.answer(409, {"error": "no car left"}, "has no car left")
        # the key is the same over all attempts of a step: who asks twice has booked once
        booking = booked.setdefault(key, f"{what}-{len(booked) + 1}")
        return self.answer(201, {"id": booking}, f"books {booking}")

    def do_DELETE(self):
        booking = self.path.strip("/")
        if booking.startswith("flights") and booking not in failed_once:
            failed_once.add(booking)
            return self.answer(503, {"error": "try again"}, f"cannot cancel {booking} just now")
        for key in [key for key, value in booked.items() if value == booking]:
            del booked[key]
        return self.answer(200, {}, f"cancels {booking}")

    def do_GET(self):
        self.answer(200, {"told": told, "booked": sorted(booked.values())})

    def body(self):
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")

    def answer(self, status, document, line=None):
        if line:
            told.append(line)
            print(line)
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bookings)
    print(f"http://127.0.0.1:{server.server_port}")
    server.serve_forever()

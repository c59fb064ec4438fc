#!/usr/bin/env python3
"""A vendor that answers after some milliseconds. Prints what it is asked, and when somebody hangs up before the answer."""
import http.server
import json
import select
import sys

NAME, MS, PRICE = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


class Vendor(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        print("is asked for a quote")
        # what can be read while nothing more is asked is the end of the connection
        if select.select([self.connection], [], [], MS / 1000)[0]:
            print("is hung up on")
            self.close_connection = True
            return
        body = json.dumps({"vendor": NAME, "price": PRICE}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        print(f"quotes {PRICE}")

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Vendor)
    print(f"http://127.0.0.1:{server.server_port}")
    server.serve_forever()

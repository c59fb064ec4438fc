"""A Redis client of forty lines, so that what is tested is not also what tests."""
import socket


class ServerError(Exception):
    """Redis answered with an error."""


class Redis:
    def __init__(self, port, within_s=30):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=within_s)
        self.reader = self.socket.makefile("rb")

    def __call__(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        parts = [b"*%d\r\n" % len(words)] + [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
        self.socket.sendall(b"".join(parts))
        return self._reply()

    def function(self, name, keys, args):
        return self("FCALL", name, len(keys), *keys, *args)

    def _reply(self):
        line = self.reader.readline()
        if not line:
            raise ConnectionError("Redis closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise ServerError(rest.decode())
        if kind == b"+":
            return rest.decode()
        if kind == b":":
            return int(rest)
        count = int(rest)
        if count < 0:
            return None
        if kind == b"$":
            data = self.reader.read(count + 2)[:-2]
            try:
                return data.decode()
            except UnicodeDecodeError:
                return data
        return [self._reply() for _ in range(count)]

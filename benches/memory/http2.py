"""A client of HTTP/2 that sends GET requests and controls when it reads. RFC 9113, RFC 7541."""

import struct

import machine

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
INITIAL_WINDOW_SIZE = 4
DEFAULT_WINDOW = 65535
LARGEST_WINDOW = 2**31 - 1
# Fields by their number in the static table (RFC 7541, Appendix A).
GET, HTTPS, STATUS_200 = 0x82, 0x87, 0x88
AUTHORITY, PATH = 1, 4


class Client:
    def __init__(self, socket, window):
        """`window`: of each stream, in bytes; that of the connection is the largest."""
        self.socket = socket
        settings = frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, window))
        update = frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", LARGEST_WINDOW - DEFAULT_WINDOW))
        socket.sendall(PREFACE + settings + update)

    def get(self, stream, path):
        fields = bytes([GET, HTTPS]) + literal(AUTHORITY, b"bench.test") + literal(PATH, path)
        self.socket.sendall(frame(HEADERS, END_STREAM | END_HEADERS, stream, fields))

    def await_head(self, stream):
        """Reads until the head of a response, which must be a 200."""
        while True:
            kind, _flags, number, payload = self.next()
            if (kind, number) == (HEADERS, stream):
                break
        if status(payload) != STATUS_200:
            machine.fail(f"unexpected fields of a response: {payload!r}")

    def await_data(self, stream):
        """Reads until a DATA frame; whether the response ends with it."""
        while True:
            kind, flags, number, _payload = self.next()
            if (kind, number) == (DATA, stream):
                return flags & END_STREAM != 0

    def next(self):
        """The next frame: type, flags, stream, payload. Settings and pings are acknowledged."""
        head = self.receive(9)
        size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        stream, payload = int.from_bytes(head[5:], "big"), self.receive(size)
        if kind in (SETTINGS, PING) and not flags & ACK:
            self.socket.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
        return kind, flags, stream, payload

    def receive(self, size):
        received = b""
        while len(received) < size:
            received += self.socket.recv(size - len(received)) or machine.fail("a connection of HTTP/2 was closed")
        return received


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name, value):
    """A field that is not indexed, with the number of its name; values below 127 bytes (RFC 7541 §6.2.2)."""
    return bytes([name, len(value)]) + value


def status(fields):
    """The first field that is not an update of the table's size (RFC 7541 §6.3)."""
    return next(byte for byte in fields if byte & 0xE0 != 0x20)

"""The peers of `benches/memory/run`: one process that listens on several addresses.

`origin.py HOST:PORT...`, until it is killed. `/stalled/...` is answered with 4 MB, `/socket/...` with a WebSocket that
echoes each message, everything else with `ok`.
"""

import asyncio
import base64
import contextlib
import hashlib
import sys

LARGE = 4_000_000  # bytes
PIECE = bytes(64 * 1024)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
LARGE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3


async def main(addresses):
    servers = []
    for address in addresses:
        host, port = address.rsplit(":", 1)
        servers.append(await asyncio.start_server(serve, host, int(port), backlog=4096))
    await asyncio.gather(*(server.serve_forever() for server in servers))


async def serve(reader, writer):
    """One connection of a proxy. No request has a body."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            target = head.split(b" ", 2)[1]
            if target.startswith(b"/socket/"):
                await echo(head, reader, writer)
            elif target.startswith(b"/stalled/"):
                await send_large(writer)
            else:
                writer.write(OK)
    writer.close()


async def send_large(writer):
    writer.write(LARGE_HEAD)
    left = LARGE
    while left:
        size = min(left, len(PIECE))
        writer.write(PIECE[:size])
        left -= size
        await writer.drain()


async def echo(head, reader, writer):
    """Sends each message back, until the connection ends. Messages have at most 125 bytes (RFC 6455 §5.2)."""
    lines = head.split(b"\r\n")
    key = next(line.split(b":", 1)[1].strip() for line in lines if line.lower().startswith(b"sec-websocket-key:"))
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
    fields = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n" % accept
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\n%s\r\n" % fields)
    while True:
        first, size = await reader.readexactly(2)
        mask = await reader.readexactly(4)
        message = await reader.readexactly(size & 0x7F)
        message = bytes(byte ^ mask[place % 4] for place, byte in enumerate(message))
        writer.write(bytes([first, len(message)]) + message)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))

"""The kinds of connections whose memory is measured: how a client opens each, and what it leaves undone.

A stalled client has a small receive buffer, so that the kernel takes little of the response for it.
"""

import dataclasses
import os
import socket
import ssl
import struct
from typing import Callable

import http2
import machine

TIMEOUT = 30  # seconds, of one read or write
RECEIVE_BUFFER = 4096  # bytes, of a client that stalls
STREAMS = 10  # of a connection whose streams have no window
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
CONTEXT.check_hostname, CONTEXT.verify_mode = False, ssl.CERT_NONE  # the certificate is self-signed
ESTABLISHED = 1  # tcp(7): the first byte of TCP_INFO
MESSAGE = b"hello"


@dataclasses.dataclass(frozen=True)
class Kind:
    title: str
    open: Callable  # proxy, number → the client's socket
    stalls: bool = False
    each: int = 1  # of what is counted, in one connection
    http2: bool = False


def http1(proxy, number):
    return answered(machine.connect(proxy.address, TIMEOUT), number)


def tls(proxy, number):
    return answered(secure(machine.connect(proxy.tls_address, TIMEOUT), "http/1.1"), number)


def answered(client, number):
    """A client after its first response."""
    client.sendall(request(b"/key/%d" % number))
    received = b""
    while not received.endswith(b"\r\n\r\nok\n"):
        received += client.recv(4096) or machine.fail(f"connection {number} was closed after {received!r}")
    if not received.startswith(b"HTTP/1.1 200 "):
        machine.fail(f"unexpected response: {received!r}")
    return client


def http2_idle(proxy, number):
    client = http2.Client(secure(machine.connect(proxy.tls_address, TIMEOUT), "h2"), http2.DEFAULT_WINDOW)
    client.get(1, b"/key/%d" % number)
    client.await_head(1)
    while not client.await_data(1):
        pass
    return client.socket


def websocket(proxy, number):
    """A tunnel through which one message went in both directions."""
    client = machine.connect(proxy.address, TIMEOUT)
    fields = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    client.sendall(request(b"/socket/%d" % number, fields + key))
    head = read_until(client, b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101 "):
        machine.fail(f"unexpected response: {head!r}")
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(MESSAGE))
    client.sendall(bytes([0x81, 0x80 | len(MESSAGE)]) + mask + masked)  # RFC 6455 §5.2: a text frame
    read_until(client, bytes([0x81, len(MESSAGE)]) + MESSAGE)
    return client


def stalled_http1(proxy, number):
    client = machine.connect(proxy.address, TIMEOUT, RECEIVE_BUFFER)
    client.sendall(request(b"/stalled/%d" % number))
    if client.recv(1) != b"H":
        machine.fail(f"connection {number} got no response")
    return client


def stalled_http2(proxy, number):
    """The window of the stream is open, but the client stops reading after the head."""
    client = http2.Client(
        secure(machine.connect(proxy.tls_address, TIMEOUT, RECEIVE_BUFFER), "h2"), http2.LARGEST_WINDOW
    )
    client.get(1, b"/stalled/%d" % number)
    client.await_head(1)
    return client.socket


def no_window(proxy, number):
    """The client reads all that comes. A stream has a window of one byte: nginx would not send a head alone."""
    client = http2.Client(secure(machine.connect(proxy.tls_address, TIMEOUT), "h2"), 1)
    for stream in range(1, 2 * STREAMS, 2):
        client.get(stream, b"/stalled/%d-%d" % (number, stream))
        client.await_head(stream)
        client.await_data(stream)
    return client.socket


KINDS = {
    "http1": Kind("idle connection, HTTP/1", http1),
    "tls": Kind("idle connection, HTTP/1 over TLS", tls),
    "http2": Kind("idle connection, HTTP/2 over TLS", http2_idle, http2=True),
    "websocket": Kind("idle WebSocket", websocket),
    "stalled-http1": Kind("stalled reader, HTTP/1", stalled_http1, stalls=True),
    "stalled-http2": Kind("stalled reader, HTTP/2 over TLS", stalled_http2, stalls=True, http2=True),
    "no-window": Kind("HTTP/2 stream without window", no_window, stalls=True, each=STREAMS, http2=True),
}


def request(path, fields=b""):
    return b"GET %s HTTP/1.1\r\nHost: bench.test\r\n%s\r\n" % (path, fields)


def secure(client, protocol):
    """The client after a TLS handshake that must end with this protocol (ALPN)."""
    CONTEXT.set_alpn_protocols([protocol])
    secured = CONTEXT.wrap_socket(client, server_hostname="bench.test")
    if (secured.selected_alpn_protocol() == "h2") != (protocol == "h2"):
        machine.fail(f"the proxy chose {secured.selected_alpn_protocol()}, not {protocol}")
    return secured


def read_until(client, end):
    received = b""
    while not received.endswith(end):
        received += client.recv(4096) or machine.fail(f"a connection was closed after {received!r}")
    return received


def is_open(client):
    """Whether the connection has neither ended nor been reset, as far as the kernel was told."""
    (state,) = struct.unpack("B", client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1))
    return state == ESTABLISHED

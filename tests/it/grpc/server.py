"""A server of gRPC: `server.py HOST:PORT` answers until its input ends. What it is sent comes back."""
import os
import sys
import time
from concurrent import futures

import grpc

NAME = sys.argv[1]
serving = [b"\x08\x01"]
at_work = [0]


def unary(request, context):
    context.send_initial_metadata((("x-server", NAME),))
    context.set_trailing_metadata((("x-end", "well"), ("x-bytes-bin", b"\x00\xff")))
    return request


def remaining(request, context):
    left = context.time_remaining()
    return b"none" if left is None or left > 1e6 else b"%.3f" % left


def pieces(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def total(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def echo(requests, context):
    yield from requests


def flood(requests, context):
    """Takes no request while an answer waits to be taken."""
    for request in requests:
        for _ in range(20):
            yield request


def slow(request, context):
    while context.is_active():
        time.sleep(0.01)
    return b""


def stalls(request, context):
    at_work[0] += 1
    yield b"first"
    while context.is_active():
        time.sleep(0.01)
    at_work[0] -= 1


def stalling(request, context):
    return b"%d" % at_work[0]


def dies(requests, context):
    """Of the second message."""
    yield next(requests)
    next(requests)
    os._exit(1)


def fails(request, context):
    context.set_trailing_metadata((("x-why", "because"),))
    context.abort(grpc.StatusCode.NOT_FOUND, "there is no such thing")


def check(request, context):
    if request not in (b"", b"\x0a\x09test.Echo"):
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return serving[0]


def set_health(request, context):
    serving[0] = b"\x08" + request
    return b""


def handlers(service, unary_unary=(), **streams):
    made = {f.__name__: grpc.unary_unary_rpc_method_handler(f) for f in unary_unary}
    made.update(streams)
    return grpc.method_handlers_generic_handler(service, made)


# A window that stays small: a sender is soon blocked if the server does not read.
options = (("grpc.http2.bdp_probe", 0),)
server = grpc.server(futures.ThreadPoolExecutor(max_workers=32), options=options)
server.add_generic_rpc_handlers((
    handlers(
        "test.Echo",
        (unary, remaining, slow, fails, set_health, stalling),
        pieces=grpc.unary_stream_rpc_method_handler(pieces),
        stalls=grpc.unary_stream_rpc_method_handler(stalls),
        total=grpc.stream_unary_rpc_method_handler(total),
        echo=grpc.stream_stream_rpc_method_handler(echo),
        dies=grpc.stream_stream_rpc_method_handler(dies),
        flood=grpc.stream_stream_rpc_method_handler(flood),
    ),
    handlers("grpc.health.v1.Health", Check=grpc.unary_unary_rpc_method_handler(check)),
))
assert server.add_insecure_port(NAME), "cannot listen"
server.start()
sys.stdin.read()
server.stop(0)

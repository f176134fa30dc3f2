"""A client of gRPC: `client.py HOST:PORT CALL ARGUMENT`; prints what came of it as JSON."""
import json
import queue
import sys
import time

import grpc

channel = grpc.insecure_channel(sys.argv[1])
call, argument = sys.argv[2], sys.argv[3]
LIMIT = 20


def metadata(pairs):
    return {k: v if isinstance(v, str) else v.hex() for k, v in pairs or ()}


def unary(method, request, timeout=LIMIT, sent=()):
    stub = channel.unary_unary(f"/test.Echo/{method}")
    answer, info = stub.with_call(request, timeout=timeout, metadata=sent)
    return {
        "answer": answer.decode(),
        "initial": metadata(info.initial_metadata()),
        "trailing": metadata(info.trailing_metadata()),
    }


def keys():
    """Who serves each of some users."""
    users = argument.split(",")
    return {u: unary("unary", b"x", sent=(("x-user", u),))["initial"]["x-server"] for u in users}


def large():
    sent = b"x" * int(argument)
    stub = channel.unary_unary("/test.Echo/unary")
    return {"same": stub(sent, timeout=LIMIT) == sent}


def pieces():
    stream = channel.unary_stream("/test.Echo/pieces")(argument.encode(), timeout=LIMIT)
    return {"pieces": [piece.decode() for piece in stream]}


def total():
    requests = (b"x" * n for n in range(int(argument)))
    return {"total": channel.stream_unary("/test.Echo/total")(requests, timeout=LIMIT).decode()}


def echo():
    """Each message waits for the answer to the one before: nothing may be held back."""
    asked = queue.Queue()
    stream = channel.stream_stream("/test.Echo/echo")(iter(asked.get, None), timeout=LIMIT)
    said = []
    for number in range(int(argument)):
        asked.put(b"%d" % number)
        said.append(next(stream).decode())
    asked.put(None)
    return {"said": said, "rest": len(list(stream)), "trailing": metadata(stream.trailing_metadata())}


def flood():
    """Asks on while it is answered: both ways are full at once."""
    requests = (b"x" * 1_000_000 for _ in range(int(argument)))
    stream = channel.stream_stream("/test.Echo/flood")(requests, timeout=LIMIT)
    return {"answers": sum(1 for _ in stream)}


def stalls():
    stream = channel.unary_stream("/test.Echo/stalls")(b"", timeout=LIMIT)
    return {"pieces": [piece.decode() for piece in stream]}


def dies():
    """The second message is sent when the answer to the first is there."""
    asked = queue.Queue()
    asked.put(b"first")
    stream = channel.stream_stream("/test.Echo/dies")(iter(asked.get, None), timeout=LIMIT)
    for piece in stream:
        asked.put(b"second")
    return {}


CALLS = {
    "unary": lambda: unary("unary", argument.encode()),
    "remaining": lambda: unary("remaining", b"", timeout=float(argument)),
    "without_deadline": lambda: unary("remaining", b"", timeout=None),
    "slow": lambda: unary("slow", b"", timeout=float(argument)),
    "fails": lambda: unary("fails", b""),
    "stalling": lambda: unary("stalling", b""),
    "set_health": lambda: unary("set_health", bytes([int(argument)])),
}
began = time.monotonic()
try:
    result = CALLS[call]() if call in CALLS else globals()[call]()
except grpc.RpcError as error:
    result = {
        "status": error.code().name,
        "details": error.details(),
        "trailing": metadata(error.trailing_metadata()),
    }
print(json.dumps(result | {"seconds": time.monotonic() - began}))

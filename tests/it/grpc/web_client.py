"""A client of gRPC-Web, by a library of its own: `web_client.py URL CALL ARGUMENT`; prints what came of it."""
import json
import sys

import grpc
from sonora.client import insecure_web_channel

url, call, argument = sys.argv[1:]
channel, method, asked = insecure_web_channel(url), f"/test.Echo/{call}", argument.encode()

try:
    if call == "pieces":
        stream = channel.unary_stream(method, bytes, bytes)(asked)
        result = {"pieces": [piece.decode() for piece in stream]}
    else:
        answer, info = channel.unary_unary(method, bytes, bytes).with_call(asked, timeout=20)
        result = {"answer": answer.decode(), "trailing": dict(info.trailing_metadata())}
except grpc.RpcError as error:
    result = {"status": error.code().name, "details": error.details()}
print(json.dumps(result))

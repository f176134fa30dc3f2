"""A client of WebSocket: `client.py URL [CA HOST PORT]`; prints what came of it as JSON."""
import asyncio
import json
import os
import ssl
import sys

import websockets


async def main(url, ca=None, host=None, port=None):
    more = {}
    if ca:
        # The name has no DNS record; the connection is made to `host` and `port`.
        more = dict(ssl=ssl.create_default_context(cafile=ca), host=host, port=int(port), server_hostname="a.test")
    options = dict(subprotocols=["superchat", "chat"], max_size=None, **more)
    async with websockets.connect(url, **options) as socket:
        messages = ["", "héllo", b"\0\xff", "x" * 70_000, os.urandom(3 << 20)]
        same = []
        for message in messages:
            await socket.send(message)
            same.append(await socket.recv() == message)
        await socket.send(["a", "bc", "d"])
        fragments = await socket.recv()
        await asyncio.gather(*(socket.send(str(number)) for number in range(100)))
        many = [await socket.recv() for _ in range(100)]
        await asyncio.wait_for(await socket.ping(b"there?"), 20)
        await socket.close(4000, "done")
        return {
            "same": same,
            "fragments": fragments,
            "many": sorted(map(int, many)) == list(range(100)),
            "protocol": socket.subprotocol,
            "extensions": [extension.name for extension in socket.extensions],
            "closed": [socket.close_code, socket.close_reason],
        }


print(json.dumps(asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 40))))

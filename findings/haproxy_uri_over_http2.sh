#!/usr/bin/env bash
# HAProxy with `balance uri` and `hash-type consistent`, five servers: whether a path gets the same server by HTTP/1.1 and by HTTP/2.
#
# Software: haproxy 2.6.12-1+deb12u4 of Debian 12.
# Expected: the version of HTTP does not matter; `uri` is "the left part of the URI (before the question mark)".
# Seen: 24 of 100 paths get the same server, as chance would have it. By HTTP/2 the URI is absolute, `http://HOST:PORT/path`, and
# all of it is hashed. With `uri path-only` all 100 get the same server.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
apt-get -qq download haproxy=2.6.12-1+deb12u4 2>/dev/null
dpkg -x haproxy_*.deb .
cat >run.py <<'P'
import http.client, socket, subprocess, time

PATHS = [f"/p{number}" for number in range(100)]


def http2(paths):
    """The port that each path reaches by HTTP/2 with prior knowledge, one after the other."""
    found = []
    for path in paths:
        url = f"http://127.0.0.1:26201{path}"
        curl = ["curl", "-sS", "-o", "/dev/null", "-D", "-", "--http2-prior-knowledge", url]
        fields = subprocess.run(curl, check=True, capture_output=True, text=True).stdout.splitlines()
        found += [line.split(": ")[1] for line in fields if line.startswith("x-port: ")]
    return found


def http1(paths):
    client = http.client.HTTPConnection("127.0.0.1", 26200)
    found = []
    for path in paths:
        client.request("GET", path)
        response = client.getresponse()
        response.read()
        found.append(response.headers["x-port"])
    return found


def same(balance):
    servers = "\n".join(f" server s{port} 127.0.0.1:{port}" for port in range(26001, 26006))
    with open("haproxy.cfg", "w") as file:
        file.write(
            "defaults\n mode http\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n"
            "frontend edge\n bind 127.0.0.1:26200\n bind 127.0.0.1:26201 proto h2\n default_backend app\n"
            f"backend app\n balance {balance}\n hash-type consistent\n{servers}\n"
            "listen origins\n bind 127.0.0.1:26001-26005\n http-request return status 200 hdr x-port %[dst_port]\n"
        )
    proxy = subprocess.Popen(["usr/sbin/haproxy", "-db", "-f", "haproxy.cfg"], stderr=subprocess.DEVNULL)
    while True:
        try:
            socket.create_connection(("127.0.0.1", 26201)).close()
            break
        except OSError:
            time.sleep(0.05)
    pairs = list(zip(http1(PATHS), http2(PATHS), strict=True))
    proxy.terminate()
    proxy.wait()
    return sum(one == other for one, other in pairs)


found = {balance: same(balance) for balance in ["uri", "uri whole", "hash url", "uri path-only", "hash path"]}
for balance, count in found.items():
    print(f"{count:3} of {len(PATHS)} paths on the same server: balance {balance}")
assert found["uri path-only"] == found["hash path"] == 100, "a path is not alone in its hash now"
assert all(found[balance] < 50 for balance in ["uri", "uri whole", "hash url"]), "HTTP/2 hashes the same text now"
P
python3 run.py

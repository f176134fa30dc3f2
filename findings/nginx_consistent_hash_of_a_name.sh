#!/usr/bin/env bash
# nginx with `hash $uri` for an upstream with a name that has three addresses and a server with one, with `consistent` and without.
#
# Software: nginx 1.22.1-9+deb12u9 of Debian 12.
# Expected: `consistent` gives each of the four addresses its points, so that a key has one server; only changes cost less with it.
# Seen: with `consistent`, points belong to the name: a key of it goes to its three addresses in turn, and they have the share of
# one server together, 1/2 instead of 3/4. Without `consistent` a key stays with one of the four.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
apt-get -qq download nginx=1.22.1-9+deb12u9 2>/dev/null
dpkg -x nginx_*.deb .
cat >run.py <<'P'
import collections, http.client, os, socket, subprocess, time

NAME = [f"127.0.0.{number}" for number in (1, 2, 3)]
ALL = [*NAME, "127.0.0.4"]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


edge, origin = free_port(), free_port()
with open("nginx.conf", "w") as file:
    paths = " ".join(f"{kind}_temp_path {kind};" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
    servers = f"server app:{origin}; server 127.0.0.4:{origin};"
    file.write(
        "user root root; daemon off; worker_processes 1; pid nginx.pid; error_log nginx.log; events {}\n"
        f"http {{ access_log off; {paths}\n"
        f"upstream consistent {{ hash $uri consistent; {servers} }}\n"
        f"upstream plain {{ hash $uri; {servers} }}\n"
        f"server {{ listen 127.0.0.1:{edge}; location /consistent/ {{ proxy_pass http://consistent; }}\n"
        "location /plain/ { proxy_pass http://plain; } }\n"
        f"server {{ {' '.join(f'listen {address}:{origin};' for address in ALL)}\n"
        "add_header X-Address $server_addr; return 204; } }\n"
    )
nginx = subprocess.Popen(["usr/sbin/nginx", "-p", os.getcwd(), "-c", "nginx.conf", "-e", "nginx.log"])


def ask(path):
    client = http.client.HTTPConnection("127.0.0.1", edge)
    client.request("GET", path)
    return client.getresponse().getheader("X-Address")


try:
    for attempt in range(300):
        try:
            ask("/plain/")
            break
        except OSError:
            time.sleep(0.1)
    found = {}
    for way in ("consistent", "plain"):
        keys = [[ask(f"/{way}/{key}") for _ in range(6)] for key in range(300)]
        split = sum(len(set(key)) > 1 for key in keys) / len(keys)
        share = sum(one in NAME for key in keys for one in key) / len(keys) / 6
        found[way] = split, share
        print(f"{way}: {100 * split:.0f} % of the keys have more than one address; the three addresses of the name get {100 * share:.0f} %")
        print("  a key:", *next(key for key in keys if key[0] in NAME))
finally:
    nginx.terminate()
    nginx.wait()
assert found["plain"][0] == 0 and abs(found["plain"][1] - 0.75) < 0.1, "hash without consistent has changed"
assert abs(found["consistent"][0] - found["consistent"][1]) < 0.001, "not all keys of the name go round its addresses now"
assert abs(found["consistent"][1] - 0.5) < 0.15, "the share of the name has changed"
P
printf '127.0.0.1 app\n127.0.0.2 app\n127.0.0.3 app\n' >hosts
echo 'hosts: files' >nsswitch.conf
# nginx takes the addresses of a name from the system: it runs in a network and a file system of its own.
unshare --map-root-user --net --mount bash -ec '
    ip link set lo up
    mount --bind hosts /etc/hosts
    mount --bind nsswitch.conf /etc/nsswitch.conf
    python3 run.py'

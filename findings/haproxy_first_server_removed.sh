#!/usr/bin/env bash
# HAProxy with `balance uri` and `hash-type consistent`, five servers without `id`: which share of 1,000 keys changes its server.
#
# Software: haproxy 2.6.12-1+deb12u3 of Debian 12.
# Expected: consistent hashing moves the keys of the server that goes, 24 % here; the order of the lines does not matter.
# Seen: if the first line is removed, 89 % move; if the lines are in reverse order, 80 %; if a line is added before the others,
# 97 %. A server is hashed by its number, which is its place among the lines. The last line can go, a line can be added at the end,
# and `disabled` can be written, for the price that was expected. A server with another name and port in place of the first
# moves nothing.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
apt-get -qq download haproxy=2.6.12-1+deb12u3 2>/dev/null
dpkg -x haproxy_*.deb .
cat >run.py <<'P'
import http.client, subprocess, time

KEYS = range(1000)


def place(servers, disabled=()):
    """The port that each key reaches."""
    lines = [f" server s{port} 127.0.0.1:{port} {'disabled' if port in disabled else ''}" for port in servers]
    with open("haproxy.cfg", "w") as file:
        file.write(
            "defaults\n mode http\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n"
            "frontend edge\n bind 127.0.0.1:26100\n default_backend app\n"
            "backend app\n balance uri\n hash-type consistent\n" + "\n".join(lines) + "\n"
            "listen origins\n bind 127.0.0.1:26001-26007\n http-request return status 200 hdr x-port %[dst_port]\n"
        )
    proxy = subprocess.Popen(["usr/sbin/haproxy", "-db", "-f", "haproxy.cfg"], stderr=subprocess.DEVNULL)
    client = http.client.HTTPConnection("127.0.0.1", 26100)
    while True:
        try:
            client.connect()
            break
        except OSError:
            time.sleep(0.05)
    placed = []
    for key in KEYS:
        client.request("GET", f"/k{key}")
        response = client.getresponse()
        response.read()
        placed.append(response.getheader("x-port"))
    proxy.terminate()
    proxy.wait()
    return placed


five = [26001, 26002, 26003, 26004, 26005]
before = place(five)
share = lambda port: sum(it == str(port) for it in before) / len(KEYS)


def moved(after, renamed={}):
    return sum(renamed.get(one, one) != two for one, two in zip(before, after)) / len(KEYS)


found = {
    "the first line removed": moved(place(five[1:])),
    "the last line removed": moved(place(five[:-1])),
    "the first server disabled": moved(place(five, [26001])),
    "a line added before the others": moved(place([26006, *five])),
    "a line added at the end": moved(place([*five, 26006])),
    "the lines in reverse order": moved(place(five[::-1])),
    "another server in place of the first": moved(place([26007, *five[1:]]), {"26001": "26007"}),
}
for case, part in found.items():
    print(f"{100 * part:5.1f} % moved: {case}")
assert found["the first line removed"] > 0.8 and found["the lines in reverse order"] > 0.7, "the numbering has changed"
assert found["a line added before the others"] > 0.9, "the numbering has changed"
assert found["the last line removed"] == share(26005) and found["the first server disabled"] == share(26001), "more moves now"
assert found["a line added at the end"] < 0.25 and found["another server in place of the first"] == 0, "more moves now"
P
python3 run.py

#!/usr/bin/env bash
# HAProxy with `server-template` and `resolve-prefer ipv4`, for a name with three IPv4 addresses and one IPv6 address, when the name
# server answers one query for type A with SERVFAIL.
#
# Software: haproxy 2.6.12-1+deb12u3 of Debian 12.
# Expected: `hold other` (30 s by default) keeps the servers, as it does for a name with IPv4 addresses only.
# Seen: after one SERVFAIL HAProxy asks for type AAAA, and the answer replaces the addresses at once: the three servers are removed,
# and all keys go to the IPv6 address until type A is answered again, one second later here. `hold` has no effect on it.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
apt-get -qq download haproxy=2.6.12-1+deb12u3 \
    liblua5.3-0 libopentracing1 libopentracing-c-wrapper0 2>/dev/null
for package in *.deb; do dpkg -x "$package" .; done
export LD_LIBRARY_PATH="$PWD/usr/lib/x86_64-linux-gnu"
cat >run.py <<'P'
import socket, struct, subprocess, threading, time

FOUR, SIX = ["127.0.0.1", "127.0.0.2", "127.0.0.3"], ["::1"]
six, failures = [], []
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 0))


def serve():
    """A name server that answers SERVFAIL to as many queries for A as `failures` has elements."""
    while True:
        query, client = udp.recvfrom(512)
        end = query.index(b"\0", 12) + 5
        (kind,) = struct.unpack(">H", query[end - 4 : end - 2])
        fails = kind == 1 and failures and failures.pop()
        addresses = [] if fails else FOUR if kind == 1 else six
        data = [socket.inet_pton(socket.AF_INET if kind == 1 else socket.AF_INET6, one) for one in addresses]
        head = query[:2] + struct.pack(">HHHHH", 0x8582 if fails else 0x8580, 1, len(data), 0, 0)
        records = [b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 1, len(one)) + one for one in data]
        udp.sendto(head + query[12:end] + b"".join(records), client)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


edge, statistics = free_port(), free_port()


def configure(hold):
    with open("haproxy.cfg", "w") as file:
        file.write(
            f"global\n stats socket 127.0.0.1:{statistics}\n"
            "defaults\n mode http\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n"
            f"resolvers dns\n nameserver one 127.0.0.1:{udp.getsockname()[1]}\n {hold}\n"
            f"frontend edge\n bind 127.0.0.1:{edge}\n default_backend app\n"
            "backend app\n balance uri\n hash-type consistent\n"
            " server-template s 4 app.test:80 resolvers dns resolve-prefer ipv4 init-addr none\n"
        )


def servers():
    """The addresses that the servers have now, sorted."""
    try:
        with socket.create_connection(("127.0.0.1", statistics)) as control:
            control.sendall(b"show servers state app\n")
            fields = [line.split() for line in control.makefile()]
            return sorted(one[4] for one in fields if len(one) > 8 and one[0].isdigit() and one[4] != "-")
    except OSError:
        return []


def observe(number):
    """The sets of addresses in 6 s that begin with this many SERVFAIL for type A, and how long each was in force."""
    proxy = subprocess.Popen(["usr/sbin/haproxy", "-db", "-f", "haproxy.cfg"], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 30
        while servers() != FOUR:
            assert time.monotonic() < until, "HAProxy does not resolve the name"
            time.sleep(0.1)
        failures.extend([True] * number)
        seen, until = {}, time.monotonic() + 6
        while time.monotonic() < until:
            began, now = time.monotonic(), tuple(servers())
            time.sleep(0.1)
            seen[now] = seen.get(now, 0) + time.monotonic() - began
        return seen
    finally:
        proxy.terminate()
        proxy.wait()
        failures.clear()


threading.Thread(target=serve, daemon=True).start()
three, one, both = tuple(FOUR), ("::1",), (*FOUR, "::1")
for title, number, list_of_six, hold, want in [
    ("no IPv6 address, three SERVFAIL", 3, [], "", {three}),
    ("one SERVFAIL", 1, SIX, "", {three, one}),
    ("three SERVFAIL", 3, SIX, "", {three, one}),
    ("one SERVFAIL, hold other 60s", 1, SIX, "hold other 60s", {three, one}),
    ("one SERVFAIL, hold obsolete 60s", 1, SIX, "hold obsolete 60s", {three, both}),
]:
    configure(hold)
    six[:] = list_of_six
    seen = observe(number)
    print(f"{title}:", *[f"{seconds:.1f} s {', '.join(addresses)};" for addresses, seconds in seen.items()])
    assert want <= set(seen) and (one in want) == (one in seen), "HAProxy handles SERVFAIL otherwise now"
P
python3 run.py

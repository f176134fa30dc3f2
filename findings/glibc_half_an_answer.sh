#!/usr/bin/env bash
# glibc: `getaddrinfo` of a name with three IPv4 addresses and one IPv6 address, when a name server fails for one of the two queries.
#
# Software: libc6 2.36-9+deb12u14 of Debian 12.
# Expected: SERVFAIL for type A is an error ("temporary failure"), or the second `nameserver` of resolv.conf, which is healthy, is
# asked: an answer without the IPv4 addresses would look as if their servers had been removed.
# Seen: the IPv6 address alone, as a success; the second name server is asked nothing. It is asked when the first one fails for both
# queries, or does not answer in time. A lookup of IPv4 only (AF_INET) asks it, too.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
apt-get -qq download libc6=2.36-9+deb12u14 2>/dev/null
dpkg -x libc6_*.deb .
cat >look_up.py <<'P'
import socket, sys

try:
    found = socket.getaddrinfo("app.test", 80, getattr(socket, sys.argv[1]), socket.SOCK_STREAM)
    print(*sorted(one[4][0] for one in found))
except socket.gaierror as error:
    print(error)
P
cat >run.py <<'P'
import socket, struct, subprocess, sys, threading

ADDRESSES = {1: ["127.0.1.1", "127.0.1.2", "127.0.1.3"], 28: ["::1"]}
TYPES = {1: "A", 28: "AAAA"}


def serve(address, fails, asked):
    """A name server that answers SERVFAIL, or nothing, to the types of `fails`."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, 53))

    def run():
        while True:
            query, client = udp.recvfrom(512)
            (kind,) = struct.unpack(">H", query[-4:-2])
            asked.append(TYPES[kind])
            how = fails.get(kind)
            if how == "silent":
                continue
            family = socket.AF_INET6 if kind == 28 else socket.AF_INET
            data = [socket.inet_pton(family, one) for one in ADDRESSES[kind]] if how is None else []
            head = query[:2] + struct.pack(">HHHHH", 0x8180 if how is None else 0x8182, 1, len(data), 0, 0)
            records = [b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(one)) + one for one in data]
            udp.sendto(head + query[12:] + b"".join(records), client)

    threading.Thread(target=run, daemon=True).start()


first, second, fails = [], [], {}
serve("127.0.0.1", fails, first)
serve("127.0.0.2", {}, second)
libraries = "lib/x86_64-linux-gnu"
command = [f"{libraries}/ld-linux-x86-64.so.2", "--library-path", libraries, sys.executable, "look_up.py"]


def look_up(family, **now):
    fails.clear()
    fails.update({number: now[kind] for number, kind in TYPES.items() if kind in now})
    first.clear()
    second.clear()
    answer = subprocess.run([*command, family], text=True, check=True, capture_output=True).stdout.strip()
    print(f"{family}, first server {now or 'healthy'}: {answer}; second server asked: {sorted(second) or 'nothing'}")
    return answer, sorted(second)


every = "127.0.1.1 127.0.1.2 127.0.1.3 ::1"
four = "127.0.1.1 127.0.1.2 127.0.1.3"
assert look_up("AF_UNSPEC") == (every, []), "a healthy name server answers otherwise now"
assert look_up("AF_UNSPEC", A="SERVFAIL") == ("::1", []), "SERVFAIL for A is handled otherwise now"
assert look_up("AF_UNSPEC", AAAA="SERVFAIL") == (four, []), "SERVFAIL for AAAA is handled otherwise now"
assert look_up("AF_UNSPEC", A="SERVFAIL", AAAA="SERVFAIL") == (every, ["A", "AAAA"]), "SERVFAIL for both is handled otherwise now"
assert look_up("AF_UNSPEC", A="silent")[0] == every, "silence is handled otherwise now"
assert look_up("AF_INET", A="SERVFAIL") == (four, ["A"]), "a lookup of IPv4 only is handled otherwise now"
P
printf 'nameserver 127.0.0.1\nnameserver 127.0.0.2\noptions timeout:1 attempts:1\n' >resolv.conf
echo 'hosts: files dns' >nsswitch.conf
# The system's resolver asks port 53 only: it runs in a network and a file system of its own.
unshare --map-root-user --net --mount bash -ec '
    ip link set lo up
    mount --bind resolv.conf /etc/resolv.conf
    mount --bind nsswitch.conf /etc/nsswitch.conf
    python3 run.py'

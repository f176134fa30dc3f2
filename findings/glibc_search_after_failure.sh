#!/usr/bin/env bash
# glibc: which name `getaddrinfo("app.prod")` looks up with `search corp.test` in resolv.conf, while app.prod cannot be resolved.
#
# Software: libc6 2.36-9+deb12u14 of Debian 12.
# Expected: `search` completes names that do not exist (NXDOMAIN). A name server that fails (SERVFAIL), refuses, or is silent says
# nothing about the name, so that the lookup is a temporary failure.
# Seen: app.prod.corp.test is looked up in all four cases. If it exists (a wildcard `*.corp.test` is enough), its address is the
# answer, as a success: for the time of a failure the name is another server's. With a dot at the end, "app.prod.", it is a failure.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
apt-get -qq download libc6=2.36-9+deb12u14 2>/dev/null
dpkg -x libc6_*.deb .
cat >look_up.py <<'P'
import socket, sys

try:
    print(*sorted({one[4][0] for one in socket.getaddrinfo(sys.argv[1], 80)}))
except socket.gaierror as error:
    print(error)
P
cat >run.py <<'P'
import socket, struct, subprocess, sys, threading

CODES = {"NOERROR": 0, "SERVFAIL": 2, "NXDOMAIN": 3, "REFUSED": 5}
now = {"answer": "NOERROR"}
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 53))


def serve():
    """app.prod is 127.0.1.1, unless the server fails; *.corp.test is 127.0.2.2."""
    while True:
        query, client = udp.recvfrom(512)
        (kind,) = struct.unpack(">H", query[-4:-2])
        other = query[12:-4].endswith(b"\x04corp\x04test\0")
        answer = "NOERROR" if other else now["answer"]
        if answer == "silent":
            continue
        address = "127.0.2.2" if other else "127.0.1.1"
        records = [socket.inet_aton(address)] if answer == "NOERROR" and kind == 1 else []
        head = query[:2] + struct.pack(">HHHHH", 0x8180 + CODES[answer], 1, len(records), 0, 0)
        body = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + one for one in records)
        udp.sendto(head + query[12:] + body, client)


threading.Thread(target=serve, daemon=True).start()
libraries = "lib/x86_64-linux-gnu"
command = [f"{libraries}/ld-linux-x86-64.so.2", "--library-path", libraries, sys.executable, "look_up.py"]


def look_up(name, answer):
    now["answer"] = answer
    found = subprocess.run([*command, name], text=True, check=True, capture_output=True).stdout.strip()
    print(f"{name:9} {answer:8} -> {found}")
    return found


assert look_up("app.prod", "NOERROR") == "127.0.1.1", "a healthy name server answers otherwise now"
for answer in ["NXDOMAIN", "SERVFAIL", "REFUSED", "silent"]:
    assert look_up("app.prod", answer) == "127.0.2.2", f"{answer} is handled otherwise now"
for answer in ["SERVFAIL", "REFUSED", "silent"]:
    assert "Temporary failure" in look_up("app.prod.", answer), f"{answer} is handled otherwise now with a dot"
P
printf 'nameserver 127.0.0.1\nsearch corp.test\noptions timeout:1 attempts:1\n' >resolv.conf
echo 'hosts: files dns' >nsswitch.conf
# The system's resolver asks port 53 only: it runs in a network and a file system of its own.
unshare --map-root-user --net --mount bash -ec '
    ip link set lo up
    mount --bind resolv.conf /etc/resolv.conf
    mount --bind nsswitch.conf /etc/nsswitch.conf
    python3 run.py'

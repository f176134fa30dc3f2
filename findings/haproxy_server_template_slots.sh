#!/usr/bin/env bash
# HAProxy with `server-template`, `resolvers` and `hash-type consistent`: where two processes with one configuration put 1,000 keys, if
# they see the same five addresses, one of them since its start, the other since one address was added to four.
#
# Software: haproxy 2.6.12-1+deb12u3 of Debian 12.
# Expected: they agree, or they differ by the order of the answer, which name servers change.
# Seen: the order makes no difference at all, but history does: they differ for up to all keys. At the first answer, the addresses
# fill the slots in an order of HAProxy's own; later, a new address takes the first free slot; a slot's number is its place on the ring.
# So a restart or a reload after an address was added or replaced moves keys, and instances of different age disagree.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
apt-get -qq download haproxy=2.6.12-1+deb12u3 \
    liblua5.3-0 libopentracing1 libopentracing-c-wrapper0 2>/dev/null
for package in *.deb; do dpkg -x "$package" .; done
export LD_LIBRARY_PATH="$PWD/usr/lib/x86_64-linux-gnu"
cat >run.py <<'P'
import http.client, socket, struct, subprocess, threading, time

KEYS = range(1000)
FIVE = [f"127.0.0.{number}" for number in range(1, 6)]
listed = []
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 0))


def serve():
    """A name server that answers with the addresses of `listed`, in their order."""
    while True:
        query, client = udp.recvfrom(512)
        end = query.index(b"\0", 12) + 5
        (kind,) = struct.unpack(">H", query[end - 4 : end - 2])
        data = [socket.inet_aton(one) for one in listed] if kind == 1 else []
        head = query[:2] + struct.pack(">HHHHH", 0x8580, 1, len(data), 0, 0)
        records = [b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + one for one in data]
        udp.sendto(head + query[12:end] + b"".join(records), client)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


edge, origin = free_port(), free_port()
with open("haproxy.cfg", "w") as file:
    binds = "".join(f" bind {address}:{origin}\n" for address in [*FIVE, "127.0.0.6"])
    file.write(
        "defaults\n mode http\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n"
        f"resolvers dns\n nameserver one 127.0.0.1:{udp.getsockname()[1]}\n"
        f"frontend edge\n bind 127.0.0.1:{edge}\n default_backend app\n"
        "backend app\n balance uri\n hash-type consistent\n"
        f" server-template s 5 app.test:{origin} resolvers dns resolve-prefer ipv4 init-addr none\n"
        f"listen origins\n{binds} http-request return status 200 hdr x-address %[dst]\n"
    )


def ask(client, key):
    client.request("GET", f"/k{key}")
    response = client.getresponse()
    response.read()
    return response.getheader("x-address")


def place(*answers):
    """The address that each key reaches in a new process which has seen these answers one after another."""
    listed[:] = answers[0]
    proxy = subprocess.Popen(["usr/sbin/haproxy", "-db", "-f", "haproxy.cfg"], stderr=subprocess.DEVNULL)
    try:
        for answer in answers:
            listed[:] = answer
            client, until = http.client.HTTPConnection("127.0.0.1", edge), time.monotonic() + 30
            while True:
                assert time.monotonic() < until, f"HAProxy does not use {answer}"
                try:
                    if {ask(client, key) for key in KEYS[:200]} == set(answer):
                        break
                except OSError:
                    client.close()
                time.sleep(0.2)
        return [ask(client, key) for key in KEYS]
    finally:
        proxy.terminate()
        proxy.wait()


threading.Thread(target=serve, daemon=True).start()
new = place(FIVE)
differ = lambda other: sum(one != two for one, two in zip(new, other)) / len(KEYS)
without = {address: [one for one in FIVE if one != address] for address in FIVE}
found = {
    "the order of the answer reversed": differ(place(FIVE[::-1])),
    "reversed after the start": differ(place(FIVE, FIVE[::-1])),
    **{f"{address} added to the other four": differ(place(without[address], FIVE)) for address in FIVE},
    "127.0.0.6 replaced by 127.0.0.1": differ(place(["127.0.0.6", *FIVE[1:]], FIVE[1:], FIVE)),
}
for case, part in found.items():
    print(f"{100 * part:5.1f} % differ from a new process: {case}")
order, history = list(found.values())[:2], list(found.values())[2:]
assert order == [0, 0], "the order of an answer makes a difference now"
assert max(history) == 1 and sum(part > 0.3 for part in history) >= 4, "the slots are given otherwise now"
P
python3 run.py

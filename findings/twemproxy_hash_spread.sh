#!/usr/bin/env bash
# twemproxy with `distribution: ketama` and ten equal servers: how even 2,000 keys `user:0` … `user:1999` are spread.
#
# Software: nutcracker (twemproxy) 0.5.0+dfsg-2 of Debian 12.
# Expected: every `hash` of its list spreads keys about evenly; 160 points per server give ±10 % or so.
# Seen: with `hash: crc32` one server gets all 2,000 keys: this hash has 15 bits, the circle has 32, and one server owns the
# first 32,768 positions. With the default, `fnv1a_64`, one server gets none and another 2.35 times the mean. `hash: md5` is even.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
apt-get -qq download nutcracker=0.5.0+dfsg-2
dpkg -x nutcracker_*.deb .
cat >run.py <<'P'
import collections, socket, subprocess, threading, time

SERVERS = range(24001, 24011)
placed = collections.Counter()


def serve(port, listener):
    def talk(client):
        lines = client.makefile("rwb")
        for line in lines:
            words = line.split()
            if words[0] == b"set":
                lines.read(int(words[4]) + 2)
                placed[port] += 1
                lines.write(b"STORED\r\n")
            else:
                lines.write(b"VERSION 1.6.18\r\n")
            lines.flush()

    while True:
        client, _ = listener.accept()
        threading.Thread(target=talk, args=(client,), daemon=True).start()


def spread(function):
    """Keys per server, with this `hash`; `None`: the default."""
    choice = f"  hash: {function}\n" if function else ""
    servers = "".join(f"   - 127.0.0.1:{port}:1\n" for port in SERVERS)
    with open("nutcracker.yml", "w") as file:
        file.write(f"pool:\n  listen: 127.0.0.1:24100\n{choice}  distribution: ketama\n  servers:\n{servers}")
    command = ["usr/sbin/nutcracker", "-c", "nutcracker.yml", "-a", "127.0.0.1", "-s", "24101"]
    proxy = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while True:
        try:
            client = socket.create_connection(("127.0.0.1", 24100))
            break
        except OSError:
            time.sleep(0.05)
    placed.clear()
    lines = client.makefile("rwb")
    for number in range(2000):
        lines.write(f"set user:{number} 0 0 1\r\n1\r\n".encode())
    lines.flush()
    assert all(lines.readline() == b"STORED\r\n" for _ in range(2000))
    client.close()
    proxy.terminate()
    proxy.wait()
    return [placed[port] for port in SERVERS]


for port in SERVERS:
    threading.Thread(target=serve, args=(port, socket.create_server(("127.0.0.1", port))), daemon=True).start()
found = {function: spread(function) for function in [None, "fnv1a_64", "crc32", "md5"]}
for function, counts in found.items():
    print(function or "default", counts)
assert sorted(found["crc32"])[-2:] == [0, 2000], "crc32 has changed"
assert found[None] == found["fnv1a_64"], "the default has changed"
assert min(found[None]) == 0 and max(found[None]) > 400, "fnv1a_64 has changed"
assert min(found["md5"]) > 150 and max(found["md5"]) < 250, "md5 has changed"
P
python3 run.py

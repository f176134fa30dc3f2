#!/usr/bin/env bash
# pymemcache's HashClient with five servers: whether `get(b"user:1")` asks the server that `set("user:1", …)` wrote to.
#
# Software: pymemcache 4.0.0 (PyPI).
# Expected: yes: both forms of a key are allowed, and on the wire they are the same bytes.
# Seen: for 20 % of 1,000 keys, as chance would: the hash is taken of the key as Python prints it, `user:1` or `b'user:1'`. So a
# value that is stored with the one form is not found with the other. python-memcached 1.62 asks the same server for all keys.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
python3 -m venv v
v/bin/pip install -q pymemcache==4.0.0 python-memcached==1.62
cat >run.py <<'P'
import socket, threading

import memcache
from pymemcache.client.hash import HashClient

KEYS = [f"user:{number}" for number in range(1000)]
asked = {}


def serve(listener):
    """A memcached that stores nothing, and notes which server a key came to."""
    port = listener.getsockname()[1]

    def talk(client):
        lines = client.makefile("rwb")
        for line in lines:
            words = line.split()
            asked[words[1].decode()] = port
            if words[0] == b"set":
                lines.read(int(words[4]) + 2)
            lines.write(b"STORED\r\n" if words[0] == b"set" else b"END\r\n")
            lines.flush()

    while True:
        client, _ = listener.accept()
        threading.Thread(target=talk, args=(client,), daemon=True).start()


def same(client):
    """The share of the keys that are read as bytes from the server where they were written as text."""
    for key in KEYS:
        client.set(key, "1")
    written = dict(asked)
    for key in KEYS:
        client.get(key.encode())
    return sum(asked[key] == written[key] for key in KEYS) / len(KEYS)


listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(5)]
for listener in listeners:
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
servers = [listener.getsockname() for listener in listeners]
ring = same(HashClient(servers, default_noreply=False))
other = same(memcache.Client([f"{host}:{port}" for host, port in servers]))
print(f"the same server: pymemcache {100 * ring:.1f} % of the keys, python-memcached {100 * other:.1f} %")
assert ring < 0.3 and other == 1, "the keys have changed"
P
v/bin/python run.py

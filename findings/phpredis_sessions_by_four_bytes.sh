#!/usr/bin/env bash
# PHP sessions in Redis (`session.save_handler=redis`, several servers in `session.save_path`): how even 3,200 sessions are spread.
#
# Software: PHP 8.2.32-1~deb12u1 and phpredis 5.3.7+4.3.0-3 of Debian 12, ids of sessions as PHP makes them by default.
# Expected: evenly, as session ids are random.
# Seen: with 16 servers 6 get no session, and others twice the mean; with 8 the fullest has 3 times as many as the emptiest. The
# server is the first four bytes of the id, read as a number, modulo the number of servers, and these bytes are hexadecimal digits:
# with 8 or 16 servers only the first digit counts. A seventeenth server gives about 95 % of the sessions another server.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
apt-get -qq download php8.2-cli=8.2.32-1~deb12u1 php8.2-redis=5.3.7+4.3.0-3 php8.2-igbinary=3.2.13-1 \
    libargon2-1=0~20171227-0.3+deb12u1 libsodium23=1.0.18-1+deb12u1 libedit2=3.1-20221030-2 2>/dev/null
for package in *.deb; do dpkg -x "$package" .; done
cat >run.py <<'P'
import collections, os, socket, subprocess, threading

SESSIONS = 3200
stored = {}


def serve(listener):
    """A Redis that stores nothing, and notes which server a session came to."""
    port = listener.getsockname()[1]

    def talk(client):
        lines = client.makefile("rwb")
        for head in lines:
            words = []
            for _ in range(int(head[1:])):
                size = int(lines.readline()[1:])
                words.append(lines.read(size))
                lines.read(2)
            if words[0].upper() in (b"SET", b"SETEX"):
                stored[words[1].decode()] = port
            lines.write(b"$-1\r\n" if words[0].upper() == b"GET" else b"+OK\r\n")
            lines.flush()

    while True:
        client, _ = listener.accept()
        threading.Thread(target=talk, args=(client,), daemon=True).start()


def php(code, **options):
    folder = "usr/lib/php/20220829"
    options = {"extension_dir": os.path.abspath(folder), "session.cache_limiter": "", "session.use_cookies": 0, **options}
    command = ["usr/bin/php8.2", "-n"]
    for name, value in options.items():
        command += ["-d", f'{name}="{value}"']
    command += ["-d", "extension=igbinary", "-d", "extension=redis", "-r", code]
    environment = {**os.environ, "LD_LIBRARY_PATH": "usr/lib/x86_64-linux-gnu"}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def place(servers):
    """The server of each session."""
    stored.clear()
    path = ",".join(f"tcp://127.0.0.1:{port}" for port in PORTS[:servers])
    code = f"""
foreach (explode(' ', '{" ".join(IDS)}') as $id) {{
    session_id($id); session_start(); $_SESSION['a'] = 1; session_write_close();
}}"""
    php(code, **{"session.save_handler": "redis", "session.save_path": path})
    assert len(stored) == SESSIONS
    return [stored[f"PHPREDIS_SESSION:{id}"] for id in IDS]


PORTS = []
for _ in range(17):
    listener = socket.create_server(("127.0.0.1", 0))
    PORTS.append(listener.getsockname()[1])
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
IDS = php(f"for ($number = 0; $number < {SESSIONS}; $number++) echo session_create_id(), ' ';").split()
found = {servers: place(servers) for servers in [8, 16, 17]}
counts = {servers: [collections.Counter(placed)[port] for port in PORTS[:servers]] for servers, placed in found.items()}
moved = sum(one != two for one, two in zip(found[16], found[17])) / SESSIONS
print(f"an id: {IDS[0]}")
for servers in [8, 16]:
    print(f"{servers} servers: {counts[servers]}")
print(f"a seventeenth server: {100 * moved:.1f} % of the sessions move")
assert counts[16].count(0) == 6 and max(counts[16]) > 350 and moved > 0.9, "phpredis places sessions in another way now"
assert max(counts[8]) > 2 * min(counts[8]), "phpredis places sessions in another way now"
P
python3 run.py

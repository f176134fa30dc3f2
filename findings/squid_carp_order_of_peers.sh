#!/usr/bin/env bash
# Squid with five `cache_peer … carp` of equal weight: which share of 500 keys of the other peers moves if the line of one peer is
# removed, by its place among the lines; and if the lines are in reverse order.
#
# Software: squid 5.7-2+deb12u6 of Debian 12.
# Expected: none: CARP gives a URL to the peer with the highest score, and the score is made of the URL and the name of the peer.
# Seen: without the last line none moves; without the first line 75 %, as by chance, and about as many in reverse order. The hash of
# the URL goes on from peer to peer, so the score depends on the number of the peers before. A peer that is down, but still in the
# list, moves only its own keys. Two Squids with the same peers in another order do not agree.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
chmod 755 .
apt-get -qq download squid=5.7-2+deb12u6 squid-common=5.7-2+deb12u6 squid-langpack libecap3 libltdl7 2>/dev/null
for package in *.deb; do dpkg -x "$package" .; done
export LD_LIBRARY_PATH="$PWD/usr/lib/x86_64-linux-gnu"
cat >run.py <<'P'
import atexit, http.client, http.server, os, socket, subprocess, threading, time

KEYS = [f"/k{number}" for number in range(500)]
HERE = os.getcwd()


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("X-Server", str(self.server.server_address[1]))
        self.send_header("Content-Length", "0")
        self.end_headers()


def serve():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def ask(client, path):
    client.request("GET", path, headers={"Host": "app.example"})
    response = client.getresponse()
    response.read()
    server = response.getheader("X-Server")
    return server and int(server)


def place(peers):
    """The server of each key, for lines of (name, port) in this order."""
    port = free_port()
    lines = [
        f"http_port 127.0.0.1:{port} accel defaultsite=app.example",
        "visible_hostname edge.example", "http_access allow all", "never_direct allow all", "nonhierarchical_direct off",
        "cache deny all", "cache_mem 8 MB", "pid_filename none", "access_log none", "cache_log /dev/null", "pinger_enable off",
        "shutdown_lifetime 0 seconds", f"coredump_dir {HERE}", f"mime_table {HERE}/usr/share/squid/mime.conf",
        f"icon_directory {HERE}/usr/share/squid/icons", f"error_directory {HERE}/usr/share/squid-langpack/en",
        f"unlinkd_program {HERE}/usr/lib/squid/unlinkd",
    ]
    options = "0 carp no-query no-digest originserver connect-fail-limit=1"
    lines += [f"cache_peer 127.0.0.1 parent {server} {options} name={name}" for name, server in peers]
    with open("squid.conf", "w") as file:
        file.write("\n".join([*lines, ""]))
    squid = subprocess.Popen(["usr/sbin/squid", "-N", "-f", "squid.conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(squid.kill)
    client = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(300):
        try:
            if ask(client, "/") is not None:
                break
        except OSError:
            client.close()
        time.sleep(0.1)
    found = {key: ask(client, key) for key in KEYS}
    client.close()
    squid.terminate()
    squid.wait()
    assert None not in found.values(), "requests failed"
    return found


def moved(after, gone):
    """The share of the keys that move, without those of the server that is gone."""
    keys = [key for key in KEYS if before[key] != gone]
    return sum(before[key] != after[key] for key in keys) / len(keys)


PEERS = [(f"cache-{letter}", serve()) for letter in "abcde"]
before = place(PEERS)
found = []
for index, (name, server) in enumerate(PEERS):
    found.append(moved(place(PEERS[:index] + PEERS[index + 1 :]), server))
    print(f"without line {index + 1}: {100 * found[-1]:.0f} % of the keys of the others move")
order = moved(place(PEERS[::-1]), None)
print(f"lines in reverse order: {100 * order:.0f} % of all keys move")
dead = socket.socket()  # bound, but does not listen
dead.bind(("127.0.0.1", 0))
down = moved(place([(PEERS[0][0], dead.getsockname()[1]), *PEERS[1:]]), PEERS[0][1])
print(f"the peer of line 1 refuses connections: {100 * down:.0f} % of the keys of the others move")
assert found[4] == down == 0, "a peer at the end or a dead peer moves keys of others"
assert found[0] > 0.5 and order > 0.5, "the order of the lines does not matter now"
P
python3 run.py

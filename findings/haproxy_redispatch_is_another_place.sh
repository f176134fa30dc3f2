#!/usr/bin/env bash
# HAProxy with `hash-type consistent`, `option redispatch` and five servers, one of which stops: where its keys go while HAProxy retries,
# and where they go when it is marked as down (`disabled` here, as after failed checks).
#
# Software: haproxy 2.6.12-1+deb12u4 of Debian 12.
# Expected: to the same servers: the next one on the ring, which also has the key when the server is down.
# Seen: more than a third of the keys have one server for the retry and another one when the server is down. So such a key is built up
# (cache, session) on two servers, one after the other. The retries of a key always have the same server.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
apt-get -qq download haproxy=2.6.12-1+deb12u4 2>/dev/null
dpkg -x haproxy_*.deb .
cat >run.py <<'P'
import atexit, http.client, http.server, socket, subprocess, threading, time

KEYS = range(300)


class Server(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("X-Server", str(self.server.server_address[1]))
        self.end_headers()


def serve():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def ask(port, key):
    client = http.client.HTTPConnection("127.0.0.1", port)
    client.request("GET", "/", headers={"X-User": f"user {key}"})
    response = client.getresponse()
    client.close()
    return response.status, response.getheader("X-Server")


def haproxy(name, last, retry=True):
    """The status and the server of each key, asked twice; `last` are the address and the options of the fifth server."""
    port = free_port()
    lines = ["defaults", " mode http", " timeout connect 9s", " timeout client 9s", " timeout server 9s", "listen app"]
    lines += [f" bind 127.0.0.1:{port}", " balance hdr(X-User)", " hash-type consistent"]
    lines += [" option redispatch", " retries 1"] if retry else [" retries 0"]
    lines += [f" server s{index} 127.0.0.1:{server}" for index, server in enumerate([*SERVERS, last])]
    with open(name, "w") as file:
        file.write("\n".join([*lines, ""]))
    process = subprocess.Popen(["usr/sbin/haproxy", "-f", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(process.kill)
    for _ in range(300):
        try:
            ask(port, 0)
            break
        except OSError:
            time.sleep(0.1)
    found = [[ask(port, key) for key in KEYS] for _ in range(2)]
    process.terminate()
    process.wait()
    assert found[0] == found[1], "a key has several servers"
    return found[0]


SERVERS = [serve() for _ in range(4)]
silent = socket.socket()  # bound, but does not listen
silent.bind(("127.0.0.1", 0))
dead = silent.getsockname()[1]
alone = haproxy("alone.cfg", dead, retry=False)
retried = haproxy("retried.cfg", dead)
down = haproxy("down.cfg", f"{dead} disabled")
own = [key for key in KEYS if alone[key][0] == 503]
others = [key for key in KEYS if alone[key][0] == 200]
differ = sum(retried[key] != down[key] for key in own) / len(own)
print(f"{len(own)} keys of the server that stops: {100 * differ:.0f} % have one server for the retry and another one when it is down")
assert len(own) > 20 and not any(status != 200 for status, _ in retried + down), "requests fail"
assert all(alone[key] == retried[key] == down[key] for key in others), "keys of other servers move"
assert 0.2 < differ < 0.6, "the server of a retry has changed"
P
python3 run.py

#!/usr/bin/env bash
# Five servers of Express with express-session and its store in memory, behind HAProxy that hashes the cookie of the session,
# `connect.sid`: how many sessions a new client gets until a server finds one again.
#
# Software: express 5.1.0 and express-session 1.19.0 (npm), haproxy 2.6.12-1+deb12u4 of Debian 12.
# Expected: one or two: the first request has no cookie and goes anywhere; from the second on the cookie leads to one server.
# Seen: four to six on average, and more than 15 for some. The server that the cookie leads to does not know its session, and makes a new one
# with a new cookie, which leads to another server; this ends when a session is, by chance, at the server that its cookie leads to.
# A key that the servers do not change (a header here; a cookie that the proxy makes) leads to one server from the first request on.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
npm install --silent --no-audit --no-fund express@5.1.0 express-session@1.19.0
apt-get -qq download haproxy=2.6.12-1+deb12u4 2>/dev/null
dpkg -x haproxy_*.deb .
cat >server.js <<'J'
const express = require("express");
const session = require("express-session");

for (const port of process.argv.slice(2)) {
  const app = express();
  app.use(session({ secret: "secret", resave: false, saveUninitialized: true }));
  app.get("/", (request, response) => {
    request.session.visits = (request.session.visits || 0) + 1;
    response.send(String(request.session.visits));
  });
  app.listen(Number(port), "127.0.0.1");
}
J
cat >run.py <<'P'
import atexit, http.client, socket, subprocess, time

CLIENTS, REQUESTS = 60, 100


def free_ports(count):
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def ask(port, **headers):
    """The number of visits in the session, and the cookie that is set."""
    client = http.client.HTTPConnection("127.0.0.1", port)
    client.request("GET", "/", headers=headers)
    response = client.getresponse()
    visits = response.status == 200 and int(response.read())
    client.close()
    return visits, (response.getheader("Set-Cookie") or "").split(";")[0]


def start(command, *ports):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(process.kill)
    for port in ports:
        for _ in range(300):
            try:
                if ask(port)[0]:
                    break
            except OSError:
                pass
            time.sleep(0.1)
        else:
            raise SystemExit("timed out: start")


def sessions(port, **headers):
    """For each client, the number of sessions that it gets until one is found again."""
    counts = []
    for client in range(CLIENTS):
        cookie, made = "", 0
        named = {name: value.format(client) for name, value in headers.items()}
        for _ in range(REQUESTS):
            visits, new = ask(port, **named, **({"Cookie": cookie} if cookie else {}))
            if visits > 1:
                break
            made, cookie = made + 1, new
        counts.append(made)
    return counts


*SERVERS, by_session, by_user = free_ports(7)
with open("haproxy.cfg", "w") as file:
    file.write("defaults\n mode http\n timeout connect 9s\n timeout client 9s\n timeout server 9s\n")
    for port, key in ((by_session, "req.cook(connect.sid)"), (by_user, "req.hdr(X-User)")):
        file.write(f"listen edge{port}\n bind 127.0.0.1:{port}\n balance hash {key}\n hash-type consistent\n")
        file.writelines(f" server s{server} 127.0.0.1:{server}\n" for server in SERVERS)
start(["node", "server.js", *map(str, SERVERS)], *SERVERS)
start(["usr/sbin/haproxy", "-f", "haproxy.cfg"], by_session, by_user)
found, stable = sessions(by_session), sessions(by_user, **{"X-User": "user {}"})
print(f"hash of the session's cookie: {sum(found) / CLIENTS:.1f} sessions for each client, at most {max(found)}")
print(f"hash of a value that the servers do not change: {sum(stable) / CLIENTS:.1f}, at most {max(stable)}")
assert set(stable) == {1}, "a stable key does not lead to one server"
assert sum(found) / CLIENTS > 2.5 and max(found) > 6, "the cookie of a session leads back to it now"
P
python3 run.py

#!/usr/bin/env bash
# Varnish with the `hash` director and with the `shard` director, five backends of equal weight: what moves when the probe of the
# first backend fails.
#
# Software: varnish 7.1.1-2+deb12u1 of Debian 12.
# Expected: with both, the keys of the sick backend move, 20 %; the list of backends has not changed.
# Seen: with `hash`, more than a third of the keys of the healthy backends move too, and back when the probe succeeds again: a hash is
# a place in the sum of the weights of the backends that are healthy now. With `shard` only the keys of the sick backend move.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
apt-get -qq download varnish=7.1.1-2+deb12u1 libvarnishapi3=7.1.1-2+deb12u1 2>/dev/null
for package in *.deb; do dpkg -x "$package" .; done
export LD_LIBRARY_PATH="$PWD/usr/lib/x86_64-linux-gnu:$PWD/usr/lib/x86_64-linux-gnu/varnish"
cat >run.py <<'P'
import atexit, http.client, http.server, os, socket, subprocess, threading, time

KEYS = [f"/k{number}" for number in range(400)]
sick = set()


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        port = self.server.server_address[1]
        self.send_response(503 if self.path == "/health" and port in sick else 200)
        self.send_header("X-Server", str(port))
        self.send_header("Content-Length", "0")
        self.end_headers()


def serve():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def varnish(director, port):
    probe = ".probe = { .url = \"/health\"; .interval = 0.2s; .timeout = 9s; .window = 1; .threshold = 1; .initial = 1; }"
    lines = [f'backend b{server} {{ .host = "127.0.0.1"; .port = "{server}"; {probe} }}' for server in SERVERS]
    add = "d.add_backend(b{0}, 1);" if director == "hash" else "d.add_backend(b{0});"
    lines += [f"sub vcl_init {{ new d = directors.{director}();", *map(add.format, SERVERS)]
    lines += ["}" if director == "hash" else "d.reconfigure(); }", "sub vcl_recv { return (pass); }"]
    choice = "d.backend(bereq.url)" if director == "hash" else "d.backend(by=URL)"
    lines.append(f"sub vcl_backend_fetch {{ set bereq.backend = {choice}; }}")
    with open(f"{director}.vcl", "w") as file:
        file.write("\n".join(["vcl 4.1;", "import directors;", *lines, ""]))
    command = ["usr/sbin/varnishd", "-F", "-j", "none", "-n", os.path.abspath(director), "-f", os.path.abspath(f"{director}.vcl")]
    command += ["-a", f"127.0.0.1:{port}", "-s", "malloc,8M", "-p", "thread_pools=1", "-p", "thread_pool_min=10"]
    command += ["-p", f"vmod_path={os.path.abspath('usr/lib/x86_64-linux-gnu/varnish/vmods')}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(process.kill)
    return process


def ask(port, path):
    client = http.client.HTTPConnection("127.0.0.1", port)
    client.request("GET", path)
    server = client.getresponse().getheader("X-Server")
    client.close()
    return server and int(server)


def place(port):
    return {key: ask(port, key) for key in KEYS}


def wait(condition, what):
    for _ in range(300):
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"timed out: {what}")


def moved(director):
    """The shares of the keys of healthy backends that move, of the sick one's, and of all after its return."""
    port = free_port()
    process = varnish(director, port)
    wait(lambda: ask(port, KEYS[0]), "start of varnishd")
    before = place(port)
    gone = SERVERS[0]
    key = next(key for key in KEYS if before[key] == gone)
    sick.add(gone)
    wait(lambda: ask(port, key) != gone, "failure of the probe")
    during = place(port)
    sick.clear()
    wait(lambda: ask(port, key) == gone, "success of the probe")
    after = place(port)
    process.terminate()
    process.wait()
    others = [key for key in KEYS if before[key] != gone]
    own = [key for key in KEYS if before[key] == gone]
    share = lambda keys, now: sum(before[key] != now[key] for key in keys) / len(keys)
    return share(others, during), share(own, during), share(KEYS, after)


SERVERS = [serve() for _ in range(5)]
found = {director: moved(director) for director in ("hash", "shard")}
for director, (others, own, after) in found.items():
    print(f"{director}: {100 * others:.0f} % of the keys of healthy backends moved, {100 * own:.0f} % of the sick one's; "
          f"{100 * after:.0f} % are elsewhere after its return")
assert found["shard"] == (0, 1, 0), "the shard director has changed"
assert found["hash"][0] > 0.25 and found["hash"][1:] == (1, 0), "the hash director has changed"
P
python3 run.py

#!/usr/bin/env bash
# smg (router of language models) with `--policy prefix_hash`, four servers: the server of each turn of a conversation of 16 turns that
# begins with a short system message, and of 40 conversations that share a long one.
#
# Software: smg 1.13.0 (PyPI).
# Expected: each turn contains the messages before it, so the prefix is the same, and a conversation stays with the server that has it
# in its cache.
# Seen: the hash is of the first 256 tokens, or of all if there are fewer. So until a conversation is that long, each turn has another
# hash: the server changes in about three of four turns, as by chance. 40 conversations with one long system message all have one
# server. With a header `X-SMG-Routing-Key` a conversation stays (`--policy consistent_hashing` here).
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
python3 -m venv v
v/bin/pip install -q smg==1.13.0
cat >run.py <<'P'
import atexit, http.client, http.server, json, socket, subprocess, threading, time

reached = []


class Model(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer({"data": [{"id": "model"}], "model_id": "model", "model_path": "model", "served_model_name": "model"})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        reached.append(self.server.server_address[1])
        message = {"role": "assistant", "content": "yes"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        self.answer({"id": "1", "object": "chat.completion", "created": 1, "model": "model", "choices": choices, "usage": usage})


def serve():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def ask(port, messages, **headers):
    """The server that is reached, from 0; none if the answer is an error."""
    client = http.client.HTTPConnection("127.0.0.1", port)
    body = json.dumps({"model": "model", "messages": messages})
    client.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json", **headers})
    response = client.getresponse()
    response.read()
    client.close()
    return SERVERS.index(reached[-1]) if response.status == 200 else None


def say(role, text):
    return {"role": role, "content": text}


def start(policy):
    port = free_port()
    command = ["v/bin/smg", "launch", "--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())]
    command += ["--policy", policy, "--worker-urls", *[f"http://127.0.0.1:{server}" for server in SERVERS]]
    router = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(router.kill)
    for number in range(600):
        try:
            if ask(port, [say("user", f"ready? {number}")], **{"X-SMG-Routing-Key": str(number)}) is not None and len(set(reached)) == 4:
                reached.clear()
                return router, port
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("timed out: start of the router")


def conversation(port, name, **headers):
    """The servers of 16 turns."""
    messages, servers = [say("system", "Be brief.")], []
    for turn in range(16):
        messages.append(say("user", f"{name} asks question {turn} with a few more words"))
        servers.append(ask(port, messages, **headers))
        messages.append(say("assistant", "This is an answer of ten words for this one."))
    return servers


def stop(router):
    router.terminate()
    router.wait()


SERVERS = [serve() for _ in range(4)]
router, port = start("prefix_hash")
short = [conversation(port, name) for name in ("Ann", "Bob", "Eve", "Tom")]
long = [ask(port, [say("system", "You are a careful helper. " * 100), say("user", f"question {number}")]) for number in range(40)]
stop(router)
router, port = start("consistent_hashing")
keyed = [conversation(port, name, **{"X-SMG-Routing-Key": name}) for name in ("Ann", "Bob", "Eve", "Tom")]
stop(router)
for servers in short:
    print("prefix_hash, servers of the turns:", *servers)
for servers in keyed:
    print("consistent_hashing with a key:    ", *servers)
print(f"prefix_hash, one long system message: 40 conversations have {len(set(long))} server(s)")
changes = lambda servers: sum(one != other for one, other in zip(servers, servers[1:]))
early = sum(changes(servers[:8]) for servers in short) / 28
print(f"the server changes in {100 * early:.0f} % of the first turns")
assert None not in sum(short + keyed, long), "requests failed"
assert early > 0.35 and not sum(changes(servers[12:]) for servers in short), "prefix_hash has changed"
assert len(set(long)) == 1 and not sum(map(changes, keyed)), "the place by a long prefix or by a key has changed"
P
python3 run.py

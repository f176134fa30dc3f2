#!/usr/bin/env bash
# vllm-router with `--policy consistent_hash` in front of four servers: what it takes as the key of a session.
#
# Software: vllm-router 0.1.17 (PyPI).
# Expected: the session that the body names (`session_params.session_id`, or `user` as in OpenAI's interface) is the key; a request
# id never is; requests without any of them are spread.
# Seen: a header `X-Request-Id` or `X-Correlation-Id` comes before the session of the body. A proxy in front of the router that
# numbers requests (most do) so spreads each session over all servers; `X-Session-Id` and `X-User-Id` come before them. `user` is no
# key. Requests without a key all go to one server, whatever their messages are.
set -euo pipefail
cd "$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$PWD"' EXIT
python3 -m venv v
v/bin/pip install -q vllm-router==0.1.17
cat >run.py <<'P'
import http.client, http.server, json, subprocess, threading, time

SERVERS = [22001, 22002, 22003, 22004]


class Model(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        text = json.dumps({"id": "m", "model_path": "m", "data": [{"id": "m"}], "server": self.server.server_address[1]})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = answer


for port in SERVERS:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
urls = [f"http://127.0.0.1:{port}" for port in SERVERS]
command = ["v/bin/vllm-router", "--worker-urls", *urls, "--policy", "consistent_hash", "--host", "127.0.0.1", "--port", "22100"]
router = subprocess.Popen([*command, "--prometheus-port", "22101"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ask(headers, **fields):
    client = http.client.HTTPConnection("127.0.0.1", 22100)
    body = {"model": "m", "messages": [{"role": "user", "content": "q"}], **fields}
    client.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json", **headers})
    return json.loads(client.getresponse().read())["server"]


def servers(request):
    """The number of servers that 60 requests reach."""
    requests = [request(number) for number in range(60)]
    return len({ask(headers, **fields) for headers, fields in requests})


for _ in range(300):
    try:
        ask({})
        break
    except (OSError, KeyError, ValueError):
        time.sleep(0.1)
session = {"session_params": {"session_id": "s"}}
say = lambda number: {"messages": [{"role": "user", "content": f"question {number}"}]}
found = {
    "sessions in the body differ": servers(lambda number: ({}, {"session_params": {"session_id": f"s{number}"}})),
    "session in the body, messages differ": servers(lambda number: ({}, {**session, **say(number)})),
    "session in the body, request ids differ": servers(lambda number: ({"X-Request-Id": f"r{number}"}, session)),
    "session in the body, correlation ids differ": servers(lambda number: ({"X-Correlation-Id": f"r{number}"}, session)),
    "session in a header, request ids differ": servers(lambda number: ({"X-Request-Id": f"r{number}", "X-Session-Id": "s"}, {})),
    "user in a header, request ids differ": servers(lambda number: ({"X-Request-Id": f"r{number}", "X-User-Id": "u"}, {})),
    "users in the body differ": servers(lambda number: ({}, {"user": f"u{number}"})),
    "no key, messages differ": servers(lambda number: ({}, say(number))),
}
router.terminate()
for case, count in found.items():
    print(f"{count} of 4 servers: {case}")
assert list(found.values()) == [4, 1, 4, 4, 1, 1, 1, 1], "the keys of vllm-router have changed"
P
v/bin/python run.py

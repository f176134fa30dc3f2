#!/usr/bin/env bash
# The Python client of Kubernetes: what `watch.Watch().stream(list_namespaced_pod, "default")` shows after the API server ends the watch
# in an orderly way, as it does every half an hour to an hour.
#
# Software: kubernetes 37.0.2 (PyPI), with a small stand-in for the API server: pods with resource versions, list and watch.
# Expected: the client goes on from the newest version that it has seen; nothing is shown twice. If this version is too old (410), it lists
# again, as the informers of Kubernetes do.
# Seen: it goes on from the version of the pod that came last, and the first list comes by name, so that this may be the oldest pod.
# It then shows again all that happened since: a pod that was deleted long before the start is ADDED and DELETED. If this version
# is too old, as it is in a cluster of some age, the loop ends with an exception (410).
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
python3 -m venv v
v/bin/pip install -q kubernetes==37.0.2
cat >run.py <<'P'
import http.server, json, os, sys, threading, time, urllib.parse

from kubernetes import client, watch

changes, pods, asked = [], {}, []
state = {"compacted": 0, "ends": 0}


def change(kind, name):
    version = len(changes) + 1
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "app"}]},
           "metadata": {"name": name, "namespace": "default", "resourceVersion": str(version)}}
    pods[name] = pod
    if kind == "DELETED":
        del pods[name]
    changes.append((version, {"type": kind, "object": pod}))


class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, event):
        line = json.dumps(event).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        version = query.get("resourceVersion", [None])[0]
        assert query["watch"] == ["true"], "the client does not watch any more"
        ends = state["ends"]
        asked.append(version)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if version is None:
            version = len(changes)
            for name in sorted(pods):
                self.send({"type": "ADDED", "object": pods[name]})
        if int(version) < state["compacted"]:
            gone = {"kind": "Status", "status": "Failure", "reason": "Expired", "message": "too old resource version", "code": 410}
            self.send({"type": "ERROR", "object": gone})
            state["ends"] += 1
        last = int(version)
        while state["ends"] == ends:
            while last < len(changes):
                self.send(changes[last][1])
                last += 1
            time.sleep(0.05)
        self.wfile.write(b"0\r\n\r\n")


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, f"waited too long: {seen} {asked}"
        time.sleep(0.05)


def run():
    try:
        for event in watch.Watch().stream(client.CoreV1Api().list_namespaced_pod, "default"):
            seen.append(f"{event['type']} {event['object'].metadata.name}")
    except client.ApiException as error:
        seen.append(str(error.status))


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
client.Configuration.set_default(client.Configuration(host=f"http://127.0.0.1:{server.server_port}"))
for kind, name in ("ADDED", "web-z"), ("ADDED", "web-old"), ("DELETED", "web-old"), ("ADDED", "web-a"), ("ADDED", "web-b"):
    change(kind, name)
found = []
for compacted in 0, 3:
    seen = []
    asked.clear()
    state["compacted"] = 0
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(lambda: len(seen) == 3)
    first = list(seen)
    seen.clear()
    state["compacted"] = compacted
    state["ends"] += 1
    until(lambda: len(seen) >= (1 if compacted else 4))
    found.append(list(seen))
    print(f"first: {first}; after the end of the watch, from version {asked[1]} of {len(changes)}: {seen}")
    assert asked[:2] == [None, "1"], "the client goes on from another version"
assert found == [["ADDED web-old", "DELETED web-old", "ADDED web-a", "ADDED web-b"], ["410"]], "what the client shows has changed"
sys.stdout.flush()
# Without the end of the threads that still watch.
os._exit(0)
P
v/bin/python run.py

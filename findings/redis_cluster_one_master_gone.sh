#!/usr/bin/env bash
# Redis Cluster of three masters without replicas: which of 300 keys can be read after one master has died.
#
# Software: redis-server 5:7.0.15-1~deb12u7 of Debian 12, `cluster-node-timeout` of 1 s; redis 8.1.0 (PyPI).
# Expected: two thirds: the keys of the two other masters, as with any client of several servers that hashes.
# Seen: none. The two masters that live answer CLUSTERDOWN for all keys, their own too, since `cluster-require-full-coverage` is `yes`
# by default. With `no` it is two thirds.
set -euo pipefail
cd "$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$PWD"' EXIT
apt-get -qq download redis-server=5:7.0.15-1~deb12u7 redis-tools=5:7.0.15-1~deb12u7 liblzf1 libjemalloc2 libatomic1 2>/dev/null
for package in *.deb; do dpkg -x "$package" .; done
python3 -m venv v
v/bin/pip install -q redis==8.1.0
cat >run.py <<'P'
import atexit, os, subprocess, time

import redis

os.environ["LD_LIBRARY_PATH"] = os.getcwd() + "/usr/lib/x86_64-linux-gnu"


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def answers(client):
    try:
        return client.ping()
    except redis.ConnectionError:
        return False


def reads(clients):
    """The share of 300 keys that one of these masters reads."""
    def read(client, key):
        try:
            client.get(key)
            return True
        except redis.ResponseError:
            return False
    return sum(any(read(client, f"user:{number}") for client in clients) for number in range(300)) / 300


def run(first, *options):
    ports = range(first, first + 3)
    masters = []
    for port in ports:
        os.mkdir(str(port))
        masters.append(subprocess.Popen(
            ["usr/bin/redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(port),
             "--cluster-enabled", "yes", "--cluster-node-timeout", "1000", *options], stdout=subprocess.DEVNULL))
        atexit.register(masters[-1].kill)
    clients = [redis.Redis(port=port) for port in ports]
    until(lambda: all(map(answers, clients)))
    create = ["usr/bin/redis-cli", "--cluster", "create", *[f"127.0.0.1:{port}" for port in ports], "--cluster-yes"]
    subprocess.run(create, check=True, stdout=subprocess.DEVNULL)
    until(lambda: all(client.cluster("info")["cluster_state"] == "ok" for client in clients))
    before = reads(clients)
    masters[2].kill()
    until(lambda: all(client.cluster("info")["cluster_slots_fail"] != "0" for client in clients[:2]))
    time.sleep(1)
    return before, reads(clients[:2])


default, partial = run(21011), run(21014, "--cluster-require-full-coverage", "no")
print(f"can be read before and after: {default} by default, {partial} without full coverage")
assert default == (1, 0) and partial[0] == 1 and 0.55 < partial[1] < 0.78, "the cluster has changed"
P
v/bin/python run.py

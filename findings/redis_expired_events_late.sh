#!/usr/bin/env bash
# Redis as a registry: five servers each hold a key with a time to live of 2 s (`SET server:N … PX 2000`) and die; a program removes a
# server when the event `expired` of its key comes (`notify-keyspace-events Ex`). When do the five events come?
#
# Software: redis-server 5:7.0.15-1~deb12u7 of Debian 12, with its defaults; redis 8.1.0 (PyPI).
# Expected: within a second of the end of the time to live; Redis looks for expired keys ten times a second.
# Seen: so it is in a database without other keys. With 20,000 others that live for an hour (sessions), three of the five had not
# come after half a minute: Redis looks at a few keys each time. A read of such a key finds nothing, as it should, and brings the event.
set -euo pipefail
cd "$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$PWD"' EXIT
apt-get -qq download redis-server=5:7.0.15-1~deb12u7 redis-tools=5:7.0.15-1~deb12u7 liblzf1 libjemalloc2 libatomic1 2>/dev/null
for package in *.deb; do dpkg -x "$package" .; done
python3 -m venv v
v/bin/pip install -q redis==8.1.0
LD_LIBRARY_PATH="$PWD/usr/lib/x86_64-linux-gnu" usr/bin/redis-server --bind 127.0.0.1 --port 26001 --save '' \
    --notify-keyspace-events Ex >log &
cat >run.py <<'P'
import time

import redis

SERVERS = [f"server:{number}" for number in range(5)]
client = redis.Redis(port=26001)


def run(others, seconds):
    """How late the events are that come in this time, and how many more come by a read of the keys."""
    client.flushall()
    pipe = client.pipeline()
    for number in range(others):
        pipe.set(f"session:{number}", "x", ex=3600)
    pipe.execute()
    with client.pubsub(ignore_subscribe_messages=True) as events:
        events.subscribe("__keyevent@0__:expired")
        events.get_message(timeout=1)
        for server in SERVERS:
            client.set(server, "x", px=2000)
        end, late = time.monotonic() + 2, []
        while time.monotonic() < end + seconds and len(late) < len(SERVERS):
            if events.get_message(timeout=0.1):
                late.append(round(time.monotonic() - end, 1))
        assert client.mget(SERVERS) == [None] * 5, "a key can be read after its time"
        by_read = 0
        while by_read + len(late) < len(SERVERS) and events.get_message(timeout=5):
            by_read += 1
    return late, by_read


for _ in range(100):
    try:
        client.ping()
        break
    except redis.ConnectionError:
        time.sleep(0.1)
alone, _ = run(0, 10)
among, by_read = run(20000, 30)
print(f"seconds late: alone {alone}; among 20,000 keys {among}, and {by_read} by a read after 30 s")
assert len(alone) == 5 and max(alone) < 5, "late even if alone"
assert by_read >= 1 and by_read + len(among) == 5, "the events have changed"
P
v/bin/python run.py

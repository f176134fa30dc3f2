#!/usr/bin/env bash
# etcd: how long the key of a server lives that registers with a lease and then dies.
#
# Software: etcd-server 3.4.23-4+b4 of Debian 12, one member, default election timeout (1 s).
# Expected: a lease of 1 s is one of 1 s; a restart of etcd changes no remaining time.
# Seen: a lease of 1 s becomes one of 2 s (1.5 times the election timeout, rounded up). A restart gives each lease its whole
# time again: of 10 s, 7 of them over, about 9 were left. So a dead server can be listed for twice its lease.
set -euo pipefail
cd "$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$PWD"' EXIT
apt-get -qq download etcd-server=3.4.23-4+b4 2>/dev/null
dpkg -x etcd-server_*.deb .
client=http://127.0.0.1:22379 peer=http://127.0.0.1:22380
start() {
    usr/bin/etcd --data-dir data --listen-client-urls $client --advertise-client-urls $client --listen-peer-urls $peer \
        --initial-advertise-peer-urls $peer --initial-cluster "default=$peer" >>log 2>&1 &
    until curl -s $client/health | grep -q '"true"'; do sleep 0.1; done
}
call() { curl -s "$client/v3/lease/$1" -d "$2"; }
number() { grep -o "\"$1\":\"[0-9]*\"" | grep -o '[0-9]*'; }
start
short=$(call grant '{"TTL": "1"}' | number TTL)
lease=$(call grant '{"TTL": "10"}' | number ID)
sleep 7
before=$(call timetolive "{\"ID\": \"$lease\"}" | number TTL)
kill %1 && wait %1 || true
start
after=$(call timetolive "{\"ID\": \"$lease\"}" | number TTL)
echo "a lease of 1 s: $short s; left of 10 s: $before s before the restart, $after s after it"
[ "$short" = 2 ] && [ "$before" -le 3 ] && [ "$after" -ge 8 ] || { echo 'the leases of etcd have changed' >&2; exit 1; }

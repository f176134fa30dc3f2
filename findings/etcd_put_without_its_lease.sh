#!/usr/bin/env bash
# etcd: a server registers its key with a lease; an operator changes the value (a weight, a drain flag) with `put`; the server dies.
#
# Software: etcd-server and etcd-client 3.4.23-4+b4 of Debian 12, etcd3gw 2.7.0 (PyPI).
# Expected: a `put` that says nothing of a lease changes the value; the key still goes with its server.
# Seen: the key never goes: such a `put` takes the key off its lease, also that of etcdctl and of etcd3gw. The server's own keepalives
# go on as before, so that nothing shows it until the server dies. `put --ignore-lease` keeps the lease.
set -euo pipefail
cd "$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$PWD"' EXIT
apt-get -qq download etcd-server=3.4.23-4+b4 etcd-client=3.4.23-4+b4 2>/dev/null
for package in *.deb; do dpkg -x "$package" .; done
python3 -m venv v
v/bin/pip install -q etcd3gw==2.7.0
client=http://127.0.0.1:22379 peer=http://127.0.0.1:22380
control() { ETCDCTL_API=3 usr/bin/etcdctl --endpoints "$client" "$@"; }
usr/bin/etcd --data-dir data --listen-client-urls $client --advertise-client-urls $client --listen-peer-urls $peer \
    --initial-advertise-peer-urls $peer --initial-cluster "default=$peer" >log 2>&1 &
until curl -s $client/health | grep -q '"true"'; do sleep 0.1; done
lease=$(control lease grant 5 | cut -d' ' -f2)
ETCDCTL_API=3 usr/bin/etcdctl --endpoints $client lease keep-alive "$lease" >/dev/null &
server=$!
for name in untouched put gateway ignore; do control put --lease="$lease" "/servers/$name" 'weight 1' >/dev/null; done
control put /servers/put 'weight 2' >/dev/null
v/bin/python -c "from etcd3gw.client import Etcd3Client as C; C(port=22379, api_path='/v3/').put('/servers/gateway', 'weight 2')"
control put --ignore-lease /servers/ignore 'weight 2' >/dev/null
[ "$(control get --prefix /servers/ --keys-only | grep -c .)" = 4 ]
kill $server
until [ -z "$(control get /servers/untouched)" ]; do sleep 0.2; done
kept=$(control get --prefix /servers/ --keys-only | grep . | tr '\n' ' ')
echo "left when the lease is over: $kept"
[ "$kept" = '/servers/gateway /servers/put ' ] || { echo 'what a put does to the lease has changed' >&2; exit 1; }

#!/usr/bin/env bash
# etcd: what a program sees that watches the keys of servers, when etcd is restored from a snapshot that is five changes old.
#
# Software: etcd-server and etcd-client 3.4.23-4+b4 of Debian 12, etcd3 1.1.2 (npm).
# Expected: the watch is refused, or shows an event, so that the program learns that history has changed. A key of a server that died
# before the restore goes within the rest of its lease.
# Seen: the watch is accepted and silent. It asks for changes from revision R on, the restored etcd starts again below R, and so the
# first five changes are never shown, here a new server; later changes are, as if nothing had happened. The five keys that the
# restore removed are no event either. A key in the snapshot whose server died gets its whole lease again.
set -euo pipefail
cd "$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$PWD"' EXIT
apt-get -qq download etcd-server=3.4.23-4+b4 etcd-client=3.4.23-4+b4 2>/dev/null
for package in *.deb; do dpkg -x "$package" .; done
npm install --silent --no-audit --no-fund etcd3@1.1.2 >/dev/null
export client=http://127.0.0.1:22379 peer=http://127.0.0.1:22380
control() { ETCDCTL_API=3 usr/bin/etcdctl --endpoints "$client" "$@"; }
start() {
    usr/bin/etcd --data-dir "$1" --listen-client-urls $client --advertise-client-urls $client --listen-peer-urls $peer \
        --initial-advertise-peer-urls $peer --initial-cluster "default=$peer" >>log 2>&1 &
    etcd=$!
    until curl -s $client/health | grep -q '"true"'; do sleep 0.1; done
}
left() { control lease timetolive "$lease" | grep -o 'remaining([0-9]*' | grep -o '[0-9]*'; }
await() { for _ in $(seq 300); do grep -q "$1" events && return; sleep 0.1; done; echo "not seen: $1" >&2; exit 1; }
cat >watch.js <<'J'
const {Etcd3} = require('etcd3');
(async () => {
  const watcher = await new Etcd3({hosts: process.env.client}).watch().prefix('/servers/').create();
  for (const name of ['put', 'delete']) watcher.on(name, change => console.log(name, change.key.toString()));
  for (const name of ['error', 'end', 'connected']) watcher.on(name, () => console.log(name));
  console.log('ready');
})();
J
start before
lease=$(control lease grant 30 | cut -d' ' -f2)
control put --lease="$lease" /servers/dead x >/dev/null
node watch.js >events &
await ready
until [ "$(left)" -le 20 ]; do sleep 0.5; done
before=$(left)
control snapshot save snapshot >/dev/null 2>&1
for number in 1 2 3 4 5; do control put /servers/lost$number x >/dev/null; done
await lost5
kill $etcd && wait $etcd || true
control snapshot restore snapshot --data-dir after --name default --initial-cluster "default=$peer" \
    --initial-advertise-peer-urls $peer >/dev/null 2>&1
start after
after=$(left)
await connected
for number in 1 2 3 4 5 6 7 8; do control put /servers/new$number x >/dev/null; done
await new8
shown=$(grep -c 'put /servers/new' events || true)
told=$(grep -cE 'delete|error|end' events || true)
echo "changes after the restore: 8 made, $shown shown; deletes or errors shown: $told; lease of the dead server: $before s, then $after s"
[ "$shown" = 3 ] && [ "$told" = 0 ] && [ "$after" -gt "$before" ] || { cat events >&2; echo 'the watch has changed' >&2; exit 1; }

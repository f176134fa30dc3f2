#!/usr/bin/env bash
# memjs, a memcached client for Node.js: which share of 6,000 keys changes its server when a sixth server is added to five.
#
# Software: memjs 1.3.2.
# Expected: about 1/6 (17 %), as with the other clients for several servers: it has a ring.
# Seen: 69 %. It takes the remainder of a hash by the number of servers, and has no ring.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
npm install --silent --no-audit --no-fund memjs@1.3.2 >/dev/null
cat >run.js <<'J'
const net = require('net'), memjs = require('memjs'), assert = require('assert');
const PORTS = [25001, 25002, 25003, 25004, 25005, 25006], KEYS = 6000;
let placed = {};

// Speaks the binary protocol as far as `set` needs it: a header of 24 bytes, extras, key, value.
const serve = port => new Promise(ready => net.createServer(socket => {
  let input = Buffer.alloc(0);
  socket.on('data', more => {
    input = Buffer.concat([input, more]);
    while (input.length >= 24 && input.length >= 24 + input.readUInt32BE(8)) {
      const length = 24 + input.readUInt32BE(8), extras = input[4], key = input.readUInt16BE(2);
      placed[input.toString('latin1', 24 + extras, 24 + extras + key)] = port;
      const answer = Buffer.alloc(24);
      answer[0] = 0x81; answer[1] = input[1]; input.copy(answer, 12, 12, 16);
      socket.write(answer);
      input = input.subarray(length);
    }
  });
}).listen(port, '127.0.0.1', ready).unref());

const owners = async servers => {
  placed = {};
  const client = memjs.Client.create(PORTS.slice(0, servers).map(port => `127.0.0.1:${port}`).join(','));
  for (let number = 0; number < KEYS; number++) await client.set(`user:${number}`, '1', {});
  client.close();
  return placed;
};

(async () => {
  await Promise.all(PORTS.map(serve));
  const before = await owners(5), after = await owners(6);
  assert.equal(Object.keys(before).length, KEYS);
  const moved = Object.keys(before).filter(key => before[key] !== after[key]).length / KEYS;
  console.log(`moved: ${(100 * moved).toFixed(1)} %`);
  assert(moved > 0.66 && moved < 0.72, 'the placement of memjs has changed');
  process.exit(0);
})().catch(error => { console.error(error); process.exit(1); });
J
node run.js

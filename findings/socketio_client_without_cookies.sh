#!/usr/bin/env bash
# Three servers of Socket.IO behind HAProxy with a sticky cookie (`cookie place insert`), and 20 clients in Node, one after the other:
# how many are connected by their first attempt.
#
# Software: socket.io 4.8.4 and socket.io-client 4.8.4 (npm), haproxy 2.6.12-1+deb12u4 of Debian 12.
# Expected: all: the guide of Socket.IO names a sticky cookie as a way to serve long polling, and the client sends it back.
# Seen: the client drops cookies by default: the second request of a session goes to the next server, which answers 400 `Session ID
# unknown`, so none or few are connected. `withCredentials: true` connects all, and so does `transports: ["websocket"]`.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
npm install --silent --no-audit --no-fund socket.io@4.8.4 socket.io-client@4.8.4
apt-get -qq download haproxy=2.6.12-1+deb12u4 2>/dev/null
dpkg -x haproxy_*.deb .
cat >run.js <<'J'
const assert = require("node:assert");
const { spawn } = require("node:child_process");
const { once } = require("node:events");
const fs = require("node:fs");
const http = require("node:http");
const net = require("node:net");
const { setTimeout: sleep } = require("node:timers/promises");
const { Server } = require("socket.io");
const { io } = require("socket.io-client");

const CLIENTS = 20;

const listen = async (server) => {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return server.address().port;
};

const serve = async () => {
  const server = http.createServer();
  new Server(server);
  return listen(server);
};

const freePort = async () => {
  const server = net.createServer();
  const port = await listen(server);
  server.close();
  await once(server, "close");
  return port;
};

const attempt = (port, options) =>
  new Promise((resolve) => {
    const client = io(`http://127.0.0.1:${port}`, { forceNew: true, reconnection: false, timeout: 60000, ...options });
    const end = (result) => {
      resolve(result);
      client.close();
    };
    client.on("connect", () => end(true));
    client.on("connect_error", () => end(false));
  });

const main = async () => {
  const servers = await Promise.all([serve(), serve(), serve()]);
  const port = await freePort();
  const lines = ["defaults", " mode http", " timeout connect 60s", " timeout client 60s", " timeout server 60s", " timeout tunnel 60s"];
  lines.push("listen app", ` bind 127.0.0.1:${port}`, " balance roundrobin", " cookie place insert indirect nocache");
  lines.push(...servers.map((server) => ` server s${server} 127.0.0.1:${server} cookie s${server}`), "");
  fs.writeFileSync("haproxy.cfg", lines.join("\n"));
  const haproxy = spawn("usr/sbin/haproxy", ["-f", "haproxy.cfg"], { stdio: "ignore" });
  process.on("exit", () => haproxy.kill());
  for (let number = 0; number < 300; number++) {
    const socket = net.connect(port, "127.0.0.1");
    if (await once(socket, "connect").then(() => true, () => false)) {
      socket.destroy();
      break;
    }
    await sleep(100);
  }
  const kinds = {
    "long polling": { transports: ["polling"] },
    "long polling, withCredentials": { transports: ["polling"], withCredentials: true },
    "WebSocket only": { transports: ["websocket"] },
  };
  const connected = {};
  for (const [kind, options] of Object.entries(kinds)) {
    connected[kind] = 0;
    for (let number = 0; number < CLIENTS; number++) connected[kind] += await attempt(port, options);
    console.log(`${kind}: ${connected[kind]} of ${CLIENTS} clients are connected`);
  }
  assert(connected["long polling"] < CLIENTS / 2, "the client sends cookies by default now");
  assert.equal(connected["long polling, withCredentials"], CLIENTS, "the cookie has no effect now");
  assert.equal(connected["WebSocket only"], CLIENTS, "clients with WebSocket fail");
};

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error.message);
    process.exit(1);
  },
);
J
node run.js

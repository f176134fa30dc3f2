#!/usr/bin/env bash
# The informer of the Node.js client of Kubernetes (a list of pods that is kept up to date by a watch): what it does when the watch ends.
#
# Software: @kubernetes/client-node 1.4.0 (npm), with a small stand-in for the API server.
# Expected: it connects again, with a growing delay, as the informers of Kubernetes itself do; a broken connection is a matter of seconds.
# Seen: after an orderly end it does. After a connection that breaks (the API server restarts, a load balancer cuts it) it stops for good:
# one `error`, then no further request, and `list()` goes on to return the pods of that time. `start()` in the handler of `error` helps.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
npm install --silent --no-audit --no-fund @kubernetes/client-node@1.4.0 >/dev/null
cat >run.mjs <<'J'
import http from 'node:http';
import assert from 'node:assert';
import * as k8s from '@kubernetes/client-node';

let version = 0, watches = 0, lists = 0, open = [];
const pods = new Map();
const change = (type, name) => {
  const object = {apiVersion: 'v1', kind: 'Pod', metadata: {name, namespace: 'default', resourceVersion: String(++version)}};
  type === 'DELETED' ? pods.delete(name) : pods.set(name, object);
  for (const response of open) response.write(JSON.stringify({type, object}) + '\n');
};
const server = http.createServer((request, response) => {
  response.setHeader('Content-Type', 'application/json');
  if (!new URL(request.url, 'http://api').searchParams.has('watch')) {
    lists++;
    return response.end(JSON.stringify({kind: 'PodList', apiVersion: 'v1', metadata: {resourceVersion: String(version)}, items: [...pods.values()]}));
  }
  watches++;
  response.flushHeaders();
  open.push(response);
});
const close = how => { for (const response of open) how(response); open = []; };
const until = async condition => {
  for (let tries = 0; !condition(); tries++) {
    assert(tries < 600, 'waited too long');
    await new Promise(done => setTimeout(done, 50));
  }
};
await new Promise(ready => server.listen(0, '127.0.0.1', ready));

const config = new k8s.KubeConfig();
config.loadFromOptions({
  clusters: [{name: 'c', server: `http://127.0.0.1:${server.address().port}`, skipTLSVerify: true}],
  users: [{name: 'u'}], contexts: [{name: 'x', cluster: 'c', user: 'u'}], currentContext: 'x',
});
const api = config.makeApiClient(k8s.CoreV1Api);
const informer = k8s.makeInformer(config, '/api/v1/namespaces/default/pods', () => api.listNamespacedPod({namespace: 'default'}));
const names = () => informer.list().map(pod => pod.metadata.name).join(' ');
let errors = 0;
informer.on('error', () => errors++);
change('ADDED', 'web-a');
change('ADDED', 'web-b');
await informer.start();
await until(() => open.length === 1 && names() === 'web-a web-b');

close(response => response.end());
await until(() => open.length === 1);
change('ADDED', 'web-c');
await until(() => names() === 'web-a web-b web-c');
console.log(`after an orderly end: ${watches} watches, ${errors} errors, pods ${names()}`);
assert.equal(errors, 0);

close(response => response.socket.destroy());
await until(() => errors === 1);
change('DELETED', 'web-a');
change('ADDED', 'web-d');
const before = watches + lists;
await new Promise(done => setTimeout(done, 20000));
console.log(`20 s after a broken connection: ${watches + lists - before} requests, pods ${names()}, in truth ${[...pods.keys()].join(' ')}`);
assert(watches + lists === before && errors === 1 && names() === 'web-a web-b web-c', 'the informer goes on now');
await informer.start();
await until(() => open.length === 1);
process.exit(0);
J
node run.mjs

// An origin that answers with the request as Node.js has read it; the port and the address are its arguments.
// `number`: complete requests so far; `flaws`: requests that Node.js could not read, incomplete ones apart.
'use strict';
const http = require('node:http');
const [port, address] = process.argv.slice(2);
let number = 0;
let flaws = 0;

const pairs = (list) => list.flatMap((name, at) => (at % 2 === 0 ? [[name, list[at + 1]]] : []));

const server = http.createServer((request, response) => {
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('error', () => {});
  request.on('end', () => {
    number += 1;
    const seen = {
      line: `${request.method} ${request.url} HTTP/${request.httpVersion}`,
      fields: pairs(request.rawHeaders),
      trailers: pairs(request.rawTrailers),
      body: Buffer.concat(pieces).toString('latin1'),
      number,
      flaws,
    };
    const body = JSON.stringify(seen);
    response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) });
    response.end(request.method === 'HEAD' ? undefined : body);
  });
});
server.keepAliveTimeout = 60_000;
server.on('clientError', (error, socket) => {
  if (error.code !== 'ECONNRESET' && error.code !== 'HPE_INVALID_EOF_STATE') flaws += 1;
  const status = error.code === 'HPE_HEADER_OVERFLOW' ? '431 Request Header Fields Too Large' : '400 Bad Request';
  if (socket.writable) socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
});
server.listen(Number(port), address);

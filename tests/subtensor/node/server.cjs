// JSON-RPC 2.0 over WebSocket and HTTP POST on one port of loopback, with subscriptions on the former.
'use strict';
const http = require('node:http');
const { WebSocketServer } = require('ws');
const { RpcError } = require('./answers.cjs');

const LARGEST = 32 * 1024 * 1024; // bytes of one request

const failure = (id, error) => ({ jsonrpc: '2.0', id: id ?? null, error: error instanceof RpcError ? error : { code: error.code ?? -32603, message: String(error.message ?? error) } });

/** The answer to one request. */
async function answer(handlers, context, request, subscriptions) {
  const { id, method, params } = request ?? {};
  try {
    if (request?.jsonrpc !== '2.0' || typeof method !== 'string') throw new RpcError(-32600, 'Invalid request');
    const handler = handlers[method];
    if (!handler) throw new RpcError(-32601, 'Method not found');
    const result = await handler(context, params ?? [], subscriptions);
    return { jsonrpc: '2.0', id, result: result ?? null };
  } catch (error) {
    return failure(id, error);
  }
}

/** The answer to a text with one request or a batch of them. */
async function answerText(handlers, context, text, subscriptions) {
  let request;
  try {
    request = JSON.parse(text);
  } catch {
    return failure(null, new RpcError(-32700, 'Parse error'));
  }
  if (!Array.isArray(request)) return answer(handlers, context, request, subscriptions);
  return Promise.all(request.map((one) => answer(handlers, context, one, subscriptions)));
}

/** What a connection holds: how each of its subscriptions ends. */
function subscriptionsOf(socket) {
  const open = new Map();
  return {
    subscribe(method, id, end) {
      open.set(id, end);
      return (result) => {
        if (open.has(id) && socket.readyState === socket.OPEN) socket.send(JSON.stringify({ jsonrpc: '2.0', method, params: { subscription: id, result } }));
      };
    },
    unsubscribe(id) {
      const end = open.get(id);
      open.delete(id);
      end?.();
      return end !== undefined;
    },
    endAll() {
      for (const id of [...open.keys()]) this.unsubscribe(id);
    },
  };
}

/** Listens on 127.0.0.1; resolves with the port. */
async function serve(handlers, context, port) {
  const noSubscriptions = { subscribe: () => { throw new RpcError(-32000, 'Subscriptions need a WebSocket'); }, unsubscribe: () => false };
  const server = http.createServer((request, response) => {
    const parts = [];
    let size = 0;
    request.on('data', (part) => ((size += part.length) > LARGEST ? request.destroy() : parts.push(part)));
    request.on('end', async () => {
      const said = await answerText(handlers, context, Buffer.concat(parts).toString(), noSubscriptions);
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(said));
    });
  });
  const sockets = new WebSocketServer({ server, maxPayload: LARGEST });
  sockets.on('connection', (socket) => {
    const subscriptions = subscriptionsOf(socket);
    socket.on('message', async (text) => {
      const said = await answerText(handlers, context, text.toString(), subscriptions);
      if (socket.readyState === socket.OPEN) socket.send(JSON.stringify(said));
    });
    socket.on('close', () => subscriptions.endAll());
    socket.on('error', () => socket.terminate());
  });
  await new Promise((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve));
  return server.address().port;
}

module.exports = { serve };

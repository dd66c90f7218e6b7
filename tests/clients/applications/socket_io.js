// Socket.IO: two servers joined by its Redis adapter, rooms and acknowledgements over both. Arguments: PORT.
//
// Prints "done".

'use strict';

const assert = require('node:assert/strict');
const { createServer } = require('node:http');
const { createAdapter, createShardedAdapter } = require('@socket.io/redis-adapter');
const { createClient } = require('redis');
const { Server } = require('socket.io');
const { io } = require('socket.io-client');

const url = `redis://127.0.0.1:${process.argv[2]}`;

async function serve(adapterOf) {
  const publisher = createClient({ url });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  const http = createServer();
  const server = new Server(http, { adapter: adapterOf(publisher, subscriber) });
  server.on('connection', (socket) => {
    socket.on('join', async (room, joined) => {
      await socket.join(room);
      joined();
    });
    socket.on('speak', (room) => server.to(room).emit('spoken', `in ${room}`));
  });
  await new Promise((resolve) => http.listen(0, '127.0.0.1', resolve));
  return { server, url: `http://127.0.0.1:${http.address().port}` };
}

async function visitor({ url }, room, heard) {
  const socket = io(url, { transports: ['websocket'] });
  socket.on('spoken', (said) => heard.push(`${room}: ${said}`));
  socket.on('question', (answer) => answer(room));
  await new Promise((resolve) => socket.once('connect', resolve));
  await socket.emitWithAck('join', room);
  return socket;
}

async function until(poll, what) {
  for (const end = Date.now() + 10_000; !(await poll()); ) {
    if (Date.now() > end) throw new Error(`no ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function talk(adapterOf) {
  const servers = [await serve(adapterOf), await serve(adapterOf)];
  const heard = [];
  const visitors = [
    await visitor(servers[0], 'one', heard),
    await visitor(servers[1], 'one', heard),
    await visitor(servers[1], 'two', heard),
  ];
  // A room of a sharded adapter is a channel, which a server joins in its own time.
  await until(async () => (await servers[0].server.in('one').fetchSockets()).length === 2, 'sockets of the other server');
  await until(async () => (await servers[0].server.in('two').fetchSockets()).length === 1, 'sockets of the other server');
  visitors[0].emit('speak', 'one');
  await until(() => heard.length === 2, 'word in both');
  visitors[0].emit('speak', 'two');
  await until(() => heard.length === 3, 'word in the other room');
  assert.deepEqual(heard.sort(), ['one: in one', 'one: in one', 'two: in two']);
  const answers = await servers[0].server.timeout(5000).emitWithAck('question');
  assert.deepEqual(answers.sort(), ['one', 'one', 'two']);
  servers[0].server.disconnectSockets();
  await until(() => visitors.every((socket) => socket.disconnected), 'disconnection of all');
  for (const { server } of servers) await server.close();
}

async function main() {
  await talk(createAdapter);
  await talk(createShardedAdapter);
  console.log('done');
  process.exit(0);
}

main();

// connect-redis: sessions of Express, shared by two servers. Arguments: PORT. Prints "done".

'use strict';

const assert = require('node:assert/strict');
const { RedisStore } = require('connect-redis');
const express = require('express');
const session = require('express-session');
const { createClient } = require('redis');

const url = `redis://127.0.0.1:${process.argv[2]}`;

async function site() {
  const client = createClient({ url });
  await client.connect();
  const store = new RedisStore({ client, ttl: 60 });
  const app = express();
  app.use(session({ store, secret: 'not one', resave: false, saveUninitialized: false }));
  app.get('/visit', (request, response) => {
    request.session.visits = (request.session.visits ?? 0) + 1;
    response.json(request.session.visits);
  });
  app.get('/leave', (request, response) => request.session.destroy(() => response.json('bye')));
  app.get('/count', (request, response) => store.length((_, count) => response.json(count)));
  app.get('/clear', (request, response) => store.clear(() => response.json('cleared')));
  const server = app.listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  return { client, server, url: `http://127.0.0.1:${server.address().port}` };
}

/** A browser: it keeps the cookie that it is given. */
function browser() {
  let cookie = '';
  return async (address) => {
    const response = await fetch(address, { headers: { cookie } });
    cookie = response.headers.get('set-cookie')?.split(';')[0] ?? cookie;
    return response.json();
  };
}

async function main() {
  const [one, other] = [await site(), await site()];
  const visitor = browser();
  const visits = [one, other, one].map(({ url }) => () => visitor(`${url}/visit`));
  for (const [number, visit] of visits.entries()) assert.equal(await visit(), number + 1);
  for (let count = 0; count < 20; count++) assert.equal(await browser()(`${other.url}/visit`), 1);
  assert.equal(await visitor(`${one.url}/count`), 21);
  assert.equal(await visitor(`${one.url}/leave`), 'bye');
  assert.equal(await visitor(`${other.url}/visit`), 1);
  assert.equal(await visitor(`${other.url}/clear`), 'cleared');
  assert.equal(await visitor(`${one.url}/count`), 0);
  for (const { client, server } of [one, other]) {
    server.close();
    server.closeAllConnections();
    await client.close();
  }
  console.log('done');
}

main();

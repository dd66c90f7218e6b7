// rate-limiter-flexible: points in a window, blocks, penalties, over node-redis and ioredis. Arguments: PORT.
//
// Prints "done".

'use strict';

const assert = require('node:assert/strict');
const Redis = require('ioredis');
const { RateLimiterRedis } = require('rate-limiter-flexible');
const { createClient } = require('redis');

const port = Number(process.argv[2]);

async function limit(client, keyPrefix) {
  const limiter = new RateLimiterRedis({ ...client, keyPrefix, points: 3, duration: 60, blockDuration: 120 });
  for (let visitor = 0; visitor < 10; visitor++) {
    const taken = await Promise.allSettled(Array.from({ length: 5 }, () => limiter.consume(`${visitor} visitor`)));
    assert.deepEqual(taken.map(({ status }) => status).sort(), [...Array(3).fill('fulfilled'), ...Array(2).fill('rejected')]);
  }
  const { remainingPoints, msBeforeNext } = await limiter.get('1 visitor');
  assert.equal(remainingPoints, 0);
  assert.ok(msBeforeNext > 60_000 && msBeforeNext <= 120_000);
  await limiter.penalty('guest', 2);
  await limiter.reward('guest', 1);
  assert.equal((await limiter.get('guest')).consumedPoints, 1);
  assert.equal(await limiter.delete('guest'), true);
  assert.equal(await limiter.get('guest'), null);
  const short = new RateLimiterRedis({ ...client, keyPrefix: `${keyPrefix} short`, points: 1, duration: 1 });
  await short.consume('visitor');
  const { msBeforeNext: left } = await short.consume('visitor').catch((refused) => refused);
  await new Promise((resolve) => setTimeout(resolve, left + 50));
  await short.consume('visitor');
}

async function main() {
  const one = new Redis(port);
  await limit({ storeClient: one }, 'ioredis');
  await one.quit();
  const other = createClient({ url: `redis://127.0.0.1:${port}` });
  await other.connect();
  await limit({ storeClient: other, useRedisPackage: true }, 'node-redis');
  await other.close();
  console.log('done');
}

main();

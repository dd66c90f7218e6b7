// ioredis with its default options. CLIENT is `ioredis` or `ioredis-5`. The steps are those of programs.py.

'use strict';

const { askFor, failure, given, run, same, say, until, wait } = require('./program');

const name = { ioredis: 'ioredis', 'ioredis-5': 'ioredis5' }[given.client];
const { Redis, ReplyError } = require(name);

function connected() {
  const made = new Redis({ host: given.host, port: given.port, password: given.password });
  made.on('error', () => {}); // what it cannot mend by itself it also says to who called it
  return made;
}

const client = connected();

const steps = {
  async connect() {
    same(await client.ping(), 'PONG', 'PING');
  },

  async strings() {
    same(await client.set('strings:text', 'hello'), 'OK', 'SET');
    same(await client.get('strings:text'), 'hello', 'GET');
    same(await client.get('strings:nothing'), null, 'GET of no key');
    same(await client.incr('strings:number'), 1, 'INCR');
    same(await client.incrby('strings:number', 41), 42, 'INCRBY');
    same(await client.expire('strings:number', 100), 1, 'EXPIRE');
    const left = await client.ttl('strings:number');
    same(left > 0 && left <= 100, true, 'TTL between 1 and 100');
    same(await client.append('strings:text', ' you'), 9, 'APPEND');
  },

  async pipeline() {
    const pipe = client.pipeline();
    const wanted = [];
    for (let number = 0; number < 100; number += 1) {
      const key = `pipeline:${number}`;
      pipe.set(key, number).incr(key).get(key);
      wanted.push([null, 'OK'], [null, number + 1], [null, String(number + 1)]);
    }
    same(await pipe.exec(), wanted, 'the replies');
  },

  async 'many keys'() {
    const keys = Array.from({ length: 20 }, (_, number) => `many:${number}`);
    same(await client.mset(Object.fromEntries(keys.map((key) => [key, key]))), 'OK', 'MSET');
    same(await client.mget([...keys, 'many:nothing']), [...keys, null], 'MGET');
    same(await client.exists(keys), 20, 'EXISTS');
    same(await client.del(keys), 20, 'DEL');
  },

  async collections() {
    same(await client.hset('{tag}:hash', { a: 1, b: 2 }), 2, 'HSET');
    same(await client.hgetall('{tag}:hash'), { a: '1', b: '2' }, 'HGETALL');
    same(await client.rpush('{tag}:list', 'x', 'y'), 2, 'RPUSH');
    same(await client.lrange('{tag}:list', 0, -1), ['x', 'y'], 'LRANGE');
    same(await client.sadd('{tag}:set1', 'm', 'n'), 2, 'SADD');
    same(await client.sadd('{tag}:set2', 'n', 'o'), 2, 'SADD');
    same([...(await client.sinter('{tag}:set1', '{tag}:set2'))], ['n'], 'SINTER');
    same(await client.zadd('{tag}:zset', 1.5, 'one'), 1, 'ZADD');
    same((await client.zrange('{tag}:zset', 0, -1, 'WITHSCORES')).flat().map(String), ['one', '1.5'], 'ZRANGE');
    const at = await client.xadd('{tag}:stream', '*', 'field', 'value');
    same(await client.xrange('{tag}:stream', '-', '+'), [[at, ['field', 'value']]], 'XRANGE');
  },

  async script() {
    const lua = `return redis.call('INCRBY', KEYS[1], ARGV[1]) -- ${Math.random()}`;
    client.defineCommand('addTo', { numberOfKeys: 1, lua });
    same(await client.addTo('script:number', 20), 20, 'the script, unknown to the server');
    same(await client.addTo('script:number', 22), 42, 'the script, known');
  },

  async transaction() {
    const done = await client.multi().set('{tag}:tx', 1).incr('{tag}:tx').get('{tag}:tx').exec();
    same(done, [[null, 'OK'], [null, 2], [null, '2']], 'EXEC'); // prettier-ignore
  },

  async watch() {
    const other = connected();
    await client.watch('{tag}:watched');
    await other.set('{tag}:watched', "somebody else's");
    same(await client.multi().set('{tag}:watched', 'mine').exec(), null, 'EXEC');
    same(await client.get('{tag}:watched'), "somebody else's", 'the watched key');
    other.disconnect();
  },

  async scan() {
    const keys = Array.from({ length: 200 }, (_, number) => `scan:${number}`);
    await client.mset(Object.fromEntries(keys.map((key) => [key, 'x'])));
    const found = new Set();
    for await (const some of client.scanStream({ match: 'scan:*', count: 50 })) some.forEach((key) => found.add(key));
    same([...found].sort(), [...keys].sort(), 'the keys');
  },

  async 'wrong type'() {
    await client.set('wrong:text', 'text');
    const error = await failure(client.lpush('wrong:text', 'x'));
    same(error instanceof ReplyError && error.message.startsWith('WRONGTYPE'), true, `WRONGTYPE in ${error}`);
    return error.constructor.name;
  },

  async 'cross slot'() {
    const error = await failure(client.sinter(Array.from({ length: 20 }, (_, number) => `cross:${number}`)));
    same(error instanceof ReplyError && error.message.startsWith('CROSSSLOT'), true, `CROSSSLOT in ${error}`);
    return error.message;
  },

  async 'blocking pop'() {
    const other = connected();
    const pushed = wait(300).then(() => other.rpush('blocking:list', 'late'));
    try {
      same(await client.blpop('blocking:list', 3), ['blocking:list', 'late'], 'BLPOP');
    } finally {
      await pushed;
      other.disconnect();
    }
    const begin = Date.now();
    same(await client.blpop('blocking:nothing', 1), null, 'BLPOP of nothing');
    same(Date.now() - begin > 900, true, 'a wait of 1 s');
  },

  async 'pub/sub'() {
    const subscriber = connected();
    const heard = [];
    subscriber.on('message', (channel, message) => heard.push(`${channel} ${message}`));
    subscriber.on('pmessage', (pattern, channel, message) => heard.push(`${pattern} ${channel} ${message}`));
    const hear = (text) => until(() => heard.includes(text), text, 5000);
    same(await subscriber.subscribe('pub:channel'), 1, 'SUBSCRIBE');
    same(await subscriber.psubscribe('pub:p*'), 2, 'PSUBSCRIBE');
    await client.publish('pub:channel', 'one');
    await hear('pub:channel one');
    await client.publish('pub:pattern', 'two');
    await hear('pub:p* pub:pattern two');
    same(await subscriber.unsubscribe('pub:channel'), 1, 'UNSUBSCRIBE');
    same(await subscriber.punsubscribe(), 0, 'PUNSUBSCRIBE');
    await client.publish('pub:channel', 'three');
    await wait(200);
    same(heard.length, 2, 'messages heard');
    subscriber.disconnect();
  },

  async reconnect() {
    await client.set('reconnect:key', 'still here');
    await askFor('restart');
    const errors = [];
    const read = () => client.get('reconnect:key').catch((error) => void errors.push(error.message));
    same(await until(read, 'a reply'), 'still here', 'GET');
    return `${errors.length} errors first`;
  },

  async 'held write'() {
    await client.set('held:key', 'before');
    await askFor('hold');
    const begin = Date.now();
    same(await client.set('held:key', 'after'), 'OK', 'SET');
    return `answered after ${Date.now() - begin} ms`;
  },
};

say({ client: given.client, version: require(`${name}/package.json`).version });
run(steps);

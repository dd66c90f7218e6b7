// node-redis with its default options. CLIENT is `node-redis-5` or `node-redis-6`. The steps are those of programs.py.

'use strict';

const { askFor, failure, given, run, same, say, until, wait } = require('./program');

const name = { 'node-redis-5': 'redis', 'node-redis-6': 'redis6' }[given.client];
const { createClient, defineScript, ErrorReply, WatchError } = require(name);

const addTo = defineScript({
  SCRIPT: `return redis.call('INCRBY', KEYS[1], ARGV[1]) -- ${Math.random()}`,
  NUMBER_OF_KEYS: 1,
  parseCommand(parser, key, number) {
    parser.pushKey(key);
    parser.push(String(number));
  },
  transformReply: undefined,
});

async function connected() {
  const made = createClient({
    socket: { host: given.host, port: given.port },
    password: given.password,
    scripts: { addTo },
  });
  made.on('error', () => {}); // what it cannot mend by itself it also says to who called it
  return made.connect();
}

let client;

const steps = {
  async connect() {
    client = await connected();
    same(await client.ping(), 'PONG', 'PING');
  },

  async strings() {
    same(await client.set('strings:text', 'hello'), 'OK', 'SET');
    same(await client.get('strings:text'), 'hello', 'GET');
    same(await client.get('strings:nothing'), null, 'GET of no key');
    same(await client.incr('strings:number'), 1, 'INCR');
    same(await client.incrBy('strings:number', 41), 42, 'INCRBY');
    same(Boolean(await client.expire('strings:number', 100)), true, 'EXPIRE');
    const left = await client.ttl('strings:number');
    same(left > 0 && left <= 100, true, 'TTL between 1 and 100');
    same(await client.append('strings:text', ' you'), 9, 'APPEND');
  },

  async pipeline() {
    const pipe = client.multi();
    const wanted = [];
    for (let number = 0; number < 100; number += 1) {
      const key = `pipeline:${number}`;
      pipe.set(key, String(number)).incr(key).get(key);
      wanted.push('OK', number + 1, String(number + 1));
    }
    same(await pipe.execAsPipeline(), wanted, 'the replies');
  },

  async 'many keys'() {
    const keys = Array.from({ length: 20 }, (_, number) => `many:${number}`);
    same(await client.mSet(Object.fromEntries(keys.map((key) => [key, key]))), 'OK', 'MSET');
    same(await client.mGet([...keys, 'many:nothing']), [...keys, null], 'MGET');
    same(await client.exists(keys), 20, 'EXISTS');
    same(await client.del(keys), 20, 'DEL');
  },

  async collections() {
    same(await client.hSet('{tag}:hash', { a: 1, b: 2 }), 2, 'HSET');
    same(await client.hGetAll('{tag}:hash'), { a: '1', b: '2' }, 'HGETALL');
    same(await client.rPush('{tag}:list', ['x', 'y']), 2, 'RPUSH');
    same(await client.lRange('{tag}:list', 0, -1), ['x', 'y'], 'LRANGE');
    same(await client.sAdd('{tag}:set1', ['m', 'n']), 2, 'SADD');
    same(await client.sAdd('{tag}:set2', ['n', 'o']), 2, 'SADD');
    same([...(await client.sInter(['{tag}:set1', '{tag}:set2']))], ['n'], 'SINTER');
    same(await client.zAdd('{tag}:zset', { value: 'one', score: 1.5 }), 1, 'ZADD');
    same(await client.zRangeWithScores('{tag}:zset', 0, -1), [{ value: 'one', score: 1.5 }], 'ZRANGE');
    const id = await client.xAdd('{tag}:stream', '*', { field: 'value' });
    const [entry] = await client.xRange('{tag}:stream', '-', '+');
    same([entry.id, entry.message.field], [id, 'value'], 'XRANGE');
  },

  async script() {
    same(await client.addTo('script:number', 20), 20, 'the script, unknown to the server');
    same(await client.addTo('script:number', 22), 42, 'the script, known');
  },

  async transaction() {
    same(await client.multi().set('{tag}:tx', '1').incr('{tag}:tx').get('{tag}:tx').exec(), ['OK', 2, '2'], 'EXEC');
  },

  async watch() {
    const other = await connected();
    await client.watch('{tag}:watched');
    await other.set('{tag}:watched', "somebody else's");
    const error = await failure(client.multi().set('{tag}:watched', 'mine').exec());
    same(error instanceof WatchError, true, `WatchError: ${error}`);
    same(await client.get('{tag}:watched'), "somebody else's", 'the watched key');
    other.destroy();
  },

  async scan() {
    const keys = Array.from({ length: 200 }, (_, number) => `scan:${number}`);
    await client.mSet(Object.fromEntries(keys.map((key) => [key, 'x'])));
    const found = new Set();
    for await (const some of client.scanIterator({ MATCH: 'scan:*', COUNT: 50 })) some.forEach((key) => found.add(key));
    same([...found].sort(), [...keys].sort(), 'the keys');
  },

  async 'wrong type'() {
    await client.set('wrong:text', 'text');
    const error = await failure(client.lPush('wrong:text', 'x'));
    same(error instanceof ErrorReply && error.message.startsWith('WRONGTYPE'), true, `WRONGTYPE in ${error}`);
    return error.constructor.name;
  },

  async 'cross slot'() {
    const error = await failure(client.sInter(Array.from({ length: 20 }, (_, number) => `cross:${number}`)));
    same(error instanceof ErrorReply && error.message.startsWith('CROSSSLOT'), true, `CROSSSLOT in ${error}`);
    return error.message;
  },

  async 'blocking pop'() {
    const other = await connected();
    const pushed = wait(300).then(() => other.rPush('blocking:list', 'late'));
    try {
      same(await client.blPop('blocking:list', 3), { key: 'blocking:list', element: 'late' }, 'BLPOP');
    } finally {
      await pushed;
      other.destroy();
    }
    const begin = Date.now();
    same(await client.blPop('blocking:nothing', 1), null, 'BLPOP of nothing');
    same(Date.now() - begin > 900, true, 'a wait of 1 s');
  },

  async 'pub/sub'() {
    const subscriber = await connected();
    const heard = [];
    const hear = (text) => until(() => heard.includes(text), text, 5000);
    await subscriber.subscribe('pub:channel', (message, channel) => heard.push(`${channel} ${message}`));
    await subscriber.pSubscribe('pub:p*', (message, channel) => heard.push(`pub:p* ${channel} ${message}`));
    await client.publish('pub:channel', 'one');
    await hear('pub:channel one');
    await client.publish('pub:pattern', 'two');
    await hear('pub:p* pub:pattern two');
    await subscriber.unsubscribe('pub:channel');
    await subscriber.pUnsubscribe();
    await client.publish('pub:channel', 'three');
    await wait(200);
    same(heard.length, 2, 'messages heard');
    subscriber.destroy();
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

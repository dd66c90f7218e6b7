// Jedis with its default options. CLIENT is `jedis`. The steps are those of tests/clients/programs.py.

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedQueue;
import redis.clients.jedis.DefaultJedisClientConfig;
import redis.clients.jedis.JedisPubSub;
import redis.clients.jedis.RedisClient;
import redis.clients.jedis.StreamEntryID;
import redis.clients.jedis.exceptions.JedisConnectionException;
import redis.clients.jedis.exceptions.JedisDataException;
import redis.clients.jedis.exceptions.JedisNoScriptException;
import redis.clients.jedis.resps.Tuple;

final class JedisProgram extends Program {
    private final RedisClient jedis = connected();

    private JedisProgram(String[] arguments) {
        super(arguments);
    }

    public static void main(String[] arguments) {
        new JedisProgram(arguments).run(versionOf(RedisClient.class));
    }

    private RedisClient connected() {
        if (password == null) return RedisClient.create(host, port);
        var config = DefaultJedisClientConfig.builder().password(password).build();
        return RedisClient.builder().hostAndPort(host, port).clientConfig(config).build();
    }

    @Override
    Map<String, Step> steps() {
        var steps = new LinkedHashMap<String, Step>();
        steps.put("connect", this::connect);
        steps.put("strings", this::strings);
        steps.put("pipeline", this::pipeline);
        steps.put("many keys", this::manyKeys);
        steps.put("collections", this::collections);
        steps.put("script", this::script);
        steps.put("transaction", this::transaction);
        steps.put("watch", this::watch);
        steps.put("scan", this::scan);
        steps.put("wrong type", this::wrongType);
        steps.put("cross slot", this::crossSlot);
        steps.put("blocking pop", this::blockingPop);
        steps.put("pub/sub", this::pubSub);
        steps.put("reconnect", this::reconnect);
        steps.put("held write", this::heldWrite);
        return steps;
    }

    private String connect() {
        same(jedis.ping(), "PONG", "PING");
        return null;
    }

    private String strings() {
        same(jedis.set("strings:text", "hello"), "OK", "SET");
        same(jedis.get("strings:text"), "hello", "GET");
        same(jedis.get("strings:nothing"), null, "GET of no key");
        same(jedis.incr("strings:number"), 1L, "INCR");
        same(jedis.incrBy("strings:number", 41), 42L, "INCRBY");
        same(jedis.expire("strings:number", 100), 1L, "EXPIRE");
        long left = jedis.ttl("strings:number");
        same(left > 0 && left <= 100, true, "TTL between 1 and 100");
        same(jedis.append("strings:text", " you"), 9L, "APPEND");
        return null;
    }

    private String pipeline() {
        var wanted = new ArrayList<Object>();
        try (var pipe = jedis.pipelined()) {
            for (int number = 0; number < 100; number++) {
                var key = "pipeline:" + number;
                pipe.set(key, String.valueOf(number));
                pipe.incr(key);
                pipe.get(key);
                wanted.addAll(List.of("OK", number + 1L, String.valueOf(number + 1)));
            }
            same(pipe.syncAndReturnAll(), wanted, "the replies");
        }
        return null;
    }

    private String manyKeys() {
        var keys = named("many", 20);
        var pairs = Arrays.stream(keys).flatMap(key -> List.of(key, key).stream()).toArray(String[]::new);
        same(jedis.mset(pairs), "OK", "MSET");
        var asked = Arrays.copyOf(keys, 21);
        asked[20] = "many:nothing";
        var wanted = new ArrayList<>(Arrays.asList(keys));
        wanted.add(null);
        same(jedis.mget(asked), wanted, "MGET");
        same(jedis.exists(keys), 20L, "EXISTS");
        same(jedis.del(keys), 20L, "DEL");
        return null;
    }

    private String collections() {
        same(jedis.hset("{tag}:hash", Map.of("a", "1", "b", "2")), 2L, "HSET");
        same(jedis.hgetAll("{tag}:hash"), Map.of("a", "1", "b", "2"), "HGETALL");
        same(jedis.rpush("{tag}:list", "x", "y"), 2L, "RPUSH");
        same(jedis.lrange("{tag}:list", 0, -1), List.of("x", "y"), "LRANGE");
        same(jedis.sadd("{tag}:set1", "m", "n"), 2L, "SADD");
        same(jedis.sadd("{tag}:set2", "n", "o"), 2L, "SADD");
        same(jedis.sinter("{tag}:set1", "{tag}:set2"), Set.of("n"), "SINTER");
        same(jedis.zadd("{tag}:zset", 1.5, "one"), 1L, "ZADD");
        same(jedis.zrangeWithScores("{tag}:zset", 0, -1), List.of(new Tuple("one", 1.5)), "ZRANGE");
        var id = jedis.xadd("{tag}:stream", StreamEntryID.NEW_ENTRY, Map.of("field", "value"));
        var entries = jedis.xrange("{tag}:stream", "-", "+");
        same(entries.get(0).getID(), id, "XRANGE");
        same(entries.get(0).getFields(), Map.of("field", "value"), "XRANGE");
        return null;
    }

    /** Jedis has no helper of its own: this is what its users write. */
    private Object add(String text, String hash, String number) {
        try {
            return jedis.evalsha(hash, 1, "script:number", number);
        } catch (JedisNoScriptException unknown) {
            return jedis.eval(text, 1, "script:number", number);
        }
    }

    private String script() throws Exception {
        var text = "return redis.call('INCRBY', KEYS[1], ARGV[1]) -- " + Math.random();
        var digest = java.security.MessageDigest.getInstance("SHA-1").digest(text.getBytes());
        var hash = java.util.HexFormat.of().formatHex(digest);
        same(add(text, hash, "20"), 20L, "the script, unknown to the server");
        same(jedis.evalsha(hash, 1, "script:number", "22"), 42L, "the script, known");
        return null;
    }

    private String transaction() {
        try (var multi = jedis.multi()) {
            multi.set("{tag}:tx", "1");
            multi.incr("{tag}:tx");
            multi.get("{tag}:tx");
            same(multi.exec(), List.of("OK", 2L, "2"), "EXEC");
        }
        return null;
    }

    private String watch() {
        try (var multi = jedis.transaction(false)) {
            multi.watch("{tag}:watched");
            jedis.set("{tag}:watched", "somebody else's");
            multi.multi();
            multi.set("{tag}:watched", "mine");
            same(multi.exec(), null, "EXEC");
        }
        same(jedis.get("{tag}:watched"), "somebody else's", "the watched key");
        return null;
    }

    private String scan() {
        var keys = named("scan", 200);
        for (var key : keys) jedis.set(key, "x");
        var found = new HashSet<String>();
        for (var batch = jedis.scanIteration(50, "scan:*"); !batch.isIterationCompleted(); ) {
            found.addAll(batch.nextBatch().getResult());
        }
        same(new TreeSet<>(found), new TreeSet<>(Arrays.asList(keys)), "the keys");
        return null;
    }

    private String wrongType() {
        jedis.set("wrong:text", "text");
        return serverError(() -> jedis.lpush("wrong:text", "x"), "WRONGTYPE");
    }

    private String crossSlot() {
        return serverError(() -> jedis.sinter(named("cross", 20)), "CROSSSLOT");
    }

    private static String serverError(Runnable command, String prefix) {
        try {
            command.run();
        } catch (JedisDataException error) {
            same(error.getMessage().startsWith(prefix), true, prefix + " in " + error);
            return error.getClass().getSimpleName();
        }
        throw new AssertionError("no error");
    }

    private String blockingPop() throws Exception {
        var pushed = CompletableFuture.runAsync(() -> jedis.rpush("blocking:list", "late"),
            CompletableFuture.delayedExecutor(300, java.util.concurrent.TimeUnit.MILLISECONDS));
        same(jedis.blpop(3, "blocking:list"), List.of("blocking:list", "late"), "BLPOP");
        pushed.get();
        long begin = System.nanoTime();
        same(jedis.blpop(1, "blocking:nothing"), null, "BLPOP of nothing");
        same(System.nanoTime() - begin > 900_000_000L, true, "a wait of 1 s");
        return null;
    }

    /** Notes everything it hears. */
    private static final class Listener extends JedisPubSub {
        final ConcurrentLinkedQueue<String> heard = new ConcurrentLinkedQueue<>();

        void hear(String wanted, CompletableFuture<?> subscription) throws Exception {
            until(() -> heard.contains(wanted) || subscription.isDone(), wanted, 5000);
            if (!heard.contains(wanted)) subscription.get();
            same(heard.contains(wanted), true, wanted);
        }

        @Override
        public void onMessage(String channel, String message) {
            heard.add(channel + " " + message);
        }

        @Override
        public void onPMessage(String pattern, String channel, String message) {
            heard.add(pattern + " " + channel + " " + message);
        }

        @Override
        public void onSubscribe(String channel, int count) {
            heard.add("subscribe " + channel);
        }

        @Override
        public void onPSubscribe(String pattern, int count) {
            heard.add("psubscribe " + pattern);
        }

        @Override
        public void onUnsubscribe(String channel, int count) {
            heard.add("unsubscribe " + channel);
        }
    }

    private String pubSub() throws Exception {
        var listener = new Listener();
        var subscription = CompletableFuture.runAsync(() -> jedis.subscribe(listener, "pub:channel"));
        listener.hear("subscribe pub:channel", subscription);
        listener.psubscribe("pub:p*");
        listener.hear("psubscribe pub:p*", subscription);
        jedis.publish("pub:channel", "one");
        listener.hear("pub:channel one", subscription);
        jedis.publish("pub:pattern", "two");
        listener.hear("pub:p* pub:pattern two", subscription);
        listener.unsubscribe("pub:channel");
        listener.hear("unsubscribe pub:channel", subscription);
        jedis.publish("pub:channel", "three");
        Thread.sleep(200);
        same(listener.heard.contains("pub:channel three"), false, "a message after unsubscribe");
        listener.punsubscribe();
        subscription.get(); // it comes back once nothing is subscribed
        return null;
    }

    private String reconnect() throws Exception {
        jedis.set("reconnect:key", "still here");
        askFor("restart");
        var errors = new ArrayList<String>();
        var value = new ArrayList<String>();
        until(() -> {
            try {
                return value.add(jedis.get("reconnect:key"));
            } catch (JedisConnectionException error) {
                return !errors.add(error.toString());
            }
        }, "a reply", 10_000);
        same(value.get(0), "still here", "GET");
        return errors.size() + " errors first";
    }

    private String heldWrite() throws Exception {
        jedis.set("held:key", "before");
        askFor("hold");
        long begin = System.currentTimeMillis();
        same(jedis.set("held:key", "after"), "OK", "SET");
        return "answered after " + (System.currentTimeMillis() - begin) + " ms";
    }
}

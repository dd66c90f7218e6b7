// Lettuce with its default options. CLIENT is `lettuce`. The steps are those of tests/clients/programs.py.

import io.lettuce.core.KeyValue;
import io.lettuce.core.Range;
import io.lettuce.core.RedisClient;
import io.lettuce.core.RedisCommandExecutionException;
import io.lettuce.core.RedisException;
import io.lettuce.core.RedisFuture;
import io.lettuce.core.RedisNoScriptException;
import io.lettuce.core.RedisURI;
import io.lettuce.core.ScanArgs;
import io.lettuce.core.ScanIterator;
import io.lettuce.core.ScoredValue;
import io.lettuce.core.ScriptOutputType;
import io.lettuce.core.api.StatefulRedisConnection;
import io.lettuce.core.api.sync.RedisCommands;
import io.lettuce.core.pubsub.RedisPubSubAdapter;
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
import java.util.concurrent.TimeUnit;

final class LettuceProgram extends Program {
    private final RedisClient lettuce = RedisClient.create(address());
    private StatefulRedisConnection<String, String> connection;
    private RedisCommands<String, String> redis;

    private LettuceProgram(String[] arguments) {
        super(arguments);
    }

    public static void main(String[] arguments) {
        new LettuceProgram(arguments).run(versionOf(RedisClient.class));
    }

    private RedisURI address() {
        var made = RedisURI.builder().withHost(host).withPort(port);
        return password == null ? made.build() : made.withPassword(password.toCharArray()).build();
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
        connection = lettuce.connect();
        redis = connection.sync();
        same(redis.ping(), "PONG", "PING");
        return null;
    }

    private String strings() {
        same(redis.set("strings:text", "hello"), "OK", "SET");
        same(redis.get("strings:text"), "hello", "GET");
        same(redis.get("strings:nothing"), null, "GET of no key");
        same(redis.incr("strings:number"), 1L, "INCR");
        same(redis.incrby("strings:number", 41), 42L, "INCRBY");
        same(redis.expire("strings:number", 100), true, "EXPIRE");
        long left = redis.ttl("strings:number");
        same(left > 0 && left <= 100, true, "TTL between 1 and 100");
        same(redis.append("strings:text", " you"), 9L, "APPEND");
        return null;
    }

    private String pipeline() throws Exception {
        var wanted = new ArrayList<Object>();
        var replies = new ArrayList<RedisFuture<?>>();
        var pipe = connection.async();
        for (int number = 0; number < 100; number++) {
            var key = "pipeline:" + number;
            replies.add(pipe.set(key, String.valueOf(number)));
            replies.add(pipe.incr(key));
            replies.add(pipe.get(key));
            wanted.addAll(List.of("OK", number + 1L, String.valueOf(number + 1)));
        }
        var found = new ArrayList<Object>();
        for (var reply : replies) found.add(reply.get(5, TimeUnit.SECONDS));
        same(found, wanted, "the replies");
        return null;
    }

    private String manyKeys() {
        var keys = named("many", 20);
        var pairs = new LinkedHashMap<String, String>();
        var wanted = new ArrayList<KeyValue<String, String>>();
        for (var key : keys) {
            pairs.put(key, key);
            wanted.add(KeyValue.just(key, key));
        }
        wanted.add(KeyValue.empty("many:nothing"));
        same(redis.mset(pairs), "OK", "MSET");
        var asked = Arrays.copyOf(keys, 21);
        asked[20] = "many:nothing";
        same(redis.mget(asked), wanted, "MGET");
        same(redis.exists(keys), 20L, "EXISTS");
        same(redis.del(keys), 20L, "DEL");
        return null;
    }

    private String collections() {
        same(redis.hset("{tag}:hash", Map.of("a", "1", "b", "2")), 2L, "HSET");
        same(redis.hgetall("{tag}:hash"), Map.of("a", "1", "b", "2"), "HGETALL");
        same(redis.rpush("{tag}:list", "x", "y"), 2L, "RPUSH");
        same(redis.lrange("{tag}:list", 0, -1), List.of("x", "y"), "LRANGE");
        same(redis.sadd("{tag}:set1", "m", "n"), 2L, "SADD");
        same(redis.sadd("{tag}:set2", "n", "o"), 2L, "SADD");
        same(redis.sinter("{tag}:set1", "{tag}:set2"), Set.of("n"), "SINTER");
        same(redis.zadd("{tag}:zset", 1.5, "one"), 1L, "ZADD");
        same(redis.zrangeWithScores("{tag}:zset", 0, -1), List.of(ScoredValue.just(1.5, "one")), "ZRANGE");
        var id = redis.xadd("{tag}:stream", Map.of("field", "value"));
        var entries = redis.xrange("{tag}:stream", Range.unbounded());
        same(entries.get(0).getId(), id, "XRANGE");
        same(entries.get(0).getBody(), Map.of("field", "value"), "XRANGE");
        return null;
    }

    /** Lettuce has no helper of its own but for the hash: this is what its users write. */
    private Long add(String text, String hash, String number) {
        String[] keys = {"script:number"};
        try {
            return redis.evalsha(hash, ScriptOutputType.INTEGER, keys, number);
        } catch (RedisNoScriptException unknown) {
            return redis.eval(text, ScriptOutputType.INTEGER, keys, number);
        }
    }

    private String script() {
        var text = "return redis.call('INCRBY', KEYS[1], ARGV[1]) -- " + Math.random();
        same(add(text, redis.digest(text), "20"), 20L, "the script, unknown to the server");
        same(add("no script", redis.digest(text), "22"), 42L, "the script, known");
        return null;
    }

    private String transaction() {
        same(redis.multi(), "OK", "MULTI");
        redis.set("{tag}:tx", "1");
        redis.incr("{tag}:tx");
        redis.get("{tag}:tx");
        same(redis.exec().stream().toList(), List.of("OK", 2L, "2"), "EXEC");
        return null;
    }

    private String watch() {
        try (var other = lettuce.connect()) {
            redis.watch("{tag}:watched");
            other.sync().set("{tag}:watched", "somebody else's");
            redis.multi();
            redis.set("{tag}:watched", "mine");
            same(redis.exec().wasDiscarded(), true, "EXEC was discarded");
        }
        same(redis.get("{tag}:watched"), "somebody else's", "the watched key");
        return null;
    }

    private String scan() {
        var keys = named("scan", 200);
        for (var key : keys) redis.set(key, "x");
        var found = new HashSet<String>();
        ScanIterator.scan(redis, ScanArgs.Builder.matches("scan:*").limit(50)).forEachRemaining(found::add);
        same(new TreeSet<>(found), new TreeSet<>(Arrays.asList(keys)), "the keys");
        return null;
    }

    private String wrongType() {
        redis.set("wrong:text", "text");
        return serverError(() -> redis.lpush("wrong:text", "x"), "WRONGTYPE");
    }

    private String crossSlot() {
        return serverError(() -> redis.sinter(named("cross", 20)), "CROSSSLOT");
    }

    private static String serverError(Runnable command, String prefix) {
        try {
            command.run();
        } catch (RedisCommandExecutionException error) {
            same(error.getMessage().startsWith(prefix), true, prefix + " in " + error);
            return error.getClass().getSimpleName();
        }
        throw new AssertionError("no error");
    }

    private String blockingPop() throws Exception {
        try (var other = lettuce.connect()) {
            var pushed = CompletableFuture.runAsync(() -> other.sync().rpush("blocking:list", "late"),
                CompletableFuture.delayedExecutor(300, TimeUnit.MILLISECONDS));
            same(redis.blpop(3, "blocking:list"), KeyValue.just("blocking:list", "late"), "BLPOP");
            pushed.get();
        }
        long begin = System.nanoTime();
        same(redis.blpop(1, "blocking:nothing"), null, "BLPOP of nothing");
        same(System.nanoTime() - begin > 900_000_000L, true, "a wait of 1 s");
        return null;
    }

    private String pubSub() throws Exception {
        var heard = new ConcurrentLinkedQueue<String>();
        try (var subscriber = lettuce.connectPubSub()) {
            subscriber.addListener(new RedisPubSubAdapter<>() {
                @Override
                public void message(String channel, String message) {
                    heard.add(channel + " " + message);
                }

                @Override
                public void message(String pattern, String channel, String message) {
                    heard.add(pattern + " " + channel + " " + message);
                }
            });
            subscriber.sync().subscribe("pub:channel");
            subscriber.sync().psubscribe("pub:p*");
            redis.publish("pub:channel", "one");
            until(() -> heard.contains("pub:channel one"), "the message", 5000);
            redis.publish("pub:pattern", "two");
            until(() -> heard.contains("pub:p* pub:pattern two"), "the message by pattern", 5000);
            subscriber.sync().unsubscribe("pub:channel");
            subscriber.sync().punsubscribe("pub:p*");
            redis.publish("pub:channel", "three");
            Thread.sleep(200);
            same(heard.size(), 2, "messages heard");
        }
        return null;
    }

    private String reconnect() throws Exception {
        redis.set("reconnect:key", "still here");
        askFor("restart");
        var errors = new ArrayList<String>();
        var value = new ArrayList<String>();
        until(() -> {
            try {
                return value.add(redis.get("reconnect:key"));
            } catch (RedisException error) {
                return !errors.add(error.toString());
            }
        }, "a reply", 10_000);
        same(value.get(0), "still here", "GET");
        return errors.size() + " errors first";
    }

    private String heldWrite() throws Exception {
        redis.set("held:key", "before");
        askFor("hold");
        long begin = System.currentTimeMillis();
        same(redis.set("held:key", "after"), "OK", "SET");
        return "answered after " + (System.currentTimeMillis() - begin) + " ms";
    }
}

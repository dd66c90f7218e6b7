// go-redis with its default options. CLIENT is `go-redis`. The steps are those of tests/clients/programs.py.

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

type program struct {
	arguments
	client *redis.Client
}

func (p *program) connected() *redis.Client {
	return redis.NewClient(&redis.Options{Addr: p.address, Password: p.password})
}

func main() {
	p := &program{arguments: given()}
	p.client = p.connected()
	say(map[string]any{"client": p.arguments.client, "version": redis.Version()})
	run([]step{
		{"connect", p.connect},
		{"strings", p.strings},
		{"pipeline", p.pipeline},
		{"many keys", p.manyKeys},
		{"collections", p.collections},
		{"script", p.script},
		{"transaction", p.transaction},
		{"watch", p.watch},
		{"scan", p.scan},
		{"wrong type", p.wrongType},
		{"cross slot", p.crossSlot},
		{"blocking pop", p.blockingPop},
		{"pub/sub", p.pubSub},
		{"reconnect", p.reconnect},
		{"held write", p.heldWrite},
	}, p.only)
}

func (p *program) connect(ctx context.Context) (string, error) {
	var c checks
	is[string](&c, p.client.Ping(ctx), "PONG", "PING")
	return "", c.err
}

func (p *program) strings(ctx context.Context) (string, error) {
	var c checks
	is[string](&c, p.client.Set(ctx, "strings:text", "hello", 0), "OK", "SET")
	is[string](&c, p.client.Get(ctx, "strings:text"), "hello", "GET")
	c.same(p.client.Get(ctx, "strings:nothing").Err(), redis.Nil, "GET of no key")
	is[int64](&c, p.client.Incr(ctx, "strings:number"), 1, "INCR")
	is[int64](&c, p.client.IncrBy(ctx, "strings:number", 41), 42, "INCRBY")
	is[bool](&c, p.client.Expire(ctx, "strings:number", 100*time.Second), true, "EXPIRE")
	left, err := p.client.TTL(ctx, "strings:number").Result()
	c.fine(err, "TTL")
	c.same(left > 0 && left <= 100*time.Second, true, "TTL between 1 and 100")
	is[int64](&c, p.client.Append(ctx, "strings:text", " you"), 9, "APPEND")
	return "", c.err
}

func (p *program) pipeline(ctx context.Context) (string, error) {
	var c checks
	var set []*redis.StatusCmd
	var added []*redis.IntCmd
	var read []*redis.StringCmd
	_, err := p.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for number := 0; number < 100; number++ {
			key := fmt.Sprintf("pipeline:%d", number)
			set = append(set, pipe.Set(ctx, key, number, 0))
			added = append(added, pipe.Incr(ctx, key))
			read = append(read, pipe.Get(ctx, key))
		}
		return nil
	})
	c.fine(err, "the pipeline")
	for number := range set {
		is[string](&c, set[number], "OK", "SET")
		is[int64](&c, added[number], int64(number+1), "INCR")
		is[string](&c, read[number], strconv.Itoa(number+1), "GET")
	}
	return "", c.err
}

func named(prefix string, count int) []string {
	keys := make([]string, count)
	for number := range keys {
		keys[number] = fmt.Sprintf("%s:%d", prefix, number)
	}
	return keys
}

func (p *program) manyKeys(ctx context.Context) (string, error) {
	var c checks
	keys := named("many", 20)
	pairs := make([]string, 0, 40)
	values := make([]any, 0, 21)
	for _, key := range keys {
		pairs = append(pairs, key, key)
		values = append(values, key)
	}
	is[string](&c, p.client.MSet(ctx, pairs), "OK", "MSET")
	is[[]any](&c, p.client.MGet(ctx, append(named("many", 20), "many:nothing")...), append(values, nil), "MGET")
	is[int64](&c, p.client.Exists(ctx, keys...), 20, "EXISTS")
	is[int64](&c, p.client.Del(ctx, keys...), 20, "DEL")
	return "", c.err
}

func (p *program) collections(ctx context.Context) (string, error) {
	var c checks
	is[int64](&c, p.client.HSet(ctx, "{tag}:hash", "a", 1, "b", 2), 2, "HSET")
	is[map[string]string](&c, p.client.HGetAll(ctx, "{tag}:hash"), map[string]string{"a": "1", "b": "2"}, "HGETALL")
	is[int64](&c, p.client.RPush(ctx, "{tag}:list", "x", "y"), 2, "RPUSH")
	is[[]string](&c, p.client.LRange(ctx, "{tag}:list", 0, -1), []string{"x", "y"}, "LRANGE")
	is[int64](&c, p.client.SAdd(ctx, "{tag}:set1", "m", "n"), 2, "SADD")
	is[int64](&c, p.client.SAdd(ctx, "{tag}:set2", "n", "o"), 2, "SADD")
	is[[]string](&c, p.client.SInter(ctx, "{tag}:set1", "{tag}:set2"), []string{"n"}, "SINTER")
	one := redis.Z{Score: 1.5, Member: "one"}
	is[int64](&c, p.client.ZAdd(ctx, "{tag}:zset", one), 1, "ZADD")
	is[[]redis.Z](&c, p.client.ZRangeWithScores(ctx, "{tag}:zset", 0, -1), []redis.Z{one}, "ZRANGE")
	fields := map[string]any{"field": "value"}
	id, err := p.client.XAdd(ctx, &redis.XAddArgs{Stream: "{tag}:stream", Values: fields}).Result()
	c.fine(err, "XADD")
	entries, err := p.client.XRange(ctx, "{tag}:stream", "-", "+").Result()
	c.fine(err, "XRANGE")
	c.same(len(entries) == 1 && entries[0].ID == id && entries[0].Values["field"] == "value", true, "XRANGE")
	return "", c.err
}

func (p *program) script(ctx context.Context) (string, error) {
	var c checks
	text := fmt.Sprintf("return redis.call('INCRBY', KEYS[1], ARGV[1]) -- %d %d", time.Now().UnixNano(), rand.Int63())
	add := redis.NewScript(text)
	keys := []string{"script:number"}
	is[any](&c, add.Run(ctx, p.client, keys, 20), any(int64(20)), "the script, unknown to the server")
	is[any](&c, add.Run(ctx, p.client, keys, 22), any(int64(42)), "the script, known")
	return "", c.err
}

func (p *program) transaction(ctx context.Context) (string, error) {
	var c checks
	var added *redis.IntCmd
	var read *redis.StringCmd
	_, err := p.client.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.Set(ctx, "{tag}:tx", 1, 0)
		added = pipe.Incr(ctx, "{tag}:tx")
		read = pipe.Get(ctx, "{tag}:tx")
		return nil
	})
	c.fine(err, "EXEC")
	is[int64](&c, added, 2, "INCR")
	is[string](&c, read, "2", "GET")
	return "", c.err
}

func (p *program) watch(ctx context.Context) (string, error) {
	var c checks
	key := "{tag}:watched"
	err := p.client.Watch(ctx, func(tx *redis.Tx) error {
		c.fine(p.client.Set(ctx, key, "somebody else's", 0).Err(), "SET")
		_, err := tx.TxPipelined(ctx, func(pipe redis.Pipeliner) error { return pipe.Set(ctx, key, "mine", 0).Err() })
		return err
	}, key)
	c.same(err, redis.TxFailedErr, "EXEC")
	is[string](&c, p.client.Get(ctx, key), "somebody else's", "the watched key")
	return "", c.err
}

func (p *program) scan(ctx context.Context) (string, error) {
	var c checks
	keys := named("scan", 200)
	for _, key := range keys {
		c.fine(p.client.Set(ctx, key, "x", 0).Err(), "SET")
	}
	seen := map[string]bool{}
	iterator := p.client.Scan(ctx, 0, "scan:*", 50).Iterator()
	for iterator.Next(ctx) {
		seen[iterator.Val()] = true
	}
	c.fine(iterator.Err(), "SCAN")
	found := make([]string, 0, len(seen))
	for key := range seen {
		found = append(found, key)
	}
	sort.Strings(found)
	sort.Strings(keys)
	c.same(found, keys, "the keys")
	return "", c.err
}

// serverError is the server's own error with this prefix, or what is wrong with it.
func serverError(err error, prefix string) (string, error) {
	var fromServer redis.Error
	if !errors.As(err, &fromServer) || !strings.HasPrefix(err.Error(), prefix) {
		return "", fmt.Errorf("no %s but %v", prefix, err)
	}
	return err.Error(), nil
}

func (p *program) wrongType(ctx context.Context) (string, error) {
	if err := p.client.Set(ctx, "wrong:text", "text", 0).Err(); err != nil {
		return "", err
	}
	return serverError(p.client.LPush(ctx, "wrong:text", "x").Err(), "WRONGTYPE")
}

func (p *program) crossSlot(ctx context.Context) (string, error) {
	return serverError(p.client.SInter(ctx, named("cross", 20)...).Err(), "CROSSSLOT")
}

func (p *program) blockingPop(ctx context.Context) (string, error) {
	var c checks
	pushed := make(chan error)
	go func() {
		time.Sleep(300 * time.Millisecond)
		pushed <- p.client.RPush(ctx, "blocking:list", "late").Err()
	}()
	is[[]string](&c, p.client.BLPop(ctx, 3*time.Second, "blocking:list"), []string{"blocking:list", "late"}, "BLPOP")
	c.fine(<-pushed, "RPUSH")
	begin := time.Now()
	c.same(p.client.BLPop(ctx, time.Second, "blocking:nothing").Err(), redis.Nil, "BLPOP of nothing")
	c.same(time.Since(begin) > 900*time.Millisecond, true, "a wait of 1 s")
	return "", c.err
}

func (p *program) pubSub(ctx context.Context) (string, error) {
	var c checks
	subscriber := p.client.Subscribe(ctx, "pub:channel")
	defer subscriber.Close()
	hear := func(wanted string) {
		for c.err == nil {
			got, err := subscriber.ReceiveTimeout(ctx, 5*time.Second)
			c.fine(err, wanted)
			switch got := got.(type) {
			case *redis.Subscription:
				if got.Kind+" "+got.Channel == wanted {
					return
				}
			case *redis.Message:
				if strings.TrimLeft(got.Pattern+" "+got.Channel+" "+got.Payload, " ") == wanted {
					return
				}
			}
		}
	}
	publish := func(channel, text string) { c.fine(p.client.Publish(ctx, channel, text).Err(), "PUBLISH") }
	hear("subscribe pub:channel")
	c.fine(subscriber.PSubscribe(ctx, "pub:p*"), "PSUBSCRIBE")
	hear("psubscribe pub:p*")
	publish("pub:channel", "one")
	hear("pub:channel one")
	publish("pub:pattern", "two")
	hear("pub:p* pub:pattern two")
	c.fine(subscriber.Unsubscribe(ctx, "pub:channel"), "UNSUBSCRIBE")
	hear("unsubscribe pub:channel")
	c.fine(subscriber.PUnsubscribe(ctx), "PUNSUBSCRIBE")
	hear("punsubscribe pub:p*")
	publish("pub:channel", "three")
	if got, err := subscriber.ReceiveTimeout(ctx, 200*time.Millisecond); c.err == nil && err == nil {
		return "", fmt.Errorf("after unsubscribe came %v", got)
	}
	return "", c.err
}

func (p *program) reconnect(ctx context.Context) (string, error) {
	if err := p.client.Set(ctx, "reconnect:key", "still here", 0).Err(); err != nil {
		return "", err
	}
	askFor("restart")
	failures := 0
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		value, err := p.client.Get(ctx, "reconnect:key").Result()
		if err == nil {
			var c checks
			c.same(value, "still here", "GET")
			return fmt.Sprintf("%d errors first", failures), c.err
		}
		failures++
	}
	return "", errors.New("10 s without a reply")
}

func (p *program) heldWrite(ctx context.Context) (string, error) {
	var c checks
	is[string](&c, p.client.Set(ctx, "held:key", "before", 0), "OK", "SET")
	askFor("hold")
	begin := time.Now()
	is[string](&c, p.client.Set(ctx, "held:key", "after", 0), "OK", "SET")
	return fmt.Sprintf("answered after %v", time.Since(begin).Round(time.Millisecond)), c.err
}

//! The table: every command of Redis 7.0, Redis 7.2 and Valkey 9.1, sorted by name.
//!
//! Arities, positions and the write flag are what `COMMAND` says on those servers. They differ in
//! two arities only (ZRANK, ZREVRANK: 3 arguments in 7.0, or more since 7.2); the laxer one stands
//! here, and the server answers what it does not take. Which command is refused, and why, is ours.

use super::families::{
    ACL, CLIENT, COMMAND, COMMANDLOG, CONFIG, FUNCTION, LATENCY, MEMORY, MODULE, OBJECT, PUBSUB,
    SCRIPT, SLOWLOG, XGROUP, XINFO,
};
use super::keys::CountErrors::{self, Pairs, Pop, Script, Sets, SortedSets};
use super::{
    Access, Command, Keys, LocalCommand, Merge, Repeat, RouteKind, ScriptGiven, Topic, Wait,
};

// Why a command is refused.
pub(super) const ONE_SERVER: &str = "it asks about one server, and the proxy stands before several";
pub(super) const ADMIN: &str = "it administers one server: connect to that server";
const REPLICATION: &str = "replication is not a client's to change";
const CLUSTER: &str = "it belongs to Redis Cluster, which this is not";
const MOVES_KEYS: &str = "it would take a key off its shard";

const KEY: Keys = range(1, 1, 1);
const TWO: Keys = range(1, 2, 1);
const ALL: Keys = range(1, -1, 1);
const PAIRS: Keys = range(1, -1, 2);
const STORED_COUNT: Keys = Keys::Count {
    at: 2,
    also: Some(1),
    step: 1,
    errors: SortedSets,
};
const PAIR_COUNT: Keys = Keys::Count {
    at: 1,
    also: None,
    step: 2,
    errors: Pairs,
};
const USAGE: &[&str] = &["memory|usage"];
const OBJECT_KEYS: &[&str] = &[
    "object|encoding",
    "object|freq",
    "object|idletime",
    "object|refcount",
];
const XGROUP_KEYS: &[&str] = &[
    "xgroup|create",
    "xgroup|createconsumer",
    "xgroup|delconsumer",
    "xgroup|destroy",
    "xgroup|setid",
];
const XINFO_KEYS: &[&str] = &["xinfo|consumers", "xinfo|groups", "xinfo|stream"];

/// It concerns the connection, and has keys all the same.
const WATCH: Command = Command {
    keys: ALL,
    ..local("watch", -2, LocalCommand::Watch)
};

const SSUBSCRIBE: Command = Command {
    keys: ALL,
    ..local(
        "ssubscribe",
        -2,
        LocalCommand::Subscribe(Topic::ShardChannel),
    )
};
const SUNSUBSCRIBE: Command = Command {
    keys: ALL,
    ..local(
        "sunsubscribe",
        -1,
        LocalCommand::Unsubscribe(Topic::ShardChannel),
    )
};

/// All commands.
pub static COMMANDS: &[Command] = &[
    family(read("acl", -2, Keys::None), ACL),
    write("append", 3, KEY),
    refused(read("asking", 1, Keys::None), CLUSTER),
    local("auth", -2, LocalCommand::Auth),
    refused(read("bgrewriteaof", 1, Keys::None), ADMIN),
    refused(read("bgsave", -1, Keys::None), ADMIN),
    read("bitcount", -2, KEY),
    write("bitfield", -2, KEY),
    read("bitfield_ro", -2, KEY),
    write("bitop", -4, range(2, -1, 1)),
    read("bitpos", -3, KEY),
    blocking(write("blmove", 6, TWO), Wait::Last),
    blocking(write("blmpop", -5, count(2, Pop)), Wait::First),
    blocking(write("blpop", -3, range(1, -2, 1)), Wait::Last),
    blocking(write("brpop", -3, range(1, -2, 1)), Wait::Last),
    blocking(write("brpoplpush", 4, TWO), Wait::Last),
    blocking(write("bzmpop", -5, count(2, Pop)), Wait::First),
    blocking(write("bzpopmax", -3, range(1, -2, 1)), Wait::Last),
    blocking(write("bzpopmin", -3, range(1, -2, 1)), Wait::Last),
    family(read("client", -2, Keys::None), CLIENT),
    refused(read("cluster", -2, Keys::None), CLUSTER),
    refused(read("clusterscan", -2, KEY), CLUSTER),
    family(read("command", -1, Keys::None), COMMAND),
    family(read("commandlog", -2, Keys::None), COMMANDLOG),
    family(read("config", -2, Keys::None), CONFIG),
    write("copy", -3, TWO),
    every(read("dbsize", 1, Keys::None), Merge::Sum),
    guarded(lone(read("debug", -2, Keys::None), ONE_SERVER)),
    write("decr", 2, KEY),
    write("decrby", 3, KEY),
    split(write("del", -2, ALL), Merge::Sum),
    write("delifeq", 3, KEY),
    local("discard", 1, LocalCommand::Discard),
    read("dump", 2, KEY),
    local("echo", 2, LocalCommand::Echo),
    script(write("eval", -3, count(2, Script)), ScriptGiven::Whole),
    script(read("eval_ro", -3, count(2, Script)), ScriptGiven::Whole),
    script(write("evalsha", -3, count(2, Script)), ScriptGiven::Digest),
    script(
        read("evalsha_ro", -3, count(2, Script)),
        ScriptGiven::Digest,
    ),
    local("exec", 1, LocalCommand::Exec),
    split(read("exists", -2, ALL), Merge::Sum),
    write("expire", -3, KEY),
    write("expireat", -3, KEY),
    read("expiretime", 2, KEY),
    refused(read("failover", -1, Keys::None), REPLICATION),
    script(write("fcall", -3, count(2, Script)), ScriptGiven::Name),
    script(read("fcall_ro", -3, count(2, Script)), ScriptGiven::Name),
    every(write("flushall", -1, Keys::None), Merge::Ok),
    every(write("flushdb", -1, Keys::None), Merge::Ok),
    family(read("function", -2, Keys::None), FUNCTION),
    write("geoadd", -5, KEY),
    read("geodist", -4, KEY),
    read("geohash", -2, KEY),
    read("geopos", -2, KEY),
    write("georadius", -6, Keys::GeoRadius { options: 6 }),
    read("georadius_ro", -6, KEY),
    write("georadiusbymember", -5, Keys::GeoRadius { options: 5 }),
    read("georadiusbymember_ro", -5, KEY),
    read("geosearch", -7, KEY),
    write("geosearchstore", -8, TWO),
    read("get", 2, KEY),
    read("getbit", 3, KEY),
    write("getdel", 2, KEY),
    write("getex", -2, KEY),
    read("getrange", 4, KEY),
    write("getset", 3, KEY),
    write("hdel", -3, KEY),
    local("hello", -1, LocalCommand::Hello),
    read("hexists", 3, KEY),
    write("hexpire", -6, KEY),
    write("hexpireat", -6, KEY),
    read("hexpiretime", -5, KEY),
    read("hget", 3, KEY),
    read("hgetall", 2, KEY),
    write("hgetdel", -5, KEY),
    write("hgetex", -5, KEY),
    write("hincrby", 4, KEY),
    write("hincrbyfloat", 4, KEY),
    read("hkeys", 2, KEY),
    read("hlen", 2, KEY),
    read("hmget", -3, KEY),
    again("hmset", -4, KEY),
    write("hpersist", -5, KEY),
    write("hpexpire", -6, KEY),
    write("hpexpireat", -6, KEY),
    read("hpexpiretime", -5, KEY),
    read("hpttl", -5, KEY),
    read("hrandfield", -2, KEY),
    read("hscan", -3, KEY),
    write("hset", -4, KEY),
    write("hsetex", -6, KEY),
    write("hsetnx", 4, KEY),
    read("hstrlen", 3, KEY),
    read("httl", -5, KEY),
    read("hvals", 2, KEY),
    write("incr", 2, KEY),
    write("incrby", 3, KEY),
    write("incrbyfloat", 3, KEY),
    every(read("info", -1, Keys::None), Merge::Info),
    every(read("keys", 2, Keys::None), Merge::Chain),
    every(read("lastsave", 1, Keys::None), Merge::Least),
    family(read("latency", -2, Keys::None), LATENCY),
    read("lcs", -3, TWO),
    read("lindex", 3, KEY),
    write("linsert", 5, KEY),
    read("llen", 2, KEY),
    write("lmove", 5, TWO),
    write("lmpop", -4, count(1, Pop)),
    any(read("lolwut", -1, Keys::None)),
    write("lpop", -2, KEY),
    read("lpos", -3, KEY),
    write("lpush", -3, KEY),
    write("lpushx", -3, KEY),
    read("lrange", 4, KEY),
    write("lrem", 4, KEY),
    again("lset", 4, KEY),
    write("ltrim", 4, KEY),
    family(read("memory", -2, Keys::Subcommand(USAGE)), MEMORY),
    split(read("mget", -2, ALL), Merge::Array),
    refused(write("migrate", -6, range(3, 3, 1)), MOVES_KEYS),
    family(read("module", -2, Keys::None), MODULE),
    refused(read("monitor", 1, Keys::None), ADMIN),
    write("move", 3, KEY),
    split(again("mset", -3, PAIRS), Merge::Ok),
    write("msetex", -4, PAIR_COUNT),
    write("msetnx", -3, PAIRS),
    local("multi", 1, LocalCommand::Multi),
    family(read("object", -2, Keys::Subcommand(OBJECT_KEYS)), OBJECT),
    write("persist", 2, KEY),
    write("pexpire", -3, KEY),
    write("pexpireat", -3, KEY),
    read("pexpiretime", 2, KEY),
    write("pfadd", -2, KEY),
    read("pfcount", -2, ALL),
    refused(write("pfdebug", 3, range(2, 2, 1)), ADMIN),
    again("pfmerge", -2, ALL),
    refused(read("pfselftest", 1, Keys::None), ADMIN),
    local("ping", -1, LocalCommand::Ping),
    again("psetex", 4, KEY),
    local("psubscribe", -2, LocalCommand::Subscribe(Topic::Pattern)),
    refused(read("psync", -3, Keys::None), REPLICATION),
    read("pttl", 2, KEY),
    // No write to the server; but a stale master would tell its subscribers only, and none of the new one's.
    write("publish", 3, Keys::Channel),
    family(read("pubsub", -2, Keys::None), PUBSUB),
    local(
        "punsubscribe",
        -1,
        LocalCommand::Unsubscribe(Topic::Pattern),
    ),
    local("quit", -1, LocalCommand::Quit),
    every(read("randomkey", 1, Keys::None), Merge::Draw),
    refused(read("readonly", 1, Keys::None), CLUSTER),
    refused(read("readwrite", 1, Keys::None), CLUSTER),
    write("rename", 3, TWO),
    write("renamenx", 3, TWO),
    refused(read("replconf", -1, Keys::None), REPLICATION),
    refused(read("replicaof", 3, Keys::None), REPLICATION),
    local("reset", 1, LocalCommand::Reset),
    write("restore", -4, KEY),
    refused(write("restore-asking", -4, KEY), CLUSTER),
    lone(read("role", 1, Keys::None), ONE_SERVER),
    write("rpop", -2, KEY),
    write("rpoplpush", 3, TWO),
    write("rpush", -3, KEY),
    write("rpushx", -3, KEY),
    write("sadd", -3, KEY),
    refused(read("save", 1, Keys::None), ADMIN),
    Command {
        route: RouteKind::Scan,
        ..read("scan", -2, Keys::None)
    },
    read("scard", 2, KEY),
    family(read("script", -2, Keys::None), SCRIPT),
    read("sdiff", -2, ALL),
    write("sdiffstore", -3, ALL),
    local("select", 2, LocalCommand::Select),
    bare(write("set", -3, KEY)),
    write("setbit", 4, KEY),
    again("setex", 4, KEY),
    write("setnx", 3, KEY),
    again("setrange", 4, KEY),
    refused(read("shutdown", -1, Keys::None), ADMIN),
    read("sinter", -2, ALL),
    read("sintercard", -3, count(1, Sets)),
    again("sinterstore", -3, ALL),
    read("sismember", 3, KEY),
    refused(read("slaveof", 3, Keys::None), REPLICATION),
    family(read("slowlog", -2, Keys::None), SLOWLOG),
    read("smembers", 2, KEY),
    read("smismember", -3, KEY),
    write("smove", 4, TWO),
    write("sort", -2, Keys::Sort),
    read("sort_ro", -2, Keys::Sort),
    write("spop", -2, KEY),
    write("spublish", 3, KEY),
    read("srandmember", -2, KEY),
    write("srem", -3, KEY),
    read("sscan", -3, KEY),
    SSUBSCRIBE,
    read("strlen", 2, KEY),
    local("subscribe", -2, LocalCommand::Subscribe(Topic::Channel)),
    read("substr", 4, KEY),
    read("sunion", -2, ALL),
    again("sunionstore", -3, ALL),
    SUNSUBSCRIBE,
    every(write("swapdb", 3, Keys::None), Merge::Ok),
    refused(read("sync", 1, Keys::None), REPLICATION),
    local("time", 1, LocalCommand::Time),
    split(read("touch", -2, ALL), Merge::Sum),
    read("ttl", 2, KEY),
    read("type", 2, KEY),
    split(write("unlink", -2, ALL), Merge::Sum),
    local("unsubscribe", -1, LocalCommand::Unsubscribe(Topic::Channel)),
    local("unwatch", 1, LocalCommand::Unwatch),
    waits(read("wait", 3, Keys::None), Merge::Least),
    waits(read("waitaof", 4, Keys::None), Merge::Each),
    WATCH,
    write("xack", -4, KEY),
    write("xadd", -5, KEY),
    write("xautoclaim", -6, KEY),
    write("xclaim", -6, KEY),
    write("xdel", -3, KEY),
    family(write("xgroup", -2, Keys::Subcommand(XGROUP_KEYS)), XGROUP),
    family(read("xinfo", -2, Keys::Subcommand(XINFO_KEYS)), XINFO),
    read("xlen", 2, KEY),
    read("xpending", -3, KEY),
    read("xrange", -4, KEY),
    blocking(read("xread", -4, Keys::Streams), Wait::Option),
    blocking(write("xreadgroup", -7, Keys::Streams), Wait::Option),
    read("xrevrange", -4, KEY),
    write("xsetid", -3, KEY),
    write("xtrim", -4, KEY),
    write("zadd", -4, KEY),
    read("zcard", 2, KEY),
    read("zcount", 4, KEY),
    read("zdiff", -3, count(1, SortedSets)),
    write("zdiffstore", -4, STORED_COUNT),
    write("zincrby", 4, KEY),
    read("zinter", -3, count(1, SortedSets)),
    read("zintercard", -3, count(1, SortedSets)),
    write("zinterstore", -4, STORED_COUNT),
    read("zlexcount", 4, KEY),
    write("zmpop", -4, count(1, Pop)),
    read("zmscore", -3, KEY),
    write("zpopmax", -2, KEY),
    write("zpopmin", -2, KEY),
    read("zrandmember", -2, KEY),
    read("zrange", -4, KEY),
    read("zrangebylex", -4, KEY),
    read("zrangebyscore", -4, KEY),
    write("zrangestore", -5, TWO),
    read("zrank", -3, KEY),
    write("zrem", -3, KEY),
    write("zremrangebylex", 4, KEY),
    write("zremrangebyrank", 4, KEY),
    write("zremrangebyscore", 4, KEY),
    read("zrevrange", -4, KEY),
    read("zrevrangebylex", -4, KEY),
    read("zrevrangebyscore", -4, KEY),
    read("zrevrank", -3, KEY),
    read("zscan", -3, KEY),
    read("zscore", 3, KEY),
    read("zunion", -3, count(1, SortedSets)),
    write("zunionstore", -4, STORED_COUNT),
];

pub(super) const fn range(first: i16, last: i16, step: i16) -> Keys {
    Keys::Range { first, last, step }
}

const fn count(at: u16, errors: CountErrors) -> Keys {
    Keys::Count {
        at,
        also: None,
        step: 1,
        errors,
    }
}

pub(super) const fn read(name: &'static str, arity: i16, keys: Keys) -> Command {
    Command {
        name,
        arity,
        keys,
        access: Access::Read,
        repeat: Repeat::Safe,
        route: RouteKind::Single,
        guarded: false,
    }
}

pub(super) const fn write(name: &'static str, arity: i16, keys: Keys) -> Command {
    Command {
        access: Access::Write,
        repeat: Repeat::Unsafe,
        ..read(name, arity, keys)
    }
}

/// A write that may be repeated.
const fn again(name: &'static str, arity: i16, keys: Keys) -> Command {
    Command {
        repeat: Repeat::Safe,
        ..write(name, arity, keys)
    }
}

/// A write that may be repeated if it has no options.
const fn bare(command: Command) -> Command {
    Command {
        repeat: Repeat::Bare,
        ..command
    }
}

const fn split(command: Command, merge: Merge) -> Command {
    Command {
        route: RouteKind::Split(merge),
        ..command
    }
}

const fn blocking(command: Command, wait: Wait) -> Command {
    Command {
        route: RouteKind::Blocking(wait),
        ..command
    }
}

const fn script(command: Command, given: ScriptGiven) -> Command {
    Command {
        route: RouteKind::Script(given),
        ..command
    }
}

const fn waits(command: Command, merge: Merge) -> Command {
    Command {
        route: RouteKind::Wait(merge),
        ..command
    }
}

pub(super) const fn local(name: &'static str, arity: i16, answer: LocalCommand) -> Command {
    Command {
        route: RouteKind::Local(answer),
        ..read(name, arity, Keys::None)
    }
}

pub(super) const fn refused(command: Command, why: &'static str) -> Command {
    Command {
        route: RouteKind::Unsupported(why),
        ..command
    }
}

pub(super) const fn every(command: Command, merge: Merge) -> Command {
    Command {
        route: RouteKind::Every(merge),
        ..command
    }
}

pub(super) const fn any(command: Command) -> Command {
    Command {
        route: RouteKind::Any,
        ..command
    }
}

pub(super) const fn lone(command: Command, why: &'static str) -> Command {
    Command {
        route: RouteKind::Lone(why),
        ..command
    }
}

pub(super) const fn guarded(command: Command) -> Command {
    Command {
        guarded: true,
        ..command
    }
}

const fn family(command: Command, rows: &'static [Command]) -> Command {
    Command {
        route: RouteKind::Family(rows),
        ..command
    }
}

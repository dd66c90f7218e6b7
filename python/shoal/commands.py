"""The command table for people: the reference page made of it, and the refusal of names that it does not have.

Rule: what is said here of one command comes from the table, which is the data plane's; only what holds for whole groups
is written by hand. docs/reference/commands.md is `page()`, written by scripts/reference.py; a test holds the two in
step. Called by that script, and by `check` and `opening` before anything is started.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from shoal.errors import ConfigError
from shoal.plane import CommandRow, command_table
from shoal.topology.values import closest

if TYPE_CHECKING:
    from shoal.topology import Topology

_OPENING = """\
# Commands

<!-- Written by scripts/reference.py from the data plane's command table: change the table, and run it. -->

Every command of Redis 7.0, Redis 7.2 and Valkey 9.1, and what becomes of it behind Shoal. A command that is not here is
unknown. What is refused gets an error that says why, and the connection stays.

- **Keys on one shard** work whatever their number; keys on several shards are refused with `-CROSSSLOT`, which names
  two keys and their shards. A hash tag (`{user}:1`, `{user}:2`) keeps keys together. SORT's patterns (BY, GET) need
  one before their `*` (`{user}:weight_*`) where there are several shards.
- **Split** commands are cut by shard and their replies put together. They are not atomic over shards: another client
  may see one part done and the other not. MSETNX is not split.
- **Every shard** gets the request as it is, once all of them can take it, and the replies become one. A pool with one
  shard answers as its server does, byte for byte but for SCAN's cursor and INFO's section on Shoal.

## When a shard fails

A request for several shards waits (`hold`) while one of them has no master, reads too. If it waited too long nothing
was sent to any shard, and the error names the one that was missing: `-MASTERDOWN shard "b" has no master`. An error
of a server ends with its shard, and with those that did their part:
`-OOM command not allowed ... (shard "b"; done on "a")`. If all shards give the same error, it stands alone. A write of
which a part was lost after it was sent is in doubt: `-INDOUBT write to shards "a" (done), "b" (unknown)`. A second
FLUSHALL, FLUSHDB or FUNCTION LOAD REPLACE does no harm then; a second SWAPDB swaps back where the first was done.

A server that a nutcracker.yml's pool has ejected is asked as well: an answer without it would be wrong.

## What a pool refuses

```yaml
proxy:
  commands: {allow: ["config set"], deny: [flushall, keys]}     # or under pools: NAME:
```

A name may be a command, or a subcommand as `config set`; a command stands for all its subcommands. `deny` wins. What is
refused for good (below: *refused*) cannot be allowed. A pool of a nutcracker.yml has no such key: it serves what works
unless denied. Scripts are not looked into: one may call, on its own shard, what is denied.

- **Works unless denied**: what applications and their tests send to one Redis. FLUSHDB (Django's `cache.clear()`, the
  fixtures of redis-py's and go-redis's own tests), FLUSHALL, KEYS (django-redis's `cache.keys()`, many scripts), INFO
  (rq, every exporter), CONFIG GET, SLOWLOG, SCRIPT FLUSH. They delete or slow down no more than the client
  could with DEL and SCAN. Deny them where clients are not trusted with that: `deny: [flushall, flushdb, keys, swapdb]`.
- **Refused unless allowed**: CONFIG SET, CONFIG REWRITE and DEBUG, which change or stop servers behind the back of what
  supervises them. A setting that is set so is lost at the next failover: the replica has its own. Put it into
  `redis:` of shoal.yaml instead. DEBUG is for tests, and needs a pool with one shard.
- **Refused for good**: SHUTDOWN, REPLICAOF, FAILOVER, CLUSTER, MIGRATE, MODULE LOAD and what else belongs to whoever
  runs the servers.

## Commands of modules

```yaml
proxy:
  commands:
    modules:
      json.get: {write: false}                      # one key, the first argument
      json.mget: {last_key: -2, write: false}       # keys from the first argument to the last but one
      json.set: {}                                  # writes, unless it is said that it does not
```

What the servers' modules bring, Shoal learns from the pool's settings: `first_key`, `last_key` and `key_step` are the
numbers that `COMMAND INFO` gives. Its keys must be on one shard, like those of any command. A command without keys
(`first_key: 0`) works in a pool with one shard. A write of a module is never sent twice.

## What the merged answers are

- **KEYS** lists all shards' keys. **DBSIZE** adds up. **RANDOMKEY** draws one of the keys that the shards drew, each
  shard being as likely as another; it is null only if all are empty.
- **SWAPDB** swaps on each shard in its own time: between the first and the last a client may meet both states.
- **SCRIPT LOAD** loads everywhere, **SCRIPT EXISTS** says 1 where every shard has it. **FUNCTION LIST** shows a library
  once if it is the same everywhere; FUNCTION LOAD and STATS must be answered alike, else the answer is an error.
  A dump of several shards' libraries is none: FUNCTION DUMP is refused, RESTORE goes to all.
- **CONFIG GET** gives a setting's value where all shards have the same, else `a=10 b=20`, each shard's by name: never
  one server's value for the whole.
- **INFO** adds up counters, memory, clients, CPU, commands and keyspaces; `redis_version` is the oldest, uptime the
  shortest, ratios and durations the highest, a status what is not `ok`. What differs and makes no sum (ports, run ids,
  replication offsets, percentiles) is left out. The section `# Shoal` (also `INFO shoal`) is the proxy's own: its
  version, process, clients of the pool, requests, and a line for each shard: `shard0:name=a,state=serving,...`.
- **SLOWLOG GET** gives the newest of all shards, as many as were asked for; ids are each server's own. **LATENCY
  LATEST** has each event once, with its newest time and its highest peak.
- **LASTSAVE** is the oldest. **TIME** is the proxy's own clock. **COMMAND** is what a server says of its commands,
  those included that Shoal refuses. **ACL WHOAMI** is the user that Shoal is to the servers, the same for all clients.
- **MEMORY DOCTOR** and its like give each shard's text under its name.

## SCAN

One cursor goes over all shards, by their sorted names; MATCH, COUNT and TYPE are each server's. The cursor is a decimal
number of 64 bits without sign and says everything, so a scan may go on through another proxy, or after a restart of
this one. It carries a hash of the server's run id: when a shard has failed over or restarted meanwhile, that shard is
scanned again from its beginning, because another run hashes keys in another order. SCAN's promise holds over failovers:
every key that was there all the time is returned, some more than once. A reply may be empty before the end, as with
one Redis. While shards are added to or taken from a pool, keys move and no scan is complete.

SSCAN, HSCAN and ZSCAN go to their key's shard with the server's own cursor, and cannot say of which run it is: a cursor
from before a failover may miss elements of a large collection afterwards. Begin such a scan again after an error or a
reconnection, or read the collection whole.

## Commands that wait

BLPOP and its kin, and XREAD and XREADGROUP with BLOCK, wait on a connection to their shard that is the client's own
meanwhile: nobody else waits with it. The keys of one such request are on one shard, as for every command. A client
that leaves takes its request with it, so nothing is popped for nobody. The pool's `timeout` is for requests that do
not wait, and counts for none of these.

When the shard's master is replaced, a request that waits and certainly was not executed (it had not been sent, or the
old master sent it away as a replica) waits on at the new master, with what is left of its time, and its client sees
nothing of it; one that only reads does so in every case. Not so `XREAD ... $`: what was added meanwhile would be passed
over, so that gets an error; give the last id that was read, and nothing is missed. If the connection is lost while one
waits that pops or moves, the client gets `-INDOUBT`: an element may have been taken and its reply lost, as when one
Redis dies. Its time passes also while it is held; then it is answered nil. Up to 4096 connections of a proxy are
clients' own at a time.

## WAIT

WAIT and WAITAOF ask every shard that the client has written to since they were last answered with at least the number
that was asked for (or, if it has written nothing since, those of that time; all shards, if it never wrote), on a
connection of their own, and answer the least. If one of these shards has had another master since the write, or was
lost for a moment, that is an error: the write may be lost, whatever the replicas have. They need SPUBLISH on the
servers (Redis 7.0): what is to be waited for is marked with a message to the shard channel `__shoal:wait`.

## Scripts

Keys are those that the request names; a script that reads or writes others finds what its shard has of them. A script
without keys runs on one shard, always the same while the ring is.

An EVALSHA finds its script whatever has become of the servers. The proxy remembers what EVAL and SCRIPT LOAD have
brought through the pool (4096 scripts and 16 MiB; what was loaded or asked for by its SHA-1 leaves last), and sends the
first EVALSHA of a script on each of its connections as EVAL with the text: so a failover, a restart or another shard
answers no NOSCRIPT, and requests behind stay behind. A server that dropped a script under an open connection (a SCRIPT
FLUSH that it was sent directly) answers NOSCRIPT once; the proxy then sends EVAL in its place, unless the client has
pipelined more to that server behind it, or it is inside MULTI. Then, and for a script that this proxy has never seen,
the client gets NOSCRIPT. SCRIPT FLUSH empties the memory. Functions are not remembered: a replica has its master's.

## Clients

A client sees and ends the clients of its own pool, on every worker of this proxy: **CLIENT LIST** and **CLIENT KILL**
take ID, ADDR, LADDR, TYPE, USER, SKIPME and MAXAGE, CLIENT KILL also an address alone. Ids are this proxy's; clients of
another proxy are seen there. The lines have the fields of Redis 7.2; what is not known is 0. The flag `b` is a client
whose request waits at a server, or is held because its shard has no master, `x` one in MULTI, whose `cmd` stays
`multi`. Requests that a killed client has sent are executed or not, as when it breaks its connection.

After **CLIENT REPLY OFF** errors are not sent either. **CLIENT SETINFO** is shown by LIST and INFO, and RESET keeps it.
Clients share connections to the servers, so what would be about such a connection (NO-EVICT ON, NO-TOUCH ON,
PAUSE, UNBLOCK) is refused. Deny `client kill` and `client list` where clients are not to see one another.

## Client-side caching

**CLIENT TRACKING** works over all shards of a pool: what this client has read and anybody changes, through whichever
proxy or none, it is told of. RESP3 clients are told on their own connection, with REDIRECT also RESP2 clients that are
subscribed; the ids are those of CLIENT ID, the other client may be on any worker of this proxy. OPTIN, OPTOUT, CLIENT
CACHING and BCAST with PREFIX are as in Redis, and so are the errors. NOLOOP is refused: no server can tell whose write
it was that came on a connection that clients share.

- **Too much is told, never too little.** What changes while requests of the client are unanswered is told at once and
  again behind their replies, so a cache that takes replies and messages in their order is right. Several keys may come
  in one message, in every mode.
- **Everything has changed** (a message with a null) when a shard gets another master, when the connection on which it
  tells of changes is lost and when it is back, and when the ring changes, for every client of the pool that tracks.
  What is read from such a shard in between is told to have changed right behind its reply. FLUSHALL is told once for
  each shard.
- CLIENT TRACKING ON is answered once every shard that has a server tells of its changes, or with an error after
  `hold.timeout`. The servers must be Redis 6 or newer, and let the proxy's user call CLIENT TRACKING. Where a pool
  reads from replicas, a client that tracks reads at the masters.
- It is for the keys that a request names; a script that reads others has them not remembered.
- What it costs: while a pool has clients that track, each worker that has some keeps one connection to each shard, on
  which that sends every key that is written, once (`CLIENT TRACKING ON BCAST`). Reads cost the servers nothing more.
  1,000,000 keys of the process are remembered; beyond that, one is told to have changed for each that is new. A client
  with more than 1 MiB unread is told no keys, but, once it has read, that everything has changed.
- A connection that died without a word is noticed within 3 s.
- redis-py's own cache (`cache_config`) asks for a server that says it is Redis 7.4; the proxy says 7.0.0, as which it
  is safe with any server. Set `redis.connection.CacheProxyConnection.MIN_ALLOWED_VERSION = "7.0.0"` before connecting.

## Publish and subscribe

A channel is on the shard that its name hashes to, hash tag included, and PUBLISH and SPUBLISH go there: they wait for a
master as a write does, and are in doubt if they were sent and not answered. Patterns are subscribed to on every shard,
and so are `__keyspace@...` and `__keyevent@...`, so keyspace notifications come from all of them (the servers must have
`notify-keyspace-events`). A message comes once.

A client that subscribes gets a connection of its own to each shard it needs, so the number that PUBLISH answers, and
PUBSUB NUMSUB, are one Redis's. SUBSCRIBE is answered once all its shards have confirmed: what is published after that
is received. It waits for a shard without a master no longer than any request. UNSUBSCRIBE is answered at once. Up to
131072 names and 32 MiB of them for a client, 32768 connections of subscribers for the process.

- **At most once, as with any Redis.** A failover, a lost connection or a change of the ring is followed and the client
  sees nothing of it; what was published between the loss and the new subscription is not received.
- **RESP2** refuses other commands while subscribed, in Redis's words; **RESP3** takes them all, and a push never comes
  into the midst of a reply.
- A subscriber with 32 MiB of unread messages is closed, as by Redis; nobody else notices.
- Inside MULTI, SUBSCRIBE is refused; PUBLISH belongs to the transaction if its channel is on the transaction's shard.
- PUBSUB CHANNELS lists every shard's channels once; where names have no shard (`distribution: random`) channels are
  subscribed to everywhere.

## The table

`*` marks what is refused unless the pool allows it. *Again* says whether a request may be sent a second time where its
reply was lost: every read, and a write only if the second run would leave and answer the same.

"""

_MERGES = {
    "Array": "replies in the order of the keys",
    "Sum": "counts added up",
    "Ok": "OK if all are",
    "Least": "the least",
    "Chain": "all elements",
    "Union": "equal elements once",
    "Each": "place by place the least",
    "Draw": "one of them drawn",
    "Same": "must be alike",
    "Most": "the greatest",
    "Settings": "each setting's value, or each shard's",
    "Texts": "each shard's text",
    "Newest": "the newest entries",
    "Oldest": "all samples by time",
    "Events": "each event once",
    "Info": "added up where that makes sense",
}
_MERGED = {
    "Split": "split by shard",
    "Every": "every shard",
    "Wait": "the shards that the client wrote to",
}
_ROUTES = {
    "Single": "the shard of its keys",
    "Blocking": "the shard of its keys, where it may wait",
    "Script": "the shard of its keys; one for good without keys",
    "Any": "any one shard",
    "Scan": "one shard after the other",
    "Local": "the proxy itself",
    "Family": "by its subcommand",
}


def refuse_unknown(topology: Topology) -> None:
    """ConfigError for names in the pools' `commands` that no command has or that can never be allowed."""
    table = {row.name: row for row in command_table()}
    errors: list[ConfigError] = []
    for pool, spec in topology.pools.items():
        modules = spec.commands.modules
        for name in modules:
            where = f"pools.{pool}.commands.modules.{name}"
            if "|" in name:
                hint = "a command of a module stands for all its subcommands"
                errors.append(ConfigError(f'"{name}" is a subcommand', where=where, hint=hint))
            elif name in table:
                hint = "take it out: Shoal knows where its keys are"
                errors.append(ConfigError(f'"{name}" is no command of a module', where=where, hint=hint))
        for key, names in (("allow", spec.commands.allow), ("deny", spec.commands.deny)):
            where = f"pools.{pool}.commands.{key}"
            for name in (name for name in names if name not in modules):
                row = table.get(name)
                if row is None:
                    guess = closest(name, table)
                    suggestion = f'did you mean "{guess}"?' if guess else None
                    errors.append(ConfigError(f'there is no command "{name}"', where=where, hint=suggestion))
                elif key == "allow" and (why := refusal(row)):
                    hint = "take it out of the list"
                    errors.append(ConfigError(f'"{name}" cannot be allowed: {why}', where=where, hint=hint))
    if errors:
        raise ConfigError.together(errors)


def refusal(row: CommandRow) -> str | None:
    """Why a command is refused in every pool."""
    kind, detail = _parts(row.route)
    return detail if kind == "Unsupported" else None


def page() -> str:
    """The reference page, in Markdown."""
    head = ("command", "arguments", "kind", "again", "goes to")
    lines = [head, ("---",) * len(head), *map(_cells, command_table())]
    return _OPENING + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(row: CommandRow) -> tuple[str, ...]:
    name = f"`{row.name.replace('|', ' ')}`" + (" *" if row.guarded else "")
    least = abs(row.arity) - 1
    arguments = f"{least} or more" if row.arity < 0 else str(least)
    if refusal(row):
        return name, arguments, "", "", _route(row)
    again = {"Safe": "yes", "Bare": "without options", "Unsafe": "no"}[row.repeat]
    return name, arguments, row.access.lower(), again, _route(row)


def _route(row: CommandRow) -> str:
    kind, detail = _parts(row.route)
    match kind:
        case "Unsupported":
            return f"refused: {detail}"
        case "Lone":
            return f"the shard of a pool with one; else refused: {detail}"
        case "Split" | "Every" | "Wait":
            return f"{_MERGED[kind]}, {_MERGES[detail]}"
        case "Local" if "subscribe" in detail.lower():
            return "connections of the client's own, to the shards concerned"
        case _:
            return _ROUTES[kind]


def _parts(route: str) -> tuple[str, str]:
    """`Every(Sum)` is Every and Sum; the quotes of a text are not part of it."""
    match = re.fullmatch(r"(\w+)(?:\((.*)\))?", route)
    if match is None:
        raise ValueError(route)
    return match[1], (match[2] or "").strip('"')

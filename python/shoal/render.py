"""Writes what the servers read: redis.conf, shoal.conf and sentinel.conf, as text.

Who owns which: shoal.conf is Shoal's and is rendered at each start; redis.conf and sentinel.conf are rendered once and
belong to the servers afterwards, which rewrite them (a new master's address, a failover's epoch).

    redis-server nodes/a-1/redis.conf --include nodes/a-1/shoal.conf
                           │                          └─ again, last: CONFIG REWRITE has copied the values of that day
                           └─ include shoal.conf         into redis.conf, and the topology's must win
                              dir, replicaof

Pure: the caller writes the files, with mode 0600, since they hold the password. Called by the supervisor.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath

from shoal.topology import Endpoint, Layout, RedisNode, SentinelNode, Topology

REDIS_CONF_HEADER = """\
# Written by Shoal at the first start; the server's own since then (CONFIG REWRITE).
# What the topology file says is in shoal.conf, which is rendered at each start and read last.
"""
SHOAL_CONF_HEADER = """\
# Rendered by Shoal from the topology file at each start: changes made here are lost.
"""
SENTINEL_CONF_HEADER = """\
# Written by Shoal at the first start; Sentinel's own since then.
"""

EMPTY = '""'

DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "appendonly": ("yes",),
    "repl-diskless-sync": ("yes",),
    "repl-diskless-sync-delay": ("0",),  # a new replica is back in 0.12 s instead of 4.6 s
    "repl-backlog-size": ("64mb",),
    "repl-timeout": ("10",),
}
"""What Shoal sets unless the topology's `redis:` says otherwise."""


def quoted(text: str) -> str:
    """One argument as Redis reads it between double quotes, whatever bytes it has."""
    out = []
    for byte in text.encode("utf-8", "surrogateescape"):
        character = chr(byte)
        if character in '"\\':
            out.append("\\" + character)
        elif " " <= character <= "~":
            out.append(character)
        else:
            out.append(f"\\x{byte:02x}")
    return '"' + "".join(out) + '"'


def redis_conf(node: RedisNode, layout: Layout, directory: PurePath) -> str:
    """The redis.conf of a first start: where the data is, and whom to follow."""
    lines = [f"include {quoted(str(directory / 'shoal.conf'))}", f"dir {quoted(str(directory))}"]
    if not node.bootstrap_master:
        master = next(other for other in layout.shard_nodes(node.shard) if other.bootstrap_master)
        lines.append(f"replicaof {master.endpoint.host} {master.endpoint.port}")
    return REDIS_CONF_HEADER + _text(lines)


def shoal_conf(node: RedisNode, layout: Layout) -> str:
    """What the topology says about this server; rendered at each start."""
    return SHOAL_CONF_HEADER + _text(_owned_lines(node, layout)) + "\n" + _text(_directive_lines(layout.topology))


def sentinel_conf(node: SentinelNode, layout: Layout, masters: Mapping[str, Endpoint]) -> str:
    """The sentinel.conf of a first start, monitoring each shard at its present master."""
    topology = layout.topology
    settings = topology.sentinel
    lines = [
        *_listening(node.endpoint),
        f"sentinel announce-ip {node.endpoint.host}",
        f"sentinel announce-port {node.endpoint.port}",
    ]
    for shard, master in masters.items():
        lines += [
            "",
            f"sentinel monitor {shard} {master.host} {master.port} {settings.quorum}",
            f"sentinel down-after-milliseconds {shard} {settings.down_after}",
            f"sentinel failover-timeout {shard} {settings.failover_timeout}",
            f"sentinel parallel-syncs {shard} {settings.parallel_syncs}",
        ]
    return with_password(SENTINEL_CONF_HEADER + _text(lines), topology)


def with_password(conf: str, topology: Topology) -> str:
    """A redis.conf or sentinel.conf as it is, but with the topology's password, or without one.

    For a server that does not run: what it wrote for itself has the password of that day, and its line for the user
    "default" is stronger than any requirepass, so that a server which began without a password would stay open.
    """
    kept = [line for line in conf.splitlines() if not _PASSWORD_LINE.match(line)]
    password = _password(topology)
    shards = [match[1] for line in kept if (match := _MONITOR_LINE.match(line))]
    if password is not None and shards:
        kept += [f"requirepass {password}", f"sentinel sentinel-pass {password}"]
        kept += [f"sentinel auth-pass {shard} {password}" for shard in shards]
    return _text(kept)


_PASSWORD_LINE = re.compile(
    r"\s*(requirepass|masterauth|primaryauth|user\s+default|sentinel\s+(auth-pass|sentinel-pass))\s", re.IGNORECASE
)
_MONITOR_LINE = re.compile(r"\s*sentinel\s+monitor\s+(\S+)\s", re.IGNORECASE)


def _owned_lines(node: RedisNode, layout: Layout) -> Iterator[str]:
    topology = layout.topology
    yield from _listening(node.endpoint)
    yield f"replica-announce-ip {node.endpoint.host}"
    yield f"replica-announce-port {node.endpoint.port}"
    yield "replica-priority 100"
    password = _password(topology)
    if password is not None:
        yield f"requirepass {password}"
        yield f"masterauth {password}"
    fenced = topology.fence_direct_clients and len(layout.shard_nodes(node.shard)) > 1
    yield f"min-replicas-to-write {1 if fenced else 0}"
    yield "min-replicas-max-lag 3"


def _listening(endpoint: Endpoint) -> Iterator[str]:
    yield f"bind {endpoint.host}"
    yield f"port {endpoint.port}"
    yield "protected-mode no"  # the topology decides: outside loopback it needs a password or `insecure: true`
    yield "daemonize no"


def _directive_lines(topology: Topology) -> Iterator[str]:
    directives = {name.lower(): lines for name, lines in topology.redis.items()}
    for name, lines in {**DEFAULTS, **directives}.items():
        if name == "save":
            yield 'save ""'  # each further line adds one: forget those that CONFIG REWRITE kept
        for line in lines:
            yield f"{name} {line.strip() or EMPTY}"


def _password(topology: Topology) -> str | None:
    return None if topology.auth.password is None else quoted(topology.auth.password.get_secret_value())


def _text(lines: Iterator[str] | list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)

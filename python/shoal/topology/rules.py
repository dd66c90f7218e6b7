"""What cannot be in a topology although every setting in it is right by itself.

Rule: a problem stands at a key path and says what, why and what to do. A rule is one small function in a table, with
the top-level keys that must be sound before it can be asked. Called by `config`.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from shoal.topology.layout import Path, Slot, clashes, slots
from shoal.topology.model import LOCAL, Topology, majority
from shoal.topology.values import closest, is_address, is_loopback


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that cannot be: at a key path, perhaps against another one."""

    path: Path
    what: str
    hint: str | None = None
    other: Path | None = None


Rule = Callable[[Topology], Iterator[Problem]]


def problems(topology: Topology, broken: frozenset[Path] = frozenset()) -> list[Problem]:
    """All that cannot be, but for what concerns the `broken` key paths: they have errors of their own."""
    sections = {path[0] for path in broken if path}
    found = [problem for needs, rule in _RULES if not needs & sections for problem in rule(topology)]
    return [problem for problem in found if not any(_concerns(problem, path) for path in broken)]


def _concerns(problem: Problem, path: Path) -> bool:
    return any(own is not None and own[: len(path)] == path for own in (problem.path, problem.other))


def _names(topology: Topology) -> Iterator[Problem]:
    """Names that would meet in the state directory, or that mean something else already."""
    if LOCAL in topology.hosts:
        yield Problem(("hosts", LOCAL), f'"{LOCAL}" always is this machine\'s loopback', "give the host another name")
    for name in topology.proxy.nodes:
        if "." in name:
            yield Problem(("proxy", "nodes", name), f'the proxy\'s name "{name}" has a dot', 'use "-" instead')
    seen: dict[str, Path] = {}
    for slot in slots(topology):
        names = {slot.key, str(slot.path[2])} if slot.path[:2] == ("proxy", "nodes") else {slot.key}
        for name in sorted(names):
            first = seen.setdefault(name, slot.path[:3])
            if first != slot.path[:3]:
                yield Problem(slot.path[:3], f'"{name}" would be the name of two things', "rename one of them", first)
                return
    for pool in topology.pools.keys() & {"admin", "stats"}:
        yield Problem(("pools", pool), f'a pool cannot be called "{pool}"', "the proxies' own ports have that name")


def _dangling_hosts(topology: Topology) -> Iterator[Problem]:
    for slot in slots(topology):
        if slot.path[-1] in ("admin", "stats", "listen"):
            continue  # the proxy's first slot has said it
        if not _known_host(topology, slot.host):
            yield _dangling(slot.path, "host", slot.host, (*topology.hosts, LOCAL))


def _known_host(topology: Topology, host: str) -> bool:
    return host == LOCAL or host in topology.hosts or is_address(host)


def _dangling(path: Path, kind: str, name: str, known: Iterable[str]) -> Problem:
    guess = closest(name, known)
    hint = f'did you mean "{guess}"?' if guess else f"known here: {', '.join(known)}"
    return Problem(path, f'there is no {kind} "{name}"', hint)


def _pool_shards(topology: Topology) -> Iterator[Problem]:
    for pool, spec in topology.pools.items():
        seen: set[str] = set()
        for index, shard in enumerate(spec.shards or ()):
            path = ("pools", pool, "shards", index)
            if shard not in topology.shards:
                yield _dangling(path, "shard", shard, topology.shards)
            elif shard in seen:
                yield Problem(path, f'shard "{shard}" is in the pool twice')
            seen.add(shard)


def _pool_labels(topology: Topology) -> Iterator[Problem]:
    """A ring has one place for a label."""
    for pool, spec in topology.pools.items():
        first: dict[str, str] = {}
        for shard in dict.fromkeys(spec.shards or topology.shards):
            if shard not in topology.shards:
                continue
            label = topology.label(shard)
            earlier = first.setdefault(label, shard)
            if earlier != shard:
                own, other = (_label_path(topology, one) for one in (shard, earlier))
                own, other = (own, other) if own[-1] == "label" else (other, own)
                what = f'shards "{earlier}" and "{shard}" of pool "{pool}" have the same label "{label}"'
                yield Problem(own, what, "the ring has one place for a label", other)


def _label_path(topology: Topology, shard: str) -> Path:
    return ("shards", shard, "label") if topology.shards[shard].label is not None else ("shards", shard)


def _proxy_ports(topology: Topology) -> Iterator[Problem]:
    if len(topology.pools) == 1:
        return
    for name, node in topology.proxy.nodes.items():
        if node.port is not None:
            yield Problem(
                ("proxy", "nodes", name, "port"),
                f"with {len(topology.pools)} pools this does not say whose port it is",
                "give each pool its `listen` instead",
            )


def _same_endpoint(topology: Topology) -> Iterator[Problem]:
    for earlier, later in clashes(list(slots(topology))):
        if earlier.path == later.path:  # one `listen` for two proxies of one host
            hint = "without a port in `listen`, each proxy of a host gets one of its own"
        else:
            hint = "give one of them another port"
        what = f"{_endpoint(later)} is the endpoint of both {earlier.key} and {later.key}"
        yield Problem(later.path, what, hint, earlier.path)


def _endpoint(slot: Slot) -> str:
    return f"{slot.bind}:{slot.port}"


def _quorum(topology: Topology) -> Iterator[Problem]:
    count, quorum = len(topology.sentinel.nodes), topology.sentinel.quorum
    least = majority(count)
    if quorum > count:
        why = f"quorum {quorum} can never be reached by {count} sentinels"
    elif quorum < least:
        why = f"quorum {quorum} is no majority of {count} sentinels: {count - quorum} others may see the master alive"
    else:
        return
    yield Problem(
        ("sentinel", "quorum"),
        why,
        f"write {least}, or leave it out; the lease that keeps two masters from being written to needs a majority",
    )


def _reachable(topology: Topology) -> Iterator[Problem]:
    """Loopback cannot be reached from the other machines of a topology that has several."""
    placed = [slot for slot in slots(topology) if slot.key.rpartition(".")[2] not in ("admin", "stats")]
    placed = [slot for slot in placed if _known_host(topology, slot.host)]
    outside = [slot for slot in placed if slot.machine != "loopback"]
    inside = [slot for slot in placed if slot.machine == "loopback"]
    if not outside:
        return
    for section in dict.fromkeys(slot.path[0] for slot in inside):
        first = next(slot for slot in inside if slot.path[0] == section)
        yield Problem(
            first.path,
            f"{first.key} is on loopback ({first.address}), out of reach for {outside[0].key} on {outside[0].host}",
            f"give every part of `{section}` a host",
        )


def _exposed(topology: Topology) -> Iterator[Problem]:
    if topology.auth.enabled or topology.insecure:
        return
    for slot in outside_loopback(topology):
        yield Problem(
            slot.path,
            f"{slot.key} listens on {slot.bind}, outside loopback, and there is no password",
            "add `auth: {password_file: ./secret}`; or `insecure: true` if everybody in that network may write",
        )
        return


def outside_loopback(topology: Topology) -> Iterator[Slot]:
    """The sockets that other machines can connect to."""
    return (slot for slot in slots(topology) if is_address(slot.bind) and not is_loopback(slot.bind))


def _vip(topology: Topology) -> Iterator[Problem]:
    if topology.vip is None:
        return
    hosts = list(dict.fromkeys(node.host for node in topology.proxy.nodes.values()))
    if topology.vip.owner is not None and topology.vip.owner not in hosts:
        yield _dangling(("vip", "owner"), "proxy on host", topology.vip.owner, hosts)


def _directives(topology: Topology) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for name in topology.redis:
        path = ("redis", name)
        plain = name.lower()
        if not re.fullmatch(r"[a-z][a-z0-9-]*", plain):
            yield Problem(path, f'"{name}" is not the name of a redis.conf directive')
        elif plain in seen:
            yield Problem(path, f'"{name}" is given twice', "give its lines as a list", ("redis", seen[plain]))
        seen.setdefault(plain, name)
        for pattern, why in OWNED_DIRECTIVES.items():
            if re.fullmatch(pattern, plain):
                yield Problem(path, f'"{name}" is not for `redis:`: {why}')
                break


OWNED_DIRECTIVES = {
    "port|bind|bind-source-addr|unixsocket|unixsocketperm": "each node's endpoint comes from its place in the topology",
    "(replica|slave)-announce-.*": "each node announces the endpoint that the topology gives it",
    "dir|pidfile|logfile|logfile-.*|syslog-.*": "the state directory has a place for each node's files",
    "daemonize|supervised|proc-title-template": "Shoal starts the servers and watches over them",
    "include|aclfile|loadmodule|user|rename-command": "the server copies it to redis.conf, and must not find it twice",
    "replicaof|slaveof": "who follows whom is Sentinel's to decide",
    "(replica|slave)-priority": "all replicas are equal, so that any one may be promoted",
    "(replica|slave)-read-only": "a replica that takes writes loses them",
    "min-(replicas|slaves)-.*": "use `fence_direct_clients`",
    "requirepass|(master|primary)(auth|user)|acl-pubsub-default": "passwords come from `auth.password_file`",
    "protected-mode": "the topology decides who may connect (`auth`, `insecure`)",
    "cluster-.*": "a Redis Cluster shards by itself; here the proxies do",
    "sentinel|sentinel-.*": "it is for Sentinel: see `sentinel:`",
    "tls-.*": "TLS is not supported yet in this release",
}
"""Directives that Shoal sets itself or that would break what it does, and why: a pattern of names each."""

_PLACES = frozenset({"hosts"})
_RULES: tuple[tuple[frozenset[str], Rule], ...] = (
    (frozenset(), _names),
    (_PLACES, _dangling_hosts),
    (frozenset({"shards"}), _pool_shards),
    (frozenset(), _pool_labels),
    (frozenset(), _proxy_ports),
    (_PLACES, _same_endpoint),
    (frozenset(), _quorum),
    (_PLACES, _reachable),
    (_PLACES | {"auth", "insecure", "vip"}, _exposed),
    (frozenset({"proxy", "hosts"}), _vip),
    (frozenset(), _directives),
)

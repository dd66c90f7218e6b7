"""What a reload would change: a sentence for each change, and what stands against it.

Rule: whatever differs between the service that runs and the one that the file says now is said, or refused by name; a
change that moves keys is refused unless it is allowed, and says how many it moves. Pure. Called by the daemon with two
services, before anything is touched.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from shoal.errors import ConfigError
from shoal.moves import RingSpec, compare, percent
from shoal.plane import PoolSpec
from shoal.serving import AtAddresses, Followed, ServedPool, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

_RING = frozenset({"shards", "hash", "distribution", "hash_tag"})
_SECRET = frozenset({"password", "backend_password"})
_WORDS = {
    "shards": "weights",
    "hash": "hash",
    "distribution": "distribution",
    "hash_tag": "hash tag",
    "listen": "listens on",
    "fixed": "ejection or preconnect",
    "twemproxy_words": "the words of AUTH",
    "password": "the clients' password",
    "backend_password": "the servers' password",
    "connections": "connections to a server",
    "hold_timeout_ms": "longest hold, ms",
    "hold_bytes": "bytes held at most",
    "timeout_ms": "timeout, ms",
    "client_connections": "clients at most",
    "max_inflight": "unanswered requests of a client at most",
    "allow": "commands allowed",
    "deny": "commands denied",
    "modules": "commands of modules",
    "backlog": "backlog",
    "share_port": "sharing of the port",
    "keepalive": "keepalive of clients",
    "socket_mode": "mode of the socket",
}
"""The settings of a pool that can change while it serves, in the words of the sentences."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs, what of it needs a restart, and what of it moves keys."""

    sentences: tuple[str, ...]
    restart: tuple[str, ...]
    remap: tuple[str, ...]

    def planned(self, *, allow_remap: bool) -> list[str]:
        """All of it, for somebody who only asks; what stands against it comes last."""
        against = [f"refused: {what} cannot change while the proxy runs" for what in self.restart]
        if not allow_remap:
            against += [f"refused without --allow-remap: {what}" for what in self.remap]
        return [*self.sentences, *(self.remap if allow_remap else ()), *against]

    def refuse_what_cannot_be(self, *, allow_remap: bool) -> None:
        """ConfigError for what stands against the reload."""
        against = [
            ConfigError(f"{what} cannot change while the proxy runs", hint="restart it, or take the change back")
            for what in self.restart
        ]
        if not allow_remap:
            hint = "if the data has been moved, or may be missing: `shoal reload --allow-remap`"
            against += [ConfigError(what, hint=hint) for what in self.remap]
        if against:
            raise ConfigError.together(against, "reload")


def changes(old: Service, new: Service) -> Changes:
    """What the reload from one service to the other comes to."""
    before = {pool.name: pool for pool in old.pools}
    after = {pool.name: pool for pool in new.pools}
    sentences = [f'pool "{name}" is new, on {after[name].listen}' for name in after if name not in before]
    restart = list(_process(old, new))
    remap = [
        f'pool "{name}" is gone: its clients are closed, and its keys are out of reach'
        for name in before
        if name not in after
    ]
    taken = {str(pool.listen): name for name, pool in before.items()}
    for name, pool in after.items():
        other = taken.get(str(pool.listen), name)
        if other != name:
            restart.append(f'the pool on {pool.listen}, which was "{other}" and is "{name}",')
        if name in before:
            sentences += _settings(before[name], pool)
            restart += _database(before[name], pool)
            remap += _remap(before[name], pool)
    return Changes(tuple(sentences), tuple(restart), tuple(remap))


def _process(old: Service, new: Service) -> Iterator[str]:
    for word, was, is_now in (
        ("the number of workers", old.workers or "default", new.workers or "default"),
        ("the admin port", old.admin or "none", new.admin or "none"),
        ("the port of the statistics", old.stats or "none", new.stats or "none"),
        ("the node's name", old.node, new.node),
    ):
        if was != is_now:
            yield f"{word} ({was} to {is_now})"


def _database(old: ServedPool, new: ServedPool) -> Iterator[str]:
    if old.spec.database != new.spec.database:
        yield f'the database of pool "{old.name}" ({old.spec.database} to {new.spec.database})'


def _settings(old: ServedPool, new: ServedPool) -> Iterator[str]:
    name = f'pool "{old.name}"'
    for setting in fields(PoolSpec):
        was, is_now = getattr(old.spec, setting.name), getattr(new.spec, setting.name)
        word = _WORDS.get(setting.name)
        if was == is_now or word is None:
            continue
        if setting.name == "shards":
            yield from _weights(name, old.spec, new.spec)
        elif setting.name in _SECRET:
            yield f"{name}: {word} is another one"
        elif setting.name == "fixed":
            yield f"{name}: {word} changes"
        elif isinstance(was, tuple):
            yield f"{name}: {word}: {', '.join(is_now) or 'none'}"
        else:
            yield f"{name}: {word} {was} is now {is_now}"
    yield from _sources(name, old, new)


def _weights(name: str, old: PoolSpec, new: PoolSpec) -> Iterator[str]:
    before = {shard.name: shard.weight for shard in old.shards}
    for shard in new.shards:
        was = before.get(shard.name, shard.weight)
        if was != shard.weight:
            yield f'{name}: shard "{shard.name}" has weight {shard.weight} instead of {was}'


def _sources(name: str, old: ServedPool, new: ServedPool) -> Iterator[str]:
    was, now = old.source, new.source
    if isinstance(was, Followed) and isinstance(now, Followed):
        if was.sentinels != now.sentinels:
            yield f"{name}: follows the sentinels {_listed(now)} instead of {_listed(was)}"
        if was.lease != now.lease:
            yield f"{name}: lease {was.lease} is now {now.lease}"
        if was.reads != now.reads:
            yield f"{name}: reads {_read_rule(was)} is now {_read_rule(now)}"
    elif isinstance(now, Followed):
        yield f"{name}: follows the sentinels {_listed(now)} from now on; nothing is ejected any more"
    elif isinstance(was, Followed):
        yield f"{name}: follows no sentinels any more"
    places, others = _places(old), _places(new)
    for shard, place in others.items():
        if places.get(shard, place) != place:
            yield f'{name}: shard "{shard}" was {places[shard]} and is {place} now'
    yield from (f'{name}: shard "{shard}" is new, {place}' for shard, place in others.items() if shard not in places)
    yield from (f'{name}: shard "{shard}" is gone' for shard in places if shard not in others)


def _read_rule(source: Followed) -> str:
    rule = source.reads
    return f"{'nearest' if rule.nearest else 'replica'} (max_lag {rule.max_lag_ms} ms)" if rule else "master"


def _listed(source: Followed) -> str:
    return ", ".join(map(str, source.sentinels))


def _places(pool: ServedPool) -> dict[str, str]:
    """What each shard is: the master that sentinels know, or an address."""
    if isinstance(pool.source, AtAddresses):
        return {label: f"at {address}" for label, address in pool.source.servers.items()}
    return {label: f'the master "{name}"' for label, name in (pool.source.masters or {}).items()}


def _remap(old: ServedPool, new: ServedPool) -> Iterator[str]:
    yield from _taken_over(old, new)
    if all(getattr(old.spec, name) == getattr(new.spec, name) for name in _RING):
        return
    found = compare(_ring(old.spec), _ring(new.spec))
    if found.nothing:
        return
    if found.keys is None:
        yield f'pool "{old.name}": its ring changes, and {found.why}'
        return
    share = percent(found.keys.moved, exact=found.keys.exact)
    yield f'pool "{old.name}": {share} of the keys would be looked for on another shard'


def _taken_over(old: ServedPool, new: ServedPool) -> Iterator[str]:
    """Shards whose keys lie where another shard's are looked for: a server that had another shard's place, or another
    master than the one that sentinels call by the same name."""
    places, others = _places(old), _places(new)
    shard_at = {place: shard for shard, place in places.items()}
    followed = isinstance(old.source, Followed) and isinstance(new.source, Followed)
    for shard, place in others.items():
        was = shard_at.get(place, shard)
        if was != shard:
            yield f'pool "{old.name}": shard "{shard}" would be {place}, which was shard "{was}"'
        elif followed and places.get(shard, place) != place:
            yield f'pool "{old.name}": shard "{shard}" would be {place} instead of {places[shard]}'


def _ring(spec: PoolSpec) -> RingSpec:
    return RingSpec(spec.hash, spec.distribution, spec.hash_tag, spec.shards)

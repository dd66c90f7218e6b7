"""How a cluster is: every part with its role and health, and a sentence for each thing that is not well.

Rule: pure, and nothing is well by default: a part that says nothing is a problem, and so is everything that would make
the next failover fail. Called by `status`, with what everybody said.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from shoal.ask import ProxySays, RedisSays, Silent
from shoal.events import EventKind
from shoal.rules import Word, agreed
from shoal.topology import majority

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from shoal.events import Event
    from shoal.sentinel import Report
    from shoal.state import UnitRecord
    from shoal.topology import Layout, ProxyNode, RedisNode, SentinelNode

MOST_LAG_SECONDS = 10


@dataclass(frozen=True)
class Findings:
    """What everybody said, or why they did not."""

    redis: Mapping[str, RedisSays | Silent]
    sentinels: Mapping[str, Mapping[str, Report] | Silent]
    proxies: Mapping[str, ProxySays | Silent]
    units: Mapping[str, UnitRecord] = field(default_factory=dict)
    pids: Mapping[str, int] = field(default_factory=dict)
    """Of the processes that run on this machine."""
    supervisor: int | None = None
    told: Mapping[str, Event] = field(default_factory=dict)
    """What the supervisor told last of a part that is down: how it died, or why it is held back."""


@dataclass(frozen=True)
class PartStatus:
    """One part. `health` is "ok" or one word for what is wrong; `problems` has the sentences."""

    name: str
    kind: str
    endpoint: str
    health: str
    role: str | None = None
    shard: str | None = None
    pid: int | None = None
    config_epoch: int | None = None
    lag_bytes: int | None = None
    lag_seconds: int | None = None
    detail: str = ""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShardStatus:
    """One shard: who is its master, say the sentinels."""

    name: str
    master: str | None
    config_epoch: int | None


@dataclass(frozen=True)
class Status:
    """The whole cluster at one moment."""

    cluster: str
    supervisor: int | None
    shards: tuple[ShardStatus, ...]
    parts: tuple[PartStatus, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def part(self, name: str) -> PartStatus:
        """The part of that name; KeyError if there is none."""
        for part in self.parts:
            if part.name == name:
                return part
        raise KeyError(name)

    def master(self, shard: str) -> str | None:
        """The name of the shard's master; None while no majority of sentinels names one."""
        return next(one.master for one in self.shards if one.name == shard)


def judge(layout: Layout, findings: Findings) -> Status:
    """What the findings come to."""
    words = _words(layout, findings)
    parts = [
        *(_redis(layout, node, findings, words.get(node.shard)) for node in layout.redis),
        *(_sentinel(layout, node, findings, words) for node in layout.sentinels),
        *(_proxy(node, findings, words) for node in layout.proxies),
    ]
    problems = [*_general(layout, findings, words)]
    if findings.supervisor is not None or findings.pids:
        problems += (f"{part.name} {problem}" for part in parts for problem in part.problems)
    return Status(
        cluster=layout.topology.cluster,
        supervisor=findings.supervisor,
        shards=tuple(_shard(layout, shard, words.get(shard)) for shard in layout.topology.shards),
        parts=tuple(parts),
        problems=tuple(problems),
    )


def _words(layout: Layout, findings: Findings) -> dict[str, Word]:
    """Each shard's master as a majority of the sentinels names it."""
    heard = [said for said in findings.sentinels.values() if not isinstance(said, Silent)]
    words = {}
    for shard in layout.topology.shards:
        said = (Word(one[shard].endpoint, one[shard].config_epoch) for one in heard if shard in one)
        word = agreed(said, majority(len(layout.sentinels)))
        if word is not None:
            words[shard] = word
    return words


def _shard(layout: Layout, shard: str, word: Word | None) -> ShardStatus:
    if word is None:
        return ShardStatus(shard, None, None)
    names = [node.name for node in layout.redis if node.endpoint == word.endpoint]
    return ShardStatus(shard, names[0] if names else str(word.endpoint), word.epoch)


def _general(layout: Layout, findings: Findings, words: Mapping[str, Word]) -> Iterator[str]:
    if findings.supervisor is None:
        left = len(findings.pids)
        if not left:
            yield "the cluster is not up: start it with `shoal up`"
            return
        yield f"nobody supervises this cluster, of which {left} processes run: `shoal up` adopts them"
    for shard in layout.topology.shards:
        if shard not in words:
            yield f'no majority of the sentinels names a master of shard "{shard}"'
    known = {node.endpoint for node in layout.redis}
    for shard, word in words.items():
        if word.endpoint not in known:
            yield f'the sentinels name {word.endpoint} as the master of shard "{shard}", which is not in the topology'


def _silent(part: PartStatus, silent: Silent, findings: Findings) -> PartStatus:
    """A part that does not answer: one word and one sentence."""
    if part.pid is not None:
        return replace(part, health="silent", problems=(f"runs (pid {part.pid}) but {silent}",))
    told = findings.told.get(part.name)
    if told is None:
        return replace(part, health="down", problems=("is down",))
    if told.kind is EventKind.HELD_BACK:
        return replace(part, health="held", problems=(f"is held back: {told.text}",))
    return replace(part, health="down", problems=(f"is down: it {told.text}",))


# --------------------------------------------------------------------------------------------------------------- redis


def _redis(layout: Layout, node: RedisNode, findings: Findings, word: Word | None) -> PartStatus:
    said, record = findings.redis[node.name], findings.units.get(node.name)
    part = PartStatus(
        name=node.name,
        kind="redis",
        endpoint=str(node.endpoint),
        health="ok",
        shard=node.shard,
        pid=findings.pids.get(node.name),
        config_epoch=record.epoch if record else None,
    )
    if isinstance(said, Silent):
        return _silent(part, said, findings)
    lag_bytes, lag_seconds = _lag(layout, node, said, findings)
    part = replace(part, role=said.role, lag_bytes=lag_bytes, lag_seconds=lag_seconds, detail=_count(said.keys, "key"))
    if said.loading:
        return replace(part, health="loading", problems=("is loading its data",))
    if word is None:
        return part
    if node.endpoint == word.endpoint:
        if said.role == "master":
            return part
        return replace(
            part, health="wrong role", problems=("is named master by the sentinels and says it is a replica",)
        )
    return _as_replica(part, said, word, guarded=bool(record and record.guarded))


def _as_replica(part: PartStatus, said: RedisSays, word: Word, *, guarded: bool) -> PartStatus:
    """One that is not the named master."""
    if said.role == "master":
        why = f"says it is a master too, beside {word.endpoint}: Sentinel makes it a replica within about 10 s"
        return replace(part, health="second master", problems=(why,))
    if said.master != word.endpoint:
        return replace(part, health="astray", problems=(f"follows {said.master}, not the master {word.endpoint}",))
    if not said.link_up:
        return replace(part, health="syncing", problems=("is not in sync with its master",))
    if part.lag_seconds is not None and part.lag_seconds > MOST_LAG_SECONDS:
        return replace(part, health="lagging", problems=(f"lags {part.lag_seconds} s behind its master",))
    if guarded:
        return replace(part, health="guarded", problems=("may not be promoted before it has caught up",))
    return part


def _lag(layout: Layout, node: RedisNode, said: RedisSays, findings: Findings) -> tuple[int | None, int | None]:
    """How far a replica is behind its master: bytes, and seconds since it last acknowledged."""
    if said.role != "replica":
        return None, None
    for other in layout.shard_nodes(node.shard):
        master = findings.redis[other.name]
        if other.endpoint != said.master or isinstance(master, Silent):
            continue
        for replica in master.replicas:
            if replica.endpoint == node.endpoint:
                return max(0, master.offset - replica.offset), max(0, replica.lag_seconds)
    return None, None


# ----------------------------------------------------------------------------------------------------------- sentinels


def _sentinel(layout: Layout, node: SentinelNode, findings: Findings, words: Mapping[str, Word]) -> PartStatus:
    said = findings.sentinels[node.name]
    part = PartStatus(node.name, "sentinel", str(node.endpoint), "ok", pid=findings.pids.get(node.name))
    if isinstance(said, Silent):
        return _silent(part, said, findings)
    epochs = [report.config_epoch for report in said.values()]
    problems = [problem for shard in layout.topology.shards for problem in _opinion(layout, shard, said, words)]
    return replace(
        part,
        config_epoch=max(epochs, default=None),
        health="ok" if not problems else "disagrees",
        detail=_count(len(said), "shard"),
        problems=tuple(dict.fromkeys(problems)),
    )


def _opinion(layout: Layout, shard: str, said: Mapping[str, Report], words: Mapping[str, Word]) -> Iterator[str]:
    """What in a sentinel's word about one shard is not as it should be."""
    report = said.get(shard)
    if report is None:
        yield f'does not watch shard "{shard}"'
        return
    word = words.get(shard)
    if word is not None and report.endpoint != word.endpoint:
        yield f'names {report.endpoint} as the master of shard "{shard}", the others {word.endpoint}'
    elif report.failing_over:
        yield f'is failing shard "{shard}" over'
    elif report.flags & {"s_down", "o_down"}:
        yield f'holds the master of shard "{shard}" to be down'
    others = len(layout.sentinels) - 1
    if report.other_sentinels < others:
        yield f'knows {report.other_sentinels} of {others} other sentinels of shard "{shard}"'
    elif report.other_sentinels > others:
        yield f'counts {report.other_sentinels + 1} sentinels of shard "{shard}", the topology {others + 1}'
    if report.quorum != layout.topology.sentinel.quorum:
        yield f'has quorum {report.quorum} for shard "{shard}", the topology {layout.topology.sentinel.quorum}'


# ------------------------------------------------------------------------------------------------------------- proxies


def _proxy(node: ProxyNode, findings: Findings, words: Mapping[str, Word]) -> PartStatus:
    said = findings.proxies[node.name]
    listens = " ".join(str(node.reach(pool)) for pool in node.listens)
    part = PartStatus(node.name, "proxy", listens, "ok", pid=findings.pids.get(node.name))
    if isinstance(said, Silent):
        return _silent(part, said, findings)
    epochs = [epoch for _, route in said.routes() if (epoch := route.get("config_epoch")) is not None]
    detail = _count(said.clients(), "client")
    replicas, read = said.readers()
    if replicas:
        detail += f", reads at {read} of {_count(replicas, 'replica')}"
    part = replace(part, config_epoch=max(epochs, default=None), detail=detail)
    if not said.healthy:
        return replace(part, health="unhealthy", problems=tuple(f"is unhealthy: {why}" for why in said.why_not))
    if not said.ready:
        return replace(part, health="holding", problems=tuple(f"holds requests: {why}" for why in said.why_not))
    stale = [
        f'sends shard "{shard}" to {route.get("endpoint")}, not to {word.endpoint}'
        for shard, route in said.routes()
        if (word := words.get(shard)) is not None and route.get("endpoint") != str(word.endpoint)
    ]
    return replace(part, health="stale", problems=tuple(stale)) if stale else part


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"

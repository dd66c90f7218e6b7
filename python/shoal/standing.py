"""How a shard stands before a switchover: what servers, sentinels and proxies say of it, and what follows.

    Standing ──► limitations: every reason why not, with what to do about it
             └─► plan: the new master, who else Sentinel might promote, which sentinel is asked, how long writes pause

Rule: pure, and nothing is well by default: whoever says nothing is a reason. All of it is known before anything is
touched. Called by `switchover`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.ask import ProxySays, RedisSays, Silent
from shoal.errors import SwitchoverError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from shoal.sentinel import Report
    from shoal.topology import Endpoint, ProxyNode, RedisNode, SentinelNode

LEAST_DOWN_AFTER_MS = 500
PAUSE_SHARE = 0.8
"""Of down_after: a master whose writes pause cannot take a sentinel's PUBLISH, and passes for dead after that."""
LEAST_HOLD_MS = 1000
"""A switchover takes a third of it; what it needs when the sentinels are slow should not be an error either."""
LEAST_HOLD_COORDINATED_MS = 2500
MOST_LAG_BYTES = 8 << 20
MOST_LAG_SECONDS = 2
COORDINATED_SINCE = 9
RAISED = 100
"""What is added to the replica-priority of those that are not to be promoted: the lowest number goes first."""


@dataclass(frozen=True, slots=True)
class ReplicaKnown:
    """A replica as one sentinel knows it."""

    up: bool
    priority: int


@dataclass(frozen=True, slots=True)
class SentinelSays:
    """What one sentinel says of the shard."""

    report: Report
    replicas: Mapping[Endpoint, ReplicaKnown]
    quorum: str | None
    """Why it could not get a failover authorised; None if it could."""
    coordinates: bool
    """It has SENTINEL FAILOVER ... COORDINATED."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What everybody said of one shard, or why they did not."""

    shard: str
    servers: Mapping[RedisNode, RedisSays | Silent]
    sentinels: Mapping[SentinelNode, SentinelSays | Silent]
    proxies: Sequence[tuple[ProxyNode, ProxySays | Silent]]
    hold_ms: Mapping[str, int]
    """How long each pool over this shard holds requests."""

    def heard(self) -> dict[SentinelNode, SentinelSays]:
        return {node: said for node, said in self.sentinels.items() if isinstance(said, SentinelSays)}

    @property
    def master(self) -> RedisNode | None:
        """The node that all sentinels heard name as the master."""
        named = {said.report.endpoint for said in self.heard().values()}
        nodes = [node for node in self.servers if node.endpoint in named]
        return nodes[0] if len(named) == 1 and nodes else None

    def says(self, node: RedisNode) -> RedisSays | None:
        said = self.servers[node]
        return None if isinstance(said, Silent) else said

    def lag(self, node: RedisNode) -> int:
        """How many bytes a replica was behind its master, both asked at about the same time."""
        master, mine = self.master, self.says(node)
        theirs = None if master is None else self.says(master)
        return max(0, theirs.offset - mine.offset) if theirs and mine else 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a switchover is to do."""

    shard: str
    old: RedisNode
    new: RedisNode
    others: tuple[RedisNode, ...]
    """The shard's other replicas that answer."""
    rivals: tuple[RedisNode, ...]
    """Of these, who is in sync and may be promoted: whomever Sentinel takes, nothing must be missing there."""
    priorities: Mapping[RedisNode, tuple[int, int]]
    """Who must be passed over, and therefore gets another replica-priority for the time: from, to."""
    sentinels: tuple[SentinelNode, ...]
    """The first one is asked to fail over."""
    proxies: tuple[ProxyNode, ...]
    coordinated: bool
    pause_ms: int

    def steps(self) -> Iterator[str]:
        """What is done, a sentence each."""
        for node, (before, during) in self.priorities.items():
            yield f"have Sentinel pass over {node.name}: replica-priority {before} is {during} until the end"
        names = ", ".join(proxy.name for proxy in self.proxies)
        yield f'hold the writes of shard "{self.shard}" at {names}, and wait until none is unanswered'
        leader = self.sentinels[0].name
        if self.coordinated:
            yield f"{leader}: SENTINEL FAILOVER {self.shard} COORDINATED, by which the two change places"
            yield f"wait until {self.new.name} is the master, {self.old.name} its replica, and the sentinels name it"
            yield "release the writes"
            yield "wait until the replicas follow it and the proxies are settled"
        else:
            yield f"pause writes at {self.old.name} for {self.pause_ms} ms at most (clients that use no proxy)"
            yield f"wait until {self.new.name} has everything that {self.old.name} has"
            yield f"{leader}: SENTINEL FAILOVER {self.shard}"
            yield f"wait until {self.new.name} is the master"
            yield f"make {self.old.name} its replica"
            yield f"release the writes, to {self.new.name}"
            yield f"wait until the sentinels name {self.new.name}, its replicas follow it and the proxies are settled"


def choose(standing: Standing, to: RedisNode | None) -> RedisNode | None:
    """The replica to promote: the one asked for, or of those that can be the one that Sentinel would take."""
    if to is not None:
        return to
    able = [node for node in standing.servers if node != standing.master and not list(_of_target(standing, node))]
    return min(able, key=lambda node: _rank(standing, node), default=None)


def _rank(standing: Standing, node: RedisNode) -> tuple[int, int, str]:
    said = standing.says(node)
    return (said.priority, -said.offset, node.name) if said else (0, 0, node.name)


def plan(standing: Standing, to: RedisNode | None, *, coordinated: bool = False) -> Plan:
    """What to do; for a standing without limitations."""
    master, new = standing.master, choose(standing, to)
    if master is None or new is None:
        raise SwitchoverError(f'shard "{standing.shard}" cannot be switched over as it stands')
    others = {node: said for node in standing.servers if node not in (master, new) and (said := standing.says(node))}
    mine = standing.says(new)
    best = mine.priority if mine else 0
    heard = standing.heard()
    down_after = min(said.report.down_after_ms for said in heard.values())
    return Plan(
        shard=standing.shard,
        old=master,
        new=new,
        others=tuple(others),
        rivals=tuple(node for node, said in others.items() if said.link_up and said.priority > 0),
        priorities={node: (said.priority, best + RAISED) for node, said in others.items() if 0 < said.priority <= best},
        sentinels=tuple(heard),
        proxies=tuple(proxy for proxy, _ in standing.proxies),
        coordinated=coordinated,
        pause_ms=int(PAUSE_SHARE * down_after),
    )


# --------------------------------------------------------------------------------------------------------- limitations


def limitations(standing: Standing, to: RedisNode | None, *, coordinated: bool = False) -> list[SwitchoverError]:
    """Every reason why the shard cannot be switched over now, with what to do; empty if it can."""
    least_hold_ms = LEAST_HOLD_COORDINATED_MS if coordinated else LEAST_HOLD_MS
    manner = _of_coordination(standing) if coordinated else _of_pauses(standing)
    return [
        *_of_sentinels(standing),
        *manner,
        *_of_servers(standing, to),
        *_of_pools(standing, least_hold_ms),
        *_of_proxies(standing),
    ]


def _of_sentinels(standing: Standing) -> Iterator[SwitchoverError]:
    for node, said in standing.sentinels.items():
        if isinstance(said, Silent):
            yield SwitchoverError(f"{node.name} {said}", where=str(node.endpoint), hint="all sentinels must take part")
    heard = standing.heard()
    named = {str(said.report.endpoint): node.name for node, said in heard.items()}
    if len(named) > 1:
        words = ", ".join(f"{name} names {endpoint}" for endpoint, name in named.items())
        yield SwitchoverError(f"the sentinels do not agree: {words}", hint="wait until they do; `shoal status` tells")
    for node, said in heard.items():
        yield from _of_sentinel(node, said, len(standing.sentinels))


def _of_sentinel(node: SentinelNode, said: SentinelSays, sentinels: int) -> Iterator[SwitchoverError]:
    where, report = str(node.endpoint), said.report
    if report.failing_over:
        what = f"{node.name} has a failover of it in progress ({report.failover_state})"
        yield SwitchoverError(what, where=where, hint="wait for its end, failover_timeout at most")
    elif report.flags & {"s_down", "o_down"}:
        what = f"{node.name} holds the master to be down"
        yield SwitchoverError(what, where=where, hint="a failover is what it needs, and about to come")
    if said.quorum is not None:
        yield SwitchoverError(f"{node.name}: {said.quorum}", where=where, hint="start the sentinels that are missing")
    if report.other_sentinels + 1 != sentinels:
        what = f"{node.name} counts {report.other_sentinels + 1} sentinels, the topology has {sentinels}"
        yield SwitchoverError(what, where=where, hint="they must be the same: see `shoal status`")


def _of_pauses(standing: Standing) -> Iterator[SwitchoverError]:
    for node, said in standing.heard().items():
        if said.report.down_after_ms < LEAST_DOWN_AFTER_MS:
            what = f"{node.name} has a down_after of {said.report.down_after_ms} ms: writes cannot pause for long"
            yield SwitchoverError(what, where=str(node.endpoint), hint=f"set it to {LEAST_DOWN_AFTER_MS} ms or more")


def _of_coordination(standing: Standing) -> Iterator[SwitchoverError]:
    for node, said in standing.heard().items():
        if not said.coordinates:
            what = f"{node.name} has no SENTINEL FAILOVER ... COORDINATED"
            yield SwitchoverError(what, where=str(node.endpoint), hint="Valkey 9 has it; leave --coordinated out")


def _of_servers(standing: Standing, to: RedisNode | None) -> Iterator[SwitchoverError]:
    master = standing.master
    if master is None:
        if len({said.report.endpoint for said in standing.heard().values()}) == 1:
            what = f'the master of shard "{standing.shard}" that the sentinels name is not in the topology'
            yield SwitchoverError(what, hint="write it into the file")
        return
    said = standing.servers[master]
    if isinstance(said, Silent):
        what = f"the master {master.name} {said}"
        yield SwitchoverError(what, where=str(master.endpoint), hint="this is for Sentinel's own failover")
    elif said.role != "master":
        what = f"the sentinels name {master.name}, which says it is a replica of {said.master}"
        yield SwitchoverError(what, where=str(master.endpoint), hint="wait until they agree; `shoal status` tells")
    if to == master:
        yield SwitchoverError(f"{master.name} is the master already", hint="name one of its replicas with --to")
    elif to is not None:
        yield from _of_target(standing, to)
    elif choose(standing, None) is None:
        yield from _nobody(standing, master)
    yield from _of_rivals(standing, to)


def _nobody(standing: Standing, master: RedisNode) -> Iterator[SwitchoverError]:
    replicas = [node for node in standing.servers if node != master]
    for node in replicas:
        yield from _of_target(standing, node)
    if not replicas:
        yield SwitchoverError(f'shard "{standing.shard}" has no replica', hint="give it one in the topology")


def _of_target(standing: Standing, node: RedisNode) -> Iterator[SwitchoverError]:
    """Why this replica cannot become the master."""
    said = standing.servers[node]
    why = str(said) if isinstance(said, Silent) else _unfit(standing, node, said)
    if why is not None:
        hint = "it must be in sync with the master: see `shoal status`"
        yield SwitchoverError(f"{node.name} cannot be promoted: it {why}", where=str(node.endpoint), hint=hint)


def _unfit(standing: Standing, node: RedisNode, said: RedisSays) -> str | None:
    master = standing.master
    if said.role != "replica" or master is None or said.master != master.endpoint:
        return f"is no replica of {master.name if master else 'the master'}"
    if said.loading or not said.link_up:
        return "is not in sync with the master"
    if said.priority == 0:
        return "has replica-priority 0, which forbids it"
    return _lagging(standing, node, master) or _unknown(standing, node)


def _lagging(standing: Standing, node: RedisNode, master: RedisNode) -> str | None:
    theirs = standing.says(master)
    seen = next((one for one in theirs.replicas if one.endpoint == node.endpoint), None) if theirs else None
    if seen is not None and seen.lag_seconds > MOST_LAG_SECONDS:
        return f"has confirmed nothing for {seen.lag_seconds} s"
    return f"lags {standing.lag(node)} bytes behind" if standing.lag(node) > MOST_LAG_BYTES else None


def _unknown(standing: Standing, node: RedisNode) -> str | None:
    for sentinel, words in standing.heard().items():
        known = words.replicas.get(node.endpoint)
        if known is None or not known.up:
            return f"is {'not known to' if known is None else 'held to be down by'} {sentinel.name}"
    return None


def _of_rivals(standing: Standing, to: RedisNode | None) -> Iterator[SwitchoverError]:
    """Those that Sentinel might promote in place of the target, and that cannot be told to be passed over."""
    new = choose(standing, to)
    for node, said in standing.servers.items():
        known = [words.replicas.get(node.endpoint) for words in standing.heard().values()]
        if node not in (standing.master, new) and isinstance(said, Silent) and any(one and one.up for one in known):
            what = f"{node.name} {said}, and the sentinels might promote it"
            yield SwitchoverError(what, where=str(node.endpoint), hint="see why it cannot be asked from here")


def _of_pools(standing: Standing, least_ms: int) -> Iterator[SwitchoverError]:
    for pool, hold_ms in standing.hold_ms.items():
        if hold_ms < least_ms:
            what = f'pool "{pool}" holds requests for {hold_ms} ms only: clients might see errors'
            yield SwitchoverError(what, hint=f"set its hold.timeout to {least_ms} ms or more, and reload")


def _of_proxies(standing: Standing) -> Iterator[SwitchoverError]:
    for proxy, said in standing.proxies:
        why = str(said) if isinstance(said, Silent) else _unready(standing, proxy, said)
        if why is not None:
            hint = "every proxy must hold the shard's writes: start it, or take it out of the topology"
            yield SwitchoverError(f"{proxy.name} {why}", where=str(proxy.admin), hint=hint)


def _unready(standing: Standing, proxy: ProxyNode, said: ProxySays) -> str | None:
    if said.topology.get("node") != proxy.name:
        return f"is not what answers there: that is {said.topology.get('node')}"
    if "holds" not in said.topology:
        return "is of a version that cannot hold"
    holds: Sequence[Mapping[str, object]] = said.topology["holds"]
    for hold in holds:
        if hold["master"] == standing.shard:
            return f"holds the shard already, for {hold['owner']}"
    master = standing.master
    for name, route in said.routes():
        if name == standing.shard and master is not None and route.get("endpoint") != str(master.endpoint):
            return f"sends the shard to {route.get('endpoint')}"
        if name == standing.shard and not route.get("writable"):
            return f"does not write to the shard now: {route.get('hold_reason')}"
    return None

"""Who may start a redis server, and as what: the supervisor's decisions, pure, from what it observed.

The rule it keeps: **a server that may be behind never becomes a master that its up-to-date peers copy.** Therefore

- the topology's `master` counts only while a shard has never had data; later the word of the sentinels does,
- at a cold start that word is the one with the highest config epoch in their saved sentinel.conf,
- a server that was master when it died waits until a majority of sentinels names another, and follows that one; or it
  becomes master again after 2 x failover_timeout in which no replica could be promoted, if it still has its data,
- a master whose data is gone while a replica has some is not started: Sentinel promotes the replica,
- a replica whose data may be older than a peer's starts guarded (replica-priority 0), so that Sentinel cannot promote
  it before it has been in sync.

             ┌ named: another ─────────────────► Start(replica of it, guarded unless current)
    node ────┤                  ┌ cold start ──► Start(master) | Hold(its data is gone)
    is down  └ named: itself ───┤
                                └ it died ─────► Hold(until another is named) ──2 x failover_timeout──► Start(master)

A cold start is the whole shard's: no server of it runs, and this one has not run under our eyes.

No clock, socket or file here. Called by the supervisor, for each redis that is down, until it starts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.topology import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Word:
    """What a sentinel says of a shard: where its master is, since which config epoch."""

    endpoint: Endpoint
    epoch: int


@dataclass(frozen=True, slots=True)
class Member:
    """One redis node of a shard, as observed."""

    name: str
    endpoint: Endpoint
    first_master: bool
    """The topology's master, for the very first start."""
    has_data: bool
    """Data files on disk, or keys in a server that runs."""
    epoch: int | None = None
    """The config epoch in which it was last the master or in sync with it; None: unknown, or older than its data."""
    was_master: bool = False
    """Its role when it was last seen."""
    running: bool = False
    """It answers."""
    promotable: bool = False
    """Runs as a replica that Sentinel would promote, or has promoted without a majority having said so yet."""


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """What is known about a shard at one moment."""

    members: tuple[Member, ...]
    word: Word | None
    """Of a live majority of sentinels, else the highest one ever heard or saved; None if there never was one."""
    live: bool = False
    """A majority of sentinels runs and says so now."""
    certain: bool = True
    """At a cold start: every sentinel's saved word was read, or at least a majority's."""
    failing_over: bool = False
    """Some sentinel is at it right now."""
    failover_timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class Start:
    """Start it: as a replica of that endpoint, or as the master (None)."""

    replica_of: Endpoint | None
    guarded: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """Leave it down for now, and why."""

    why: str


Decision = Start | Hold


def may_start(node: Member, shard: ShardFacts, down_for: float, *, cold: bool) -> Decision:
    """Decide about one node that is down: for `down_for` seconds; `cold` if it has not run under our eyes yet."""
    if cold and _never_had_data(shard):
        return _first_start(node, shard)
    master = _master(shard)
    if master is None:
        return Hold("no majority of the sentinels tells yet which node is the master")
    if node.endpoint != master:
        return _follow(node, shard, master)
    if cold and not shard.failing_over and not any(member.running for member in shard.members):
        return _cold_master(node, shard)
    return _fallen_master(node, shard, down_for)


def _never_had_data(shard: ShardFacts) -> bool:
    return not any(member.has_data for member in shard.members) and (shard.word is None or shard.word.epoch == 0)


def _first_start(node: Member, shard: ShardFacts) -> Decision:
    first = next(member for member in shard.members if member.first_master)
    return Start(None if node is first else first.endpoint)


def _master(shard: ShardFacts) -> Endpoint | None:
    """Who is (or is to be) the master: the sentinels' word; if all their state is lost, what we saw last."""
    if shard.word is not None:
        return shard.word.endpoint if shard.certain or shard.live else None
    if not shard.certain:
        return None
    with_data = [member for member in shard.members if member.has_data]
    if len(with_data) == 1:
        return with_data[0].endpoint
    newest = max((_epoch(member) for member in with_data), default=-1)
    masters = [member for member in with_data if member.was_master and _epoch(member) == newest]
    return masters[0].endpoint if len(masters) == 1 and newest >= 0 else None


def _follow(node: Member, shard: ShardFacts, master: Endpoint) -> Decision:
    named_since_it_ran = shard.word is not None and shard.word.epoch > _epoch(node)
    if shard.failing_over and not named_since_it_ran:
        return Hold("a failover is under way: it may be the one that was just promoted")
    return Start(master, guarded=not _is_current(node, shard))


def _cold_master(node: Member, shard: ShardFacts) -> Decision:
    lost_to = _lost_its_data(node, shard)
    return Hold(lost_to) if lost_to else Start(None)


def _fallen_master(node: Member, shard: ShardFacts, down_for: float) -> Decision:
    """It is down, and a majority still names it (or did so last)."""
    others = [member for member in shard.members if member is not node]
    if not others:
        return Start(None)  # nobody could be promoted, and nobody can copy it
    candidates = [member.name for member in others if member.promotable]
    if candidates:
        return Hold(f"Sentinel is to promote {' or '.join(candidates)}")
    lost_to = _lost_its_data(node, shard)
    if lost_to:
        return Hold(lost_to)
    patience = 2 * shard.failover_timeout - down_for
    if patience > 0:
        return Hold(f"no replica can be promoted; master again after {2 * shard.failover_timeout:g} s without one")
    return Start(None)


def _lost_its_data(node: Member, shard: ShardFacts) -> str | None:
    """Why this node must not be copied by the others, if so."""
    keepers = [member.name for member in shard.members if member.has_data and member is not node]
    if node.has_data or not keepers:
        return None
    return f"its data is gone while {' and '.join(keepers)} has some: Sentinel is to promote that"


def _is_current(node: Member, shard: ShardFacts) -> bool:
    """Whether no peer's data can be newer than this node's. The master that is named counts as up to date."""
    with_data = [member for member in shard.members if member.has_data]
    if not with_data:
        return True
    word = shard.word
    newest = max(
        max(_epoch(member), word.epoch) if word is not None and member.endpoint == word.endpoint else _epoch(member)
        for member in with_data
    )
    return node.has_data and _epoch(node) == newest


def _epoch(member: Member) -> int:
    return -1 if member.epoch is None or not member.has_data else member.epoch


# ------------------------------------------------------------------------------------------------ the sentinels' word


def saved_words(sentinel_conf: str) -> dict[str, Word]:
    """Each shard's master as a saved sentinel.conf has it."""
    at: dict[str, Endpoint] = {}
    epochs: dict[str, int] = {}
    for line in sentinel_conf.splitlines():
        match line.split():
            case ["sentinel", "monitor", shard, host, port, _quorum] if port.isdigit():
                at[shard.strip('"')] = Endpoint(host.strip('"'), int(port))
            case ["sentinel", "config-epoch", shard, epoch] if epoch.isdigit():
                epochs[shard.strip('"')] = int(epoch)
    return {shard: Word(endpoint, epochs.get(shard, 0)) for shard, endpoint in at.items()}


def highest(words: Iterable[Word]) -> Word | None:
    """The word of the highest config epoch; sentinels that differ at one epoch are outvoted."""
    counted = Counter(words)
    return max(counted, key=lambda word: (word.epoch, counted[word]), default=None)


def agreed(words: Iterable[Word], needed: int) -> Word | None:
    """The endpoint that at least `needed` sentinels name, at the highest epoch any of those gives it."""
    heard = list(words)
    counted = Counter(word.endpoint for word in heard)
    for endpoint, votes in counted.most_common(1):
        if votes >= needed:
            return highest(word for word in heard if word.endpoint == endpoint)
    return None

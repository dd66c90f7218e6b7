"""What the supervisor knows: it looks at every redis and sentinel all the time and draws up each shard's facts.

Rule: an answer counts while it is fresh; the master is who a majority of the sentinels names now, or the last one that
was (`live` tells which). How current a redis node's data is, is noted as the config epoch in which it was last the
master or in sync with it, and outlives a restart.

    follow(part) ─► part.says / part.words ─► take_words ─► facts(shard) ─► rules.may_start
                                         └──► note_currency ─► units.json

Reads only. Called by the supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from shoal.ask import Line, Silent
from shoal.rules import Member, ShardFacts, Word, agreed, highest, saved_words
from shoal.topology import RedisNode, SentinelNode, majority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from shoal.parts import Launcher, Part
    from shoal.topology import Endpoint, Layout

CALM_INTERVAL = 0.25
BUSY_INTERVAL = 0.05
LOST_LINK = 10  # x down_after: a replica without its master for longer is too old to be promoted (Sentinel's measure)


class Lookout:
    """Looks at the parts of one cluster."""

    def __init__(self, layout: Layout, parts: Mapping[str, Part], launcher: Launcher) -> None:
        self.layout = layout
        self.parts = parts
        self.launcher = launcher
        self.words: dict[str, Word] = {}
        self.live: frozenset[str] = frozenset()
        self.presumed: dict[str, Endpoint] = {}
        """Masters that we start while no sentinel has named one yet."""
        self._saved: list[dict[str, Word]] = []
        self._closed = False
        secret = layout.topology.auth.password
        for part in parts.values():
            if isinstance(part.node, RedisNode | SentinelNode):
                part.line = Line(part.node.endpoint, secret.get_secret_value() if secret else None)

    # -------------------------------------------------------------------------------------------------------- looking

    async def look_once(self) -> None:
        """Ask everybody who may be running, within a second."""
        await asyncio.gather(*(self._look(part) for part in self.parts.values() if part.up or not part.here))
        self._read_saved()
        self.take_words()

    async def follow(self, part: Part, heard: Callable[[], None]) -> None:
        """Ask one part again and again while it runs. A cancellation that a client library swallows ends it too."""
        while not self._closed:
            if part.up or not part.here:
                await self._look(part)
                heard()
            await asyncio.sleep(BUSY_INTERVAL if part.here and _unsettled(part) else CALM_INTERVAL)

    async def close(self) -> None:
        """End all following; whoever follows is cancelled after this."""
        self._closed = True
        await asyncio.gather(*(part.line.close() for part in self.parts.values() if part.line))

    async def _look(self, part: Part) -> None:
        if part.line is None:
            return
        try:
            if isinstance(part.node, SentinelNode):
                part.heard_words(await part.line.masters())
            else:
                part.heard(await part.line.info())
        except Silent as silence:
            part.forget(str(silence))

    def _read_saved(self) -> None:
        for node in self.layout.sentinels:
            if self.parts[node.name].here:
                with contextlib.suppress(OSError):
                    self._saved.append(saved_words(self.launcher.sentinel_conf(node).read_text()))

    # ---------------------------------------------------------------------------------------------------------- words

    def take_words(self) -> None:
        """Draw up who is master of each shard."""
        live = set()
        for shard in self.layout.topology.shards:
            heard = list(self._live_words(shard))
            word = agreed(heard, majority(len(self.layout.sentinels)))
            if word is not None:
                live.add(shard)
                self.words[shard] = word
            elif shard not in self.words:
                known = highest([*heard, *(words[shard] for words in self._saved if shard in words)])
                if known is not None:
                    self.words[shard] = known
        self.live = frozenset(live)

    def masters(self) -> dict[str, Endpoint]:
        """Each shard's master for a sentinel that starts without a past."""
        first = {node.shard: node.endpoint for node in self.layout.redis if node.bootstrap_master}
        return first | self.presumed | {shard: word.endpoint for shard, word in self.words.items()}

    def _live_words(self, shard: str) -> Iterator[Word]:
        for node in self.layout.sentinels:
            part = self.parts[node.name]
            if part.words is not None and part.fresh() and (report := part.words.get(shard)) is not None:
                yield Word(report.endpoint, report.config_epoch)

    def _failing_over(self, shard: str) -> bool:
        reports = (self.parts[node.name] for node in self.layout.sentinels)
        return any(
            part.fresh() and part.words is not None and shard in part.words and part.words[shard].failing_over
            for part in reports
        )

    def _certain(self) -> bool:
        """Whether enough sentinels' words are known that no later master can be missed."""
        sentinels = [self.parts[node.name] for node in self.layout.sentinels]
        if all(part.here for part in sentinels):
            return True
        elsewhere = sum(part.fresh() for part in sentinels if not part.here)
        return len(self._saved) + elsewhere >= majority(len(sentinels))

    # ---------------------------------------------------------------------------------------------------------- facts

    def facts(self, shard: str) -> ShardFacts:
        return ShardFacts(
            members=tuple(self._member(node) for node in self.layout.shard_nodes(shard)),
            word=self.words.get(shard),
            live=shard in self.live,
            certain=self._certain(),
            failing_over=self._failing_over(shard),
            failover_timeout=self.layout.topology.sentinel.failover_timeout / 1000,
        )

    def _member(self, node: RedisNode) -> Member:
        part = self.parts[node.name]
        says = part.saying() if part.up or not part.here else None
        return Member(
            name=node.name,
            endpoint=node.endpoint,
            first_master=node.bootstrap_master,
            has_data=(part.here and self.launcher.has_data(node)) or (says is not None and says.keys > 0),
            epoch=part.record.epoch,
            was_master=part.record.role == "master",
            running=says is not None,
            promotable=self._promotable(node, part),
        )

    def _promotable(self, node: RedisNode, part: Part) -> bool:
        """Whether Sentinel would promote it, by Sentinel's own measure, or has just done so."""
        says = part.saying() if part.up or not part.here else None
        if says is None or says.loading:
            return False
        if says.role == "master":
            return True
        if says.priority == 0:
            return False
        return says.link_up or says.link_down_seconds <= self._longest_link_down(node.shard)

    def _longest_link_down(self, shard: str) -> float:
        """How long a replica may have been without its master: longer if that has been down itself."""
        allowed = LOST_LINK * self.layout.topology.sentinel.down_after / 1000
        word = self.words.get(shard)
        for node in self.layout.shard_nodes(shard):
            died_at = self.parts[node.name].died_at
            if word is not None and node.endpoint == word.endpoint and died_at is not None:
                allowed += time.monotonic() - died_at
        return allowed

    def note_currency(self) -> bool:
        """Note each redis node's role and how current its data is; say whether anything changed."""
        changed = False
        for node in self.layout.redis:
            part = self.parts[node.name]
            if part.here and part.up:
                changed = self._note(node, part) or changed
        return changed

    def _note(self, node: RedisNode, part: Part) -> bool:
        says = part.saying()
        if says is None or says.loading:
            return False
        changed = part.remember(role=says.role)
        word = self.words.get(node.shard)
        if word is None or node.shard not in self.live:
            return changed
        if says.role == "master":
            in_sync = word.endpoint == node.endpoint
        else:
            in_sync = says.link_up and says.master == word.endpoint
        if in_sync:
            return part.remember(epoch=word.epoch) or changed
        if says.role == "replica" and says.link_down_seconds > self._longest_link_down(node.shard):
            return part.remember(epoch=None) or changed
        return changed


def _unsettled(part: Part) -> bool:
    """Whether its next answer is awaited: it is down, starts, loads or synchronises."""
    says = part.saying()
    if isinstance(part.node, SentinelNode):
        return not part.fresh()
    return says is None or says.loading or (says.role == "replica" and not says.link_up)

"""`shoal up`: starts the parts of a cluster on this machine in order, restarts what dies, and stops all of it in order.

Rules:
- Whether and as what a redis may start is for `rules.may_start` alone; everything else restarts at once, with back-off.
- What is refused is refused before anything runs (`opening`); if a start fails, what this run started is stopped.
- Sentinels are stopped before masters, so that our own stop is never taken for a failure.
- Processes outlive a supervisor that is killed; the next one adopts them.

    open ─► masters ─► replicas ─► sentinels ─► proxies ─► ready ─┬─► look (each redis and sentinel, all the time)
                                                                  ├─► a process ends: died
    proxies ◄─ sentinels ◄─ masters ◄─ replicas: stop ◄───────────┴─► each tick: decide for what is down

Called by `shoal up` and `shoal down`. Everything that happens is told as an event.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from shoal.ask import Silent
from shoal.errors import ShoalError
from shoal.events import EventKind, EventLog, event
from shoal.hosts import LocalHost
from shoal.lookout import Lookout
from shoal.parts import PRIORITY
from shoal.rules import Hold, Start, may_start
from shoal.topology import ProxyNode, RedisNode, SentinelNode
from shoal.topology.advice import SAFE_DOWN_AFTER_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from shoal import state
    from shoal.events import Event
    from shoal.hosts import Unit
    from shoal.parts import Launcher, Part
    from shoal.process import Process
    from shoal.topology import Endpoint, Layout

TICK = 0.1
STOP_PATIENCE = {"proxy": 3.0, "sentinel": 1.0, "redis": 60.0}  # a redis saves its data


class Supervisor:
    """The parts of one cluster on this machine, while the state directory is locked."""

    def __init__(
        self,
        kept: state.State,
        layout: Layout,
        parts: dict[str, Part],
        launcher: Launcher,
        tell: Callable[[Event], None],
    ) -> None:
        self.layout = layout
        self.parts = parts
        self.launcher = launcher
        self.lookout = Lookout(layout, parts, launcher)
        self._kept = kept
        self._host = LocalHost(kept.directory)
        self._events = EventLog(kept.directory)
        self._tell_user = tell
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._since = time.monotonic()
        self._told_masters: dict[str, Endpoint] = {}

    def tell(self, kind: EventKind, text: str, part: str | None = None) -> None:
        told = event(kind, text, part)
        self._events.append(told)
        self._tell_user(told)

    def here(self, kind: type) -> list[Part]:
        """This machine's parts of a kind of node, in the order of the layout."""
        return [part for part in self.parts.values() if part.here and isinstance(part.node, kind)]

    # ------------------------------------------------------------------------------------------------------ watching

    async def look(self) -> None:
        """Look once at everybody, and from then on all the time. Parts that run already are adopted."""
        await self.lookout.look_once()
        for part in self.parts.values():
            if part.line is not None:
                self._spawn(self.lookout.follow(part, self._wake.set))
            if part.here and part.process is not None:
                part.has_run = True
                self._spawn(self._follow_exit(part, part.process))
                self.tell(EventKind.ADOPTED, f"runs since before this supervisor (pid {part.process.pid})", part.name)

    async def supervise(self, stopped: asyncio.Task[bool]) -> None:
        """Restart what dies, until `stopped`."""
        while not stopped.done():
            await self.tick()
            self._wake.clear()
            waker = asyncio.create_task(self._wake.wait())
            await asyncio.wait({waker, stopped}, timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
            waker.cancel()

    async def tick(self) -> None:
        """Take in what was seen and act on it."""
        self.lookout.take_words()
        for shard in sorted(self.lookout.live):
            word = self.lookout.words[shard]
            if self._told_masters.get(shard) != word.endpoint:
                self._told_masters[shard] = word.endpoint
                self.tell(EventKind.MASTER, f"{self._name_at(word.endpoint)} (config epoch {word.epoch})", shard)
        changed = self.lookout.note_currency()
        for part in self.here(RedisNode):
            changed = await self._unguard(part) or changed
        for part in self.here(SentinelNode):
            await self._tune(part)
        for part in self.parts.values():
            if part.here and not part.up:
                await self._revive(part)
        if changed:
            self.save()

    def _name_at(self, endpoint: Endpoint) -> str:
        names = [node.name for node in self.layout.redis if node.endpoint == endpoint]
        return names[0] if names else str(endpoint)

    def save(self) -> None:
        """Remember the units. A disk that is full for a while must not end supervision."""
        try:
            self._kept.remember_units({part.name: part.record for part in self.parts.values() if part.here})
        except ShoalError as error:
            self.tell(EventKind.NOTICE, error.what)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow_exit(self, part: Part, process: Process) -> None:
        how = await process.wait()
        if part.process is not process:
            return
        part.process = None
        part.died_at = time.monotonic()
        part.remember(pid=None, started=None)
        part.silent = str(how)
        if self._stopping:
            return
        ran_for = part.died_at - part.started_at
        pause = part.backoff.after(ran_for)
        part.not_before = part.died_at + pause
        part.held = None
        self.tell(EventKind.DIED, f"{how} (pid {process.pid}) after {ran_for:.1f} s", part.name)
        self.tell(EventKind.RESTARTING, f"in {pause:.1f} s{', if it may' if part.kind == 'redis' else ''}", part.name)
        self._wake.set()

    async def _unguard(self, part: Part) -> bool:
        """Let Sentinel promote a replica again that has caught up."""
        says, node = part.saying(), part.node
        if not part.record.guarded or says is None or part.line is None or not isinstance(node, RedisNode):
            return False
        word = self.lookout.words.get(node.shard)
        if word is None or not (says.link_up and says.master == word.endpoint and part.record.epoch == word.epoch):
            return False
        try:
            await part.line.command("CONFIG", "SET", "replica-priority", PRIORITY)
        except Silent:
            return False
        part.remember(guarded=False)
        self.tell(EventKind.SYNCED, f"has caught up with {self._name_at(word.endpoint)}: may be promoted", part.name)
        return True

    async def _tune(self, part: Part) -> None:
        """Have a sentinel reconnect sooner than it would take the new master for dead (see `ping_period`)."""
        period = ping_period(self.layout.topology.sentinel.down_after)
        if part.tuned or period is None or not part.up or not part.fresh() or part.line is None:
            return
        part.tuned = True
        try:
            await part.line.command("SENTINEL", "DEBUG", "ping-period", period)
        except Silent as silence:
            advice = f"use a down_after of {SAFE_DOWN_AFTER_MS} ms or more"
            self.tell(EventKind.NOTICE, f"may take a new master for dead: {silence}; {advice}", part.name)

    # ------------------------------------------------------------------------------------------------------ starting

    def decide(self, part: Part) -> Start | Hold:
        """Whether a redis that is down may start now, and as what."""
        node = part.node
        if not isinstance(node, RedisNode):
            raise TypeError(node)
        facts = self.lookout.facts(node.shard)
        member = next(member for member in facts.members if member.name == node.name)
        down_since = self._since if part.died_at is None else part.died_at
        return may_start(member, facts, time.monotonic() - down_since, cold=not part.has_run)

    def hold(self, part: Part, decision: Hold) -> None:
        """Leave it down; say why when that is news."""
        if part.held != decision.why:
            part.held = decision.why
            self.tell(EventKind.HELD_BACK, decision.why, part.name)

    async def _revive(self, part: Part) -> None:
        try:
            await self._start_if_due(part)
        except (ShoalError, OSError) as error:
            part.not_before = time.monotonic() + part.backoff.after(0)
            self.tell(EventKind.NOTICE, f"cannot be started: {error}", part.name)

    async def _start_if_due(self, part: Part) -> None:
        if time.monotonic() < part.not_before:
            return
        decision = self.decide(part) if isinstance(part.node, RedisNode) else None
        if isinstance(decision, Hold):
            self.hold(part, decision)
        else:
            await self.launch(part, decision)

    async def launch(self, part: Part, decision: Start | None = None) -> None:
        """Start a part now."""
        self._kept.node_directory(part.name, part.kind)
        unit, text = await self._unit(part, decision)
        process = await self._host.start(unit)
        part.process, part.started_at, part.died_at, part.held = process, time.monotonic(), None, None
        part.says, part.words, part.says_at = None, None, 0.0
        part.has_run, part.tuned = True, False
        part.remember(
            pid=process.pid,
            started=process.started,
            digest=self.launcher.digest(part.node),
            guarded=decision is not None and decision.guarded,
        )
        self.save()
        self.tell(EventKind.STARTED, f"{text}(pid {process.pid})", part.name)
        self._spawn(self._follow_exit(part, process))

    async def _unit(self, part: Part, decision: Start | None) -> tuple[Unit, str]:
        """What starts the part, and what to say of it."""
        match part.node:
            case RedisNode() as node:
                start = decision or Start(None)
                unit = await self.launcher.redis(node, start, self._host)
                if start.replica_of is None:
                    return unit, "as the master "
                guarded = ", not to be promoted before it has caught up " if start.guarded else " "
                return unit, f"as a replica of {self._name_at(start.replica_of)}{guarded}"
            case SentinelNode() as node:
                return await self.launcher.sentinel(node, self.lookout.masters(), self._host), ""
            case ProxyNode() as node:
                return self.launcher.proxy(node), ""

    # ------------------------------------------------------------------------------------------------------ stopping

    async def stop(self, parts: Iterable[Part]) -> None:
        """Stop these: proxies, sentinels, masters, replicas; each kind at once, all within their patience."""
        self._stopping = True
        began = time.monotonic()
        running = [part for part in parts if part.process is not None]
        masters = [part for part in running if part.kind == "redis" and part.record.role != "replica"]
        replicas = [part for part in running if part.kind == "redis" and part.record.role == "replica"]
        if running:
            self.tell(EventKind.STOPPING, f"{len(running)} parts: proxies, sentinels, masters, replicas")
        for group in (_of("proxy", running), _of("sentinel", running), masters, replicas):
            await asyncio.gather(*(self._stop_one(part) for part in group))
        self.save()
        if running:
            self.tell(EventKind.STOPPED, f"everything, in {time.monotonic() - began:.1f} s")

    async def _stop_one(self, part: Part) -> None:
        process, part.process = part.process, None
        if process is None:
            return
        how = await process.stop(STOP_PATIENCE[part.kind])
        part.remember(pid=None, started=None)
        if how.status is not None and how.status < 0:
            self.tell(EventKind.NOTICE, f"did not stop in order: {how}", part.name)

    async def close(self) -> None:
        """End all watching."""
        await self.lookout.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def _of(kind: str, parts: Iterable[Part]) -> list[Part]:
    return [part for part in parts if part.kind == kind]


def ping_period(down_after: int) -> int | None:
    """The ping period (ms) that Sentinel needs with such a `down_after`; None if its own second is right.

    Sentinel reconnects once a ping period at most, also to a master that it has just switched to. So with a down_after
    of a second it often takes the new master for dead, starts another failover, finds nobody to promote and does not
    fail over again for 2 x failover_timeout: in 13 of 36 failovers of three shards at once; in none with half a second.
    Under 300 ms it would find every replica's INFO too old.
    """
    return None if down_after >= SAFE_DOWN_AFTER_MS else max(300, down_after // 2)

"""Follows all sentinels at once: a poll and a subscription to each, every word of them fed to the reducer.

    per sentinel   poll connection   SENTINEL MASTERS, every `poll_interval` or sooner  ─┐
                                     INFO sentinel (tilt), once a second                 ├─► Reducer ─► View
                   subscription      PSUBSCRIBE *, whatever it publishes                ─┘

Rule: times are CLOCK_BOOTTIME and a poll counts from before its request is written, so whatever stalls (this process,
the network, a sentinel) makes leases end early and never late. A connection that failed is replaced, and its last
word stays what it was. Called by the daemon (with a lease rule: a new master waits for `confirm`, and polls hurry
before a lease runs out) and by the supervisor (a majority's word is enough, polls as slow as it likes).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING

from shoal.errors import SentinelError
from shoal.resp import RespConnection, why
from shoal.sentinel import (
    NS_PER_MS,
    Identified,
    Kind,
    LeaseRule,
    Linked,
    Master,
    MastersReply,
    MasterView,
    Observation,
    Polled,
    Published,
    Reducer,
    Tilted,
    Timing,
    View,
    read_event,
    read_tilt,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.topology import Endpoint

ANSWER_TIMEOUT = 0.5
TILT_PERIOD = 1.0
TICK = 0.1
GATHER = 0.002
BACKOFF_FIRST, BACKOFF_LAST = 0.05, 1.0
QUIET_LIMIT = 2.0
"""A subscription that has been quiet for so long is asked whether it lives."""
HURRY_NS = 130 * NS_PER_MS
"""A lease with less than this left is renewed by an early poll: a stall shorter than this costs nothing."""
HURRY_SPACING = 0.025
REGAIN_NS = 1000 * NS_PER_MS
"""For so long after a lease has run out, polls go on hurrying."""


def boot_ns() -> int:
    """Now: a clock that all processes of a machine share, that never jumps, and that runs while it sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Pace:
    """When the next poll is due. `hurry` moves it forward, also while a poll is under way; never back."""

    def __init__(self) -> None:
        self.due = 0.0
        self.sent = 0.0
        self._waiter: asyncio.Future[None] | None = None

    def sending(self, interval: float) -> None:
        """A poll is sent now, the next one is due when the clock next strikes, as it is for all sentinels."""
        self.sent = asyncio.get_running_loop().time()
        self.due = (self.sent // interval + 1) * interval

    def hurry(self, due: float) -> None:
        if due < self.due:
            self.due = due
            self._wake()

    async def wait(self) -> None:
        loop = asyncio.get_running_loop()
        while self.due > loop.time():
            self._waiter = loop.create_future()
            timer = loop.call_at(self.due, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Backoff:
    """How long to wait before the next connection: longer each time, until one has lasted."""

    def __init__(self) -> None:
        self._delay = BACKOFF_FIRST
        self._waited = 0.0

    async def wait(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() - self._waited > BACKOFF_LAST:
            self._delay = BACKOFF_FIRST
        await asyncio.sleep(self._delay)
        self._delay = min(2 * self._delay, BACKOFF_LAST)
        self._waited = loop.time()


@dataclass(frozen=True, slots=True)
class Source:
    """One sentinel's two connections. `report` takes what they say; they end only by being cancelled."""

    endpoint: Endpoint
    password: str | None = field(repr=False)
    interval: float
    pace: Pace
    report: Callable[[Observation], None]

    async def poll(self) -> None:
        """Ask, for ever, over one connection after the other."""
        backoff = Backoff()
        while True:
            try:
                with await self._connect() as connection:
                    await self._identify(connection)
                    self.report(Linked(self.endpoint, up=True))
                    await self._poll_while_it_answers(connection)
            except OSError as error:
                self.report(Linked(self.endpoint, up=False, why_not=why(error)))
            except SentinelError as error:
                self.report(Linked(self.endpoint, up=False, why_not=error.what))
            await backoff.wait()

    async def subscribe(self) -> None:
        """Listen, for ever, over one connection after the other."""
        backoff = Backoff()
        while True:
            try:
                with await self._connect() as connection:
                    connection.send([("PSUBSCRIBE", "*")])
                    await self._listen(connection)
            except OSError:
                self.report(Linked(self.endpoint, up=False, subscription=True))
            await backoff.wait()

    async def _connect(self) -> RespConnection:
        return await RespConnection.open(self.endpoint, password=self.password, timeout=ANSWER_TIMEOUT)

    async def _identify(self, connection: RespConnection) -> None:
        (reply,) = await connection.ask([("SENTINEL", "MYID")], ANSWER_TIMEOUT)
        if not isinstance(reply, bytes):
            raise SentinelError(f"SENTINEL MYID was answered with {reply!r:.80}")
        self.report(Identified(self.endpoint, reply.decode(errors="replace")))

    async def _poll_while_it_answers(self, connection: RespConnection) -> None:
        masters = MastersReply()
        tilt_due = 0.0
        while True:
            await self.pace.wait()
            self.pace.sending(self.interval)
            sent_ns = boot_ns()
            if self.pace.sent >= tilt_due:
                tilt_due = self.pace.sent + TILT_PERIOD
                commands = [("SENTINEL", "MASTERS"), ("INFO", "sentinel")]
                reply, info = await connection.ask(commands, ANSWER_TIMEOUT)
                self.report(Tilted(self.endpoint, sent_ns, read_tilt(info)))
            else:
                (reply,) = await connection.ask([("SENTINEL", "MASTERS")], ANSWER_TIMEOUT)
            self.report(Polled(self.endpoint, sent_ns, masters.read(reply)))

    async def _listen(self, connection: RespConnection) -> None:
        asked = False
        while True:
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT if asked else QUIET_LIMIT):
                    message = await connection.receive()
            except TimeoutError:
                if asked:
                    raise
                connection.send([("PING",)])
                asked = True
                continue
            asked = False
            match message:
                case [b"psubscribe", *_]:
                    self.report(Linked(self.endpoint, up=True, subscription=True))
                case [b"pmessage", _, bytes() as channel, bytes() as payload]:
                    event = read_event(channel, payload)
                    if event is not None:
                        self.report(Published(self.endpoint, boot_ns(), event))
                case [b"pong", *_]:
                    pass
                case _:
                    raise ConnectionError(f"PSUBSCRIBE was answered with {message!r:.80}")


@dataclass(eq=False)
class Watch:
    """All sentinels of a topology. `view` is the last decision, `on_change` is called with each new one."""

    sentinels: Sequence[Endpoint]
    masters: Sequence[str]
    _: KW_ONLY
    password: str | None = field(default=None, repr=False)
    poll_interval: float = 0.1
    on_change: Callable[[View], None] | None = None
    lease: LeaseRule | None = None
    """Keep leases by this rule, and let a new master wait for `confirm`; None is for those who only look."""
    view: View = field(init=False)

    def __post_init__(self) -> None:
        timing = Timing()
        timing = replace(timing, gap=max(timing.gap, int(3000 * self.poll_interval)))
        self._reducer = Reducer(
            self.sentinels,
            self.masters,
            rule=self.lease or LeaseRule.REQUIRE,
            confirm=self.lease is not None,
            timing=timing,
        )
        self._sources = {
            at: Source(at, self.password, self.poll_interval, Pace(), self._report) for at in self.sentinels
        }
        self._leased_ns: dict[str, int] = {}
        self._heard = asyncio.Event()
        self.view = self._reducer.decide(boot_ns())

    async def run(self) -> None:
        """Follow the sentinels until cancelled."""
        async with asyncio.TaskGroup() as group:
            for source in self._sources.values():
                group.create_task(source.poll(), name=f"poll {source.endpoint}")
                group.create_task(source.subscribe(), name=f"subscribe {source.endpoint}")
            group.create_task(self._decide_what_is_heard(), name="watch decide")
            group.create_task(self._decide_in_silence(), name="watch tick")

    def confirm(self, name: str, master: Master) -> bool:
        """Commit a candidate whose ROLE says master; the new view is published at once."""
        taken = self._reducer.confirm(name, master)
        self._publish()
        return taken

    def look(self) -> None:
        """Poll every sentinel at once."""
        now = asyncio.get_running_loop().time()
        for source in self._sources.values():
            source.pace.hurry(now)

    def _report(self, observation: Observation) -> None:
        self._reducer.observe(observation)
        if isinstance(observation, Published):
            self.look()
            if observation.event.kind is not Kind.LOOK:
                self._publish()  # a lease that breaks breaks now
                return
        self._heard.set()

    async def _decide_what_is_heard(self) -> None:
        """The answers of all sentinels come close together: one decision for all of them."""
        while True:
            await self._heard.wait()
            await asyncio.sleep(GATHER)
            self._publish()

    async def _decide_in_silence(self) -> None:
        """Decide again also when nothing is heard: a lease that runs out is news."""
        while True:
            await asyncio.sleep(TICK)
            if boot_ns() - self.view.at_ns > TICK * 1e9:
                self._publish()

    def _publish(self) -> None:
        self._heard.clear()
        self.view = self._reducer.decide(boot_ns())
        if self.lease is not None:
            for master in self.view.masters.values():
                self._keep(master)
        if self.on_change is not None:
            self.on_change(self.view)

    def _keep(self, master: MasterView) -> None:
        """Let those sentinels be asked early whose vote this lease is about to run out with."""
        now_ns = self.view.at_ns
        if master.lease_until_ns:
            self._leased_ns[master.name] = master.lease_until_ns
        until_ns = self._leased_ns.get(master.name, 0)
        if now_ns - until_ns > REGAIN_NS:
            return
        loop_now = asyncio.get_running_loop().time()
        due = loop_now + (until_ns - HURRY_NS - now_ns) / 1e9
        for at, vote in master.votes.items():
            if vote.until_ns <= until_ns:
                pace = self._sources[at].pace
                pace.hurry(max(due, pace.sent + HURRY_SPACING, loop_now))

"""Holds: an operator has a proxy keep back a shard's writes for a moment, while its master is changed on purpose.

    take   ──► no lease is given to the shard, whatever the sentinels say ──► every worker knows, and every write
               that had left is answered ──► the answer to whoever asked
    keep   ──► its end moves on; without that it ends by itself after MOST_MS, so that nobody who dies leaves it behind
    release ─► the lease that the sentinels vouch for is given again
             └► with a new master: that one, asked by us, says `master`, and the old one says it is its replica:
                requests go there at once, under a lease that ends when the sentinels must have named it

The safety sentence: **a hold can only take a lease away, and a new master is written to only when the old one cannot
be.** Sentinels learn of a promotion about a second late (life of a failover): that second is what a hand-over saves. If
they do not name the new master in that time, its lease ends and they decide as ever.

Rule: a hold belongs to whoever took it, by its id, and each of Sentinel's masters has one at most. Reads go on. Called
by the admin HTTP; writes to `routes`, where a reload finds it again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from shoal.errors import HoldError
from shoal.resp import why
from shoal.role import Role, ask_role
from shoal.sentinel import NS_PER_MS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from typing import Any

    from shoal.log import Log
    from shoal.routes import Key
    from shoal.topology import Endpoint

MOST_MS = 2000
"""Longest time that a hold lasts without being kept."""
MOST_HOLDS = 64
SETTLE_LIMIT = 0.8
SETTLE_LOOK = 0.001
HANDED_OVER_MS = 1500
"""How long a new master may be written to before the sentinels have named it; they do within 1.3 s."""


class Routes(Protocol):
    """What is needed of `shoal.routes.Routes`."""

    def keys_of(self, name: str) -> Sequence[Key]: ...
    def hold(self, name: str) -> int: ...
    def let_go(self, name: str) -> None: ...
    def hand_over(self, name: str, endpoint: Endpoint, until_ns: int) -> None: ...
    def end_hand_over(self, name: str, until_ns: int) -> None: ...


class Plane(Protocol):
    """What is needed of `shoal.plane.Plane`."""

    def acked_epoch(self) -> int: ...
    def stats(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Committed:
    """One of Sentinel's masters: where it is committed to be, and its password."""

    endpoint: Endpoint
    password: str | None = field(repr=False)


@dataclass(slots=True)
class Hold:
    """One that lives."""

    id: str
    name: str
    owner: str
    since_ns: int
    until_ns: int
    timer: asyncio.TimerHandle

    def reason(self) -> str:
        """Why its shards are not written to."""
        return f"held by {self.owner or 'somebody'} for a switchover"


class Holds:
    """All holds of a proxy. `committed` gives what is served of one of Sentinel's masters now; None if nothing is."""

    def __init__(
        self,
        routes: Routes,
        plane: Plane,
        committed: Callable[[str], Committed | None],
        now_ns: Callable[[], int],
        log: Log,
    ) -> None:
        self.role_of: Callable[[Endpoint, str | None], Awaitable[Role]] = ask_role
        self._routes = routes
        self._plane = plane
        self._committed = committed
        self._now_ns = now_ns
        self._log = log
        self._holds: dict[str, Hold] = {}

    def living(self) -> Mapping[str, Hold]:
        """The holds, by Sentinel's name of the master."""
        return {hold.name: hold for hold in self._holds.values()}

    async def take(self, id_: str, name: str, owner: str, ttl_ms: int, *, keep: bool = False) -> None:
        """Hold the writes of this master, or keep a hold that was taken; returns when no write is on its way there.

        HoldError says why not, and nothing is held then by this id. With `keep` a hold that has ended is such an error:
        its owner must learn that writes went on.
        """
        if self._committed(name) is None:
            raise HoldError(f'this proxy knows no master "{name}", or several', hint="see /api/v1/topology")
        if not 0 < ttl_ms <= MOST_MS:
            raise HoldError(f"a hold lasts {MOST_MS} ms at most, and can be kept", hint="ask for less")
        hold = self._holds.get(id_)
        if hold is not None and hold.name == name:
            self._keep(hold, ttl_ms)
            return
        if keep:
            raise HoldError("there is no such hold any more: writes have gone on", hint="see the proxy's log")
        self._refuse_another(id_, name)
        timer = asyncio.get_running_loop().call_later(ttl_ms / 1000, self._end, id_, "expired")
        now_ns = self._now_ns()
        self._holds[id_] = Hold(id_, name, owner, now_ns, now_ns + ttl_ms * NS_PER_MS, timer)
        epoch = self._routes.hold(name)
        self._log.event("hold_begun", shard=name, owner=owner, ttl_ms=ttl_ms)
        try:
            await self._settled(epoch, name)
        except TimeoutError:
            self._end(id_, "not settled")
            what = f'writes to "{name}" are still unanswered after {SETTLE_LIMIT:g} s'
            raise HoldError(what, hint="look for a request that takes long, with SLOWLOG") from None

    def _refuse_another(self, id_: str, name: str) -> None:
        other = self.living().get(name)
        if other is not None:
            raise HoldError(f'"{name}" is held already, by {other.owner}', hint="a hold ends within 2 s of its owner")
        if id_ in self._holds or len(self._holds) >= MOST_HOLDS:
            raise HoldError("too many holds, or one of this id", hint="release one first")

    def _keep(self, hold: Hold, ttl_ms: int) -> None:
        hold.timer.cancel()
        hold.timer = asyncio.get_running_loop().call_later(ttl_ms / 1000, self._end, hold.id, "expired")
        hold.until_ns = self._now_ns() + ttl_ms * NS_PER_MS

    async def _settled(self, epoch: int, name: str) -> None:
        """Wait until every worker has shown, knowing that the lease has ended, that none of its writes is out."""
        async with asyncio.timeout(SETTLE_LIMIT):
            while self._plane.acked_epoch() < epoch or self._writing(name):  # noqa: ASYNC110  workers are threads
                await asyncio.sleep(SETTLE_LOOK)

    def _writing(self, name: str) -> bool:
        pools = self._plane.stats()["pools"]
        return any(pools[pool]["shards"][shard]["writing"] for pool, shard in self._routes.keys_of(name))

    async def release(self, id_: str, master: Endpoint | None) -> None:
        """End a hold, with `master` as the new one if that is given; HoldError if it is not, and then it goes on."""
        hold = self._holds.get(id_)
        if hold is None:
            raise HoldError("there is no such hold; it may have expired", hint="see the proxy's log")
        if master is not None:
            await self._hand_over(hold, master)
        self._end(id_, "released" if master is None else "handed over")

    async def _hand_over(self, hold: Hold, master: Endpoint) -> None:
        committed = self._committed(hold.name)
        if committed is None:
            raise HoldError(f'"{hold.name}" has no master that could be replaced', hint="release it without one")
        if committed.endpoint == master:
            return  # the sentinels were first
        try:
            new, old = await asyncio.gather(
                self.role_of(master, committed.password), self.role_of(committed.endpoint, committed.password)
            )
        except OSError as error:
            raise HoldError(f"a server does not say its role: {why(error)}", hint="release it without one") from None
        if new.name != "master" or old != Role("slave", master):
            what = f"{master} says it is {new}, and {committed.endpoint} that it is {old}"
            raise HoldError(what, hint="the old master must be a replica of the new one first")
        if hold.id not in self._holds:
            raise HoldError("the hold expired meanwhile", hint="see the proxy's log")
        until_ns = self._now_ns() + HANDED_OVER_MS * NS_PER_MS
        self._routes.hand_over(hold.name, master, until_ns)
        asyncio.get_running_loop().call_later(HANDED_OVER_MS / 1000, self._routes.end_hand_over, hold.name, until_ns)
        self._log.event("master_handed_over", shard=hold.name, endpoint=str(master), instead_of=str(committed.endpoint))

    def _end(self, id_: str, reason: str) -> None:
        hold = self._holds.pop(id_, None)
        if hold is None:
            return
        hold.timer.cancel()
        self._routes.let_go(hold.name)
        after_ms = (self._now_ns() - hold.since_ns) // NS_PER_MS
        self._log.event("hold_ended", shard=hold.name, owner=hold.owner, why=reason, after_ms=after_ms)

"""A planned change of a shard's master: no error for clients, and nothing acknowledged is lost.

    survey ─► Standing ─► limitations, plan          (nothing is touched yet)
    run      priorities ─► hold ─► pause ─► offsets equal ─► SENTINEL FAILOVER ─► ROLE ─► demote ─► release ─► settled
    undo     priorities ◄─ release ◄─ unpause ◄── on an error or a cancellation, as long as no master was changed

The safety sentences: **Sentinel is asked only when every write that a proxy has sent is at every replica that it
could promote**, and **a proxy writes to the new master only when it has seen the old one be its replica**. So a
process that is killed at any step leaves a cluster that works: holds end by themselves after 2 s, the pause after its
own time, and what Sentinel was told to do it does alone.

Called by `cli.switchover`.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import os
import secrets
import socket
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import hiredis

from shoal.ask import Silent, ask_proxy, http_ask
from shoal.errors import SwitchoverError
from shoal.holds import MOST_MS
from shoal.resp import RespConnection, why
from shoal.role import Role
from shoal.survey import all_or_silent, fields
from shoal.topology import Endpoint, majority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from shoal.resp import Command
    from shoal.standing import Plan
    from shoal.topology import ProxyNode, RedisNode, SentinelNode

ANSWER_LIMIT = 1.0
KEEP_PERIOD = 0.5
GLANCE = 0.003
OFFSETS_LIMIT = 0.25
"""Seconds for the replicas to get what the master had when it paused; they lag milliseconds."""
PROMOTION_LIMIT = 3.0
ABORT_LOOK = 0.1
PRIORITY_LIMIT = 15.0
"""Sentinel asks a replica for its priority every 10 s."""
NAMED_LIMIT = 4.0
SETTLED_LIMIT = 20.0
AGAIN = "try again, on a machine that is less busy"


# ---------------------------------------------------------------------------------------------------------------- parts


class Server:
    """One connection to a server or sentinel, opened before anything is touched, so that no step waits for it. Sentinel
    closes those to servers whose role it changes: they are opened again."""

    def __init__(self, name: str, endpoint: Endpoint, password: str | None) -> None:
        self.name = name
        self.endpoint = endpoint
        self._password = password
        self._connection: RespConnection | None = None

    async def open(self) -> RespConnection:
        try:
            connection = await RespConnection.open(self.endpoint, password=self._password, timeout=ANSWER_LIMIT)
        except OSError as error:
            raise self._error(why(error)) from None
        self._connection = connection
        return connection

    async def ask(self, *commands: Command, again: bool = True) -> list[Any]:
        """The replies to some commands; an error among them, and inside EXEC's, is a SwitchoverError. If the connection
        is lost they are sent `again`."""
        try:
            replies = await self._exchange(commands)
        except OSError as error:
            self.close()
            if not again:
                raise self._error(why(error)) from None
            return await self.ask(*commands, again=False)
        inner = replies[-1] if isinstance(replies[-1], list) else ()
        for reply in (*replies, *inner):
            if isinstance(reply, hiredis.ReplyError):
                raise self._error(str(reply))
        return replies

    async def _exchange(self, commands: tuple[Command, ...]) -> list[Any]:
        connection = self._connection or await self.open()
        async with asyncio.timeout(ANSWER_LIMIT):
            connection.send(commands)
            return [await connection.receive() for _ in commands]

    def _error(self, what: str) -> SwitchoverError:
        return SwitchoverError(f"{self.name}: {what}", where=str(self.endpoint))

    async def role(self) -> Role:
        (reply,) = await self.ask(("ROLE",))
        return Role.read(reply)

    async def offset(self) -> int:
        """How much of the shard's history it has."""
        (reply,) = await self.ask(("ROLE",))
        return int(reply[1] if reply[0] == b"master" else reply[4])

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Holding:
    """A hold of one master at some proxies, kept until it is released."""

    def __init__(self, proxies: Iterable[ProxyNode], master: str) -> None:
        self._proxies = tuple(proxies)
        self._path = f"/api/v1/holds/{secrets.token_hex(8)}"
        owner = f"{getpass.getuser()}@{socket.gethostname()}:{os.getpid()}"
        self._query = urlencode({"master": master, "owner": owner, "ttl_ms": MOST_MS})
        self._keeper: asyncio.Task[None] | None = None
        self._lost: SwitchoverError | None = None
        self._until = 0.0
        """So long (time.monotonic) every proxy holds for certain."""

    async def take(self) -> None:
        """Have every proxy hold; what some have begun when another refuses is for `release`."""
        began = time.monotonic()
        for error in await self._at_all("POST", f"?{self._query}"):
            raise error
        self._until = began + MOST_MS / 1000
        self._keeper = asyncio.create_task(self._keep())

    def check(self) -> None:
        """SwitchoverError if a proxy may have ended its hold, and so may have let writes go."""
        if self._lost is not None:
            raise self._lost
        if time.monotonic() >= self._until:
            raise SwitchoverError("this command stood still for so long that the holds have ended", hint=AGAIN)

    async def release(self, to: Endpoint | None = None) -> list[SwitchoverError]:
        """Have them let go, to the new master if it is given; what a proxy says against it."""
        if self._keeper is not None:
            self._keeper.cancel()
        answers = await asyncio.gather(*(self._let_go(proxy, to) for proxy in self._proxies))
        return [error for error in answers if error is not None]

    async def _let_go(self, proxy: ProxyNode, to: Endpoint | None) -> SwitchoverError | None:
        """What cannot be handed over, asked twice, is released: the proxy then waits for the sentinels' word."""
        refused = None
        for _ in range(0 if to is None else 2):
            refused = await self._at(proxy, "DELETE", f"?to={quote(str(to))}")
            if refused is None:
                return None
        return await self._at(proxy, "DELETE", "") or refused

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(KEEP_PERIOD)
            began = time.monotonic()
            errors = await self._at_all("POST", f"?{self._query}&keep=1")
            if errors:
                self._lost = errors[0]
            else:
                self._until = began + MOST_MS / 1000

    async def _at_all(self, method: str, query: str) -> list[SwitchoverError]:
        answers = await asyncio.gather(*(self._at(proxy, method, query) for proxy in self._proxies))
        return [error for error in answers if error is not None]

    async def _at(self, proxy: ProxyNode, method: str, query: str) -> SwitchoverError | None:
        try:
            status, text = await http_ask(proxy.admin, method, self._path + query)
        except Silent as silent:
            return SwitchoverError(f"{proxy.name} {silent}", where=str(proxy.admin))
        if status == HTTPStatus.OK:
            return None
        with contextlib.suppress(ValueError, LookupError, TypeError):
            text = json.loads(text)["errors"][0]["error"]
        return SwitchoverError(f"{proxy.name}: {text}", where=str(proxy.admin))


@dataclass(frozen=True, slots=True)
class Done:
    """A step that is done: in so many seconds, and so long after the first one began."""

    what: str
    took: float
    at: float


# ----------------------------------------------------------------------------------------------------------------- run


class Switchover:
    """One run of a plan. `tell` is called after each step."""

    def __init__(self, plan: Plan, password: str | None, tell: Callable[[Done], None]) -> None:
        self.plan = plan
        self.final = False
        """A master may have been changed: nothing is undone any more, what is begun is finished."""
        self._password = password
        self._tell = tell
        self._holding = Holding(plan.proxies, plan.shard)
        self._began = 0.0
        self._undo: list[Callable[[], Awaitable[object]]] = []
        self._servers: dict[RedisNode | SentinelNode, Server] = {}
        self._wrong: list[str] = []
        self._paused_until = float("inf")
        self._refusals: list[str] = []
        """What proxies said against the hand-over: it cost them a second, if all is well in the end."""

    async def run(self) -> list[str]:
        """Do it; gives what is not as it should be although the master was changed. SwitchoverError if it was not."""
        try:
            await self._connect()
            self._began = time.monotonic()
            await self._prepare()
            await self._change()
        except BaseException:
            await asyncio.shield(self._undo_all())
            self._close()
            raise
        try:
            return await self._settle()
        finally:
            await self._undo_all()  # of what is left, the priorities
            self._close()

    async def _connect(self) -> None:
        plan = self.plan
        nodes: tuple[RedisNode | SentinelNode, ...] = (plan.old, plan.new, *plan.others, *plan.sentinels)
        for node in nodes:
            self._servers[node] = Server(node.name, node.endpoint, self._password)
            await self._servers[node].open()

    def _close(self) -> None:
        for server in self._servers.values():
            server.close()

    async def _undo_all(self) -> None:
        while self._undo:
            with contextlib.suppress(SwitchoverError):  # what cannot be undone ends by itself
                await self._undo.pop()()

    @contextlib.asynccontextmanager
    async def _step(self, what: str) -> AsyncIterator[None]:
        began = time.monotonic()
        yield
        now = time.monotonic()
        self._tell(Done(what, now - began, now - self._began))

    # ------------------------------------------------------------------------------------------------ before

    async def _prepare(self) -> None:
        plan = self.plan
        if plan.priorities:
            async with self._step(f"Sentinel passes over {', '.join(node.name for node in plan.priorities)}"):
                await self._pass_over()
        async with self._step(f"writes held at {', '.join(proxy.name for proxy in plan.proxies)}"):
            self._undo.append(self._holding.release)
            await self._holding.take()
        if (await self._servers[plan.old].role()).name != "master":
            raise SwitchoverError(f"{plan.old.name} is no master any more", hint="look at it again")
        if not plan.coordinated:
            async with self._step(f"writes paused at {plan.old.name}"):
                self._undo.append(lambda: self._servers[plan.old].ask(("CLIENT", "UNPAUSE")))
                self._paused_until = time.monotonic() + plan.pause_ms / 1000
                await self._servers[plan.old].ask(("CLIENT", "PAUSE", str(plan.pause_ms), "WRITE"))
            async with self._step(f"{plan.new.name} has everything"):
                await self._offsets_equal()

    async def _pass_over(self) -> None:
        for node, (before, during) in self.plan.priorities.items():
            self._undo.append(lambda node=node, before=before: self._set_priority(node, before))  # type: ignore[misc]
            await self._set_priority(node, during)
        wanted = {node.endpoint: during for node, (_, during) in self.plan.priorities.items()}
        deadline = time.monotonic() + PRIORITY_LIMIT
        while not await self._sees(self.plan.sentinels, wanted):
            if time.monotonic() > deadline:
                what = f"the sentinels have not seen the new replica-priority for {PRIORITY_LIMIT:g} s"
                raise SwitchoverError(what, hint="see that they reach every replica")
            await asyncio.sleep(ABORT_LOOK)

    async def _set_priority(self, node: RedisNode, priority: int) -> None:
        await self._servers[node].ask(("CONFIG", "SET", "replica-priority", str(priority)))

    async def _sees(self, sentinels: Iterable[SentinelNode], wanted: Mapping[Endpoint, int]) -> bool:
        for sentinel in sentinels:
            (reply,) = await self._servers[sentinel].ask(("SENTINEL", "REPLICAS", self.plan.shard))
            known = {Endpoint(one["ip"], int(one["port"])): one["slave-priority"] for one in map(fields, reply)}
            if any(known.get(endpoint) != str(priority) for endpoint, priority in wanted.items()):
                return False
        return True

    async def _offsets_equal(self) -> None:
        """Every replica, in case Sentinel does not take ours: nothing may be missing wherever it goes."""
        wanted = await self._servers[self.plan.old].offset()
        deadline = time.monotonic() + OFFSETS_LIMIT
        for node in (self.plan.new, *self.plan.rivals):
            while (has := await self._servers[node].offset()) < wanted:
                if time.monotonic() > deadline:
                    what = f"{node.name} lacks {wanted - has} bytes after {OFFSETS_LIMIT:g} s"
                    raise SwitchoverError(what, hint="try again when less is written, or its link is faster")
                await asyncio.sleep(GLANCE)

    # ------------------------------------------------------------------------------------------------ the change

    async def _change(self) -> None:
        plan = self.plan
        leader = plan.sentinels[0]
        words = ("COORDINATED",) if plan.coordinated else ()
        self._holding.check()
        if time.monotonic() >= self._paused_until:
            raise SwitchoverError(f"writes at {plan.old.name} are paused no more: it took too long", hint=AGAIN)
        self.final = True
        try:
            async with self._step(f"{leader.name} fails over"):
                await self._servers[leader].ask(("SENTINEL", "FAILOVER", plan.shard, *words), again=False)
            async with self._step(f"{plan.new.name} is the master"):
                await self._promoted(leader)
        except SwitchoverError:
            self.final = False
            raise
        async with self._step(f"{plan.old.name} is its replica"):
            await self._demote()
        if plan.coordinated:
            await self._wait_until_named()  # the sentinel closes all connections to both before that
        self._undo = [
            lambda node=node, before=before: self._set_priority(node, before)  # type: ignore[misc]
            for node, (before, _) in plan.priorities.items()
        ]
        async with self._step(f"writes released, to {plan.new.name}"):
            to = None if plan.coordinated else plan.new.endpoint
            self._refusals = [error.what for error in await self._holding.release(to)]

    async def _promoted(self, leader: SentinelNode) -> None:
        """Wait for the promotion; a failover that Sentinel has given up is an error."""
        deadline = time.monotonic() + PROMOTION_LIMIT
        look = time.monotonic() + ABORT_LOOK
        while (await self._servers[self.plan.new].role()).name != "master":
            now = time.monotonic()
            if now > look:
                look = now + ABORT_LOOK
                await self._still_at_it(leader)
            if now > deadline:
                what = f"{self.plan.new.name} was not promoted within {PROMOTION_LIMIT:g} s"
                raise SwitchoverError(what, hint=f"see the log of {leader.name}; the proxies go on with who is master")
            await asyncio.sleep(GLANCE)

    async def _still_at_it(self, leader: SentinelNode) -> None:
        (reply,) = await self._servers[leader].ask(("SENTINEL", "MASTER", self.plan.shard))
        for node in self.plan.others:
            if (await self._servers[node].role()).name == "master":
                what = f"Sentinel has promoted {node.name} and not {self.plan.new.name}; nothing is lost by that"
                raise SwitchoverError(what, hint="the proxies follow it; try again when `shoal status` is well")
        if "failover_in_progress" not in fields(reply)["flags"].split(","):
            what = f"{leader.name} has given the failover up"
            raise SwitchoverError(what, hint="its log says why; nothing has changed")

    async def _demote(self) -> None:
        """Make the old master a replica before a sentinel does, who would close its clients' connections."""
        old, new = self._servers[self.plan.old], self.plan.new.endpoint
        if not self.plan.coordinated:
            follow = ("REPLICAOF", new.host, str(new.port))
            await old.ask(("MULTI",), follow, ("CLIENT", "UNPAUSE"), ("EXEC",))
        deadline = time.monotonic() + ANSWER_LIMIT
        while await old.role() != Role("slave", new):
            if time.monotonic() > deadline:
                what = f"{self.plan.old.name} has not become a replica of {self.plan.new.name}"
                raise SwitchoverError(what, hint="the sentinels make it one; `shoal status` tells")
            await asyncio.sleep(GLANCE)

    # ------------------------------------------------------------------------------------------------ after

    async def _settle(self) -> list[str]:
        if not self.plan.coordinated:
            await self._wait_until_named()
        async with self._step("replicas and proxies are settled"):
            unsettled = await self._unsettled()
            self._wrong += [*self._refusals, *unsettled] if unsettled else []
        with contextlib.suppress(SwitchoverError):  # a server without a file has nothing to write
            await self._servers[self.plan.old].ask(("CONFIG", "REWRITE"))
        return self._wrong

    async def _wait_until_named(self) -> None:
        async with self._step(f"the sentinels name {self.plan.new.name}"):
            if not await self._named():
                self._wrong.append(f"no majority of the sentinels names {self.plan.new.name} yet")

    async def _named(self) -> bool:
        """Wait until a majority names the new master; if the one that was asked has died since, ask the next."""
        needed = majority(len(self.plan.sentinels))
        for sentinel in self.plan.sentinels:
            if sentinel is not self.plan.sentinels[0]:
                with contextlib.suppress(SwitchoverError):
                    await self._servers[sentinel].ask(("SENTINEL", "FAILOVER", self.plan.shard))
            deadline = time.monotonic() + NAMED_LIMIT
            while time.monotonic() < deadline:
                answers = await asyncio.gather(*map(self._master_of, self.plan.sentinels))
                if answers.count(self.plan.new.endpoint) >= needed:
                    return True
                await asyncio.sleep(10 * GLANCE)
        return False

    async def _master_of(self, sentinel: SentinelNode) -> Endpoint | None:
        try:
            (reply,) = await self._servers[sentinel].ask(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.plan.shard))
        except SwitchoverError:
            return None
        return Endpoint(reply[0].decode(), int(reply[1]))

    async def _unsettled(self) -> list[str]:
        deadline = time.monotonic() + SETTLED_LIMIT
        while wrong := [*await self._astray(), *await self._elsewhere()]:
            if time.monotonic() > deadline:
                return wrong
            await asyncio.sleep(10 * GLANCE)
        return []

    async def _astray(self) -> list[str]:
        """The servers that do not follow the new master."""
        wrong = []
        for node in (self.plan.old, *self.plan.others):
            try:
                (reply,) = await self._servers[node].ask(("ROLE",))
            except SwitchoverError as error:
                wrong.append(error.what)
                continue
            if Role.read(reply) != Role("slave", self.plan.new.endpoint) or reply[3] != b"connected":
                wrong.append(f"{node.name} is not in sync with {self.plan.new.name}")
        return wrong

    async def _elsewhere(self) -> list[str]:
        """The proxies that do not write to the new master under a lease."""
        answers = await all_or_silent(ask_proxy(proxy.admin) for proxy in self.plan.proxies)
        wrong = []
        for proxy, said in zip(self.plan.proxies, answers, strict=True):
            if isinstance(said, Silent):
                wrong.append(f"{proxy.name} {said}")
                continue
            routes = [route for name, route in said.routes() if name == self.plan.shard]
            new = str(self.plan.new.endpoint)
            if not all(route.get("endpoint") == new and route.get("writable") for route in routes):
                wrong.append(f"{proxy.name} does not write to {self.plan.new.name} under a lease yet")
        return wrong

"""The process `shoal proxy`: one node's data plane, what steers it, and what it can be asked, from start to drain.

    start   servers tied to masters ─► admin and statistics ports, client ports (in use: PortInUseError) ─► steering
    run     Steering ─► Routes ─► Plane       requests flow without Python; leases do not outlive it
    reload  SIGHUP or the admin HTTP: the file is read again; a new steering gets ready, and then takes over
    end     SIGTERM or SIGINT: no new clients, requests in flight are finished (DRAIN_MS), exit 0

Rule: the daemon only puts parts together and ends them; whatever a part raises ends the process, and its supervisor
starts it anew. A reload that cannot be done changes nothing. With `lease: require` it refuses to serve beside sentinels
that are not as the topology says. Called by `cli.proxy` and `cli.nutcracker`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import time
import traceback
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal import memory
from shoal.admin import AdminServer, PoolFace, Subject
from shoal.errors import SentinelError, ShoalError
from shoal.holds import Committed, Holds
from shoal.plane import NO_LEASE_NEEDED, Plane, resolve
from shoal.reload import changes
from shoal.routes import Routes, Target
from shoal.serving import Followed, ServedPool, Service
from shoal.stats import StatsServer, stats_line
from shoal.steer import Steering
from shoal.tie import Wanted, addresses_of, wait_for_ties
from shoal.topology import Endpoint
from shoal.topology.advice import PROMOTION_MS
from shoal.topology.values import is_address
from shoal.watch import boot_ns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from shoal.census import Group
    from shoal.log import Log
    from shoal.plane import PoolSpec
    from shoal.routes import Key

    Handlers = Mapping[signal.Signals, Callable[[], None]]

DRAIN_MS = 2000
TIE_PATIENCE = 5.0
FIRST_LOOK = 1.0
"""How long a start waits for the names of servers; who asks for a server before its name is known is told that it is
down."""


def serve(service: Service, log: Log, load: Callable[[], Service], handlers: Handlers | None = None) -> None:
    """Run one proxy until a signal ends it. `load` reads its file again; SIGHUP does, unless it has a handler."""
    _lift_descriptor_limit()
    asyncio.run(Daemon(service, log, load).run(handlers or {}))


async def tied(service: Service, log: Log) -> Service:
    """The service with every server of its followed pools tied to a master. Waits for their sentinels."""
    return replace(service, pools=tuple([await _tied(pool, log) for pool in service.pools]))


async def _tied(pool: ServedPool, log: Log) -> ServedPool:
    source = pool.source
    if not isinstance(source, Followed) or source.masters is not None:
        return pool
    wanted = Wanted(source.servers, source.sentinels, source.password, source.where)
    known: dict[str, Group] = {}
    masters = await wait_for_ties(
        wanted, lambda why: log.event("sentinels_silent", pool=pool.name, why=why), addresses_of, known.update
    )
    _warn_of_a_short_hold(pool, [known[name] for name in masters.values()], log)
    return replace(pool, source=replace(source, masters=masters))


def _warn_of_a_short_hold(pool: ServedPool, groups: Iterable[Group], log: Log) -> None:
    """A nutcracker.yml cannot say how long requests are held, and sentinels were not set up with that in mind."""
    down_after_ms = max(group.settings.down_after for group in groups)
    takes_ms, hold_ms = down_after_ms + PROMOTION_MS, pool.spec.hold_timeout_ms
    if hold_ms < takes_ms:
        log.event("hold_short", pool=pool.name, hold_ms=hold_ms, failover_ms=takes_ms, down_after_ms=down_after_ms)


def _lift_descriptor_limit() -> None:
    """Every client is a descriptor. The soft limit is there for programs that use select(); ours is the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def faces(service: Service, steering: Steering) -> list[PoolFace]:
    """Each pool as the admin HTTP shows it."""
    return [
        PoolFace(
            name=pool.name,
            listen=pool.listen,
            masters=_masters(pool),
            hash=pool.spec.hash,
            distribution=pool.spec.distribution,
            lease=pool.source.lease if isinstance(pool.source, Followed) else None,
            view=steering.view_of(pool.name),
            password=pool.spec.password,
            reading=partial(steering.reading_of, pool.name),
        )
        for pool in service.pools
    ]


def _masters(pool: ServedPool) -> Mapping[str, str]:
    known = pool.source.masters if isinstance(pool.source, Followed) else None
    return known or {label: label for label in pool.labels}


@dataclass
class _Wish:
    """A reload that somebody asks for."""

    plan: bool
    allow_remap: bool
    done: asyncio.Future[list[str]] = field(repr=False)


class Daemon:
    """One proxy process."""

    def __init__(self, service: Service, log: Log, load: Callable[[], Service]) -> None:
        self._service = service
        self._log = log
        self._load = load
        self._started = time.time()
        self._servers: list[AdminServer | StatsServer] = []
        self._wishes: asyncio.Queue[_Wish] = asyncio.Queue(maxsize=8)

    async def run(self, handlers: Handlers) -> None:
        """Start, serve, drain."""
        ended = self._signals(handlers)
        prepared = asyncio.create_task(self._prepare(), name="prepare")
        over = asyncio.create_task(ended.wait(), name="ended")
        await asyncio.wait([prepared, over], return_when=asyncio.FIRST_COMPLETED)
        if not prepared.done():
            prepared.cancel()
            return
        prepared.result()
        self._open()
        try:
            await self._serve(over)
        except BaseExceptionGroup as group:
            raise _what_a_user_can_mend(group) from None
        finally:
            over.cancel()
            self._plane.stop(0)
            self._close()
        self._log.event("proxy_stopped", node=self._service.node)

    async def _prepare(self) -> None:
        """Find out where the servers are, as far as that is soon known."""
        self._service = await tied(self._service, self._log)
        self._steering = Steering(self._service, self._log)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK):
                await self._steering.names.look_up()

    # ------------------------------------------------------------------------------------------------ ports

    def _open(self) -> None:
        """Take every port, or none."""
        service = self._service
        self._plane = Plane(_specs(service), service.workers or os.cpu_count() or 1)
        self._routes = Routes(self._plane, keys(service), self._log, _followed(service))
        holds = Holds(self._routes, self._plane, self._committed, boot_ns, self._log)
        self._subject = Subject(
            service.node, faces(service, self._steering), self._plane, boot_ns, service.password, self.reload, holds
        )
        try:
            if service.admin is not None:
                self._servers.append(AdminServer(self._subject, service.admin))
            if service.stats is not None:
                self._servers.append(StatsServer(service.stats, self._stats_line))
            # Before the first client: servers at fixed addresses are known, masters when a majority names them.
            if fixed := self._steering.names.targets():
                self._routes.put(fixed)
            self._plane.start()
        except BaseException:
            self._close()
            raise
        listens = {pool.name: str(pool.listen) for pool in service.pools}
        ports = {name: str(at) for name, at in (("admin", service.admin), ("stats", service.stats)) if at}
        self._log.event("proxy_started", node=service.node, listens=listens, **ports)
        self._say_what_is_off(service)

    def _committed(self, master: str) -> Committed | None:
        return self._steering.committed(master)

    def _close(self) -> None:
        for server in self._servers:
            server.close()

    def _stats_line(self) -> str:
        return stats_line(self._plane.stats(), self._started)

    def _say_what_is_off(self, service: Service) -> None:
        for pool in service.pools:
            if pool.ejection_off:
                self._log.event("ejection_off", pool=pool.name)

    # ------------------------------------------------------------------------------------------------ serving

    async def _serve(self, over: asyncio.Task[Any]) -> None:
        """Serve until a signal, then drain: leases are kept to the end."""
        async with asyncio.TaskGroup() as group:
            servers = [group.create_task(server.run(), name="ports") for server in self._servers]

            def start(work: Awaitable[None], name: str) -> asyncio.Task[None]:
                return group.create_task(_awaited(work), name=name)

            self._start = start
            self._steering.attach(self._routes, start)
            self._steering.start(start)
            others = [
                start(self._routes.watch_acks(), "acks"),
                start(self._grant_wishes(), "reload"),
                start(memory.give_back(), "memory"),
                *(start(following.vet(), "vet") for following in self._steering.followings),
            ]
            await over
            for task in others:
                task.cancel()  # a reload would listen anew
            self._subject.draining = True
            self._log.event("proxy_draining", node=self._service.node, limit_ms=DRAIN_MS)
            await asyncio.to_thread(self._plane.stop, DRAIN_MS)
            await self._steering.stop()
            for server in self._servers:
                server.stop()
            await asyncio.gather(*servers)

    def _signals(self, handlers: Handlers) -> asyncio.Event:
        """An event that SIGTERM and SIGINT set; SIGHUP reloads."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        mine = {signal.SIGTERM: ended.set, signal.SIGINT: ended.set, signal.SIGHUP: self._wish_by_signal}
        for number, handler in {**mine, **handlers}.items():
            loop.add_signal_handler(number, handler)
        return ended

    # ------------------------------------------------------------------------------------------------ reload

    async def reload(self, *, plan: bool, allow_remap: bool) -> list[str]:
        """Read the file again and serve what it says; gives what that changes. A ShoalError says why it does not."""
        wish = self._wish(plan=plan, allow_remap=allow_remap)
        return await wish.done

    def _wish(self, *, plan: bool, allow_remap: bool) -> _Wish:
        wish = _Wish(plan, allow_remap, asyncio.get_running_loop().create_future())
        try:
            self._wishes.put_nowait(wish)
        except asyncio.QueueFull:
            wish.done.set_exception(ShoalError("too many reloads wait already", hint="try again in a moment"))
        return wish

    def _wish_by_signal(self) -> None:
        self._wish(plan=False, allow_remap=False).done.add_done_callback(_looked_at)

    async def _grant_wishes(self) -> None:
        """One reload after the other."""
        while True:
            wish = await self._wishes.get()
            if wish.done.done():
                continue  # nobody waits for it any more
            try:
                found = await self._reload(plan=wish.plan, allow_remap=wish.allow_remap)
            except ShoalError as error:
                self._refused(wish, error)
            except Exception as error:  # noqa: BLE001  a bug in a reload must not end a proxy that serves
                at = traceback.extract_tb(error.__traceback__)[-1]
                what = f"the reload broke off at {Path(at.filename).name}:{at.lineno}: {type(error).__name__}: {error}"
                hint = "this is a bug in Shoal: please report it; restart the proxy if it does not serve what it should"
                self._refused(wish, ShoalError(what, hint=hint))
            else:
                if not wish.done.done():
                    wish.done.set_result(found)

    def _refused(self, wish: _Wish, error: ShoalError) -> None:
        if not wish.plan:
            self._log.event("reload_refused", why=[_one_line(one) for one in error.each()])
        if not wish.done.done():
            wish.done.set_exception(error)

    async def _reload(self, *, plan: bool, allow_remap: bool) -> list[str]:
        service = await self._tied_soon(await asyncio.to_thread(self._load))
        found = await asyncio.to_thread(changes, self._service, service)
        if plan:
            return found.planned(allow_remap=allow_remap)
        found.refuse_what_cannot_be(allow_remap=allow_remap)
        specs = await asyncio.to_thread(_specs, service)
        steering = Steering(service, self._log)
        steering.trust(self._steering)
        steering.start(self._start)
        try:
            await steering.ready(self._steering, self._routes.targets)
            self._swap(service, specs, steering)
        except BaseException:
            await steering.stop()
            raise
        sentences = [*found.sentences, *found.remap]
        self._log.event("reloaded", node=service.node, changes=sentences)
        self._say_what_is_off(service)
        return sentences

    async def _tied_soon(self, service: Service) -> Service:
        """A reload does not wait for sentinels as a start does: what it would wait for may be mistyped."""
        try:
            async with asyncio.timeout(TIE_PATIENCE):
                return await tied(service, self._log)
        except TimeoutError:
            what = f"no majority of the sentinels of some pool has answered within {TIE_PATIENCE:g} s"
            hint = "see that their addresses in the file are right; the log says which do not answer"
            raise SentinelError(what, hint=hint) from None

    def _swap(self, service: Service, specs: list[PoolSpec], steering: Steering) -> None:
        """Let the new steering take over, at one moment."""
        steering.trust(self._steering)
        known, before = steering.targets(), self._routes.targets
        targets = {key: _going_on(known.get(key), before.get(key)) for key in keys(service)}
        self._routes.replace(specs, targets, _followed(service))
        old, self._steering, self._service = self._steering, steering, service
        old.detach()
        steering.attach(self._routes, self._start)
        self._subject.pools = faces(service, steering)
        self._subject.password = service.password
        self._start(old.stop(), "old steering")


def keys(service: Service) -> list[Key]:
    """Every shard of every pool, in order."""
    return [(pool.name, label) for pool in service.pools for label in pool.labels]


def _followed(service: Service) -> dict[Key, str]:
    """Sentinel's name of the master behind each shard that is followed."""
    followed = (pool for pool in service.pools if isinstance(pool.source, Followed))
    return {(pool.name, label): name for pool in followed for label, name in _masters(pool).items()}


def _going_on(now: Target | None, before: Target | None) -> Target:
    """What a shard begins with: no longer a lease on the same server than it had, and if it has no master for the
    moment, the server that it had, without a lease. A fixed server whose name has no address has none."""
    now = now or Target(None)
    if before is None or now.endpoint == before.endpoint:
        return now if before is None else now._replace(lease_until_ns=min(now.lease_until_ns, before.lease_until_ns))
    followed_and_lost = now.endpoint is None and now.lease_until_ns != NO_LEASE_NEEDED
    return Target(before.endpoint) if followed_and_lost else now


def _specs(service: Service) -> list[PoolSpec]:
    """What the workers are told, with the addresses of hosts that pools listen on; may ask a name server."""
    return [_resolved(pool).spec for pool in service.pools]


def _one_line(error: ShoalError) -> str:
    """An error for the log: after a signal there is no other place."""
    details = [f"at {error.where}" if error.where else "", f"hint: {error.hint}" if error.hint else ""]
    return "; ".join([error.what, *filter(None, details)])


def _resolved(pool: ServedPool) -> ServedPool:
    """The pool with the address of its host, if it listens on a name."""
    listen = pool.listen
    if not isinstance(listen, Endpoint) or is_address(listen.host):
        return pool
    found = resolve(listen)
    if found is None:
        raise ShoalError(f'pool "{pool.name}" cannot listen: the host of {listen} has no address')
    return replace(pool, spec=replace(pool.spec, listen=str(found)))


async def _awaited(work: Awaitable[None]) -> None:
    await work


def _looked_at(done: asyncio.Future[list[str]]) -> None:
    """A signal has nobody to tell: the log has it."""
    if not done.cancelled():
        done.exception()


def _what_a_user_can_mend(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first of Shoal's own errors in the group; without one it is a bug, and the group says where."""
    found: BaseException | None = group.subgroup(ShoalError)
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found or group

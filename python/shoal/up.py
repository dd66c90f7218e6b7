"""One run of `shoal up`, from the lock to the last stop; and `shoal down` for what a killed supervisor left.

Rule: parts start in the order in which they need each other (masters, replicas, sentinels, proxies), each waited for
until it answers. A start fails as a whole only if too little of it came up to serve (no redis of a shard, no majority
of the sentinels, no proxy): then all that this run started is stopped again. A single part that does not come up is
told and restarted like any that dies.

Called by `shoal up` and `shoal down`.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from shoal import state
from shoal.ask import Silent, http_get
from shoal.engine import find_engine
from shoal.errors import ProcessError, ShoalError, StateError
from shoal.events import EventKind
from shoal.hosts import LOG_NAME, tail
from shoal.opening import open_cluster, require_free_ports
from shoal.parts import Launcher, main_endpoint
from shoal.process import Process
from shoal.rules import Hold, Start
from shoal.supervisor import STOP_PATIENCE, Supervisor
from shoal.topology import ProxyNode, RedisNode, SentinelNode, majority

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from pathlib import Path

    from shoal.events import Event
    from shoal.opening import Opened
    from shoal.parts import Part
    from shoal.topology import Layout, Topology

ANSWER_PATIENCE = 15.0  # for a first answer; loading data may take longer
SETTLE_PATIENCE = 6.0
GLANCE = 0.02


@dataclass(frozen=True)
class Request:
    """What is to be brought up, and who is told."""

    topology: Topology
    topology_file: Path
    directory: Path
    host: str | None
    tell: Callable[[Event], None]
    ready: Callable[[Layout, Path], None]


async def run(request: Request, stop: asyncio.Event) -> None:
    """Bring the cluster up, say when it is ready, supervise until `stop` is set, and stop everything."""
    with state.locked(request.directory, request.topology.cluster) as kept:
        engine = find_engine(request.topology.engine)
        opened = open_cluster(request.topology, kept, request.host)
        await _stop_leftovers(opened)
        require_free_ports(opened.parts.values())
        launcher = Launcher(opened.layout, kept.directory, engine, request.topology_file)
        supervisor = Supervisor(kept, opened.layout, opened.parts, launcher, request.tell)
        stopped = asyncio.create_task(stop.wait())
        try:
            started = await _start_or_undo(supervisor, stopped)
            if started:
                kept.remember_identity(opened.identity)
                supervisor.tell(EventKind.READY, _addresses(opened.layout))
                request.ready(opened.layout, kept.directory)
                await supervisor.supervise(stopped)
            await supervisor.stop(supervisor.parts.values())
        finally:
            stopped.cancel()
            await supervisor.close()


async def _stop_leftovers(opened: Opened) -> None:
    """Processes of parts that the topology does not have (there) any more."""
    await asyncio.gather(*(process.stop(STOP_PATIENCE["redis"]) for process in opened.leftovers.values()))


async def _start_or_undo(supervisor: Supervisor, stopped: asyncio.Task[bool]) -> bool:
    """Start everything; False if a stop came first. After an error nothing that this run started is left."""
    ran_before = {part.name for part in supervisor.parts.values() if part.up}
    starting = asyncio.create_task(_start(supervisor))
    try:
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
        await starting
    except asyncio.CancelledError:
        return False
    except BaseException:
        await supervisor.stop([part for part in supervisor.parts.values() if part.name not in ran_before])
        raise
    return True


# ------------------------------------------------------------------------------------------------------------- start


async def _start(supervisor: Supervisor) -> None:
    await supervisor.look()
    await _restart_outdated(supervisor)
    await _start_redis(supervisor)
    await _start_sentinels(supervisor)
    await _start_proxies(supervisor)
    await _settle(supervisor)


async def _restart_outdated(supervisor: Supervisor) -> None:
    """What was adopted runs with the settings of its own start: a proxy is started anew if they have changed."""
    for part in supervisor.parts.values():
        if not part.here or part.process is None or part.record.digest == supervisor.launcher.digest(part.node):
            continue
        if part.kind == "proxy":
            process, part.process = part.process, None
            await process.stop(STOP_PATIENCE["proxy"])
        elif part.kind == "redis":
            supervisor.tell(EventKind.NOTICE, "has older settings until its next start", part.name)


async def _start_redis(supervisor: Supervisor) -> None:
    """Masters first, then replicas, each as the rules say."""
    lookout = supervisor.lookout
    down = [part for part in supervisor.here(RedisNode) if not part.up]
    decided = [(part, supervisor.decide(part)) for part in down]
    _require_known_masters(supervisor, decided)
    masters = {part: start for part, start in decided if isinstance(start, Start) and start.replica_of is None}
    replicas = {part: start for part, start in decided if isinstance(start, Start) and start.replica_of is not None}
    lookout.presumed = {_shard(part): part.node.endpoint for part in masters if isinstance(part.node, RedisNode)}
    failures: dict[str, ShoalError] = {}
    for group in (masters, replicas):
        await asyncio.gather(*(supervisor.launch(part, start) for part, start in group.items()))
        failures |= await _failures(supervisor, group, _redis_answers)
    for part, decision in decided:
        if isinstance(decision, Hold):
            supervisor.hold(part, decision)
    _require_one_of_each_shard(supervisor, failures)


def _shard(part: Part) -> str:
    return part.node.shard if isinstance(part.node, RedisNode) else ""


def _require_known_masters(supervisor: Supervisor, decided: Iterable[tuple[Part, Start | Hold]]) -> None:
    """A sentinel that starts without a past would repeat the file's master: not for a shard that has data."""
    if not supervisor.here(SentinelNode):
        return
    for part, decision in decided:
        if isinstance(decision, Hold) and _shard(part) not in supervisor.lookout.words:
            raise StateError(
                f'nothing tells which node of shard "{_shard(part)}" is the master: the sentinels\' state is lost',
                where=str(supervisor.launcher.directory / "nodes"),
                hint="restore a sentinel.conf, or move away the data of all nodes of the shard but the one to keep",
            )


def _require_one_of_each_shard(supervisor: Supervisor, failures: Mapping[str, ShoalError]) -> None:
    for shard in supervisor.layout.topology.shards:
        members = [part for part in supervisor.here(RedisNode) if _shard(part) == shard]
        failed = [failures[part.name] for part in members if part.name in failures]
        if failed and not any(part.up for part in members):
            raise failed[0]


async def _start_sentinels(supervisor: Supervisor) -> None:
    parts = supervisor.here(SentinelNode)
    before = {part.name: part.record.digest for part in parts}
    down = [part for part in parts if not part.up]
    await asyncio.gather(*(supervisor.launch(part) for part in down))
    failures = await _failures(supervisor, down, _sentinel_answers)
    if failures and sum(part.up for part in parts) < majority(len(parts)):
        raise next(iter(failures.values()))
    for part in parts:
        now = supervisor.launcher.digest(part.node)
        if part.up and before[part.name] not in ("", now):
            await _set_sentinel(supervisor, part)
            part.remember(digest=now)


async def _set_sentinel(supervisor: Supervisor, part: Part) -> None:
    """Settings of the topology that have changed since sentinel.conf was written."""
    settings = supervisor.layout.topology.sentinel
    wanted = {
        "down-after-milliseconds": settings.down_after,
        "failover-timeout": settings.failover_timeout,
        "parallel-syncs": settings.parallel_syncs,
        "quorum": settings.quorum,
    }
    for shard in supervisor.layout.topology.shards:
        for option, value in wanted.items():
            try:
                if part.line is not None:
                    await part.line.command("SENTINEL", "SET", shard, option, value)
            except Silent as silence:
                supervisor.tell(EventKind.NOTICE, f'refuses {option} {value} for "{shard}": {silence}', part.name)


async def _start_proxies(supervisor: Supervisor) -> None:
    parts = supervisor.here(ProxyNode)
    down = [part for part in parts if not part.up]
    await asyncio.gather(*(supervisor.launch(part) for part in down))
    failures = await _failures(supervisor, down, _proxy_is_healthy)
    if failures and not any(part.up for part in parts):
        raise next(iter(failures.values()))


async def _settle(supervisor: Supervisor) -> None:
    """Whoever is told that the cluster is ready expects routes, and replicas in sync."""
    proxies = supervisor.here(ProxyNode)
    running = [part for part in supervisor.here(RedisNode) if part.up]

    async def settled() -> bool:
        await supervisor.tick()
        syncing = any(_is_syncing(supervisor, part) for part in running)
        return not syncing and all([await _asked(part, "/readyz") for part in proxies if part.up])

    if not await _until(settled, SETTLE_PATIENCE):
        supervisor.tell(EventKind.NOTICE, "not every shard can be reached yet: `shoal status` says why")


def _is_syncing(supervisor: Supervisor, part: Part) -> bool:
    says = part.saying()
    if says is None or says.role != "replica" or says.link_up:
        return False
    return any(other.up and says.master == main_endpoint(other.node) for other in supervisor.here(RedisNode))


# ----------------------------------------------------------------------------------------------------------- answers


async def _failures(
    supervisor: Supervisor, parts: Iterable[Part], answers: Callable[[Part], Awaitable[bool]]
) -> dict[str, ShoalError]:
    """Wait for each part's first answer; give the errors of those that do not come to it."""
    failures: dict[str, ShoalError] = {}

    async def wait(part: Part) -> None:
        try:
            await _wait_for_answer(supervisor, part, answers)
        except ProcessError as error:
            failures[part.name] = error
            supervisor.tell(EventKind.NOTICE, error.what, part.name)

    await asyncio.gather(*(wait(part) for part in parts))
    return failures


async def _wait_for_answer(supervisor: Supervisor, part: Part, answers: Callable[[Part], Awaitable[bool]]) -> None:
    log = supervisor.launcher.home(part.node) / LOG_NAME
    began = time.monotonic()
    while not await answers(part):
        if not part.up:
            raise ProcessError(
                f"{part.name} {part.silent} before it answered", where=str(log), hint=f"its log ends: {tail(log, 2)}"
            )
        if "password" in part.silent:
            raise ProcessError(
                f"{part.name} {part.silent}",
                where=str(main_endpoint(part.node)),
                hint="a sentinel keeps the password of its first start: put that back in the password file",
            )
        if part.silent and time.monotonic() - began > ANSWER_PATIENCE:
            raise ProcessError(f"{part.name} did not answer within {ANSWER_PATIENCE:g} s", where=str(log))
        await asyncio.sleep(GLANCE)


async def _until(check: Callable[[], Awaitable[bool]], patience: float) -> bool:
    """Look until it is so, or for that many seconds."""
    deadline = time.monotonic() + patience
    while not await check():
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(GLANCE)
    return True


async def _redis_answers(part: Part) -> bool:
    says = part.saying()
    return part.up and says is not None and not says.loading


async def _sentinel_answers(part: Part) -> bool:
    return part.up and part.words is not None and part.fresh()


async def _proxy_is_healthy(part: Part) -> bool:
    return part.up and await _asked(part, "/healthz")


async def _asked(part: Part, path: str) -> bool:
    try:
        status, _ = await http_get(main_endpoint(part.node), path)
    except Silent:
        return False
    return status == HTTPStatus.OK


def _addresses(layout: Layout) -> str:
    """Where clients connect."""
    pools = layout.topology.pools
    listens = [
        f"{proxy.reach(pool)}" + (f" ({pool})" if len(pools) > 1 else "") for proxy in layout.proxies for pool in pools
    ]
    return f"clients connect to {' or '.join(listens)}"


# -------------------------------------------------------------------------------------------------------------- down


async def stop_leftovers(directory: Path, cluster: str) -> int:
    """Stop what a killed supervisor left running; say how many parts that were."""
    with state.locked(directory, cluster) as kept:
        records = state.load_units(directory)
        stopped = 0
        for group in ({"proxy"}, {"sentinel"}, {"redis"}):
            names = [name for name, record in records.items() if record.kind in group]
            processes = {name: Process.adopt(records[name].pid, records[name].started) for name in names}
            running = {name: process for name, process in processes.items() if process is not None}
            await asyncio.gather(*(one.stop(STOP_PATIENCE[records[name].kind]) for name, one in running.items()))
            stopped += len(running)
        kept.remember_units(
            {name: record.model_copy(update={"pid": None, "started": None}) for name, record in records.items()}
        )
        return stopped

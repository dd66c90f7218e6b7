"""A look at everybody who has to do with a shard, at once: its servers, the sentinels, the proxies.

Rule: nothing is changed, every question is bounded in time, and who does not answer is `Silent`. Called by
`cli.switchover`, and by tests; `standing` says what it comes to.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shoal.ask import Line, Silent, ask_proxy
from shoal.standing import COORDINATED_SINCE, ReplicaKnown, SentinelSays, Standing
from shoal.topology import Endpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from typing import TypeVar

    from shoal.topology import Layout

    T = TypeVar("T")

DOWN = frozenset({"s_down", "o_down", "disconnected"})


async def look(layout: Layout, shard: str) -> Standing:
    """Ask everybody who has to do with a shard, within seconds."""
    secret = layout.topology.auth.password
    password = secret.get_secret_value() if secret else None
    nodes = layout.shard_nodes(shard)

    async def of_sentinel(line: Line) -> SentinelSays:
        return await _of_sentinel(line, shard)

    servers, sentinels, proxies = await asyncio.gather(
        all_or_silent(_over_line(node.endpoint, password, Line.info) for node in nodes),
        all_or_silent(_over_line(node.endpoint, password, of_sentinel) for node in layout.sentinels),
        all_or_silent(ask_proxy(node.admin) for node in layout.proxies),
    )
    over = (name for name in layout.topology.pools if shard in layout.topology.labels(name).values())
    return Standing(
        shard,
        dict(zip(nodes, servers, strict=True)),
        dict(zip(layout.sentinels, sentinels, strict=True)),
        tuple(zip(layout.proxies, proxies, strict=True)),
        {name: layout.topology.pools[name].hold.timeout for name in over},
    )


async def all_or_silent(questions: Iterable[Awaitable[T]]) -> list[T | Silent]:
    """The answers to all of them, asked at once."""

    async def answer(question: Awaitable[T]) -> T | Silent:
        try:
            return await question
        except Silent as silent:
            return silent

    return await asyncio.gather(*map(answer, questions))


async def _over_line(endpoint: Endpoint, password: str | None, ask: Callable[[Line], Awaitable[T]]) -> T:
    line = Line(endpoint, password)
    try:
        return await ask(line)
    finally:
        await line.close()


async def _of_sentinel(line: Line, shard: str) -> SentinelSays:
    report = (await line.masters()).get(shard)
    if report is None:
        raise Silent(f'does not watch "{shard}"')
    replicas = map(fields, await line.command("SENTINEL", "REPLICAS", shard))
    known = {
        Endpoint(one["ip"], int(one["port"])): ReplicaKnown(
            not DOWN & set(one["flags"].split(",")) and one["master-link-status"] == "ok", int(one["slave-priority"])
        )
        for one in replicas
    }
    try:
        await line.command("SENTINEL", "CKQUORUM", shard)
        quorum = None
    except Silent as silent:
        quorum = str(silent)
    version = str((await line.command("INFO", "server")).get("valkey_version", "0"))
    return SentinelSays(report, known, quorum, coordinates=int(version.partition(".")[0]) >= COORDINATED_SINCE)


def fields(item: list[bytes]) -> dict[str, str]:
    """A flat list of names and values, as sentinels answer."""
    words = [word.decode() for word in item]
    return dict(zip(words[::2], words[1::2], strict=True))

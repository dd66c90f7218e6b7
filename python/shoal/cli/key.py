"""`shoal key KEY`: which shard holds a key, and why.

The ring follows from the file alone. The endpoint is the present master's when a majority of sentinels of the running
cluster names one; otherwise it is the file's, and the output says so.
"""

import asyncio
import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from shoal import config, state
from shoal.ask import Line, Silent
from shoal.cli.options import DEFAULT_FILE, FileOption, JsonOption, StateOption
from shoal.cli.printer import Printer
from shoal.cli.ring import ring_of
from shoal.cli.text import plain
from shoal.topology import Endpoint, Layout, Topology, lay_out, majority, ports_to_choose


@dataclass(frozen=True)
class Answer:
    """Where a key is in one pool, and the steps that lead there."""

    pool: str
    shard: str
    label: str
    endpoint: str | None
    endpoint_from: str
    hashed: str
    hash: str
    hash_name: str
    distribution: str
    point: str | None
    slot: int | None


def command(  # noqa: PLR0913, PLR0917  a command's options are its parameters
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key.")],
    hexadecimal: Annotated[bool, typer.Option("--hex", help="KEY is bytes in hexadecimal.")] = False,
    pool: Annotated[str | None, typer.Option("--pool", metavar="NAME", help="Only this pool.")] = None,
    file: FileOption = DEFAULT_FILE,
    directory: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Which shard holds a key, and why."""
    raw = _key_bytes(key, hexadecimal=hexadecimal)
    topology = config.load(file)
    if pool is not None and pool not in topology.pools:
        raise typer.BadParameter(f"there is no pool {pool!r}, only {', '.join(topology.pools)}", param_hint="--pool")
    pools = [pool] if pool is not None else list(topology.pools)
    layout = _layout(topology, state.beside(file) if directory is None else directory)
    answers = [_locate(topology, layout, name, raw) for name in pools]
    printer = Printer()
    if as_json:
        printer.json({"key": plain(raw), "hex": raw.hex(), "pools": [asdict(answer) for answer in answers]})
        return 0
    for answer in answers:
        for line in _lines(answer, raw):
            printer.data(line)
    return 0


def _key_bytes(key: str, *, hexadecimal: bool) -> bytes:
    if not hexadecimal:
        return os.fsencode(key)
    try:
        return bytes.fromhex(key)
    except ValueError:
        raise typer.BadParameter(f"{key!r} is not hexadecimal", param_hint="KEY") from None


def _layout(topology: Topology, directory: Path) -> Layout | None:
    """The layout, if all ports are known: given in the file, or chosen by an earlier `up`."""
    ports = state.load_ports(directory)
    return lay_out(topology, ports) if set(ports_to_choose(topology)) <= ports.keys() else None


def _locate(topology: Topology, layout: Layout | None, pool: str, key: bytes) -> Answer:
    spec = topology.pools[pool]
    located = ring_of(topology, pool).locate(key)
    shard = topology.labels(pool)[located.shard]
    weights = sum(topology.shards[name].weight for name in topology.ring_order(pool))
    endpoint, source = _master(layout, shard)
    return Answer(
        pool=pool,
        shard=shard,
        label=located.shard,
        endpoint=None if endpoint is None else str(endpoint),
        endpoint_from=source,
        hashed=plain(located.tagged),
        hash=f"0x{located.hash:08x}",
        hash_name=spec.hash,
        distribution=spec.distribution,
        point=None if located.point is None else f"0x{located.point:08x}",
        slot=located.hash % weights if spec.distribution == "modula" else None,
    )


def _master(layout: Layout | None, shard: str) -> tuple[Endpoint | None, str]:
    """The shard's master, and who says so."""
    if layout is None:
        return None, "its port is chosen at the first `shoal up`"
    votes = Counter(asyncio.run(_ask_sentinels(layout, shard)))
    for endpoint, count in votes.most_common(1):
        if count >= majority(len(layout.sentinels)):
            return endpoint, f"the master, say {count} of {len(layout.sentinels)} sentinels"
    first = next(node for node in layout.shard_nodes(shard) if node.bootstrap_master)
    return first.endpoint, "the master at the first start; no majority of sentinels answers"


async def _ask_sentinels(layout: Layout, shard: str) -> list[Endpoint]:
    secret = layout.topology.auth.password
    password = None if secret is None else secret.get_secret_value()
    answers = await asyncio.gather(*(_ask(node.endpoint, password, shard) for node in layout.sentinels))
    return [answer for answer in answers if answer is not None]


async def _ask(sentinel: Endpoint, password: str | None, shard: str) -> Endpoint | None:
    line = Line(sentinel, password)
    try:
        reply: Any = await line.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", shard)
    except Silent:
        return None
    finally:
        await line.close()
    return None if reply is None else Endpoint(reply[0].decode(), int(reply[1]))


def _lines(answer: Answer, key: bytes) -> list[str]:
    part = "the whole key" if answer.hashed == plain(key) else "what its hash tag encloses"
    lines = [
        f'"{plain(key)}" is on shard {answer.shard}',
        f"  pool      {answer.pool}",
        f"  endpoint  {answer.endpoint or 'not known yet'} ({answer.endpoint_from})",
        f'  hashed    "{answer.hashed}" ({part})',
        f"  hash      {answer.hash} ({answer.hash_name})",
    ]
    if answer.label != answer.shard:
        lines.insert(2, f"  label     {answer.label} (what the ring has for the shard)")
    if answer.point is not None:
        lines.append(f"  point     {answer.point} ({answer.distribution}: the first on the ring at or after the hash)")
    elif answer.slot is not None:
        lines.append(f"  slot      {answer.slot} (modula: the hash modulo the sum of the weights)")
    else:
        lines.append("  warning   the distribution is random: any shard may hold the key")
    return lines

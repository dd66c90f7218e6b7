"""`shoal switchover`: gives a shard another master on purpose, without an error for clients and without a loss.

It shows who is what and what it is about to do, asks, and tells each step with its time. What stands against it is said
before anything is touched. Ctrl-C undoes what has been done, until the sentinels have been asked: from then on it is
finished.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal import config, state
from shoal.ask import Silent
from shoal.cli.options import DEFAULT_FILE, FileOption, StateOption
from shoal.cli.printer import Printer
from shoal.errors import ConfigError, ProcessError, SwitchoverError
from shoal.topology import Layout, RedisNode, lay_out, ports_to_choose

if TYPE_CHECKING:
    from shoal.standing import Plan, Standing
    from shoal.switchover import Done, Switchover

INTERRUPTED = 130


def command(  # noqa: PLR0913, PLR0917  a command's options are its parameters
    shard: Annotated[str, typer.Argument(metavar="SHARD", help="The shard that gets another master.")],
    file: FileOption = DEFAULT_FILE,
    to: Annotated[
        str | None, typer.Option("--to", metavar="REPLICA", help="Its name, or HOST:PORT; by default the best one.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all, and only say what would be done.")] = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    coordinated: Annotated[
        bool, typer.Option("--coordinated", help="By Valkey 9's SENTINEL FAILOVER COORDINATED: holds a second longer.")
    ] = False,
    directory: StateOption = None,
) -> int:
    """Give a shard another master, without errors and without loss."""
    from shoal.standing import limitations, plan
    from shoal.survey import look

    printer = Printer()
    layout = _layout(file, directory)
    wanted = _nodes(layout, shard, to)
    standing = asyncio.run(look(layout, shard))
    against = limitations(standing, wanted, coordinated=coordinated)
    for line in standing_lines(standing):
        printer.data(line)
    if against:
        for error in against:
            printer.error(error)
        printer.talk("nothing was touched")
        return 1
    planned = plan(standing, wanted, coordinated=coordinated)
    for line in plan_lines(planned):
        printer.data(line)
    if dry_run:
        return 0
    if not yes:
        _ask(planned)
        standing = asyncio.run(look(layout, shard))
        if limitations(standing, planned.new, coordinated=coordinated) or standing.master != planned.old:
            raise SwitchoverError(f'shard "{shard}" has changed meanwhile', hint="look at it again")
    return asyncio.run(_run(layout, planned, printer))


def _layout(file: Path, directory: Path | None) -> Layout:
    topology = config.load(file)
    directory = directory or state.beside(file.absolute())
    ports = state.load_ports(directory)
    if not set(ports_to_choose(topology)) <= ports.keys():
        raise ProcessError(f"the cluster was never up: {directory} holds no ports", hint="start it with `shoal up`")
    return lay_out(topology, ports)


def _nodes(layout: Layout, shard: str, to: str | None) -> RedisNode | None:
    """The replica that was asked for; ConfigError if there is no such thing."""
    if shard not in layout.topology.shards:
        raise ConfigError(f'there is no shard "{shard}"', hint=f"the topology has {', '.join(layout.topology.shards)}")
    nodes = layout.shard_nodes(shard)
    for node in nodes:
        if to in (node.name, str(node.endpoint)):
            return node
    if to is not None:
        names = ", ".join(node.name for node in nodes)
        raise ConfigError(f'shard "{shard}" has no server "{to}"', hint=f"it has {names}")
    return None


def standing_lines(standing: Standing) -> Iterator[str]:
    """Who is what."""
    yield f"shard {standing.shard}"
    for node in standing.servers:
        said = standing.servers[node]
        if isinstance(said, Silent):
            yield f"  {node.name}  {node.endpoint}  {said}"
            continue
        state_of = f"offset {said.offset}"
        if said.role == "replica":
            state_of += f", {standing.lag(node)} bytes behind" if said.link_up else ", not in sync"
        yield f"  {node.name}  {node.endpoint}  {said.role:<7}  {state_of}"
    yield f"  sentinels: {', '.join(node.name for node in standing.sentinels)}"
    yield f"  proxies: {', '.join(proxy.name for proxy, _ in standing.proxies)}"


def plan_lines(plan: Plan) -> Iterator[str]:
    """What is done, in order."""
    yield f"{plan.new.name} becomes the master in place of {plan.old.name}:"
    for number, step in enumerate(plan.steps(), 1):
        yield f"  {number}. {step}"


def _ask(plan: Plan) -> None:
    if not sys.stdin.isatty():
        raise ConfigError("nobody is there to be asked", hint="say --yes, or --dry-run to see what it would do")
    typer.confirm(f'Change the master of shard "{plan.shard}" to {plan.new.name}?', abort=True, err=True)


async def _run(layout: Layout, plan: Plan, printer: Printer) -> int:
    from shoal.switchover import Switchover

    def tell(done: Done) -> None:
        printer.data(f"{done.at * 1000:7.0f} ms  {done.what}  ({done.took * 1000:.0f} ms)")

    secret = layout.topology.auth.password
    switchover = Switchover(plan, secret.get_secret_value() if secret else None, tell)
    task = asyncio.create_task(switchover.run())
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, _interrupt, switchover, task, printer)
    try:
        wrong = await task
    except asyncio.CancelledError:
        printer.talk("interrupted: nothing was changed, and what was begun is undone")
        return INTERRUPTED
    for what in wrong:
        printer.warning(what)
    printer.data(f"{plan.new.name} is the master of shard {plan.shard}")
    return 1 if wrong else 0


def _interrupt(switchover: Switchover, task: asyncio.Task[list[str]], printer: Printer) -> None:
    if switchover.final:
        printer.talk("the sentinels have been asked: this is finished now, and not undone")
    else:
        task.cancel()

"""`shoal import`: writes the shoal.yaml that serves what a nutcracker.yml does, with every key where it is.

The sentinels are asked if the file or --sentinel names any. The text is read back and its rings are compared with
nutcracker's before anything is written.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal import config, document, nutcracker
from shoal.cli.options import DEFAULT_FILE
from shoal.cli.printer import Printer
from shoal.draft import Draft, text
from shoal.errors import ConfigError, SentinelError
from shoal.pools import ring_spec, ring_spec_of
from shoal.topology import Endpoint, Topology

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.census import Known
    from shoal.nutcracker import Pool

SECRET = "secret"  # noqa: S105 - a file's name
PRIVATE, PUBLIC = 0o600, 0o644


def command(  # noqa: PLR0913, PLR0917  a command's options are its parameters
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The nutcracker.yml.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The file to write, in place of stdout.")
    ] = None,
    pool: Annotated[
        list[str] | None, typer.Option("--pool", metavar="NAME", help="Only this pool; may be repeated.")
    ] = None,
    sentinel: Annotated[
        list[str] | None,
        typer.Option("--sentinel", metavar="HOST:PORT", help="A sentinel to ask, in place of the file's; repeat it."),
    ] = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option("--proxy", metavar="HOST", help="Where a proxy runs, by default here; may be repeated."),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            "--password-file", metavar="FILE", help="File with the password; by default redis_auth is written to one."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
) -> int:
    """Write the shoal.yaml that a nutcracker.yml comes to."""
    from shoal.conversion import Material, convert
    from shoal.ports import own_address
    from shoal.tie import addresses_of

    pools = _chosen(nutcracker.load(file).pools, pool)
    _require_new(output, force=force)
    password = _password(pools, password_file)
    known = asyncio.run(_ask(pools, [_endpoint(at) for at in sentinel or ()], password))
    draft = convert(
        Material(
            file=str(file),
            pools=pools,
            resolve=addresses_of,
            here=own_address,
            known=known,
            ties=_tie(pools, known, file),
            proxies=tuple(proxy or ()),
            password_file=None if password is None else _secret_name(output, password_file),
        )
    )
    written = text(draft)
    topology = _read_back(written, draft, password)
    require_same_rings(pools, topology)
    printer = Printer()
    if output is None:
        printer.data(written.removesuffix("\n"))
    else:
        if password is not None and password_file is None:
            _write_secret(output.parent / SECRET, password, force=force)
        _write(output, written, PUBLIC, force=force)
    _tell(printer, draft, topology, output)
    return 0


def _chosen(pools: Sequence[Pool], wanted: Sequence[str] | None) -> list[Pool]:
    for name in wanted or ():
        if name not in [pool.name for pool in pools]:
            names = ", ".join(pool.name for pool in pools)
            raise typer.BadParameter(f"there is no pool {name!r}, only {names}", param_hint="--pool")
    return [pool for pool in pools if not wanted or pool.name in wanted]


def _endpoint(text: str) -> Endpoint:
    try:
        return Endpoint.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--sentinel") from None


# ----------------------------------------------------------------------------------------------------------- sentinels


async def _ask(pools: Sequence[Pool], given: Sequence[Endpoint], password: str | None) -> dict[str, Known]:
    """What the sentinels of each pool know; SentinelError if they are too few. Empty if no pool has any."""
    from shoal.census import groups

    sentinels = {pool.name: tuple(given) or pool.sentinels for pool in pools}
    without = [name for name, ones in sentinels.items() if not ones]
    if without and len(without) < len(sentinels):
        what = f'pool "{without[0]}" has no sentinels, and others have: a topology has one set for all'
        raise ConfigError(what, hint="name them for all pools with --sentinel, or write a file for each with --pool")
    answers = {ones: await groups(ones, password) for ones in dict.fromkeys(sentinels.values()) if ones}
    for known in answers.values():
        missing = known.why_not_enough()
        if missing is not None:
            raise SentinelError(missing, hint="run this where they can be reached, with the password that they want")
    return {name: answers[ones] for name, ones in sentinels.items() if ones}


def _tie(pools: Sequence[Pool], known: Mapping[str, Known], file: Path) -> dict[str, dict[str, str]]:
    """The master's name of each server, by pool and label; all that cannot be tied is one error."""
    from shoal.tie import addresses_of, tie, wanted_by

    ties: dict[str, dict[str, str]] = {}
    errors: list[ConfigError] = []
    for pool in pools:
        if pool.name in known:
            wanted = wanted_by(pool, str(file))
            try:
                ties[pool.name] = tie(wanted.servers, known[pool.name].groups, addresses_of, where=wanted.where)
            except ConfigError as error:
                errors += error.parts or (error,)
    if errors:
        raise ConfigError.together(errors, "servers")
    return ties


# ------------------------------------------------------------------------------------------------------------ password


def _password(pools: Sequence[Pool], file: Path | None) -> str | None:
    """The one password of all pools; what `file` holds must be the same."""
    passwords = {pool.name: pool.redis_auth for pool in pools}
    first, *others = passwords.items()
    for name, password in others:
        if password != first[1]:
            what = f'pools "{first[0]}" and "{name}" do not have the same redis_auth, and a topology has one password'
            raise ConfigError(what, hint="write a file for each pool, with --pool")
    if file is None:
        return first[1]
    try:
        given = file.read_text("utf-8").removesuffix("\n").removesuffix("\r")
        mode = file.stat().st_mode
    except OSError as error:
        raise ConfigError(f"the password cannot be read: {error.strerror}", where=str(file)) from None
    except UnicodeDecodeError:
        raise ConfigError("the password is not UTF-8 text", where=str(file)) from None
    if stat.S_IMODE(mode) & stat.S_IROTH:
        raise ConfigError("everybody here can read the password", where=str(file), hint=f"chmod 600 {file}")
    if first[1] is not None and first[1] != given:
        raise ConfigError("this is another password than the file's redis_auth", where=str(file))
    return given


def _secret_name(output: Path | None, file: Path | None) -> str:
    """How the topology calls the password's file: relative to itself."""
    if file is None or output is None:
        return f"./{SECRET}" if file is None else str(file)
    return os.path.relpath(file, output.parent)


def _write_secret(path: Path, password: str, *, force: bool) -> None:
    content = f"{password}\n"
    try:
        if path.read_text("utf-8") == content:
            path.chmod(PRIVATE)
            return
    except (OSError, UnicodeDecodeError):
        pass
    _write(path, content, PRIVATE, force=force)


# ------------------------------------------------------------------------------------------------------------- writing


def _read_back(written: str, draft: Draft, password: str | None) -> Topology:
    """The text as Shoal reads it; ConfigError if it is not valid, as when a weight is larger than Shoal's may be."""
    source = f"{draft.origin} as shoal.yaml"
    data: dict[str, Any] = document.read(written, source).data
    if password is not None:
        data["auth"]["password"] = password
    return config.parse(data, source)


def require_same_rings(pools: Sequence[Pool], topology: Topology) -> None:
    """Refuse a topology under which a single key would be looked for elsewhere.

    What makes a ring must be the same, and of the rings that come of it every hash is compared where it can be.
    """
    for pool, name in zip(pools, topology.pools, strict=True):
        before, after = ring_spec_of(pool), ring_spec(topology, name)
        moves = before.ring().moves(after.ring()) or {}
        if before != after or any(old != new for old, new in moves):
            what = f'keys of pool "{pool.name}" would be looked for elsewhere, so nothing is written'
            raise ConfigError(what, hint="this is a bug of Shoal: please report it with the file")


def _require_new(path: Path | None, *, force: bool) -> None:
    if path is not None and path.exists() and not force:
        raise ConfigError(f"{path} is there already", hint="--force overwrites it")


def _write(path: Path, content: str, mode: int, *, force: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with os.fdopen(os.open(path, flags, mode), "w", encoding="utf-8") as stream:
            if mode == PRIVATE:
                os.fchmod(stream.fileno(), mode)
            stream.write(content)
    except FileExistsError:
        raise ConfigError(f"{path} is there already", hint="--force overwrites it") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def _tell(printer: Printer, draft: Draft, topology: Topology, output: Path | None) -> None:
    if output is not None:
        printer.talk(f"Wrote {output}: {_contents(topology)}. Every key is where it was.")
    for sentence in draft.assumed:
        printer.warning(f"assumed: {sentence}")
    for sentence in draft.left_out:
        printer.warning(f"left out: {sentence}")
    if output is None:
        if draft.password_file == f"./{SECRET}":
            printer.talk(f"Put redis_auth's password into the file `{SECRET}` beside it, with mode 0600.")
        return
    option = "" if output == DEFAULT_FILE else f" -f {shlex.quote(str(output))}"
    check, serve = f"shoal check{option}", f"shoal proxy{option} --node proxy1"
    printer.talk("Next:")
    printer.talk(f"  {check.ljust(len(serve))}    what it means")
    if draft.watched:
        printer.talk(f"  {serve}    serve it in nutcracker's place")
    else:
        printer.talk("  let sentinels watch the masters, and import again with --sentinel HOST:PORT")


def _contents(topology: Topology) -> str:
    shards = topology.shards.values()
    counts = {
        "pool": len(topology.pools),
        "shard": len(shards),
        "replica": sum(len(shard.replicas) for shard in shards),
        "sentinel": len(topology.sentinel.nodes),
    }
    *most, last = (f"{count} {word}{'s' * (count != 1)}" for word, count in counts.items())
    return f"{', '.join(most)} and {last}"

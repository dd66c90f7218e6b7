"""`shoal diff OLD NEW`: what share of the keys a change of the configuration moves, and with --sample which real ones.

Nothing is changed and, but for the keys that --sample reads, nobody is asked. Either file may be a shoal.yaml or a
nutcracker.yml.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal import pools
from shoal.cli.moved import EXAMPLES, Difference, PoolDifference, RealKeys, difference_json, difference_lines
from shoal.cli.options import JsonOption
from shoal.cli.printer import Printer
from shoal.errors import ConfigError
from shoal.moves import Moves, compare, owners
from shoal.topology import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shoal.pools import PoolRing
    from shoal.samples import Sample

PASSWORD_VARIABLE = "SHOAL_SAMPLE_PASSWORD"  # noqa: S105 - a variable's name
MOST_KEYS = 100_000
OF_HASHES = "shares are of all hashes; numbered keys can hash unevenly: --sample HOST:PORT tries real ones"


def command(  # noqa: PLR0913, PLR0917  a command's options are its parameters
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The present file: a shoal.yaml or a nutcracker.yml.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The file that is to replace it, of either kind.")],
    pool: Annotated[str | None, typer.Option("--pool", metavar="NAME", help="Only this pool.")] = None,
    sample: Annotated[
        list[str] | None,
        typer.Option("--sample", metavar="HOST:PORT", help="A Redis server whose keys to try; may be repeated."),
    ] = None,
    keys: Annotated[int, typer.Option("--keys", metavar="N", min=1, help="Most keys to try.")] = MOST_KEYS,
    password_file: Annotated[
        Path | None,
        typer.Option(
            "--password-file",
            metavar="FILE",
            help=f"File with the password of those servers; by default it is in {PASSWORD_VARIABLE}.",
        ),
    ] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if keys move.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Say what share of the keys a change of the configuration moves."""
    endpoints = [_endpoint(text) for text in sample or ()]
    printer = Printer()
    pairs, only_old, only_new = _matched(pools.load(old), pools.load(new), pool)
    _require_one_pool(pairs, endpoints)
    found = tuple(PoolDifference(one, other, compare(one.spec, other.spec)) for one, other in pairs)
    if endpoints:
        found = (found[0].with_real(_real_keys(printer, found[0], endpoints, keys, _password(password_file))),)
    difference = Difference(str(old), str(new), found, only_old, only_new)
    if as_json:
        printer.json(difference_json(difference))
    else:
        for line in difference_lines(difference):
            printer.data(line)
        if not endpoints and any(pool.only_some for pool in found):
            printer.talk(OF_HASHES)
    return 1 if exit_code and not difference.nothing else 0


def _matched(
    old: dict[str, PoolRing], new: dict[str, PoolRing], wanted: str | None
) -> tuple[list[tuple[PoolRing, PoolRing]], tuple[str, ...], tuple[str, ...]]:
    """The pools that are the same in both files, by name or because there is but one, and the names of the others."""
    if wanted is not None and wanted not in {**old, **new}:
        names = ", ".join({**old, **new})
        raise typer.BadParameter(f"there is no pool {wanted!r}, only {names}", param_hint="--pool")
    if len(old) == len(new) == 1:
        return list(zip(old.values(), new.values(), strict=True)), (), ()
    pairs = [(old[name], new[name]) for name in old if name in new and wanted in (None, name)]
    only_old, only_new = (
        tuple(name for name in one if name not in other and wanted in (None, name))
        for one, other in ((old, new), (new, old))
    )
    return pairs, only_old, only_new


def _require_one_pool(pairs: list[tuple[PoolRing, PoolRing]], endpoints: list[Endpoint]) -> None:
    """Real keys are of one pool, and mean something only where a key has a shard."""
    if not endpoints:
        return
    if len(pairs) != 1:
        what = f"{len(pairs)} pools are compared: name the one that has these keys with --pool"
        raise typer.BadParameter(what, param_hint="--sample")
    if not all(one.spec.has_owners() for one in pairs[0]):
        raise typer.BadParameter("the distribution is random: no key has a shard of its own", param_hint="--sample")


def _endpoint(text: str) -> Endpoint:
    try:
        return Endpoint.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--sample") from None


def _password(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(PASSWORD_VARIABLE) or None
    try:
        if stat.S_IMODE(file.stat().st_mode) & stat.S_IROTH:
            what = "everybody on this machine can read the password"
            raise ConfigError(what, where=str(file), hint=f"chmod 600 {file}")
        return file.read_text("utf-8").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise ConfigError(f"the password cannot be read: {error.strerror}", where=str(file)) from None
    except UnicodeDecodeError:
        raise ConfigError("the password is not UTF-8 text", where=str(file)) from None


# ------------------------------------------------------------------------------------------------------------ real keys


def _real_keys(
    printer: Printer, pool: PoolDifference, endpoints: list[Endpoint], most: int, password: str | None
) -> RealKeys:
    from shoal import samples

    source = samples.Source(endpoints, pool.old.database, password)
    with _progress(printer) as tell:
        sample = samples.read(source, most, tell)
    return _counted(pool, sample)


def _counted(pool: PoolDifference, sample: Sample) -> RealKeys:
    old, new = pool.old.spec, pool.new.spec
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], list[bytes]] = {}
    for key, pair in zip(sample.keys, owners(old, new, sample.keys), strict=True):
        counts[pair] += 1
        if pair[0] != pair[1] and counts[pair] <= EXAMPLES:
            examples.setdefault(pair, []).append(key)
    moves = Moves(old.names(), new.names(), dict(sorted(counts.items())))
    return RealKeys(len(sample.keys), sample.held, moves, examples)


@contextlib.contextmanager
def _progress(printer: Printer) -> Iterator[Callable[[Endpoint, int], None]]:
    """Shows on a terminal how far it is."""
    if not printer.err.is_terminal:
        yield lambda _endpoint, _count: None
        return
    with printer.err.status("reading keys") as status:
        yield lambda endpoint, count: status.update(f"reading keys of {endpoint}: {count:,}")

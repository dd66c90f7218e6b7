"""What a change of the configuration moves, in words and tables, and as JSON.

Rule: each pool begins with the one line that says it all; a table follows only where something moves. What is
estimated says so in its line, and a 0 is exact. Called by `shoal diff`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from shoal.cli.text import plain, table
from shoal.moves import Comparison, Moves, ShardMoves, percent
from shoal.pools import PoolRing

EXAMPLES = 3
"""Keys that are shown for each shard that loses some."""

_MOST_TARGETS = 8
_MOST_LETTERS = 40


@dataclass(frozen=True)
class RealKeys:
    """Keys that servers gave: how many, of how many they hold, and where they go."""

    read: int
    held: int
    moves: Moves
    examples: Mapping[tuple[str, str], list[bytes]]


@dataclass(frozen=True)
class PoolDifference:
    """One pool before and after."""

    old: PoolRing
    new: PoolRing
    comparison: Comparison
    real: RealKeys | None = None

    def with_real(self, real: RealKeys) -> "PoolDifference":
        return replace(self, real=real)

    @property
    def nothing(self) -> bool:
        """Whether it is certain that no key moves; with random, that nothing at all changes."""
        return self.comparison.nothing or self.old.spec == self.new.spec

    @property
    def only_some(self) -> bool:
        """Whether it depends on the keys which of them move."""
        parts = [moves for moves in (self.comparison.keys, self.comparison.tagged) if moves is not None]
        return any(not moves.nothing and not moves.everything for moves in parts)


@dataclass(frozen=True)
class Difference:
    """Two files: the pools that are in both, and the names of the others."""

    old_file: str
    new_file: str
    pools: tuple[PoolDifference, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]

    @property
    def nothing(self) -> bool:
        return all(pool.nothing for pool in self.pools) and not self.only_old and not self.only_new


# ---------------------------------------------------------------------------------------------------------- for people


def difference_lines(difference: Difference) -> Iterator[str]:
    """The whole answer."""
    blocks = [list(_pool_lines(pool, difference.new_file)) for pool in difference.pools]
    others = [f"pool {name}: only in {difference.old_file}" for name in difference.only_old]
    others += [f"pool {name}: only in {difference.new_file}" for name in difference.only_new]
    for number, block in enumerate([*blocks, others] if others else blocks):
        if number:
            yield ""
        yield from block


def _pool_lines(pool: PoolDifference, new_file: str) -> Iterator[str]:
    other = "" if pool.old.name == pool.new.name else f" ({pool.new.name} in {new_file})"
    title, comparison = f"pool {pool.old.name}{other}", pool.comparison
    if comparison.keys is None:
        yield f"{title}: nobody can say which keys move: {comparison.why}"
    elif comparison.tagged is None:
        yield f"{title}: {_sentence(comparison.keys)}"
        yield from _estimated(comparison.keys, comparison.why)
        yield from _share_table(comparison.keys)
    else:
        yield f"{title}: {_sentence(comparison.keys, ' without a hash tag')}"
        yield f"and {_sentence(comparison.tagged, ' with a hash tag')}"
        yield from _estimated(comparison.tagged, comparison.why)
        yield from _share_table(comparison.keys, "without a hash tag")
        yield from _share_table(comparison.tagged, "with a hash tag")
    if pool.real is not None:
        yield ""
        yield from _real_lines(pool.real)


def _sentence(moves: Moves, which: str = "") -> str:
    if moves.nothing:
        return f"0 keys{which} move"
    if moves.everything:
        return f"all keys{which} move"
    if moves.moved == 0:
        return f"none of {moves.sample:,} random keys{which} moves"
    about = "" if moves.exact else "about "
    return f"{about}{percent(moves.moved, exact=moves.exact)} of {'the' if which else 'all'} keys{which} move"


def _estimated(moves: Moves, why: str | None) -> Iterator[str]:
    if not moves.exact:
        yield f"estimated with {moves.sample:,} random keys: {why}"


def _share_table(moves: Moves, caption: str = "") -> Iterator[str]:
    if moves.moved == 0:
        return
    yield ""
    if caption:
        yield f"keys {caption}"
    yield from table(
        [
            ("shard", "before", "stay", "go", "after"),
            *_rows(moves, lambda share: percent(share, exact=moves.exact)),
        ]
    )


def _real_lines(real: RealKeys) -> Iterator[str]:
    of = "all that the servers hold" if real.read >= real.held else f"the servers hold {real.held:,}"
    yield f"{real.moves.moved:,.0f} of {real.read:,} sampled keys move ({of})"
    if real.moves.moved:
        yield ""
        rows = list(_rows(real.moves, lambda count: f"{count:,.0f}", real))
        yield from table([("shard", "before", "stay", "go", "after", "for example"), *rows])


def _rows(moves: Moves, shown: Callable[[float], str], real: RealKeys | None = None) -> Iterator[tuple[str, ...]]:
    """A row for each shard, and one more for each further shard that its keys go to."""
    for row in moves.by_shard():
        before, after = (shown(part) if part is not None else "-" for part in (row.before, row.after))
        first, *more = [f"{shown(amount)} to {shard}" for shard, amount in _targets(row)] or [shown(0)]
        stay = shown(row.stays) if row.after is not None else "0"
        cells = (row.shard, before, stay, first, after) if row.before is not None else (row.shard, "-", "-", "-", after)
        examples = () if real is None else (_examples(real, row),)
        yield cells + examples
        yield from (("", "", "", target, "", *("" for _ in examples)) for target in more)


def _targets(row: ShardMoves) -> list[tuple[str, float]]:
    """Where a shard's keys go, the most first; the least, if there are many, together."""
    targets = sorted(row.goes.items(), key=lambda pair: -pair[1])
    shown, rest = targets[:_MOST_TARGETS], targets[_MOST_TARGETS:]
    return [*shown, (f"{len(rest)} others", sum(amount for _, amount in rest))] if rest else shown


def _examples(real: RealKeys, row: ShardMoves) -> str:
    keys = [key for target in row.goes for key in real.examples.get((row.shard, target), ())]
    return ", ".join(f'"{_short(plain(key))}"' for key in keys[:EXAMPLES])


def _short(text: str) -> str:
    return text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 3]}..."


# -------------------------------------------------------------------------------------------------------- for programs


def difference_json(difference: Difference) -> dict[str, Any]:
    """The same, with the shares in full."""
    return {
        "old": difference.old_file,
        "new": difference.new_file,
        "nothing_moves": difference.nothing,
        "pools": [_pool_json(pool) for pool in difference.pools],
        "only_in_old": list(difference.only_old),
        "only_in_new": list(difference.only_new),
    }


def _pool_json(pool: PoolDifference) -> dict[str, Any]:
    comparison, real = pool.comparison, pool.real
    return {
        "old": pool.old.name,
        "new": pool.new.name,
        "nothing_moves": pool.nothing,
        "why_not_exact": comparison.why,
        "keys": None if comparison.keys is None else _moves_json(comparison.keys),
        "keys_with_a_tag": None if comparison.tagged is None else _moves_json(comparison.tagged),
        "real_keys": None if real is None else _real_json(real),
    }


def _moves_json(moves: Moves) -> dict[str, Any]:
    return {
        "exact": moves.exact,
        "sample": moves.sample,
        "moved": moves.moved,
        "shards": [
            {
                "shard": row.shard,
                "before": row.before,
                "after": row.after,
                "stays": row.stays,
                "lost": row.lost,
                "gained": row.gained,
            }
            for row in moves.by_shard()
        ],
        "flows": [{"from": old, "to": new, "share": share} for (old, new), share in moves.flows.items() if old != new],
    }


def _real_json(real: RealKeys) -> dict[str, Any]:
    return {
        "read": real.read,
        "held": real.held,
        "moved": int(real.moves.moved),
        "flows": [
            {
                "from": old,
                "to": new,
                "keys": count,
                "examples": [plain(key) for key in real.examples.get((old, new), ())],
            }
            for (old, new), count in real.moves.flows.items()
            if old != new
        ],
    }

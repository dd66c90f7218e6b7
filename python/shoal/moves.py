"""What share of a pool's keys a change of its configuration moves, and from which shard to which.

Owns the comparison of two rings. Rule: a share is exact, every hash counted, or it says that it is an estimate and of
how many random keys; only an exact 0 is shown as 0. Where a distribution is random, nobody can say, and neither do we.

    the same hash and tag                    every hash is counted                                exact
    another hash, or one without a space     random keys are looked up in both rings              estimated
    another hash tag                         keys without a tag as above; those with one apart    estimated

The same rings always give the same answer: the random keys are seeded. No file, no server. Called by `shoal diff`.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random
from string import ascii_letters, digits
from typing import TYPE_CHECKING

from shoal.plane import Ring

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from shoal.plane import ShardSpec

SAMPLE = 200_000
"""Random keys of an estimate: its shares are right to 0.3 % of all keys, 99 times of 100."""

_SEED = 3
_WORD = 12
_LETTERS = (ascii_letters + digits).encode()
_SMALL = 0.0001


@dataclass(frozen=True)
class RingSpec:
    """All of a pool that decides where its keys are; the shards in the order of the ring."""

    hash: str
    distribution: str
    hash_tag: str | None
    shards: tuple[ShardSpec, ...]

    def ring(self) -> Ring:
        return Ring(self.shards, self.hash, self.distribution, self.hash_tag)

    def names(self) -> tuple[str, ...]:
        return tuple(shard.name for shard in self.shards)

    def has_owners(self) -> bool:
        """Whether a key has a shard of its own."""
        return self.distribution != "random" or len(self.shards) == 1


@dataclass
class ShardMoves:
    """A shard's part in it; before or after is None where the ring does not have it."""

    shard: str
    before: float | None
    after: float | None
    stays: float = 0.0
    goes: dict[str, float] = field(default_factory=dict)
    comes: dict[str, float] = field(default_factory=dict)

    @property
    def lost(self) -> float:
        return math.fsum(self.goes.values())

    @property
    def gained(self) -> float:
        return math.fsum(self.comes.values())


@dataclass(frozen=True)
class Moves:
    """Where keys go, from shard to shard; those that stay are in it, and pairs without any are not.

    The amounts are shares of all keys, or of real keys how many. `sample` is how many random keys they were estimated
    with; None is a count.
    """

    old: tuple[str, ...]
    new: tuple[str, ...]
    flows: Mapping[tuple[str, str], float]
    sample: int | None = None

    @property
    def exact(self) -> bool:
        return self.sample is None

    @property
    def moved(self) -> float:
        """How much moves."""
        return math.fsum(share for (old, new), share in self.flows.items() if old != new)

    @property
    def nothing(self) -> bool:
        """Whether it is certain that no key moves."""
        return self.exact and self.moved == 0

    @property
    def everything(self) -> bool:
        """Whether it is certain that every key moves; without a shard in common no counting is needed."""
        return (self.exact and self.moved == 1) or not set(self.old) & set(self.new)

    def by_shard(self) -> list[ShardMoves]:
        """The same, by shard: the old ones in the order of their ring, then those that are new."""
        rows = {
            name: ShardMoves(name, 0.0 if name in self.old else None, 0.0 if name in self.new else None)
            for name in dict.fromkeys(self.old + self.new)
        }
        for (old, new), share in self.flows.items():
            if old == new:
                rows[old].stays = share
            else:
                rows[old].goes[new] = rows[new].comes[old] = share
        for row in rows.values():
            row.before = None if row.before is None else math.fsum((row.stays, row.lost))
            row.after = None if row.after is None else math.fsum((row.stays, row.gained))
        return list(rows.values())


@dataclass(frozen=True)
class Comparison:
    """What a change moves. `keys` is None if nobody can say; `why` says why there is no exact answer.

    With another hash tag, `keys` is about those that have no tag in them, and `tagged` about those that have one.
    """

    keys: Moves | None
    tagged: Moves | None = None
    why: str | None = None

    @property
    def nothing(self) -> bool:
        """Whether it is certain that no key moves."""
        return all(moves.nothing for moves in (self.keys, self.tagged) if moves) and self.keys is not None


def compare(old: RingSpec, new: RingSpec) -> Comparison:
    """What moves if `new` takes the place of `old`."""
    if not (old.has_owners() and new.has_owners()):
        return Comparison(None, why="the distribution is random, so any shard may have any key")
    counted = old.ring().moves(new.ring())
    if counted is not None:
        return Comparison(Moves(old.names(), new.names(), counted))
    if old.hash_tag == new.hash_tag:
        return Comparison(_estimate(old, new, _words()), why=_why(old, new))
    untagged = compare(replace(old, hash_tag=None), replace(new, hash_tag=None))
    if not set(old.names()) & set(new.names()):
        return untagged  # all keys move, tag or none
    why = f"the hash tag changes from {old.hash_tag or 'none'} to {new.hash_tag or 'none'}"
    why = f"{untagged.why}, and {why}" if untagged.why else why
    return Comparison(untagged.keys, _estimate(old, new, _tagged_words(old, new)), why)


def owners(old: RingSpec, new: RingSpec, keys: Sequence[bytes]) -> Iterable[tuple[str, str]]:
    """The shard of each key before and after."""
    return zip(old.ring().owners(keys), new.ring().owners(keys), strict=True)


def percent(share: float, *, exact: bool = True) -> str:
    """A share as people read it: never a 0 or a 100 % that is none, and of an estimate neither."""
    if exact and share in (0, 1):
        return "0" if share == 0 else "100 %"
    if share < _SMALL:
        return "<0.01 %"
    if share > 1 - _SMALL:
        return ">99.99 %"
    per_cent = 100 * share
    return f"{per_cent:.1f} %" if 1 <= per_cent < 99 else f"{per_cent:.2f} %"


def _why(old: RingSpec, new: RingSpec) -> str:
    """Why not every hash can be counted."""
    if old.hash != new.hash:
        return f"the hash changes from {old.hash} to {new.hash}"
    if old.hash == "crc16":
        return "crc16 does not give all hashes equally often"
    return "there are too many slots to count every hash"


def _estimate(old: RingSpec, new: RingSpec, keys: Sequence[bytes]) -> Moves:
    counts = Counter(owners(old, new, keys))
    flows = {pair: count / len(keys) for pair, count in sorted(counts.items())}
    return Moves(old.names(), new.names(), flows, len(keys))


def _words() -> list[bytes]:
    """Random words of letters and digits."""
    table = bytes(_LETTERS[byte % len(_LETTERS)] for byte in range(256))
    text = Random(_SEED).randbytes(SAMPLE * _WORD).translate(table)  # noqa: S311 - it is to be the same each time
    return [text[at : at + _WORD] for at in range(0, len(text), _WORD)]


def _tagged_words(old: RingSpec, new: RingSpec) -> list[bytes]:
    """Random words with a part between the markers of the old tag and of the new one, in turn."""
    tags = [tag.encode() for tag in (old.hash_tag, new.hash_tag) if tag]
    half = _WORD // 2
    marked = ((tags[at % len(tags)], word) for at, word in enumerate(_words()))
    return [tag[:1] + word[:half] + tag[1:] + word[half:] for tag, word in marked]

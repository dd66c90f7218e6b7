"""What is wrong with a topology although each of its sections is right by itself, and what is merely unwise.

Rule: a problem names the key path it is about, and says why and what to do; a warning is one sentence. Called by
`config` (problems) and by `shoal check` and `shoal up` (warnings).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from shoal.topology.layout import Path, slots
from shoal.topology.model import LOCAL, Topology
from shoal.topology.values import is_address


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that cannot be: at a key path, perhaps in conflict with another."""

    path: Path
    what: str
    hint: str | None = None
    other: Path | None = None


def _dangling_hosts(topology: Topology) -> Iterator[Problem]:
    for slot in slots(topology):
        if slot.host != LOCAL and slot.host not in topology.hosts and not is_address(slot.host):
            yield Problem(slot.path, f'there is no host "{slot.host}"')


Rule = Callable[[Topology], Iterator[Problem]]
_RULES: tuple[tuple[frozenset[str], Rule], ...] = ((frozenset({"hosts", "shards", "sentinel", "proxy"}), _dangling_hosts),)


def problems(topology: Topology, broken: frozenset[str] = frozenset()) -> list[Problem]:
    """All that contradicts itself; rules about sections in `broken` are left out."""
    return [problem for needs, rule in _RULES if not needs & broken for problem in rule(topology)]


def warnings(topology: Topology) -> list[str]:
    """What works but will disappoint, a sentence each."""
    return []

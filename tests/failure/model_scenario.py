"""What the model of sentinels and proxies is played with: the adversary's choices, and what counts as a violation.

Rule: data only; times are simulated milliseconds. Used by: the other model_*.py files and test_lease_model.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from shoal.sentinel import Timing
from shoal.topology import Endpoint

NAME = "shard"
DOWN_AFTER = 1000
FAILOVER_TIMEOUT = 2000
PING_PERIOD, INFO_PERIOD_IN_FAILOVER, ASK_PERIOD, PUBLISH_PERIOD = 1000, 1000, 1000, 2000
TILT_TRIGGER, TILT_PERIOD = 2000, 30_000
POLL_PERIOD, POLL_TIMEOUT = 100, 500
NS = 1_000_000
SERVERS = tuple(Endpoint("10.0.0.1", 6379 + n) for n in range(3))
SENTINELS = tuple(Endpoint("10.0.1.1", 26379 + n) for n in range(3))


@dataclass(frozen=True)
class Outage:
    """A server that a sentinel cannot reach for a time: silent, or refusing connections."""

    start: int
    end: int
    sentinels: frozenset[int]
    server: int = 0
    refused: bool = False


@dataclass(frozen=True)
class Scenario:
    """What the adversary chose. Spans are (least, most) in ms."""

    seed: int
    tick: tuple[int, int] = (52, 100)
    delay: tuple[int, int] = (0, 3)
    poll_delay: tuple[int, int] = (0, 3)
    event_delay: tuple[int, int] = (0, 3)
    poll_loss: float = 0.0
    event_loss: float = 0.0
    outages: tuple[Outage, ...] = ()
    forced: tuple[tuple[int, int], ...] = ()
    """(when, which sentinel) is told SENTINEL FAILOVER."""
    steps: tuple[tuple[int, int, int], ...] = ()
    """(when, which sentinel, by how much) its clock jumps."""
    blind: frozenset[int] = frozenset()
    """Sentinels that no proxy can reach."""
    cut: int = 10**9
    """From when on the proxies reach no sentinel at all."""
    strangers: frozenset[int] = frozenset()
    """Two sentinels that do not reach each other from `apart` on."""
    apart: int = 10**9
    not_before: int = 0
    """When sentinels may fail over first: there was a failed attempt before we began to look."""
    slow_reconf: int = 0
    """How long the leader waits for other replicas before it switches."""
    proxies: int = 1
    until: int = 8000


@dataclass
class Mutation:
    """What is broken on purpose, to see the model notice."""

    timing: Timing = field(default_factory=Timing)
    counts_from_reply: bool = False
    deaf: bool = False
    """Events are not read."""
    blind_to_flags: bool = False


class Promotion(NamedTuple):
    """A replica was told to be master."""

    when: int
    leader: int
    epoch: int
    server: int


class LeaseViolationError(AssertionError):
    """A lease on a master that had been replaced, or two leases on different masters."""

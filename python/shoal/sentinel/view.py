"""What the reducer decided, as immutable values: the view that the proxy, the supervisor and people read.

Rule: a view holds for the moment it was made (`at_ns`, CLOCK_BOOTTIME) and carries its own end in the lease deadlines;
nothing in it must be asked of a sentinel again. Whatever is withheld says why in a sentence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.topology import Endpoint

NO_LEASE = 0
FOREVER_NS = 2**63 - 1


class LeaseRule(StrEnum):
    """What a pool asks of sentinels before it writes (the topology's `lease`), strictest first."""

    REQUIRE = "require"
    UNSAFE = "unsafe"
    NONE = "none"


class Vote(NamedTuple):
    """One sentinel's word for a master: it counts until then, or does not count, and why."""

    until_ns: int
    why_not: str | None = None


class Master(NamedTuple):
    """A master as a majority names it."""

    endpoint: Endpoint
    config_epoch: int


@dataclass(frozen=True, slots=True)
class MasterView:
    """One master: where it is, until when it may be written to, and if not, why not."""

    name: str
    endpoint: Endpoint | None = None
    """Committed: named by a majority, and confirmed by whoever has to."""
    config_epoch: int = -1
    candidate: Master | None = None
    """Named by a majority at a config epoch at least as high, but not confirmed yet."""
    lease_until_ns: int = NO_LEASE
    hold_reason: str | None = None
    """Why there is no lease; None while there is one."""
    votes: Mapping[Endpoint, Vote] = field(default_factory=dict)

    def lease(self, rule: LeaseRule) -> int:
        """The deadline for writes under a pool's rule; 0 is no lease."""
        if self.endpoint is None:
            return NO_LEASE
        return FOREVER_NS if rule is LeaseRule.NONE else self.lease_until_ns


@dataclass(frozen=True, slots=True)
class SentinelView:
    """One sentinel, as far as it can be reached."""

    endpoint: Endpoint
    reachable: bool = False
    subscribed: bool = False
    tilt: bool = False
    last_seen_ns: int | None = None
    """When the last poll that it answered was sent."""
    why_not: str | None = None
    """Why it is not reachable."""


@dataclass(frozen=True, slots=True)
class View:
    """Everything at one moment."""

    at_ns: int
    masters: Mapping[str, MasterView]
    sentinels: Mapping[Endpoint, SentinelView]
    problems: tuple[str, ...] = ()
    """What makes the lease weaker than it should be: sentinels not configured, a quorum that is no majority."""
    heard: int = 0
    """Sentinels that have answered at least once."""

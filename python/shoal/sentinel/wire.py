"""What a sentinel says, in our words: the replies of SENTINEL MASTERS and INFO sentinel, and its published events.

Rule: only fields that the lease and the commit need are read; a reply that Sentinel would not give raises
SentinelError, an event that means nothing to us is None. Ages change with every reply, so they are kept apart from the
`Report`, which is the same object as long as nothing else changed. Called by `watch` (bytes in) and the reducer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from shoal.errors import SentinelError
from shoal.topology import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REPORTS_REMEMBERED = 1024
FAILED_OVER_STATES = frozenset({"reconf_slaves", "update_config"})


@dataclass(frozen=True, slots=True)
class Report:
    """What one sentinel says of one master, without the ages."""

    endpoint: Endpoint
    flags: frozenset[str]
    role_reported: str
    failover_state: str
    """Empty when no failover is in progress at this sentinel."""
    config_epoch: int
    down_after_ms: int
    quorum: int
    other_sentinels: int

    @property
    def failing_over(self) -> bool:
        return "failover_in_progress" in self.flags

    @property
    def promoted(self) -> bool:
        """The failover that this sentinel leads has its new master; `endpoint` is still the old one."""
        return self.failover_state in FAILED_OVER_STATES


class Said(NamedTuple):
    """A report with the one age that a vote is made of."""

    report: Report
    ok_ping_age_ms: int


_NAME = b"name"
_AGE = b"last-ok-ping-reply"
_FIXED = (b"ip", b"port", b"flags", b"role-reported", b"config-epoch", b"down-after-milliseconds", b"quorum")
_OTHERS = b"num-other-sentinels"
_STATE = b"failover-state"


class _Layout:
    """Where the fields stand in one master's flat list; Sentinel adds some only while they apply."""

    __slots__ = ("age", "fixed", "name")

    def __init__(self, fields: Sequence[bytes]) -> None:
        at = {field: 2 * index + 1 for index, field in enumerate(fields)}
        try:
            self.name = at[_NAME]
            self.age = at[_AGE]
            wanted = [at[field] for field in (*_FIXED, _OTHERS)]
        except KeyError as error:
            raise SentinelError(f"a sentinel's reply has no field {error.args[0]!r}") from None
        # with no failover the name of the master stands in for its state and is told apart by `_report`
        self.fixed: Callable[[Sequence[bytes]], tuple[bytes, ...]] = itemgetter(*wanted, at.get(_STATE, 0))


class MastersReply:
    """Reads replies of SENTINEL MASTERS; what is unchanged since the last reply is looked up, not parsed again."""

    def __init__(self) -> None:
        self._layouts: dict[tuple[bytes, ...], _Layout] = {}
        self._reports: dict[tuple[bytes, ...], Report] = {}

    def read(self, reply: object) -> dict[str, Said]:
        if not isinstance(reply, list):
            raise SentinelError(f"SENTINEL MASTERS was answered with {reply!r:.80}")
        try:
            return dict(self._master(item) for item in reply)
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            raise SentinelError(f"SENTINEL MASTERS was answered with something else: {error}") from None

    def _master(self, item: list[bytes]) -> tuple[str, Said]:
        fields = tuple(item[::2])
        layout = self._layouts.get(fields)
        if layout is None:
            self._bound(self._layouts)
            layout = self._layouts[fields] = _Layout(fields)
        values = layout.fixed(item)
        report = self._reports.get(values)
        if report is None:
            self._bound(self._reports)
            report = self._reports[values] = _report(values)
        return item[layout.name].decode(), Said(report, int(item[layout.age]))

    @staticmethod
    def _bound(memory: dict[tuple[bytes, ...], _Layout] | dict[tuple[bytes, ...], Report]) -> None:
        if len(memory) >= REPORTS_REMEMBERED:
            memory.clear()


def _report(values: tuple[bytes, ...]) -> Report:
    host, port, flags, role, epoch, down_after, quorum, others, state = (value.decode() for value in values)
    return Report(
        endpoint=Endpoint(host, int(port)),
        flags=frozenset(flags.split(",")),
        role_reported=role,
        failover_state="" if state == "name" else state,
        config_epoch=int(epoch),
        down_after_ms=int(down_after),
        quorum=int(quorum),
        other_sentinels=int(others),
    )


def read_tilt(info: object) -> bool:
    """Whether `INFO sentinel` says that the sentinel does not trust its own clock."""
    if isinstance(info, bytes):
        for line in info.split(b"\r\n"):
            if line.startswith(b"sentinel_tilt:"):
                return line != b"sentinel_tilt:0"
    raise SentinelError(f"INFO sentinel was answered with {info!r:.80}")


class Kind(Enum):
    """What an event means to us."""

    FAILOVER = auto()
    """The sentinel itself is failing this master over."""
    VOTE = auto()
    """The sentinel voted for a leader; the event does not say for which master."""
    EPOCH = auto()
    """The sentinel learnt of a new epoch; the event does not say for which master."""
    ODOWN = auto()
    SDOWN = auto()
    TILT = auto()
    CALM = auto()
    """It left tilt."""
    LOOK = auto()
    """Something changed that the next poll will show."""


KINDS: dict[str, Kind] = {
    "+try-failover": Kind.FAILOVER,
    "+elected-leader": Kind.FAILOVER,
    "+selected-slave": Kind.FAILOVER,
    "+promoted-slave": Kind.FAILOVER,
    "+vote-for-leader": Kind.VOTE,
    "+new-epoch": Kind.EPOCH,
    "+odown": Kind.ODOWN,
    "+sdown": Kind.SDOWN,
    "+tilt": Kind.TILT,
    "-tilt": Kind.CALM,
    "-sdown": Kind.LOOK,
    "-odown": Kind.LOOK,
    "+switch-master": Kind.LOOK,
    "+config-update-from": Kind.LOOK,
    "+failover-end": Kind.LOOK,
    "+failover-end-for-timeout": Kind.LOOK,
    "+monitor": Kind.LOOK,
    "-monitor": Kind.LOOK,
    "+reset-master": Kind.LOOK,
    "+set": Kind.LOOK,
    "+sentinel": Kind.LOOK,
}
KIND_PREFIXES = {"+failover-state-": Kind.FAILOVER, "-failover-abort-": Kind.LOOK}
OF_NO_MASTER = frozenset({Kind.VOTE, Kind.EPOCH, Kind.TILT, Kind.CALM})


@dataclass(frozen=True, slots=True)
class Event:
    """One published event; `master` is None where Sentinel does not name one."""

    channel: str
    kind: Kind
    master: str | None = None
    leader: str | None = None
    """The id of the sentinel that a vote was given to."""


def read_event(channel: bytes, payload: bytes) -> Event | None:
    """Read an event; None if it is none of ours, or is about a replica or a sentinel that went down."""
    name = channel.decode(errors="replace")
    kind = KINDS.get(name) or next((k for prefix, k in KIND_PREFIXES.items() if name.startswith(prefix)), None)
    if kind is None:
        return None
    words = payload.decode(errors="replace").split(" ")
    if kind is Kind.VOTE:
        return Event(name, kind, leader=words[0])
    if kind in OF_NO_MASTER:
        return Event(name, kind)
    master = _master_of(name, words)
    if master is None or (kind is Kind.SDOWN and words[0] != "master"):
        return None
    return Event(name, kind, master)


def _master_of(channel: str, words: Sequence[str]) -> str | None:
    """The master's name in "master NAME ip port ..." or in "slave NAME ip port @ MASTER ip port"."""
    if channel == "+switch-master":
        return words[0]
    if "@" in words[:-1]:
        return words[words.index("@") + 1]
    return words[1] if len(words) > 1 and words[0] == "master" else None

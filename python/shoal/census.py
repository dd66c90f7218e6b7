"""What all sentinels know at one moment: each master with its replicas and settings, and who did not answer.

    every sentinel: SENTINEL MYID, MASTERS, REPLICAS, SENTINELS ──► Heard ──┐
                                                       (or why not) ────────┴──► merge ──► Known

Rule: all are asked at once, each within a time limit, and one that fails is an answer and not an error; what they say
differently is decided by the highest config epoch and then by the most voices, and told. It is one look, for those who
want to know how a deployment is made up; who follows a master uses `watch`. Called by `tie` and `shoal import`.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from shoal.errors import SentinelError
from shoal.resp import RespConnection, why
from shoal.topology import Endpoint, majority

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

ANSWER_TIMEOUT = 1.0


class Settings(NamedTuple):
    """What sentinels are told of a master, in Sentinel's own terms; times in milliseconds."""

    quorum: int
    down_after: int
    failover_timeout: int
    parallel_syncs: int


@dataclass(frozen=True, slots=True)
class Said:
    """What one sentinel says of one master; the other sentinels by their ids."""

    master: Endpoint
    config_epoch: int
    settings: Settings
    replicas: tuple[Endpoint, ...] = ()
    down: frozenset[Endpoint] = frozenset()
    others: Mapping[str, Endpoint] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Heard:
    """What one sentinel says of all its masters."""

    id: str
    masters: Mapping[str, Said]


@dataclass(frozen=True, slots=True)
class Group:
    """One master with its replicas, as all sentinels together know it."""

    name: str
    master: Endpoint
    replicas: tuple[Endpoint, ...]
    """All that any sentinel knows."""
    down: frozenset[Endpoint]
    """Those replicas that no sentinel reaches."""
    settings: Settings
    """Each as most sentinels have it."""
    sentinels: tuple[Endpoint, ...]
    """All that watch it, also those that were not asked, at the address that the others have for them."""
    said_by: tuple[Endpoint, ...]
    disagreements: tuple[str, ...] = ()
    """A sentence for each setting that not all have alike."""

    def members(self) -> tuple[Endpoint, ...]:
        return (self.master, *self.replicas)


@dataclass(frozen=True, slots=True)
class Known:
    """What the sentinels know: the groups by their master's name, and who did not answer, and why."""

    asked: tuple[Endpoint, ...]
    groups: Mapping[str, Group]
    silent: Mapping[Endpoint, str] = field(default_factory=dict)

    def why_not_enough(self) -> str | None:
        """Why this must not be relied on; None if a majority of the sentinels answered."""
        count, answered = len(self.asked), len(self.asked) - len(self.silent)
        if answered >= majority(count):
            return None
        reasons = ", ".join(f"{sentinel} ({reason})" for sentinel, reason in self.silent.items())
        return f"{answered} of {count} sentinels answered, a majority is {majority(count)}: {reasons}"


async def groups(sentinels: Sequence[Endpoint], password: str | None) -> Known:
    """Ask all sentinels at once, each with a time limit; one that fails is named with its reason and never raised."""
    answers = await asyncio.gather(*(_hear(sentinel, password) for sentinel in sentinels))
    heard = {at: one for at, one in zip(sentinels, answers, strict=True) if isinstance(one, Heard)}
    silent = {at: one for at, one in zip(sentinels, answers, strict=True) if isinstance(one, str)}
    return Known(tuple(sentinels), merge(heard), silent)


async def _hear(sentinel: Endpoint, password: str | None) -> Heard | str:
    try:
        return await _ask(sentinel, password)
    except SentinelError as error:
        return error.what
    except socket.gaierror as error:
        return error.strerror or "its host has no address"
    except UnicodeError:  # of a host that no name server could be asked for
        return "its host is not a name"
    except OSError as error:
        return why(error)


async def _ask(sentinel: Endpoint, password: str | None) -> Heard:
    with await RespConnection.open(sentinel, password=password, timeout=ANSWER_TIMEOUT) as connection:
        commands = [("SENTINEL", "MYID"), ("SENTINEL", "MASTERS")]
        identity, masters = await connection.ask(commands, ANSWER_TIMEOUT)
        try:
            states = {state["name"]: state for state in map(_fields, masters)}
            about = [("SENTINEL", word, name) for name in states for word in ("REPLICAS", "SENTINELS")]
            replies = iter(await connection.ask(about, ANSWER_TIMEOUT))
            said = {name: _said(state, next(replies), next(replies)) for name, state in states.items()}
            return Heard(identity.decode(), said)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SentinelError(f"does not answer as Sentinel does: {error!r:.80}") from None


def _said(state: Mapping[str, str], replicas: Any, sentinels: Any) -> Said:
    followers = [_fields(item) for item in replicas]
    down = (one for one in followers if {"s_down", "o_down", "disconnected"} & set(one["flags"].split(",")))
    return Said(
        _endpoint(state),
        int(state["config-epoch"]),
        Settings(
            quorum=int(state["quorum"]),
            down_after=int(state["down-after-milliseconds"]),
            failover_timeout=int(state["failover-timeout"]),
            parallel_syncs=int(state["parallel-syncs"]),
        ),
        tuple(map(_endpoint, followers)),
        frozenset(map(_endpoint, down)),
        {other["runid"]: _endpoint(other) for other in map(_fields, sentinels)},
    )


def _fields(item: Sequence[bytes]) -> dict[str, str]:
    words = [word.decode() for word in item]
    return dict(zip(words[::2], words[1::2], strict=True))


def _endpoint(fields: Mapping[str, str]) -> Endpoint:
    return Endpoint(fields["ip"], int(fields["port"]))


def merge(heard: Mapping[Endpoint, Heard]) -> dict[str, Group]:
    """What all sentinels say, as one group for each master that any of them watches."""
    names = sorted({name for one in heard.values() for name in one.masters})
    return {name: _group(name, {at: one for at, one in heard.items() if name in one.masters}) for name in names}


def _group(name: str, heard: Mapping[Endpoint, Heard]) -> Group:
    said = {at: one.masters[name] for at, one in heard.items()}
    epoch = max(one.config_epoch for one in said.values())
    master = _most_common(one.master for one in said.values() if one.config_epoch == epoch)
    members = dict.fromkeys(member for one in said.values() for member in (one.master, *one.replicas))
    up = {replica for one in said.values() for replica in one.replicas if replica not in one.down}
    replicas = tuple(sorted(member for member in members if member != master))
    return Group(
        name=name,
        master=master,
        replicas=replicas,
        down=frozenset(replicas) - up,
        settings=Settings(*map(_most_common, zip(*(one.settings for one in said.values()), strict=True))),
        sentinels=_all_sentinels(name, heard),
        said_by=tuple(said),
        disagreements=tuple(_disagreements(said)),
    )


def _all_sentinels(name: str, heard: Mapping[Endpoint, Heard]) -> tuple[Endpoint, ...]:
    """The sentinels that were asked, in that order, then the others; an address that others have for one is its own."""
    told = {id_: at for one in heard.values() for id_, at in one.masters[name].others.items()}
    asked = [told.pop(one.id, at) for at, one in heard.items()]
    return tuple(dict.fromkeys([*asked, *sorted(told.values())]))


def _disagreements(said: Mapping[Endpoint, Said]) -> Iterator[str]:
    for index, word in enumerate(Settings._fields):
        having: dict[int, list[str]] = {}
        for at, one in said.items():
            having.setdefault(one.settings[index], []).append(str(at))
        if len(having) > 1:
            yield f"{word} is " + ", ".join(f"{value} at {' and '.join(who)}" for value, who in having.items())


def _most_common(values: Iterable[Any]) -> Any:
    """Of two that are equally common, the greater: every sentinel list then gives the same."""
    return max(Counter(values).items(), key=lambda pair: (pair[1], pair[0]))[0]

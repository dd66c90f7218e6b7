"""Ties the servers of a nutcracker.yml to the masters that sentinels follow, so that the file's labels stay the ring.

    what the sentinels know (census) ────────────────┐
    the file: a label and an address of each server ─┴──► tie ──► label → master's name

Rule: a server is tied to exactly one master, and no two servers to the same; whatever leaves a doubt is an error, since
a wrong tie sends keys where they are not. A label that is a master's name decides; else the address does, as that of
the master or of a replica in its group, so a file may still name the master of last year. Nothing is kept: the caller
ties again at each start and reload. Called by the daemon and by `shoal import`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from shoal.census import groups
from shoal.errors import ConfigError
from shoal.topology import Endpoint, UnixSocket
from shoal.topology.values import is_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from shoal.census import Group
    from shoal.nutcracker import Pool

    Address = Endpoint | UnixSocket
    Resolve = Callable[[str], Sequence[str]]

ASK_AGAIN = 0.5
REPORT_PERIOD = 10.0

_NOWHERE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be tied: a pool's servers by their labels, the sentinels to ask, and where the file names each."""

    servers: Mapping[str, Address]
    sentinels: Sequence[Endpoint]
    password: str | None = field(default=None, repr=False)
    where: Mapping[str, str] = field(default_factory=dict)


def wanted_by(pool: Pool, file: str) -> Wanted:
    """What a pool of a nutcracker.yml wants tied; `file` is what errors call the file."""
    return Wanted(
        {server.label: server.address for server in pool.servers},
        pool.sentinels,
        pool.redis_auth,
        {server.label: f"{file}:{server.line} {pool.name}.servers" for server in pool.servers},
    )


async def wait_for_ties(
    wanted: Wanted,
    report: Callable[[str], None],
    resolve: Resolve,
    heard: Callable[[Mapping[str, Group]], None] = lambda _: None,
) -> dict[str, str]:
    """The master's name for each label, as soon as a majority of the sentinels answers; ConfigError as `tie` has it.

    `report` is told why it still waits: at once, and then every ten seconds. `heard` is given what the sentinels know.
    """
    loop = asyncio.get_running_loop()
    report_due = loop.time()
    while True:
        known = await groups(wanted.sentinels, wanted.password)
        missing = known.why_not_enough()
        if missing is None:
            heard(known.groups)
            # in a thread, because names are looked up
            return await asyncio.to_thread(tie, wanted.servers, known.groups, resolve, where=wanted.where)
        if loop.time() >= report_due:
            report(missing)
            report_due = loop.time() + REPORT_PERIOD
        await asyncio.sleep(ASK_AGAIN)


def tie(
    servers: Mapping[str, Address],
    known: Mapping[str, Group],
    resolve: Resolve,
    *,
    where: Mapping[str, str] = _NOWHERE,
) -> dict[str, str]:
    """The name of each server's master by the server's label; one ConfigError with all that cannot be tied.

    `resolve` gives the addresses of a host's name, or none; `where` says where in the file a label stands.
    """
    tying = _Tying(known, resolve, where)
    ties: dict[str, str] = {}
    for label, address in servers.items():
        name = tying.master_of(label, address)
        if name is not None:
            ties[label] = name
    tying.refuse_two_at_one(ties)
    if tying.errors:
        raise ConfigError.together(tying.errors, "servers")
    return ties


class _Tying:
    """One attempt, with what is wrong so far."""

    def __init__(self, known: Mapping[str, Group], resolve: Resolve, where: Mapping[str, str]) -> None:
        self.errors: list[ConfigError] = []
        self._known = known
        self._resolve = resolve
        self._where = where
        self._hosts: dict[str, frozenset[str]] = {}
        self._groups_at: dict[tuple[str, int], dict[str, None]] = {}
        for group in known.values():
            for member in group.members():
                for host in self._named(member.host):
                    self._groups_at.setdefault((host, member.port), {})[group.name] = None

    def master_of(self, label: str, address: Address) -> str | None:
        """The master's name; None if that is an error, which is noted."""
        found = self._found_at(address)
        if label in self._known and (not found or label in found):
            return label
        if label not in self._known and len(found) == 1:
            return found[0]
        if label in self._known:
            what = f'server "{label}" has the name of one master, but {address} belongs to {_quoted(found)}'
            self._wrong(label, what, "give it an address of the master that it is named after, or another name")
        elif found:
            hint = f"if it is none of its replicas any more, `SENTINEL RESET {found[-1]}` makes a sentinel forget it"
            self._wrong(label, f"{address} belongs to more than one master: {_quoted(found)}", hint)
        else:
            self._unknown(label, address)
        return None

    def refuse_two_at_one(self, ties: Mapping[str, str]) -> None:
        first: dict[str, str] = {}
        for label, name in ties.items():
            earlier = first.setdefault(name, label)
            if earlier != label:
                place = f" ({self._where[earlier]})" if earlier in self._where else ""
                what = f'servers "{earlier}"{place} and "{label}" are both of master "{name}"'
                self._wrong(label, what, "each server of a pool needs a master of its own")

    def _unknown(self, label: str, address: Address) -> None:
        known = ", ".join(f"{group.name} ({group.master})" for group in self._known.values())
        hint = f"the masters they know: {known}" if known else "they know no master at all: `sentinel monitor` it"
        place = "" if label.rstrip(":") == str(address) else f" at {address}"
        if isinstance(address, UnixSocket):
            hint = f"a unix socket is found by its name alone; {hint}"
        elif not self._named(address.host) - {address.host.lower()} and not is_address(address.host):
            place += ", whose host has no address now"
        self._wrong(label, f'no sentinel knows server "{label}"{place}', hint)

    def _wrong(self, label: str, what: str, hint: str) -> None:
        self.errors.append(ConfigError(what, where=self._where.get(label), hint=hint))

    def _found_at(self, address: Address) -> list[str]:
        if isinstance(address, UnixSocket):
            return []
        hosts = sorted(self._named(address.host))
        return list(dict.fromkeys(name for host in hosts for name in self._groups_at.get((host, address.port), ())))

    def _named(self, host: str) -> frozenset[str]:
        """All that a host is known by: its addresses in one form, and its name, which sentinels may use too."""
        if host not in self._hosts:
            text = [host] if is_address(host) else self._resolve(host)
            names = {str(ipaddress.ip_address(one)) for one in text if is_address(one)}
            self._hosts[host] = frozenset(names if is_address(host) else {host.lower(), *names})
        return self._hosts[host]


def _quoted(names: Iterable[str]) -> str:
    return " and ".join(f'"{name}"' for name in names)


def addresses_of(host: str) -> Sequence[str]:
    """The addresses of a host's name as the name server has them now; none if it does not know it. It may wait."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return [str(entry[4][0]) for entry in found]
